/**
 * The claim for a pod's extended resources that device classes serve (KEP-5004): on nodes that have them of no device plugin. One request for
 * each container and resource; init containers use again what later containers will have. Pure.
 */

import type { Container, ContainerExtendedResourceRequest, Pod } from '../api/core/v1.gen.ts';
import {
  EXTENDED_CLAIM,
  EXTENDED_CLAIM_ANNOTATION,
  mayBeServedByDevices,
} from '../api/machinery/extended-resources.ts';
import { quantityValue } from '../api/machinery/quantity.ts';
import type { DeviceRequest, ResourceClaim } from '../api/resource/v1.gen.ts';
import type { NodeInfo, PodInfo } from './node-info.ts';
import type { Lookup } from './plugin.ts';

/** Names of classes by the resources that the pod asks for. */
export type ServingClasses = ReadonlyMap<string, string>;

export interface ExtendedClaim {
  /** As it will be, under a name of this pod's until the server gives it one. */
  readonly claim: ResourceClaim;
  readonly requestMappings: ContainerExtendedResourceRequest[];
}

export function servingClasses({ requests }: PodInfo, lookup: Lookup): ServingClasses {
  const classes = new Map<string, string>();
  for (const [resource, amount] of Object.entries(requests)) {
    if (amount <= 0 || !mayBeServedByDevices(resource)) continue;
    const found = lookup.deviceClassFor(resource);
    if (found) classes.set(resource, found.metadata.name);
  }
  return classes;
}

export const isServedOn = (node: NodeInfo, resource: string, classes: ServingClasses): boolean =>
  classes.has(resource) && !node.allocatable[resource];

/** Undefined when device plugins of the node serve all. */
export function extendedClaimOn(node: NodeInfo, { pod }: PodInfo, classes: ServingClasses): ExtendedClaim | undefined {
  const served = new Map([...classes].filter(([resource]) => isServedOn(node, resource, classes)));
  if (served.size === 0) return undefined;
  const { namespace, name, uid } = pod.metadata;
  const { requests, requestMappings } = requestsOf(pod, served);
  return {
    claim: {
      apiVersion: 'resource.k8s.io/v1',
      kind: 'ResourceClaim',
      metadata: {
        name: `${EXTENDED_CLAIM}${uid}`,
        generateName: `${name}-extended-resources-`,
        ...(namespace ? { namespace } : {}),
        annotations: { [EXTENDED_CLAIM_ANNOTATION]: 'true' },
        ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name, uid: uid!, controller: true }],
      },
      spec: { devices: { requests } },
    },
    requestMappings,
  };
}

interface Asked {
  readonly name: string;
  readonly container: string;
  readonly count: number;
  /** Ends before the containers after it begin. */
  readonly isPassing: boolean;
}

/** With upstream's names, which tell the places of the container and of the resource among its requests. */
function requestsOf(
  { spec }: Pod,
  classes: ServingClasses,
): { readonly requests: DeviceRequest[]; readonly requestMappings: ContainerExtendedResourceRequest[] } {
  const containers = [
    ...(spec.initContainers ?? []).map(one => ({ one, isPassing: one.restartPolicy !== 'Always' })),
    ...spec.containers.map(one => ({ one, isPassing: false })),
  ];
  const requests: DeviceRequest[] = [];
  const requestMappings: ContainerExtendedResourceRequest[] = [];
  for (const [resourceName, deviceClassName] of [...classes].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const asked = containers.flatMap(({ one, isPassing }, i): Asked[] => {
      const count = countOf(one, resourceName);
      const place = Object.keys(one.resources?.requests ?? {})
        .sort()
        .indexOf(resourceName);
      return count > 0 ? [{ name: `container-${i}-request-${place}`, container: one.name, count, isPassing }] : [];
    });
    const lasting = asked.filter(({ isPassing }) => !isPassing);
    // What an init container wants beside that of the containers after it: the one that wants most serves them all.
    const passing = asked.flatMap((one, i) => {
      if (!one.isPassing) return [];
      let missing = one.count;
      const used: string[] = [];
      for (const later of asked.slice(i + 1)) {
        if (later.isPassing || missing <= 0) continue;
        used.push(later.name);
        missing -= later.count;
      }
      return [{ ...one, count: missing, used }];
    });
    const most = passing.reduce<Asked | undefined>(
      (best, one) => (one.count > (best?.count ?? 0) ? one : best),
      undefined,
    );
    for (const { name, count } of most ? [most, ...lasting] : lasting)
      requests.push({ name, exactly: { deviceClassName, allocationMode: 'ExactCount', count } });
    const map = (containerName: string, requestName: string) =>
      requestMappings.push({ containerName, resourceName, requestName });
    for (const { container, name } of lasting) map(container, name);
    for (const { container, count, used } of passing)
      for (const name of count > 0 ? [...used, most!.name] : used) map(container, name);
  }
  return { requests: requests.sort((a, b) => (a.name < b.name ? -1 : 1)), requestMappings };
}

const countOf = ({ resources }: Container, resource: string): number =>
  quantityValue(resources?.requests?.[resource] ?? '0');
