/** How a process reaches the control server and proves to it who it is: for discovery and CA. */
export interface ControlEndpoint {
  /** `https://host:port`; anything but https is refused. */
  readonly url: URL;
  /** The name to look for in the server's certificate, where it is not the host of `url`. */
  readonly serverName: string | undefined;
  /**
   * Roots that the server's certificate must lead to, in PEM; undefined trusts the system's. Read
   * anew for each connection, so that a rotated root needs no restart.
   */
  readonly readRoots: () => Promise<string | undefined>;
  /** The bearer token; undefined sends none. Read anew for each connection: tokens expire. */
  readonly readToken: () => Promise<string | undefined>;
  /** Sent besides the token: `clusterid`, and what XDS_HEADER_… or CA_HEADER_… add. */
  readonly headers: Readonly<Record<string, string>>;
}
