/**
 * Looks for what must not be: cluster IPs and node ports that Services have and nobody allocated, that two have or that lie
 * outside the ranges; allocations and IPAddress objects that belong to no Service. Repairs what can be, tells the rest in
 * events of upstream's repair controllers. IPAddress objects are looked at when they change, all else from time to time.
 */

import type { Service } from '../../api/core/v1.gen.ts';
import { canonicalIp } from '../../api/machinery/names.ts';
import type { IPAddress } from '../../api/networking/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { ApiEventRecorder, type EventRecorder } from '../../client/event-recorder.ts';
import { IP_ADDRESSES, SERVICES } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import type { Reader } from '../request.ts';
import { familyOf } from './address-range.ts';
import { type Owner, ownerOf } from './claims.ts';
import { type ClusterAddresses, isOurs, isRightRecord, parentOf, RESERVED } from './cluster-addresses.ts';
import { type NodePorts, nodePortsOf } from './node-ports.ts';
import { clusterIpsOf } from './service-fields.ts';

const PASS_MS = 3 * 60_000;
const SLICE_MS = 3;
/** An IPAddress may be there before its Service is, for as long as a request may take. */
const ORPHAN_MS = 60_000;
/** A Service that is just being written has no object yet: its claims are freed only when seen this often. */
const LEAK_PASSES = 3;

export interface AllocationRepairOptions {
  readonly addresses: ClusterAddresses;
  readonly ports: NodePorts;
  readonly reader: () => Reader;
  readonly transport: () => Transport;
  readonly clock: Clock;
  readonly log: Logger;
}

export class AllocationRepair {
  readonly #options: AllocationRepairOptions;
  readonly #addressEvents: EventRecorder;
  readonly #portEvents: EventRecorder;
  readonly #suspects = new Map<string, number>();

  /** Nothing is read before `start`. */
  constructor(options: AllocationRepairOptions) {
    this.#options = options;
    const { transport, clock, log } = options;
    const recorder = (component: string) => new ApiEventRecorder({ transport: transport(), component, clock, log });
    this.#addressEvents = recorder('ipallocator-repair-controller');
    this.#portEvents = recorder('portallocator-repair-controller');
  }

  start(): void {
    const { clock, reader, log } = this.#options;
    reader().onChange(IP_ADDRESSES, (object, old) => this.#checkRecord((object ?? old)!.metadata.name));
    const pass = () =>
      void this.run()
        .catch(error => log.warn('allocations not checked', { error: messageOf(error) }))
        .then(() => clock.after(PASS_MS, pass, { background: true }));
    pass();
  }

  /** One pass over everything, in slices: requests are served between them. */
  async run(): Promise<void> {
    const { addresses, ports, reader, clock } = this.#options;
    let sliceMs = clock.monotonic();
    const each = async <T>(items: Iterable<T>, check: (item: T) => void) => {
      for (const item of items) {
        check(item);
        if (clock.monotonic() - sliceMs < SLICE_MS) continue;
        await new Promise(resolve => setImmediate(resolve));
        sliceMs = clock.monotonic();
      }
    };
    await each([...reader().list(SERVICES)], ({ metadata }) => {
      // As it is by now.
      const service = reader().get(SERVICES, metadata.namespace ?? '', metadata.name) as Service | undefined;
      if (!service) return;
      for (const address of clusterIpsOf(service)) this.#checkAddress(service, address);
      this.#checkPorts(service);
    });
    const found = new Set<string>();
    await each([...addresses.owners()], ([address, owner]) => {
      if (owner === RESERVED || this.#holds(owner, address)) return;
      this.#leaked({ what: `address ${address}`, found }, () => {
        addresses.free(address, owner);
        addresses.record(address);
      });
    });
    await each([...ports.owners()], ([port, owner]) => {
      const service = this.#serviceOf(owner);
      if (!service || !nodePortsOf(service).includes(port))
        this.#leaked({ what: `port ${port}`, found }, () => ports.free(port, owner));
    });
    for (const suspect of this.#suspects.keys()) if (!found.has(suspect)) this.#suspects.delete(suspect);
    await each([...reader().list(IP_ADDRESSES)], ({ metadata }) => this.#checkRecord(metadata.name));
  }

  #leaked({ what, found }: { what: string; found: Set<string> }, free: () => void): void {
    const passes = (this.#suspects.get(what) ?? 0) + 1;
    found.add(what);
    this.#suspects.set(what, passes);
    if (passes < LEAK_PASSES) return;
    this.#options.log.warn('an allocation of no Service is freed', { what });
    this.#suspects.delete(what);
    free();
  }

  #checkAddress(service: Service, ip: string): void {
    const { addresses, reader } = this.#options;
    const tell = (reason: string, message: string) => this.#addressEvents.event(service, 'Warning', reason, message);
    const address = canonicalIp(ip);
    if (address === undefined)
      return tell('ClusterIPNotValid', `Cluster IP ${ip} is not a valid IP; please recreate Service`);
    const named = `[${familyOf(address)}]: ${address}`;
    if (!addresses.isInRange(address))
      return tell(
        'ClusterIPOutOfRange',
        `Cluster IP ${named} is not within any configured Service CIDR; please recreate service`,
      );
    const owner = ownerOf(service);
    const held = addresses.ownerOf(address);
    if (held === undefined) addresses.take(address, owner);
    else if (held !== owner && held !== RESERVED)
      return tell(
        'ClusterIPAlreadyAllocated',
        `Cluster IP [${familyOf(address)}]:${address} was assigned to multiple services; please recreate service`,
      );
    const isRecorded = reader().get(IP_ADDRESSES, '', address) !== undefined;
    if (held === owner && (isRecorded || addresses.isPending(address))) return;
    tell('ClusterIPNotAllocated', `Cluster IP ${named} is not allocated; repairing`);
    addresses.record(address);
  }

  #checkPorts(service: Service): void {
    const { ports } = this.#options;
    const owner = ownerOf(service);
    for (const port of nodePortsOf(service)) {
      const tell = (reason: string, message: string) => this.#portEvents.event(service, 'Warning', reason, message);
      const held = ports.owners().get(port);
      if (!ports.contains(port))
        tell('PortOutOfRange', `Port ${port} is not within the port range ${ports.range}; please recreate service`);
      else if (held === undefined) {
        ports.take(port, owner);
        tell('PortNotAllocated', `Port ${port} is not allocated; repairing`);
      } else if (held !== owner)
        tell('PortAlreadyAllocated', `Port ${port} was assigned to multiple services; please recreate service`);
    }
  }

  // An IPAddress object that came, changed or went.
  #checkRecord(address: string): void {
    const { addresses, reader, clock } = this.#options;
    if (addresses.isPending(address)) return;
    const object = reader().get(IP_ADDRESSES, '', address) as IPAddress | undefined;
    const owner = addresses.ownerOf(address);
    const service = owner && this.#serviceOf(owner);
    if (service && this.#holds(owner, address)) {
      if (object && isRightRecord(object, owner)) return;
      const named = `[${familyOf(address)}]: ${address}`;
      if (!object || !isSameParent(object, owner))
        this.#addressEvents.event(
          service,
          'Warning',
          'ClusterIPNotAllocated',
          object
            ? `the ClusterIP ${named} for Service ${owner} has a wrong reference; repairing`
            : `Cluster IP ${named} is not allocated; repairing`,
        );
      return addresses.record(address);
    }
    if (!object || !isOurs(object)) return;
    const parent = object.spec?.parentRef;
    const discard = (reason: string, message: string) => {
      this.#addressEvents.event(object, 'Warning', reason, message);
      addresses.record(address);
    };
    if (parent?.group || parent?.resource !== 'services')
      return discard(
        'IPAddressNotAllocated',
        `IPAddress ${address} appears to have been modified, not referencing a Service ${JSON.stringify(parent)}: cleaning up`,
      );
    if (this.#serviceOf(parentOf(object)))
      return discard(
        'IPAddressWrongReference',
        `IPAddress: ${address} for Service ${parentOf(object)} has a wrong reference; cleaning up`,
      );
    const ageMs = clock.now() - Date.parse(object.metadata.creationTimestamp ?? '');
    if (ageMs < ORPHAN_MS) clock.after(ORPHAN_MS - ageMs + 1, () => this.#checkRecord(address), { background: true });
    else
      discard(
        'IPAddressNotAllocated',
        `IPAddress: ${address} for Service ${parentOf(object)} appears to have leaked: cleaning up`,
      );
  }

  #holds(owner: Owner, address: string): boolean {
    const service = this.#serviceOf(owner);
    return service !== undefined && clusterIpsOf(service).some(ip => canonicalIp(ip) === address);
  }

  #serviceOf(owner: Owner): Service | undefined {
    const [namespace = '', name = ''] = owner.split('/');
    return this.#options.reader().get(SERVICES, namespace, name) as Service | undefined;
  }
}

function isSameParent(object: IPAddress, owner: Owner): boolean {
  const { group, resource } = object.spec?.parentRef ?? {};
  return !group && resource === 'services' && parentOf(object) === owner;
}
