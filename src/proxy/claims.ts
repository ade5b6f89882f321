/**
 * Who has an address and port that several Services ask for. A Service's own cluster IP and node port come first, then what a
 * load balancer gave, then `externalIPs`; among equals the older Service wins, so that nobody takes traffic from another by
 * asking later, and every node and every restart decides alike.
 */

import type { Frontend, RefusedAddress, ServiceEntry } from './model.ts';

interface Claim {
  readonly entry: ServiceEntry;
  readonly rank: number;
}

const RANKS = { 'cluster-ip': 0, 'node-port': 0, 'load-balancer-ip': 1, 'external-ip': 2 } as const;

export class Claims {
  /** By address, protocol and port: one claim, or several with the winner first. */
  readonly #claims = new Map<string, Claim | readonly Claim[]>();
  readonly #entries = new Map<string, ServiceEntry>();

  /** As last given, whatever others ask for. */
  get(key: string): ServiceEntry | undefined {
    return this.#entries.get(key);
  }

  /** Replaces what the Service asks for. Returns the keys of other Services that gained or lost something by it. */
  set(key: string, entry: ServiceEntry | undefined): Set<string> {
    const others = new Set<string>();
    const before = this.#entries.get(key);
    for (const frontend of before?.frontends ?? []) this.#withdraw(claimKey(frontend), key, others);
    if (entry) this.#entries.set(key, entry);
    else this.#entries.delete(key);
    for (const frontend of entry?.frontends ?? [])
      this.#enter(claimKey(frontend), { entry: entry!, rank: RANKS[frontend.kind] }, others);
    others.delete(key);
    return others;
  }

  /** What the Service gets: the very same entry when nobody else wants any of it. */
  granted(key: string): ServiceEntry | undefined {
    const entry = this.#entries.get(key);
    if (!entry) return undefined;
    let lost: Map<string, RefusedAddress> | undefined;
    const frontends = entry.frontends.filter(frontend => {
      const owner = ownerOf(this.#claims.get(claimKey(frontend)));
      if (owner.key === key) return true;
      const { kind, address = `node port ${frontend.port}` } = frontend;
      lost ??= new Map();
      lost.set(address, {
        field: kind === 'load-balancer-ip' ? 'status.loadBalancer.ingress' : 'spec.externalIPs',
        address,
        because: `taken by Service ${owner.key} for port ${frontend.port}`,
      });
      return false;
    });
    return lost ? { ...entry, frontends, refused: [...(entry.refused ?? []), ...lost.values()] } : entry;
  }

  #enter(at: string, claim: Claim, others: Set<string>): void {
    const present = this.#claims.get(at);
    if (!present) return void this.#claims.set(at, claim);
    const all = (isMany(present) ? [...present] : [present]).filter(({ entry }) => entry.key !== claim.entry.key);
    for (const { entry } of all) others.add(entry.key);
    const sorted = [...all, claim].sort(byRight);
    this.#claims.set(at, sorted.length === 1 ? claim : sorted);
  }

  #withdraw(at: string, key: string, others: Set<string>): void {
    const present = this.#claims.get(at);
    if (!present) return;
    const left = (isMany(present) ? present : [present]).filter(({ entry }) => entry.key !== key);
    for (const { entry } of left) others.add(entry.key);
    if (left.length === 0) this.#claims.delete(at);
    else this.#claims.set(at, left.length === 1 ? left[0]! : left);
  }
}

function isMany(claims: Claim | readonly Claim[]): claims is readonly Claim[] {
  return Array.isArray(claims);
}

function ownerOf(claims: Claim | readonly Claim[] | undefined): ServiceEntry {
  return (isMany(claims!) ? claims[0]! : claims!).entry;
}

function byRight(a: Claim, b: Claim): number {
  if (a.rank !== b.rank) return a.rank - b.rank;
  const [older, younger] = [a.entry.createdAt ?? '', b.entry.createdAt ?? ''];
  if (older !== younger) return older < younger ? -1 : 1;
  return a.entry.key < b.entry.key ? -1 : 1;
}

function claimKey({ address, family, protocol, port }: Frontend): string {
  return `${address ?? family} ${protocol} ${port}`;
}
