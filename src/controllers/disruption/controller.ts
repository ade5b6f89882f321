/** The status of PodDisruptionBudgets: how many of the selected pods are healthy, and how many may be evicted now. */

import type { Deployment, ReplicaSet, StatefulSet } from '../../api/apps/v1.gen.ts';
import type { Scale } from '../../api/autoscaling/v1.gen.ts';
import type { Pod, ReplicationController } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { scaledValue } from '../../api/machinery/int-or-string.ts';
import { formatLabelSelector, labelSelectorMatch } from '../../api/machinery/labels.ts';
import { isPodReady, isPodTerminal } from '../../api/machinery/pod.ts';
import { controllerOf, type KubeObject, keyOf, type OwnerReference } from '../../api/meta.ts';
import type { PodDisruptionBudget, PodDisruptionBudgetStatus } from '../../api/policy/v1.gen.ts';
import { formatTime } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import {
  CUSTOM_RESOURCE_DEFINITIONS,
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
import { infoOf } from '../runtime/custom-resources.ts';
import { idOf } from '../runtime/resources.ts';

/** An eviction that was allowed but has deleted nothing for so long is forgotten. */
const DISRUPTION_MS_MAX = 2 * 60_000;

const SCALABLE: Readonly<Record<string, ResourceId>> = {
  ReplicaSet: REPLICA_SETS,
  StatefulSet: STATEFUL_SETS,
  ReplicationController: REPLICATION_CONTROLLERS,
};
type Scalable = Deployment | ReplicaSet | StatefulSet | ReplicationController;

/** Pods that the controllers of the selected ones mean to have together. */
async function expectedScale(
  ctx: ReconcileContext,
  pods: readonly Pod[],
): Promise<{ scale: number; unmanaged: readonly Pod[] }> {
  const scales = new Map<string, number>();
  const unmanaged: Pod[] = [];
  const asked = new Set<string>();
  for (const pod of pods) {
    const reference = controllerOf(pod);
    if (!reference) unmanaged.push(pod);
    if (!reference || asked.has(reference.uid)) continue;
    asked.add(reference.uid);
    const owner = scalableOf(ctx, pod);
    const found = owner
      ? { uid: owner.metadata.uid!, replicas: owner.spec?.replicas ?? 1 }
      : await scaleOf(ctx, pod.metadata.namespace!, reference);
    if (!found) throw new Error(`found no controllers for pod "${pod.metadata.name}"`);
    scales.set(found.uid, found.replicas);
  }
  return { scale: [...scales.values()].reduce((sum, replicas) => sum + replicas, 0), unmanaged };
}

/** Of a custom resource, say, that has the subresource `scale`. */
async function scaleOf(
  ctx: ReconcileContext,
  namespace: string,
  { apiVersion, kind, name, uid }: OwnerReference,
): Promise<{ uid: string; replicas: number } | undefined> {
  const info = infoOf(ctx, { apiVersion, kind });
  if (!info.subresources.some(one => one.name === 'scale'))
    throw new Error(
      `${info.group ? `${info.resource}.${info.group}` : info.resource} does not implement the scale subresource`,
    );
  try {
    const got = await ctx.transport.get({ of: idOf(info), namespace, name, subresource: 'scale' });
    const scale = got as Scale;
    return scale.metadata?.uid === uid ? { uid, replicas: scale.spec?.replicas ?? 0 } : undefined;
  } catch (error) {
    if (isReason(error, 'NotFound')) return undefined;
    throw error;
  }
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

async function bounds(
  ctx: ReconcileContext,
  budget: PodDisruptionBudget,
  pods: readonly Pod[],
): Promise<{ expected: number; desired: number; unmanaged: readonly Pod[] }> {
  const { maxUnavailable, minAvailable } = budget.spec ?? {};
  if (maxUnavailable !== undefined) {
    const { scale: expected, unmanaged } = await expectedScale(ctx, pods);
    const desired = Math.max(0, expected - (scaledValue(maxUnavailable, expected, 'up') ?? 0));
    return { expected, desired, unmanaged };
  }
  if (typeof minAvailable === 'number') return { expected: pods.length, desired: minAvailable, unmanaged: [] };
  if (minAvailable === undefined) return { expected: 0, desired: 0, unmanaged: [] };
  const { scale: expected, unmanaged } = await expectedScale(ctx, pods);
  return { expected, desired: scaledValue(minAvailable, expected, 'up') ?? 0, unmanaged };
}

/** Nothing may be evicted while nobody knows how many pods there should be. */
async function failSafe(ctx: ReconcileContext, budget: PodDisruptionBudget, message: string): Promise<void> {
  const before = budget.status?.conditions?.find(({ type }) => type === 'DisruptionAllowed');
  const status: PodDisruptionBudgetStatus = {
    currentHealthy: 0,
    desiredHealthy: 0,
    expectedPods: 0,
    ...budget.status,
    disruptionsAllowed: 0,
    conditions: [
      ...(budget.status?.conditions ?? []).filter(({ type }) => type !== 'DisruptionAllowed'),
      {
        type: 'DisruptionAllowed',
        status: 'False',
        reason: 'SyncFailed',
        message,
        observedGeneration: budget.status?.observedGeneration ?? 0,
        lastTransitionTime: before?.status === 'False' ? before.lastTransitionTime : formatTime(ctx.clock.now()),
      },
    ],
  };
  if (!semanticEqual(budget.status, status))
    await ctx.client.of<PodDisruptionBudget>(POD_DISRUPTION_BUDGETS).updateStatus({ ...budget, status });
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
      watch(CUSTOM_RESOURCE_DEFINITIONS, () => []),
    ],
    async reconcile({ namespace, name }): Promise<Result | void> {
      const budget = budgets.get(`${namespace}/${name}`);
      if (!budget) return;
      const nowMs = ctx.clock.now();
      const matches = labelSelectorMatch(budget.spec?.selector);
      const selected = [...pods.values()].filter(
        pod => pod.metadata.namespace === namespace && matches(pod.metadata.labels),
      );
      if (selected.length === 0) ctx.events.event(budget, 'Normal', 'NoPods', 'No matching pods found');
      let counted: Awaited<ReturnType<typeof bounds>>;
      try {
        counted = await bounds(ctx, budget, selected);
      } catch (error) {
        const message = messageOf(error);
        ctx.events.event(
          budget,
          'Warning',
          'CalculateExpectedPodCountFailed',
          `Failed to calculate the number of expected pods: ${message}`,
        );
        await failSafe(ctx, budget, message);
        throw error;
      }
      const { expected, desired, unmanaged } = counted;
      if (unmanaged.length > 0)
        ctx.events.event(
          budget,
          'Warning',
          'UnmanagedPods',
          `Pods selected by this PodDisruptionBudget (selector: ${formatLabelSelector(budget.spec?.selector)}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set ".spec.minAvailable" field of the PDB to an integer value.`,
        );
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
