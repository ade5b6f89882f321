/**
 * NetworkPolicy as its documentation says it, as plainly as it can be written and with nothing of the product in it: tests
 * compare the table, and real packets, with this. It looks at every policy for every question.
 */

import { BlockList } from 'node:net';
import type { LabelSelector } from '../../api/meta.ts';
import type { NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort } from '../../api/networking/v1.gen.ts';

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

export function isAllowed(world: PlainWorld, { from, to, protocol, port }: PlainQuestion): boolean {
  if (from.ip === to.ip) return true;
  return sideAllows('Egress', from, to) && sideAllows('Ingress', to, from);

  function sideAllows(type: 'Ingress' | 'Egress', self: PlainEnd, other: PlainEnd): boolean {
    const { pod } = self;
    if (!pod) return true;
    const isolating = world.policies.filter(
      policy =>
        policy.metadata.namespace === pod.namespace &&
        matches(policy.spec.podSelector ?? {}, pod.labels) &&
        typesOf(policy).includes(type),
    );
    if (isolating.length === 0) return true;
    for (const policy of isolating) {
      const rules = (type === 'Ingress' ? policy.spec.ingress : policy.spec.egress) ?? [];
      for (const rule of rules) {
        const peers = ('from' in rule ? rule.from : 'to' in rule ? rule.to : undefined) ?? [];
        const peerFits = peers.length === 0 || peers.some(peer => fits(peer, policy.metadata.namespace!, other));
        const portFits = !rule.ports?.length || rule.ports.some(one => portMatches(one));
        if (peerFits && portFits) return true;
      }
    }
    return false;
  }

  function fits(peer: NetworkPolicyPeer, policyNamespace: string, { ip, pod }: PlainEnd): boolean {
    if (peer.ipBlock)
      return contains(peer.ipBlock.cidr, ip) && !(peer.ipBlock.except ?? []).some(except => contains(except, ip));
    if (!pod) return false;
    if (peer.namespaceSelector) {
      if (!matches(peer.namespaceSelector, world.namespaces[pod.namespace] ?? {})) return false;
    } else if (pod.namespace !== policyNamespace) return false;
    return !peer.podSelector || matches(peer.podSelector, pod.labels);
  }

  function portMatches(wanted: NetworkPolicyPort): boolean {
    if ((wanted.protocol ?? 'TCP') !== protocol) return false;
    if (wanted.port === undefined) return true;
    if (typeof wanted.port === 'string')
      return (to.pod?.ports ?? []).some(
        own => own.name === wanted.port && own.protocol === protocol && own.containerPort === port,
      );
    return wanted.port <= port && port <= (wanted.endPort ?? wanted.port);
  }
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
