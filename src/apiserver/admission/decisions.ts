/**
 * What expressions of one request learn from `authorizer`. Expressions cannot wait, and a webhook authorizer answers late: what asks one is
 * run to its end with a refusal in the answer's place, counts for nothing, and is run again when the answer is there. So whatever is run
 * must have no effects but its result.
 */

import type { AuthorizerChain } from '../authz/authorizer.ts';
import type { AdmissionRequest, Decision, RequestAttributes } from '../request.ts';
import { AuthorizerValue } from './expressions.ts';

const NOT_YET: Decision = { allowed: false, reason: '' };

export class Decisions {
  readonly #authorizer: AuthorizerChain;
  readonly #known = new Map<string, Decision>();
  #asked: Promise<void>[] = [];

  constructor(authorizer: AuthorizerChain) {
    this.#authorizer = authorizer;
  }

  /** The variable `authorizer`. */
  variable({ attributes: { user, ...attributes } }: AdmissionRequest): AuthorizerValue {
    return new AuthorizerValue({ user, authorize: asked => this.#decide(asked) }, attributes);
  }

  /** The result of `run` once every question it asks is answered; at once where nobody had to be waited for. */
  settle<T>(run: () => T): T | Promise<T> {
    let result: { readonly value: T } | { readonly error: unknown };
    try {
      result = { value: run() };
    } catch (error) {
      result = { error };
    }
    if (this.#asked.length > 0) return this.#again(run);
    if ('error' in result) throw result.error;
    return result.value;
  }
  async #again<T>(run: () => T): Promise<T> {
    const asked = this.#asked;
    this.#asked = [];
    await Promise.all(asked);
    return this.settle(run);
  }

  #decide(attributes: RequestAttributes): Decision {
    const key = JSON.stringify(attributes);
    const known = this.#known.get(key);
    if (known) return known;
    const answer = this.#authorizer.authorize(attributes);
    if (!(answer instanceof Promise)) return answer;
    this.#asked.push(
      answer.then(decision => {
        this.#known.set(key, decision);
      }),
    );
    return NOT_YET;
  }
}
