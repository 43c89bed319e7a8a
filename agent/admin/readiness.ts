/** What has to have happened before this agent may count as ready. */
export class Readiness {
  readonly #pending = new Map<string, () => boolean>();

  /** @param isDone  asked each time; what was done once may be undone */
  require(name: string, isDone: () => boolean): void {
    this.#pending.set(name, isDone);
  }

  /** Names of what has not happened yet, in the order of `require()`. */
  pending(): readonly string[] {
    return [...this.#pending].filter(([, isDone]) => !isDone()).map(([name]) => name);
  }
}
