/**
 * Ports of the node that lead to pods (`hostPort`): one lookup in a map for each connection to an address of the node, in
 * both families; at the node's own 127.0.0.1 a relay (`relay-process.ts`), because rewriting would take `route_localnet`.
 * Owns the nftables tables `coxswain-host-ports`, which are there only while a pod has such a port, and touches no other.
 * Changes are elements only: no port is ever closed because another opens. Connections under way keep their pod, UDP flows
 * to a pod that is gone are forgotten. Somebody else's changes to the tables are undone at once.
 */

import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { formatAddress, parseAddress, tryParseAddress } from '../sys/address.ts';
import type { NetnsRef } from '../sys/netns.ts';
import { type Element, NFPROTO_IPV4, NFPROTO_IPV6, Nfnetlink, type TableRef } from '../sys/nfnetlink.ts';
import { isIn, loadPayload, loadProtocol, lookUp, rewriteDestination } from '../sys/nft-expressions.ts';
import { NftMonitor } from '../sys/nft-monitor.ts';
import { Nftables } from '../sys/nftables.ts';
import type { RelayDoor } from './relay-door.ts';
import type { RelayEntry } from './relay-process.ts';

const TABLE = 'coxswain-host-ports';
const SETS = ['any', 'bound', 'itself', 'node'] as const;
const PROTOCOLS = { TCP: 6, UDP: 17, SCTP: 132 } as const;
const FAMILIES = [
  { family: NFPROTO_IPV4, word: 'ip', type: 'ipv4_addr', bytes: 4, destinationAt: 16 },
  { family: NFPROTO_IPV6, word: 'ip6', type: 'ipv6_addr', bytes: 16, destinationAt: 24 },
] as const;
type Family = (typeof FAMILIES)[number];

export interface HostPort {
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly hostPort: number;
  /** One address of the node; all of them when absent. */
  readonly hostIp?: string;
  readonly podIp: string;
  readonly port: number;
}

export class HostPorts {
  readonly #log: Logger;
  readonly #raw: Nfnetlink;
  readonly #text: Nftables;
  readonly #monitor: NftMonitor;
  readonly #relay: RelayDoor;
  readonly #present = new Map<Family, Map<string, Element>>();
  #wanted: { readonly ports: readonly HostPort[]; readonly nodeIps: readonly string[] } = { ports: [], nodeIps: [] };

  constructor(options: { readonly namespace?: NetnsRef; readonly relay: RelayDoor; readonly log: Logger }) {
    const at = options.namespace === undefined ? {} : { namespace: options.namespace };
    this.#log = options.log.with({ part: 'host-ports' });
    this.#raw = new Nfnetlink(options.namespace);
    this.#text = new Nftables(options.namespace);
    this.#relay = options.relay;
    this.#monitor = new NftMonitor({
      ...at,
      tables: FAMILIES.map(refOf),
      ownPort: this.#raw.portId(),
      onChange: () => this.#repair(),
    });
  }

  /** Replaces all that was given before. Of two claims to one port the first wins. `nodeIps`: where ports without an address answer. */
  apply(ports: readonly HostPort[], nodeIps: readonly string[]): void {
    this.#wanted = { ports, nodeIps };
    for (const family of FAMILIES) this.#program(family);
    this.#relay.apply(atLoopback(ports));
  }

  close(): void {
    this.#monitor.close();
    this.#raw.close();
    this.#relay.close();
  }

  #repair(): void {
    if (!this.#monitor.takeTouched() || (this.#present.size === 0 && this.#wanted.ports.length === 0)) return;
    this.#log.warn('host port rules were changed by somebody else, made anew');
    this.#present.clear();
    try {
      for (const family of FAMILIES) this.#program(family);
    } catch (error) {
      this.#log.warn('host port rules not made anew', { error: messageOf(error) });
    }
  }

  #program(family: Family): void {
    const ref = refOf(family);
    const wanted = elementsOf(this.#wanted.ports, this.#wanted.nodeIps, family);
    if (wanted.size === 0) {
      // Also what a former agent left.
      if (this.#present.get(family)?.size !== 0)
        this.#monitor.own(() =>
          this.#text.run(`add table ${family.word} ${TABLE}\ndelete table ${family.word} ${TABLE}`),
        );
      this.#present.set(family, new Map());
      return;
    }
    let present = this.#present.get(family);
    if (!present?.size) {
      this.#monitor.own(() => this.#text.run(renderTable(family)));
      this.#raw.setChains(ref, [{ name: 'choose', rules: choice(family) }]);
      present = new Map(SETS.flatMap(set => this.#raw.elements(ref, set)).map(element => [keyOf(element), element]));
    }
    const changed = (element: Element, other: Element | undefined) => !other || !sameData(element, other);
    const remove = [...present]
      .filter(([key, element]) => changed(element, wanted.get(key)))
      .map(([, element]) => element);
    const add = [...wanted]
      .filter(([key, element]) => changed(element, present.get(key)))
      .map(([, element]) => element);
    this.#present.delete(family);
    this.#raw.change(ref, { remove, add });
    this.#present.set(family, wanted);
    this.#forgetFlows(family, { wanted, removed: new Set(remove.map(keyOf)) });
  }

  // UDP flows live as long as packets come, whoever has the port now.
  #forgetFlows(
    { family, bytes }: Family,
    change: { readonly wanted: ReadonlyMap<string, Element>; readonly removed: ReadonlySet<string> },
  ): void {
    const { wanted, removed } = change;
    if (removed.size === 0) return;
    const stale = this.#raw.conntrack({ family, protocol: PROTOCOLS.UDP }).filter(flow => {
      const port = portKey('UDP', flow.destinationPort);
      const bound = `bound ${Buffer.concat([flow.destination, port]).toString('latin1')}`;
      const any = `any ${port.toString('latin1')}`;
      if (!removed.has(bound) && !(removed.has(any) && this.#wanted.nodeIps.includes(formatAddress(flow.destination))))
        return false;
      const owner = wanted.get(bound) ?? wanted.get(any);
      if (!owner) return true;
      const target = Buffer.from(owner.data as Uint8Array);
      return !target.subarray(0, bytes).equals(flow.replySource) || target.readUInt16BE(bytes) !== flow.replySourcePort;
    });
    if (stale.length > 0) this.#raw.deleteConntrack(family, stale);
  }
}

/** Of two claims to one port the first wins. SCTP and pods without IPv4 are not served there. */
function atLoopback(ports: readonly HostPort[]): RelayEntry[] {
  const found = new Map<string, RelayEntry>();
  for (const { protocol, hostPort, hostIp, podIp, port } of ports) {
    const isHere = !hostIp || hostIp === '0.0.0.0' || hostIp === '127.0.0.1';
    const key = `${protocol}/${hostPort}`;
    if (isHere && protocol !== 'SCTP' && !podIp.includes(':') && !found.has(key))
      found.set(key, { protocol, port: hostPort, targets: [{ address: podIp, port }] });
  }
  return [...found.values()];
}

const refOf = ({ family }: Family): TableRef => ({ family, table: TABLE });
const keyOf = ({ set, key }: Element) => `${set} ${Buffer.from(key).toString('latin1')}`;

function sameData(a: Element, b: Element): boolean {
  return a.data === b.data || Buffer.from(a.data as Uint8Array).equals(b.data as Uint8Array);
}

function elementsOf(ports: readonly HostPort[], nodeIps: readonly string[], { bytes }: Family): Map<string, Element> {
  const out = new Map<string, Element>();
  const put = (element: Element) => {
    const key = keyOf(element);
    if (!out.has(key)) out.set(key, element);
  };
  for (const { protocol, hostPort, hostIp, podIp, port } of ports) {
    const pod = parseAddress(podIp);
    const host = isEverywhere(hostIp) ? undefined : tryParseAddress(hostIp!);
    // A port bound to an address is of that family only.
    if (pod.length !== bytes || (host && host.length !== bytes) || (!host && !isEverywhere(hostIp, bytes))) continue;
    const data = Buffer.concat([pod, port16(port)]);
    const at = portKey(protocol, hostPort);
    put(host ? { set: 'bound', key: Buffer.concat([host, at]), data } : { set: 'any', key: at, data });
    put({ set: 'itself', key: Buffer.concat([pod, pod]), data: undefined });
  }
  if (out.size > 0)
    for (const ip of nodeIps) {
      const key = parseAddress(ip);
      if (key.length === bytes) put({ set: 'node', key, data: undefined });
    }
  return out;
}

function isEverywhere(hostIp: string | undefined, bytes?: number): boolean {
  if (!hostIp) return true;
  if (bytes === undefined) return hostIp === '0.0.0.0' || hostIp === '::';
  return hostIp === (bytes === 4 ? '0.0.0.0' : '::');
}

// Padded to four bytes, as every component of a concatenation.
function port16(port: number): Buffer {
  return Buffer.from([port >> 8, port & 255, 0, 0]);
}

function portKey(protocol: HostPort['protocol'], port: number): Buffer {
  return Buffer.concat([Buffer.from([PROTOCOLS[protocol], 0, 0, 0]), port16(port)]);
}

function renderTable({ word, type }: Family): string {
  const t = `${word} ${TABLE}`;
  const port = 'inet_proto . inet_service';
  const base: [name: string, hook: string, rule: string][] = [
    ['prerouting', 'type nat hook prerouting priority dstnat; policy accept;', 'jump choose'],
    ['output', 'type nat hook output priority -100; policy accept;', 'jump choose'],
    [
      'postrouting',
      'type nat hook postrouting priority srcnat; policy accept;',
      `ct status dnat ${word} saddr . ${word} daddr @itself masquerade`,
    ],
  ];
  return [
    `add table ${t} { comment "host ports of pods, by Coxswain"; }`,
    `add set ${t} node { type ${type}; }`,
    `add set ${t} itself { type ${type} . ${type}; }`,
    `add map ${t} any { type ${port} : ${type} . inet_service; }`,
    `add map ${t} bound { type ${type} . ${port} : ${type} . inet_service; }`,
    `add chain ${t} choose`,
    ...base.flatMap(([name, hook]) => [`add chain ${t} ${name} { ${hook} }`, `flush chain ${t} ${name}`]),
    ...base.map(([name, , rule]) => `add rule ${t} ${name} ${rule}`),
  ].join('\n');
}

// As expressions: libnftables 1.0.6 takes maps of such types for ones of TCP only.
function choice({ bytes, destinationAt }: Family) {
  const words = bytes / 4;
  const address = loadPayload({ to: 0, base: 'network', offset: destinationAt, bytes });
  const port = (to: number) => [loadProtocol(to), loadPayload({ to: to + 1, base: 'transport', offset: 2, bytes: 2 })];
  const rewrite = (map: string) => [
    lookUp({ map, from: 0, to: 0 }),
    rewriteDestination({ family: bytes === 4 ? NFPROTO_IPV4 : NFPROTO_IPV6, address: 0, port: words }),
  ];
  return [
    [address, isIn({ set: 'node', from: 0 }), ...port(words), ...rewrite('bound')],
    [address, isIn({ set: 'node', from: 0 }), ...port(0), ...rewrite('any')],
  ];
}
