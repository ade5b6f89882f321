/**
 * Facts about pods that controllers, the scheduler, the kubelet, the proxy and the quota share. Pure functions of the
 * object; none changes it.
 */

import type { Container, ContainerStatus, EphemeralContainer, Pod, PodCondition, PodSpec } from '../core/v1.gen.ts';
import { quantityMilli, quantityValue } from './quantity.ts';

export function podCondition(pod: Pod, type: string): PodCondition | undefined {
  return pod.status?.conditions?.find(condition => condition.type === type);
}

export function isPodReady(pod: Pod): boolean {
  return podCondition(pod, 'Ready')?.status === 'True';
}

/** Ready for at least `minReadySeconds`. */
export function isPodAvailable(pod: Pod, minReadySeconds: number, nowMs: number): boolean {
  const ready = podCondition(pod, 'Ready');
  if (ready?.status !== 'True') return false;
  if (minReadySeconds === 0) return true;
  const since = Date.parse(ready.lastTransitionTime ?? '');
  return !Number.isNaN(since) && since + minReadySeconds * 1000 <= nowMs;
}

/** Succeeded or Failed: its containers never run again. */
export function isPodTerminal(pod: Pod): boolean {
  return pod.status?.phase === 'Failed' || pod.status?.phase === 'Succeeded';
}

/** Neither terminal nor being deleted: what controllers count. */
export function isPodActive(pod: Pod): boolean {
  return !isPodTerminal(pod) && !pod.metadata.deletionTimestamp;
}

/** An init container that keeps running: `restartPolicy: Always`. */
export function isSidecar(container: Container): boolean {
  return container.restartPolicy === 'Always';
}

/** What the first rule that fits an exit code wants; undefined when the restart policy decides. */
export function ruledAction(container: Container, exitCode: number | undefined): string | undefined {
  if (exitCode === undefined) return undefined;
  return container.restartPolicyRules?.find(
    ({ exitCodes }) => exitCodes && (exitCodes.values ?? []).includes(exitCode) === (exitCodes.operator === 'In'),
  )?.action;
}

/** Of a `fieldRef`: the oldest clients call the node the host. */
export const modernFieldPath = (path: string): string => (path === 'spec.host' ? 'spec.nodeName' : path);

export type ContainerRole = 'init' | 'container' | 'ephemeral';

/** Every container in order of start: init, regular, ephemeral. */
export function* containersOf(
  spec: PodSpec,
): Generator<{ container: Container | EphemeralContainer; role: ContainerRole }> {
  for (const container of spec.initContainers ?? []) yield { container, role: 'init' };
  for (const container of spec.containers ?? []) yield { container, role: 'container' };
  for (const container of spec.ephemeralContainers ?? []) yield { container, role: 'ephemeral' };
}

export function containerStatus(
  statuses: readonly ContainerStatus[] | undefined,
  name: string,
): ContainerStatus | undefined {
  return statuses?.find(status => status.name === name);
}

/** Resource name → amount: CPU in thousandths of a core, everything else in whole units (bytes, devices). */
export type ResourceAmounts = Record<string, number>;

export function resourceAmount(name: string, quantity: string): number {
  return name === 'cpu' ? quantityMilli(quantity) : quantityValue(quantity);
}

export function resourceAmounts(list: Readonly<Record<string, string>> | undefined): ResourceAmounts {
  const amounts: ResourceAmounts = {};
  for (const name in list) amounts[name] = resourceAmount(name, list[name]!);
  return amounts;
}

function add(into: ResourceAmounts, more: ResourceAmounts): void {
  for (const name in more) into[name] = (into[name] ?? 0) + more[name]!;
}

function raise(into: ResourceAmounts, floor: ResourceAmounts): void {
  for (const name in floor) if (!((into[name] ?? -1) >= floor[name]!)) into[name] = floor[name]!;
}

/**
 * What the pod asks of a node: the sum of its containers and sidecars, or the largest init step when that is more
 * (each with the sidecars that started before it), plus overhead. Pod-level `resources` take precedence (KEP-2837).
 */
export function podRequests(spec: PodSpec): ResourceAmounts {
  return total(spec, 'requests');
}

/** As {@link podRequests} for limits; a resource that some container leaves unlimited counts what the others say. */
export function podLimits(spec: PodSpec): ResourceAmounts {
  return total(spec, 'limits');
}

function total(spec: PodSpec, which: 'requests' | 'limits'): ResourceAmounts {
  const sum: ResourceAmounts = {};
  for (const container of spec.containers ?? []) add(sum, resourceAmounts(container.resources?.[which]));
  if (spec.initContainers?.length) {
    const sidecars: ResourceAmounts = {};
    const largestStep: ResourceAmounts = {};
    for (const container of spec.initContainers) {
      const own = resourceAmounts(container.resources?.[which]);
      if (isSidecar(container)) {
        add(sum, own);
        add(sidecars, own);
        raise(largestStep, sidecars);
      } else {
        add(own, sidecars);
        raise(largestStep, own);
      }
    }
    raise(sum, largestStep);
  }
  const podLevel = spec.resources?.[which];
  for (const name in podLevel)
    if (name === 'cpu' || name === 'memory' || name.startsWith('hugepages-'))
      sum[name] = resourceAmount(name, podLevel[name]!);
  for (const name in spec.overhead) {
    // Overhead raises a limit only where there is one.
    if (which === 'requests' || (sum[name] ?? 0) > 0)
      sum[name] = (sum[name] ?? 0) + resourceAmount(name, spec.overhead[name]!);
  }
  return sum;
}

export type QosClass = 'Guaranteed' | 'Burstable' | 'BestEffort';

/** The pod's quality of service, from CPU and memory only. */
export function podQosClass(spec: PodSpec): QosClass {
  const podLevel = spec.resources;
  const isSet = Object.keys({ ...podLevel?.requests, ...podLevel?.limits }).length > 0;
  const sources = isSet
    ? [podLevel]
    : [...(spec.containers ?? []), ...(spec.initContainers ?? [])].map(container => container.resources);
  let any = false;
  let guaranteed = true;
  for (const resources of sources) {
    for (const name of ['cpu', 'memory']) {
      const request = amountOrZero(resources?.requests, name);
      const limit = amountOrZero(resources?.limits, name);
      if (request > 0 || limit > 0) any = true;
      if (limit === 0 || (request !== 0 && request !== limit)) guaranteed = false;
    }
  }
  if (!any) return 'BestEffort';
  return guaranteed ? 'Guaranteed' : 'Burstable';
}

function amountOrZero(list: Readonly<Record<string, string>> | undefined, name: string): number {
  const quantity = list?.[name];
  // Milli also for memory: 0.5 byte must not look like zero.
  return quantity === undefined ? 0 : quantityMilli(quantity);
}

/** Number of a pod's port by name (containers, then sidecars); a number is itself. undefined when there is none. */
export function findPort(pod: Pod, port: number | string, protocol = 'TCP'): number | undefined {
  if (typeof port === 'number') return port;
  const sidecars = (pod.spec?.initContainers ?? []).filter(isSidecar);
  for (const container of [...(pod.spec?.containers ?? []), ...sidecars])
    for (const candidate of container.ports ?? [])
      if (candidate.name === port && (candidate.protocol ?? 'TCP') === protocol) return candidate.containerPort;
  return undefined;
}

/** Pod IPs, the first is the primary one. */
export function podIPs(pod: Pod): string[] {
  const listed = (pod.status?.podIPs ?? []).map(entry => entry.ip).filter(ip => ip !== undefined && ip !== '');
  return listed.length ? listed : pod.status?.podIP ? [pod.status.podIP] : [];
}

// No vowels, 0, 1 or 3: hashes never spell words (apimachinery rand.SafeEncodeString).
const SAFE_CHARACTERS = 'bcdfghjklmnpqrstvwxz2456789';

export function safeEncode(text: string): string {
  let encoded = '';
  for (const byte of Buffer.from(text)) encoded += SAFE_CHARACTERS[byte % SAFE_CHARACTERS.length];
  return encoded;
}

/**
 * Hash of a value for names and labels, in the shape of upstream's (`6d5f8c9b7d`): FNV-1a of its JSON with sorted keys.
 * Equal values give equal hashes on every version of Coxswain; they are not upstream's numbers.
 */
export function objectHash(value: unknown, collisionCount?: number): string {
  let hash = 0x811c9dc5;
  const bytes = Buffer.from(stableJson(value) + (collisionCount === undefined ? '' : `/${collisionCount}`));
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return safeEncode(String(hash));
}

/** Value of the `pod-template-hash` label for a pod template; the label itself must not be in the template. */
export function podTemplateHash(template: unknown, collisionCount?: number): string {
  return objectHash(template, collisionCount);
}

function stableJson(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) => {
    if (inner === null || typeof inner !== 'object' || Array.isArray(inner)) return inner;
    const sorted: Record<string, unknown> = {};
    for (const key of Object.keys(inner).sort()) sorted[key] = (inner as Record<string, unknown>)[key];
    return sorted;
  });
}
