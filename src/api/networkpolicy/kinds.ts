/**
 * Cluster-scoped network policies of the network-policy-api (policy.networking.k8s.io): ClusterNetworkPolicy (v1alpha2) and its
 * forerunners AdminNetworkPolicy and BaselineAdminNetworkPolicy (v1alpha1), which differ in the shape of ports and the names of
 * actions. Served as CustomResourceDefinitions (`definitions.ts`).
 */

import type { Condition, KubeObject, LabelSelector } from '../meta.ts';

export const GROUP = 'policy.networking.k8s.io';

export interface NamespacedPods {
  readonly namespaceSelector?: LabelSelector;
  readonly podSelector: LabelSelector;
}

/** Exactly one of them. */
export interface Subject {
  readonly namespaces?: LabelSelector;
  readonly pods?: NamespacedPods;
}

/** Exactly one of them; the others than of Subject at the far end of egress only, names in accepting rules only. None: of a version that this one does not know. */
export interface Peer extends Subject {
  readonly nodes?: LabelSelector;
  readonly networks?: readonly string[];
  /** `example.com`, `*.example.com`. */
  readonly domainNames?: readonly string[];
}

export interface PortRange {
  readonly start: number;
  readonly end: number;
}

/** Exactly one of them. */
export interface ProtocolMatch {
  readonly tcp?: ProtocolPort;
  readonly udp?: ProtocolPort;
  readonly sctp?: ProtocolPort;
  readonly destinationNamedPort?: string;
}
export interface ProtocolPort {
  readonly destinationPort?: { readonly number?: number; readonly range?: PortRange };
}

/** As v1alpha1 has ports; exactly one of them. */
export interface PortMatch {
  readonly portNumber?: { readonly protocol?: string; readonly port: number };
  readonly portRange?: PortRange & { readonly protocol?: string };
  readonly namedPort?: string;
}

export interface Rule {
  readonly name?: string;
  readonly action: 'Accept' | 'Allow' | 'Deny' | 'Pass';
  readonly from?: readonly Peer[];
  readonly to?: readonly Peer[];
  /** ClusterNetworkPolicy's. */
  readonly protocols?: readonly ProtocolMatch[];
  /** The others'. */
  readonly ports?: readonly PortMatch[];
}

export interface ClusterPolicy extends KubeObject {
  readonly spec: {
    /** ClusterNetworkPolicy's. */
    readonly tier?: 'Admin' | 'Baseline';
    /** Lower is asked first; not BaselineAdminNetworkPolicy's. */
    readonly priority?: number;
    readonly subject: Subject;
    readonly ingress?: readonly Rule[];
    readonly egress?: readonly Rule[];
  };
  readonly status?: { readonly conditions?: readonly Condition[] };
}

/** Paths of what a newer or experimental definition let through and nobody here understands. */
export function unknownParts({ spec }: ClusterPolicy): string[] {
  const out: string[] = [];
  if (!spec.subject.namespaces && !spec.subject.pods) out.push('spec.subject');
  for (const direction of ['ingress', 'egress'] as const)
    spec[direction]?.forEach((rule, i) => {
      const at = `spec.${direction}[${i}]`;
      const peers = direction === 'ingress' ? 'from' : 'to';
      rule[peers]?.forEach((peer, j) => void (isKnownPeer(peer) || out.push(`${at}.${peers}[${j}]`)));
      rule.protocols?.forEach((one, j) => void (isKnownProtocol(one) || out.push(`${at}.protocols[${j}]`)));
      rule.ports?.forEach((one, j) => void (isKnownPort(one) || out.push(`${at}.ports[${j}]`)));
    });
  return out;
}

export const isKnownPeer = ({ namespaces, pods, nodes, networks, domainNames }: Peer): boolean =>
  [namespaces, pods, nodes, networks, domainNames].some(one => one !== undefined);
export const isKnownPort = ({ portNumber, portRange, namedPort }: PortMatch): boolean =>
  [portNumber, portRange, namedPort].some(one => one !== undefined);
export const isKnownProtocol = ({ tcp, udp, sctp, destinationNamedPort }: ProtocolMatch): boolean =>
  [tcp, udp, sctp, destinationNamedPort].some(one => one !== undefined);
