/**
 * The policy table in the kernel of one node, and the routing rules that close pods where it is missing. A change is one
 * transaction, and begins a new epoch: every flow is judged anew at its next packet, so what is no longer allowed ends.
 * Invariant: after a failed call the kernel has the former table or this object says so by throwing; `rebuild` makes
 * everything right from whatever is there, and no pod is open meanwhile.
 */

import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { NetnsRef } from '../../sys/netns.ts';
import { type Element, Nfnetlink, type TableRef } from '../../sys/nfnetlink.ts';
import { NftMonitor } from '../../sys/nft-monitor.ts';
import { Nftables } from '../../sys/nftables.ts';
import { allElements, ELEMENT_SETS, elementKey, elementsOf, epochElements, sameData } from './elements.ts';
import type { Change, PolicyTable } from './policy-table.ts';
import { RoutingGuard } from './routing-guard.ts';
import { POLICY_TABLE, renderHook, renderParts } from './rules.ts';

const NFPROTO_INET = 1;
const REF: TableRef = { family: NFPROTO_INET, table: POLICY_TABLE };
const EPOCH_MAX = 0xffff_ffff;

export interface NodeRanges {
  /** Of this node's pods. */
  readonly podCidrs: readonly string[];
  /** Addresses of the node that are always open to its pods: the cluster's DNS. */
  readonly served: readonly string[];
}

export interface KernelTableOptions {
  readonly namespace: NetnsRef;
  /** The link that pods' packets come in by. */
  readonly bridge: string;
  readonly log: Logger;
  readonly random: Random;
  /** Somebody else has changed the table. */
  readonly onDamage: () => void;
}

export class KernelTable {
  readonly #options: KernelTableOptions;
  readonly #raw: Nfnetlink;
  readonly #text: Nftables;
  readonly #guard: RoutingGuard;
  #monitor: NftMonitor | undefined;
  #epoch: number;

  constructor(options: KernelTableOptions) {
    this.#options = options;
    this.#raw = new Nfnetlink(options.namespace);
    this.#text = new Nftables(options.namespace);
    this.#guard = new RoutingGuard(options);
    // Marks of flows outlive a table: a number that none of them is likely to have.
    this.#epoch = 1 + Math.floor(options.random.next() * (EPOCH_MAX - 1));
  }

  /** Whether a table is there, perhaps of a former process. */
  exists(): boolean {
    return this.#raw.fingerprint(REF) !== '';
  }

  /** Makes the kernel's table this one. */
  rebuild(table: PolicyTable, { podCidrs, served }: NodeRanges): void {
    this.#watch();
    const { bridge } = this.#options;
    const parts = renderParts({ bridge, podCidrs, served });
    this.#own(() => {
      try {
        this.#fill(parts, table);
      } catch (error) {
        if (!this.exists()) throw error;
        // Of another shape, by an older version or by hand. The guard keeps pods closed until the new one is complete.
        this.#options.log.warn('table of network policies replaced', { error: messageOf(error) });
        this.#guard.install(podCidrs);
        this.#text.run(`delete table inet ${POLICY_TABLE}\n`);
        this.#fill(parts, table);
      }
      this.#text.run(renderHook(bridge));
    });
    this.#guard.install(podCidrs);
  }

  #fill(parts: string, table: PolicyTable): void {
    this.#text.run(parts);
    const present = new Map<string, Element>();
    for (const set of [...ELEMENT_SETS, 'epoch', 'now'])
      for (const element of this.#raw.elements(REF, set)) present.set(elementKey(element), element);
    const [remove, add]: [Element[], Element[]] = [[], []];
    for (const element of [...allElements(table), ...epochElements(this.#nextEpoch())]) {
      const key = elementKey(element);
      const old = present.get(key);
      present.delete(key);
      if (old && sameData(old, element)) continue;
      if (old) remove.push(old);
      add.push(element);
    }
    remove.push(...present.values());
    this.#raw.change(REF, { remove, add });
  }

  /** One transaction. */
  change(changes: readonly Change[]): void {
    if (changes.length === 0) return;
    const { remove, add } = elementsOf(changes);
    const old = epochElements(this.#epoch);
    const epoch = this.#nextEpoch();
    this.#raw.change(REF, { remove: [...remove, ...old], add: [...add, ...epochElements(epoch)] });
  }

  /** Makes sure of the routing rules. */
  guard(podCidrs: readonly string[]): void {
    this.#guard.install(podCidrs);
  }

  /** Opens every pod of the node: none is under a policy. */
  remove(): void {
    this.#guard.remove();
    this.#monitor?.close();
    this.#monitor = undefined;
    this.#text.run(`add table inet ${POLICY_TABLE}\ndelete table inet ${POLICY_TABLE}\n`);
  }

  /** Whether somebody else has changed the table since the last call. */
  takeDamage(): boolean {
    return this.#monitor?.takeTouched() ?? false;
  }

  /** What is in the kernel stays. */
  close(): void {
    this.#monitor?.close();
    this.#raw.close();
    this.#guard.close();
  }

  // From before the first look at the table, so that nothing is missed in between.
  #watch(): void {
    this.#monitor ??= new NftMonitor({
      namespace: this.#options.namespace,
      tables: [REF],
      ownPort: this.#raw.portId(),
      onChange: this.#options.onDamage,
    });
    this.#monitor.takeTouched();
  }

  #own(work: () => void): void {
    if (this.#monitor) this.#monitor.own(work);
    else work();
  }

  #nextEpoch(): number {
    this.#epoch = this.#epoch >= EPOCH_MAX ? 1 : this.#epoch + 1;
    return this.#epoch;
  }
}
