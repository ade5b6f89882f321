/** What a cloud's word about a machine makes of its Node: labels, addresses. Pure; as upstream's cloud-node-controller. */

import type { Node, NodeAddress } from '../../api/core/v1.gen.ts';

/** Whoever runs kubelets in a cloud has them register with it; the node is used once it is gone. */
export const UNINITIALIZED = 'node.cloudprovider.kubernetes.io/uninitialized';
/** Addresses that the kubelet was told to use, separated by commas (KEP-3705). */
const PROVIDED_IPS = 'alpha.kubernetes.io/provided-node-ip';

export interface InstanceFacts {
  readonly providerId: string;
  readonly instanceType: string;
  readonly zone: string;
  readonly region: string;
  readonly addresses: readonly NodeAddress[];
  readonly additionalLabels: Readonly<Record<string, string>>;
}

export const isUninitialized = ({ spec }: Node): boolean =>
  spec?.taints?.some(({ key }) => key === UNINITIALIZED) ?? false;

export function labelsOf({ metadata }: Node, facts: InstanceFacts): Record<string, string> {
  const both = (names: readonly string[], value: string) => (value ? names.map(name => [name, value] as const) : []);
  const additional = Object.entries(facts.additionalLabels).filter(
    ([name]) => metadata.labels?.[name] === undefined && !/(^|\.)(kubernetes|k8s)\.io$/.test(name.split('/')[0]!),
  );
  return Object.fromEntries([
    ...additional,
    ...both(['beta.kubernetes.io/instance-type', 'node.kubernetes.io/instance-type'], facts.instanceType),
    ...both(['failure-domain.beta.kubernetes.io/zone', 'topology.kubernetes.io/zone'], facts.zone),
    ...both(['failure-domain.beta.kubernetes.io/region', 'topology.kubernetes.io/region'], facts.region),
  ]);
}

/** Undefined when the cloud does not know an address that the kubelet was told to use, none when it tells none at all. */
export function addressesOf({ metadata, status }: Node, { addresses }: InstanceFacts): NodeAddress[] | undefined {
  if (addresses.length === 0) return [];
  const provided = (metadata.annotations?.[PROVIDED_IPS] ?? '').split(',').filter(Boolean);
  const chosen: NodeAddress[] = [];
  for (const ip of provided) {
    const found = addresses.filter(({ address }) => address === ip);
    if (found.length === 0) return undefined;
    chosen.push(...found);
  }
  // Of the kinds and families that the kubelet chose there are no others.
  const kind = ({ type, address }: NodeAddress) => `${type} ${address.includes(':')}`;
  const taken = new Set(chosen.map(kind));
  const all = [...chosen, ...addresses.filter(one => !taken.has(kind(one)))];
  if (!all.some(({ type }) => type === 'Hostname'))
    all.push(...(status?.addresses ?? []).filter(({ type }) => type === 'Hostname'));
  return all.map(({ type, address }) => ({ type, address }));
}
