/**
 * NetworkPolicy and its cluster-scoped relatives as their documentation says it, as plainly as it can be written and with nothing of the product in it: tests
 * compare the table, and real packets, with this. It looks at every policy for every question.
 */

import { BlockList } from 'node:net';
import type { LabelSelector } from '../../api/meta.ts';
import type { NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort } from '../../api/networking/v1.gen.ts';
import type { ClusterPolicy, Peer, PortMatch, ProtocolMatch, Rule } from '../../api/networkpolicy/kinds.ts';

export interface PlainPod {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly ips: readonly string[];
  readonly ports: readonly { readonly name: string; readonly protocol: string; readonly containerPort: number }[];
}

export interface PlainWorld {
  readonly namespaces: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly pods: readonly PlainPod[];
  readonly policies: readonly NetworkPolicy[];
  /** No two of one tier have the same priority. */
  readonly clusterPolicies?: readonly ClusterPolicy[];
  readonly nodes?: readonly { readonly labels: Readonly<Record<string, string>>; readonly ips: readonly string[] }[];
}

/** One end of a connection: an address, and the pod whose it is. */
export interface PlainEnd {
  readonly ip: string;
  readonly pod?: PlainPod | undefined;
}

export interface PlainQuestion {
  readonly from: PlainEnd;
  readonly to: PlainEnd;
  readonly protocol: string;
  readonly port: number;
}

type Direction = 'Ingress' | 'Egress';

export function isAllowed(world: PlainWorld, question: PlainQuestion): boolean {
  if (question.from.ip === question.to.ip) return true;
  return sideAllows(world, 'Egress', question) && sideAllows(world, 'Ingress', question);
}

/** From a pod to an address of the node that it is on: only cluster-scoped policies are asked. */
export function reachesOwnNode(world: PlainWorld, question: PlainQuestion): boolean {
  return sideAllows(world, 'Egress', question, { isOwnNode: true });
}

/** One side of it: the sender's policies about egress, or the receiver's about ingress. */
export function sideAllows(
  world: PlainWorld,
  type: Direction,
  { from, to, protocol, port }: PlainQuestion,
  { isOwnNode = false } = {},
): boolean {
  const [{ pod }, other] = type === 'Egress' ? [from, to] : [to, from];
  if (!pod) return true;
  const namespaceOf = ({ namespace }: PlainPod) => world.namespaces[namespace] ?? {};

  const admin = tierSays('Admin');
  if (admin === 'Accept' || admin === 'Deny') return admin === 'Accept';
  const isolating = world.policies.filter(
    policy =>
      policy.metadata.namespace === pod.namespace &&
      matches(policy.spec.podSelector ?? {}, pod.labels) &&
      typesOf(policy).includes(type),
  );
  if (isolating.length > 0) return isOwnNode || isolating.some(networkPolicyAllows);
  return tierSays('Baseline') !== 'Deny';

  function networkPolicyAllows(policy: NetworkPolicy): boolean {
    for (const rule of (type === 'Ingress' ? policy.spec.ingress : policy.spec.egress) ?? []) {
      const peers = ('from' in rule ? rule.from : 'to' in rule ? rule.to : undefined) ?? [];
      const peerFits = peers.length === 0 || peers.some(peer => fits(peer, policy.metadata.namespace!, other));
      const portFits = !rule.ports?.length || rule.ports.some(one => portMatches(one));
      if (peerFits && portFits) return true;
    }
    return false;
  }

  function fits(peer: NetworkPolicyPeer, policyNamespace: string, { ip, pod }: PlainEnd): boolean {
    if (peer.ipBlock)
      return contains(peer.ipBlock.cidr, ip) && !(peer.ipBlock.except ?? []).some(except => contains(except, ip));
    if (!pod) return false;
    if (peer.namespaceSelector) {
      if (!matches(peer.namespaceSelector, namespaceOf(pod))) return false;
    } else if (pod.namespace !== policyNamespace) return false;
    return !peer.podSelector || matches(peer.podSelector, pod.labels);
  }

  function portMatches(wanted: NetworkPolicyPort): boolean {
    if ((wanted.protocol ?? 'TCP') !== protocol) return false;
    if (wanted.port === undefined) return true;
    if (typeof wanted.port === 'string') return isNamed(wanted.port);
    return wanted.port <= port && port <= (wanted.endPort ?? wanted.port);
  }

  function isNamed(name: string): boolean {
    const ports = to.pod?.ports ?? [];
    return ports.some(own => own.name === name && own.protocol === protocol && own.containerPort === port);
  }

  /** The first rule of the tier that speaks of the flow. */
  function tierSays(tier: 'Admin' | 'Baseline'): 'Accept' | 'Deny' | 'Pass' | undefined {
    const ofTier = (world.clusterPolicies ?? []).filter(policy => tierOf(policy) === tier);
    const last = (policy: ClusterPolicy) => policy.spec.priority ?? 1001;
    for (const { spec } of ofTier.sort((a, b) => last(a) - last(b))) {
      if (!isMeant(spec.subject, pod!)) continue;
      for (const rule of (type === 'Ingress' ? spec.ingress : spec.egress) ?? [])
        if (speaks(rule)) return rule.action === 'Allow' ? 'Accept' : rule.action;
    }
    return undefined;
  }

  function speaks({ from: senders, to: receivers, protocols, ports }: Rule): boolean {
    const peers = (type === 'Ingress' ? senders : receivers) ?? [];
    if (!peers.some(peer => isPeer(peer))) return false;
    if (protocols) return protocols.some(isProtocol);
    return !ports || ports.some(isPort);
  }

  function isPeer(peer: Peer): boolean {
    if (peer.networks) return peer.networks.some(cidr => contains(cidr, other.ip));
    if (peer.nodes)
      return (world.nodes ?? []).some(node => matches(peer.nodes!, node.labels) && node.ips.includes(other.ip));
    return other.pod !== undefined && isMeant(peer, other.pod);
  }

  function isMeant({ namespaces, pods }: Peer, one: PlainPod): boolean {
    if (namespaces) return matches(namespaces, namespaceOf(one));
    return matches(pods!.namespaceSelector ?? {}, namespaceOf(one)) && matches(pods!.podSelector, one.labels);
  }

  function isProtocol({ tcp, udp, sctp, destinationNamedPort }: ProtocolMatch): boolean {
    if (destinationNamedPort !== undefined) return isNamed(destinationNamedPort);
    const wanted = { TCP: tcp, UDP: udp, SCTP: sctp }[protocol]?.destinationPort;
    if (!wanted) return false;
    return wanted.range ? wanted.range.start <= port && port <= wanted.range.end : wanted.number === port;
  }

  function isPort({ portNumber, portRange, namedPort }: PortMatch): boolean {
    if (namedPort !== undefined) return isNamed(namedPort);
    if ((portNumber ?? portRange)?.protocol !== protocol) return false;
    return portRange ? portRange.start <= port && port <= portRange.end : portNumber?.port === port;
  }
}

function tierOf({ kind, spec }: ClusterPolicy): string {
  if (kind === 'ClusterNetworkPolicy') return spec.tier!;
  return kind === 'AdminNetworkPolicy' ? 'Admin' : 'Baseline';
}

function typesOf({ spec }: NetworkPolicy): readonly string[] {
  if (spec.policyTypes?.length) return spec.policyTypes;
  return spec.egress?.length ? ['Ingress', 'Egress'] : ['Ingress'];
}

function matches(selector: LabelSelector, labels: Readonly<Record<string, string>>): boolean {
  for (const [key, value] of Object.entries(selector.matchLabels ?? {})) if (labels[key] !== value) return false;
  for (const { key, operator, values = [] } of selector.matchExpressions ?? []) {
    const value = labels[key];
    if (operator === 'In' && !(value !== undefined && values.includes(value))) return false;
    if (operator === 'NotIn' && value !== undefined && values.includes(value)) return false;
    if (operator === 'Exists' && value === undefined) return false;
    if (operator === 'DoesNotExist' && value !== undefined) return false;
  }
  return true;
}

function contains(cidr: string, ip: string): boolean {
  const [network = '', length = ''] = cidr.split('/');
  const family = (address: string) => (address.includes(':') ? 'ipv6' : 'ipv4');
  if (family(network) !== family(ip)) return false;
  const list = new BlockList();
  list.addSubnet(network, Number(length), family(network));
  return list.check(ip, family(ip));
}
