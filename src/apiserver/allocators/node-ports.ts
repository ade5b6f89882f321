/**
 * The node ports: which Service owns which. Ownership in memory decides; it is rebuilt from the Services at the first use.
 * Invariant: a port has at most one owner.
 */

import type { Service } from '../../api/core/v1.gen.ts';
import type { Random } from '../../base/random.ts';
import { SERVICES } from '../../client/resources.ts';
import { tellPorts } from '../metrics/allocator-metrics.ts';
import type { Reader } from '../request.ts';
import { type Band, findFree, type Owner, ownerOf } from './claims.ts';

export interface NodePortsOptions {
  readonly reader: () => Reader;
  readonly random: Random;
  readonly range: { readonly first: number; readonly last: number };
}

export class NodePorts {
  readonly #options: NodePortsOptions;
  readonly #owners = new Map<number, Owner>();
  readonly #band: Band;
  #loaded = false;

  constructor(options: NodePortsOptions) {
    this.#options = options;
    const { first, last } = options.range;
    const size = last - first + 1;
    // min(max(16, size / 32), 128) ports are left for people to choose (KEP-3668).
    const staticSize = size < 16 ? 0 : Math.min(Math.max(16, Math.floor(size / 32)), 128);
    this.#band = { first, last, dynamicFirst: first + (staticSize >= size ? 0 : staticSize) };
    tellPorts(() => ({ allocated: this.#owners.size, size }));
  }

  get range(): string {
    return `${this.#band.first}-${this.#band.last}`;
  }
  contains(port: number): boolean {
    return port >= this.#band.first && port <= this.#band.last;
  }
  /** What is taken, by port. */
  owners(): ReadonlyMap<number, Owner> {
    this.#load();
    return this.#owners;
  }

  /** Takes a port. Returns what is wrong with it, in upstream's words, or undefined when it is now the owner's. */
  take(port: number, owner: Owner): string | undefined {
    this.#load();
    if (!this.contains(port))
      return `provided port is not in the valid range. The range of valid ports is ${this.range}`;
    if (this.#owners.has(port)) return 'provided port is already allocated';
    this.#owners.set(port, owner);
    return undefined;
  }
  /** Takes any free port; undefined when all are taken. */
  takeNext(owner: Owner): number | undefined {
    this.#load();
    const port = findFree(this.#band, candidate => !this.#owners.has(candidate), this.#options.random);
    if (port !== undefined) this.#owners.set(port, owner);
    return port;
  }
  /** Frees the port if it is the owner's. */
  free(port: number, owner: Owner): void {
    if (this.#owners.get(port) === owner) this.#owners.delete(port);
  }

  #load(): void {
    if (this.#loaded) return;
    this.#loaded = true;
    for (const service of this.#options.reader().list(SERVICES) as readonly Service[])
      for (const port of nodePortsOf(service)) if (!this.#owners.has(port)) this.#owners.set(port, ownerOf(service));
  }
}

/** Those of its ports and that of its health check, each once; none of an ExternalName, which may name some without having them. */
export function nodePortsOf({ spec }: Service): number[] {
  if (!spec || spec.type === 'ExternalName') return [];
  const ports = new Set((spec.ports ?? []).map(port => port.nodePort ?? 0));
  ports.add(spec.healthCheckNodePort ?? 0);
  ports.delete(0);
  return [...ports];
}
