/**
 * Dev mode's private segment: a "switch" namespace with a bridge, and a namespace for each node joined to it by a veth pair.
 * Both ends of every link are made inside these namespaces, so nothing outside them ever changes. Every function is
 * idempotent: a cluster that was stopped, or whose `up` was killed half-way, is completed. It knows nothing of pods.
 */

import { createHash } from 'node:crypto';
import { addressAfter, formatAddress, networkOf, parsePrefix } from '../sys/address.ts';
import {
  addAddress,
  addLink,
  addRoute,
  defaultRoute,
  deleteLink,
  RouteSocket,
  setLink,
  withRoutes,
} from '../sys/netlink.ts';
import { closeNetns, createNetns, deleteNetns, isNetns, openNetns } from '../sys/netns.ts';
import { Nftables, NftablesError } from '../sys/nftables.ts';
import { ensureSysctls } from '../sys/sysctl.ts';
import { macOf } from './mac.ts';

export const SEGMENT = { IPv4: '172.30.0.0/16', IPv6: 'fd00:172:30::/64' } as const;
const BRIDGE = 'switch0';
const NODE_LINK = 'eth0';

/** The segment's first address: the switch itself, and every node's default gateway. */
export function switchAddress(segment: string = SEGMENT.IPv4): string {
  return formatAddress(addressAfter(networkOf(parsePrefix(segment)), 1));
}

/** The address of the n-th node, counted from 1: 172.30.0.2 for node-1. */
export function nodeAddress(number: number, segment: string = SEGMENT.IPv4): string {
  return formatAddress(addressAfter(networkOf(parsePrefix(segment)), 1 + number));
}

/** The segment's addresses that no node ever has, for Services of type LoadBalancer. */
export function loadBalancerRange(family: keyof typeof SEGMENT): string {
  return family === 'IPv4' ? '172.30.255.1-172.30.255.254' : 'fd00:172:30::ff00:0/112';
}

export interface SwitchOptions {
  /** Name under /run/netns, or an absolute path. */
  readonly name: string;
  /** One of each family that the nodes have. */
  readonly segments?: readonly string[];
  readonly mtu?: number;
}

export interface NodeNamespaceOptions {
  /** The switch's name or path. */
  readonly switch: string;
  /** Name under /run/netns, or an absolute path. */
  readonly name: string;
  /** One of each segment, in the same order. */
  readonly ips: readonly string[];
  readonly segments?: readonly string[];
  readonly mtu?: number;
}

// Frames between nodes are bridged, not filtered: without this each would also pass the IP hooks of the switch.
const QUIET_BRIDGE = {
  'bridge/bridge-nf-call-iptables': '0',
  'bridge/bridge-nf-call-ip6tables': '0',
  'bridge/bridge-nf-call-arptables': '0',
};

// Addresses here are given by us and unique: nobody has to ask for them, or tell where the routers are.
const QUIET_IPV6 = { 'ipv6/conf/default/accept_dad': '0', 'ipv6/conf/default/accept_ra': '0' };

/**
 * The switch has no way out, and says so at once to whoever sends there: a connection that is refused need not time out. What the switch
 * has a route for is left alone.
 */
const NO_WAY_OUT = `
  add table inet coxswain-outside
  delete table inet coxswain-outside
  add table inet coxswain-outside
  add chain inet coxswain-outside from-nodes { type filter hook prerouting priority 0; }
  add rule inet coxswain-outside from-nodes iifname != "${BRIDGE}" accept
  add rule inet coxswain-outside from-nodes fib daddr type { local, broadcast, anycast, multicast } accept
  add rule inet coxswain-outside from-nodes fib daddr oif exists accept
  add rule inet coxswain-outside from-nodes meta l4proto tcp reject with tcp reset
  add rule inet coxswain-outside from-nodes reject with icmpx type port-unreachable
`;
const ANSWERS_ALL = { 'ipv4/icmp_ratelimit': '0', 'ipv6/icmp/ratelimit': '0' };

function refuseOutside(name: string): void {
  ensureSysctls(name, ANSWERS_ALL);
  try {
    new Nftables(name).run(NO_WAY_OUT);
  } catch (error) {
    // A kernel that cannot answer for others: what is sent there waits until it gives up.
    if (!(error instanceof NftablesError)) throw error;
  }
}

export function createSwitch({ name, segments = [SEGMENT.IPv4], mtu = 1500 }: SwitchOptions): void {
  if (!isNetns(name)) createNetns(name);
  ensureSysctls(name, { ...QUIET_BRIDGE, ...QUIET_IPV6 });
  withRoutes(name, routes => {
    routes.request([
      setLink({ index: 1, up: true }),
      { ...addLink({ kind: 'bridge', name: BRIDGE, mtu, mac: macOf(switchAddress(segments[0])) }), ignore: ['EEXIST'] },
    ]);
    const index = routes.linkIndex(BRIDGE);
    routes.request([
      setLink({ index, up: true }),
      ...segments.map(segment => addAddress({ index, prefix: inSegment(switchAddress(segment), segment) })),
    ]);
  });
  refuseOutside(name);
}

/** Also right for a node that exists: its link is made only when missing. */
export function createNodeNamespace(options: NodeNamespaceOptions): void {
  const { name, ips, segments = [SEGMENT.IPv4], mtu = 1500 } = options;
  if (!isNetns(name)) createNetns(name);
  const namespace = openNetns(name);
  const [upstream, node] = [new RouteSocket(options.switch), new RouteSocket(namespace)];
  try {
    ensureSysctls(namespace, { ...QUIET_BRIDGE, ...QUIET_IPV6 });
    const port = portName(name);
    if (!node.link(NODE_LINK)) {
      upstream.request([
        deleteLink({ name: port }),
        addLink({
          kind: 'veth',
          name: port,
          up: true,
          master: upstream.linkIndex(BRIDGE),
          mtu,
          peer: { name: NODE_LINK, namespace, mtu, mac: macOf(ips[0]!) },
        }),
      ]);
    }
    const index = node.linkIndex(NODE_LINK);
    node.request([
      setLink({ index: 1, up: true }),
      setLink({ index, up: true }),
      ...segments.flatMap((segment, at) => [
        addAddress({ index, prefix: inSegment(ips[at]!, segment) }),
        addRoute({ to: defaultRoute(segment), via: switchAddress(segment), link: index }),
      ]),
    ]);
  } finally {
    upstream.close();
    node.close();
    closeNetns(namespace);
  }
}

/** Takes the node off the switch and unpins its namespace. Processes still inside keep it alive, without a link. Idempotent. */
export function deleteNodeNamespace(options: { readonly switch: string; readonly name: string }): void {
  if (isNetns(options.switch))
    withRoutes(options.switch, routes => routes.request([deleteLink({ name: portName(options.name) })]));
  deleteNetns(options.name);
}

/** Idempotent. */
export function deleteSwitch(name: string): void {
  deleteNetns(name);
}

function inSegment(ip: string, segment: string): string {
  return `${ip}/${parsePrefix(segment).length}`;
}

/** The switch's port for a node's namespace. Link names hold 15 bytes, node names more. */
export function portName(node: string): string {
  return `port${createHash('sha256').update(node).digest('hex').slice(0, 10)}`;
}
