/**
 * Dev mode: Services at the machine's 127.0.0.1. For each node port, and for each port of a Service that has a load
 * balancer's address, there is a socket in the machine's network namespace; what arrives is relayed to that port of a ready node,
 * or to the address, from inside the segment, by a process that outlives this one. It decides nothing: where the bytes go from there
 * is kube-proxy's work.
 * A port that is taken on the machine is said so in an event of the Service, and tried again at the next change.
 */

import type { Node, Service } from '../api/core/v1.gen.ts';
import type { Logger } from '../base/log.ts';
import type { EventRecorder } from '../client/event-recorder.ts';
import type { Informer, InformerFactory } from '../client/informer.ts';
import { NODES, SERVICES } from '../client/resources.ts';
import { RelayDoor, type RelayStart } from '../network/relay-door.ts';
import type { RelayAnswer, RelayEntry } from '../network/relay-process.ts';
import { isApiVirtualAddress } from './api-virtual-address.ts';

interface Entrance {
  readonly service: Service;
  readonly protocol: string;
  readonly port: number;
  /** A load balancer's address; absent for a node port. */
  readonly address?: string;
}

export class Gateway {
  readonly #services: Informer<Service>;
  readonly #nodes: Informer<Node>;
  readonly #relay: RelayDoor;
  readonly #events: EventRecorder;
  readonly #log: Logger;
  #entrances = new Map<string, Entrance>();
  #refused = new Set<string>();

  constructor(options: {
    informers: InformerFactory;
    relay: { readonly start: RelayStart; readonly folder: string };
    events: EventRecorder;
    log: Logger;
  }) {
    this.#services = options.informers.get<Service>(SERVICES);
    this.#nodes = options.informers.get<Node>(NODES);
    this.#events = options.events;
    this.#log = options.log.with({ part: 'gateway' });
    this.#relay = new RelayDoor({
      ...options.relay,
      log: this.#log,
      onRefused: refused => this.#tell(refused),
    });
  }

  /** Until the signal aborts; the ports stay. */
  async run(signal: AbortSignal): Promise<void> {
    const ended = new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true }));
    // A table of half of the Services would close the ports of the others.
    await Promise.race([Promise.all([this.#services.synced, this.#nodes.synced]), ended]);
    let pending = false;
    const reconcile = () => {
      if (pending || signal.aborted) return;
      pending = true;
      setImmediate(() => {
        pending = false;
        if (!signal.aborted) this.#reconcile();
      });
    };
    this.#services.onChange(reconcile);
    this.#nodes.onChange(({ object, old }) => {
      if (!object || !old || readyAddresses(object).join() !== readyAddresses(old).join()) reconcile();
    });
    reconcile();
    await ended;
    this.#relay.close();
  }

  #reconcile(): void {
    this.#entrances = entrances(this.#services.values());
    const nodes = [...this.#nodes.values()].flatMap(readyAddresses);
    const entries: RelayEntry[] = [];
    for (const { service, protocol, port, address } of this.#entrances.values()) {
      if (protocol !== 'TCP' && protocol !== 'UDP') continue;
      // Ready nodes in turn, so that one broken node does not take a port with it for ever; of the Service's first family.
      const isV6 = service.spec.ipFamilies?.[0] === 'IPv6';
      const addresses = address ? [address] : nodes.filter(one => one.includes(':') === isV6);
      entries.push({ protocol, port, targets: addresses.map(target => ({ address: target, port })) });
    }
    this.#relay.apply(entries);
  }

  #tell(refused: RelayAnswer['refused']): void {
    const before = this.#refused;
    this.#refused = new Set(refused.map(({ protocol, port }) => `${protocol}/${port}`));
    for (const { protocol, port, message } of refused) {
      const key = `${protocol}/${port}`;
      const entrance = this.#entrances.get(key);
      if (before.has(key) || !entrance) continue;
      this.#log.warn('port cannot be opened on 127.0.0.1', { port, protocol, error: message });
      this.#events.event(
        entrance.service,
        'Warning',
        'PortNotOpen',
        `127.0.0.1:${port} of the machine cannot be opened for ${protocol} (${message}); inside the cluster nothing is amiss`,
      );
    }
  }
}

/** The node's addresses on the segment while it is Ready. */
function readyAddresses({ status }: Node): string[] {
  if (!status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True')) return [];
  return (status.addresses ?? []).filter(({ type }) => type === 'InternalIP').map(({ address }) => address);
}

/** Of two Services that want one port the older one has it; node ports come before load balancers' ports. */
function entrances(services: Iterable<Service>): Map<string, Entrance> {
  const found = new Map<string, Entrance>();
  const add = (entrance: Entrance) => {
    const key = `${entrance.protocol}/${entrance.port}`;
    if (!found.has(key)) found.set(key, entrance);
  };
  const byAge = [...services]
    .filter(service => !isApiVirtualAddress(service))
    .filter(({ spec }) => spec.ports?.some(({ nodePort }) => nodePort) || spec.type === 'LoadBalancer')
    .sort((a, b) => ((a.metadata.creationTimestamp ?? '') < (b.metadata.creationTimestamp ?? '') ? -1 : 1));
  for (const service of byAge)
    for (const { nodePort, protocol = 'TCP' } of service.spec.ports ?? [])
      if (nodePort) add({ service, protocol, port: nodePort });
  for (const service of byAge) {
    const address = service.status?.loadBalancer?.ingress?.find(({ ip, ipMode }) => ip && ipMode !== 'Proxy')?.ip;
    if (service.spec.type !== 'LoadBalancer' || !address) continue;
    for (const { port, protocol = 'TCP' } of service.spec.ports ?? []) add({ service, protocol, port, address });
  }
  return found;
}
