/**
 * Policies, namespaces and pods in; the table that the kernel needs for the pods of one node out (`policy-table.ts`). Pure
 * and incremental: `settle` does work in proportion to what has changed.
 * Pods of this node that are under the same policies share a profile, one for each direction; addresses that the same peers
 * take in share a class (`peer-classes.ts`). For each profile and class there is one list of allowed ports, computed from
 * all policies at once: however many there are, a packet costs the same few lookups.
 */

import { holds, portsByRange, type Ranges } from './address-blocks.ts';
import { decide, type NamedPorts, NO_NAMES, nameKeys, type Ranked } from './decision.ts';
import { type Group, type PeerClass, PeerClasses, type Pod } from './peer-classes.ts';
import { keyOf, type MapName, PolicyTable, PortLists } from './policy-table.ts';
import { ALL_PORTS, type PortSet, rectanglesOf } from './port-set.ts';
import { newProfile, type Profile } from './profile.ts';
import {
  type BlockPeer,
  blockPeer,
  DIRECTIONS,
  type Direction,
  EVERY_POD,
  type Policy,
  type Statement,
} from './statement.ts';

type NamespaceLabels = Readonly<Record<string, string>> | undefined;

interface LocalPod {
  readonly pod: Pod;
  readonly policies: Map<string, Policy>;
  readonly profiles: Record<Direction, Profile | undefined>;
}

/** An address by which another node's own traffic comes to pods here, and the node's address of the same family. */
export interface NodeAlias {
  readonly alias: string;
  readonly ip: string;
}

const NO_RANGES: Ranges = new Map();
const TIER_ORDER = { admin: 0, namespace: 1, baseline: 2 } as const;

export class PolicyModel {
  readonly table = new PolicyTable();
  readonly #lists = new PortLists(this.table, renderPorts);
  readonly #classes: PeerClasses;
  readonly #namespaces = new Map<string, NamespaceLabels>();
  readonly #policies = new Map<string, Policy>();
  readonly #pods = new Map<string, Pod>();
  readonly #local = new Map<string, LocalPod>();
  readonly #profiles = new Map<string, Profile>();
  readonly #dirtyPolicies = new Set<string>();
  readonly #dirtyLocal = new Set<string>();
  readonly #dirtyProfiles = new Set<Profile>();
  #podBlocks: readonly BlockPeer[] = [];
  #nodeAliases: readonly NodeAlias[] = [];

  constructor() {
    this.#classes = new PeerClasses({
      assign: (ip, number) => this.table.set('peers', ip, number),
      labelsOf: namespace => this.#namespaces.get(namespace),
      gone: ({ number }) => {
        for (const profile of this.#profiles.values()) this.#allow(profile, number, undefined);
      },
    });
  }

  /** Adds a policy, or replaces the one of its id. */
  setPolicy(policy: Policy): void {
    this.#policies.set(policy.id, policy);
    this.#dirtyPolicies.add(policy.id);
  }
  removePolicy(id: string): void {
    if (this.#policies.delete(id)) this.#dirtyPolicies.add(id);
  }
  policies(): ReadonlyMap<string, Policy> {
    return this.#policies;
  }

  /** Addresses that pods have, on whatever node, but not the nodes themselves. Idempotent. */
  setPodBlocks(blocks: readonly BlockPeer[]): void {
    if (blocks.map(({ key }) => key).join() === this.#podBlocks.map(({ key }) => key).join()) return;
    this.#podBlocks = blocks;
    for (const profile of this.#profiles.values()) this.#dirtyProfiles.add(profile);
  }

  /** Blocks of senders take an alias in if they take the node's address in. Idempotent. */
  setNodeAliases(aliases: readonly NodeAlias[]): void {
    if (JSON.stringify(aliases) === JSON.stringify(this.#nodeAliases)) return;
    this.#nodeAliases = aliases;
    for (const profile of this.#profiles.values())
      if (profile.direction === 'ingress') this.#dirtyProfiles.add(profile);
  }

  /** `labels` undefined: the namespace is gone. */
  setNamespace(name: string, labels: NamespaceLabels): void {
    if (labels) this.#namespaces.set(name, labels);
    else this.#namespaces.delete(name);
    this.#classes.relabel(name);
    for (const { pod } of this.#local.values()) if (pod.namespace === name) this.#dirtyLocal.add(pod.key);
  }

  /** A pod that runs and has addresses of its own. `local`: on this node. */
  setPod(pod: Pod, options: { readonly local: boolean }): void {
    const former = this.#local.get(pod.key);
    if (former && (!options.local || former.pod.ips.join() !== pod.ips.join())) this.#leaveNode(former);
    this.#pods.set(pod.key, pod);
    this.#classes.put(pod);
    if (!options.local) return;
    const { policies, profiles } = this.#local.get(pod.key) ?? {
      policies: new Map<string, Policy>(),
      profiles: { ingress: undefined, egress: undefined },
    };
    this.#local.set(pod.key, { pod, policies, profiles });
    this.#dirtyLocal.add(pod.key);
  }
  removePod(key: string): void {
    const local = this.#local.get(key);
    if (local) this.#leaveNode(local);
    this.#pods.delete(key);
    this.#classes.remove(key);
  }
  pod(key: string): Pod | undefined {
    return this.#pods.get(key);
  }

  /** Whether any pod of this node is under a policy, as of the last `settle`. */
  isolates(): boolean {
    for (const { members, policies } of this.#profiles.values())
      if (members.size > 0 && policies.length > 0) return true;
    return false;
  }

  /** Makes the table right for all that was told since. */
  settle(): void {
    this.#selectPolicies();
    for (const key of this.#dirtyLocal) {
      const local = this.#local.get(key);
      if (local) for (const direction of DIRECTIONS) this.#chooseProfile(local, direction);
    }
    this.#dirtyLocal.clear();
    for (const profile of this.#profiles.values()) if (profile.members.size === 0) this.#dropProfile(profile);
    for (const profile of this.#dirtyProfiles) this.#readStatements(profile);
    const classes = this.#classes.settle();
    for (const profile of this.#dirtyProfiles) this.#decideAll(profile);
    for (const profile of this.#profiles.values())
      if (!this.#dirtyProfiles.has(profile))
        for (const one of classes)
          if (profile.byClass.has(one.number) || one.groups.some(group => profile.groups.has(group)))
            this.#decideOne(profile, one);
    this.#dirtyProfiles.clear();
  }

  // --- which policies a pod of this node is under ---

  #selectPolicies(): void {
    for (const id of this.#dirtyPolicies) {
      const policy = this.#policies.get(id);
      for (const local of this.#local.values()) {
        const was = local.policies.has(id);
        const is = policy !== undefined && this.#selects(policy, local.pod);
        if (!was && !is) continue;
        if (is) local.policies.set(id, policy);
        else local.policies.delete(id);
        this.#dirtyLocal.add(local.pod.key);
      }
      for (const profile of this.#profiles.values())
        if (profile.policies.includes(id)) this.#dirtyProfiles.add(profile);
    }
    this.#dirtyPolicies.clear();
    for (const key of this.#dirtyLocal) {
      const local = this.#local.get(key);
      if (!local) continue;
      local.policies.clear();
      for (const policy of this.#policies.values())
        if (this.#selects(policy, local.pod)) local.policies.set(policy.id, policy);
    }
  }

  #selects(policy: Policy, pod: Pod): boolean {
    if (policy.namespace !== undefined && policy.namespace !== pod.namespace) return false;
    return policy.selects(pod, this.#namespaces.get(pod.namespace));
  }

  #chooseProfile(local: LocalPod, direction: Direction): void {
    const policies = [...local.policies.values()].filter(({ statements }) => statements[direction]);
    // The numbers of named ports are the receiver's: on the way in, those of this very pod.
    const names =
      direction === 'ingress'
        ? new Map([...namesOf(policies, direction)].flatMap(name => numberOf(name, local.pod.names)))
        : NO_NAMES;
    const ids = policies.map(({ id }) => id).sort();
    const key = [
      direction,
      [...names]
        .map(pair => pair.join('='))
        .sort()
        .join(),
      ...ids,
    ].join('\n');
    const former = local.profiles[direction];
    let profile = this.#profiles.get(key);
    if (!profile && former && former.members.size === local.pod.ips.length) {
      // Nobody else is in it: it changes with its pod, and most of what it allows may stay.
      this.#profiles.delete(former.key);
      Object.assign(former, { key, policies: ids, names });
      profile = former;
      this.#profiles.set(key, profile);
      this.#dirtyProfiles.add(profile);
    } else if (!profile) {
      profile = newProfile({ key, direction, policies: ids, names });
      this.#profiles.set(key, profile);
      this.#dirtyProfiles.add(profile);
    }
    if (former === profile) return;
    if (former) for (const ip of local.pod.ips) this.#leave(former, ip);
    local.profiles[direction] = profile;
    for (const ip of local.pod.ips) {
      this.#join(profile, ip);
      this.table.set('selves', ip, 1);
    }
  }

  #leaveNode(local: LocalPod): void {
    for (const direction of DIRECTIONS) {
      const profile = local.profiles[direction];
      if (profile) for (const ip of local.pod.ips) this.#leave(profile, ip);
    }
    for (const ip of local.pod.ips) this.table.set('selves', ip, undefined);
    this.#local.delete(local.pod.key);
  }

  // --- what a profile allows ---

  #readStatements(profile: Profile): void {
    const { direction } = profile;
    const policies = profile.policies.flatMap(id => this.#policies.get(id) ?? []);
    policies.sort(
      (a, b) => TIER_ORDER[a.tier] - TIER_ORDER[b.tier] || a.priority - b.priority || (a.id < b.id ? -1 : 1),
    );
    const statements = policies.flatMap(({ tier, statements }) =>
      (statements[direction] ?? []).map(statement => ({ tier, statement })),
    );
    const groups = new Map<Group, number[]>();
    const blocks: { block: BlockPeer; at: number }[] = [];
    const everyone: number[] = [];
    const perhaps: number[] = [];
    statements.forEach(({ statement }, at) => {
      if (statement.peers === 'all') everyone.push(at);
      else {
        const isKnown =
          statement.peers.every(({ kind }) => kind !== 'pods') && !namesPortsOfPeers(statement, direction);
        if (statement.action !== 'allow' && !isKnown) perhaps.push(at);
        for (const peer of statement.peers) {
          const group = this.#classes.useGroup(peer);
          const known = groups.get(group);
          if (known) {
            known.push(at);
            this.#classes.dropGroup(group);
          } else groups.set(group, [at]);
          if (peer.kind === 'block') blocks.push({ block: peer, at });
        }
      }
    });
    if (perhaps.length > 0) {
      // Every pod that is known gets a list of its own: without one its address counts as that of a pod still unknown.
      const known = this.#classes.useGroup(EVERY_POD);
      if (groups.has(known)) this.#classes.dropGroup(known);
      else groups.set(known, []);
    }
    const namesUsed = direction === 'egress' ? [...namesOf(policies, direction)] : [];
    for (const name of namesUsed) this.#classes.useName(name);
    this.#letGo(profile);
    profile.isolated = policies.some(({ tier }) => tier === 'namespace');
    profile.statements = statements;
    profile.memo.clear();
    profile.groups = groups;
    profile.everyone = everyone;
    profile.blocks = blocks;
    profile.perhaps = perhaps;
    profile.namesUsed = namesUsed;
  }

  #letGo(profile: Profile): void {
    for (const group of profile.groups.keys()) this.#classes.dropGroup(group);
    for (const name of profile.namesUsed) this.#classes.dropName(name);
  }

  #dropProfile(profile: Profile): void {
    this.#letGo(profile);
    this.#profiles.delete(profile.key);
    this.#dirtyProfiles.delete(profile);
  }

  #decideAll(profile: Profile): void {
    profile.fallback = this.#decide(profile, profile.everyone, NO_NAMES);
    for (const ip of profile.members) this.#setList(`${profile.direction}-default`, ip, profile.fallback);
    const classes = new Set([...profile.groups.keys()].flatMap(({ classes }) => [...classes]));
    const known = new Set([...classes].map(({ number }) => number));
    for (const number of [...profile.byClass.keys()]) if (!known.has(number)) this.#allow(profile, number, undefined);
    for (const one of classes) this.#decideOne(profile, one);
    this.#decideBlocks(profile);
    if (profile.direction === 'egress') this.#decideNode(profile);
  }

  #decideOne(profile: Profile, one: PeerClass): void {
    const names = profile.namesUsed.length > 0 ? one.names : NO_NAMES;
    let signature = names.size > 0 ? [...names].join() : '';
    for (const group of one.groups) if (profile.groups.has(group)) signature += ` ${group.number}`;
    let ports = profile.memo.get(signature);
    if (!ports) {
      const matching = new Set(profile.everyone);
      for (const group of one.groups) for (const at of profile.groups.get(group) ?? []) matching.add(at);
      ports = this.#decide(profile, inOrder([...matching]), names);
      profile.memo.set(signature, ports);
    }
    // Who has no list of its class is looked up in blocks, which know nothing of labels.
    const inBlock = one.groups.some(group => group.peer.kind === 'block' && profile.groups.has(group));
    const needsOwn = inBlock || profile.perhaps.length > 0;
    this.#allow(profile, one.number, !needsOwn && keyOf(ports) === keyOf(profile.fallback) ? undefined : ports);
  }

  #decideBlocks(profile: Profile): void {
    const blocks = [
      ...profile.blocks.flatMap(({ block, at }) =>
        (profile.direction === 'ingress' ? this.#withAliases(block) : [block]).map(block => ({
          block,
          statements: [at],
          perhaps: [],
        })),
      ),
      ...(profile.perhaps.length > 0 ? this.#podBlocks : []).map(block => ({
        block,
        statements: [],
        perhaps: profile.perhaps,
      })),
    ];
    const byBlock = portsByRange(blocks, profile.fallback, held => {
      const matching = new Set([...profile.everyone, ...held.flatMap(({ statements }) => statements)]);
      const isCertain = (at: number) =>
        matching.has(at) && !namesPortsOfPeers(profile.statements[at]!.statement, profile.direction);
      const perhaps = new Set(held.flatMap(one => one.perhaps).filter(at => !isCertain(at)));
      return this.#decide(profile, inOrder([...new Set([...matching, ...perhaps])]), NO_NAMES, { perhaps });
    });
    const map = `${profile.direction}-block` as const;
    for (const ip of profile.members) this.#setRanges(map, ip, { before: profile.byBlock, after: byBlock });
    profile.byBlock = byBlock;
  }

  #withAliases(block: BlockPeer): BlockPeer[] {
    const alone = (ip: string) => `${ip}/${ip.includes(':') ? 128 : 32}`;
    const astray = this.#nodeAliases.filter(({ alias, ip }) => holds(block, alias) !== holds(block, ip));
    const [foreign, own] = [
      astray.filter(({ alias }) => holds(block, alias)),
      astray.filter(({ ip }) => holds(block, ip)),
    ];
    const except = foreign.map(({ alias }) => alone(alias));
    return [
      except.length > 0 ? blockPeer(block.cidr, [...block.except, ...except]) : block,
      ...own.map(({ alias }) => blockPeer(alone(alias))),
    ];
  }

  #decideNode(profile: Profile): void {
    const toOwnNode = (matching: readonly number[]) =>
      this.#decide(profile, inOrder([...new Set(matching)]), NO_NAMES, { toOwnNode: true });
    const fallback = toOwnNode(profile.everyone);
    const blocks = profile.blocks.filter(({ at }) => profile.statements[at]!.tier !== 'namespace');
    const toNode = portsByRange(blocks, fallback, held =>
      toOwnNode([...profile.everyone, ...held.map(({ at }) => at)]),
    );
    const nodeFallback = keyOf(fallback) === keyOf(ALL_PORTS) ? undefined : fallback;
    for (const ip of profile.members) {
      this.#setRanges('node-block', ip, { before: profile.toNode, after: toNode });
      this.#setList('node-default', ip, nodeFallback);
    }
    profile.toNode = toNode;
    profile.nodeFallback = nodeFallback;
  }

  #decide(
    profile: Profile,
    matching: readonly number[],
    names: NamedPorts,
    { perhaps, toOwnNode = false }: { readonly perhaps?: ReadonlySet<number>; readonly toOwnNode?: boolean } = {},
  ): PortSet {
    const { isolated, statements, direction } = profile;
    return decide(
      matching.map(at => (perhaps?.has(at) ? perhapsOf(statements[at]!, direction) : statements[at]!)),
      { isolated, names: direction === 'ingress' ? profile.names : names, toOwnNode },
    );
  }

  #allow(profile: Profile, number: number, ports: PortSet | undefined): void {
    const before = profile.byClass.get(number);
    if (ports === before || (ports && before && keyOf(ports) === keyOf(before))) return;
    if (ports) profile.byClass.set(number, ports);
    else profile.byClass.delete(number);
    for (const ip of profile.members) this.#setList(`${profile.direction}-class`, `${ip} ${number}`, ports);
  }

  // --- entries of one address ---

  #join(profile: Profile, ip: string): void {
    profile.members.add(ip);
    this.#setList(`${profile.direction}-default`, ip, profile.fallback);
    for (const [number, ports] of profile.byClass)
      this.#setList(`${profile.direction}-class`, `${ip} ${number}`, ports);
    this.#setRanges(`${profile.direction}-block`, ip, { before: NO_RANGES, after: profile.byBlock });
    this.#setRanges('node-block', ip, { before: NO_RANGES, after: profile.toNode });
    if (profile.nodeFallback) this.#setList('node-default', ip, profile.nodeFallback);
  }

  #leave(profile: Profile, ip: string): void {
    profile.members.delete(ip);
    this.#setList(`${profile.direction}-default`, ip, undefined);
    for (const number of profile.byClass.keys())
      this.#setList(`${profile.direction}-class`, `${ip} ${number}`, undefined);
    this.#setRanges(`${profile.direction}-block`, ip, { before: profile.byBlock, after: NO_RANGES });
    this.#setRanges('node-block', ip, { before: profile.toNode, after: NO_RANGES });
    if (profile.nodeFallback) this.#setList('node-default', ip, undefined);
  }

  #setRanges(map: MapName, ip: string, { before, after }: { readonly before: Ranges; readonly after: Ranges }): void {
    const ofFamily = (range: string) => ip.includes(':') === range.includes(':');
    for (const range of before.keys())
      if (ofFamily(range) && !after.has(range)) this.#setList(map, `${ip} ${range}`, undefined);
    for (const [range, ports] of after) if (ofFamily(range)) this.#setList(map, `${ip} ${range}`, ports);
  }

  #setList(map: MapName, key: string, ports: PortSet | undefined): void {
    const before = this.table.get(map, key);
    this.table.set(map, key, ports && this.#lists.retain(ports));
    if (before !== undefined) this.#lists.release(before);
  }
}

function renderPorts(list: number, set: PortSet): string[] {
  return rectanglesOf(set).map(({ protocols, ports }) => `${list} ${protocols.join('-')} ${ports.join('-')}`);
}

function namesOf(policies: readonly Policy[], direction: Direction): Set<string> {
  const names = new Set<string>();
  for (const { statements } of policies)
    for (const { ports } of statements[direction] ?? [])
      for (const port of ports === 'all' ? [] : ports)
        if ('name' in port) for (const key of nameKeys(port)) names.add(key);
  return names;
}

function numberOf(name: string, names: NamedPorts): [string, number][] {
  const number = names.get(name);
  return number === undefined ? [] : [[name, number]];
}

function perhapsOf({ tier, statement }: Ranked, direction: Direction): Ranked {
  const isAny = namesPortsOfPeers(statement, direction);
  return { tier, perhaps: true, statement: isAny ? { ...statement, ports: 'all' } : statement };
}

// Whom nobody knows may call any port by any name; on the way in names are those of the pod of this node.
function namesPortsOfPeers({ ports }: Statement, direction: Direction): boolean {
  return direction === 'egress' && ports !== 'all' && ports.some(port => 'name' in port);
}

const inOrder = (numbers: readonly number[]) => [...numbers].sort((a, b) => a - b);
