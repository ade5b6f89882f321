/** Before a pod is bound: tells the provisioner the node of claims that waited for it, and waits until they are bound. */

import type { PersistentVolumeClaim } from '../api/core/v1.gen.ts';
import type { Clock } from '../base/clock.ts';
import type { ResourceClient } from '../client/client.ts';
import type { Informer } from '../client/informer.ts';
import type { PodInfo } from './node-info.ts';
import type { Lookup } from './plugin.ts';
import { waitingClaims } from './plugins/volume-binding.ts';

const SELECTED_NODE = 'volume.kubernetes.io/selected-node';
/** Upstream's bindTimeoutSeconds. */
const BIND_MS_MAX = 600_000;

export class VolumeWaiter {
  readonly #claims: Informer<PersistentVolumeClaim>;
  readonly #client: ResourceClient<PersistentVolumeClaim>;
  readonly #clock: Clock;
  readonly #waiters = new Set<() => void>();

  constructor(options: {
    claims: Informer<PersistentVolumeClaim>;
    client: ResourceClient<PersistentVolumeClaim>;
    clock: Clock;
  }) {
    this.#claims = options.claims;
    this.#client = options.client;
    this.#clock = options.clock;
    this.#claims.onChange(() => {
      for (const check of this.#waiters) check();
    });
  }

  /** Throws when a claim is not bound in time. Pods without waiting claims pass at once. */
  async bindClaims(pod: PodInfo, options: { node: string; lookup: Lookup; signal: AbortSignal }): Promise<void> {
    const names = waitingClaims(pod, options);
    if (names.length === 0) return;
    const namespace = pod.pod.metadata.namespace ?? '';
    await Promise.all(
      names.map(name =>
        this.#client.patch(namespace, name, { metadata: { annotations: { [SELECTED_NODE]: options.node } } }),
      ),
    );
    const bound = () => names.every(name => this.#claims.get(`${namespace}/${name}`)?.spec?.volumeName);
    await new Promise<void>((resolve, reject) => {
      const end = (error?: Error) => {
        timer.cancel();
        this.#waiters.delete(check);
        options.signal.removeEventListener('abort', aborted);
        if (error) reject(error);
        else resolve();
      };
      const check = () => {
        if (bound()) end();
      };
      const aborted = () => end(new Error('scheduler stops'));
      const timer = this.#clock.after(BIND_MS_MAX, () => end(new Error('timed out waiting for the condition')), {
        background: true,
      });
      options.signal.addEventListener('abort', aborted, { once: true });
      this.#waiters.add(check);
      check();
    });
  }
}
