/**
 * Policies of every kind in one form: who is subject to them, and ordered statements that allow, deny or pass on traffic of
 * peers at ports. `NetworkPolicy` (networking.k8s.io/v1) is read here; cluster-scoped kinds in `cluster-policy.ts`. Pure.
 */

import { type Labels, labelSelectorMatch, type Match, matchEverything } from '../../api/machinery/labels.ts';
import type { LabelSelector } from '../../api/meta.ts';
import type {
  NetworkPolicy,
  NetworkPolicyEgressRule,
  NetworkPolicyIngressRule,
  NetworkPolicyPeer,
  NetworkPolicyPort,
} from '../../api/networking/v1.gen.ts';

export type Direction = 'ingress' | 'egress';
export const DIRECTIONS: readonly Direction[] = ['ingress', 'egress'];
/** In the order in which they are asked. */
export type Tier = 'admin' | 'namespace' | 'baseline';
export type Protocol = 'TCP' | 'UDP' | 'SCTP';

/** What policies see of a pod. */
export interface PodFacts {
  readonly namespace: string;
  readonly labels: Labels;
}

/** Pods by their labels and their namespace's. `key` is the same for peers that mean the same. */
export interface PodPeer {
  readonly kind: 'pods';
  readonly key: string;
  readonly inNamespace: (name: string, labels: Labels) => boolean;
  readonly pods: Match;
}

export interface BlockPeer {
  readonly kind: 'block';
  readonly key: string;
  readonly cidr: string;
  readonly except: readonly string[];
}

export type Peer = PodPeer | BlockPeer;

export type PortSpec =
  | { readonly protocol: Protocol; readonly from: number; readonly to: number }
  /** The port that the destination pod calls so; any protocol's when none is given. */
  | { readonly protocol: Protocol | undefined; readonly name: string };

export interface Statement {
  readonly action: 'allow' | 'deny' | 'pass';
  readonly peers: readonly Peer[] | 'all';
  readonly ports: readonly PortSpec[] | 'all';
  /** Where it stands: `spec.ingress[0]`, and its name where it has one. */
  readonly at: string;
}

export interface Policy {
  /** `NetworkPolicy default/web`; unique. */
  readonly id: string;
  readonly tier: Tier;
  /** Of two in one tier the lower is asked first; 0 where order does not matter. */
  readonly priority: number;
  /** The only namespace whose pods it may select; undefined for all. */
  readonly namespace: string | undefined;
  readonly selects: (pod: PodFacts, namespaceLabels: Labels) => boolean;
  /** A direction is absent where the policy does not speak of it. */
  readonly statements: Readonly<Partial<Record<Direction, readonly Statement[]>>>;
}

export const EVERY_POD: PodPeer = { kind: 'pods', key: 'every pod', inNamespace: () => true, pods: matchEverything };

/** `namespace` undefined: of every namespace that the selector takes. */
export function podPeer(options: {
  readonly namespace?: string | undefined;
  readonly namespaceSelector?: LabelSelector | undefined;
  readonly podSelector?: LabelSelector | undefined;
}): PodPeer {
  const { namespace, namespaceSelector, podSelector } = options;
  const pods: Match = podSelector ? labelSelectorMatch(podSelector) : matchEverything;
  const key = JSON.stringify([namespaceSelector ?? namespace ?? null, podSelector ?? {}]);
  if (!namespaceSelector) return { kind: 'pods', key, inNamespace: name => name === namespace, pods };
  const namespaces = labelSelectorMatch(namespaceSelector);
  return { kind: 'pods', key, inNamespace: (_name, labels) => namespaces(labels), pods };
}

export function blockPeer(cidr: string, except: readonly string[] = []): BlockPeer {
  return { kind: 'block', key: JSON.stringify([cidr, ...except]), cidr, except };
}

export function idOf(kind: string, metadata: { readonly namespace?: string; readonly name?: string }): string {
  return `${kind} ${metadata.namespace ? `${metadata.namespace}/` : ''}${metadata.name ?? ''}`;
}

export function readNetworkPolicy(policy: NetworkPolicy): Policy {
  const namespace = policy.metadata.namespace ?? '';
  const spec = policy.spec ?? {};
  const selected = labelSelectorMatch(spec.podSelector ?? {});
  const types = spec.policyTypes?.length ? spec.policyTypes : spec.egress?.length ? ['Ingress', 'Egress'] : ['Ingress'];
  const read = (rule: NetworkPolicyIngressRule & NetworkPolicyEgressRule, at: string): Statement => {
    const peers = rule.from ?? rule.to ?? [];
    return {
      action: 'allow',
      peers: peers.length ? peers.map(peer => readPeer(peer, namespace)) : 'all',
      ports: rule.ports?.length ? rule.ports.map(readPort) : 'all',
      at,
    };
  };
  return {
    id: idOf('NetworkPolicy', policy.metadata),
    tier: 'namespace',
    priority: 0,
    namespace,
    selects: pod => pod.namespace === namespace && selected(pod.labels),
    statements: {
      ...(types.includes('Ingress')
        ? { ingress: (spec.ingress ?? []).map((rule, i) => read(rule, `spec.ingress[${i}]`)) }
        : {}),
      ...(types.includes('Egress')
        ? { egress: (spec.egress ?? []).flatMap((rule, i) => splitNamed(read(rule, `spec.egress[${i}]`))) }
        : {}),
    },
  };
}

function readPeer(peer: NetworkPolicyPeer, namespace: string): Peer {
  if (peer.ipBlock) return blockPeer(peer.ipBlock.cidr, peer.ipBlock.except);
  return podPeer({ namespace, namespaceSelector: peer.namespaceSelector, podSelector: peer.podSelector });
}

function readPort({ protocol = 'TCP', port, endPort }: NetworkPolicyPort): PortSpec {
  const known = protocol as Protocol;
  if (typeof port === 'string') return { protocol: known, name: port };
  return port === undefined
    ? { protocol: known, from: 0, to: 65_535 }
    : { protocol: known, from: port, to: endPort ?? port };
}

/** An egress statement without peers: the names of ports mean something to pods only. */
export function splitNamed(statement: Statement): Statement[] {
  const { peers, ports } = statement;
  if (peers !== 'all' || ports === 'all') return [statement];
  const [named, numbered] = [ports.filter(port => 'name' in port), ports.filter(port => !('name' in port))];
  return [
    ...(numbered.length ? [{ ...statement, ports: numbered }] : []),
    ...(named.length ? [{ ...statement, ports: named, peers: [EVERY_POD] }] : []),
  ];
}
