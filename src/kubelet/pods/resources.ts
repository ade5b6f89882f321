/** From requests and limits to quality of service, cgroup limits and the out-of-memory score. Pure; upstream's arithmetic. */

import type { Container, Pod } from '../../api/core/v1.gen.ts';
import { quantityMilli, quantityValue } from '../../api/machinery/quantity.ts';
import type { CgroupLimits } from '../../sys/cgroup.ts';
import type { HugePages } from '../../sys/huge-pages.ts';
import type { HostPort } from '../runtime.ts';

export type QosClass = 'Guaranteed' | 'Burstable' | 'BestEffort';

const SHARES_MIN = 2;
const SHARES_MAX = 262144;
const QUOTA_PERIOD_MICROS = 100_000;
const QUOTA_MICROS_MIN = 1000;

export function allContainers(pod: Pod): Container[] {
  return [...(pod.spec.initContainers ?? []), ...pod.spec.containers];
}

export function isSidecar(container: Container): boolean {
  return container.restartPolicy === 'Always';
}

export function qosOf(pod: Pod): QosClass {
  const known = pod.status?.qosClass;
  if (known === 'Guaranteed' || known === 'Burstable' || known === 'BestEffort') return known;
  let isAny = false;
  let isGuaranteed = true;
  const budgets = pod.spec.resources ? [{ resources: pod.spec.resources }] : allContainers(pod);
  for (const { resources = {} } of budgets) {
    for (const name of ['cpu', 'memory']) {
      const limit = quantityMilli(resources.limits?.[name]);
      const request = quantityMilli(resources.requests?.[name] ?? resources.limits?.[name]);
      if (limit > 0 || request > 0) isAny = true;
      if (limit === 0 || request !== limit) isGuaranteed = false;
    }
  }
  return !isAny ? 'BestEffort' : isGuaranteed ? 'Guaranteed' : 'Burstable';
}

export function sharesOf(milli: number): number {
  return milli === 0 ? SHARES_MIN : Math.min(SHARES_MAX, Math.max(SHARES_MIN, Math.floor((milli * 1024) / 1000)));
}

export function quotaOf(milli: number): number {
  return Math.max(QUOTA_MICROS_MIN, Math.floor((milli * QUOTA_PERIOD_MICROS) / 1000));
}

function limitsOf(cpuRequestMilli: number, cpuLimitMilli: number, memoryBytes: number) {
  return {
    cpuShares: sharesOf(cpuRequestMilli || cpuLimitMilli),
    ...(cpuLimitMilli > 0 ? { cpuQuotaMicros: quotaOf(cpuLimitMilli), cpuPeriodMicros: QUOTA_PERIOD_MICROS } : {}),
    ...(memoryBytes > 0 ? { memoryBytesMax: memoryBytes } : {}),
  };
}

export function containerLimits(container: Container): ReturnType<typeof limitsOf> {
  const { requests = {}, limits = {} } = container.resources ?? {};
  return limitsOf(quantityMilli(requests['cpu']), quantityMilli(limits['cpu']), quantityValue(limits['memory']));
}

/** What a pod asks of a resource: the larger of its running sum and its greatest init step, sidecars counted in both, with overhead. */
export function podRequest(pod: Pod, name: string, of: 'requests' | 'limits' = 'requests'): number {
  const measure = name === 'cpu' ? quantityMilli : quantityValue;
  const amount = (container: Container) =>
    measure(container.resources?.[of]?.[name] ?? (of === 'requests' ? container.resources?.limits?.[name] : undefined));
  let sidecars = 0;
  let greatestInit = 0;
  for (const container of pod.spec.initContainers ?? []) {
    if (isSidecar(container)) sidecars += amount(container);
    greatestInit = Math.max(greatestInit, sidecars + (isSidecar(container) ? 0 : amount(container)));
  }
  const running = pod.spec.containers.reduce((sum, container) => sum + amount(container), sidecars);
  const ofPod = pod.spec.resources?.[of]?.[name];
  return (ofPod !== undefined ? measure(ofPod) : Math.max(running, greatestInit)) + measure(pod.spec.overhead?.[name]);
}

const isHugePages = (name: string): boolean => name.startsWith('hugepages-');

/** Names of the sizes of huge pages that the pod or its containers ask for. */
export function hugePageNames(pod: Pod): string[] {
  const lists = [pod.spec, ...allContainers(pod)].flatMap(({ resources = {} }) => [
    resources.limits,
    resources.requests,
  ]);
  return [...new Set(lists.flatMap(list => Object.keys(list ?? {})))].filter(isHugePages);
}

/** As {@link hugePageNames}, and those of which the pod's overhead needs some. */
export function hugePageRequests(pod: Pod): string[] {
  return [...new Set([...hugePageNames(pod), ...Object.keys(pod.spec.overhead ?? {}).filter(isHugePages)])];
}

/**
 * A limit for each size that the machine has, of the pod's group or a container's: none at all of a size that was not asked for. A container
 * that says nothing of a size may use all that the pod itself has.
 */
export function hugePageLimits(
  sizes: readonly HugePages[],
  { pod, container }: { readonly pod: Pod; readonly container?: Container },
): Pick<CgroupLimits, 'hugePageBytesMax'> {
  if (sizes.length === 0) return {};
  const bytesMax = (name: string) =>
    container
      ? quantityValue(container.resources?.limits?.[name] ?? pod.spec.resources?.limits?.[name])
      : podRequest(pod, name);
  return {
    hugePageBytesMax: Object.fromEntries(sizes.map(one => [one.kernelSize, bytesMax(`hugepages-${one.size}`)])),
  };
}

/** Limits of the pod's own group: a limit only where every container has one, and no quota beside processors of one's own. */
export function podLimits(pod: Pod, hasOwnCpus = false): CgroupLimits {
  const everyHas = (name: string) =>
    pod.spec.resources?.limits?.[name] !== undefined ||
    allContainers(pod).every(container => quantityMilli(container.resources?.limits?.[name]) > 0);
  return limitsOf(
    podRequest(pod, 'cpu'),
    everyHas('cpu') && !hasOwnCpus ? podRequest(pod, 'cpu', 'limits') : 0,
    everyHas('memory') ? podRequest(pod, 'memory', 'limits') : 0,
  );
}

export function podCgroup(root: string, pod: Pod): string {
  const qos = qosOf(pod);
  return `${root}/kubepods/${qos === 'Guaranteed' ? '' : `${qos.toLowerCase()}/`}pod${pod.metadata.uid}`;
}

export function oomScoreAdj(pod: Pod, container: Container, nodeMemoryBytes: number): number {
  if ((pod.spec.priority ?? 0) >= 2_000_001_000) return -997;
  const qos = qosOf(pod);
  if (qos === 'Guaranteed') return -997;
  if (qos === 'BestEffort') return 1000;
  const memory = quantityValue(container.resources?.requests?.['memory'] ?? container.resources?.limits?.['memory']);
  // Of a node whose memory is all in huge pages nothing is left to divide by.
  const score = memory === 0 ? 1000 : Math.floor(1000 - (1000 * memory) / nodeMemoryBytes);
  return Math.min(999, Math.max(3, score));
}

/** With those that `kubectl debug` added; they have neither probes nor resources, and never run again. */
export function everyContainer(pod: Pod): Container[] {
  return [...allContainers(pod), ...(pod.spec.ephemeralContainers ?? [])];
}

/** Ports of the node that the pod's containers ask for; those of a pod on the node's own network too. */
export function hostPorts(pod: Pod): Omit<HostPort, 'podIp'>[] {
  return allContainers(pod).flatMap(container =>
    (container.ports ?? []).flatMap(({ hostPort, hostIP, containerPort, protocol }) =>
      hostPort
        ? [
            {
              hostPort,
              ...(hostIP ? { hostIp: hostIP } : {}),
              port: containerPort,
              protocol: (protocol ?? 'TCP') as HostPort['protocol'],
            },
          ]
        : [],
    ),
  );
}
