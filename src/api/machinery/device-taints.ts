/** Taints of devices (KEP-5055): which tolerations of a claim's request let them pass. Pure. */

import type { DeviceTaint, DeviceToleration } from '../resource/v1.gen.ts';

/** By upstream's rules: no effect stands for every effect, no key with `Exists` for every key. */
export function toleratesDeviceTaint(
  { key, operator = 'Equal', value = '', effect }: DeviceToleration,
  taint: DeviceTaint,
): boolean {
  return (
    (!effect || effect === taint.effect) &&
    (key ? key === taint.key : operator === 'Exists') &&
    (operator === 'Exists' || value === (taint.value ?? ''))
  );
}
