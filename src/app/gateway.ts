/**
 * Dev mode: Services at the machine's 127.0.0.1. For each node port, and for each port of a Service that has a load
 * balancer's address, there is a socket in the machine's network namespace; what arrives is relayed to that port of a ready node,
 * or to the address, from inside the segment. It decides nothing: where the bytes go from there is kube-proxy's work.
 * A port that is taken on the machine is said so in an event of the Service, and tried again at the next change.
 */

import type { Node, Service } from '../api/core/v1.gen.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { EventRecorder } from '../client/event-recorder.ts';
import type { Informer, InformerFactory } from '../client/informer.ts';
import { NODES, SERVICES } from '../client/resources.ts';
import { isApiVirtualAddress } from './api-virtual-address.ts';
import { type Relay, relayTcp, relayUdp } from './relay.ts';

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
  readonly #machineNetns: number;
  readonly #events: EventRecorder;
  readonly #log: Logger;
  /** `TCP/30080` → its socket, and where it leads. */
  readonly #open = new Map<string, { readonly relay: Relay; entrance: Entrance }>();
  readonly #refused = new Set<string>();
  #turn = 0;

  constructor(options: { informers: InformerFactory; machineNetns: number; events: EventRecorder; log: Logger }) {
    this.#services = options.informers.get<Service>(SERVICES);
    this.#nodes = options.informers.get<Node>(NODES);
    this.#machineNetns = options.machineNetns;
    this.#events = options.events;
    this.#log = options.log.with({ part: 'gateway' });
  }

  async run(signal: AbortSignal): Promise<void> {
    let pending = false;
    this.#services.onChange(() => {
      if (pending) return;
      pending = true;
      setImmediate(() => {
        pending = false;
        if (!signal.aborted) this.#reconcile();
      });
    });
    await new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true }));
    for (const { relay } of this.#open.values()) relay.close();
    this.#open.clear();
  }

  #reconcile(): void {
    const wanted = entrances(this.#services.values());
    for (const [key, { relay }] of this.#open) {
      if (wanted.has(key)) continue;
      relay.close();
      this.#open.delete(key);
    }
    for (const key of this.#refused) if (!wanted.has(key)) this.#refused.delete(key);
    for (const [key, entrance] of wanted) {
      const open = this.#open.get(key);
      if (open) open.entrance = entrance;
      else this.#enter(key, entrance);
    }
  }

  #enter(key: string, entrance: Entrance): void {
    const { protocol, port } = entrance;
    const target = () => {
      const { address, service } = this.#open.get(key)?.entrance ?? entrance;
      return address ?? this.#nodeAddress(service);
    };
    const relay = { TCP: relayTcp, UDP: relayUdp }[protocol];
    if (!relay) return;
    try {
      this.#open.set(key, {
        relay: relay({ namespace: this.#machineNetns, port, target, log: this.#log }),
        entrance,
      });
      this.#refused.delete(key);
    } catch (error) {
      if (this.#refused.has(key)) return;
      this.#refused.add(key);
      this.#log.warn('port cannot be opened on 127.0.0.1', { port, protocol, error: messageOf(error) });
      this.#events.event(
        entrance.service,
        'Warning',
        'PortNotOpen',
        `127.0.0.1:${port} of the machine cannot be opened for ${protocol} (${messageOf(error)}); inside the cluster nothing is amiss`,
      );
    }
  }

  /** Ready nodes in turn, so that one broken node does not take a port with it for ever; of the Service's first family. */
  #nodeAddress({ spec }: Service): string | undefined {
    const isV6 = spec.ipFamilies?.[0] === 'IPv6';
    const ready = [...this.#nodes.values()].filter(node =>
      node.status?.conditions?.some(condition => condition.type === 'Ready' && condition.status === 'True'),
    );
    const node = ready[this.#turn++ % Math.max(ready.length, 1)];
    return node?.status?.addresses?.find(({ type, address }) => type === 'InternalIP' && address.includes(':') === isV6)
      ?.address;
  }
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
