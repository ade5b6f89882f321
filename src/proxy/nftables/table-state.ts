/**
 * One family's table in the kernel: makes it, changes it by differences, compares it with what should be.
 * Invariant: elements shared by several Services (hairpins, cluster addresses) are counted; of chains it knows who goes to
 * them, and removes those of no use. It takes for granted that no two Services have one address, protocol and port. A failed
 * change leaves the table as it was and this object `stale`: the next `rebuild` reads the kernel again.
 */

import type { Logger } from '../../base/log.ts';
import { SystemError } from '../../sys/libc.ts';
import { type Element, NFPROTO_IPV4, NFPROTO_IPV6, type Nfnetlink, type TableRef } from '../../sys/nfnetlink.ts';
import { type NftablesDoor, NftablesError } from '../../sys/nftables.ts';
import type { ServiceEntry, ServiceTable } from '../model.ts';
import { type Chain, withUsed } from './chains.ts';
import { elementKey, type Rendered, render, sameData } from './elements.ts';
import { ELEMENT_SETS, type Family, renderStatic, STATIC_CHAINS, type StaticOptions, TABLE } from './rules.ts';

// One transaction of a rebuild: some 4 ms, so that a first programming of many Services lets other work in between.
const REBUILD_ELEMENTS = 4000;
/** Looked up because of what another look-up gave. */
const SECOND_SETS: ReadonlySet<string> = new Set([
  'endpoints',
  'node-port-endpoints',
  'remembered-as',
  'remembered-as-node-ports',
]);
// Chains are small: they go when there are many of no use.
const IDLE_CHAINS_MAX = 64;

export interface Change {
  readonly before: ServiceEntry | undefined;
  readonly after: ServiceEntry | undefined;
}

export interface TableStateOptions {
  readonly family: Family;
  readonly clusterCidrs: readonly string[];
  readonly text: NftablesDoor;
  readonly raw: Nfnetlink;
  readonly log: Logger;
}

export class TableState {
  readonly family: Family;
  readonly ref: TableRef;
  readonly #options: TableStateOptions;
  readonly #raw: Nfnetlink;
  /** Chains in the kernel by name. */
  readonly #known = new Map<string, Chain>();
  /** How many elements go to a chain. */
  readonly #users = new Map<string, number>();
  readonly #counts = new Map<string, number>();
  /** What the last rebuild found in the kernel and had no use for. */
  #leftover: { readonly table: ServiceTable; readonly elements: readonly Element[] } | undefined;
  stale = true;

  constructor(options: TableStateOptions) {
    this.family = options.family;
    this.ref = { family: options.family.number === 4 ? NFPROTO_IPV4 : NFPROTO_IPV6, table: TABLE };
    this.#options = options;
    this.#raw = options.raw;
  }

  /** One transaction with the difference. Returns false when it must be a rebuild instead. */
  change(changes: readonly Change[]): boolean {
    if (this.stale) return false;
    this.stale = true;
    this.#leftover = undefined;
    const remove = new Map<string, Element>();
    const add = new Map<string, Element>();
    // What goes is let go first, so that an address may pass from one Service to another at once.
    for (const { before, after } of changes)
      if (before) for (const element of this.#release(before, after)) remove.set(elementKey(element), element);
    const chains = [];
    for (const { before, after } of changes) {
      if (!after) continue;
      const rendered = this.#claim(after, before);
      chains.push(...rendered.chains);
      for (const element of rendered.elements) {
        const key = elementKey(element);
        const old = remove.get(key);
        if (old && sameData(old.data, element.data)) remove.delete(key);
        else add.set(key, element);
      }
    }
    this.#makeChains(chains);
    // A packet that found the former number of endpoints may look for one of them after this transaction: each look-up sees the
    // generation of its own moment. So an endpoint goes in a transaction of its own, once nothing leads to it.
    const last = [...remove].filter(([key, { set }]) => SECOND_SETS.has(set) && !add.has(key));
    for (const [key] of last) remove.delete(key);
    this.#raw.change(this.ref, { remove: [...remove.values()], add: [...add.values()] });
    if (last.length > 0) this.#raw.change(this.ref, { remove: last.map(([, element]) => element), add: [] });
    if (this.#known.size - this.#users.size > IDLE_CHAINS_MAX) this.#dropIdleChains([...this.#known.keys()]);
    this.stale = false;
    return true;
  }

  /** Everything of `table`, over whatever is there, in several transactions that are each whole Services. Removes nothing else. */
  async rebuild(
    table: ServiceTable,
    options: { nodeIps: readonly string[]; pause: () => Promise<void> },
  ): Promise<void> {
    this.stale = true;
    for (const map of [this.#known, this.#users, this.#counts]) map.clear();
    this.#makeTable({ ...this.#options, nodeIps: options.nodeIps });
    const present = new Map<string, Element>();
    for (const set of ELEMENT_SETS)
      for (const element of this.#raw.elements(this.ref, set)) present.set(elementKey(element), element);
    let [remove, add]: [Element[], Element[]] = [[], []];
    let chains: Chain[] = [];
    const flush = () => {
      this.#makeChains(chains);
      this.#raw.change(this.ref, { remove, add });
      [remove, add, chains] = [[], [], []];
    };
    for (const entry of table.values()) {
      const rendered = this.#claim(entry);
      chains.push(...rendered.chains);
      for (const element of rendered.elements) {
        if (present.size === 0) {
          add.push(element);
          continue;
        }
        const key = elementKey(element);
        const old = present.get(key);
        present.delete(key);
        if (old && sameData(old.data, element.data)) continue;
        if (old) remove.push(old);
        add.push(element);
      }
      if (add.length >= REBUILD_ELEMENTS) {
        flush();
        await options.pause();
      }
    }
    flush();
    this.#leftover = { table, elements: [...present.values()] };
    this.stale = false;
  }

  /** Removes elements that no entry of the table has, and chains that nothing goes to. Returns the elements. */
  prune(table: ServiceTable): readonly Element[] {
    const remove = this.#leftover?.table === table ? this.#leftover.elements : this.#strangers(table);
    this.#leftover = undefined;
    this.#raw.change(this.ref, { remove, add: [] });
    this.#dropIdleChains(this.#raw.chains(this.ref));
    return remove;
  }

  #strangers(table: ServiceTable): Element[] {
    const wanted = new Set<string>();
    for (const entry of table.values())
      for (const element of this.#render(entry).elements) wanted.add(elementKey(element));
    return ELEMENT_SETS.flatMap(set => this.#raw.elements(this.ref, set)).filter(
      element => !wanted.has(elementKey(element)),
    );
  }

  #makeTable(options: StaticOptions): void {
    const { text, log, family } = this.#options;
    const rules = renderStatic(options);
    try {
      text.run(rules);
    } catch (error) {
      if (!(error instanceof NftablesError)) throw error;
      // A table of an older version, of another shape: nothing of it can be kept.
      text.run(`add table ${family.word} ${TABLE}\ndelete table ${family.word} ${TABLE}\n${rules}`);
      log.warn('nftables table replaced', { error: error.message });
    }
  }

  // New chains are used by nobody yet, so they may come before the transaction with the elements that go to them.
  #makeChains(chains: readonly Chain[]): void {
    const fresh = [...withUsed(chains).values()].filter(({ name }) => !this.#known.has(name));
    this.#raw.setChains(this.ref, fresh);
    for (const chain of fresh) this.#known.set(chain.name, chain);
  }

  #dropIdleChains(names: readonly string[]): void {
    const used = withUsed([...this.#users.keys()].flatMap(name => this.#known.get(name) ?? []));
    const idle = names.filter(name => !used.has(name) && !STATIC_CHAINS.has(name));
    for (const name of idle) this.#known.delete(name);
    try {
      this.#raw.deleteChains(this.ref, idle);
    } catch (error) {
      // Somebody else's rules go there, or it has gone: neither is in our way.
      if (!(error instanceof SystemError && ['EBUSY', 'ENOENT'].includes(error.code))) throw error;
      this.#options.log.debug('unused chains not removed', { error: error.message });
    }
  }

  #render(entry: ServiceEntry, kept?: ServiceEntry): Rendered {
    const { clusterCidrs } = this.#options;
    const own = clusterCidrs.some(range => range.includes(':') === (this.family.number === 6));
    return render(entry, { family: this.family, clusterCidrs: own, kept });
  }

  // Elements that come into being with the entry; shared ones only with their first.
  #claim(entry: ServiceEntry, kept?: ServiceEntry): Rendered {
    const { elements, chains } = this.#render(entry, kept);
    for (const { name } of chains) count(this.#users, name, 1);
    return {
      chains,
      elements: elements.filter(element => !isShared(element) || count(this.#counts, elementKey(element), 1) === 1),
    };
  }

  #release(entry: ServiceEntry, kept?: ServiceEntry): Element[] {
    const { elements, chains } = this.#render(entry, kept);
    for (const { name } of chains) count(this.#users, name, -1);
    return elements.filter(element => !isShared(element) || count(this.#counts, elementKey(element), -1) === 0);
  }
}

function count(counts: Map<string, number>, key: string, by: 1 | -1): number {
  const now = (counts.get(key) ?? 0) + by;
  if (now === 0) counts.delete(key);
  else counts.set(key, now);
  return now;
}

function isShared({ set }: Element): boolean {
  return set === 'hairpins' || set === 'cluster-ips';
}
