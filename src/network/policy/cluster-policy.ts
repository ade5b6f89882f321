/**
 * Cluster-scoped policies (`api/networkpolicy`) as statements. What this version does not know closes, as the network-policy-api
 * asks: it makes an accepting rule accept nobody, and any other rule deny everything. Pure.
 */

import type { Node } from '../../api/core/v1.gen.ts';
import { type Labels, labelSelectorMatch } from '../../api/machinery/labels.ts';
import {
  type ClusterPolicy,
  isKnownPeer,
  isKnownPort,
  isKnownProtocol,
  type NamespacedPods,
  type Peer,
  type PortMatch,
  type ProtocolMatch,
  type ProtocolPort,
  type Rule,
} from '../../api/networkpolicy/kinds.ts';
import {
  blockPeer,
  idOf,
  type Peer as PeerTerm,
  type Policy,
  type PortSpec,
  type Protocol,
  podPeer,
  type Statement,
  splitNamed,
} from './statement.ts';

export type ClusterPolicyKind = 'ClusterNetworkPolicy' | 'AdminNetworkPolicy' | 'BaselineAdminNetworkPolicy';

/** A node, as far as peers are concerned. */
export interface NodeFacts {
  readonly labels: Labels;
  readonly ips: readonly string[];
}

export function factsOfNode({ metadata, status }: Node): NodeFacts {
  const ips = (status?.addresses ?? []).flatMap(({ type, address }) => (type.endsWith('IP') ? [address] : []));
  return { labels: metadata.labels, ips };
}

/** What lies behind a name. */
export type AddressesOf = (domainName: string) => readonly string[];

/** BaselineAdminNetworkPolicy has no priority: it is asked after the ClusterNetworkPolicies of its tier. */
const LAST = 1001;

export function readClusterPolicy(
  kind: ClusterPolicyKind,
  policy: ClusterPolicy,
  nodes: Iterable<NodeFacts> = [],
  addressesOf: AddressesOf = () => [],
): Policy {
  const { spec } = policy;
  const isBaseline = kind === 'BaselineAdminNetworkPolicy' || spec.tier === 'Baseline';
  const known = [...nodes];
  const subject = subjectOf(spec.subject);
  const read = (rule: Rule, i: number, direction: 'ingress' | 'egress'): Statement[] => {
    const at = `spec.${direction}[${i}]${rule.name ? ` "${rule.name}"` : ''}`;
    const action = rule.action === 'Deny' ? 'deny' : rule.action === 'Pass' ? 'pass' : 'allow';
    const terms = (direction === 'ingress' ? rule.from : rule.to) ?? [];
    const isKnown =
      terms.every(peer => isKnownPeer(peer) && (action === 'allow' || !peer.domainNames)) &&
      (rule.protocols ?? []).every(isKnownProtocol) &&
      (rule.ports ?? []).every(isKnownPort);
    if (!isKnown && action !== 'allow') return [{ action: 'deny', peers: 'all', ports: 'all', at }];
    const specs = [
      ...(rule.protocols ?? []).filter(isKnownProtocol).map(readProtocol),
      ...(rule.ports ?? []).filter(isKnownPort).map(readPort),
    ];
    const ports = rule.protocols?.length || rule.ports?.length ? specs : 'all';
    const peers = terms.filter(isKnownPeer).flatMap(peer => readPeer(peer, known, addressesOf));
    return direction === 'egress' ? splitNamed({ action, peers, ports, at }) : [{ action, peers, ports, at }];
  };
  const statements = (direction: 'ingress' | 'egress') =>
    spec[direction]?.length ? { [direction]: spec[direction].flatMap((rule, i) => read(rule, i, direction)) } : {};
  return {
    id: idOf(kind, policy.metadata),
    tier: isBaseline ? 'baseline' : 'admin',
    priority: kind === 'BaselineAdminNetworkPolicy' ? LAST : (spec.priority ?? 0),
    namespace: undefined,
    selects: subject,
    statements: { ...statements('ingress'), ...statements('egress') },
  };
}

/** The names that it accepts. */
export function domainNamesIn({ spec }: ClusterPolicy): string[] {
  return (spec.egress ?? []).flatMap(({ to }) => (to ?? []).flatMap(({ domainNames }) => domainNames ?? []));
}

/** Whether it must be read again when nodes change. */
export function namesNodes({ spec }: ClusterPolicy): boolean {
  return spec.egress?.some(({ to }) => to?.some(({ nodes }) => nodes !== undefined)) ?? false;
}

function subjectOf({ namespaces, pods }: ClusterPolicy['spec']['subject']): Policy['selects'] {
  if (!namespaces && !pods) return () => false;
  const inNamespace = labelSelectorMatch(namespaces ?? pods?.namespaceSelector ?? {});
  const isPod = labelSelectorMatch(pods?.podSelector ?? {});
  return (pod, labels) => inNamespace(labels) && isPod(pod.labels);
}

const alone = (ip: string) => blockPeer(`${ip}/${ip.includes(':') ? 128 : 32}`);

function readPeer(
  { namespaces, pods, nodes, networks, domainNames }: Peer,
  known: readonly NodeFacts[],
  addressesOf: AddressesOf,
): PeerTerm[] {
  if (domainNames) return [...new Set(domainNames.flatMap(addressesOf))].map(alone);
  if (networks) return networks.map(cidr => blockPeer(cidr));
  if (nodes) {
    const isMeant = labelSelectorMatch(nodes);
    return known.filter(({ labels }) => isMeant(labels)).flatMap(({ ips }) => ips.map(alone));
  }
  const { namespaceSelector = {}, podSelector }: Partial<NamespacedPods> = pods ?? {
    namespaceSelector: namespaces ?? {},
  };
  return [podPeer({ namespaceSelector, podSelector })];
}

function readProtocol({ tcp, udp, sctp, destinationNamedPort }: ProtocolMatch): PortSpec {
  if (tcp) return numbered('TCP', tcp);
  if (udp) return numbered('UDP', udp);
  if (sctp) return numbered('SCTP', sctp);
  return { protocol: undefined, name: destinationNamedPort ?? '' };
}

function numbered(protocol: Protocol, { destinationPort }: ProtocolPort): PortSpec {
  const { number, range } = destinationPort ?? {};
  return { protocol, from: number ?? range?.start ?? 0, to: number ?? range?.end ?? 65_535 };
}

function readPort({ portNumber, portRange, namedPort }: PortMatch): PortSpec {
  const protocol = (portNumber?.protocol ?? portRange?.protocol ?? 'TCP') as Protocol;
  if (portNumber) return { protocol, from: portNumber.port, to: portNumber.port };
  if (portRange) return { protocol, from: portRange.start, to: portRange.end };
  return { protocol: undefined, name: namedPort ?? '' };
}
