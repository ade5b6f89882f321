/**
 * ConfigMaps and Secrets that this node's pods use, each watched by name while a pod holds it. A kubelet may read no others,
 * so there is never a watch over all of them. Invariant: what `get` returns is at least as new as the last change handed out. One that is
 * immutable is watched no longer: pods that hold it keep it, whatever is made under its name meanwhile.
 */

import type { KubeObject } from '../api/meta.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { isReason } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { Informer } from '../client/informer.ts';
import type { ResourceId, Transport } from '../client/transport.ts';

interface Held {
  readonly informer: Informer<KubeObject>;
  readonly stop: AbortController;
  /** By pod uid. */
  readonly holders: Map<string, () => void>;
  linger: Timer | undefined;
  /** What is immutable, once it was seen. */
  final: KubeObject | undefined;
}

/** The next pod of a namespace mostly wants what the last one had, its root certificate at least. */
const LINGER_MS = 60_000;
const SYNC_MS_MAX = 300;

export class References {
  readonly #transport: Transport;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #held = new Map<string, Held>();

  constructor(options: { transport: Transport; log: Logger; clock: Clock }) {
    this.#transport = options.transport;
    this.#log = options.log;
    this.#clock = options.clock;
  }

  /** Undefined when it does not exist; rejects when the API server cannot be asked. */
  async get<T extends KubeObject>(of: ResourceId, namespace: string, name: string): Promise<T | undefined> {
    const held = this.#held.get(key(of, namespace, name));
    // The watch that begins lists the object anyway.
    if (held && !held.informer.hasSynced)
      await Promise.race([held.informer.synced, this.#clock.sleep(SYNC_MS_MAX, held.stop.signal)]);
    const known = held?.final ?? held?.informer.get(`${namespace}/${name}`);
    if (known) return known as T;
    try {
      return (await this.#transport.get({ of, namespace, name })) as T;
    } catch (error) {
      if (isReason(error, 'NotFound')) return undefined;
      throw error;
    }
  }

  /** Keeps the object watched for the pod; `changed` runs at every change after the first sight. Repeating it is harmless. */
  hold(podUid: string, of: ResourceId, namespace: string, name: string, changed: () => void): void {
    const at = key(of, namespace, name);
    let held = this.#held.get(at);
    if (!held) {
      const informer = new Informer<KubeObject>({
        transport: this.#transport,
        of,
        namespace,
        fieldSelector: `metadata.name=${name}`,
        log: this.#log,
        clock: this.#clock,
      });
      held = { informer, stop: new AbortController(), holders: new Map(), linger: undefined, final: undefined };
      this.#held.set(at, held);
      const mine = held;
      const { holders, stop } = held;
      informer.onChange(change => {
        if ((change.object as { readonly immutable?: boolean } | undefined)?.immutable) {
          mine.final = change.object;
          stop.abort();
        }
        if (change.old === undefined && !informer.hasSynced) return;
        for (const notify of holders.values()) notify();
      });
      void informer.run(held.stop.signal);
    }
    held.linger?.cancel();
    held.linger = undefined;
    held.holders.set(podUid, changed);
  }

  release(podUid: string): void {
    for (const [at, held] of this.#held) {
      if (!held.holders.delete(podUid) || held.holders.size > 0) continue;
      const last = held;
      if (held.final) {
        this.#held.delete(at);
        continue;
      }
      held.linger = this.#clock.after(
        LINGER_MS,
        () => {
          last.stop.abort();
          this.#held.delete(at);
        },
        { background: true },
      );
    }
  }

  stop(): void {
    for (const held of this.#held.values()) {
      held.linger?.cancel();
      held.stop.abort();
    }
    this.#held.clear();
  }
}

function key(of: ResourceId, namespace: string, name: string): string {
  return `${of.resource}/${namespace}/${name}`;
}
