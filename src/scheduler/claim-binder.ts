/**
 * Reserves a pod's resource claims for it, allocating those that have no devices yet, once the pod has a node. Invariant: from the
 * decision on, before anything is written, the devices count as taken, so two pods of a burst never get one; a claim is written
 * at the revision that was decided upon, so another scheduler's write makes this one fail. A pod is bound only when its devices are ready for it.
 */

import { RESOURCE_CLAIM_FINALIZER } from '../api/machinery/resource-claims.ts';
import { keyOf } from '../api/meta.ts';
import type { DeviceClass, ResourceClaim, ResourceSlice } from '../api/resource/v1.gen.ts';
import { type Clock, formatTime } from '../base/clock.ts';
import type { Random } from '../base/random.ts';
import type { ResourceClient } from '../client/client.ts';
import type { Informer } from '../client/informer.ts';
import { allocate, type Inventory } from './claim-allocation.ts';
import { type Readiness, readinessOf } from './device-conditions.ts';
import { DeviceUsage } from './device-usage.ts';
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

export class ClaimBinder implements Inventory {
  readonly #claims: Informer<ResourceClaim>;
  readonly #classes: Informer<DeviceClass>;
  readonly #slices: Informer<ResourceSlice>;
  readonly #client: ResourceClient<ResourceClaim>;
  /** Claims as they will be once written, by key. */
  readonly #assumed = new Map<string, ResourceClaim>();
  /** Revisions at which assumed claims were written: from there on the informer knows better. */
  readonly #written = new WeakMap<ResourceClaim, string>();
  readonly #random: Random;
  readonly #clock: Clock;
  /** Who waits for claims to change. */
  readonly #sleepers = new Set<() => void>();
  #usage: DeviceUsage | undefined;

  constructor(options: {
    readonly claims: Informer<ResourceClaim>;
    readonly classes: Informer<DeviceClass>;
    readonly slices: Informer<ResourceSlice>;
    readonly client: ResourceClient<ResourceClaim>;
    readonly random: Random;
    readonly clock: Clock;
  }) {
    this.#random = options.random;
    this.#clock = options.clock;
    this.#claims = options.claims;
    this.#classes = options.classes;
    this.#slices = options.slices;
    this.#client = options.client;
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
  slices(): Iterable<ResourceSlice> {
    return this.#slices.values();
  }
  usage(): DeviceUsage {
    this.#usage ??= new DeviceUsage(
      [...this.#claims.values()].flatMap(
        claim => (this.#assumed.get(keyOf(claim)) ?? claim).status?.allocation?.devices?.results ?? [],
      ),
    );
    return this.#usage;
  }
  newShareId(): string {
    return this.#random.uuid();
  }

  /** At once. Throws when the claims cannot be had on the node any more. */
  reserve(pod: PodInfo, { node, lookup }: { readonly node: NodeInfo; readonly lookup: Lookup }): Reservation {
    const found = podResourceClaims(pod, lookup);
    if (!found) return NONE;
    if ('rejection' in found) throw new Error(found.rejection);
    const { name, uid } = pod.pod.metadata;
    const changed: ResourceClaim[] = [];
    const forget = () => {
      for (const claim of changed) {
        if (this.#assumed.get(keyOf(claim)) === claim) this.#assumed.delete(keyOf(claim));
        this.#usage = undefined;
      }
    };
    for (const claim of found.claims) {
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
    const names = found.claims.map(keyOf);
    const readiness = () => this.#readinessOf(names);
    return {
      isNeeded: changed.length > 0,
      write: () =>
        this.#write(changed).catch(error => {
          forget();
          throw error;
        }),
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
      const had = this.#claims.get(keyOf(claim))?.metadata.finalizers?.includes(RESOURCE_CLAIM_FINALIZER);
      const kept = had ? claim : await this.#client.update(claim);
      const status = claim.status!;
      const written = await this.#client.updateStatus({ ...kept, status });
      this.#written.set(claim, written.metadata.resourceVersion!);
      const seen = this.#claims.get(keyOf(claim));
      if (seen) this.#settle(seen);
    }
  }
}
