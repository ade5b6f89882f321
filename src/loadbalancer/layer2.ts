/**
 * Has this node answer for addresses on its links: each lies as a /32 or /128 on the link, so the kernel answers ARP and NDP
 * for it whether this process lives or not, and the segment is told at once where it is now. kube-proxy takes the
 * packets before they reach the node itself; whatever it leaves is refused here, so that an announced address opens nothing of the
 * node. Owns addresses marked with its protocol number and the nftables table `coxswain-loadbalancer`.
 */

import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { LinkSocket } from '../sys/link-socket.ts';
import {
  ADDRESS_PROTOCOL_LOAD_BALANCER,
  type Address,
  addAddress,
  deleteAddress,
  type Link,
  withRoutes,
} from '../sys/netlink.ts';
import { Nftables } from '../sys/nftables.ts';
import { gratuitousFrames } from './gratuitous.ts';

export const LOAD_BALANCER_TABLE = 'coxswain-loadbalancer';

/** After a takeover the segment is told again: a frame may be lost, and switches learn. */
const REPEAT_AFTER_MS = [0, 50, 200, 500, 1000, 2000];

export interface Layer2Options {
  readonly nodeAddress: string;
  readonly namespace?: string;
  readonly log: Logger;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Address → links to announce it on; undefined is the one that has the node's address. */
export type Layer2Addresses = ReadonlyMap<string, readonly string[] | undefined>;

export class Layer2 {
  readonly #options: Layer2Options;
  readonly #nftables: Nftables;
  #guarded: string | undefined;

  constructor(options: Layer2Options) {
    this.#options = options;
    this.#nftables = new Nftables(options.namespace);
  }

  /** Makes the links' addresses these, whatever an earlier process left. Returns those that are new here. */
  apply(wanted: Layer2Addresses): ReadonlySet<string> {
    this.#guard([...wanted.keys()]);
    const { namespace } = this.#options;
    return withRoutes(namespace, routes => {
      const present = routes.addresses();
      const links = routes.links();
      const own = present.filter(({ protocol }) => protocol === ADDRESS_PROTOCOL_LOAD_BALANCER);
      const target = new Map<string, { index: number; prefix: string; address: string; link: Link }>();
      for (const [address, interfaces] of wanted)
        for (const link of this.#linksFor(interfaces, { links, present })) {
          const prefix = `${address}/${address.includes(':') ? 128 : 32}`;
          target.set(`${link.index} ${prefix}`, { index: link.index, prefix, address, link });
        }
      const gone = own.filter(({ index, prefix }) => !target.has(`${index} ${prefix}`));
      const kept = new Set(own.map(({ index, prefix }) => `${index} ${prefix}`));
      const added = [...target].filter(([key]) => !kept.has(key)).map(([, place]) => place);
      routes.request([
        ...gone.map(place => deleteAddress(place)),
        ...added.map(({ index, prefix }) => addAddress({ index, prefix, protocol: ADDRESS_PROTOCOL_LOAD_BALANCER })),
      ]);
      for (const { address, link } of added) void this.#tell(address, link);
      return new Set(added.map(({ address }) => address));
    });
  }

  #linksFor(
    interfaces: readonly string[] | undefined,
    { links, present }: { links: readonly Link[]; present: readonly Address[] },
  ): Link[] {
    if (interfaces) return links.filter(({ name }) => interfaces.includes(name));
    const at = present.find(({ prefix }) => prefix.slice(0, prefix.indexOf('/')) === this.#options.nodeAddress);
    return links.filter(({ index }) => index === at?.index);
  }

  async #tell(address: string, { index, mac, name }: Link): Promise<void> {
    const { namespace, log, clock, signal } = this.#options;
    const socket = new LinkSocket({ index, ...(namespace === undefined ? {} : { namespace }) });
    const startedMs = clock.monotonic();
    try {
      for (const afterMs of REPEAT_AFTER_MS) {
        await clock.sleep(Math.max(0, afterMs - (clock.monotonic() - startedMs)), signal);
        if (signal.aborted || (afterMs > 0 && !this.#isHere(address, index))) return;
        for (const frame of gratuitousFrames(address, mac)) socket.send(frame);
      }
    } catch (error) {
      log.warn('the segment could not be told of an address', { address, link: name, error: messageOf(error) });
    } finally {
      socket.close();
    }
  }

  #isHere(address: string, index: number): boolean {
    return withRoutes(this.#options.namespace, routes =>
      routes.addresses().some(place => place.index === index && place.prefix.startsWith(`${address}/`)),
    );
  }

  #guard(addresses: readonly string[]): void {
    const text = renderGuard(addresses);
    if (text === this.#guarded) return;
    this.#nftables.run(text);
    this.#guarded = text;
  }
}

/** The whole table: what comes to an announced address and is nobody's port is refused, but pings are answered. */
export function renderGuard(addresses: readonly string[]): string {
  const table = `add table inet ${LOAD_BALANCER_TABLE}\ndelete table inet ${LOAD_BALANCER_TABLE}\n`;
  if (addresses.length === 0) return table;
  const set = (name: string, type: string, members: string[]) =>
    `\tset ${name} {\n\t\ttype ${type}\n${members.length > 0 ? `\t\telements = { ${members.sort().join(', ')} }\n` : ''}\t}\n`;
  return `${table}table inet ${LOAD_BALANCER_TABLE} {
\tcomment "addresses of LoadBalancer Services that this node announces"
${set(
  'announced4',
  'ipv4_addr',
  addresses.filter(address => !address.includes(':')),
)}${set(
  'announced6',
  'ipv6_addr',
  addresses.filter(address => address.includes(':')),
)}\tchain input {
\t\ttype filter hook input priority filter; policy accept;
\t\tct state established,related accept comment "answers to the node's own connections, which leave from the address"
\t\tip daddr @announced4 goto unserved
\t\tip6 daddr @announced6 goto unserved
\t}
\tchain unserved {
\t\tmeta l4proto { icmp, icmpv6 } accept
\t\tmeta l4proto tcp reject with tcp reset
\t\treject
\t}
}
`;
}
