/**
 * What this version stores but nothing acts on yet: who makes such an object is told with a warning, and what would only
 * seem to have worked is refused. Whoever makes one of these work removes its line here and in `docs/not-yet.md`.
 */

import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';
import { refusal } from './context.ts';

interface Gap {
  /** `resource.group`, with `/subresource`. */
  readonly of: string;
  readonly says: string;
  readonly refuses?: true;
}

const DEVICES = 'devices are not allocated yet';

export const GAPS: readonly Gap[] = [
  { of: 'horizontalpodautoscalers.autoscaling', says: 'nothing is scaled automatically yet' },
  { of: 'certificatesigningrequests.certificates.k8s.io', says: 'no signer issues certificates yet' },
  { of: 'resourceclaims.resource.k8s.io', says: DEVICES },
  { of: 'resourceclaimtemplates.resource.k8s.io', says: DEVICES },
  { of: 'flowschemas.flowcontrol.apiserver.k8s.io', says: 'requests are not queued by priority yet' },
  { of: 'pods./resize', says: 'containers are not resized in place yet', refuses: true },
];

export function notYet(): AdmissionPlugin {
  const gaps = new Map(GAPS.map(gap => [gap.of, gap]));
  return {
    name: 'NotYet',
    validate(request) {
      const key = keyOf(request);
      const gap = gaps.get(key);
      if (!gap) return;
      if (gap.refuses) throw refusal(request, gap.says);
      if (request.operation === 'CREATE') request.warn(gap.says);
    },
  };
}

function keyOf({ attributes }: AdmissionRequest): string {
  const { resource, group, subresource } = attributes;
  return subresource ? `${resource}.${group}/${subresource}` : `${resource}.${group}`;
}
