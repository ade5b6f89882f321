/**
 * Passwords of BGP peers that Secrets hold, followed by name: only what a BGPPeer names is read. Invariant: after `follow` every
 * Secret named has been looked at once, so that no session is begun without the password that it is to have.
 */

import type { Secret } from '../../api/core/v1.gen.ts';
import type { BGPPeer } from '../../api/loadbalancer/v1beta1.ts';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import { Informer } from '../../client/informer.ts';
import { SECRETS } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';

const TYPE = 'kubernetes.io/basic-auth';

export interface PeerPasswordsOptions {
  readonly transport: Transport;
  readonly changed: () => void;
  readonly log: Logger;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

interface Followed {
  readonly informer: Informer<Secret>;
  readonly stop: AbortController;
}

export class PeerPasswords {
  readonly #options: PeerPasswordsOptions;
  readonly #followed = new Map<string, Followed>();

  constructor(options: PeerPasswordsOptions) {
    this.#options = options;
  }

  async follow(peers: readonly BGPPeer[]): Promise<void> {
    const wanted = new Map(peers.flatMap(({ spec }) => (spec.passwordSecret ? [[keyOf(spec), spec] as const] : [])));
    for (const [key, { stop }] of this.#followed)
      if (!wanted.has(key)) {
        stop.abort();
        this.#followed.delete(key);
      }
    for (const [key, { passwordSecret }] of wanted)
      if (!this.#followed.has(key)) this.#followed.set(key, this.#start(passwordSecret!));
    const { signal } = this.#options;
    const stopped = new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true }));
    await Promise.race([Promise.all([...this.#followed.values()].map(({ informer }) => informer.synced)), stopped]);
  }

  /** Throws what is wrong, by field. */
  of({ spec }: BGPPeer): string {
    const key = keyOf(spec);
    const secret = this.#followed.get(key)?.informer.get(key);
    if (!secret) throw new Error(`spec.passwordSecret: Not found: ${JSON.stringify(key)}: there is no such Secret`);
    if (secret.type !== TYPE)
      throw new Error(`spec.passwordSecret: Invalid value: ${JSON.stringify(key)}: must be a Secret of type ${TYPE}`);
    const password = Buffer.from(secret.data?.['password'] ?? '', 'base64').toString();
    if (!password)
      throw new Error(`spec.passwordSecret: Invalid value: ${JSON.stringify(key)}: the Secret has no key "password"`);
    return password;
  }

  #start({ namespace, name }: { readonly namespace: string; readonly name: string }): Followed {
    const { transport, log, clock, signal, changed } = this.#options;
    const stop = new AbortController();
    const fieldSelector = `metadata.name=${name}`;
    const informer = new Informer<Secret>({ transport, of: SECRETS, namespace, fieldSelector, log, clock });
    informer.onChange(changed);
    void informer.run(AbortSignal.any([signal, stop.signal]));
    return { informer, stop };
  }
}

function keyOf({ passwordSecret }: BGPPeer['spec']): string {
  return `${passwordSecret?.namespace}/${passwordSecret?.name}`;
}
