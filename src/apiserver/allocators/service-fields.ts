/**
 * What a write of a Service means for the fields that the allocators own (clusterIP(s), ipFamilies, ipFamilyPolicy, node
 * ports): values the client left out are carried over, fields that a change of type makes meaningless are dropped.
 * Pure; the same steps as upstream's service strategy.
 */

import { isExternallyAccessible } from '../../api/core/service-validation.ts';
import type { Service, ServiceSpec } from '../../api/core/v1.gen.ts';

export const hasClusterIp = (spec: ServiceSpec): boolean => spec.type !== 'ExternalName';
export const hasNodePorts = (spec: ServiceSpec): boolean =>
  spec.type === 'NodePort' || (spec.type === 'LoadBalancer' && spec.allocateLoadBalancerNodePorts !== false);
export const mayHaveNodePorts = (spec: ServiceSpec): boolean =>
  spec.type === 'NodePort' || spec.type === 'LoadBalancer';
export const hasHealthCheckPort = (spec: ServiceSpec): boolean =>
  spec.type === 'LoadBalancer' && spec.externalTrafficPolicy === 'Local';
export const isHeadless = (spec: ServiceSpec): boolean => spec.clusterIP === 'None' || spec.clusterIPs?.[0] === 'None';

/** Its cluster IPs; none of a headless one. */
export function clusterIpsOf({ spec }: Service): string[] {
  if (!spec || !hasClusterIp(spec) || isHeadless(spec)) return [];
  return (spec.clusterIPs ?? (spec.clusterIP ? [spec.clusterIP] : [])).filter(Boolean);
}

const same = (a: readonly unknown[] | undefined, b: readonly unknown[] | undefined): boolean =>
  JSON.stringify(a ?? []) === JSON.stringify(b ?? []);

/** Before validation of a create (`old` undefined) or an update; changes `service`. */
export function settleServiceFields(service: Service, old: Service | undefined): void {
  const spec = service.spec;
  if (!spec) return;
  const before = old?.spec;
  if (before) carryOver(spec, before);
  alignClusterIps(spec, before);
  if (before) dropByType(spec, before);
}

function carryOver(spec: ServiceSpec, before: ServiceSpec): void {
  if (hasClusterIp(before) && hasClusterIp(spec)) {
    if (!spec.clusterIP && before.clusterIP) spec.clusterIP = before.clusterIP;
    if (!spec.clusterIPs?.length && before.clusterIPs) spec.clusterIPs = [...before.clusterIPs];
  }
  if (mayHaveNodePorts(before) && mayHaveNodePorts(spec)) {
    const numbers = (ports: ServiceSpec['ports']) => new Set((ports ?? []).map(port => port.nodePort ?? 0));
    const asked = numbers(spec.ports);
    const used = new Set([...numbers(before.ports)].filter(number => asked.has(number)));
    const byName = new Map((before.ports ?? []).map(port => [port.name ?? '', port.nodePort ?? 0]));
    for (const port of spec.ports ?? []) {
      const known = byName.get(port.name ?? '') ?? 0;
      if (port.nodePort || known === 0 || used.has(known)) continue;
      port.nodePort = known;
      used.add(known);
    }
  }
  if (hasHealthCheckPort(before) && hasHealthCheckPort(spec) && !spec.healthCheckNodePort && before.healthCheckNodePort)
    spec.healthCheckNodePort = before.healthCheckNodePort;
}

// clusterIP is an alias of clusterIPs[0]: whichever of the two the client wrote counts.
function alignClusterIps(spec: ServiceSpec, before: ServiceSpec | undefined): void {
  if (!before) {
    if (spec.clusterIP && !spec.clusterIPs?.length) spec.clusterIPs = [spec.clusterIP];
    return;
  }
  if (spec.clusterIP === before.clusterIP || !same(spec.clusterIPs, before.clusterIPs)) return;
  if (spec.clusterIP) spec.clusterIPs = [spec.clusterIP];
  else delete spec.clusterIPs;
}

function dropByType(spec: ServiceSpec, before: ServiceSpec): void {
  if (hasClusterIp(before) && !hasClusterIp(spec)) {
    if (spec.clusterIP === before.clusterIP) delete spec.clusterIP;
    if (same(spec.clusterIPs, before.clusterIPs)) delete spec.clusterIPs;
    if (same(spec.ipFamilies, before.ipFamilies)) delete spec.ipFamilies;
    if (spec.ipFamilyPolicy === before.ipFamilyPolicy) delete spec.ipFamilyPolicy;
  }
  if (mayHaveNodePorts(before) && !mayHaveNodePorts(spec)) {
    const held = new Set((before.ports ?? []).map(port => port.nodePort));
    // Who names another one wants it, and is told that there is none.
    const asksNone = (spec.ports ?? []).every(({ nodePort }) => !nodePort || held.has(nodePort));
    if (asksNone) for (const port of spec.ports ?? []) delete port.nodePort;
  }
  if (
    isExternallyAccessible(before) &&
    !isExternallyAccessible(spec) &&
    spec.externalTrafficPolicy === before.externalTrafficPolicy
  )
    delete spec.externalTrafficPolicy;
  if (
    hasHealthCheckPort(before) &&
    !hasHealthCheckPort(spec) &&
    spec.healthCheckNodePort === before.healthCheckNodePort
  )
    delete spec.healthCheckNodePort;
  if (before.type === 'LoadBalancer' && spec.type !== 'LoadBalancer') {
    if (spec.allocateLoadBalancerNodePorts === before.allocateLoadBalancerNodePorts)
      delete spec.allocateLoadBalancerNodePorts;
    if (spec.loadBalancerClass === before.loadBalancerClass) delete spec.loadBalancerClass;
  }
  if (before.type === 'ExternalName' && spec.type !== 'ExternalName' && spec.externalName === before.externalName)
    delete spec.externalName;
}
