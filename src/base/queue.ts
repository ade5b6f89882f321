/**
 * A bounded queue between a producer that must not wait and one consumer that iterates. When it is full, `push` returns
 * false and the producer must close it: an item is never dropped silently.
 */

export class BoundedQueue<T> implements AsyncIterable<T> {
  readonly #limit: number;
  #items: T[] = [];
  #head = 0;
  #closed = false;
  #error: unknown;
  #wake: (() => void) | undefined;

  constructor(limit: number) {
    this.#limit = limit;
  }
  get size(): number {
    return this.#items.length - this.#head;
  }
  push(item: T): boolean {
    if (this.#closed || this.size >= this.#limit) return false;
    this.#items.push(item);
    this.#wake?.();
    return true;
  }
  /** Ends the iteration after the items already queued; with an error, the iteration then throws it. */
  close(error?: unknown): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#error = error;
    this.#wake?.();
  }
  async *[Symbol.asyncIterator](): AsyncIterator<T> {
    try {
      for (;;) {
        while (this.#head < this.#items.length) {
          const item = this.#items[this.#head]!;
          this.#items[this.#head++] = undefined as T;
          if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
            this.#items = this.#items.slice(this.#head);
            this.#head = 0;
          }
          yield item;
        }
        this.#items = [];
        this.#head = 0;
        if (this.#closed) {
          if (this.#error !== undefined) throw this.#error;
          return;
        }
        await new Promise<void>(resolve => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
      }
    } finally {
      this.#closed = true;
    }
  }
}
