/** Tokens that a webhook knows: a TokenReview to the server of a kubeconfig. Its answers, good and bad, are remembered for a while. */

import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { ServerAccess } from '../../client/kubeconfig.ts';
import type { UserInfo } from '../request.ts';
import { type Dial, Remote } from '../webhooks/remote.ts';
import { patiently } from '../webhooks/retries.ts';
import { TimedMemory, type TokenAuthenticator, type Verified } from './token-authenticator.ts';

const CALL_MS_MAX = 30_000;
const REMEMBERED_MAX = 4096;

export interface WebhookTokensOptions {
  readonly access: ServerAccess;
  readonly version: 'v1' | 'v1beta1';
  readonly cacheMs: number;
  /** Audiences of the API server. */
  readonly audiences: readonly string[];
  readonly dial?: Dial | undefined;
  readonly clock: Clock;
}

interface Review {
  readonly status?: {
    readonly authenticated?: boolean;
    readonly user?: {
      readonly username?: string;
      readonly uid?: string;
      readonly groups?: readonly string[];
      readonly extra?: Readonly<Record<string, readonly string[]>>;
    };
    readonly audiences?: readonly string[];
    readonly error?: string;
  };
}

type Answer = { readonly verified: Verified | undefined; readonly error?: string };

export class WebhookTokens implements TokenAuthenticator {
  readonly #options: WebhookTokensOptions;
  readonly #remote: Remote;
  readonly #answers = new TimedMemory<Answer>(REMEMBERED_MAX);

  constructor(options: WebhookTokensOptions) {
    this.#options = options;
    this.#remote = new Remote(options.access, options.dial);
  }

  async verify(token: string, audiences: readonly string[]): Promise<Verified | undefined> {
    const { clock, cacheMs } = this.#options;
    const id = `${audiences.join('\n')}\n\n${token}`;
    let answer = this.#answers.get(id, clock.monotonic());
    if (!answer) {
      answer = await this.#ask(token, audiences);
      this.#answers.set(id, answer, clock.monotonic() + cacheMs);
    }
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer.verified;
  }

  close(): void {
    this.#remote.close();
  }

  async #ask(token: string, audiences: readonly string[]): Promise<Answer> {
    const { access, version, audiences: own, clock } = this.#options;
    const review = {
      apiVersion: `authentication.k8s.io/${version}`,
      kind: 'TokenReview',
      metadata: {},
      spec: { token, audiences },
      status: { user: {} },
    };
    let reply: Review;
    try {
      reply = (await patiently(clock, () => this.#remote.json(access.server, { body: review, timeoutMs: CALL_MS_MAX })))
        .value as Review;
    } catch (error) {
      // What could not be asked is asked again next time.
      throw new Error(`[webhook] ${messageOf(error)}`);
    }
    const { authenticated, user, audiences: granted, error } = reply?.status ?? {};
    if (!authenticated) return error ? { verified: undefined, error } : { verified: undefined };
    // A webhook that says nothing of audiences speaks for the API server's.
    const common = audiences.filter(one => (granted?.length ? granted : own).includes(one));
    if (common.length === 0) return { verified: undefined };
    const { username = '', uid, groups = [], extra } = user ?? {};
    const made: UserInfo = {
      name: username,
      groups: [...groups],
      ...(uid ? { uid } : {}),
      ...(extra ? { extra } : {}),
    };
    return { verified: { user: made, audiences: common } };
  }
}
