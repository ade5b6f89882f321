/**
 * The kinds that configure on-premises load balancing: which addresses there are, and how they are announced. They have the
 * shapes and field names of MetalLB's `metallb.io` kinds, so that a manifest moves over by changing its apiVersion; the
 * group is our own, so that MetalLB itself can be installed beside us. Served as CustomResourceDefinitions (`definitions.ts`).
 */

import type { KubeObject, LabelSelector } from '../meta.ts';

export const GROUP = 'loadbalancer.coxswain.dev';
export const VERSION = 'v1beta1';
export const API_VERSION = `${GROUP}/${VERSION}`;

/** `spec.loadBalancerClass` of Services that are always ours; Services without a class are too. */
export const LOAD_BALANCER_CLASS = 'coxswain.dev/loadbalancer';

/** Whether a pool is for Services of this class: its own, or without one those of no class and of ours. */
export function servesClass(
  pool: Pick<IPAddressPool['spec'], 'loadBalancerClass'>,
  serviceClass: string | undefined,
): boolean {
  const general = serviceClass === undefined || serviceClass === LOAD_BALANCER_CLASS;
  return pool.loadBalancerClass === undefined ? general : pool.loadBalancerClass === serviceClass;
}

export interface IPAddressPool extends KubeObject {
  readonly spec: {
    /** Prefixes (`192.0.2.0/24`) and ranges (`192.0.2.10-192.0.2.20`). */
    readonly addresses: readonly string[];
    /** False: only for Services that ask for the pool or for one of its addresses. Default true. */
    readonly autoAssign?: boolean;
    /** True: addresses that end in .0 and .255 are not given out. */
    readonly avoidBuggyIPs?: boolean;
    /** Serves Services of this class only; without it, those without a class. */
    readonly loadBalancerClass?: string;
    readonly serviceAllocation?: {
      /** Lower comes first; pools without one come last. */
      readonly priority?: number;
      readonly namespaces?: readonly string[];
      readonly namespaceSelectors?: readonly LabelSelector[];
      readonly serviceSelectors?: readonly LabelSelector[];
    };
  };
  readonly status?: PoolStatus;
}

export interface PoolStatus {
  readonly assignedIPv4: number;
  readonly assignedIPv6: number;
  readonly availableIPv4: number;
  readonly availableIPv6: number;
}

/** Which pools an advertisement is for: all, unless names or selectors are given. */
export interface PoolChoice {
  readonly ipAddressPools?: readonly string[];
  readonly ipAddressPoolSelectors?: readonly LabelSelector[];
  /** Nodes that may announce; all, unless given. */
  readonly nodeSelectors?: readonly LabelSelector[];
}

export interface L2Advertisement extends KubeObject {
  readonly spec?: PoolChoice & {
    /** Links to announce on; the one with the node's address, unless given. */
    readonly interfaces?: readonly string[];
  };
}

export interface BGPAdvertisement extends KubeObject {
  readonly spec?: PoolChoice & {
    /** Announces the prefix of this length that holds the address. Default 32. */
    readonly aggregationLength?: number;
    /** The same for IPv6. Default 128. */
    readonly aggregationLengthV6?: number;
    readonly localPref?: number;
    /** `64512:100`, `large:64512:1:2`, or the name of an alias of a Community. */
    readonly communities?: readonly string[];
    /** Names of BGPPeers; all, unless given. */
    readonly peers?: readonly string[];
  };
}

export interface BGPPeer extends KubeObject {
  readonly spec: {
    readonly myASN: number;
    readonly peerASN: number;
    readonly peerAddress: string;
    readonly peerPort?: number;
    readonly sourceAddress?: string;
    readonly routerID?: string;
    /** Durations: `90s`, `1m30s`. */
    readonly holdTime?: string;
    readonly keepaliveTime?: string;
    readonly connectTime?: string;
    readonly ebgpMultiHop?: boolean;
    readonly enableGracefulRestart?: boolean;
    readonly password?: string;
    /** A Secret of type kubernetes.io/basic-auth, whose `password` counts; not beside `password`. */
    readonly passwordSecret?: { readonly name: string; readonly namespace: string };
    /** Name of a BFDProfile: the session ends as soon as BFD misses the peer. */
    readonly bfdProfile?: string;
    readonly nodeSelectors?: readonly LabelSelector[];
  };
}

export interface Community extends KubeObject {
  readonly spec?: { readonly communities?: readonly { readonly name: string; readonly value: string }[] };
}

/** How BFD watches a peer; intervals in milliseconds. */
export interface BFDProfile extends KubeObject {
  readonly spec?: {
    readonly receiveInterval?: number;
    readonly transmitInterval?: number;
    readonly detectMultiplier?: number;
    readonly passiveMode?: boolean;
  };
}

/** Parts of the cloud-provider interface. */
export type CloudPart = 'LoadBalancer' | 'Instances' | 'Routes';

/** A process that does what a cloud does for its clusters (`src/controllers/cloudloadbalancer`, `cloudnode`, `cloudroute`). */
export interface LoadBalancerProvider extends KubeObject {
  readonly spec: {
    /** Unix socket that it serves, as the API server's machine has it: an absolute path. */
    readonly socket: string;
    /** Serves Services of this class; without it, those without a class, which then have no address of a pool. */
    readonly loadBalancerClass?: string;
    /** What it is asked for; default: load balancers. */
    readonly serves?: readonly CloudPart[];
  };
}

export const cloudPartsOf = ({ spec }: LoadBalancerProvider): readonly CloudPart[] => spec.serves ?? ['LoadBalancer'];
