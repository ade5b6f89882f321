/** Resource claims of pods (KEP-4381): names and facts that the scheduler, the controller and the kubelet share. Pure. */

import type { Pod } from '../core/v1.gen.ts';
import { EXTENDED_CLAIM } from './extended-resources.ts';

/** Keeps an allocated claim. */
export const RESOURCE_CLAIM_FINALIZER = 'resource.kubernetes.io/delete-protection';
/** On a claim made from a template: which of the pod's claims it is. */
export const POD_CLAIM_ANNOTATION = 'resource.kubernetes.io/pod-claim-name';

export interface PodClaim {
  /** As the pod's containers name it. */
  readonly name: string;
  /** Of the ResourceClaim; undefined while it is not made from its template yet, null when none is needed. */
  readonly claim: string | undefined | null;
  readonly isFromTemplate: boolean;
}

/** What the pod names in its spec. */
export function claimsOf(pod: Pod): PodClaim[] {
  const made = new Map(
    (pod.status?.resourceClaimStatuses ?? []).map(({ name, resourceClaimName }) => [name, resourceClaimName ?? null]),
  );
  return (pod.spec?.resourceClaims ?? []).map(({ name, resourceClaimName, resourceClaimTemplateName }) => ({
    name,
    claim: resourceClaimTemplateName ? made.get(name) : resourceClaimName,
    isFromTemplate: resourceClaimTemplateName !== undefined,
  }));
}

/** With that for its extended resources. */
export function allClaimsOf(pod: Pod): PodClaim[] {
  const extended = pod.status?.extendedResourceClaimStatus?.resourceClaimName;
  return [...claimsOf(pod), ...(extended ? [{ name: EXTENDED_CLAIM, claim: extended, isFromTemplate: false }] : [])];
}
