/**
 * Objects of one kind that are looked up by name, such as the Secrets that Ingresses mention: each is watched alone, from when it is
 * first wanted until it no longer is, so that nobody reads all Secrets to know three of them.
 */

import type { KubeObject } from '../api/meta.ts';
import type { Logger } from '../base/log.ts';
import { Informer } from '../client/informer.ts';
import type { ResourceId, Transport } from '../client/transport.ts';
import type { SecretRef } from './settings.ts';

interface Watched<T extends KubeObject> {
  readonly informer: Informer<T>;
  readonly stop: AbortController;
}

export class NamedObjects<T extends KubeObject> {
  readonly #options: { transport: Transport; of: ResourceId; log: Logger; changed: () => void };
  readonly #watched = new Map<string, Watched<T>>();

  constructor(options: { transport: Transport; of: ResourceId; log: Logger; changed: () => void }) {
    this.#options = options;
  }

  /** From now on exactly these are watched. */
  want(refs: Iterable<SecretRef>): void {
    const wanted = new Map([...refs].map(ref => [`${ref.namespace}/${ref.name}`, ref]));
    for (const [key, { stop }] of this.#watched) {
      if (wanted.has(key)) continue;
      stop.abort();
      this.#watched.delete(key);
    }
    for (const [key, ref] of wanted) if (!this.#watched.has(key)) this.#watched.set(key, this.#watch(ref));
  }
  get(ref: SecretRef): T | undefined {
    const key = `${ref.namespace}/${ref.name}`;
    return this.#watched.get(key)?.informer.get(key);
  }
  /** False until every object that is wanted has been looked for once. */
  get hasSynced(): boolean {
    return [...this.#watched.values()].every(({ informer }) => informer.hasSynced);
  }

  #watch({ namespace, name }: SecretRef): Watched<T> {
    const { transport, of, log, changed } = this.#options;
    const informer = new Informer<T>({ transport, of, namespace, fieldSelector: `metadata.name=${name}`, log });
    const stop = new AbortController();
    informer.onChange(changed);
    void informer.synced.then(changed);
    void informer.run(stop.signal);
    return { informer, stop };
  }
}
