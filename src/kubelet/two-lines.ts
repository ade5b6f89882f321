/**
 * Two lines before one door: of those who come for the first time and of those who come again. Invariant: each line is served in
 * order of arrival, and in turn with the other while somebody stands in both, so that a new pod does not wait behind a thousand
 * that crash, nor one that crashed behind ever new ones.
 */

export class TwoLines<T> {
  readonly #first: T[] = [];
  readonly #again: T[] = [];
  #isAgainsTurn = false;

  push(one: T, { isFirst }: { readonly isFirst: boolean }): void {
    (isFirst ? this.#first : this.#again).push(one);
  }
  /** Undefined when nobody waits. */
  shift(): T | undefined {
    const lines = this.#isAgainsTurn ? [this.#again, this.#first] : [this.#first, this.#again];
    const line = lines.find(({ length }) => length > 0);
    if (!line) return undefined;
    this.#isAgainsTurn = line === this.#first;
    return line.shift();
  }
}
