/**
 * The pods of one node and the bridge that joins them: `cox0` with the range's first address, a veth pair a pod, `eth0`
 * inside with its address, gateway and neighbour.
 * Invariant: every packet of a pod, to a neighbour pod too, passes the node's IP layer, because the pod has no route to its
 * range but through the gateway. So Services, masquerade and policies see all traffic, whether or not the kernel filters
 * bridged frames. All calls are idempotent; it refuses to choose addresses.
 */

import { createHash } from 'node:crypto';
import { addressAfter, formatAddress, networkOf, parsePrefix } from '../sys/address.ts';
import {
  addAddress,
  addLink,
  addNeighbour,
  addRoute,
  deleteAddress,
  deleteLink,
  deleteNeighbour,
  RouteSocket,
  setHairpin,
  setLink,
  withRoutes,
} from '../sys/netlink.ts';
import { closeNetns, type NetnsRef, openNetns } from '../sys/netns.ts';
import { ensureSysctls } from '../sys/sysctl.ts';
import { macOf } from './mac.ts';

export const POD_BRIDGE = 'cox0';
const POD_LINK = 'eth0';
const HOST_LINK_PREFIX = 'cox';

/** The node's first pod address: the pods' gateway. */
export function gatewayOf(podCidr: string): string {
  return formatAddress(addressAfter(networkOf(parsePrefix(podCidr)), 1));
}

/** The host's end of a pod's veth pair, the same for ever: `cox` and 12 hexadecimal digits. */
export function hostLinkName(podUid: string): string {
  return `${HOST_LINK_PREFIX}${createHash('sha256').update(podUid).digest('hex').slice(0, 12)}`;
}

export class PodLinks {
  readonly #namespace: NetnsRef;
  readonly #routes: RouteSocket;
  #bridge = 0;
  #gateway = '';
  #prefixLength = 24;
  #mtu = 1500;

  constructor(options: { readonly namespace: NetnsRef; readonly routes: RouteSocket }) {
    this.#namespace = options.namespace;
    this.#routes = options.routes;
  }

  /** Makes the bridge right for the range. An address of an earlier range goes. */
  configure(options: { readonly podCidr: string; readonly mtu: number }): void {
    const routes = this.#routes;
    this.#gateway = gatewayOf(options.podCidr);
    this.#prefixLength = parsePrefix(options.podCidr).length;
    this.#mtu = options.mtu;
    const mac = macOf(this.#gateway);
    routes.request([
      { ...addLink({ kind: 'bridge', name: POD_BRIDGE, mac, mtu: options.mtu }), ignore: ['EEXIST'] },
      setLink({ name: POD_BRIDGE, up: true, mac, mtu: options.mtu }),
    ]);
    this.#bridge = routes.linkIndex(POD_BRIDGE);
    const prefix = `${this.#gateway}/${this.#prefixLength}`;
    const others = routes
      .addresses()
      .filter(address => address.index === this.#bridge && !address.prefix.includes(':') && address.prefix !== prefix);
    routes.request([addAddress({ index: this.#bridge, prefix }), ...others.map(address => deleteAddress(address))]);
    ensureSysctls(this.#namespace, {
      'ipv4/ip_forward': '1',
      // A packet between two pods leaves by the link it came in on; telling the pod to send directly would be wrong. The
      // kernel sends redirects when either of the two says so.
      'ipv4/conf/all/send_redirects': '0',
      [`ipv4/conf/${POD_BRIDGE}/send_redirects`]: '0',
      // Binding a UDP reply to the VIP's source needs no reverse path check: traffic of pods may come back by another link.
      [`ipv4/conf/${POD_BRIDGE}/rp_filter`]: '0',
    });
  }

  attach(pod: { readonly uid: string; readonly ip: string; readonly netnsPath: string }): void {
    const name = hostLinkName(pod.uid);
    const mac = macOf(pod.ip);
    const namespace = openNetns(pod.netnsPath);
    try {
      withRoutes(namespace, inside => {
        let eth0 = inside.link(POD_LINK);
        const host = [addNeighbour({ index: this.#bridge, address: pod.ip, mac })];
        if (!eth0 || eth0.mac !== mac || this.#routes.link(name)?.master !== this.#bridge) {
          const peer = { name: POD_LINK, namespace, mtu: this.#mtu, mac };
          inside.request([deleteLink({ name: POD_LINK })]);
          host.unshift(
            deleteLink({ name }),
            addLink({ kind: 'veth', name, up: true, master: this.#bridge, mtu: this.#mtu, peer }),
            setHairpin({ name, on: true }),
          );
        }
        this.#routes.request(host);
        eth0 = inside.link(POD_LINK)!;
        const index = eth0.index;
        inside.request([
          setLink({ index: 1, up: true }),
          setLink({ index, up: true }),
          addAddress({ index, prefix: `${pod.ip}/${this.#prefixLength}`, connectedRoute: false }),
          addNeighbour({ index, address: this.#gateway, mac: macOf(this.#gateway) }),
          addRoute({ to: `${this.#gateway}/32`, link: index }),
          addRoute({ to: 'default', via: this.#gateway, link: index }),
        ]);
      });
    } finally {
      closeNetns(namespace);
    }
  }

  /** Needs neither the pod's namespace nor `configure`. Resolves when the link is gone. */
  async detach(pod: { readonly uid: string; readonly ip: string | undefined }): Promise<void> {
    const name = hostLinkName(pod.uid);
    const bridge = this.#bridge || this.#routes.link(POD_BRIDGE)?.index;
    if (pod.ip && bridge) this.#routes.request([deleteNeighbour({ index: bridge, address: pod.ip })]);
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
