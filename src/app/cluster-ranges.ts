/**
 * Which addresses a cluster has: families, ranges of pods and Services, nodes' shares, and what follows from them. The ranges
 * are chosen once, when the cluster is made, because every node and Service keeps its own for life. It refuses, with the
 * option's name, ranges that cannot work together; the rules are kubeadm's.
 */

import { existsSync } from 'node:fs';
import { AddressRange } from '../apiserver/allocators/address-range.ts';
import { CLUSTER_CIDR, NODE_CIDR_MASK_SIZE, SERVICE_CIDR } from '../base/cluster-defaults.ts';
import { failure } from '../base/errors.ts';
import { loadBalancerRange, nodeAddress, SEGMENT, switchAddress } from '../network/segment.ts';
import { formatAddress, networkOf, type Prefix, parsePrefix, prefixContains } from '../sys/address.ts';

/** Lists hold one entry, or one of each family, the cluster's primary one first; they are in the same order. */
export interface ClusterRanges {
  readonly podCidrs: readonly string[];
  readonly serviceCidrs: readonly string[];
  /** Prefix length of a node's share of the pod range. */
  readonly nodeMaskSizes: readonly number[];
}

export interface RangeChoice {
  /** `ipv4`, `ipv6` or `dual`. */
  readonly ipFamily?: string;
  /** The rest are lists separated by commas. */
  readonly podCidr?: string;
  readonly serviceCidr?: string;
  readonly nodeMaskSize?: string;
}

type Family = 'IPv4' | 'IPv6';

const FAMILIES: Readonly<Record<string, readonly Family[]>> = {
  ipv4: ['IPv4'],
  ipv6: ['IPv6'],
  dual: ['IPv4', 'IPv6'],
};
/** kube-apiserver's limits: a longer prefix has too few addresses, a shorter one is not allocated from. */
const SERVICE_PREFIX = { IPv4: { min: 1, max: 28 }, IPv6: { min: 64, max: 124 } } as const;
/** kube-controller-manager's: 65 536 nodes. */
const NODE_BITS_MAX = 16;
/** The last subnet a pod network can be made of: network, gateway, two pods, broadcast. */
const NODE_MASK_MAX = { IPv4: 29, IPv6: 125 } as const;
/** Tenth address of the first Service range. */
const DNS_OFFSET = 10;

const familyOf = (cidr: string): Family => (cidr.includes(':') ? 'IPv6' : 'IPv4');

/** Throws BadRequest. */
export function chooseRanges(choice: RangeChoice): ClusterRanges {
  const podCidrs = parseList('--pod-cidr', choice.podCidr);
  const serviceCidrs = parseList('--service-cidr', choice.serviceCidr);
  const families = chooseFamilies(choice.ipFamily, podCidrs, serviceCidrs);
  if (families.includes('IPv6') && !existsSync('/proc/sys/net/ipv6'))
    refuse('--ip-family', families.length === 2 ? 'dual' : 'ipv6', 'the kernel of this machine runs without IPv6');
  const ranges = {
    podCidrs: podCidrs ?? families.map(family => CLUSTER_CIDR[family]),
    serviceCidrs: serviceCidrs ?? families.map(family => SERVICE_CIDR[family]),
    nodeMaskSizes: parseMaskSizes(choice.nodeMaskSize, families),
  };
  for (const cidr of ranges.serviceCidrs) {
    const { min, max } = SERVICE_PREFIX[familyOf(cidr)];
    const { length } = parsePrefix(cidr);
    if (length < min || length > max) refuse('--service-cidr', cidr, `its length must be from /${min} to /${max}`);
  }
  for (const [at, cidr] of ranges.podCidrs.entries()) checkNodeShare(cidr, ranges.nodeMaskSizes[at]!);
  checkDisjoint(ranges);
  return ranges;
}

function refuse(option: string, value: string, why: string): never {
  throw failure(400, 'BadRequest', `${option}: Invalid value: "${value}": ${why}`);
}

function parseList(option: string, text: string | undefined): readonly string[] | undefined {
  if (text === undefined) return undefined;
  const cidrs = text.split(',').map(part => part.trim());
  for (const cidr of cidrs) {
    let prefix: Prefix;
    try {
      prefix = parsePrefix(cidr);
    } catch {
      refuse(option, cidr, 'must be an address and a prefix length, such as 10.244.0.0/16 or fd00:10:244::/56');
    }
    const canonical = `${formatAddress(networkOf(prefix))}/${prefix.length}`;
    if (canonical !== cidr) refuse(option, cidr, `the range is written ${canonical}`);
  }
  if (cidrs.length > 2 || (cidrs.length === 2 && familyOf(cidrs[0]!) === familyOf(cidrs[1]!)))
    refuse(option, text, 'must be one range, or one IPv4 and one IPv6 range');
  return cidrs;
}

function chooseFamilies(
  ipFamily: string | undefined,
  podCidrs: readonly string[] | undefined,
  serviceCidrs: readonly string[] | undefined,
): readonly Family[] {
  const asked = ipFamily === undefined ? undefined : FAMILIES[ipFamily];
  if (ipFamily !== undefined && !asked)
    throw failure(
      400,
      'BadRequest',
      `--ip-family: Unsupported value: "${ipFamily}": supported values: "ipv4", "ipv6", "dual"`,
    );
  const [pods, services] = [podCidrs?.map(familyOf), serviceCidrs?.map(familyOf)];
  if (pods && services && pods.join() !== services.join())
    refuse('--service-cidr', serviceCidrs!.join(), `must have the families of --pod-cidr, in the same order: ${pods}`);
  const given = pods ?? services;
  // Ranges tell the order; `dual` alone means IPv4 first.
  if (asked && given && [...asked].sort().join() !== [...given].sort().join())
    refuse('--ip-family', ipFamily!, `the ranges given are of ${given.join(' and ')}`);
  return given ?? asked ?? FAMILIES['ipv4']!;
}

function parseMaskSizes(text: string | undefined, families: readonly Family[]): readonly number[] {
  if (text === undefined) return families.map(family => NODE_CIDR_MASK_SIZE[family]);
  const sizes = text.split(',').map(part => Number(part.trim().replace(/^\//, '')));
  if (sizes.length !== families.length || !sizes.every(size => Number.isInteger(size)))
    refuse('--node-cidr-mask-size', text, `must be a prefix length for each family: ${families.join(', ')}`);
  sizes.forEach((size, at) => {
    const max = NODE_MASK_MAX[families[at]!];
    if (size > max) refuse('--node-cidr-mask-size', String(size), `must be at most ${max}`);
  });
  return sizes;
}

function checkNodeShare(cidr: string, maskSize: number): void {
  const bits = maskSize - parsePrefix(cidr).length;
  if (bits < 0)
    refuse('--pod-cidr', cidr, `it is smaller than one node's share, a /${maskSize}; see --node-cidr-mask-size`);
  if (bits > NODE_BITS_MAX)
    refuse('--node-cidr-mask-size', String(maskSize), `at most ${NODE_BITS_MAX} bits longer than that of ${cidr}`);
}

/** Throws BadRequest when the pod ranges have not a share for each of so many nodes. */
export function checkCapacity({ podCidrs, nodeMaskSizes }: ClusterRanges, nodes: number): void {
  podCidrs.forEach((cidr, at) => {
    const shares = 2 ** (nodeMaskSizes[at]! - parsePrefix(cidr).length);
    if (shares < nodes)
      refuse('--nodes', String(nodes), `${cidr} holds ${shares} shares of nodes, each a /${nodeMaskSizes[at]}`);
  });
}

/** As `--ip-family` names it. */
export function ipFamilyOf({ podCidrs }: ClusterRanges): string {
  return podCidrs.length === 2 ? 'dual' : familyOf(podCidrs[0]!).toLowerCase();
}

function checkDisjoint(ranges: ClusterRanges): void {
  const named = [
    ...ranges.podCidrs.map(cidr => ({ option: '--pod-cidr', cidr })),
    ...ranges.serviceCidrs.map(cidr => ({ option: '--service-cidr', cidr })),
    ...segmentsOf(ranges).map(cidr => ({ option: "the nodes' own network", cidr })),
  ];
  for (const [at, one] of named.entries())
    for (const other of named.slice(at + 1)) {
      const [a, b] = [parsePrefix(one.cidr), parsePrefix(other.cidr)];
      if (prefixContains(a, b.address) || prefixContains(b, a.address))
        refuse(one.option, one.cidr, `overlaps with ${other.cidr} of ${other.option}`);
    }
}

/** The networks that join the nodes of a dev cluster. */
export function segmentsOf({ podCidrs }: ClusterRanges): readonly string[] {
  return podCidrs.map(cidr => SEGMENT[familyOf(cidr)]);
}

export function nodeAddresses(ranges: ClusterRanges, number: number): readonly string[] {
  return segmentsOf(ranges).map(segment => nodeAddress(number, segment));
}

/** The API server's on the nodes' networks; the first is the one it is known by. */
export function apiAddresses(ranges: ClusterRanges): readonly string[] {
  return segmentsOf(ranges).map(segment => switchAddress(segment));
}

/** For Services of type LoadBalancer: one of each family. */
export function loadBalancerRanges({ podCidrs }: ClusterRanges): readonly string[] {
  return podCidrs.map(cidr => loadBalancerRange(familyOf(cidr)));
}

/** Of the Service `kubernetes`. */
export function kubernetesAddress({ serviceCidrs }: ClusterRanges): string {
  return new AddressRange(serviceCidrs[0]!).at(1);
}

/** Of the Service `kube-dns`. */
export function dnsAddress({ serviceCidrs }: ClusterRanges): string {
  return new AddressRange(serviceCidrs[0]!).at(DNS_OFFSET);
}
