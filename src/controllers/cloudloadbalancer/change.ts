/** What upstream's service controller looks at: which nodes take a load balancer's traffic, and which changes matter to it. Pure. */

import type { Node, Service } from '../../api/core/v1.gen.ts';

export const FINALIZER = 'service.kubernetes.io/load-balancer-cleanup';
const EXCLUDE_LABEL = 'node.kubernetes.io/exclude-from-external-load-balancers';
const TO_BE_DELETED_TAINT = 'ToBeDeletedByClusterAutoscaler';

// Since 1.34 a label that says `false` says nothing.
const isExcluded = ({ labels = {} }: Node['metadata']): boolean =>
  labels[EXCLUDE_LABEL] !== undefined && labels[EXCLUDE_LABEL] !== 'false';

/** Readiness is not asked: the load balancer's own health check does that, and the set stays stable. */
export function takesTraffic({ metadata, spec }: Node): boolean {
  return (
    !metadata.deletionTimestamp &&
    !isExcluded(metadata) &&
    !spec?.taints?.some(({ key }) => key === TO_BE_DELETED_TAINT)
  );
}

/** Whether load balancers must hear of it at once; a taint alone waits, so that its connections may drain. */
export function changesHosts(old: Node | undefined, now: Node | undefined): boolean {
  if (!old || !now) return true;
  const facts = ({ metadata, spec }: Node) => [
    isExcluded(metadata),
    metadata.deletionTimestamp === undefined,
    spec?.providerID,
  ];
  return facts(old).join() !== facts(now).join();
}

export const hasFinalizer = ({ metadata }: Service): boolean => metadata.finalizers?.includes(FINALIZER) ?? false;

/** Equal ones need no new load balancer. */
export function demandOf({ metadata, spec }: Service): string {
  const { ports, sessionAffinity, sessionAffinityConfig, loadBalancerSourceRanges, loadBalancerIP, externalIPs } = spec;
  return JSON.stringify([
    metadata.uid,
    Object.entries(metadata.annotations ?? {}).sort(),
    ports?.map(({ name, protocol, port, nodePort, targetPort, appProtocol }) => [
      ...[name, protocol, port, nodePort, targetPort, appProtocol],
    ]),
    sessionAffinity,
    sessionAffinityConfig,
    loadBalancerSourceRanges,
    loadBalancerIP,
    externalIPs,
    spec.externalTrafficPolicy,
    spec.healthCheckNodePort,
    spec.ipFamilies,
  ]);
}

/** What changed, as the Service's events tell it: reason and message. */
export function changesTold(old: Service, now: Service): (readonly [reason: string, message: string])[] {
  const differs = (reason: string, of: (service: Service) => string) =>
    of(old) === of(now) ? [] : [[reason, `${of(old)} -> ${of(now)}`] as const];
  const list = (values: readonly string[] | undefined) => `[${(values ?? []).join(' ')}]`;
  return [
    ...differs('Type', ({ spec }) => spec.type ?? ''),
    ...differs('LoadBalancerSourceRanges', ({ spec }) => list(spec.loadBalancerSourceRanges)),
    ...differs('LoadbalancerIP', ({ spec }) => spec.loadBalancerIP ?? ''),
    ...differs('ExternalTrafficPolicy', ({ spec }) => spec.externalTrafficPolicy ?? ''),
    ...differs('HealthCheckNodePort', ({ spec }) => String(spec.healthCheckNodePort ?? 0)),
  ];
}
