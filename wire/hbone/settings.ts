/**
 * What an operator may change about the tunnel. The defaults are those of Istio's ztunnel, so that
 * both ends of a mixed mesh behave alike.
 */
export interface HboneSettings {
  /** SETTINGS_INITIAL_WINDOW_SIZE: how much one stream may have under way to us. */
  readonly streamWindowBytes: number;
  /** How much all streams of one session together may have under way to us. */
  readonly connectionWindowBytes: number;
  /** SETTINGS_MAX_FRAME_SIZE, 16 KiB to 16 MiB - 1 (RFC 9113, 6.5.2). */
  readonly frameBytesMax: number;
  /**
   * Most streams that we open in one session; the peer may allow fewer.
   */
  readonly streamsPerSessionMax: number;
  /** SETTINGS_MAX_CONCURRENT_STREAMS that we advertise. */
  readonly inboundStreamsPerSessionMax: number;
  /** An outbound session without streams is closed after this. */
  readonly idleReleaseMs: number;
  readonly pingIntervalMs: number;
  /** A session whose PING has not been acknowledged for this long is dead. */
  readonly pingTimeoutMs: number;
  /** How long `TunnelListenerOptions.material` may take. */
  readonly materialTimeoutMs: number;
  /** From the end of the TCP handshake to the end of TLS, either end. */
  readonly handshakeTimeoutMs: number;
  /** How long the other end may take to answer a CONNECT: it connects to the application first. */
  readonly answerTimeoutMs: number;
}

export const DEFAULT_HBONE_SETTINGS: HboneSettings = {
  streamWindowBytes: 4 * 1024 * 1024,
  connectionWindowBytes: 16 * 1024 * 1024,
  frameBytesMax: 1024 * 1024,
  streamsPerSessionMax: 100,
  inboundStreamsPerSessionMax: 200,
  idleReleaseMs: 5 * 60_000,
  pingIntervalMs: 10_000,
  pingTimeoutMs: 20_000,
  materialTimeoutMs: 5_000,
  handshakeTimeoutMs: 10_000,
  answerTimeoutMs: 20_000,
};
