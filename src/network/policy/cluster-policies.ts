/**
 * Follows the cluster-scoped policies of all kinds and hands them over as statements; those that name nodes again when nodes change.
 * Invariant: `known` resolves once each kind has been listed or is certain not to be defined here, as on an API server that never
 * had them; a kind that is defined but cannot be read is not taken for an empty one.
 */

import type { Node } from '../../api/core/v1.gen.ts';
import type { ClusterPolicy } from '../../api/networkpolicy/kinds.ts';
import { type Clock, systemClock } from '../../base/clock.ts';
import { isReason } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { Client } from '../../client/client.ts';
import type { Informer, InformerFactory } from '../../client/informer.ts';
import {
  ADMIN_NETWORK_POLICIES,
  BASELINE_ADMIN_NETWORK_POLICIES,
  CLUSTER_NETWORK_POLICIES,
  CUSTOM_RESOURCE_DEFINITIONS,
  NODES,
} from '../../client/resources.ts';
import type { ResourceId, Transport } from '../../client/transport.ts';
import {
  type ClusterPolicyKind,
  domainNamesIn,
  factsOfNode,
  type NodeFacts,
  namesNodes,
  readClusterPolicy,
} from './cluster-policy.ts';
import type { DomainNames } from './domain-names.ts';
import { idOf, type Policy } from './statement.ts';

const LOOK_EVERY_MS = 500;

export const CLUSTER_KINDS: readonly { readonly kind: ClusterPolicyKind; readonly of: ResourceId }[] = [
  { kind: 'ClusterNetworkPolicy', of: CLUSTER_NETWORK_POLICIES },
  { kind: 'AdminNetworkPolicy', of: ADMIN_NETWORK_POLICIES },
  { kind: 'BaselineAdminNetworkPolicy', of: BASELINE_ADMIN_NETWORK_POLICIES },
];

export interface ClusterPoliciesOptions {
  readonly transport: Transport;
  readonly informers: InformerFactory;
  readonly set: (policy: Policy) => void;
  readonly remove: (id: string, uid: string | undefined) => void;
  /** Whether the object is not older than what was seen of it. */
  readonly isNews: (kind: ClusterPolicyKind, policy: ClusterPolicy) => boolean;
  readonly names: Pick<DomainNames, 'follow' | 'addressesOf'>;
  readonly log: Logger;
  readonly clock?: Clock;
}

export class ClusterPolicies {
  readonly #options: ClusterPoliciesOptions;
  readonly #clock: Clock;
  readonly #client: Client;
  readonly #informers: readonly { readonly kind: ClusterPolicyKind; readonly informer: Informer<ClusterPolicy> }[];
  readonly #nodes: Informer<Node>;
  /** Latest of each, by id. */
  readonly #objects = new Map<string, { readonly kind: ClusterPolicyKind; readonly object: ClusterPolicy }>();
  readonly #known = Promise.withResolvers<void>();
  #facts: readonly NodeFacts[] = [];
  #isKnown = false;

  constructor(options: ClusterPoliciesOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#client = new Client(options.transport);
    this.#informers = CLUSTER_KINDS.map(({ kind, of }) => ({ kind, informer: options.informers.get(of) }));
    this.#nodes = options.informers.get<Node>(NODES);
  }

  get known(): Promise<void> {
    return this.#known.promise;
  }
  get isKnown(): boolean {
    return this.#isKnown;
  }

  /** Follows until the signal aborts. */
  run(signal: AbortSignal): void {
    this.#nodes.onChange(({ object, old }) => {
      if (object && old && text(factsOfNode(object)) === text(factsOfNode(old))) return;
      this.#facts = [...this.#nodes.values()].map(factsOfNode);
      for (const { kind, object: policy } of this.#objects.values()) if (namesNodes(policy)) this.#set(kind, policy);
    });
    for (const { kind, informer } of this.#informers)
      informer.onChange(({ object, old }) => {
        if (object) this.#note(kind, object);
        else {
          const id = idOf(kind, old!.metadata);
          this.#objects.delete(id);
          if (domainNamesIn(old!).length > 0) this.#followNames();
          this.#options.remove(id, old!.metadata.uid);
        }
      });
    const waiting = CLUSTER_KINDS.map(({ of }, i) => this.#listedOrAbsent(of, this.#informers[i]!.informer, signal));
    void Promise.all([this.#nodes.synced, ...waiting]).then(() => {
      this.#isKnown = true;
      this.#known.resolve();
    });
  }

  /** Reads them from the API server itself, however late the watches are. */
  async readAgain(): Promise<void> {
    await Promise.all(
      CLUSTER_KINDS.map(async ({ kind, of }) => {
        try {
          const { items } = await this.#client.of<ClusterPolicy>(of).list();
          for (const policy of items) this.#note(kind, policy);
        } catch (error) {
          if (!isReason(error, 'NotFound') || (await this.#isDefined(of))) throw error;
        }
      }),
    );
  }

  /** Reads those that name names again. */
  readNames(): void {
    for (const { kind, object } of this.#objects.values())
      if (domainNamesIn(object).length > 0) this.#set(kind, object);
  }

  #followNames(): void {
    this.#options.names.follow(new Set([...this.#objects.values()].flatMap(({ object }) => domainNamesIn(object))));
  }

  #note(kind: ClusterPolicyKind, policy: ClusterPolicy): void {
    if (!this.#options.isNews(kind, policy)) return;
    const id = idOf(kind, policy.metadata);
    const before = this.#objects.get(id);
    this.#objects.set(id, { kind, object: policy });
    if ([policy, ...(before ? [before.object] : [])].some(one => domainNamesIn(one).length > 0)) this.#followNames();
    this.#set(kind, policy);
  }

  #set(kind: ClusterPolicyKind, policy: ClusterPolicy): void {
    this.#options.set(readClusterPolicy(kind, policy, this.#facts, name => this.#options.names.addressesOf(name)));
  }

  async #listedOrAbsent(of: ResourceId, informer: Informer<ClusterPolicy>, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !informer.hasSynced) {
      const pause = new AbortController();
      await Promise.race([informer.synced, this.#clock.sleep(LOOK_EVERY_MS, AbortSignal.any([signal, pause.signal]))]);
      pause.abort();
      if (informer.hasSynced) return;
      const isDefined = await this.#isDefined(of).catch(() => true);
      if (!isDefined) return;
    }
  }

  async #isDefined({ group, resource }: ResourceId): Promise<boolean> {
    try {
      await this.#client.of(CUSTOM_RESOURCE_DEFINITIONS).get('', `${resource}.${group}`);
      return true;
    } catch (error) {
      if (isReason(error, 'NotFound')) return false;
      throw error;
    }
  }
}

function text({ labels, ips }: NodeFacts): string {
  return JSON.stringify([Object.entries(labels ?? {}).sort(), ips]);
}
