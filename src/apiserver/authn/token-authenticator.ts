/**
 * What knows bearer tokens of one sort, and their union in order: the first that knows the token decides. An authenticator that
 * fails leaves the word to the others; what it said is told when none of them knows the token.
 */

import type { UserInfo } from '../request.ts';

export interface Verified {
  readonly user: UserInfo;
  /** Those of the wanted audiences that the token has. */
  readonly audiences: readonly string[];
  /** What the audit log is to tell of its use. */
  readonly notes?: readonly Note[];
  /** What whoever uses it is to be told. */
  readonly warning?: string;
}

export type Note = readonly [key: string, value: string];

export interface TokenAuthenticator {
  /** The user of a token for any of `audiences`; undefined for a token of another sort. Throws for a bad one. */
  verify(token: string, audiences: readonly string[]): Verified | undefined | Promise<Verified | undefined>;
}

export class TokenUnion implements TokenAuthenticator {
  readonly #members: readonly TokenAuthenticator[];
  constructor(members: readonly TokenAuthenticator[]) {
    this.#members = members;
  }

  /** Answers at once where the members do. */
  verify(token: string, audiences: readonly string[]): Verified | undefined | Promise<Verified | undefined> {
    return this.#ask({ token, audiences, errors: [] }, 0);
  }

  #ask(
    asked: { readonly token: string; readonly audiences: readonly string[]; readonly errors: Error[] },
    from: number,
  ): Verified | undefined | Promise<Verified | undefined> {
    for (let at = from; at < this.#members.length; at++) {
      try {
        const found = this.#members[at]!.verify(asked.token, asked.audiences);
        if (found instanceof Promise)
          return found.then(
            later => later ?? this.#ask(asked, at + 1),
            (error: Error) => {
              asked.errors.push(error);
              return this.#ask(asked, at + 1);
            },
          );
        if (found) return found;
      } catch (error) {
        asked.errors.push(error as Error);
      }
    }
    const [first, ...more] = asked.errors;
    if (!first) return undefined;
    throw more.length === 0 ? first : new Error(`[${asked.errors.map(({ message }) => message).join(', ')}]`);
  }
}

/** Decisions remembered for a while, the oldest given up first. Times are of a monotonic clock. */
export class TimedMemory<T> {
  readonly #entries = new Map<string, { readonly value: T; readonly untilMs: number }>();
  readonly #limit: number;
  constructor(limit: number) {
    this.#limit = limit;
  }
  get(key: string, nowMs: number): T | undefined {
    const entry = this.#entries.get(key);
    if (entry && entry.untilMs > nowMs) return entry.value;
    if (entry) this.#entries.delete(key);
    return undefined;
  }
  set(key: string, value: T, untilMs: number): void {
    if (this.#entries.size >= this.#limit) this.#entries.delete(this.#entries.keys().next().value!);
    this.#entries.set(key, { value, untilMs });
  }
  clear(): void {
    this.#entries.clear();
  }
}
