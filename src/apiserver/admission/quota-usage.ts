/** What one object uses of each resource that a ResourceQuota can limit, in units of 10⁻⁹; pure. */

import type { Container, PersistentVolumeClaim, Pod, Service } from '../../api/core/v1.gen.ts';
import { parseNano } from '../../api/machinery/quantity.ts';
import type { KubeObject } from '../../api/meta.ts';

export type Usage = ReadonlyMap<string, bigint>;
const ONE = 10n ** 9n;

/** Core kinds that are counted under their plain name, beside `count/NAME`. */
const COUNTED: readonly string[] = [
  'configmaps',
  'secrets',
  'replicationcontrollers',
  'resourcequotas',
  'services',
  'persistentvolumeclaims',
];
const known = new WeakMap<KubeObject, Usage>();

/** Usage of an object of `group/resource`. Stored (frozen) objects are measured once. */
export function usageOf(group: string, resource: string, object: KubeObject, stored: boolean): Usage {
  const cached = stored ? known.get(object) : undefined;
  if (cached) return cached;
  const usage = new Map<string, bigint>([[`count/${group ? `${resource}.${group}` : resource}`, ONE]]);
  if (group === '') {
    if (COUNTED.includes(resource)) usage.set(resource, ONE);
    if (resource === 'pods') addPod(usage, object as Pod);
    if (resource === 'services') addService(usage, object as Service);
    if (resource === 'persistentvolumeclaims') addClaim(usage, object as PersistentVolumeClaim);
  }
  if (stored) known.set(object, usage);
  return usage;
}

function addPod(usage: Map<string, bigint>, pod: Pod): void {
  if (pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed') return;
  usage.set('pods', ONE);
  const spec = pod.spec;
  for (const list of ['requests', 'limits'] as const) {
    const total = new Map<string, bigint>();
    const amounts = (container: Container) =>
      Object.entries(container.resources?.[list] ?? {}).map(
        ([name, amount]) => [name, parseNano(amount) ?? 0n] as const,
      );
    const add = (name: string, amount: bigint) => total.set(name, (total.get(name) ?? 0n) + amount);
    for (const container of spec?.containers ?? []) for (const [name, amount] of amounts(container)) add(name, amount);
    let sidecars = new Map<string, bigint>();
    const peak = new Map<string, bigint>();
    for (const container of spec?.initContainers ?? []) {
      const sidecar = container.restartPolicy === 'Always';
      const next = new Map(sidecars);
      for (const [name, amount] of amounts(container)) {
        const running = (sidecars.get(name) ?? 0n) + amount;
        if (sidecar) next.set(name, running);
        if (running > (peak.get(name) ?? 0n)) peak.set(name, running);
      }
      sidecars = next;
    }
    for (const [name, amount] of sidecars) add(name, amount);
    for (const [name, amount] of peak) if (amount > (total.get(name) ?? 0n)) total.set(name, amount);
    for (const [name, amount] of Object.entries(spec?.resources?.[list] ?? {}))
      total.set(name, parseNano(amount) ?? 0n);
    for (const [name, amount] of Object.entries(spec?.overhead ?? {}))
      if (list === 'requests' || total.has(name)) add(name, parseNano(amount) ?? 0n);
    for (const [name, amount] of total) {
      const standard =
        name === 'cpu' || name === 'memory' || name === 'ephemeral-storage' || name.startsWith('hugepages-');
      if (list === 'requests' && standard) usage.set(name, amount);
      if (list === 'requests' || standard) usage.set(`${list}.${name}`, amount);
    }
  }
}

function addService(usage: Map<string, bigint>, { spec }: Service): void {
  const ports = BigInt(spec?.ports?.length ?? 0) * ONE;
  if (spec?.type === 'NodePort') usage.set('services.nodeports', ports);
  if (spec?.type === 'LoadBalancer') {
    usage.set('services.loadbalancers', ONE);
    if (spec.allocateLoadBalancerNodePorts !== false) usage.set('services.nodeports', ports);
  }
}

function addClaim(usage: Map<string, bigint>, claim: PersistentVolumeClaim): void {
  const size = parseNano(claim.spec?.resources?.requests?.['storage'] ?? '0') ?? 0n;
  usage.set('requests.storage', size);
  const storageClass = claim.spec?.storageClassName;
  if (!storageClass) return;
  usage.set(`${storageClass}.storageclass.storage.k8s.io/requests.storage`, size);
  usage.set(`${storageClass}.storageclass.storage.k8s.io/persistentvolumeclaims`, ONE);
}

interface Scope {
  readonly scopeName: string;
  readonly operator: string;
  readonly values?: readonly string[];
}

/** Whether the quota's scopes take in the object. Quotas with scopes count pods only. */
export function inScopes(
  scopes: readonly string[],
  selector: readonly Scope[],
  resource: string,
  object: KubeObject,
): boolean {
  const all: Scope[] = [...scopes.map(scopeName => ({ scopeName, operator: 'Exists' })), ...selector];
  if (all.length === 0) return true;
  if (resource !== 'pods') return false;
  const spec = (object as Pod).spec;
  return all.every(({ scopeName, operator, values = [] }) => {
    switch (scopeName) {
      case 'Terminating':
        return spec?.activeDeadlineSeconds !== undefined;
      case 'NotTerminating':
        return spec?.activeDeadlineSeconds === undefined;
      case 'BestEffort':
        return isBestEffort(object as Pod);
      case 'NotBestEffort':
        return !isBestEffort(object as Pod);
      case 'CrossNamespacePodAffinity':
        return usesOtherNamespaces(object as Pod);
      case 'PriorityClass': {
        const name = spec?.priorityClassName ?? '';
        if (operator === 'In') return values.includes(name);
        if (operator === 'NotIn') return !values.includes(name);
        return operator === 'DoesNotExist' ? name === '' : name !== '';
      }
      default:
        return false;
    }
  });
}

function isBestEffort({ spec }: Pod): boolean {
  const counts = (list: Readonly<Record<string, string>> | undefined) =>
    Object.keys(list ?? {}).some(name => name === 'cpu' || name === 'memory');
  return ![...(spec?.containers ?? []), ...(spec?.initContainers ?? [])].some(
    ({ resources }) => counts(resources?.requests) || counts(resources?.limits),
  );
}

function usesOtherNamespaces({ spec }: Pod): boolean {
  const terms = [spec?.affinity?.podAffinity, spec?.affinity?.podAntiAffinity].flatMap(affinity => [
    ...(affinity?.requiredDuringSchedulingIgnoredDuringExecution ?? []),
    ...(affinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []).map(term => term.podAffinityTerm),
  ]);
  return terms.some(term => term.namespaces?.length || term.namespaceSelector);
}
