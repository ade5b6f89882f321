/**
 * What this version stores but nothing acts on yet: who makes such an object is told with a warning. Whoever makes one of these work removes its line here and in `docs/not-yet.md`.
 */

import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';

interface Gap {
  /** `resource.group`, with `/subresource`. */
  readonly of: string;
  readonly says: string;
}

export const GAPS: readonly Gap[] = [];

export function notYet(): AdmissionPlugin {
  const gaps = new Map(GAPS.map(gap => [gap.of, gap]));
  return {
    name: 'NotYet',
    validate(request) {
      const gap = gaps.get(keyOf(request));
      if (gap && request.operation === 'CREATE') request.warn(gap.says);
    },
  };
}

function keyOf({ attributes }: AdmissionRequest): string {
  const { resource, group, subresource } = attributes;
  return subresource ? `${resource}.${group}/${subresource}` : `${resource}.${group}`;
}
