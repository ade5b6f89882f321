/**
 * What a pod asks for that this kubelet does not do. Nothing is silently ignored: such a pod is refused at admission
 * (phase Failed, with the reason), or its container waits with a configuration error.
 */

import type { Container, Pod } from '../../api/core/v1.gen.ts';
import type { NodeResources } from '../fields.ts';
import type { HostPort } from '../runtime.ts';
import { hasRecursiveReadOnly } from '../volumes/recursive-read-only.ts';
import { hostPorts, hugePageRequests, podRequest } from './resources.ts';

export interface Refusal {
  readonly reason: string;
  readonly message: string;
}

export interface NodeLimits extends NodeResources {
  readonly podsMax: number;
  /** Names, or patterns that end in `*`. */
  readonly allowedUnsafeSysctls?: readonly string[];
  /** The runtime can keep the groups of the image away. */
  readonly hasStrictGroups?: boolean;
}

const SAFE_SYSCTLS = new Set([
  'kernel.shm_rmid_forced',
  'net.ipv4.ip_local_port_range',
  'net.ipv4.tcp_syncookies',
  'net.ipv4.ping_group_range',
  'net.ipv4.ip_unprivileged_port_start',
  'net.ipv4.ip_local_reserved_ports',
  'net.ipv4.tcp_keepalive_time',
  'net.ipv4.tcp_fin_timeout',
  'net.ipv4.tcp_keepalive_intvl',
  'net.ipv4.tcp_keepalive_probes',
  'net.ipv4.tcp_rmem',
  'net.ipv4.tcp_wmem',
]);

/** Why the pod's requests do not fit on the node beside the others'. */
export function capacityRefusal(pod: Pod, others: readonly Pod[], node: NodeResources): Refusal | undefined {
  for (const [name, capacity] of [
    ['cpu', node.cpuMilli],
    ['memory', node.memoryBytes],
    ['ephemeral-storage', node.ephemeralBytes],
    ...hugePageRequests(pod).map(name => [name, node.hugePages[name] ?? 0] as const),
  ] as const) {
    const requested = podRequest(pod, name);
    if (requested === 0) continue;
    const used = others.reduce((sum, other) => sum + podRequest(other, name), 0);
    if (requested + used > capacity) return short(name, requested, used, capacity);
  }
  return undefined;
}

/** Why the node cannot take the pod, given those it has; the words of upstream's predicates. */
export function admissionRefusal(pod: Pod, others: readonly Pod[], node: NodeLimits): Refusal | undefined {
  if (others.length + 1 > node.podsMax) return short('pods', 1, others.length, node.podsMax);
  const noRoom = capacityRefusal(pod, others, node);
  if (noRoom) return noRoom;
  const taken = others.flatMap(hostPorts);
  if (hostPorts(pod).some(port => taken.some(other => conflicts(port, other))))
    return {
      reason: 'NodePorts',
      message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
    };
  for (const { name } of pod.spec.securityContext?.sysctls ?? []) {
    if (!SAFE_SYSCTLS.has(name) && !node.allowedUnsafeSysctls?.some(pattern => matches(pattern, name)))
      return { reason: 'SysctlForbidden', message: `forbidden sysctl: ${JSON.stringify(name)} not allowlisted` };
    if (pod.spec.hostNetwork && name.startsWith('net.'))
      return {
        reason: 'SysctlForbidden',
        message: `forbidden sysctl: ${JSON.stringify(name)} not allowed with host net enabled`,
      };
  }
  if (pod.spec.securityContext?.supplementalGroupsPolicy === 'Strict' && !node.hasStrictGroups)
    return {
      reason: 'SupplementalGroupsPolicyNotSupported',
      message: 'SupplementalGroupsPolicy=Strict is not supported in this node',
    };
  if (pod.spec.os && pod.spec.os.name !== 'linux')
    return { reason: 'PodOSNotSupported', message: "Failed to admit pod as the OS field doesn't match node OS" };
  return undefined;
}

function matches(pattern: string, name: string): boolean {
  return pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : pattern === name;
}

function short(resource: string, requested: number, used: number, capacity: number): Refusal {
  return {
    reason: `OutOf${resource}`,
    message: `Node didn't have enough resource: ${resource}, requested: ${requested}, used: ${used}, capacity: ${capacity}`,
  };
}

function conflicts(a: Omit<HostPort, 'podIp'>, b: Omit<HostPort, 'podIp'>): boolean {
  const isEverywhere = (ip: string | undefined) => !ip || ip === '0.0.0.0' || ip === '::';
  return (
    a.protocol === b.protocol &&
    a.hostPort === b.hostPort &&
    (a.hostIp === b.hostIp || isEverywhere(a.hostIp) || isEverywhere(b.hostIp))
  );
}

/** What a container asks for that cannot be given, as its CreateContainerConfigError; undefined when all can. */
export function containerRefusal(container: Container): string | undefined {
  if (!hasRecursiveReadOnly && container.volumeMounts?.some(mount => mount.recursiveReadOnly === 'Enabled'))
    return 'recursiveReadOnly: Enabled needs a kernel of version 5.12 or newer: IfPossible goes without';
  return undefined;
}
