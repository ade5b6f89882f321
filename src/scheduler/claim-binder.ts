/**
 * Reserves a pod's resource claims for it (making that for its extended resources), allocating those that have no devices yet, once the pod has a node. Invariant: from the
 * decision on, before anything is written, the devices count as taken, so two pods of a burst never get one; a claim is written
 * at the revision that was decided upon, so another scheduler's write makes this one fail. A pod is bound only when its devices are ready for it.
 */

import type { Pod, PodExtendedResourceClaimStatus } from '../api/core/v1.gen.ts';
import { classesByResource, isExtendedClaim } from '../api/machinery/extended-resources.ts';
import { RESOURCE_CLAIM_FINALIZER } from '../api/machinery/resource-claims.ts';
import { controllerOf, keyOf } from '../api/meta.ts';
import type { DeviceClass, ResourceClaim, ResourceSlice } from '../api/resource/v1.gen.ts';
import { type Clock, formatTime } from '../base/clock.ts';
import type { Random } from '../base/random.ts';
import type { ResourceClient } from '../client/client.ts';
import type { Informer } from '../client/informer.ts';
import { allocate, type Inventory } from './claim-allocation.ts';
import { type Readiness, readinessOf } from './device-conditions.ts';
import { DeviceUsage } from './device-usage.ts';
import { extendedClaimOn, servingClasses } from './extended-resources.ts';
import type { NodeInfo, PodInfo } from './node-info.ts';
import type { Lookup } from './plugin.ts';
import { podResourceClaims } from './plugins/dynamic-resources.ts';

/** Undone when the binding fails before anything was written. */
export interface Reservation {
  /** There is something to write. */
  readonly isNeeded: boolean;
  write(): Promise<void>;
  /** Whether drivers have to make devices ready before the pod may be bound. */
  readonly isWaiting: boolean;
  /** Resolves once they are. Rejects, and gives the devices back, when one cannot be or takes too long. */
  untilReady(signal: AbortSignal): Promise<void>;
  forget(): void;
}
const NONE: Reservation = {
  isNeeded: false,
  write: async () => {},
  isWaiting: false,
  untilReady: async () => {},
  forget: () => {},
};

const EXTENDED_INDEX = 'extended';

export class ClaimBinder implements Inventory {
  readonly #claims: Informer<ResourceClaim>;
  readonly #classes: Informer<DeviceClass>;
  readonly #slices: Informer<ResourceSlice>;
  readonly #client: ResourceClient<ResourceClaim>;
  readonly #pods: ResourceClient<Pod>;
  /** Claims as they will be once written, by key. */
  readonly #assumed = new Map<string, ResourceClaim>();
  /** Revisions at which assumed claims were written: from there on the informer knows better. */
  readonly #written = new WeakMap<ResourceClaim, string>();
  readonly #random: Random;
  readonly #clock: Clock;
  /** Who waits for claims to change. */
  readonly #sleepers = new Set<() => void>();
  #usage: DeviceUsage | undefined;
  #byResource: ReadonlyMap<string, DeviceClass> | undefined;

  constructor(options: {
    readonly claims: Informer<ResourceClaim>;
    readonly classes: Informer<DeviceClass>;
    readonly slices: Informer<ResourceSlice>;
    readonly client: ResourceClient<ResourceClaim>;
    readonly pods: ResourceClient<Pod>;
    readonly random: Random;
    readonly clock: Clock;
  }) {
    this.#random = options.random;
    this.#clock = options.clock;
    this.#claims = options.claims;
    this.#classes = options.classes;
    this.#slices = options.slices;
    this.#client = options.client;
    this.#pods = options.pods;
    options.claims.addIndex(EXTENDED_INDEX, claim => (isExtendedClaim(claim) ? [controllerOf(claim)?.uid ?? ''] : []));
    options.classes.onChange(() => {
      this.#byResource = undefined;
    });
    options.claims.onChange(({ object, old }) => {
      this.#usage = undefined;
      if (object) this.#settle(object);
      else this.#assumed.delete(keyOf(old!));
      for (const wake of this.#sleepers) wake();
    });
  }

  /** An assumption ends when the informer shows what was written, or what came after it. */
  #settle(seen: ResourceClaim): void {
    const assumed = this.#assumed.get(keyOf(seen));
    const revision = assumed && this.#written.get(assumed);
    if (revision !== undefined && Number(seen.metadata.resourceVersion) >= Number(revision))
      this.#assumed.delete(keyOf(seen));
  }

  claim(namespace: string, name: string): ResourceClaim | undefined {
    return this.#assumed.get(`${namespace}/${name}`) ?? this.#claims.get(`${namespace}/${name}`);
  }
  deviceClass(name: string): DeviceClass | undefined {
    return this.#classes.get(name);
  }
  deviceClassFor(resource: string): DeviceClass | undefined {
    this.#byResource ??= classesByResource(this.#classes.values());
    return this.#byResource.get(resource);
  }
  leftover(podUid: string): ResourceClaim | undefined {
    return this.#claims.byIndex(EXTENDED_INDEX, podUid)[0];
  }
  slices(): Iterable<ResourceSlice> {
    return this.#slices.values();
  }
  usage(): DeviceUsage {
    this.#usage ??= new DeviceUsage(
      [
        ...[...this.#claims.values()].filter(claim => !this.#assumed.has(keyOf(claim))),
        ...this.#assumed.values(),
      ].flatMap(({ status }) => status?.allocation?.devices?.results ?? []),
    );
    return this.#usage;
  }
  newShareId(): string {
    return this.#random.uuid();
  }

  /** At once. Throws when the claims cannot be had on the node any more. */
  reserve(pod: PodInfo, { node, lookup }: { readonly node: NodeInfo; readonly lookup: Lookup }): Reservation {
    const found = podResourceClaims(pod, lookup);
    if (found && 'rejection' in found) throw new Error(found.rejection);
    const extended = extendedClaimOn(node, pod, servingClasses(pod, lookup));
    if (!found && !extended) return NONE;
    const { requestMappings } = extended ?? {};
    const wanted = [...(found?.claims ?? []), ...(extended ? [extended.claim] : [])];
    const { name, uid } = pod.pod.metadata;
    const changed: ResourceClaim[] = [];
    let made: ResourceClaim | undefined;
    const forget = () => {
      if (made) void this.#discard(made);
      made = undefined;
      for (const claim of changed) {
        if (this.#assumed.get(keyOf(claim)) === claim) this.#assumed.delete(keyOf(claim));
        this.#usage = undefined;
      }
    };
    for (const claim of wanted) {
      const reservedFor = claim.status?.reservedFor ?? [];
      if (claim.status?.allocation && reservedFor.some(one => one.uid === uid)) continue;
      const decision = claim.status?.allocation
        ? { allocation: claim.status.allocation }
        : allocate(claim, node.node, this);
      if ('reason' in decision) {
        forget();
        throw new Error(decision.reason);
      }
      const assumed: ResourceClaim = {
        ...claim,
        metadata: {
          ...claim.metadata,
          finalizers: [...new Set([...(claim.metadata.finalizers ?? []), RESOURCE_CLAIM_FINALIZER])],
        },
        status: {
          ...claim.status,
          allocation: { allocationTimestamp: formatTime(this.#clock.now()), ...decision.allocation },
          reservedFor: [...reservedFor, { resource: 'pods', name, uid: uid! }],
        },
      };
      changed.push(assumed);
      this.#assumed.set(keyOf(assumed), assumed);
      this.#usage = undefined;
    }
    const names = wanted.map(keyOf);
    const readiness = () => this.#readinessOf(names);
    return {
      isNeeded: changed.length > 0,
      write: async () => {
        try {
          if (requestMappings) {
            made = await this.#make(changed.at(-1)!);
            changed.splice(-1, 1, made);
            names.splice(-1, 1, keyOf(made));
          }
          await this.#write(changed);
          if (requestMappings) await this.#tell(pod.pod, { requestMappings, resourceClaimName: made!.metadata.name });
        } catch (error) {
          forget();
          throw error;
        }
      },
      get isWaiting() {
        return readiness().is !== 'ready';
      },
      untilReady: signal => this.#untilReady(names, uid!, signal),
      forget,
    };
  }

  #readinessOf(names: readonly string[]): Readiness {
    const nowMs = this.#clock.now();
    const all = names.map((name): Readiness => {
      const claim = this.#assumed.get(name) ?? this.#claims.get(name);
      return claim ? readinessOf(claim, nowMs) : { is: 'failed', why: `resourceclaim ${name} is gone` };
    });
    return all.find(({ is }) => is === 'failed') ?? all.find(({ is }) => is === 'waiting') ?? { is: 'ready' };
  }

  async #untilReady(names: readonly string[], podUid: string, signal: AbortSignal): Promise<void> {
    for (;;) {
      const readiness = this.#readinessOf(names);
      if (readiness.is === 'ready') return;
      if (readiness.is === 'failed') {
        await Promise.all(names.map(name => this.#giveBack(name, podUid)));
        throw new Error(readiness.why);
      }
      await this.#changed(readiness.untilMs - this.#clock.now(), signal);
      if (signal.aborted) throw new Error('the scheduler stops');
    }
  }
  #changed(waitMs: number, signal: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      const wake = () => {
        this.#sleepers.delete(wake);
        timer.cancel();
        signal.removeEventListener('abort', wake);
        resolve();
      };
      const timer = this.#clock.after(waitMs, wake, { background: true });
      this.#sleepers.add(wake);
      signal.addEventListener('abort', wake);
    });
  }

  /** So that other devices can be found: a claim that only this pod waits for has none any more. */
  async #giveBack(name: string, podUid: string): Promise<void> {
    const claim = this.#claims.get(name);
    const { allocation: _, reservedFor = [], devices: __, ...status } = claim?.status ?? {};
    if (!claim || reservedFor.length !== 1 || reservedFor[0]!.uid !== podUid) return;
    this.#assumed.delete(name);
    this.#usage = undefined;
    await this.#client.updateStatus({ ...claim, status });
  }

  async #write(changed: readonly ResourceClaim[]): Promise<void> {
    for (const claim of changed) {
      // The finalizer first: an allocated claim must not vanish.
      const seen = this.#claims.get(keyOf(claim));
      const had = !seen || seen.metadata.finalizers?.includes(RESOURCE_CLAIM_FINALIZER);
      const kept = had ? claim : await this.#client.update(claim);
      const status = claim.status!;
      const written = await this.#client.updateStatus({ ...kept, status });
      this.#written.set(claim, written.metadata.resourceVersion!);
      const shown = this.#claims.get(keyOf(claim));
      if (shown) this.#settle(shown);
    }
  }

  /** On the server, whose name for it the assumption then has. */
  async #make(claim: ResourceClaim): Promise<ResourceClaim> {
    const { status, ...bare } = claim;
    const created = await this.#client.create({ ...bare, metadata: { ...claim.metadata, name: '' } });
    const made = { ...created, ...(status ? { status } : {}) };
    this.#assumed.delete(keyOf(claim));
    this.#assumed.set(keyOf(made), made);
    this.#usage = undefined;
    return made;
  }
  /** The kubelet, by the pod's status, what is for which container; null: nothing any more. */
  async #tell({ metadata }: Pod, extendedResourceClaimStatus: PodExtendedResourceClaimStatus | null): Promise<void> {
    const { namespace = '', name, uid } = metadata;
    await this.#pods.patchStatus(
      namespace,
      name,
      { metadata: { uid }, status: { extendedResourceClaimStatus } },
      'application/strategic-merge-patch+json',
    );
  }
  discardLeftover(podUid: string): void {
    const claim = this.leftover(podUid);
    if (claim) void this.#discard(claim);
  }
  /** What cannot be deleted now is a leftover to the pod's next attempt. */
  async #discard({ metadata: { namespace = '', name, uid } }: ResourceClaim): Promise<void> {
    try {
      const claim = await this.#client.get(namespace, name);
      const owner = controllerOf(claim);
      const pod = owner && (await this.#pods.get(namespace, owner.name));
      // Bound after all: the answer was lost.
      if (pod?.metadata.uid === owner?.uid && pod?.spec.nodeName) return;
      if (pod?.status?.extendedResourceClaimStatus?.resourceClaimName === name) await this.#tell(pod, null);
      const { finalizers = [] } = claim.metadata;
      if (finalizers.includes(RESOURCE_CLAIM_FINALIZER))
        await this.#client.update({
          ...claim,
          metadata: { ...claim.metadata, finalizers: finalizers.filter(one => one !== RESOURCE_CLAIM_FINALIZER) },
        });
      await this.#client.delete(namespace, name, { preconditions: { uid: uid! } });
    } catch {}
  }
}
