/** Whether what is mounted below a read-only mount is read-only too (KEP 3857): the kernel must know `mount_setattr`. */

import { release } from 'node:os';
import type { VolumeMount } from '../../api/core/v1.gen.ts';

const [MAJOR = 0, MINOR = 0] = release().split('.').map(Number);

export const hasRecursiveReadOnly: boolean = MAJOR > 5 || (MAJOR === 5 && MINOR >= 12);

/** What a mount asks for here; undefined for nothing. */
export function recursionOf({
  readOnly,
  recursiveReadOnly = 'Disabled',
}: VolumeMount): 'IfPossible' | 'Enabled' | undefined {
  if (readOnly !== true || !hasRecursiveReadOnly) return undefined;
  return recursiveReadOnly === 'Enabled' || recursiveReadOnly === 'IfPossible' ? recursiveReadOnly : undefined;
}
