/** The half of a connection that wants to be connected, whichever kind it is of. */
import type { End } from "./end.ts";
import type { ConnectResult, Upstream } from "./engine.ts";
import { type EngineParts, failed, type Opened } from "./parts.ts";
import { EndRelay } from "./relay.ts";
import { discard, openUpstream } from "./upstream.ts";

type Joinable = Extract<Opened, { kind: "opened" }>;

/** One attempt at a time; `goneAway()` ends the one that is under way. */
export class Connecting {
  readonly #parts: EngineParts;
  #attempt: { readonly giveUp: () => void } | undefined;
  #isGone = false;

  constructor(parts: EngineParts) {
    this.#parts = parts;
  }

  /**
   * @param upstreamOpened  says so to the downstream, and makes an end of it
   * @throws TypeError while another attempt is under way
   */
  connect(
    upstream: Upstream,
    upstreamOpened: (responseHeaders: ReadonlyMap<string, string>) => End,
  ): Promise<ConnectResult> {
    if (this.#attempt) throw new TypeError("Cannot connect twice at a time");
    return new Promise((resolve, reject) => {
      const controller = new AbortController();
      const attempt = {
        giveUp: () => {
          this.#attempt = undefined;
          controller.abort();
          resolve(failed("downstreamClosed", "it ended before it was connected to anything"));
        },
      };
      this.#attempt = attempt;
      if (this.#isGone) {
        attempt.giveUp();
        return;
      }
      const opening = openUpstream(upstream, this.#parts, controller.signal);
      const isOver = () => {
        if (this.#attempt === attempt) this.#attempt = undefined;
      };
      const joining = opening.finally(isOver).then((opened) => {
        if (opened.kind === "failed") resolve(opened);
        else if (this.#isGone) discard(opened.end);
        else resolve(this.#join(opened, upstreamOpened));
      });
      joining.catch(reject);
    });
  }

  #join(
    { end, responseHeaders, peerUris }: Joinable,
    upstreamOpened: (responseHeaders: ReadonlyMap<string, string>) => End,
  ): ConnectResult {
    try {
      const relay = new EndRelay(upstreamOpened(responseHeaders), end);
      this.#parts.addRelay(relay);
      return { kind: "connected", relay, responseHeaders, peerUris };
    } catch (error) {
      // Headers that cannot be sent, say. Nobody would ever close what was opened for it.
      discard(end);
      throw error;
    }
  }

  /** The downstream is gone. Nothing is connected to it any more. */
  goneAway(): void {
    this.#isGone = true;
    this.#attempt?.giveUp();
  }
}
