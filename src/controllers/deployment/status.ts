/** A Deployment's status: counts, and the conditions Available, Progressing and ReplicaFailure. Pure. */

import type { Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet } from '../../api/apps/v1.gen.ts';
import { formatTime } from '../../base/clock.ts';
import { hasProgressDeadline, maxUnavailable, replicasOf, sum, wanted } from './arithmetic.ts';

export type ConditionType = 'Available' | 'Progressing' | 'ReplicaFailure';

export function condition(status: DeploymentStatus | undefined, type: ConditionType): DeploymentCondition | undefined {
  return status?.conditions?.find(found => found.type === type);
}

export function withoutCondition(status: DeploymentStatus, type: ConditionType): DeploymentStatus {
  return { ...status, conditions: (status.conditions ?? []).filter(found => found.type !== type) };
}

/** Sets a condition; one of equal status and reason is left untouched, of equal status keeps its transition time. */
export function withCondition(
  status: DeploymentStatus,
  next: { type: ConditionType; status: string; reason: string; message: string; lastTransitionTime?: string },
  nowMs: number,
): DeploymentStatus {
  const present = condition(status, next.type);
  if (present && present.status === next.status && present.reason === next.reason) return status;
  const now = formatTime(nowMs);
  const transition = present?.status === next.status ? present.lastTransitionTime : (next.lastTransitionTime ?? now);
  const { conditions } = withoutCondition(status, next.type);
  return {
    ...status,
    conditions: [
      ...conditions!,
      {
        type: next.type,
        status: next.status,
        lastUpdateTime: now,
        lastTransitionTime: transition ?? now,
        reason: next.reason,
        message: next.message,
      },
    ],
  };
}

export function calculateStatus(
  deployment: Deployment,
  all: readonly ReplicaSet[],
  newSet: ReplicaSet | undefined,
  nowMs: number,
): DeploymentStatus {
  const available = sum(all, set => set.status?.availableReplicas);
  const status: DeploymentStatus = {
    observedGeneration: deployment.metadata.generation ?? 0,
    replicas: sum(all, set => set.status?.replicas),
    updatedReplicas: newSet?.status?.replicas ?? 0,
    readyReplicas: sum(all, set => set.status?.readyReplicas),
    availableReplicas: available,
    unavailableReplicas: Math.max(0, sum(all, replicasOf) - available),
    terminatingReplicas: sum(all, set => set.status?.terminatingReplicas),
    ...(deployment.status?.collisionCount === undefined ? {} : { collisionCount: deployment.status.collisionCount }),
    conditions: [...(deployment.status?.conditions ?? [])],
  };
  return available >= wanted(deployment) - maxUnavailable(deployment)
    ? withCondition(
        status,
        {
          type: 'Available',
          status: 'True',
          reason: 'MinimumReplicasAvailable',
          message: 'Deployment has minimum availability.',
        },
        nowMs,
      )
    : withCondition(
        status,
        {
          type: 'Available',
          status: 'False',
          reason: 'MinimumReplicasUnavailable',
          message: 'Deployment does not have minimum availability.',
        },
        nowMs,
      );
}

export function isComplete(deployment: Deployment, status: DeploymentStatus | undefined): boolean {
  const replicas = wanted(deployment);
  return (
    (status?.updatedReplicas ?? 0) === replicas &&
    (status?.replicas ?? 0) === replicas &&
    (status?.availableReplicas ?? 0) === replicas &&
    (status?.observedGeneration ?? 0) >= (deployment.metadata.generation ?? 0)
  );
}

function isProgressing(old: DeploymentStatus | undefined, next: DeploymentStatus): boolean {
  const outdated = (status: DeploymentStatus | undefined) => (status?.replicas ?? 0) - (status?.updatedReplicas ?? 0);
  return (
    (next.updatedReplicas ?? 0) > (old?.updatedReplicas ?? 0) ||
    outdated(next) < outdated(old) ||
    (next.readyReplicas ?? 0) > (old?.readyReplicas ?? 0) ||
    (next.availableReplicas ?? 0) > (old?.availableReplicas ?? 0)
  );
}

function deadlineMs(deployment: Deployment, progressing: DeploymentCondition): number {
  return Date.parse(progressing.lastUpdateTime ?? '') + deployment.spec.progressDeadlineSeconds! * 1000;
}

function isTimedOut(deployment: Deployment, next: DeploymentStatus, nowMs: number): boolean {
  const progressing = condition(next, 'Progressing');
  if (!hasProgressDeadline(deployment) || !progressing || progressing.reason === 'NewReplicaSetAvailable') return false;
  return progressing.reason === 'ProgressDeadlineExceeded' || deadlineMs(deployment, progressing) < nowMs;
}

/** Status of a rollout in progress: counts plus progress and failures. */
export function rolloutStatus(
  deployment: Deployment,
  all: readonly ReplicaSet[],
  newSet: ReplicaSet | undefined,
  nowMs: number,
): DeploymentStatus {
  let status = calculateStatus(deployment, all, newSet, nowMs);
  if (!hasProgressDeadline(deployment)) status = withoutCondition(status, 'Progressing');
  const current = condition(deployment.status, 'Progressing');
  const wasComplete = status.replicas === status.updatedReplicas && current?.reason === 'NewReplicaSetAvailable';
  if (hasProgressDeadline(deployment) && !wasComplete) {
    const what = newSet ? `ReplicaSet "${newSet.metadata.name}"` : `Deployment "${deployment.metadata.name}"`;
    if (isComplete(deployment, status)) {
      status = withCondition(
        status,
        {
          type: 'Progressing',
          status: 'True',
          reason: 'NewReplicaSetAvailable',
          message: `${what} has successfully progressed.`,
        },
        nowMs,
      );
    } else if (isProgressing(deployment.status, status)) {
      const keep =
        current?.status === 'True' && current.lastTransitionTime
          ? { lastTransitionTime: current.lastTransitionTime }
          : {};
      status = withCondition(
        withoutCondition(status, 'Progressing'),
        {
          type: 'Progressing',
          status: 'True',
          reason: 'ReplicaSetUpdated',
          message: `${what} is progressing.`,
          ...keep,
        },
        nowMs,
      );
    } else if (isTimedOut(deployment, status, nowMs)) {
      status = withCondition(
        status,
        {
          type: 'Progressing',
          status: 'False',
          reason: 'ProgressDeadlineExceeded',
          message: `${what} has timed out progressing.`,
        },
        nowMs,
      );
    }
  }
  const failing = [newSet, ...all]
    .flatMap(set => set?.status?.conditions ?? [])
    .find(found => found.type === 'ReplicaFailure');
  return failing
    ? withCondition(
        status,
        {
          type: 'ReplicaFailure',
          status: failing.status,
          reason: failing.reason ?? '',
          message: failing.message ?? '',
          ...(failing.lastTransitionTime ? { lastTransitionTime: failing.lastTransitionTime } : {}),
        },
        nowMs,
      )
    : withoutCondition(status, 'ReplicaFailure');
}

/** When to look again whether the rollout has timed out; undefined when that cannot happen. */
export function msUntilDeadline(deployment: Deployment, status: DeploymentStatus, nowMs: number): number | undefined {
  const progressing = condition(status, 'Progressing');
  if (!hasProgressDeadline(deployment) || !progressing) return undefined;
  if (
    isComplete(deployment, status) ||
    progressing.reason === 'ProgressDeadlineExceeded' ||
    progressing.reason === 'NewReplicaSetAvailable'
  )
    return undefined;
  return Math.max(0, deadlineMs(deployment, progressing) - nowMs) + 1000;
}
