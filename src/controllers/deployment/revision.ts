/**
 * Revisions: which replica set belongs to the current template, the hash in its name, and the annotations that
 * `kubectl rollout history` and `undo` read. Pure.
 */

import type { Deployment, ReplicaSet } from '../../api/apps/v1.gen.ts';
import type { PodTemplateSpec } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { byCreation, DESIRED_REPLICAS, MAX_REPLICAS, maxSurge, wanted } from './arithmetic.ts';

export const POD_TEMPLATE_HASH = 'pod-template-hash';
export const REVISION = 'deployment.kubernetes.io/revision';
export const REVISION_HISTORY = 'deployment.kubernetes.io/revision-history';

const HISTORY_CHARACTERS_MAX = 2000;
const NOT_COPIED = new Set([
  'kubectl.kubernetes.io/last-applied-configuration',
  REVISION,
  REVISION_HISTORY,
  DESIRED_REPLICAS,
  MAX_REPLICAS,
  'deprecated.deployment.rollback.to',
]);

function withoutHash(template: PodTemplateSpec | undefined): unknown {
  const { [POD_TEMPLATE_HASH]: _hash, ...labels } = template?.metadata?.labels ?? {};
  return { metadata: { ...template?.metadata, creationTimestamp: undefined, labels }, spec: template?.spec };
}

export function sameTemplate(a: PodTemplateSpec | undefined, b: PodTemplateSpec | undefined): boolean {
  return semanticEqual(withoutHash(a), withoutHash(b));
}

/** The oldest replica set with the Deployment's template. */
export function findNewSet(deployment: Deployment, sets: readonly ReplicaSet[]): ReplicaSet | undefined {
  return [...sets].sort(byCreation).find(set => sameTemplate(set.spec.template, deployment.spec.template));
}

/** All 64 bits of it; undefined when it is no such number. */
function revisionNumber(text: string | undefined): bigint | undefined {
  if (text === undefined) return 0n;
  const number = /^[+-]?\d+$/.test(text) ? BigInt(text.replace('+', '')) : undefined;
  return number !== undefined && BigInt.asIntN(64, number) === number ? number : undefined;
}

export const revisionOf = (set: ReplicaSet): bigint => revisionNumber(set.metadata.annotations?.[REVISION]) ?? 0n;

export const byRevision = (a: ReplicaSet, b: ReplicaSet): number => (revisionOf(a) < revisionOf(b) ? -1 : 1);

export function maxRevision(sets: readonly ReplicaSet[]): bigint {
  const last = [...sets].sort(byRevision).at(-1);
  return last ? revisionOf(last) : 0n;
}

/** Annotations that record the size the Deployment had, for proportional scaling. */
export function replicaAnnotations(deployment: Deployment): Record<string, string> {
  return {
    [DESIRED_REPLICAS]: String(wanted(deployment)),
    [MAX_REPLICAS]: String(wanted(deployment) + maxSurge(deployment)),
  };
}

/** Annotations of the new replica set: the Deployment's own, the revision, and former revisions when it is reused. */
export function newSetAnnotations(
  deployment: Deployment,
  present: Readonly<Record<string, string>>,
  options: { revision: bigint; exists: boolean },
): Record<string, string> {
  const annotations: Record<string, string> = { ...present };
  for (const [key, value] of Object.entries(deployment.metadata.annotations ?? {}))
    if (!NOT_COPIED.has(key)) annotations[key] = value;
  const before = present[REVISION];
  const beforeNumber = revisionNumber(before);
  if (beforeNumber === undefined) return annotations;
  if (beforeNumber < options.revision) {
    annotations[REVISION] = String(options.revision);
    if (before) {
      const history = [...(present[REVISION_HISTORY] ? present[REVISION_HISTORY].split(',') : []), before];
      while (history.length > 1 && history.join(',').length > HISTORY_CHARACTERS_MAX) history.shift();
      annotations[REVISION_HISTORY] = history.join(',');
    }
  }
  if (!options.exists) Object.assign(annotations, replicaAnnotations(deployment));
  return annotations;
}
