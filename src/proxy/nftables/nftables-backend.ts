/**
 * Services in the kernel's nftables, one table a family (`rules.ts` shows the packet path). Owns tables `ip coxswain-proxy`
 * and `ip6 coxswain-proxy` of one namespace and no other; never sets route_localnet. Also makes the kernel forget UDP flows
 * and remembered clients that lead to endpoints that are gone.
 */

import { systemClock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { formatAddress } from '../../sys/address.ts';
import type { NetnsRef } from '../../sys/netns.ts';
import { type Element, Nfnetlink } from '../../sys/nfnetlink.ts';
import { NftMonitor } from '../../sys/nft-monitor.ts';
import { Nftables, type NftablesDoor } from '../../sys/nftables.ts';
import type { ProxyBackend } from '../backend.ts';
import type { ServiceEntry, ServiceTable } from '../model.ts';
import { conntrackDeletions, conntrackSeconds } from '../proxy-metrics.ts';
import { PROTOCOL_NUMBERS } from './elements.ts';
import { NodePortAddresses } from './node-port-addresses.ts';
import { AFFINITY_MAPS, FAMILIES } from './rules.ts';
import { type Stale, staleAfter, staleClients, staleFlows } from './stale-memory.ts';
import { type Change, TableState } from './table-state.ts';

export interface NftablesBackendOptions {
  /** The calling thread's own when absent. */
  readonly namespace?: NetnsRef;
  /** The node's own addresses, one or one a family. */
  readonly nodeIps: readonly string[];
  /** Where node ports answer, as kube-proxy's `nodePortAddresses`: ranges, or `primary` (the default) for `nodeIps`. */
  readonly nodePortAddresses?: readonly string[];
  /** Ranges of pods: senders outside them are masqueraded on their way to a cluster IP. */
  readonly clusterCidrs: readonly string[];
  readonly log: Logger;
}

const IPPROTO_UDP = PROTOCOL_NUMBERS.UDP;

export class NftablesBackend implements ProxyBackend {
  readonly #log: Logger;
  readonly #raw: Nfnetlink;
  readonly #monitor: NftMonitor;
  readonly #tables: readonly TableState[];
  readonly #nodePorts: NodePortAddresses;
  #nodeIps: readonly string[] = [];
  #listener: (() => void) | undefined;

  constructor(options: NftablesBackendOptions) {
    const { namespace, nodeIps, clusterCidrs, log } = options;
    this.#log = log;
    this.#raw = new Nfnetlink(namespace);
    this.#nodePorts = new NodePortAddresses({
      ...(namespace === undefined ? {} : { namespace }),
      nodeIps,
      ranges: options.nodePortAddresses ?? ['primary'],
    });
    const nftables = new Nftables(namespace);
    const text: NftablesDoor = {
      run: commands => this.#monitor.own(() => nftables.run(commands)),
      close: () => nftables.close(),
    };
    // A node without IPv6 addresses has no IPv6 Services.
    const families = nodeIps.some(ip => ip.includes(':')) ? [FAMILIES[4], FAMILIES[6]] : [FAMILIES[4]];
    this.#tables = families.map(family => new TableState({ family, clusterCidrs, text, raw: this.#raw, log }));
    this.#monitor = new NftMonitor({
      ...(namespace === undefined ? {} : { namespace }),
      tables: this.#tables.map(table => table.ref),
      ownPort: this.#raw.portId(),
      onChange: () => this.#listener?.(),
    });
  }

  async apply(next: ServiceTable, prev?: ServiceTable): Promise<void> {
    const changes = differences(next, prev);
    if (prev === undefined || this.#tables.some(({ stale }) => stale)) this.#nodeIps = this.#nodePorts.current();
    for (const table of this.#tables) {
      let done = false;
      try {
        done = prev !== undefined && table.change(changes);
      } catch (error) {
        this.#log.warn('change refused by the kernel, programming everything', { error: messageOf(error) });
      }
      if (!done) {
        await table.rebuild(next, {
          nodeIps: this.#nodeIps,
          pause: () => new Promise(resolve => setImmediate(resolve)),
        });
        // After a first call the caller prunes, when it knows that `next` is all there is.
        if (prev !== undefined) table.prune(next);
      }
      this.#forget(table, staleAfter(changes, table.family.number));
    }
  }

  async prune(next: ServiceTable): Promise<void> {
    for (const table of this.#tables) this.#forget(table, staleOf(table.prune(next), table.family.number));
  }

  damaged(): boolean {
    const touched = this.#monitor.takeTouched();
    if (!touched && !this.#nodePorts.changed(this.#nodeIps)) return false;
    for (const table of this.#tables) table.stale = true;
    return true;
  }

  onDamage(listener: () => void): void {
    this.#listener = listener;
  }

  close(): void {
    this.#monitor.close();
    this.#nodePorts.close();
    this.#raw.close();
  }

  #forget({ ref, family: { number } }: TableState, stale: Stale): void {
    if (stale.udp.size > 0) {
      const family = `IPv${number}`;
      const sinceMs = systemClock.monotonic();
      const flows = this.#raw.conntrack({ family: ref.family, protocol: IPPROTO_UDP });
      const gone = staleFlows(flows, stale, new Set(this.#nodeIps));
      if (gone.length > 0) this.#raw.deleteConntrack(ref.family, gone);
      conntrackDeletions().add(gone.length, family);
      conntrackSeconds().observe((systemClock.monotonic() - sinceMs) / 1000, family);
    }
    if (stale.affinity.size === 0) return;
    const clients = AFFINITY_MAPS.flatMap(map => this.#raw.elements(ref, map));
    for (const client of staleClients(clients, stale)) {
      try {
        this.#raw.change(ref, { remove: [client], add: [] });
      } catch (error) {
        // It may have expired between being listed and now.
        this.#log.debug('remembered client not removed', { error: messageOf(error) });
      }
    }
  }
}

/** Entries that are not the very same object in both tables. */
function differences(next: ServiceTable, prev: ServiceTable | undefined): Change[] {
  const out: Change[] = [];
  for (const [key, after] of next) {
    const before: ServiceEntry | undefined = prev?.get(key);
    if (before !== after) out.push({ before, after });
  }
  for (const [key, before] of prev ?? []) if (!next.has(key)) out.push({ before, after: undefined });
  return out;
}

/** What leads to nothing any more because these elements were pruned: Services that went while no proxy ran. */
function staleOf(pruned: readonly Element[], family: 4 | 6): Stale {
  const udp = new Map<string, ReadonlySet<string>>();
  const bytes = family === 4 ? 4 : 16;
  for (const { set, key } of pruned) {
    const at = set === 'services' ? bytes : set === 'node-ports' ? 0 : undefined;
    if (at === undefined || key[at] !== IPPROTO_UDP) continue;
    const address = at === 0 ? '' : formatAddress(key.subarray(0, at));
    udp.set(`${address} ${Buffer.from(key.buffer, key.byteOffset).readUInt16BE(at + 4)}`, new Set());
  }
  return { udp, affinity: new Map() };
}
