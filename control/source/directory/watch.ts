import { type FSWatcher, watch } from "node:fs";
import { reasonOf } from "#core/errors.ts";

/**
 * Tells when anything happens in one of a set of folders. What happened it does not tell: events
 * are lost and merged by the kernel, so that only another look can say.
 */
export class FolderWatch {
  readonly #onEvent: () => void;
  readonly #watchers = new Map<string, { readonly mark: string; readonly watcher: FSWatcher }>();

  constructor(onEvent: () => void) {
    this.#onEvent = onEvent;
  }

  /**
   * Watches exactly `folders` from now on.
   *
   * @param folders  path to a mark that changes where another folder takes the path
   * @returns which cannot be watched, and why; and whether a watch is new, so that what happened in
   *   its folder before is not known
   */
  follow(folders: ReadonlyMap<string, string>): { failures: Map<string, string>; isNew: boolean } {
    const failures = new Map<string, string>();
    let isNew = false;
    for (const [folder, { mark }] of this.#watchers) {
      if (folders.get(folder) !== mark) this.#forget(folder);
    }
    for (const [folder, mark] of folders) {
      if (this.#watchers.has(folder)) continue;
      try {
        this.#watchers.set(folder, { mark, watcher: this.#open(folder) });
        isNew = true;
      } catch (error) {
        failures.set(folder, reasonOf(error));
      }
    }
    return { failures, isNew };
  }

  close(): void {
    for (const folder of [...this.#watchers.keys()]) this.#forget(folder);
  }

  #open(folder: string): FSWatcher {
    const watcher = watch(folder, { persistent: false }, () => this.#onEvent());
    // A watch that breaks is made anew by the look that follows.
    watcher.once("error", () => {
      this.#forget(folder);
      this.#onEvent();
    });
    return watcher;
  }

  #forget(folder: string): void {
    const watching = this.#watchers.get(folder);
    this.#watchers.delete(folder);
    watching?.watcher
      .removeAllListeners("error")
      .on("error", () => {})
      .close();
  }
}
