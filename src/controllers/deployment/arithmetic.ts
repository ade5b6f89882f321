/**
 * How many replicas each replica set of a Deployment gets. Pure numbers, upstream's rules exactly: during a rolling update
 * the total never exceeds replicas + maxSurge, and scaling down never takes availability below replicas − maxUnavailable.
 */

import type { Deployment, ReplicaSet } from '../../api/apps/v1.gen.ts';
import { rollingUpdateBounds } from '../../api/machinery/int-or-string.ts';

export const DESIRED_REPLICAS = 'deployment.kubernetes.io/desired-replicas';
export const MAX_REPLICAS = 'deployment.kubernetes.io/max-replicas';

const INT32_MAX = 2 ** 31 - 1;

export const replicasOf = (set: ReplicaSet): number => set.spec.replicas ?? 1;
export const wanted = (deployment: Deployment): number => deployment.spec.replicas ?? 1;
export const isRolling = (deployment: Deployment): boolean => deployment.spec.strategy?.type !== 'Recreate';
export const sum = (sets: readonly ReplicaSet[], of: (set: ReplicaSet) => number | undefined): number =>
  sets.reduce((total, set) => total + (of(set) ?? 0), 0);
export const activeSets = (sets: readonly ReplicaSet[]): ReplicaSet[] => sets.filter(set => replicasOf(set) > 0);

function bounds(deployment: Deployment): { maxSurge: number; maxUnavailable: number } {
  const { maxSurge = '25%', maxUnavailable = '25%' } = deployment.spec.strategy?.rollingUpdate ?? {};
  return rollingUpdateBounds({ maxSurge, maxUnavailable, replicas: wanted(deployment) });
}

export const maxSurge = (deployment: Deployment): number => (isRolling(deployment) ? bounds(deployment).maxSurge : 0);

export function maxUnavailable(deployment: Deployment): number {
  if (!isRolling(deployment) || wanted(deployment) === 0) return 0;
  return Math.min(bounds(deployment).maxUnavailable, wanted(deployment));
}

/** Size that the new replica set may have now. */
export function newSetSize(deployment: Deployment, all: readonly ReplicaSet[], newReplicas: number): number {
  if (!isRolling(deployment)) return wanted(deployment);
  const room = wanted(deployment) + maxSurge(deployment) - sum(all, replicasOf);
  if (room <= 0) return newReplicas;
  return newReplicas + Math.min(room, wanted(deployment) - newReplicas);
}

export interface Sizing {
  readonly set: ReplicaSet;
  readonly to: number;
}

export function byCreation(a: ReplicaSet, b: ReplicaSet): number {
  const [x, y] = [a.metadata.creationTimestamp ?? '', b.metadata.creationTimestamp ?? ''];
  if (x !== y) return x < y ? -1 : 1;
  return a.metadata.name < b.metadata.name ? -1 : 1;
}

/**
 * How far old replica sets may shrink now: first their unavailable pods, then as many available ones as the minimum
 * allows. A set may appear twice; apply in order.
 */
export function shrinkOldSets(
  deployment: Deployment,
  all: readonly ReplicaSet[],
  old: readonly ReplicaSet[],
  newSet: ReplicaSet,
): Sizing[] {
  const minAvailable = wanted(deployment) - maxUnavailable(deployment);
  const newUnavailable = replicasOf(newSet) - (newSet.status?.availableReplicas ?? 0);
  const cleanupMax = sum(all, replicasOf) - minAvailable - newUnavailable;
  if (sum(old, replicasOf) === 0 || cleanupMax <= 0) return [];
  const size = new Map(old.map(set => [set, replicasOf(set)]));
  const sorted = [...old].sort(byCreation);
  const result: Sizing[] = [];
  const shrink = (set: ReplicaSet, by: number) => {
    const to = size.get(set)! - by;
    size.set(set, to);
    result.push({ set, to });
  };
  let cleaned = 0;
  for (const set of sorted) {
    const by = Math.min(cleanupMax - cleaned, size.get(set)! - (set.status?.availableReplicas ?? 0));
    if (by <= 0) continue;
    shrink(set, by);
    cleaned += by;
  }
  let spare = sum(all, set => set.status?.availableReplicas) - minAvailable;
  for (const set of sorted) {
    const by = Math.min(spare, size.get(set)!);
    if (by <= 0) continue;
    shrink(set, by);
    spare -= by;
  }
  return result;
}

/**
 * Sizes of all active replica sets when the Deployment is scaled in the middle of a rollout: the change is shared in
 * proportion to their sizes, leftovers go to the largest.
 */
export function proportionalSizes(deployment: Deployment, active: readonly ReplicaSet[]): Sizing[] {
  const allowed = wanted(deployment) > 0 ? wanted(deployment) + maxSurge(deployment) : 0;
  const toAdd = allowed - sum(active, replicasOf);
  const newestFirst = toAdd > 0;
  const sorted = [...active].sort(
    (a, b) => replicasOf(b) - replicasOf(a) || (newestFirst ? byCreation(b, a) : byCreation(a, b)),
  );
  let added = 0;
  const sizes = sorted.map(set => {
    const share = toAdd === 0 ? 0 : proportion(set, deployment, toAdd, added);
    added += share;
    return { set, to: replicasOf(set) + share };
  });
  return sizes.map(({ set, to }, i) => ({ set, to: i === 0 && toAdd !== 0 ? Math.max(0, to + toAdd - added) : to }));
}

function proportion(set: ReplicaSet, deployment: Deployment, toAdd: number, added: number): number {
  if (replicasOf(set) === 0 || toAdd === added) return 0;
  const share = fraction(set, deployment);
  return toAdd > 0 ? Math.min(share, toAdd - added) : Math.max(share, toAdd - added);
}

function fraction(set: ReplicaSet, deployment: Deployment): number {
  const replicas = replicasOf(set);
  if (wanted(deployment) === 0) return -replicas;
  const before = annotationNumber(set, MAX_REPLICAS) || (deployment.status?.replicas ?? 0);
  if (before === 0) return 0;
  return Math.round((replicas * (wanted(deployment) + maxSurge(deployment))) / before) - replicas;
}

export function annotationNumber(set: ReplicaSet, name: string): number | undefined {
  const text = set.metadata.annotations?.[name];
  return text !== undefined && /^\d+$/.test(text) && Number(text) <= INT32_MAX ? Number(text) : undefined;
}

/** The new replica set has arrived: everything is there and available. */
export function isSaturated(deployment: Deployment, set: ReplicaSet | undefined): boolean {
  const replicas = wanted(deployment);
  return (
    set !== undefined &&
    replicasOf(set) === replicas &&
    annotationNumber(set, DESIRED_REPLICAS) === replicas &&
    (set.status?.availableReplicas ?? 0) === replicas
  );
}

/** The only active replica set, or the latest when none is active; undefined when several are. */
export function activeOrLatest(newSet: ReplicaSet | undefined, old: readonly ReplicaSet[]): ReplicaSet | undefined {
  const active = activeSets(newSet ? [...old, newSet] : old);
  if (active.length > 1) return undefined;
  return active[0] ?? newSet ?? [...old].sort((a, b) => byCreation(b, a))[0];
}

export const hasProgressDeadline = (deployment: Deployment): boolean =>
  deployment.spec.progressDeadlineSeconds !== undefined && deployment.spec.progressDeadlineSeconds !== INT32_MAX;
export const hasHistoryLimit = (deployment: Deployment): boolean =>
  deployment.spec.revisionHistoryLimit !== undefined && deployment.spec.revisionHistoryLimit !== INT32_MAX;

const NAME_CHARACTERS_MAX = 253;

/** The name of a replica set; of a deployment's name as much as leaves room for the hash (since 1.34). */
export function setName(deployment: string, hash: string): string {
  const room = NAME_CHARACTERS_MAX - hash.length - 1;
  return `${deployment.length > room ? deployment.slice(0, room).replace(/[.-]+$/, '') : deployment}-${hash}`;
}
