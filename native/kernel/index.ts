/**
 * Calls to the kernel that Node does not have: BPF objects, maps and links, sockets in another
 * network namespace. One call per function, and no word of what a mesh is.
 *
 * All of it is synchronous, and all of it needs privileges (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN).
 */
export { errnoOf } from "./addon.ts";
export { BpfLink, BpfMap, BpfObject, type LinkInfo, type ObjectCosts } from "./bpf.ts";
export { cgroupExists, ensureBpffs } from "./file-systems.ts";
export {
  type Family,
  type ListenOptions,
  Netns,
  openNetns,
  type SocketOptions,
  type UdpSocketOptions,
} from "./netns.ts";
export { bindTransparent, originalDestination, setMark } from "./redirect.ts";
export { RingBuffer } from "./ring-buffer.ts";
export {
  claimAddress,
  closeDescriptor,
  fdOf,
  setLingerReset,
  socketCookie,
  type TcpInfo,
  tcpInfo,
} from "./sockets.ts";
