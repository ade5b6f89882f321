/**
 * Requests that hold the processor for long (large lists, large bodies) take turns: one each time the event loop comes
 * round, from each flow in rotation. Whatever came in between, such as a `kubectl get`, is answered between two of them.
 */

export class Turns {
  /** In rotation: the flow in front is next, and goes to the end. */
  readonly #flows = new Map<string, (() => void)[]>();
  #running = false;

  take(flow: string): Promise<void> {
    return new Promise(resolve => {
      const waiting = this.#flows.get(flow);
      if (waiting) waiting.push(resolve);
      else this.#flows.set(flow, [resolve]);
      if (this.#running) return;
      this.#running = true;
      setImmediate(() => this.#next());
    });
  }
  #next(): void {
    const first = this.#flows.entries().next();
    if (first.done) {
      this.#running = false;
      return;
    }
    const [flow, waiting] = first.value;
    const resolve = waiting.shift()!;
    this.#flows.delete(flow);
    if (waiting.length > 0) this.#flows.set(flow, waiting);
    setImmediate(() => this.#next());
    resolve();
  }
}
