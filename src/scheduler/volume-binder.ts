/**
 * Serves the claims that waited for a pod's node, once it has one: names the claim in the volume that was found, or tells the
 * provisioner the node, and waits until all are bound. Invariant: from the decision on, before anything is written, the volume counts
 * as taken, so two pods of a burst never get one.
 */

import type { PersistentVolume, PersistentVolumeClaim } from '../api/core/v1.gen.ts';
import { BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE } from '../api/machinery/volume.ts';
import { keyOf } from '../api/meta.ts';
import type { Clock } from '../base/clock.ts';
import type { ResourceClient } from '../client/client.ts';
import type { Informer } from '../client/informer.ts';
import type { NodeInfo, PodInfo } from './node-info.ts';
import type { Lookup } from './plugin.ts';
import { claimNames, decide, podClaims, type VolumeDecision } from './pod-volumes.ts';

/** Upstream's bindTimeoutSeconds. */
const BIND_MS_MAX = 600_000;

export interface VolumeBinderOptions {
  readonly claims: Informer<PersistentVolumeClaim>;
  readonly volumes: Informer<PersistentVolume>;
  readonly claimClient: ResourceClient<PersistentVolumeClaim>;
  readonly volumeClient: ResourceClient<PersistentVolume>;
  readonly clock: Clock;
}

export class VolumeBinder {
  readonly #options: VolumeBinderOptions;
  readonly #waiters = new Set<() => void>();
  /** Volumes as they will be once written. */
  readonly #assumed = new Map<string, PersistentVolume>();

  constructor(options: VolumeBinderOptions) {
    this.#options = options;
    options.claims.onChange(() => {
      for (const check of this.#waiters) check();
    });
    options.volumes.onChange(({ object, old }) => {
      const name = (object ?? old)!.metadata.name;
      const assumed = this.#assumed.get(name);
      if (assumed && (!object || object.metadata.resourceVersion !== assumed.metadata.resourceVersion))
        this.#assumed.delete(name);
    });
  }
  volume(name: string): PersistentVolume | undefined {
    return this.#assumed.get(name) ?? this.#options.volumes.get(name);
  }

  /** Claims of the pod are still to be bound, once it has a node. */
  isNeeded(pod: PodInfo, lookup: Lookup): boolean {
    if (claimNames(pod).length === 0) return false;
    const claims = podClaims(pod, lookup);
    return !('rejection' in claims) && claims.waiting.length > 0;
  }

  /** Rejects when the claims are not bound in time, or their provisioner gave up on the node. Pods without such claims pass at once. */
  async bindClaims(
    pod: PodInfo,
    { node, lookup, signal }: { readonly node: NodeInfo; readonly lookup: Lookup; readonly signal: AbortSignal },
  ): Promise<void> {
    if (claimNames(pod).length === 0) return;
    const claims = podClaims(pod, lookup);
    if ('rejection' in claims) throw new Error(claims.rejection);
    if (claims.waiting.length === 0) return;
    const decision = decide(claims.waiting, { node: node.node, lookup });
    if ('reason' in decision) throw new Error(decision.reason);
    this.#assume(decision);
    const written = new Map<string, string>();
    try {
      await Promise.all([
        ...decision.bindings.map(({ volume }) =>
          this.#options.volumeClient.update(this.#assumed.get(volume.metadata.name)!),
        ),
        ...decision.provisions.map(async claim => {
          const { namespace = '', name } = claim.metadata;
          const stored = await this.#options.claimClient.patch(namespace, name, {
            metadata: { uid: claim.metadata.uid, annotations: { [SELECTED_NODE]: node.name } },
          });
          written.set(keyOf(claim), stored.metadata.resourceVersion!);
        }),
      ]);
    } catch (error) {
      for (const { volume } of decision.bindings) this.#assumed.delete(volume.metadata.name);
      throw error;
    }
    await this.#bound(claims.waiting, { written, node: node.name, signal });
  }

  #assume({ bindings }: VolumeDecision): void {
    for (const { claim, volume } of bindings) {
      const { namespace, name, uid, resourceVersion } = claim.metadata;
      const isNamed = volume.spec?.claimRef !== undefined;
      this.#assumed.set(volume.metadata.name, {
        ...volume,
        metadata: {
          ...volume.metadata,
          annotations: { ...volume.metadata.annotations, ...(isNamed ? {} : { [BOUND_BY_CONTROLLER]: 'yes' }) },
        },
        spec: {
          ...volume.spec,
          claimRef: {
            kind: 'PersistentVolumeClaim',
            apiVersion: 'v1',
            namespace: namespace!,
            name,
            uid: uid!,
            ...(resourceVersion ? { resourceVersion } : {}),
          },
        },
      });
    }
  }

  #bound(
    waiting: readonly PersistentVolumeClaim[],
    {
      written,
      node,
      signal,
    }: { readonly written: ReadonlyMap<string, string>; readonly node: string; readonly signal: AbortSignal },
  ): Promise<void> {
    const { claims, clock } = this.#options;
    return new Promise<void>((resolve, reject) => {
      const end = (error?: Error) => {
        timer.cancel();
        this.#waiters.delete(check);
        signal.removeEventListener('abort', aborted);
        if (error) reject(error);
        else resolve();
      };
      const check = () => {
        let isDone = true;
        for (const claim of waiting) {
          const key = keyOf(claim);
          const now = claims.get(key);
          if (!now || now.metadata.uid !== claim.metadata.uid)
            return end(new Error(`persistentvolumeclaim ${JSON.stringify(claim.metadata.name)} was deleted`));
          if (now.spec?.volumeName && now.metadata.annotations?.[BIND_COMPLETED] !== undefined) continue;
          isDone = false;
          const revision = written.get(key);
          const isSeen = revision !== undefined && Number(now.metadata.resourceVersion) >= Number(revision);
          if (isSeen && now.metadata.annotations?.[SELECTED_NODE] !== node)
            return end(new Error(`provisioning failed for PVC ${JSON.stringify(claim.metadata.name)}`));
        }
        if (isDone) end();
      };
      const aborted = () => end(new Error('scheduler stops'));
      const timer = clock.after(BIND_MS_MAX, () => end(new Error('timed out waiting for the condition')), {
        background: true,
      });
      signal.addEventListener('abort', aborted, { once: true });
      this.#waiters.add(check);
      check();
    });
  }
}
