/** Steps about one thing, one after the other, in the order in which they were asked for; steps about other things do not wait. */

export class Turns {
  readonly #last = new Map<string, Promise<void>>();

  /** A step that fails lets the next one begin. */
  run<T>(key: string, step: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key) ?? Promise.resolve();
    const turn = before.then(step);
    const settled = turn.then(
      () => undefined,
      () => undefined,
    );
    this.#last.set(key, settled);
    void settled.then(() => {
      if (this.#last.get(key) === settled) this.#last.delete(key);
    });
    return turn;
  }
}
