/**
 * Every address of a pod belongs to one class; addresses of a class are members of the same groups (peers that some policy
 * of this node speaks of). Invariant: when membership changes, the larger part of a class keeps its number, so that a change
 * of labels moves few addresses and a new policy as few as it can.
 * Addresses in no group have no class; those in blocks only have one when a name of their pod's ports may count. Pure.
 */

import { type Prefix, parsePrefix, tryParseAddress } from '../../sys/address.ts';
import type { NamedPorts } from './decision.ts';
import type { Peer as PeerTerm, PodFacts } from './statement.ts';

/** A pod, as far as peers are concerned. */
export interface Pod extends PodFacts {
  /** `namespace/name` */
  readonly key: string;
  readonly uid: string;
  readonly ips: readonly string[];
  readonly names: NamedPorts;
}

export interface Group {
  readonly number: number;
  readonly peer: PeerTerm;
  readonly members: Set<Peer>;
  readonly classes: Set<PeerClass>;
  uses: number;
}

export interface Peer {
  readonly ip: string;
  readonly pod: Pod;
  readonly groups: Set<Group>;
  class: PeerClass | undefined;
}

export interface PeerClass {
  readonly number: number;
  key: string;
  groups: readonly Group[];
  names: NamedPorts;
  readonly members: Set<Peer>;
}

/** A namespace: its pods, and the groups that take in pods of it by their labels. */
interface Space {
  readonly pods: Set<string>;
  readonly groups: Set<Group>;
}

export interface PeerClassesOptions {
  /** The address is now of this class; undefined for none. */
  readonly assign: (ip: string, number: number | undefined) => void;
  /** Told of every class that has no address any more. */
  readonly gone: (gone: PeerClass) => void;
  readonly labelsOf: (namespace: string) => Readonly<Record<string, string>> | undefined;
}

export class PeerClasses {
  readonly #options: PeerClassesOptions;
  readonly #groups = new Map<string, Group>();
  readonly #classes = new Map<string, PeerClass>();
  readonly #blocks = new Set<Group>();
  readonly #spaces = new Map<string, Space>();
  readonly #peers = new Map<string, Peer[]>();
  /** Who has an address, the latest last: for a moment two pods may seem to. */
  readonly #owners = new Map<string, Peer[]>();
  readonly #namesInUse = new Map<string, number>();
  readonly #moved = new Set<Peer>();
  readonly #touched = new Set<PeerClass>();
  #lastGroup = 0;
  #lastClass = 0;

  constructor(options: PeerClassesOptions) {
    this.#options = options;
  }

  // --- pods ---

  put(pod: Pod): void {
    const old = this.#peers.get(pod.key);
    const same = old && old.length === pod.ips.length && old.every((peer, i) => peer.ip === pod.ips[i]);
    if (!same) this.remove(pod.key);
    const peers = pod.ips.map((ip, i) => {
      const peer: Peer = {
        ip,
        pod,
        groups: same ? old[i]!.groups : new Set(),
        class: same ? old[i]!.class : undefined,
      };
      if (same) {
        const before = old[i]!;
        for (const { members } of before.groups) {
          members.delete(before);
          members.add(peer);
        }
        before.class?.members.delete(before);
        before.class?.members.add(peer);
        this.#moved.delete(before);
        const owners = this.#owners.get(ip)!;
        owners[owners.indexOf(before)] = peer;
      } else {
        const owners = this.#owners.get(ip);
        if (owners) {
          owners.push(peer);
          this.#options.assign(ip, undefined);
        } else this.#owners.set(ip, [peer]);
      }
      return peer;
    });
    this.#peers.set(pod.key, peers);
    const space = this.#space(pod.namespace);
    space.pods.add(pod.key);
    for (const peer of peers) {
      for (const groups of [space.groups, this.#blocks]) for (const group of groups) this.#judge(peer, group);
      this.#moved.add(peer);
    }
  }

  remove(key: string): void {
    for (const peer of this.#peers.get(key) ?? []) {
      for (const group of peer.groups) group.members.delete(peer);
      this.#leave(peer);
      this.#moved.delete(peer);
      const owners = this.#owners.get(peer.ip)!.filter(other => other !== peer);
      if (owners.length) this.#owners.set(peer.ip, owners);
      else this.#owners.delete(peer.ip);
      this.#options.assign(peer.ip, owners.at(-1)?.class?.number);
    }
    const [peer] = this.#peers.get(key) ?? [];
    if (peer) this.#spaces.get(peer.pod.namespace)?.pods.delete(key);
    this.#peers.delete(key);
  }

  /** A namespace's labels have changed. */
  relabel(namespace: string): void {
    const space = this.#spaces.get(namespace);
    if (!space) return;
    for (const group of this.#groups.values()) {
      if (group.peer.kind !== 'pods') continue;
      const is = group.peer.inNamespace(namespace, this.#options.labelsOf(namespace));
      if (is === space.groups.has(group)) continue;
      if (is) space.groups.add(group);
      else space.groups.delete(group);
      this.#judgeSpace(space, group);
    }
  }

  // --- groups and names that policies speak of ---

  useGroup(peer: PeerTerm): Group {
    const key = `${peer.kind} ${peer.key}`;
    let group = this.#groups.get(key);
    if (!group) {
      group = { number: ++this.#lastGroup, peer, members: new Set(), classes: new Set(), uses: 0 };
      this.#groups.set(key, group);
      if (peer.kind === 'block') {
        this.#blocks.add(group);
        for (const peers of this.#peers.values()) for (const one of peers) this.#judge(one, group);
      } else
        for (const [namespace, space] of this.#spaces) {
          if (!peer.inNamespace(namespace, this.#options.labelsOf(namespace))) continue;
          space.groups.add(group);
          this.#judgeSpace(space, group);
        }
    }
    group.uses++;
    return group;
  }
  dropGroup(group: Group): void {
    if (--group.uses > 0) return;
    this.#groups.delete(`${group.peer.kind} ${group.peer.key}`);
    this.#blocks.delete(group);
    for (const { groups } of this.#spaces.values()) groups.delete(group);
    for (const peer of group.members) {
      peer.groups.delete(group);
      this.#moved.add(peer);
    }
  }
  useName(name: string): void {
    this.#namesInUse.set(name, (this.#namesInUse.get(name) ?? 0) + 1);
    if (this.#namesInUse.get(name) === 1) this.#moveNamed(name);
  }
  dropName(name: string): void {
    const uses = this.#namesInUse.get(name)! - 1;
    if (uses > 0) this.#namesInUse.set(name, uses);
    else {
      this.#namesInUse.delete(name);
      this.#moveNamed(name);
    }
  }

  /** Brings every address into its class; returns the classes that are new or mean something new. */
  settle(): PeerClass[] {
    const parts = new Map<PeerClass | undefined, Map<string, Peer[]>>();
    for (const peer of this.#moved) {
      const key = this.#keyOf(peer);
      if (key === (peer.class?.key ?? '')) continue;
      let keys = parts.get(peer.class);
      if (!keys) parts.set(peer.class, (keys = new Map()));
      const part = keys.get(key);
      if (part) part.push(peer);
      else keys.set(key, [peer]);
    }
    this.#moved.clear();
    for (const [from, keys] of parts) {
      if (from) this.#rename(from, keys);
      for (const [key, peers] of keys) for (const peer of peers) this.#join(peer, key);
    }
    const touched = [...this.#touched].filter(one => one.members.size > 0);
    this.#touched.clear();
    return touched;
  }

  // The largest part of a class that splits keeps the class; what stayed behind moves when it is smaller.
  #rename(from: PeerClass, keys: Map<string, Peer[]>): void {
    let stays = from.members.size;
    for (const peers of keys.values()) stays -= peers.length;
    let largest: string | undefined;
    let size = stays;
    for (const [key, peers] of keys)
      if (peers.length > size && key !== '' && !this.#classes.has(key)) [largest, size] = [key, peers.length];
    if (largest === undefined) return;
    const keepers = new Set(keys.get(largest));
    keys.delete(largest);
    const movers = new Set([...keys.values()].flat());
    const behind = [...from.members].filter(peer => !keepers.has(peer) && !movers.has(peer));
    this.#classes.delete(from.key);
    if (behind.length) keys.set(from.key, behind);
    const [first] = keepers;
    this.#define(from, largest, first!);
  }

  #join(peer: Peer, key: string): void {
    this.#leave(peer);
    if (key !== '') {
      let to = this.#classes.get(key);
      if (!to) {
        to = { number: ++this.#lastClass, key, groups: [], names: new Map(), members: new Set() };
        this.#define(to, key, peer);
      }
      to.members.add(peer);
      peer.class = to;
    }
    if (this.#owners.get(peer.ip)?.at(-1) === peer) this.#options.assign(peer.ip, peer.class?.number);
  }

  #leave(peer: Peer): void {
    const from = peer.class;
    if (!from) return;
    from.members.delete(peer);
    peer.class = undefined;
    if (from.members.size > 0) return;
    this.#classes.delete(from.key);
    for (const group of from.groups) group.classes.delete(from);
    this.#options.gone(from);
  }

  #define(one: PeerClass, key: string, example: Peer): void {
    for (const group of one.groups) group.classes.delete(one);
    one.key = key;
    one.groups = [...example.groups].sort((a, b) => a.number - b.number);
    one.names = new Map([...this.#namesInUse.keys()].flatMap(name => this.#nameOf(example, name)));
    for (const group of one.groups) group.classes.add(one);
    this.#classes.set(key, one);
    this.#touched.add(one);
  }

  #nameOf(peer: Peer, name: string): [string, number][] {
    const number = peer.pod.names.get(name);
    return number === undefined ? [] : [[name, number]];
  }

  #keyOf(peer: Peer): string {
    const groups = [...peer.groups].map(({ number }) => number).sort((a, b) => a - b);
    const names = [...this.#namesInUse.keys()].sort().flatMap(name => this.#nameOf(peer, name));
    // The ranges of blocks are looked up for who has no class: they know numbers of ports, no names.
    let needed = names.length > 0 && peer.groups.size > 0;
    for (const group of peer.groups) if (group.peer.kind === 'pods') needed = true;
    if (!needed) return '';
    return names.length ? `${groups.join()} ${names.map(pair => pair.join('=')).join()}` : groups.join();
  }

  #space(namespace: string): Space {
    let space = this.#spaces.get(namespace);
    if (!space) {
      const labels = this.#options.labelsOf(namespace);
      const groups = [...this.#groups.values()].filter(
        ({ peer }) => peer.kind === 'pods' && peer.inNamespace(namespace, labels),
      );
      space = { pods: new Set(), groups: new Set(groups) };
      this.#spaces.set(namespace, space);
    }
    return space;
  }

  #judgeSpace({ pods }: Space, group: Group): void {
    for (const key of pods) for (const peer of this.#peers.get(key)!) this.#judge(peer, group);
  }

  #judge(peer: Peer, group: Group): void {
    const is = belongs(peer, group.peer, this.#options.labelsOf(peer.pod.namespace));
    if (is === peer.groups.has(group)) return;
    if (is) {
      peer.groups.add(group);
      group.members.add(peer);
    } else {
      peer.groups.delete(group);
      group.members.delete(peer);
    }
    this.#moved.add(peer);
  }

  #moveNamed(name: string): void {
    for (const peers of this.#peers.values())
      for (const peer of peers) if (peer.pod.names.has(name)) this.#moved.add(peer);
  }
}

export function belongs(
  { ip, pod }: { readonly ip: string; readonly pod: PodFacts },
  term: PeerTerm,
  namespaceLabels: Readonly<Record<string, string>> | undefined,
): boolean {
  return term.kind === 'pods'
    ? term.inNamespace(pod.namespace, namespaceLabels) && term.pods(pod.labels)
    : blockHas(term, ip);
}

interface ParsedBlock {
  readonly cidr: Prefix;
  readonly except: readonly Prefix[];
}
const parsedBlocks = new WeakMap<object, ParsedBlock>();

export function blockHas(block: { readonly cidr: string; readonly except: readonly string[] }, ip: string): boolean {
  let parsed = parsedBlocks.get(block);
  if (!parsed) {
    parsed = { cidr: parsePrefix(block.cidr), except: block.except.map(parsePrefix) };
    parsedBlocks.set(block, parsed);
  }
  const address = bytesOf(ip);
  return begins(address, parsed.cidr) && !parsed.except.some(prefix => begins(address, prefix));
}

// Thousands of addresses are compared with each new block: they are parsed once.
const parsedAddresses = new Map<string, Buffer>();
const PARSED_MAX = 100_000;

function bytesOf(ip: string): Buffer {
  let bytes = parsedAddresses.get(ip);
  if (!bytes) {
    if (parsedAddresses.size >= PARSED_MAX) parsedAddresses.clear();
    bytes = tryParseAddress(ip) ?? Buffer.alloc(0);
    parsedAddresses.set(ip, bytes);
  }
  return bytes;
}

function begins(bytes: Buffer, { address, length }: Prefix): boolean {
  if (bytes.length !== address.length) return false;
  const whole = length >> 3;
  for (let i = 0; i < whole; i++) if (bytes[i] !== address[i]) return false;
  const rest = length & 7;
  return rest === 0 || ((bytes[whole]! ^ address[whole]!) & (0xff00 >> rest) & 0xff) === 0;
}
