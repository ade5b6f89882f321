/** Values that a pod can be told about itself (downward API): fields of its object and its containers' resources. Pure. */

import type { Container, Pod, ResourceFieldSelector } from '../api/core/v1.gen.ts';
import { modernFieldPath } from '../api/machinery/pod.ts';
import { parseNano } from '../api/machinery/quantity.ts';

export interface PodAddresses {
  readonly podIps: readonly string[];
  readonly hostIps: readonly string[];
}

export interface NodeResources {
  readonly cpuMilli: number;
  readonly memoryBytes: number;
  readonly ephemeralBytes: number;
  /** Allocatable bytes by the name of the resource (`hugepages-2Mi`). */
  readonly hugePages: Readonly<Record<string, number>>;
}

/** The value of a `fieldRef`. Throws with upstream's words for a path that no pod has. */
export function podField(pod: Pod, path: string, addresses: PodAddresses): string {
  const { metadata, spec } = pod;
  const keyed = /^metadata\.(labels|annotations)\['(.*)'\]$/.exec(path);
  if (keyed) return metadata[keyed[1] as 'labels' | 'annotations']?.[keyed[2]!] ?? '';
  switch (modernFieldPath(path)) {
    case 'metadata.name':
      return metadata.name;
    case 'metadata.namespace':
      return metadata.namespace ?? '';
    case 'metadata.uid':
      return metadata.uid ?? '';
    case 'metadata.labels':
      return formatMap(metadata.labels);
    case 'metadata.annotations':
      return formatMap(metadata.annotations);
    case 'spec.nodeName':
      return spec.nodeName ?? '';
    case 'spec.serviceAccountName':
      return spec.serviceAccountName ?? '';
    case 'spec.restartPolicy':
      return spec.restartPolicy ?? '';
    case 'spec.schedulerName':
      return spec.schedulerName ?? '';
    case 'status.phase':
      return pod.status?.phase ?? '';
    case 'status.hostIP':
      return addresses.hostIps[0] ?? '';
    case 'status.hostIPs':
      return addresses.hostIps.join(',');
    case 'status.podIP':
      return addresses.podIps[0] ?? '';
    case 'status.podIPs':
      return addresses.podIps.join(',');
    default:
      throw new Error(`unsupported fieldPath: ${path}`);
  }
}

// The file form of labels and annotations: sorted `key="value"` lines with Go's quoting.
function formatMap(map: Readonly<Record<string, string>> | undefined): string {
  return Object.entries(map ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
    .join('\n');
}

/** The value of a `resourceFieldRef` for a container of the pod: its limit, else the whole pod's, or what the node has. */
export function resourceField(
  { spec: { resources: whole } }: Pick<Pod, 'spec'>,
  container: Container,
  selector: ResourceFieldSelector,
  node: NodeResources,
): string {
  const [kind, ...rest] = selector.resource.split('.');
  const name = rest.join('.');
  const limits = container.resources?.limits ?? {};
  const requests = container.resources?.requests ?? {};
  const capacity: Readonly<Record<string, bigint>> = {
    cpu: BigInt(node.cpuMilli) * 1_000_000n,
    memory: BigInt(node.memoryBytes) * 10n ** 9n,
    'ephemeral-storage': BigInt(node.ephemeralBytes) * 10n ** 9n,
  };
  const limitOf = (text: string | undefined) => (text === undefined ? undefined : parseNano(text));
  let nano: bigint;
  if (kind === 'limits') nano = limitOf(limits[name] ?? whole?.limits?.[name]) ?? capacity[name] ?? 0n;
  else if (kind === 'requests') nano = parseNano(requests[name] ?? limits[name] ?? '0') ?? 0n;
  else throw new Error(`unsupported container resource : ${selector.resource}`);
  const divisor =
    selector.divisor === undefined || selector.divisor === '0' ? 10n ** 9n : (parseNano(selector.divisor) ?? 10n ** 9n);
  return String(nano / divisor + (nano % divisor > 0n ? 1n : 0n));
}
