/**
 * The ClusterIPs: which Service owns which address, over all ServiceCIDRs, and the IPAddress objects that say so in the
 * API. Ownership in memory decides (it is rebuilt from Services and IPAddresses at the first use); IPAddress objects
 * follow it. An address that a user reserved with an IPAddress of their own is never given to a Service.
 */

import type { Service } from '../../api/core/v1.gen.ts';
import { canonicalIp } from '../../api/machinery/names.ts';
import type { IPAddress, ServiceCIDR } from '../../api/networking/v1.gen.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { IP_ADDRESSES, SERVICE_CIDRS, SERVICES } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import { tellAddresses } from '../metrics/allocator-metrics.ts';
import type { Reader } from '../request.ts';
import { AddressRange, type Family, familyOf } from './address-range.ts';
import { findFree, type Owner, ownerOf } from './claims.ts';
import { clusterIpsOf } from './service-fields.ts';

/** The ServiceCIDR of the cluster's own ranges. */
export const DEFAULT_SERVICE_CIDR = 'kubernetes';
const MANAGER = 'ipallocator.k8s.io';
const MANAGED_BY = 'ipaddress.kubernetes.io/managed-by';
const IP_FAMILY = 'ipaddress.kubernetes.io/ip-family';
/** Owner of an address whose IPAddress object a user made. */
export const RESERVED = '(IPAddress)';
/** IPAddress writes under way at once: as many as share a flush of the store, which costs more than most of them. */
const RECORD_WORKERS = 32;

export interface ClusterAddressesOptions {
  readonly reader: () => Reader;
  readonly transport: () => Transport;
  readonly random: Random;
  readonly log: Logger;
  /** The ranges of the ServiceCIDR `kubernetes`; the first one's family is the default. */
  readonly cidrs: readonly string[];
}

export class ClusterAddresses {
  readonly #options: ClusterAddressesOptions;
  readonly #owners = new Map<string, Owner>();
  readonly #defaults: readonly AddressRange[];
  /** Those that addresses are given from. */
  #ranges: readonly AddressRange[];
  /** Also those of ServiceCIDRs that are on their way out. */
  #allRanges: readonly AddressRange[];
  #loaded = false;
  readonly #pending = new Set<string>();
  readonly #writing = new Set<string>();
  #workers = 0;

  constructor(options: ClusterAddressesOptions) {
    this.#options = options;
    this.#defaults = options.cidrs.map(cidr => new AddressRange(cidr));
    this.#ranges = this.#defaults;
    this.#allRanges = this.#defaults;
    tellAddresses(() => this.#use());
  }

  get defaultFamily(): Family {
    return this.#defaults[0]!.family;
  }
  /** As the server was told: a ServiceCIDR of another family adds none. */
  hasFamily(family: Family): boolean {
    return this.#defaults.some(range => range.family === family);
  }
  /** Within the range of some ServiceCIDR, be it ready or not. */
  isInRange(address: string): boolean {
    this.#load();
    return this.#allRanges.some(range => range.offsetOf(address) !== undefined);
  }
  /** The ranges that the family's addresses are given from. */
  cidrsOf(family: Family): string[] {
    return this.#ranges.filter(range => range.family === family).map(({ cidr }) => cidr);
  }
  /** The range that the address would be given from. */
  cidrOf(address: string): string | undefined {
    return this.#rangeOf(address)?.cidr;
  }
  /** What is taken, by address. */
  owners(): ReadonlyMap<string, Owner> {
    this.#load();
    return this.#owners;
  }
  ownerOf(address: string): Owner | undefined {
    this.#load();
    return this.#owners.get(canonicalIp(address) ?? address);
  }

  /** Takes an address. Returns what is wrong with it, in upstream's words, or undefined when it is now the owner's. */
  take(address: string, owner: Owner): string | undefined {
    this.#load();
    const canonical = canonicalIp(address);
    if (canonical === undefined) return 'the provided network does not match the current range';
    const range = this.#rangeOf(canonical);
    if (!range) return 'the provided network does not match the current range';
    const offset = range.offsetOf(canonical)!;
    if (offset < 1 || offset > range.size)
      return `the provided IP (${canonical}) is not in the valid range. The range of valid IPs is ${range.cidr}`;
    if (this.#owners.has(canonical)) return 'provided IP is already allocated';
    this.#owners.set(canonical, owner);
    return undefined;
  }

  /** Takes any free address of the family; undefined when all ranges are full. */
  takeNext(family: Family, owner: Owner): string | undefined {
    this.#load();
    for (const range of this.#ranges) {
      if (range.family !== family) continue;
      const band = { first: 1, last: range.size, dynamicFirst: range.staticSize + 1 };
      const offset = findFree(band, candidate => !this.#owners.has(range.at(candidate)), this.#options.random);
      if (offset === undefined) continue;
      const address = range.at(offset);
      this.#owners.set(address, owner);
      return address;
    }
    return undefined;
  }

  /** Frees the address if it is the owner's. */
  free(address: string, owner: Owner): void {
    const canonical = canonicalIp(address) ?? address;
    if (this.#owners.get(canonical) === owner) this.#owners.delete(canonical);
  }

  /** Brings the IPAddress object of the address in line with its owner, soon. */
  record(address: string): void {
    this.#pending.add(canonicalIp(address) ?? address);
    while (this.#workers < RECORD_WORKERS && this.#workers < this.#pending.size) {
      this.#workers++;
      void this.#work();
    }
  }

  /** Its IPAddress object is about to be written. */
  isPending(address: string): boolean {
    return this.#pending.has(address) || this.#writing.has(address);
  }

  #rangeOf(address: string): AddressRange | undefined {
    return this.#ranges.find(candidate => candidate.offsetOf(address) !== undefined);
  }
  #use(): { cidr: string; allocated: number; size: number }[] {
    const taken = new Map<string, number>();
    for (const address of this.#owners.keys()) {
      const cidr = this.cidrOf(address);
      if (cidr !== undefined) taken.set(cidr, (taken.get(cidr) ?? 0) + 1);
    }
    return this.#ranges.map(({ cidr, size }) => ({ cidr, size, allocated: taken.get(cidr) ?? 0 }));
  }
  #load(): void {
    if (this.#loaded) return;
    this.#loaded = true;
    const reader = this.#options.reader();
    for (const service of reader.list(SERVICES) as readonly Service[]) {
      for (const address of clusterIpsOf(service)) {
        const canonical = canonicalIp(address);
        if (canonical !== undefined && !this.#owners.has(canonical)) this.#owners.set(canonical, ownerOf(service));
      }
    }
    const changed = (object: IPAddress | undefined, old: IPAddress | undefined) => {
      const name = (object ?? old)!.metadata.name;
      if (object && !isOurs(object) && !this.#owners.has(name)) this.#owners.set(name, RESERVED);
      if (!object && this.#owners.get(name) === RESERVED) this.#owners.delete(name);
    };
    for (const object of reader.list(IP_ADDRESSES) as readonly IPAddress[]) changed(object, undefined);
    reader.onChange(IP_ADDRESSES, (object, old) =>
      changed(object as IPAddress | undefined, old as IPAddress | undefined),
    );
    const readRanges = () => this.#readRanges(reader.list(SERVICE_CIDRS) as readonly ServiceCIDR[]);
    readRanges();
    reader.onChange(SERVICE_CIDRS, readRanges);
  }

  #readRanges(objects: readonly ServiceCIDR[]): void {
    const ready = new Map<string, AddressRange>();
    const all = new Map<string, AddressRange>();
    const add = (range: AddressRange, isReady: boolean) => {
      all.set(range.cidr, range);
      if (isReady) ready.set(range.cidr, range);
    };
    // Until the object says otherwise, or while somebody has removed it, the server goes by what it was told.
    if (!objects.some(({ metadata }) => metadata.name === DEFAULT_SERVICE_CIDR))
      for (const range of this.#defaults) add(range, true);
    for (const { metadata, spec, status } of objects) {
      const condition = status?.conditions?.find(({ type }) => type === 'Ready');
      const isReady = !metadata.deletionTimestamp && condition?.status !== 'False';
      for (const cidr of spec?.cidrs ?? []) add(new AddressRange(cidr), isReady);
    }
    this.#ranges = [...ready.values()];
    this.#allRanges = [...all.values()];
  }

  async #work(): Promise<void> {
    for (const address of this.#pending) {
      this.#pending.delete(address);
      this.#writing.add(address);
      await this.#reconcile(address).catch(error =>
        this.#options.log.warn('IPAddress could not be written', { address, error: messageOf(error) }),
      );
      this.#writing.delete(address);
    }
    this.#workers--;
  }

  // Level-triggered: whatever happened before, the object ends up as the owner says.
  async #reconcile(address: string): Promise<void> {
    const target = { of: IP_ADDRESSES, name: address };
    const existing = this.#options.reader().get(IP_ADDRESSES, '', address) as IPAddress | undefined;
    const owner = this.#owners.get(address);
    if (owner === RESERVED || (owner === undefined && existing && !isOurs(existing))) return;
    try {
      if (existing && (owner === undefined || !isRightRecord(existing, owner)))
        await this.#options.transport().delete(target, { preconditions: { uid: existing.metadata.uid! } });
      else if (existing) return;
      if (this.#owners.get(address) === owner && owner !== undefined)
        await this.#options.transport().create(target, ipAddress(address, owner));
    } catch (error) {
      if (!isReason(error, 'NotFound', 'AlreadyExists', 'Conflict')) throw error;
    }
    // The owner may have changed while the write was under way.
    if (this.#owners.get(address) !== owner) this.#pending.add(address);
  }
}

/** Written by the allocator, as its label says. */
export const isOurs = (object: IPAddress): boolean => object.metadata.labels?.[MANAGED_BY] === MANAGER;
/** With the labels and the reference that the allocator writes. */
export function isRightRecord(object: IPAddress, owner: Owner): boolean {
  const { group, resource } = object.spec?.parentRef ?? {};
  return (
    isOurs(object) &&
    object.metadata.labels?.[IP_FAMILY] === familyOf(object.metadata.name) &&
    !group &&
    resource === 'services' &&
    parentOf(object) === owner
  );
}
export const parentOf = ({ spec }: IPAddress): Owner => `${spec?.parentRef?.namespace}/${spec?.parentRef?.name}`;

function ipAddress(address: string, owner: Owner): IPAddress {
  const [namespace, name] = owner.split('/') as [string, string];
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'IPAddress',
    metadata: {
      name: address,
      labels: { [IP_FAMILY]: familyOf(address), [MANAGED_BY]: MANAGER },
    },
    spec: { parentRef: { group: '', resource: 'services', namespace, name } },
  };
}
