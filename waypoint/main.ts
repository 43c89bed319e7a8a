/**
 * The L7 proxy of a service. Not part of this release: whoever starts one is told so, and a service
 * that names a waypoint is refused by agents, never reached around it.
 */
process.stderr.write("Cannot run a waypoint: not part of this release yet\n");
process.exitCode = 2;
