/**
 * The pods of one node and the bridge that joins them: `cox0` with the first address of each range, a veth pair a pod, `eth0`
 * inside with its addresses, gateways and neighbours.
 * Invariant: every packet of a pod, to a neighbour pod too, passes the node's IP layer, because the pod has no route to its
 * range but through the gateway. So Services, masquerade and policies see all traffic, whether or not the kernel filters
 * bridged frames; and a pod that makes frames of its own reaches no other: the bridge keeps its ports apart, or hands such frames to
 * the IP layer's filters, too.
 * All calls are idempotent; it refuses to choose addresses.
 */

import { createHash } from 'node:crypto';
import { addressAfter, formatAddress, networkOf, parsePrefix } from '../sys/address.ts';
import {
  addAddress,
  addLink,
  addNeighbour,
  addRoute,
  defaultRoute,
  deleteAddress,
  deleteLink,
  deleteNeighbour,
  RouteSocket,
  setHairpin,
  setIsolated,
  setLink,
  withRoutes,
} from '../sys/netlink.ts';
import { closeNetns, type NetnsRef, openNetns } from '../sys/netns.ts';
import { ensureSysctls, readOptionalSysctl } from '../sys/sysctl.ts';
import { macOf } from './mac.ts';

export const POD_BRIDGE = 'cox0';
const POD_LINK = 'eth0';
const HOST_LINK_PREFIX = 'cox';
/** `addr_gen_mode` none. */
export const NO_LINK_LOCAL = '1';
const BRIDGE_FILTERS = ['bridge/bridge-nf-call-iptables', 'bridge/bridge-nf-call-ip6tables'];
/** A pod's neighbour must not become its router by saying so; and nothing asks whether addresses are free: they are. */
const QUIET_IPV6 = {
  'ipv6/conf/default/accept_ra': '0',
  'ipv6/conf/default/accept_redirects': '0',
  'ipv6/conf/default/accept_dad': '0',
};

/** The node's first pod address: the pods' gateway. */
export function gatewayOf(podCidr: string): string {
  return formatAddress(addressAfter(networkOf(parsePrefix(podCidr)), 1));
}

/** The host's end of a pod's veth pair, the same for ever: `cox` and 12 hexadecimal digits. */
export function hostLinkName(podUid: string): string {
  return `${HOST_LINK_PREFIX}${createHash('sha256').update(podUid).digest('hex').slice(0, 12)}`;
}

/** The prefix that holds this address only. */
export function hostPrefix(address: string): string {
  return `${address}/${address.includes(':') ? 128 : 32}`;
}

const lengthOf = (range: string): number => parsePrefix(range).length;

export class PodLinks {
  readonly #namespace: NetnsRef;
  readonly #routes: RouteSocket;
  #bridge = 0;
  #podCidrs: readonly string[] = [];
  #gateways: readonly string[] = [];
  #mtu = 1500;
  #isolated = true;

  constructor(options: { readonly namespace: NetnsRef; readonly routes: RouteSocket }) {
    this.#namespace = options.namespace;
    this.#routes = options.routes;
  }

  /** Makes the bridge right for the ranges, one of each family. Addresses of earlier ranges go. */
  configure(options: { readonly podCidrs: readonly string[]; readonly mtu: number }): void {
    const routes = this.#routes;
    this.#podCidrs = options.podCidrs;
    this.#gateways = options.podCidrs.map(gatewayOf);
    this.#mtu = options.mtu;
    this.#isolated = !this.#isBridgeFiltered();
    const mac = macOf(this.#gateways[0]!);
    routes.request([{ ...addLink({ kind: 'bridge', name: POD_BRIDGE, mac, mtu: options.mtu }), ignore: ['EEXIST'] }]);
    // Without a link-local address a node sends no IPv6 redirects (there is no sysctl for them), see below.
    ensureSysctls(this.#namespace, { [`ipv6/conf/${POD_BRIDGE}/addr_gen_mode`]: NO_LINK_LOCAL });
    routes.request([setLink({ name: POD_BRIDGE, up: true, mac, mtu: options.mtu })]);
    this.#bridge = routes.linkIndex(POD_BRIDGE);
    const prefixes = options.podCidrs.map((range, at) => `${this.#gateways[at]}/${lengthOf(range)}`);
    const others = routes
      .addresses()
      .filter(address => address.index === this.#bridge && !prefixes.includes(address.prefix));
    routes.request([
      ...prefixes.map(prefix => addAddress({ index: this.#bridge, prefix })),
      ...others.map(address => deleteAddress(address)),
    ]);
    ensureSysctls(this.#namespace, {
      'ipv4/ip_forward': '1',
      ...(options.podCidrs.some(range => range.includes(':')) ? { 'ipv6/conf/all/forwarding': '1' } : {}),
      // A packet between two pods leaves by the link it came in on; telling the pod to send directly would be wrong. The
      // kernel sends redirects when either of the two says so.
      'ipv4/conf/all/send_redirects': '0',
      [`ipv4/conf/${POD_BRIDGE}/send_redirects`]: '0',
      // Binding a UDP reply to the VIP's source needs no reverse path check: traffic of pods may come back by another link.
      [`ipv4/conf/${POD_BRIDGE}/rp_filter`]: '0',
    });
  }

  /** The addresses are of the ranges that `configure` was given, in their order. */
  attach(pod: { readonly uid: string; readonly ips: readonly string[]; readonly netnsPath: string }): void {
    const name = hostLinkName(pod.uid);
    const mac = macOf(pod.ips[0]!);
    const namespace = openNetns(pod.netnsPath);
    try {
      withRoutes(namespace, inside => {
        let eth0 = inside.link(POD_LINK);
        const host = pod.ips.map(address => addNeighbour({ index: this.#bridge, address, mac }));
        if (!eth0 || eth0.mac !== mac || this.#routes.link(name)?.master !== this.#bridge) {
          ensureSysctls(namespace, QUIET_IPV6);
          const peer = { name: POD_LINK, namespace, mtu: this.#mtu, mac };
          inside.request([deleteLink({ name: POD_LINK })]);
          host.unshift(
            deleteLink({ name }),
            addLink({ kind: 'veth', name, up: true, master: this.#bridge, mtu: this.#mtu, peer }),
            setHairpin({ name, on: true }),
            setIsolated({ name, on: this.#isolated }),
          );
        }
        this.#routes.request(host);
        eth0 = inside.link(POD_LINK)!;
        const index = eth0.index;
        const gatewayMac = macOf(this.#gateways[0]!);
        inside.request([
          setLink({ index: 1, up: true }),
          setLink({ index, up: true }),
          ...pod.ips.flatMap((ip, at) => {
            const via = this.#gateways[at]!;
            return [
              addAddress({ index, prefix: `${ip}/${lengthOf(this.#podCidrs[at]!)}`, connectedRoute: false }),
              addNeighbour({ index, address: via, mac: gatewayMac }),
              addRoute({ to: hostPrefix(via), link: index }),
              addRoute({ to: defaultRoute(via), via, link: index }),
            ];
          }),
        ]);
      });
    } finally {
      closeNetns(namespace);
    }
  }

  /** Follows the machine's choice to filter bridged frames, which others (Docker) make at any time. Returns whether it had changed. */
  repair(): boolean {
    const isolated = !this.#isBridgeFiltered();
    if (isolated === this.#isolated) return false;
    const ports = this.#routes.links().filter(({ kind, master }) => kind === 'veth' && master === this.#bridge);
    this.#routes.request(ports.map(({ name }) => setIsolated({ name, on: isolated })));
    this.#isolated = isolated;
    return true;
  }

  // Then the kernel bridges what a Service's address is translated to, from port to port, which isolated ports would drop.
  #isBridgeFiltered(): boolean {
    return BRIDGE_FILTERS.some(key => readOptionalSysctl(this.#namespace, key) === '1');
  }

  /** Needs neither the pod's namespace nor `configure`. Resolves when the link is gone. */
  async detach(pod: { readonly uid: string; readonly ips: readonly string[] }): Promise<void> {
    const name = hostLinkName(pod.uid);
    const bridge = this.#bridge || this.#routes.link(POD_BRIDGE)?.index;
    if (bridge) this.#routes.request(pod.ips.map(address => deleteNeighbour({ index: bridge, address })));
    const link = this.#routes.link(name);
    if (!link) return;
    // By index: should the pod be attached anew meanwhile, its new link has the same name.
    const own = new RouteSocket(this.#namespace);
    try {
      await own.requestDetached(deleteLink({ index: link.index }));
    } finally {
      own.close();
    }
  }

  /** Removes pods' links of no pod in the set. */
  retain(podUids: ReadonlySet<string>): void {
    const bridge = this.#routes.link(POD_BRIDGE)?.index;
    const wanted = new Set([...podUids].map(hostLinkName));
    const stale = this.#routes
      .links()
      .filter(link => link.kind === 'veth' && link.master === bridge && !wanted.has(link.name));
    this.#routes.request(stale.map(({ index }) => deleteLink({ index })));
  }
}
