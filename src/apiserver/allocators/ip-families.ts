/** Fills ipFamilyPolicy and ipFamilies of a Service from what it asks for and what the cluster has; upstream's `initIPFamilyFields`. */

import { clusterAddressErrors } from '../../api/core/service-validation.ts';
import type { Service, ServiceSpec } from '../../api/core/v1.gen.ts';
import { type FieldError, fieldErrors, invalid } from '../../base/errors.ts';
import { type Family, familyOf } from './address-range.ts';
import { hasClusterIp } from './service-fields.ts';

export interface ClusterFamilies {
  readonly defaultFamily: Family;
  hasFamily(family: Family): boolean;
}

/** Changes the service; throws Invalid. */
export function fillIpFamilies(service: Service, old: Service | undefined, cluster: ClusterFamilies): void {
  const spec = service.spec!;
  const before = old?.spec;
  if (!hasClusterIp(spec)) return;
  const refuse = (errors: readonly FieldError[]) => {
    if (errors.length) throw invalid({ group: '', kind: 'Service' }, service.metadata.name, errors);
  };
  // A PreferDualStack service is not up- or downgraded because the cluster changed around it.
  if (
    before?.type === spec.type &&
    spec.ipFamilyPolicy === 'PreferDualStack' &&
    (before?.ipFamilyPolicy ?? 'PreferDualStack') === 'PreferDualStack' &&
    same(spec.ipFamilies, before?.ipFamilies) &&
    same(spec.clusterIPs, before?.clusterIPs)
  )
    return;

  const selectorless = Object.keys(spec.selector ?? {}).length === 0;
  const headless = spec.clusterIP === 'None';
  spec.ipFamilyPolicy ??= before?.ipFamilyPolicy ?? (headless && selectorless ? 'RequireDualStack' : 'SingleStack');
  const policy = spec.ipFamilyPolicy;
  refuse(clusterAddressErrors(spec));
  const errors: FieldError[] = [];
  const policyError = (detail: string) => errors.push(fieldErrors.invalid('spec.ipFamilyPolicy', policy, detail));

  if (before) {
    if (policy === 'SingleStack') {
      if (same(spec.clusterIPs, before.clusterIPs) && (spec.clusterIPs?.length ?? 0) > 1)
        spec.clusterIPs = spec.clusterIPs!.slice(0, 1);
      if (same(spec.ipFamilies, before.ipFamilies) && (spec.ipFamilies?.length ?? 0) > 1)
        spec.ipFamilies = spec.ipFamilies!.slice(0, 1);
    } else {
      if (reduced(spec.clusterIPs, before.clusterIPs))
        policyError("must be 'SingleStack' to release the secondary cluster IP");
      if (reduced(spec.ipFamilies, before.ipFamilies))
        policyError("must be 'SingleStack' to release the secondary IP family");
    }
  }
  if (policy === 'SingleStack') {
    if (spec.clusterIPs?.length === 2)
      policyError("must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified");
    if (spec.ipFamilies?.length === 2)
      policyError("must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified");
  }
  for (const [index, address] of (spec.clusterIPs ?? []).entries()) {
    if (address === 'None') break;
    if (index < (spec.ipFamilies?.length ?? 0)) continue;
    const family = familyOf(address);
    if (cluster.hasFamily(family)) spec.ipFamilies = [...(spec.ipFamilies ?? []), family];
    else
      errors.push(
        fieldErrors.invalid(
          `spec.clusterIPs[${index}]`,
          spec.clusterIPs,
          `${family} is not configured on this cluster`,
        ),
      );
  }
  refuse(errors);

  if (headless && selectorless) {
    if (!spec.ipFamilies?.length) spec.ipFamilies = [cluster.defaultFamily];
    if (spec.ipFamilies.length < 2 && policy !== 'SingleStack') addOther(spec);
    return;
  }
  const dualStack = cluster.hasFamily('IPv4') && cluster.hasFamily('IPv6');
  if (policy === 'RequireDualStack' && !dualStack)
    policyError('this cluster is not configured for dual-stack services');
  for (const [index, family] of (spec.ipFamilies ?? []).entries())
    if (!cluster.hasFamily(family as Family))
      errors.push(fieldErrors.invalid(`spec.ipFamilies[${index}]`, family, 'not configured on this cluster'));
  refuse(errors);
  if (!spec.ipFamilies?.length) spec.ipFamilies = [cluster.defaultFamily];
  if (policy !== 'SingleStack' && spec.ipFamilies.length === 1 && dualStack) addOther(spec);
}

function addOther(spec: ServiceSpec): void {
  spec.ipFamilies = [spec.ipFamilies![0]!, spec.ipFamilies![0] === 'IPv4' ? 'IPv6' : 'IPv4'];
}

const same = (a: readonly string[] | undefined, b: readonly string[] | undefined): boolean =>
  (a ?? []).join() === (b ?? []).join();

function reduced(after: readonly string[] | undefined, before: readonly string[] | undefined): boolean {
  return (after?.length ?? 0) > 0 && after!.length < (before?.length ?? 0);
}
