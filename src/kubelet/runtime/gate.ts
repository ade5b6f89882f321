/**
 * Lets a few tasks run at a time. Invariant: a place is handed on in order of arrival, in turn between
 * tasks that are new and those that are repeated, and comes back however its task ends.
 * It knows nothing of what the tasks do and cancels none.
 */

import { TwoLines } from '../two-lines.ts';

export class Gate {
  #free: number;
  readonly #waiting = new TwoLines<() => void>();
  constructor(size: number) {
    this.#free = size;
  }
  async run<T>(task: () => Promise<T>, line: { readonly isFirst: boolean }): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>(resolve => this.#waiting.push(resolve, line));
    try {
      return await task();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }
}
