/**
 * How pods reach pods of other nodes. In mode `vxlan` one device `cox.vx` carries all: for each other node a route to its
 * pod range, a neighbour entry and a forwarding entry, all static, so that nothing is ever learnt or flooded (the scheme of
 * flannel's vxlan backend). In mode `routes`, for nodes on one segment, a plain route through the node's address.
 * Invariant: after `apply(peers)` exactly the given peers are reachable; entries of the same kind made by nobody else are
 * removed. It refuses to watch anything: `node-network.ts` does.
 */

import { formatAddress, networkOf, parsePrefix } from '../sys/address.ts';
import {
  addAddress,
  addForwarding,
  addLink,
  addNeighbour,
  addRoute,
  deleteAddress,
  deleteForwarding,
  deleteLink,
  deleteNeighbour,
  deleteRoute,
  type Link,
  NEIGHBOUR_PERMANENT,
  ROUTE_PROTOCOL_COXSWAIN,
  type RouteSocket,
  setLink,
} from '../sys/netlink.ts';
import type { NetlinkMessage } from '../sys/netlink-socket.ts';
import type { NetnsRef } from '../sys/netns.ts';
import { ensureSysctls, readSysctl } from '../sys/sysctl.ts';
import { macOf } from './mac.ts';
import { hostPrefix, NO_LINK_LOCAL } from './pod-links.ts';

export type OverlayMode = 'vxlan' | 'routes';

/** The outer headers: Ethernet 14, IPv4 20 or IPv6 40, UDP 8, VXLAN 8. */
const VXLAN_OVERHEAD_BYTES = { IPv4: 50, IPv6: 70 } as const;
const VXLAN_LINK = 'cox.vx';
const VXLAN_ID = 4242;
const VXLAN_PORT = 8472;

export interface Peer {
  readonly node: string;
  /** One of each family that its pods have. */
  readonly podCidrs: readonly string[];
  readonly nodeIps: readonly string[];
  /** Of the peer's vxlan device; needed in mode `vxlan`. */
  readonly mac: string | undefined;
}

export class Overlay {
  readonly mode: OverlayMode;
  /** Its family is that of the outer packets. */
  readonly #nodeIp: string;
  readonly #namespace: NetnsRef;
  readonly #routes: RouteSocket;
  #vxlan: Link | undefined;
  #applied = new Map<string, Peer>();
  #swept = false;

  constructor(options: {
    readonly mode: OverlayMode;
    readonly nodeIp: string;
    readonly namespace: NetnsRef;
    readonly routes: RouteSocket;
  }) {
    this.mode = options.mode;
    this.#nodeIp = options.nodeIp;
    this.#namespace = options.namespace;
    this.#routes = options.routes;
  }

  /** The link that has the node's address. Throws when none has. */
  #uplink(): Link {
    const at = this.#routes.addresses().find(({ prefix }) => prefix.slice(0, prefix.indexOf('/')) === this.#nodeIp);
    const link = at && this.#routes.links().find(({ index }) => index === at.index);
    if (!link) throw new Error(`no link has the node's address ${this.#nodeIp}`);
    return link;
  }

  /** Makes the device for this node's own range; returns its MAC (to publish) and the MTU for pods. */
  configure(podCidrs: readonly string[]): { readonly mac: string | undefined; readonly mtu: number } {
    const uplink = this.#uplink();
    // A pod's packet to another node's own address comes in by the uplink and is answered through the overlay: strict
    // reverse-path filtering would drop it.
    if (
      [
        readSysctl(this.#namespace, 'ipv4/conf/all/rp_filter'),
        readSysctl(this.#namespace, `ipv4/conf/${uplink.name}/rp_filter`),
      ].includes('1')
    ) {
      ensureSysctls(this.#namespace, { [`ipv4/conf/${uplink.name}/rp_filter`]: '2' });
    }
    // A machine that forwards IPv6 takes no default route from its router any more, unless it is told to.
    const acceptRa = `ipv6/conf/${uplink.name}/accept_ra`;
    if (podCidrs.some(range => range.includes(':')) && readSysctl(this.#namespace, acceptRa) === '1')
      ensureSysctls(this.#namespace, { [acceptRa]: '2' });
    if (this.mode === 'routes') {
      this.#routes.request([deleteLink({ name: VXLAN_LINK })]);
      return { mac: undefined, mtu: uplink.mtu };
    }
    const mtu = uplink.mtu - VXLAN_OVERHEAD_BYTES[this.#nodeIp.includes(':') ? 'IPv6' : 'IPv4'];
    const mac = macOf(vtepAddress(podCidrs[0]!));
    const existing = this.#routes.link(VXLAN_LINK);
    if (existing && (existing.mac !== mac || existing.mtu !== mtu || existing.kind !== 'vxlan'))
      this.#routes.request([deleteLink(existing)]);
    const add = addLink({
      kind: 'vxlan',
      name: VXLAN_LINK,
      id: VXLAN_ID,
      port: VXLAN_PORT,
      local: this.#nodeIp,
      link: uplink.index,
      learning: false,
      mac,
      mtu,
    });
    this.#routes.request([{ ...add, ignore: ['EEXIST'] }]);
    ensureSysctls(this.#namespace, { [`ipv6/conf/${VXLAN_LINK}/addr_gen_mode`]: NO_LINK_LOCAL });
    this.#routes.request([setLink({ name: VXLAN_LINK, up: true })]);
    const vxlan = this.#routes.link(VXLAN_LINK)!;
    this.#vxlan = vxlan;
    // Source of what the node itself sends to pods of other nodes, so that answers come back the same way.
    const prefixes = podCidrs.map(range => hostPrefix(vtepAddress(range)));
    const others = this.#routes
      .addresses()
      .filter(({ index, prefix }) => index === vxlan.index && !prefixes.includes(prefix));
    this.#routes.request([
      ...prefixes.map(prefix => addAddress({ index: vxlan.index, prefix })),
      ...others.map(other => deleteAddress(other)),
    ]);
    ensureSysctls(this.#namespace, { [`ipv4/conf/${VXLAN_LINK}/rp_filter`]: '2' });
    this.#applied.clear();
    this.#swept = false;
    return { mac, mtu };
  }

  /** Reaches exactly these peers. The first call also removes what a former process left. */
  apply(peers: readonly Peer[]): void {
    const usable = peers.filter(peer => this.mode === 'routes' || (peer.mac !== undefined && this.#outer(peer)));
    const next = new Map(usable.map(peer => [peer.node, peer]));
    const messages: NetlinkMessage[] = this.#swept ? [] : this.#sweep(usable);
    for (const [node, peer] of this.#applied) if (!next.has(node)) messages.push(...this.#remove(peer, usable));
    for (const peer of usable) {
      const old = this.#applied.get(peer.node);
      if (old && JSON.stringify(old) === JSON.stringify(peer)) continue;
      if (old) messages.push(...this.#remove(old, usable));
      messages.push(...this.#add(peer));
    }
    this.#routes.request(messages);
    this.#swept = true;
    this.#applied = next;
  }

  /** The peer's address that outer packets go to. */
  #outer(peer: Peer): string | undefined {
    return ofFamily(this.#nodeIp, peer.nodeIps);
  }

  #add(peer: Peer): NetlinkMessage[] {
    const protocol = ROUTE_PROTOCOL_COXSWAIN;
    if (this.mode === 'routes')
      return peer.podCidrs.flatMap(to => {
        const via = ofFamily(to, peer.nodeIps);
        return via ? [addRoute({ to, via, protocol })] : [];
      });
    const { index } = this.#vxlan!;
    const mac = peer.mac!;
    return [
      addForwarding({ index, mac, address: this.#outer(peer)! }),
      ...peer.podCidrs.flatMap(to => {
        const via = vtepAddress(to);
        return [addNeighbour({ index, address: via, mac }), addRoute({ to, via, link: index, onlink: true, protocol })];
      }),
    ];
  }

  // What another peer now uses (a range given to a new node) stays.
  #remove(peer: Peer, keep: readonly Peer[]): NetlinkMessage[] {
    const kept = new Set(keep.flatMap(({ podCidrs }) => podCidrs));
    const ranges = peer.podCidrs.filter(range => !kept.has(range));
    const messages = ranges.map(to => deleteRoute({ to, protocol: ROUTE_PROTOCOL_COXSWAIN }));
    if (this.mode === 'routes') return messages;
    const { index } = this.#vxlan!;
    messages.push(...ranges.map(range => deleteNeighbour({ index, address: vtepAddress(range) })));
    if (!keep.some(({ mac }) => mac === peer.mac))
      messages.push(deleteForwarding({ index, mac: peer.mac!, address: this.#outer(peer)! }));
    return messages;
  }

  #sweep(peers: readonly Peer[]): NetlinkMessage[] {
    const messages: NetlinkMessage[] = [];
    const ranges = peers.flatMap(({ podCidrs }) => podCidrs);
    for (const { to, protocol } of this.#routes.routes({ protocol: ROUTE_PROTOCOL_COXSWAIN }))
      if (!ranges.includes(to)) messages.push(deleteRoute({ to, protocol }));
    const index = this.#vxlan?.index;
    if (index === undefined) return messages;
    const macs = new Set(peers.map(({ mac }) => mac));
    for (const { index: on, mac, address } of this.#routes.forwarding()) {
      if (on === index && mac && address && !macs.has(mac)) messages.push(deleteForwarding({ index, mac, address }));
    }
    const vteps = new Set(ranges.map(vtepAddress));
    for (const { index: on, address, state } of this.#routes.neighbours()) {
      if (on === index && address && state === NEIGHBOUR_PERMANENT && !vteps.has(address))
        messages.push(deleteNeighbour({ index, address }));
    }
    return messages;
  }
}

/** The first of the addresses that is of the same family. */
function ofFamily(like: string, addresses: readonly string[]): string | undefined {
  return addresses.find(address => address.includes(':') === like.includes(':'));
}

/** A node's end of the overlay has the network address of its range, which no pod has. */
function vtepAddress(podCidr: string): string {
  return formatAddress(networkOf(parsePrefix(podCidr)));
}
