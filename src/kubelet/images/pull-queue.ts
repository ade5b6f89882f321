/** Pulls wait for their turn: so many at a time, first come, first served. A pull that is given up while it waits leaves the queue. */

export class PullQueue {
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  /** `pullsMax` is asked at each turn. Rejects with the signal's reason when it aborts before the work began. */
  async run<T>(
    work: () => Promise<T>,
    options: { readonly pullsMax: number; readonly signal: AbortSignal },
  ): Promise<T> {
    const { pullsMax, signal } = options;
    signal.throwIfAborted();
    while (this.#running >= pullsMax) {
      await new Promise<void>(resolve => {
        const go = () => {
          signal.removeEventListener('abort', leave);
          resolve();
        };
        const leave = () => {
          const at = this.#waiting.indexOf(go);
          if (at >= 0) this.#waiting.splice(at, 1);
          resolve();
        };
        signal.addEventListener('abort', leave, { once: true });
        this.#waiting.push(go);
      });
      if (signal.aborted) {
        // The turn that this one may have been given is the next one's.
        this.#waiting.shift()?.();
        signal.throwIfAborted();
      }
    }
    this.#running++;
    try {
      return await work();
    } finally {
      this.#running--;
      this.#waiting.shift()?.();
    }
  }
}
