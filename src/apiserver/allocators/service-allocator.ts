/**
 * Claims cluster IPs and node ports while a Service is written. Invariant: an address or node port has one owner from the
 * moment it is claimed until the write failed or the Service no longer has it; what an update drops is freed only when the
 * update is committed.
 */

import type { Service } from '../../api/core/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { fieldErrors, internalError, invalid } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { SERVICES } from '../../client/resources.ts';
import type { Allocator, Reader } from '../request.ts';
import { canonicalAddress, type Family } from './address-range.ts';
import { type Band, findFree, type Owner } from './claims.ts';
import { type ClusterAddresses, ownerOf } from './cluster-addresses.ts';
import { fillIpFamilies } from './ip-families.ts';
import { hasClusterIp, hasHealthCheckPort, hasNodePorts, isHeadless, settleServiceFields } from './service-fields.ts';

export interface ServiceAllocatorOptions {
  readonly addresses: ClusterAddresses;
  readonly reader: () => Reader;
  readonly random: Random;
  readonly log: Logger;
  readonly nodePortRange: { readonly first: number; readonly last: number };
}

/** What one write has taken and will give back: undone when it fails, done when it is committed. */
interface Transaction {
  readonly owner: Owner;
  readonly takenAddresses: string[];
  readonly takenPorts: number[];
}

export class ServiceAllocator implements Allocator {
  readonly of = SERVICES;
  readonly #options: ServiceAllocatorOptions;
  readonly #ports = new Map<number, Owner>();
  readonly #band: Band;
  #loaded = false;

  constructor(options: ServiceAllocatorOptions) {
    this.#options = options;
    const { first, last } = options.nodePortRange;
    const size = last - first + 1;
    // min(max(16, size / 32), 128) ports are left for people to choose (KEP-3668).
    const staticSize = size < 16 ? 0 : Math.min(Math.max(16, Math.floor(size / 32)), 128);
    this.#band = { first, last, dynamicFirst: first + (staticSize >= size ? 0 : staticSize) };
  }

  claim(
    object: KubeObject,
    old: KubeObject | undefined,
    options: { dryRun: boolean },
  ): { committed(): void; failed(): void } {
    this.#load();
    const [service, before] = [object as Service, old as Service | undefined];
    if (!isWellFormed(service)) return { committed() {}, failed() {} };
    const transaction: Transaction = { owner: ownerOf(service), takenAddresses: [], takenPorts: [] };
    const undo = () => {
      for (const address of transaction.takenAddresses) this.#options.addresses.free(address, transaction.owner);
      for (const port of transaction.takenPorts) this.#freePort(port, transaction.owner);
    };
    try {
      settleServiceFields(service, before);
      fillIpFamilies(service, before, this.#options.addresses);
      this.#claimAddresses(service, before, transaction);
      this.#claimPorts(service, before, transaction);
      this.#claimHealthCheckPort(service, before, transaction);
    } catch (error) {
      undo();
      throw error;
    }
    if (options.dryRun) {
      undo();
      return { committed() {}, failed() {} };
    }
    const kept = { addresses: new Set(addressesOf(service)), ports: new Set(portsOf(service)) };
    return {
      committed: () => {
        for (const address of transaction.takenAddresses) this.#options.addresses.record(address);
        if (before) this.#give(before, kept);
      },
      failed: undo,
    };
  }

  release(object: KubeObject): void {
    this.#load();
    this.#give(object as Service, { addresses: new Set(), ports: new Set() });
  }

  #give(service: Service, kept: { addresses: ReadonlySet<string>; ports: ReadonlySet<number> }): void {
    const owner = ownerOf(service);
    for (const address of addressesOf(service)) {
      if (kept.addresses.has(address)) continue;
      this.#options.addresses.free(address, owner);
      this.#options.addresses.record(address);
    }
    for (const port of portsOf(service)) if (!kept.ports.has(port)) this.#freePort(port, owner);
  }

  #claimAddresses(service: Service, before: Service | undefined, transaction: Transaction): void {
    const spec = service.spec!;
    if (!hasClusterIp(spec) || isHeadless(spec)) return;
    const { addresses } = this.#options;
    const held = new Set(before ? addressesOf(before) : []);
    const asked = spec.clusterIPs ?? [];
    const result: string[] = [];
    for (const [index, family] of (spec.ipFamilies ?? []).entries()) {
      const wanted = asked[index];
      if (wanted && held.has(wanted)) {
        result.push(wanted);
        continue;
      }
      if (wanted) {
        const problem = addresses.take(wanted, transaction.owner);
        if (problem)
          throw invalid({ group: '', kind: 'Service' }, service.metadata.name, [
            fieldErrors.invalid('spec.clusterIPs', asked, `failed to allocate IP ${wanted}: ${problem}`),
          ]);
        transaction.takenAddresses.push(wanted);
        result.push(wanted);
        continue;
      }
      const address = addresses.takeNext(family as Family, transaction.owner);
      if (address === undefined) throw internalError('failed to allocate a serviceIP: range is full');
      transaction.takenAddresses.push(address);
      result.push(address);
    }
    spec.clusterIPs = result;
    spec.clusterIP = result[0]!;
  }

  #claimPorts(service: Service, before: Service | undefined, transaction: Transaction): void {
    const spec = service.spec!;
    if (spec.type !== 'NodePort' && spec.type !== 'LoadBalancer') return;
    const held = new Set(before ? portsOf(before) : []);
    const ports = spec.ports ?? [];
    // One port number serves TCP and UDP of the same port, so that `53` is one node port.
    const byPort = new Map<number, number>();
    for (const [index, port] of ports.entries()) {
      if (!port.nodePort) continue;
      const number = port.nodePort;
      if (!byPort.has(port.port)) byPort.set(port.port, number);
      if (held.has(number) || transaction.takenPorts.includes(number)) continue;
      const problem = this.#takePort(number, transaction);
      if (problem)
        throw invalid({ group: '', kind: 'Service' }, service.metadata.name, [
          fieldErrors.invalid(`spec.ports[${index}].nodePort`, number, problem),
        ]);
    }
    if (!hasNodePorts(spec)) return;
    for (const port of ports) {
      if (port.nodePort) continue;
      const shared = byPort.get(port.port);
      const clashes = ports.some(
        other => other !== port && other.nodePort === shared && (other.protocol ?? 'TCP') === (port.protocol ?? 'TCP'),
      );
      port.nodePort =
        shared !== undefined && !clashes
          ? shared
          : this.#takeNextPort(transaction, 'failed to allocate a nodePort: range is full');
      byPort.set(port.port, port.nodePort);
    }
  }

  #claimHealthCheckPort(service: Service, before: Service | undefined, transaction: Transaction): void {
    const spec = service.spec!;
    if (!hasHealthCheckPort(spec)) return;
    const wanted = spec.healthCheckNodePort;
    if (!wanted) {
      spec.healthCheckNodePort = this.#takeNextPort(
        transaction,
        'failed to allocate a HealthCheck NodePort 0: range is full',
      );
      return;
    }
    if (before?.spec?.healthCheckNodePort === wanted && hasHealthCheckPort(before.spec)) return;
    const problem = this.#takePort(wanted, transaction);
    if (problem) throw internalError(`failed to allocate requested HealthCheck NodePort ${wanted}: ${problem}`);
  }

  #takePort(port: number, transaction: Transaction): string | undefined {
    const { first, last } = this.#band;
    if (port < first || port > last)
      return `provided port is not in the valid range. The range of valid ports is ${first}-${last}`;
    if (this.#ports.has(port)) return 'provided port is already allocated';
    this.#ports.set(port, transaction.owner);
    transaction.takenPorts.push(port);
    return undefined;
  }

  #takeNextPort(transaction: Transaction, whenFull: string): number {
    const port = findFree(this.#band, candidate => !this.#ports.has(candidate), this.#options.random);
    if (port === undefined) throw internalError(whenFull);
    this.#ports.set(port, transaction.owner);
    transaction.takenPorts.push(port);
    return port;
  }

  #freePort(port: number, owner: Owner): void {
    if (this.#ports.get(port) === owner) this.#ports.delete(port);
  }

  #load(): void {
    if (this.#loaded) return;
    this.#loaded = true;
    for (const service of this.#options.reader().list(SERVICES) as readonly Service[])
      for (const port of portsOf(service)) {
        const [owner, other] = [ownerOf(service), this.#ports.get(port)];
        if (other !== undefined) this.#options.log.error('two Services have one node port', { port, owner, other });
        else this.#ports.set(port, owner);
      }
  }
}

// Validation, which comes after the claims, refuses the rest with better words.
function isWellFormed({ spec }: Service): boolean {
  if (!spec) return false;
  const addresses = [spec.clusterIP, ...(spec.clusterIPs ?? [])].filter(address => address && address !== 'None');
  const families = (spec.ipFamilies ?? []).every(family => family === 'IPv4' || family === 'IPv6');
  return (
    families &&
    (spec.clusterIPs?.length ?? 0) <= 2 &&
    addresses.every(address => canonicalAddress(address!) !== undefined)
  );
}

function addressesOf(service: Service): string[] {
  const spec = service.spec;
  if (!spec || !hasClusterIp(spec) || isHeadless(spec)) return [];
  return (spec.clusterIPs ?? (spec.clusterIP ? [spec.clusterIP] : [])).filter(Boolean);
}

function portsOf(service: Service): number[] {
  const spec = service.spec;
  if (!spec) return [];
  const ports = new Set((spec.ports ?? []).map(port => port.nodePort ?? 0));
  if (spec.healthCheckNodePort) ports.add(spec.healthCheckNodePort);
  ports.delete(0);
  return [...ports];
}
