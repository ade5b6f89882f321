/**
 * Services in the kernel's nftables, one table a family (`rules.ts` shows the packet path). Owns tables `ip coxswain-proxy`
 * and `ip6 coxswain-proxy` of one namespace and no other; never sets route_localnet. Also forgets UDP flows that lead to
 * endpoints that are gone, which conntrack would otherwise keep sending there.
 */

import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { NetnsRef } from '../../sys/netns.ts';
import { type Element, Nfnetlink } from '../../sys/nfnetlink.ts';
import { Nftables } from '../../sys/nftables.ts';
import type { ProxyBackend } from '../backend.ts';
import type { Frontend, ServiceEntry, ServiceTable } from '../model.ts';
import { endpointData } from './elements.ts';
import { FAMILIES } from './rules.ts';
import { type Change, TableState } from './table-state.ts';
import { staleFlows, type UdpFrontend } from './udp-flows.ts';

export interface NftablesBackendOptions {
  /** The calling thread's own when absent. */
  readonly namespace?: NetnsRef;
  /** Addresses at which node ports answer. */
  readonly nodeIps: readonly string[];
  /** Ranges of pods: senders outside them are masqueraded on their way to a cluster IP. */
  readonly clusterCidrs: readonly string[];
  readonly log: Logger;
}

const IPPROTO_UDP = 17;

export class NftablesBackend implements ProxyBackend {
  readonly #options: NftablesBackendOptions;
  readonly #raw: Nfnetlink;
  readonly #tables: readonly TableState[];
  #generation = 0;

  constructor(options: NftablesBackendOptions) {
    this.#options = options;
    const { namespace, nodeIps, clusterCidrs, log } = options;
    this.#raw = new Nfnetlink(namespace);
    const text = new Nftables(namespace);
    // A node without IPv6 addresses has no IPv6 Services.
    const families = nodeIps.some(ip => ip.includes(':')) ? [FAMILIES[4], FAMILIES[6]] : [FAMILIES[4]];
    this.#tables = families.map(family => new TableState({ family, nodeIps, clusterCidrs, text, raw: this.#raw, log }));
  }

  async apply(next: ServiceTable, prev?: ServiceTable): Promise<void> {
    const changes = differences(next, prev);
    for (const table of this.#tables) {
      let done = false;
      try {
        done = prev !== undefined && table.change(changes);
      } catch (error) {
        this.#options.log.warn('change refused by the kernel, programming everything', { error: messageOf(error) });
      }
      if (!done) {
        await table.rebuild(next, () => new Promise(resolve => setImmediate(resolve)));
        // After a first call the caller prunes, when it knows that `next` is all there is.
        if (prev !== undefined) table.prune(next);
      }
    }
    this.#forget(changes);
    this.#generation = this.#raw.generation();
  }

  async prune(next: ServiceTable): Promise<void> {
    for (const table of this.#tables) table.prune(next);
    this.#generation = this.#raw.generation();
  }

  damaged(): boolean {
    const generation = this.#raw.generation();
    if (generation === this.#generation) return false;
    const damaged = this.#tables.some(table => table.damaged());
    if (damaged) for (const table of this.#tables) table.stale = true;
    else this.#generation = generation;
    return damaged;
  }

  close(): void {
    this.#raw.close();
  }

  // What flows and remembered clients still point at although it is no longer an endpoint.
  #forget(changes: readonly Change[]): void {
    const udp: UdpFrontend[] = [];
    const lost = new Set<string>();
    for (const { before, after } of changes) {
      const now = new Map((after?.frontends ?? []).map(frontend => [identityOf(frontend), frontend]));
      for (const frontend of [...(before?.frontends ?? []), ...(before ? [] : (after?.frontends ?? []))]) {
        const current = now.get(identityOf(frontend));
        const gone = frontend.endpoints.filter(
          ({ ip, port }) => !current?.endpoints.some(other => other.ip === ip && other.port === port),
        );
        if (frontend.affinitySeconds !== undefined)
          for (const endpoint of gone) lost.add(endpointData(endpoint).toString('hex'));
        // A flow begun while there was no endpoint leads to the Service's own address.
        const first =
          current !== undefined &&
          current.endpoints.length > 0 &&
          (before === undefined || frontend.endpoints.length === 0);
        if (frontend.protocol === 'UDP' && (gone.length > 0 || first))
          udp.push({ frontend, endpoints: current?.endpoints ?? [] });
      }
    }
    for (const table of this.#tables) {
      const { family } = table.ref;
      const own = udp.filter(({ frontend }) => frontend.family === table.family.number);
      if (own.length > 0) {
        const stale = staleFlows(this.#raw.conntrack({ family, protocol: IPPROTO_UDP }), own, this.#options.nodeIps);
        if (stale.length > 0) this.#raw.deleteConntrack(family, stale);
      }
      if (lost.size === 0) continue;
      const remembered = this.#raw
        .elements(table.ref, 'affinity')
        .filter(({ data }) => data instanceof Uint8Array && lost.has(Buffer.from(data).toString('hex')));
      for (const element of remembered) this.#forgetClient(table, element);
    }
  }

  #forgetClient(table: TableState, element: Element): void {
    try {
      this.#raw.change(table.ref, { remove: [element], add: [] });
    } catch (error) {
      // It may have expired between being listed and now.
      this.#options.log.debug('remembered client not removed', { error: messageOf(error) });
    }
  }
}

function identityOf({ kind, address, protocol, port, family }: Frontend): string {
  return `${kind} ${address ?? family} ${protocol} ${port}`;
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
