/**
 * What a resource claim uses of each resource that a ResourceQuota can limit, in units of 10⁻⁹: devices by class, and of the extended
 * resources that the class serves; of a claim for a pod's extended resources only what the pod itself does not count. Pure.
 */

import type { Pod } from '../../api/core/v1.gen.ts';
import { CLASS_RESOURCE_PREFIX, isExtendedClaim } from '../../api/machinery/extended-resources.ts';
import { quantityValue } from '../../api/machinery/quantity.ts';
import { controllerOf } from '../../api/meta.ts';
import type { DeviceRequest, DeviceSubRequest, ResourceClaim } from '../../api/resource/v1.gen.ts';
import type { Usage } from './quota-usage.ts';

const ONE = 10n ** 9n;
/** What a claim for all devices may get: upstream's AllocationResultsMaxSize. */
const DEVICES_MAX = 32;
const BY_CLASS = '.deviceclass.resource.k8s.io/devices';
/** As the scheduler names requests of the claim for a pod's extended resources: by container and resource. */
const EXTENDED_REQUEST = /^container-(\d+)-request-(\d+)$/;

export interface QuotaLookup {
  /** Which the class says it serves. */
  extendedResource(deviceClass: string): string | undefined;
  pod(namespace: string, name: string): Pod | undefined;
}

/** Whether claims use it: `CLASS.deviceclass.resource.k8s.io/devices`. */
export const isCountedByClass = (name: string): boolean => name.endsWith(BY_CLASS);
/** Whether pods and claims use it: `requests.example.com/gpu`, `requests.deviceclass.resource.kubernetes.io/CLASS`. */
export const isExtendedQuota = (name: string): boolean =>
  name.startsWith(`requests.${CLASS_RESOURCE_PREFIX}`) ||
  (name.startsWith('requests.') && name.includes('/') && !name.includes('kubernetes.io/'));

export function claimUsage(claim: ResourceClaim, lookup: QuotaLookup): Usage {
  const usage = new Map<string, bigint>([['count/resourceclaims.resource.k8s.io', ONE]]);
  const owner = ownerOf(claim, lookup);
  const add = (name: string, count: bigint) => usage.set(name, (usage.get(name) ?? 0n) + count * ONE);
  for (const request of claim.spec?.devices?.requests ?? [])
    for (const [deviceClass, count] of mostByClass(request)) {
      add(`${deviceClass}${BY_CLASS}`, BigInt(count));
      const counted = owner && countedByPod(owner, request.name, count);
      for (const resource of [`${CLASS_RESOURCE_PREFIX}${deviceClass}`, lookup.extendedResource(deviceClass)])
        if (resource && resource !== counted) add(`requests.${resource}`, BigInt(count));
    }
  return usage;
}

/** Of alternatives the one with most of each class counts. */
function mostByClass({ exactly, firstAvailable = [] }: DeviceRequest): ReadonlyMap<string, number> {
  const most = new Map<string, number>();
  for (const one of exactly ? [exactly] : firstAvailable)
    most.set(one.deviceClassName, Math.max(most.get(one.deviceClassName) ?? 0, countOf(one)));
  return most;
}
const countOf = ({ allocationMode, count }: Pick<DeviceSubRequest, 'allocationMode' | 'count'>): number =>
  allocationMode === 'All' ? DEVICES_MAX : (count ?? 1);

/** The pod whose extended resources the claim is for. */
function ownerOf(claim: ResourceClaim, lookup: QuotaLookup): Pod | undefined {
  const owner = controllerOf(claim);
  if (!isExtendedClaim(claim) || owner?.kind !== 'Pod' || owner.apiVersion !== 'v1') return undefined;
  const pod = lookup.pod(claim.metadata.namespace ?? '', owner.name);
  if (pod?.metadata.uid !== owner.uid) return undefined;
  const told = pod.status?.extendedResourceClaimStatus?.resourceClaimName;
  return told === undefined || told === claim.metadata.name ? pod : undefined;
}

/** The resource that the pod asks for by the request, where it asks for as much. */
function countedByPod({ spec }: Pod, request: string, count: number): string | undefined {
  const [, container, place] = EXTENDED_REQUEST.exec(request) ?? [];
  const { requests = {} } = [...(spec.initContainers ?? []), ...spec.containers][Number(container)]?.resources ?? {};
  const resource = Object.keys(requests).sort()[Number(place)];
  return resource !== undefined && quantityValue(requests[resource]) >= count ? resource : undefined;
}
