/**
 * Who connects to a pod that is gone is told at once, until another pod has its address: a rolling update overtakes requests on their
 * way, and each would wait for seconds, the node asking for a neighbour that nobody is. The node itself finds an unreachable route;
 * others are refused by TCP, because the kernel says by ICMP a few times a second only that there is no way, and not all believe it.
 * Owns the routes of its protocol and the nftables table `coxswain-gone-pods`; the routes are the record that the table follows.
 */

import { parseAddress, parsePrefix, prefixContains } from '../sys/address.ts';
import { SystemError } from '../sys/libc.ts';
import {
  addRoute,
  deleteRoute,
  ROUTE_PROTOCOL_GONE_PODS,
  type RouteSettings,
  type RouteSocket,
} from '../sys/netlink.ts';
import { type Element, NFPROTO_INET, type Nfnetlink } from '../sys/nfnetlink.ts';
import { type NftablesDoor, NftablesError } from '../sys/nftables.ts';
import { hostPrefix } from './pod-links.ts';

const TABLE = 'coxswain-gone-pods';
const REF = { family: NFPROTO_INET, table: TABLE };
const GONE = { type: 'unreachable', protocol: ROUTE_PROTOCOL_GONE_PODS } as const satisfies Partial<RouteSettings>;

// Idempotent; what is in the sets stays.
const TEXT = `add table inet ${TABLE} { comment "pod network of Coxswain"; }
add set inet ${TABLE} ipv4 { type ipv4_addr; }
add set inet ${TABLE} ipv6 { type ipv6_addr; }
add chain inet ${TABLE} prerouting { type filter hook prerouting priority filter; policy accept; }
flush chain inet ${TABLE} prerouting
add rule inet ${TABLE} prerouting ip daddr @ipv4 meta l4proto tcp reject with tcp reset
add rule inet ${TABLE} prerouting ip6 daddr @ipv6 meta l4proto tcp reject with tcp reset
`;

/** The oldest are forgotten beyond this: nobody asks for them any more, and ranges of IPv6 are never through. */
const KEPT_MAX = 1000;

const routeTo = (ip: string): RouteSettings => ({ to: hostPrefix(ip), ...GONE });
const elementOf = (ip: string): Element => ({
  set: ip.includes(':') ? 'ipv6' : 'ipv4',
  key: parseAddress(ip),
  data: undefined,
});

export class GonePods {
  readonly #routes: RouteSocket;
  readonly #raw: Nfnetlink;
  readonly #nftables: NftablesDoor;
  /** Oldest first. */
  #known = new Set<string>();

  constructor(options: { readonly routes: RouteSocket; readonly raw: Nfnetlink; readonly nftables: NftablesDoor }) {
    this.#routes = options.routes;
    this.#raw = options.raw;
    this.#nftables = options.nftables;
  }

  /** Makes the table as the routes are; those to addresses outside the node's ranges, which may be another node's now, go. */
  configure(podCidrs: readonly string[]): void {
    const ranges = podCidrs.map(parsePrefix);
    const known = this.#routes.routes({ protocol: ROUTE_PROTOCOL_GONE_PODS }).map(({ to }) => to.split('/')[0]!);
    const own = known.filter(ip => ranges.some(range => prefixContains(range, parseAddress(ip))));
    this.#routes.request(known.filter(ip => !own.includes(ip)).map(ip => deleteRoute(routeTo(ip))));
    this.#known = new Set(own);
    try {
      this.#nftables.run(TEXT);
    } catch (error) {
      // A kernel that cannot refuse before it has a route: others are told by ICMP.
      if (error instanceof NftablesError) return;
      throw error;
    }
    const present = ['ipv4', 'ipv6'].flatMap(set => this.#raw.elements(REF, set));
    const text = ({ key }: Element) => Buffer.from(key).toString('hex');
    const wanted = new Map(own.map(elementOf).map(element => [text(element), element]));
    const have = new Set(present.map(text));
    this.#raw.change(REF, {
      remove: present.filter(element => !wanted.has(text(element))),
      add: [...wanted].filter(([key]) => !have.has(key)).map(([, element]) => element),
    });
  }

  /** Before their link goes. */
  add(ips: readonly string[]): void {
    this.#routes.request(ips.map(ip => addRoute(routeTo(ip))));
    try {
      this.#raw.change(REF, { remove: [], add: ips.map(elementOf) });
    } catch (error) {
      // It cannot be there, or somebody else has taken it away.
      if (!isMissing(error)) throw error;
    }
    for (const ip of ips) this.#known.add(ip);
    while (this.#known.size > KEPT_MAX) this.remove([this.#known.values().next().value!]);
  }
  /** Before a pod gets them. */
  remove(ips: readonly string[]): void {
    this.#routes.request(ips.map(ip => deleteRoute(routeTo(ip))));
    for (const ip of ips) {
      this.#known.delete(ip);
      try {
        this.#raw.change(REF, { remove: [elementOf(ip)], add: [] });
      } catch (error) {
        if (!isMissing(error)) throw error;
      }
    }
  }
}

const isMissing = (error: unknown): boolean => error instanceof SystemError && error.code === 'ENOENT';
