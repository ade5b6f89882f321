/**
 * Dev mode's private segment: a "switch" namespace with a bridge, and a namespace for each node joined to it by a veth pair.
 * Both ends of every link are made inside these namespaces, so nothing outside them ever changes. Every function is
 * idempotent: a cluster that was stopped, or whose `up` was killed half-way, is completed. It knows nothing of pods.
 */

import { createHash } from 'node:crypto';
import { addressAfter, formatAddress, networkOf, parseAddress } from '../sys/address.ts';
import { addAddress, addLink, addRoute, deleteLink, RouteSocket, setLink, withRoutes } from '../sys/netlink.ts';
import { closeNetns, createNetns, deleteNetns, isNetns, openNetns } from '../sys/netns.ts';
import { ensureSysctls } from '../sys/sysctl.ts';
import { macOf } from './mac.ts';

const BRIDGE = 'switch0';
const NODE_LINK = 'eth0';

// Frames between nodes are bridged, not filtered: without this each would also pass the IP hooks of the switch.
const QUIET_BRIDGE = {
  'bridge/bridge-nf-call-iptables': '0',
  'bridge/bridge-nf-call-ip6tables': '0',
  'bridge/bridge-nf-call-arptables': '0',
};

export interface SwitchOptions {
  /** Name under /run/netns, or an absolute path. */
  readonly namespace: string;
  /** The switch's own address on the segment: the nodes' default gateway. */
  readonly address: string;
  readonly prefixLength: number;
  readonly mtu?: number;
}

export interface NodeOptions {
  readonly switchNamespace: string;
  /** The node's: a name under /run/netns, or an absolute path. */
  readonly namespace: string;
  readonly node: string;
  readonly address: string;
  readonly prefixLength: number;
  /** Default gateway; the segment's first address when absent. */
  readonly gateway?: string;
  readonly mtu?: number;
}

export function createSwitch({ namespace, address, prefixLength, mtu = 1500 }: SwitchOptions): void {
  if (!isNetns(namespace)) createNetns(namespace);
  ensureSysctls(namespace, QUIET_BRIDGE);
  withRoutes(namespace, routes => {
    routes.request([
      setLink({ index: 1, up: true }),
      { ...addLink({ kind: 'bridge', name: BRIDGE, mtu, mac: macOf(address) }), ignore: ['EEXIST'] },
      setLink({ name: BRIDGE, up: true }),
    ]);
    routes.request([addAddress({ index: routes.linkIndex(BRIDGE), prefix: `${address}/${prefixLength}` })]);
  });
}

/** Makes the node's namespace and its `eth0` on the segment; a link that exists is kept. */
export function joinNode(options: NodeOptions): void {
  const { namespace: name, address, prefixLength, mtu = 1500 } = options;
  const gateway =
    options.gateway ??
    formatAddress(addressAfter(networkOf({ address: parseAddress(address), length: prefixLength }), 1));
  if (!isNetns(name)) createNetns(name);
  const namespace = openNetns(name);
  const [upstream, node] = [new RouteSocket(options.switchNamespace), new RouteSocket(namespace)];
  try {
    ensureSysctls(namespace, QUIET_BRIDGE);
    if (!node.link(NODE_LINK)) {
      const port = portName(options.node);
      const peer = { name: NODE_LINK, namespace, mtu, mac: macOf(address) };
      upstream.request([
        deleteLink({ name: port }),
        addLink({ kind: 'veth', name: port, up: true, master: upstream.linkIndex(BRIDGE), mtu, peer }),
      ]);
    }
    const index = node.linkIndex(NODE_LINK);
    node.request([
      setLink({ index: 1, up: true }),
      setLink({ index, up: true }),
      addAddress({ index, prefix: `${address}/${prefixLength}` }),
      addRoute({ to: 'default', via: gateway, link: index }),
    ]);
  } finally {
    upstream.close();
    node.close();
    closeNetns(namespace);
  }
}

/** Takes a node off the switch, keeping its namespace: a cut cable, for tests too. Idempotent. */
export function unplugNode(options: { readonly switchNamespace: string; readonly node: string }): void {
  withRoutes(options.switchNamespace, routes => routes.request([deleteLink({ name: portName(options.node) })]));
}

/**
 * Unpins a switch's or node's namespace; its links vanish with it. Processes still inside keep it alive: end them first.
 * Idempotent.
 */
export function deleteSegmentNamespace(namespace: string): void {
  deleteNetns(namespace);
}

// Link names hold 15 bytes, node names more.
function portName(node: string): string {
  return `port${createHash('sha256').update(node).digest('hex').slice(0, 10)}`;
}
