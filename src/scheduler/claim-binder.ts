/**
 * Reserves a pod's resource claims for it, allocating those that have no devices yet, once the pod has a node. Invariant: from the
 * decision on, before anything is written, the devices count as taken, so two pods of a burst never get one; a claim is written
 * at the revision that was decided upon, so another scheduler's write makes this one fail.
 */

import { RESOURCE_CLAIM_FINALIZER } from '../api/machinery/resource-claims.ts';
import { keyOf } from '../api/meta.ts';
import type { DeviceClass, ResourceClaim, ResourceSlice } from '../api/resource/v1.gen.ts';
import type { Random } from '../base/random.ts';
import type { ResourceClient } from '../client/client.ts';
import type { Informer } from '../client/informer.ts';
import { allocate, type Inventory } from './claim-allocation.ts';
import { DeviceUsage } from './device-usage.ts';
import type { NodeInfo, PodInfo } from './node-info.ts';
import type { Lookup } from './plugin.ts';
import { podResourceClaims } from './plugins/dynamic-resources.ts';

/** Undone when the binding fails before anything was written. */
export interface Reservation {
  write(): Promise<void>;
  forget(): void;
}
const NONE: Reservation = { write: async () => {}, forget: () => {} };

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
  #usage: DeviceUsage | undefined;

  constructor(options: {
    readonly claims: Informer<ResourceClaim>;
    readonly classes: Informer<DeviceClass>;
    readonly slices: Informer<ResourceSlice>;
    readonly client: ResourceClient<ResourceClaim>;
    readonly random: Random;
  }) {
    this.#random = options.random;
    this.#claims = options.claims;
    this.#classes = options.classes;
    this.#slices = options.slices;
    this.#client = options.client;
    options.claims.onChange(({ object, old }) => {
      this.#usage = undefined;
      if (object) this.#settle(object);
      else this.#assumed.delete(keyOf(old!));
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
          allocation: decision.allocation,
          reservedFor: [...reservedFor, { resource: 'pods', name, uid: uid! }],
        },
      };
      changed.push(assumed);
      this.#assumed.set(keyOf(assumed), assumed);
      this.#usage = undefined;
    }
    return { write: () => this.#write(changed).catch(error => (forget(), Promise.reject(error))), forget };
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
