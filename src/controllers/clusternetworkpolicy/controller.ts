/**
 * The kinds of cluster-scoped network policies: defined where they are missing, and told on each policy what becomes of it, as
 * condition `Accepted`. It enforces nothing: each node does (`src/network/policy`).
 */

import type { Condition, ObjectKey } from '../../api/meta.ts';
import { CLUSTER_POLICY_DEFINITIONS } from '../../api/networkpolicy/definitions.ts';
import { type ClusterPolicy, unknownParts } from '../../api/networkpolicy/kinds.ts';
import { formatTime } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { keepDefinition } from '../../client/definitions.ts';
import type { Informer } from '../../client/informer.ts';
import {
  ADMIN_NETWORK_POLICIES,
  BASELINE_ADMIN_NETWORK_POLICIES,
  CLUSTER_NETWORK_POLICIES,
} from '../../client/resources.ts';
import type { Controller, ControllerDefinition, ReconcileContext } from '../runtime/controller.ts';

const ACCEPTED = 'Accepted';
const RETRY_MS = 1000;
/** Who wrote the definitions of clusters that have them already: it cannot be renamed. */
const MANAGER = 'kube-controller-manager';
/** Keys are `resource/name`. */
const KINDS = [CLUSTER_NETWORK_POLICIES, ADMIN_NETWORK_POLICIES, BASELINE_ADMIN_NETWORK_POLICIES];

class ClusterNetworkPolicies implements Controller {
  readonly name = 'clusternetworkpolicy';
  readonly workers = 1;
  readonly watches = [];
  readonly #ctx: ReconcileContext;
  readonly #informers = new Map<string, Informer<ClusterPolicy>>();

  constructor(ctx: ReconcileContext) {
    this.#ctx = ctx;
  }

  started(): void {
    void this.#prepare();
  }

  async reconcile({ namespace: resource, name }: ObjectKey): Promise<void> {
    const of = KINDS.find(kind => kind.resource === resource);
    const policy = this.#informers.get(resource)?.get(name);
    if (!of || !policy || policy.metadata.deletionTimestamp) return;
    const { status, reason, message } = this.#judge(resource, policy);
    const conditions = policy.status?.conditions ?? [];
    const known = conditions.find(({ type }) => type === ACCEPTED);
    const { generation: observedGeneration = 1 } = policy.metadata;
    if (
      known?.status === status &&
      known.reason === reason &&
      known.message === message &&
      known.observedGeneration === observedGeneration
    )
      return;
    const condition: Condition = {
      type: ACCEPTED,
      status,
      reason,
      message,
      observedGeneration,
      lastTransitionTime: known?.status === status ? known.lastTransitionTime : formatTime(this.#ctx.clock.now()),
    };
    await this.#ctx.client.of<ClusterPolicy>(of).patchStatus('', name, {
      status: { conditions: [...conditions.filter(({ type }) => type !== ACCEPTED), condition] },
    });
  }

  #judge(resource: string, policy: ClusterPolicy): Pick<Condition, 'status' | 'reason' | 'message'> {
    const unknown = unknownParts(policy);
    if (unknown.length > 0)
      return {
        status: 'False',
        reason: 'Unsupported',
        message: `not understood here: ${unknown.join(', ')}. Accept rules match nobody there, other rules deny everything`,
      };
    const rivals = [...(this.#informers.get(resource)?.values() ?? [])].filter(
      ({ metadata, spec }) =>
        metadata.name !== policy.metadata.name &&
        spec.priority !== undefined &&
        spec.priority === policy.spec.priority &&
        spec.tier === policy.spec.tier,
    );
    if (rivals.length === 0) return { status: 'True', reason: 'Accepted', message: 'every node enforces it' };
    const names = rivals.map(({ metadata }) => metadata.name).sort();
    return {
      status: 'True',
      reason: 'SamePriority',
      message: `every node enforces it; priority ${policy.spec.priority} is ${names.join(', ')}'s too: where both speak of a connection the first by name decides`,
    };
  }

  async #prepare(): Promise<void> {
    const { client, informers, log, signal, clock } = this.#ctx;
    while (!signal.aborted) {
      try {
        for (const definition of CLUSTER_POLICY_DEFINITIONS)
          await keepDefinition(client, definition, { manager: MANAGER });
        break;
      } catch (error) {
        log.warn('cluster network policies cannot be defined yet, trying again', { error: messageOf(error) });
        await clock.sleep(RETRY_MS, signal);
      }
    }
    for (const of of KINDS) {
      const informer = informers.get<ClusterPolicy>(of);
      this.#informers.set(of.resource, informer);
      informer.onChange(() => {
        // One may have what another lacks: a priority of its own.
        for (const { metadata } of informer.values()) this.#ctx.enqueue(`${of.resource}/${metadata.name}`);
      });
    }
  }
}

export const clusterNetworkPolicy: ControllerDefinition = {
  folder: 'clusternetworkpolicy',
  component: 'coxswain-network-policy-controller',
  create: ctx => new ClusterNetworkPolicies(ctx),
};
