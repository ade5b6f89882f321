/**
 * The core that ReplicaSet and ReplicationController share: keep exactly `spec.replicas` pods that match the selector.
 * Invariant: while its own creates and deletes are not yet visible (expectations), it changes nothing.
 */

import type { ReplicaSetCondition, ReplicaSetStatus } from '../../api/apps/v1.gen.ts';
import type { Pod, PodTemplateSpec } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import { isPodActive, isPodAvailable, isPodReady } from '../../api/machinery/pod.ts';
import { controllerOf, type KubeObject, keyOf, type LabelSelector, type ObjectKey } from '../../api/meta.ts';
import { formatTime } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import { PODS } from '../../client/resources.ts';
import type { ResourceId } from '../../client/transport.ts';
import { type Change, type Controller, type ReconcileContext, type Result, watch } from '../runtime/controller.ts';
import { Expectations } from '../runtime/expectations.ts';
import { claim, dependents, indexByController, orphans } from '../runtime/ownership.ts';
import { createPod, deletePod, isNamespaceTerminating, podFromTemplate, slowStart } from '../runtime/pod-control.ts';
import { isPodTerminating, msUntilAvailable } from '../runtime/pods.ts';
import { podsToDelete } from './ranking.ts';

/** Pods created or deleted in one reconcile at most: upstream's BurstReplicas. */
const BURST_REPLICAS_MAX = 500;

/** What differs between the two kinds. */
export interface ReplicasKind<T extends KubeObject> {
  readonly name: string;
  readonly of: ResourceId;
  readonly kind: string;
  readonly selector: (owner: T) => LabelSelector | undefined;
  readonly template: (owner: T) => PodTemplateSpec | undefined;
  /** Reports terminatingReplicas in status. */
  readonly countsTerminating: boolean;
}

interface Replicated extends KubeObject {
  spec?: { replicas?: number; minReadySeconds?: number };
  status?: ReplicaSetStatus;
}

export function replicasController<T extends Replicated>(ctx: ReconcileContext, kind: ReplicasKind<T>): Controller {
  const owners = ctx.informers.get<T>(kind.of);
  const pods = ctx.informers.get<Pod>(PODS);
  indexByController(owners as never);
  indexByController(pods as never);
  const expectations = new Expectations(ctx.clock);

  function* podKeys(change: Change<Pod>): Iterable<string> {
    const pod = change.deleted ? change.old : change.object;
    const controller = controllerOf(pod);
    const oldController = change.deleted ? undefined : change.old && controllerOf(change.old);
    const keyFor = (name: string) => `${pod.metadata.namespace}/${name}`;
    if (oldController && oldController.uid !== controller?.uid && oldController.kind === kind.kind)
      yield keyFor(oldController.name);
    if (controller) {
      if (controller.kind !== kind.kind) return;
      const key = keyFor(controller.name);
      if (owners.get(key) && owners.get(key)!.metadata.uid !== controller.uid) return;
      // A pod first seen while it is being deleted was never available: it counts as both.
      if (change.deleted || pod.metadata.deletionTimestamp) expectations.deleted(key, pod.metadata.uid!);
      if (!change.old) expectations.created(key);
      if (change.deleted || !change.old || countsOtherwise(change.old, pod)) yield key;
      return;
    }
    if (change.deleted || (change.old && !countsOtherwise(change.old, pod))) return;
    for (const owner of owners.values()) {
      if (
        owner.metadata.namespace === pod.metadata.namespace &&
        labelSelectorMatch(kind.selector(owner))(pod.metadata.labels)
      )
        yield keyOf(owner);
    }
  }

  async function manage(owner: T, active: readonly Pod[]): Promise<{ difference: number; error: unknown }> {
    const key = keyOf(owner);
    const difference = active.length - (owner.spec?.replicas ?? 1);
    if (difference === 0) return { difference, error: undefined };
    const count = Math.min(Math.abs(difference), BURST_REPLICAS_MAX);
    if (difference < 0) {
      expectations.expectCreations(key, count);
      const pod = podFromTemplate(kind.template(owner)!, owner);
      const { successes, error } = await slowStart({ count, first: 1 }, async () => {
        try {
          await createPod(ctx, owner, pod);
        } catch (error) {
          // Nothing can be created any more, and retrying would not help.
          if (!isNamespaceTerminating(error)) throw error;
        }
      });
      for (let i = successes; i < count; i++) expectations.created(key);
      return { difference, error };
    }
    const doomed = podsToDelete(active, related(owner), { count, nowMs: ctx.clock.now() });
    expectations.expectDeletions(
      key,
      doomed.map(pod => pod.metadata.uid!),
    );
    let failed: unknown;
    await Promise.all(
      doomed.map(async pod => {
        try {
          await deletePod(ctx, owner, pod);
        } catch (error) {
          expectations.deleted(key, pod.metadata.uid!);
          if (!isReason(error, 'NotFound')) failed ??= error;
        }
      }),
    );
    return { difference, error: failed };
  }

  /** Pods of all replica sets under the same controller (a Deployment's old and new ones). */
  function related(owner: T): Pod[] {
    const controller = controllerOf(owner);
    if (!controller) return dependents(pods, owner);
    return owners.byIndex('controller', controller.uid).flatMap(sibling => dependents(pods, sibling));
  }

  function statusOf(
    owner: T,
    active: readonly Pod[],
    terminating: number,
    outcome: { difference: number; error: unknown },
  ): ReplicaSetStatus {
    const nowMs = ctx.clock.now();
    const templateLabels = Object.entries(kind.template(owner)?.metadata?.labels ?? {});
    const minReadySeconds = owner.spec?.minReadySeconds ?? 0;
    const old = owner.status;
    let conditions = old?.conditions ?? [];
    const failing = conditions.find(condition => condition.type === 'ReplicaFailure');
    if (outcome.error !== undefined && !failing) {
      const failure: ReplicaSetCondition = {
        type: 'ReplicaFailure',
        status: 'True',
        lastTransitionTime: formatTime(nowMs),
        reason: outcome.difference < 0 ? 'FailedCreate' : 'FailedDelete',
        message: messageOf(outcome.error),
      };
      conditions = [...conditions, failure];
    } else if (outcome.error === undefined && failing)
      conditions = conditions.filter(condition => condition !== failing);
    const count = (test: (pod: Pod) => boolean) => active.filter(test).length;
    return {
      replicas: active.length,
      fullyLabeledReplicas: count(pod => templateLabels.every(([key, value]) => pod.metadata.labels?.[key] === value)),
      readyReplicas: count(isPodReady),
      availableReplicas: count(pod => isPodAvailable(pod, minReadySeconds, nowMs)),
      ...(kind.countsTerminating ? { terminatingReplicas: terminating } : {}),
      observedGeneration: owner.metadata.generation ?? 0,
      ...(conditions.length ? { conditions } : {}),
    };
  }

  async function reconcile(id: ObjectKey): Promise<Result | void> {
    const key = `${id.namespace}/${id.name}`;
    const owner = owners.get(key);
    if (!owner) return expectations.forget(key);
    const mayChange = expectations.satisfied(key);
    const selector = labelSelectorMatch(kind.selector(owner));
    const candidates = [...dependents(pods, owner), ...orphans(pods, id.namespace)];
    const claimed = await claim(ctx, {
      owner,
      ownerResource: kind.of,
      of: PODS,
      selector,
      objects: candidates.filter(pod => isPodActive(pod) || isPodTerminating(pod)),
    });
    const active = claimed.filter(isPodActive);
    const terminating = claimed.length - active.length;
    const outcome =
      mayChange && !owner.metadata.deletionTimestamp
        ? await manage(owner, active)
        : { difference: 0, error: undefined };
    const status = statusOf(owner, active, terminating, outcome);
    if (!sameStatus(owner.status, status)) {
      await ctx.client
        .of<T>(kind.of)
        .updateStatus({ ...owner, status: { ...owner.status, ...status, conditions: status.conditions ?? [] } });
    }
    if (outcome.error !== undefined) throw outcome.error;
    const minReadySeconds = owner.spec?.minReadySeconds ?? 0;
    if (minReadySeconds > 0 && status.availableReplicas !== status.readyReplicas) {
      const waitMs = msUntilAvailable(active, minReadySeconds, ctx.clock.now());
      return { requeueAfterMs: waitMs ?? 1000 };
    }
  }

  return {
    name: kind.name,
    watches: [
      watch<T>(kind.of, change => {
        if (change.deleted) expectations.forget(keyOf(change.old));
        return [keyOf(change.deleted ? change.old : change.object)];
      }),
      watch<Pod>(PODS, podKeys),
    ],
    reconcile,
  };
}

/**
 * Whether a pod's update can change what its owner counts or does. Most cannot, and each look is at all pods: a thousand that
 * crash and crash again took half of the server's time.
 */
export function countsOtherwise(old: Pod, pod: Pod): boolean {
  const readiness = ({ status }: Pod) => {
    const ready = status?.conditions?.find(({ type }) => type === 'Ready');
    return ready && `${ready.status} ${ready.lastTransitionTime}`;
  };
  return (
    controllerOf(old)?.uid !== controllerOf(pod)?.uid ||
    isPodActive(old) !== isPodActive(pod) ||
    isPodTerminating(old) !== isPodTerminating(pod) ||
    readiness(old) !== readiness(pod) ||
    !semanticEqual(old.metadata.labels, pod.metadata.labels)
  );
}

function sameStatus(a: ReplicaSetStatus | undefined, b: ReplicaSetStatus): boolean {
  const counts = [
    'replicas',
    'fullyLabeledReplicas',
    'readyReplicas',
    'availableReplicas',
    'terminatingReplicas',
    'observedGeneration',
  ] as const;
  return counts.every(field => (a?.[field] ?? 0) === (b[field] ?? 0)) && semanticEqual(a?.conditions, b.conditions);
}
