/** Facts about pods that only controllers decide by; the shared ones are in `src/api/machinery/pod.ts`. Pure. */

import type { Pod } from '../../api/core/v1.gen.ts';
import { isPodTerminal, podCondition } from '../../api/machinery/pod.ts';

/** Being deleted and not finished yet. */
export const isPodTerminating = (pod: Pod): boolean =>
  !isPodTerminal(pod) && pod.metadata.deletionTimestamp !== undefined;

/** Milliseconds until the first ready pod becomes available; undefined when none waits. */
export function msUntilAvailable(pods: readonly Pod[], minReadySeconds: number, nowMs: number): number | undefined {
  let soonest: number | undefined;
  for (const pod of pods) {
    const ready = podCondition(pod, 'Ready');
    if (ready?.status !== 'True' || !ready.lastTransitionTime) continue;
    const waitMs = Date.parse(ready.lastTransitionTime) + minReadySeconds * 1000 - nowMs;
    if (waitMs > 0 && (soonest === undefined || waitMs < soonest)) soonest = waitMs;
  }
  return soonest;
}

export function restartsMax(pod: Pod): number {
  let most = 0;
  for (const { restartCount } of [
    ...(pod.status?.initContainerStatuses ?? []),
    ...(pod.status?.containerStatuses ?? []),
  ])
    most = Math.max(most, restartCount);
  return most;
}
