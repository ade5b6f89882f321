/** Extended resources that device classes serve (KEP-5004): names that the scheduler and the kubelet share. Pure. */

import { isExtendedResource } from '../core/resource-validation.ts';
import type { Pod } from '../core/v1.gen.ts';
import type { DeviceClass, ResourceClaim } from '../resource/v1.gen.ts';

/** Every device class is an extended resource by this and its name. */
export const CLASS_RESOURCE_PREFIX = 'deviceclass.resource.kubernetes.io/';
/** On the claim that the scheduler makes for a pod's extended resources. */
export const EXTENDED_CLAIM_ANNOTATION = 'resource.kubernetes.io/extended-resource-claim';
/** What that claim is called where a pod's claims have names of their own; no name of one. */
export const EXTENDED_CLAIM = '<extended-resources>';

export const mayBeServedByDevices = (resource: string): boolean =>
  isExtendedResource(resource) || resource.startsWith(CLASS_RESOURCE_PREFIX);

export const isExtendedClaim = ({ metadata }: ResourceClaim): boolean =>
  metadata.annotations?.[EXTENDED_CLAIM_ANNOTATION] === 'true';

/** By resource: of classes that name the same the younger one, or the first by name of those of one moment. */
export function classesByResource(classes: Iterable<DeviceClass>): ReadonlyMap<string, DeviceClass> {
  const found = new Map<string, DeviceClass>();
  const all = [...classes].sort((a, b) => {
    const [bornA = '', bornB = ''] = [a.metadata.creationTimestamp, b.metadata.creationTimestamp];
    if (bornA !== bornB) return bornA < bornB ? 1 : -1;
    return a.metadata.name < b.metadata.name ? -1 : 1;
  });
  for (const one of all) {
    const named = one.spec?.extendedResourceName;
    if (named && !found.has(named)) found.set(named, one);
    found.set(`${CLASS_RESOURCE_PREFIX}${one.metadata.name}`, one);
  }
  return found;
}

/** Whether a container gets the resource out of that claim. */
export const isClaimed = ({ status }: Pod, container: string, resource: string): boolean =>
  status?.extendedResourceClaimStatus?.requestMappings?.some(
    ({ containerName, resourceName }) => containerName === container && resourceName === resource,
  ) === true;

/** By container: what each gets out of the pod's claim for extended resources. */
export function extendedRequestsOf(pod: Pod): Record<string, string[]> {
  const mappings = pod.status?.extendedResourceClaimStatus?.requestMappings ?? [];
  const byContainer = Object.groupBy(mappings, ({ containerName }) => containerName);
  return Object.fromEntries(
    Object.entries(byContainer).map(([name, all = []]) => [name, all.map(({ requestName }) => requestName)]),
  );
}
