/**
 * Claims cluster IPs and node ports while a Service is written. Invariant: an address or node port has one owner from the
 * moment it is claimed until the write failed or the Service no longer has it; what an update drops is freed only when the
 * update is committed.
 */

import type { Service } from '../../api/core/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { fieldErrors, internalError, invalid } from '../../base/errors.ts';
import { SERVICES } from '../../client/resources.ts';
import { countAddress, countPort, type Scope } from '../metrics/allocator-metrics.ts';
import type { Allocator } from '../request.ts';
import type { Family } from './address-range.ts';
import { type Owner, ownerOf } from './claims.ts';
import type { ClusterAddresses } from './cluster-addresses.ts';
import { fillIpFamilies } from './ip-families.ts';
import { type NodePorts, nodePortsOf } from './node-ports.ts';
import {
  clusterIpsOf,
  hasClusterIp,
  hasHealthCheckPort,
  hasNodePorts,
  isHeadless,
  mayHaveNodePorts,
  settleServiceFields,
} from './service-fields.ts';

export interface ServiceAllocatorOptions {
  readonly addresses: ClusterAddresses;
  readonly ports: NodePorts;
}

/** What one write has taken and will give back: undone when it fails, done when it is committed. */
interface Transaction {
  readonly owner: Owner;
  readonly takenAddresses: string[];
  readonly takenPorts: number[];
  readonly dryRun: boolean;
}

export class ServiceAllocator implements Allocator {
  readonly of = SERVICES;
  readonly #addresses: ClusterAddresses;
  readonly #ports: NodePorts;

  constructor({ addresses, ports }: ServiceAllocatorOptions) {
    this.#addresses = addresses;
    this.#ports = ports;
  }

  claim(
    object: KubeObject,
    old: KubeObject | undefined,
    options: { dryRun: boolean },
  ): { committed(): void; failed(): void } {
    const [service, before] = [object as Service, old as Service | undefined];
    const transaction: Transaction = { owner: ownerOf(service), takenAddresses: [], takenPorts: [], ...options };
    const undo = () => {
      for (const address of transaction.takenAddresses) this.#addresses.free(address, transaction.owner);
      for (const port of transaction.takenPorts) this.#ports.free(port, transaction.owner);
    };
    try {
      settleServiceFields(service, before);
      fillIpFamilies(service, before, this.#addresses);
      this.#claimAddresses(service, before, transaction);
      if (mayHaveNodePorts(service.spec!)) {
        if (before) this.#claimChangedPorts(service, before, transaction);
        else this.#claimNewPorts(service, transaction);
      }
      this.#claimHealthCheckPort(service, before, transaction);
    } catch (error) {
      undo();
      throw error;
    }
    if (options.dryRun) {
      undo();
      return { committed() {}, failed() {} };
    }
    const kept = { addresses: new Set(clusterIpsOf(service)), ports: new Set(nodePortsOf(service)) };
    return {
      committed: () => {
        for (const address of transaction.takenAddresses) this.#addresses.record(address);
        if (before) this.#give(before, kept);
      },
      failed: undo,
    };
  }

  release(object: KubeObject): void {
    this.#give(object as Service, { addresses: new Set(), ports: new Set() });
  }

  #give(service: Service, kept: { addresses: ReadonlySet<string>; ports: ReadonlySet<number> }): void {
    const owner = ownerOf(service);
    for (const address of clusterIpsOf(service)) {
      if (kept.addresses.has(address)) continue;
      this.#addresses.free(address, owner);
      this.#addresses.record(address);
    }
    for (const port of nodePortsOf(service)) if (!kept.ports.has(port)) this.#ports.free(port, owner);
  }

  #claimAddresses(service: Service, before: Service | undefined, transaction: Transaction): void {
    const spec = service.spec!;
    if (!hasClusterIp(spec) || isHeadless(spec)) return;
    const held = before ? clusterIpsOf(before) : [];
    const asked = spec.clusterIPs ?? [];
    // A changed address is refused by validation, and a headless Service stays so: nothing may be claimed for either.
    if (before?.spec && isHeadless(before.spec)) return;
    if (held.some((address, index) => asked[index] && asked[index] !== address)) return;
    const result: string[] = [];
    for (const [index, family] of (spec.ipFamilies ?? []).entries()) {
      const wanted = asked[index];
      if (wanted && held.includes(wanted)) {
        result.push(wanted);
        continue;
      }
      const address = wanted ?? this.#addresses.takeNext(family as Family, transaction.owner);
      if (address === undefined) this.#countFull(family as Family, transaction);
      if (address === undefined) throw internalError('failed to allocate a serviceIP: range is full');
      const problem = wanted && this.#addresses.take(wanted, transaction.owner);
      this.#countAddress(address, { scope: wanted ? 'static' : 'dynamic', isTaken: !problem }, transaction);
      if (problem)
        throw invalid({ group: '', kind: 'Service' }, service.metadata.name, [
          fieldErrors.invalid('spec.clusterIPs', asked, `failed to allocate IP ${wanted}: ${problem}`),
        ]);
      transaction.takenAddresses.push(address);
      result.push(address);
    }
    spec.clusterIPs = result;
    spec.clusterIP = result[0]!;
  }

  #countAddress(
    address: string,
    { scope, isTaken }: { scope: Scope; isTaken: boolean },
    { dryRun }: Transaction,
  ): void {
    const cidr = dryRun ? undefined : this.#addresses.cidrOf(address);
    if (cidr !== undefined) countAddress(cidr, scope, isTaken);
  }
  #countFull(family: Family, { dryRun }: Transaction): void {
    if (!dryRun) for (const cidr of this.#addresses.cidrsOf(family)) countAddress(cidr, 'dynamic', false);
  }

  // One number for a port on several protocols, so that DNS has one node port.
  #claimNewPorts(service: Service, transaction: Transaction): void {
    const spec = service.spec!;
    const ports = spec.ports ?? [];
    const numbers = new Map<number, number>();
    for (const [index, port] of ports.entries()) {
      if (!port.nodePort && !hasNodePorts(spec)) continue;
      const shared = numbers.get(port.port);
      const asked = shared === undefined ? ports.find(other => other.port === port.port && other.nodePort) : port;
      if (shared !== undefined && (!port.nodePort || port.nodePort === shared)) port.nodePort = shared;
      else if (asked?.nodePort) port.nodePort = this.#takePort(service, { index, number: asked.nodePort }, transaction);
      else port.nodePort = this.#takeNextPort(transaction, 'failed to allocate a nodePort: range is full');
      if (shared === undefined) numbers.set(port.port, port.nodePort);
    }
  }

  #claimChangedPorts(service: Service, before: Service, transaction: Transaction): void {
    const spec = service.spec!;
    // An ExternalName may name node ports without having them.
    const held =
      before.spec && mayHaveNodePorts(before.spec) ? (before.spec.ports ?? []).map(port => port.nodePort ?? 0) : [];
    for (const [index, port] of (spec.ports ?? []).entries()) {
      const number = port.nodePort;
      if (!number && hasNodePorts(spec))
        port.nodePort = this.#takeNextPort(transaction, 'failed to allocate a nodePort: range is full');
      else if (number && !held.includes(number) && !transaction.takenPorts.includes(number))
        this.#takePort(service, { index, number }, transaction);
    }
  }

  #claimHealthCheckPort(service: Service, before: Service | undefined, transaction: Transaction): void {
    const spec = service.spec!;
    if (!hasHealthCheckPort(spec) || (before?.spec && hasHealthCheckPort(before.spec))) return;
    const wanted = spec.healthCheckNodePort;
    if (wanted) {
      const problem = this.#ports.take(wanted, transaction.owner);
      if (!transaction.dryRun) countPort('static', !problem);
      if (problem) throw internalError(`failed to allocate requested HealthCheck NodePort ${wanted}: ${problem}`);
      transaction.takenPorts.push(wanted);
    } else
      spec.healthCheckNodePort = this.#takeNextPort(
        transaction,
        'failed to allocate a HealthCheck NodePort 0: range is full',
      );
  }

  #takePort(
    service: Service,
    { index, number }: { readonly index: number; readonly number: number },
    transaction: Transaction,
  ): number {
    const problem = this.#ports.take(number, transaction.owner);
    if (!transaction.dryRun) countPort('static', !problem);
    if (problem)
      throw invalid({ group: '', kind: 'Service' }, service.metadata.name, [
        fieldErrors.invalid(`spec.ports[${index}].nodePort`, number, problem),
      ]);
    transaction.takenPorts.push(number);
    return number;
  }

  #takeNextPort(transaction: Transaction, whenFull: string): number {
    const port = this.#ports.takeNext(transaction.owner);
    if (!transaction.dryRun) countPort('dynamic', port !== undefined);
    if (port === undefined) throw internalError(whenFull);
    transaction.takenPorts.push(port);
    return port;
  }
}
