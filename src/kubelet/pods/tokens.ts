/** Service-account tokens of pods, kept until four fifths of their life are over (or a day), then asked for anew. */

import type { TokenRequest } from '../../api/authentication/v1.gen.ts';
import type { Pod } from '../../api/core/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import { SERVICE_ACCOUNTS } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';

const AGE_MS_MAX = 24 * 3_600_000;

export class TokenSource {
  readonly #transport: Transport;
  readonly #clock: Clock;
  readonly #known = new Map<string, { token: string; renewMs: number; expireMs: number }>();

  constructor(options: { transport: Transport; clock: Clock }) {
    this.#transport = options.transport;
    this.#clock = options.clock;
  }

  /** An old token that still holds is given out when a new one cannot be had. */
  async get(
    pod: Pod,
    request: { readonly audience: string | undefined; readonly expirationSeconds: number },
  ): Promise<string> {
    const { uid, name, namespace } = pod.metadata;
    const key = `${uid}\0${request.audience ?? ''}\0${request.expirationSeconds}`;
    const known = this.#known.get(key);
    const nowMs = this.#clock.now();
    if (known && nowMs < known.renewMs) return known.token;
    const body: TokenRequest = {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      metadata: { name: '' },
      spec: {
        audiences: request.audience ? [request.audience] : [],
        expirationSeconds: request.expirationSeconds,
        boundObjectRef: { kind: 'Pod', apiVersion: 'v1', name, ...(uid ? { uid } : {}) },
      },
    };
    try {
      const target = {
        of: SERVICE_ACCOUNTS,
        namespace: namespace!,
        name: pod.spec.serviceAccountName || 'default',
        subresource: 'token',
      };
      const reply = (await this.#transport.create(target, body)) as TokenRequest;
      const token = reply.status?.token;
      if (!token) throw new Error('the API server returned no token');
      const expireMs = Date.parse(reply.status!.expirationTimestamp ?? '') || nowMs + request.expirationSeconds * 1000;
      this.#known.set(key, { token, expireMs, renewMs: nowMs + Math.min((expireMs - nowMs) * 0.8, AGE_MS_MAX) });
      return token;
    } catch (error) {
      if (known && nowMs < known.expireMs) return known.token;
      throw new Error(`failed to fetch token: ${(error as Error).message}`);
    }
  }
  forget(podUid: string): void {
    for (const key of this.#known.keys()) if (key.startsWith(`${podUid}\0`)) this.#known.delete(key);
  }
}
