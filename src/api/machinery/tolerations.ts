/** Taints and tolerations, as corev1 `Toleration.ToleratesTaint`: shared by the scheduler, the taint eviction and the DaemonSet controller. Pure. */

import type { Taint, Toleration } from '../core/v1.gen.ts';

/** An empty effect or key matches all. */
export function tolerates(toleration: Toleration, taint: Taint): boolean {
  if (toleration.effect && toleration.effect !== taint.effect) return false;
  if (toleration.key && toleration.key !== taint.key) return false;
  const { value = '' } = toleration;
  switch (toleration.operator ?? 'Equal') {
    case '':
    case 'Equal':
      return toleration.key ? value === (taint.value ?? '') : false;
    case 'Exists':
      return true;
    default:
      return false;
  }
}

/** The first taint with one of the effects that nothing tolerates. */
export function untolerated(
  taints: readonly Taint[] | undefined,
  tolerations: readonly Toleration[] | undefined,
  effects: readonly string[],
): Taint | undefined {
  return taints?.find(
    taint => effects.includes(taint.effect) && !tolerations?.some(toleration => tolerates(toleration, taint)),
  );
}
