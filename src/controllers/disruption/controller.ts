/** The status of PodDisruptionBudgets: how many of the selected pods are healthy, and how many may be evicted now. */

import type { Deployment, ReplicaSet, StatefulSet } from '../../api/apps/v1.gen.ts';
import type { Pod, ReplicationController } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { scaledValue } from '../../api/machinery/int-or-string.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import { isPodReady, isPodTerminal } from '../../api/machinery/pod.ts';
import { controllerOf, type KubeObject, keyOf } from '../../api/meta.ts';
import type { PodDisruptionBudget, PodDisruptionBudgetStatus } from '../../api/policy/v1.gen.ts';
import { formatTime } from '../../base/clock.ts';
import {
  DEPLOYMENTS,
  POD_DISRUPTION_BUDGETS,
  PODS,
  REPLICA_SETS,
  REPLICATION_CONTROLLERS,
  STATEFUL_SETS,
} from '../../client/resources.ts';
import type { ResourceId } from '../../client/transport.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';

/** An eviction that was allowed but has deleted nothing for so long is forgotten. */
const DISRUPTION_MS_MAX = 2 * 60_000;

const SCALABLE: Readonly<Record<string, ResourceId>> = {
  ReplicaSet: REPLICA_SETS,
  StatefulSet: STATEFUL_SETS,
  ReplicationController: REPLICATION_CONTROLLERS,
};
type Scalable = Deployment | ReplicaSet | StatefulSet | ReplicationController;

/** Pods that the controllers of the selected ones mean to have together. */
function expectedScale(ctx: ReconcileContext, pods: readonly Pod[]): number {
  const owners = new Map<string, Scalable>();
  for (const pod of pods) {
    const owner = scalableOf(ctx, pod);
    if (owner) owners.set(owner.metadata.uid!, owner);
  }
  return [...owners.values()].reduce((sum, owner) => sum + (owner.spec?.replicas ?? 1), 0);
}

function scalableOf(ctx: ReconcileContext, pod: Pod): Scalable | undefined {
  const { namespace } = pod.metadata;
  const find = (object: KubeObject): Scalable | undefined => {
    const reference = controllerOf(object);
    const of = reference && (reference.kind === 'Deployment' ? DEPLOYMENTS : SCALABLE[reference.kind]);
    const owner = of && ctx.informers.get<Scalable>(of).get(`${namespace}/${reference.name}`);
    return owner?.metadata.uid === reference?.uid ? owner : undefined;
  };
  const owner = find(pod);
  return owner && (find(owner) ?? owner);
}

function bounds(
  ctx: ReconcileContext,
  budget: PodDisruptionBudget,
  pods: readonly Pod[],
): { expected: number; desired: number } {
  const { maxUnavailable, minAvailable } = budget.spec ?? {};
  if (maxUnavailable !== undefined) {
    const expected = expectedScale(ctx, pods);
    return { expected, desired: Math.max(0, expected - (scaledValue(maxUnavailable, expected, 'up') ?? 0)) };
  }
  if (typeof minAvailable === 'number') return { expected: pods.length, desired: minAvailable };
  if (minAvailable === undefined) return { expected: 0, desired: 0 };
  const expected = expectedScale(ctx, pods);
  return { expected, desired: scaledValue(minAvailable, expected, 'up') ?? 0 };
}

function create(ctx: ReconcileContext): Controller {
  const budgets = ctx.informers.get<PodDisruptionBudget>(POD_DISRUPTION_BUDGETS);
  const pods = ctx.informers.get<Pod>(PODS);
  const inNamespace = (namespace: string | undefined) =>
    [...budgets.values()].filter(budget => budget.metadata.namespace === namespace);
  const all = (change: { object: KubeObject | undefined; old: KubeObject | undefined }) =>
    inNamespace((change.object ?? change.old)?.metadata.namespace).map(keyOf);

  return {
    name: 'disruption',
    watches: [
      watch<PodDisruptionBudget>(POD_DISRUPTION_BUDGETS, change => [keyOf(latest(change))]),
      watch<Pod>(PODS, change => {
        if (budgets.size === 0) return [];
        return inNamespace(latest(change).metadata.namespace)
          .filter(budget =>
            [change.object, change.old].some(
              pod => pod && labelSelectorMatch(budget.spec?.selector)(pod.metadata.labels),
            ),
          )
          .map(keyOf);
      }),
      ...[DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, REPLICATION_CONTROLLERS].map(of =>
        watch(of, change =>
          change.object?.metadata.generation === change.old?.metadata.generation ? [] : all(change),
        ),
      ),
    ],
    async reconcile({ namespace, name }): Promise<Result | void> {
      const budget = budgets.get(`${namespace}/${name}`);
      if (!budget) return;
      const nowMs = ctx.clock.now();
      const matches = labelSelectorMatch(budget.spec?.selector);
      const selected = [...pods.values()].filter(
        pod => pod.metadata.namespace === namespace && matches(pod.metadata.labels),
      );
      const { expected, desired } = bounds(ctx, budget, selected);
      const remembered = Object.entries(budget.status?.disruptedPods ?? {}).filter(([pod, at]) => {
        const found = pods.get(`${namespace}/${pod}`);
        return found && !found.metadata.deletionTimestamp && Date.parse(at) + DISRUPTION_MS_MAX > nowMs;
      });
      const disrupted = new Set(remembered.map(([pod]) => pod));
      const healthy = selected.filter(
        pod =>
          !isPodTerminal(pod) &&
          !pod.metadata.deletionTimestamp &&
          !disrupted.has(pod.metadata.name) &&
          isPodReady(pod),
      ).length;
      const allowed = expected === 0 || healthy <= desired ? 0 : healthy - desired;
      const before = budget.status?.conditions?.find(({ type }) => type === 'DisruptionAllowed');
      const wanted =
        allowed > 0 ? { status: 'True', reason: 'SufficientPods' } : { status: 'False', reason: 'InsufficientPods' };
      const observedGeneration = budget.metadata.generation ?? 0;
      const condition = {
        type: 'DisruptionAllowed',
        ...wanted,
        message: '',
        observedGeneration,
        lastTransitionTime: before?.status === wanted.status ? before.lastTransitionTime : formatTime(nowMs),
      };
      const status: PodDisruptionBudgetStatus = {
        observedGeneration,
        disruptionsAllowed: allowed,
        currentHealthy: healthy,
        desiredHealthy: desired,
        expectedPods: expected,
        ...(remembered.length ? { disruptedPods: Object.fromEntries(remembered) } : {}),
        conditions: [
          ...(budget.status?.conditions ?? []).filter(({ type }) => type !== 'DisruptionAllowed'),
          condition,
        ],
      };
      if (!semanticEqual(budget.status, status))
        await ctx.client.of<PodDisruptionBudget>(POD_DISRUPTION_BUDGETS).updateStatus({ ...budget, status });
      if (remembered.length) return { requeueAfterMs: DISRUPTION_MS_MAX };
    },
  };
}

export const disruption: ControllerDefinition = { folder: 'disruption', component: 'controllermanager', create };
