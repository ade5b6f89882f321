/**
 * One family's table in the kernel: makes it, changes it by differences, compares it with what should be.
 * Invariant: elements shared by several Services (hairpins, cluster addresses) are counted, and an address and port claimed
 * by two Services belongs to the first until that one lets go. A failed change leaves the table as it was and this object
 * `stale`: the next `rebuild` reads the kernel again.
 */

import type { Logger } from '../../base/log.ts';
import { type Element, NFPROTO_IPV4, NFPROTO_IPV6, type Nfnetlink, type TableRef } from '../../sys/nfnetlink.ts';
import type { Expression } from '../../sys/nft-expressions.ts';
import { type NftablesDoor, NftablesError } from '../../sys/nftables.ts';
import type { ServiceEntry, ServiceTable } from '../model.ts';
import { elementKey, frontendKey, type Rendered, render, sameData } from './elements.ts';
import {
  type Chain,
  ELEMENT_SETS,
  type Family,
  isText,
  renderChain,
  renderStatic,
  type StaticOptions,
  TABLE,
  withUsed,
} from './rules.ts';

// One transaction of a rebuild: some 4 ms, so that a first programming of many Services lets other work in between.
const REBUILD_ELEMENTS = 4000;

export interface Change {
  readonly before: ServiceEntry | undefined;
  readonly after: ServiceEntry | undefined;
}

export class TableState {
  readonly family: Family;
  readonly ref: TableRef;
  readonly #options: StaticOptions;
  readonly #text: NftablesDoor;
  readonly #raw: Nfnetlink;
  readonly #log: Logger;
  readonly #known = new Set<string>();
  readonly #counts = new Map<string, number>();
  readonly #owners = new Map<string, string>();
  readonly #contested = new Set<string>();
  #fingerprint = '';
  /** What the last rebuild found in the kernel and had no use for. */
  #leftover: { readonly table: ServiceTable; readonly elements: readonly Element[] } | undefined;
  stale = true;

  constructor(options: StaticOptions & { readonly text: NftablesDoor; readonly raw: Nfnetlink; readonly log: Logger }) {
    this.family = options.family;
    this.ref = { family: options.family.number === 4 ? NFPROTO_IPV4 : NFPROTO_IPV6, table: TABLE };
    this.#options = options;
    this.#text = options.text;
    this.#raw = options.raw;
    this.#log = options.log;
  }

  /** One transaction with the difference. Returns false when it must be a rebuild instead. */
  change(changes: readonly Change[]): boolean {
    if (this.stale) return false;
    this.stale = true;
    this.#leftover = undefined;
    const remove = new Map<string, Element>();
    const add = new Map<string, Element>();
    // What goes is let go first, so that an address may pass from one Service to another at once.
    for (const { before } of changes)
      if (before) for (const element of this.#release(before)) remove.set(elementKey(element), element);
    if (changes.some(({ before }) => before && this.#frees(before))) return false;
    const chains = [];
    for (const { after } of changes) {
      if (!after) continue;
      const rendered = this.#claim(after);
      chains.push(...rendered.chains);
      for (const element of rendered.elements) {
        const key = elementKey(element);
        const old = remove.get(key);
        if (old && sameData(old.data, element.data)) remove.delete(key);
        else add.set(key, element);
      }
    }
    this.#makeChains(chains);
    this.#raw.change(this.ref, { remove: [...remove.values()], add: [...add.values()] });
    this.stale = false;
    return true;
  }

  /** Everything of `table`, over whatever is there, in several transactions that are each whole Services. Removes nothing else. */
  async rebuild(table: ServiceTable, pause: () => Promise<void>): Promise<void> {
    this.stale = true;
    this.#known.clear();
    this.#counts.clear();
    this.#owners.clear();
    this.#contested.clear();
    this.#makeTable();
    const present = new Map<string, Element>();
    for (const set of ELEMENT_SETS)
      for (const element of this.#raw.elements(this.ref, set)) present.set(elementKey(element), element);
    let [remove, add]: [Element[], Element[]] = [[], []];
    let chains: Rendered['chains'][number][] = [];
    const flush = () => {
      this.#makeChains(chains);
      this.#raw.change(this.ref, { remove, add });
      [remove, add, chains] = [[], [], []];
    };
    for (const entry of table.values()) {
      const rendered = this.#claim(entry);
      chains.push(...rendered.chains);
      for (const element of rendered.elements) {
        const key = elementKey(element);
        const old = present.get(key);
        present.delete(key);
        if (old && sameData(old.data, element.data)) continue;
        if (old) remove.push(old);
        add.push(element);
      }
      if (add.length >= REBUILD_ELEMENTS) {
        flush();
        await pause();
      }
    }
    flush();
    this.#leftover = { table, elements: [...present.values()] };
    this.stale = false;
  }

  /** Removes elements that no entry of the table has. */
  prune(table: ServiceTable): void {
    const remove = this.#leftover?.table === table ? this.#leftover.elements : this.#strangers(table);
    this.#leftover = undefined;
    this.#raw.change(this.ref, { remove, add: [] });
  }

  #strangers(table: ServiceTable): Element[] {
    const wanted = new Set<string>();
    for (const entry of table.values())
      for (const element of this.#render(entry).elements) wanted.add(elementKey(element));
    return ELEMENT_SETS.flatMap(set => this.#raw.elements(this.ref, set)).filter(
      element => !wanted.has(elementKey(element)),
    );
  }

  /** Whether chains or rules are no longer those made here. */
  damaged(): boolean {
    return this.#raw.fingerprint(this.ref) !== this.#fingerprint;
  }

  #makeTable(): void {
    const text = renderStatic(this.#options);
    try {
      this.#text.run(text);
    } catch (error) {
      if (!(error instanceof NftablesError) || this.#raw.fingerprint(this.ref) === '') throw error;
      // A table of an older version, of another shape: nothing of it can be kept.
      this.#log.warn('nftables table replaced', { error: error.message });
      this.#text.run(`delete table ${this.family.word} ${TABLE}\n${text}`);
    }
    this.#fingerprint = this.#raw.fingerprint(this.ref);
  }

  // New chains are used by nobody yet, so they may come before the transaction with the elements that go to them.
  #makeChains(chains: readonly Chain[]): void {
    const fresh = withUsed(chains, this.#known);
    if (fresh.length === 0) return;
    let text = '';
    for (const { name, rules } of fresh) {
      if (isText(rules)) text += renderChain(this.family, name, rules);
      else this.#raw.setChain(this.ref, name, rules as readonly (readonly Expression[])[]);
    }
    if (text !== '') this.#text.run(text);
    for (const { name } of fresh) this.#known.add(name);
    this.#fingerprint = this.#raw.fingerprint(this.ref);
  }

  #render(entry: ServiceEntry): Rendered {
    return render(entry, {
      family: this.family,
      clusterCidrs: this.#options.clusterCidrs.length > 0,
      skip: frontend => this.#owners.get(frontendKey(frontend)) !== entry.key,
    });
  }

  // Elements that come into being with the entry; shared ones only with their first.
  #claim(entry: ServiceEntry): Rendered {
    for (const frontend of entry.frontends) {
      if (frontend.family !== this.family.number) continue;
      const key = frontendKey(frontend);
      const owner = this.#owners.get(key);
      if (owner === undefined) this.#owners.set(key, entry.key);
      else if (owner !== entry.key) {
        this.#contested.add(key);
        this.#log.warn('two Services claim one address and port', { claimed: key, owner, refused: entry.key });
      }
    }
    const { elements, chains } = this.#render(entry);
    return { chains, elements: elements.filter(element => !isShared(element) || this.#count(element, 1) === 1) };
  }

  #release(entry: ServiceEntry): Element[] {
    const { elements } = this.#render(entry);
    for (const frontend of entry.frontends)
      if (frontend.family === this.family.number && this.#owners.get(frontendKey(frontend)) === entry.key)
        this.#owners.delete(frontendKey(frontend));
    return elements.filter(element => !isShared(element) || this.#count(element, -1) === 0);
  }

  // A contested place that became free belongs to whoever waits for it, which only a rebuild finds.
  #frees(entry: ServiceEntry): boolean {
    return this.#contested.size > 0 && entry.frontends.some(frontend => this.#contested.has(frontendKey(frontend)));
  }

  #count(element: Element, by: 1 | -1): number {
    const key = elementKey(element);
    const count = (this.#counts.get(key) ?? 0) + by;
    if (count === 0) this.#counts.delete(key);
    else this.#counts.set(key, count);
    return count;
  }
}

function isShared({ set }: Element): boolean {
  return set === 'hairpins' || set === 'cluster-ips';
}
