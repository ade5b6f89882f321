/**
 * In which order pods are evicted, as upstream's kubelet does: those that use more than they asked for, then the lower
 * priority, then the greater excess. Critical pods are not evicted at all. Pure.
 */

import type { Pod } from '../../api/core/v1.gen.ts';
import { podRequest } from '../pods/resources.ts';
import type { Resource } from './signals.ts';

const SYSTEM_CRITICAL_PRIORITY = 2_000_000_000;
const CONFIG_SOURCE = 'kubernetes.io/config.source';

export interface Candidate {
  readonly pod: Pod;
  readonly used: number;
}

export function isCritical({ metadata, spec }: Pod): boolean {
  const isStatic = (metadata.annotations?.[CONFIG_SOURCE] ?? 'api') !== 'api';
  return isStatic || (spec.priority ?? 0) >= SYSTEM_CRITICAL_PRIORITY;
}

/** First to go first. */
export function ranked<T extends Candidate>(candidates: readonly T[], resource: Resource): T[] {
  const asked = (pod: Pod) =>
    resource === 'memory' || resource === 'ephemeral-storage' ? podRequest(pod, resource) : 0;
  const excess = ({ pod, used }: Candidate) => used - asked(pod);
  return candidates
    .filter(({ pod }) => !isCritical(pod))
    .sort(
      (a, b) =>
        Number(excess(b) > 0) - Number(excess(a) > 0) ||
        (a.pod.spec.priority ?? 0) - (b.pod.spec.priority ?? 0) ||
        excess(b) - excess(a),
    );
}
