/**
 * Resource claims: those of the pod must exist and either have devices that the node reaches, or be such that the node's free
 * devices can serve them, all together; so must extended resources that device classes serve.
 */

import { nodeSelectorMatch } from '../../api/machinery/node-selector.ts';
import { claimsOf } from '../../api/machinery/resource-claims.ts';
import type { ResourceClaim } from '../../api/resource/v1.gen.ts';
import { allocate, type Inventory } from '../claim-allocation.ts';
import { extendedClaimOn, servingClasses } from '../extended-resources.ts';
import type { PodInfo } from '../node-info.ts';
import { type Lookup, type Plugin, type Rejection, refuse, refuseForGood } from '../plugin.ts';

/** Upstream's ResourceClaimReservedForMaxSize. */
const RESERVED_MAX = 256;

/** The claims of a pod that has some. */
export function podResourceClaims(
  { pod }: PodInfo,
  lookup: Lookup,
): { readonly claims: readonly ResourceClaim[] } | Rejection | undefined {
  if (!pod.spec?.resourceClaims?.length) return undefined;
  const { namespace = '', name, uid } = pod.metadata;
  const claims: ResourceClaim[] = [];
  for (const { claim: wanted, name: entry, isFromTemplate } of claimsOf(pod)) {
    if (wanted === null) continue;
    if (wanted === undefined)
      return {
        rejection: `waiting for dynamic resource controller to create the resourceclaim for pod "${namespace}/${name}", claim ${JSON.stringify(entry)}`,
      };
    const claim = lookup.resourceClaim(namespace, wanted);
    if (!claim) return { rejection: `resourceclaim ${JSON.stringify(wanted)} not found` };
    if (claim.metadata.deletionTimestamp)
      return { rejection: `resourceclaim ${JSON.stringify(wanted)} is being deleted` };
    if (isFromTemplate && !claim.metadata.ownerReferences?.some(one => one.uid === uid))
      return {
        rejection: `ResourceClaim ${namespace}/${wanted} was not created for pod ${namespace}/${name} (pod is not owner)`,
      };
    claims.push(claim);
  }
  return { claims };
}

export const dynamicResources: Plugin = {
  name: 'DynamicResources',
  weight: 0,
  wakesOn: ['node-added', 'node-labels', 'device', 'device-class', 'pod-removed'],
  filter: (pod, { lookup }) => {
    const found = podResourceClaims(pod, lookup);
    if (found && 'rejection' in found) return found;
    const classes = servingClasses(pod, lookup);
    if (!found && classes.size === 0) return undefined;
    const { claims = [] } = found ?? {};
    const { uid } = pod.pod.metadata;
    if (classes.size > 0 && lookup.leftoverClaim(uid!)) return () => refuse('cannot schedule extended resource claim');
    for (const { metadata, status } of claims)
      if (
        status?.allocation &&
        (status.reservedFor?.length ?? 0) >= RESERVED_MAX &&
        !status.reservedFor?.some(one => one.uid === uid)
      )
        return { rejection: `resourceclaim ${JSON.stringify(metadata.name)} is in use` };
    return info => {
      const { node } = info;
      const { devices } = lookup;
      let usage = devices.usage();
      const inventory: Inventory = {
        deviceClass: name => devices.deviceClass(name),
        slices: () => devices.slices(),
        newShareId: () => devices.newShareId(),
        usage: () => usage,
      };
      const extended = extendedClaimOn(info, pod, classes);
      for (const claim of extended ? [...claims, extended.claim] : claims) {
        const { allocation } = claim.status ?? {};
        if (allocation) {
          if (allocation.nodeSelector && !nodeSelectorMatch(allocation.nodeSelector)(node))
            return refuseForGood('resourceclaim not available on the node');
          continue;
        }
        const decision = allocate(claim, node, inventory);
        if ('reason' in decision) return refuse(decision.reason);
        usage = usage.with(decision.allocation.devices?.results ?? []);
      }
      return undefined;
    };
  },
};
