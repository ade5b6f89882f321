/**
 * The node's side of on-premises load balancing, as MetalLB's speaker: watches Services, endpoints and nodes, works out what this
 * node announces, and has layer 2 and BGP do it. Costs nothing until a Service has an address of a pool. Addresses announced stay so
 * when this process ends: the kernel goes on answering, and the next process takes over from what it finds.
 */

import type { Node, Service } from '../api/core/v1.gen.ts';
import type { EndpointSlice } from '../api/discovery/v1.gen.ts';
import type {
  BFDProfile,
  BGPAdvertisement,
  BGPPeer,
  Community,
  IPAddressPool,
  L2Advertisement,
} from '../api/loadbalancer/v1beta1.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { metrics } from '../base/metrics.ts';
import { ApiEventRecorder, type EventRecorder } from '../client/event-recorder.ts';
import type { Informer, InformerFactory } from '../client/informer.ts';
import {
  BFD_PROFILES,
  BGP_ADVERTISEMENTS,
  BGP_COMMUNITIES,
  BGP_PEERS,
  ENDPOINT_SLICES,
  IP_ADDRESS_POOLS,
  L2_ADVERTISEMENTS,
  NODES,
  SERVICES,
} from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';
import { type Announcement, announcements } from './announcement.ts';
import { BgpSpeaker } from './bgp/bgp-speaker.ts';
import { PeerPasswords } from './bgp/peer-passwords.ts';
import { Layer2, type Layer2Addresses } from './layer2.ts';
import { Membership } from './membership.ts';

const BY_SERVICE = 'load-balancer-service';
const SERVICE_NAME_LABEL = 'kubernetes.io/service-name';
const RETRY_MS = 1000;

export interface AnnouncerOptions {
  readonly nodeName: string;
  readonly nodeAddress: string;
  /** A TCP port of every node; see {@link Membership}. */
  readonly probePort: number;
  /** Where bird's configuration, control socket and state lie. */
  readonly runDir: string;
  readonly informers: InformerFactory;
  readonly transport: Transport;
  /** May read Secrets: passwords of BGP peers. */
  readonly secrets: Transport;
  readonly namespace?: string;
  readonly log: Logger;
  readonly clock: Clock;
}

interface Configuration {
  readonly pools: Informer<IPAddressPool>;
  readonly l2Advertisements: Informer<L2Advertisement>;
  readonly bgpAdvertisements: Informer<BGPAdvertisement>;
  readonly bgpPeers: Informer<BGPPeer>;
  readonly communities: Informer<Community>;
  readonly bfdProfiles: Informer<BFDProfile>;
}

export class Announcer {
  readonly #options: AnnouncerOptions;
  readonly #log: Logger;
  readonly #services: Informer<Service>;
  readonly #slices: Informer<EndpointSlice>;
  readonly #nodes: Informer<Node>;
  readonly #events: EventRecorder;
  readonly #membership: Membership;
  readonly #announced = metrics.gauge(
    'coxswain_loadbalancer_announced',
    'Addresses of LoadBalancer Services that this node announces.',
    ['protocol'],
  );
  #configuration: Configuration | undefined;
  #current: ReadonlyMap<string, Announcement> = new Map();
  #wake: (() => void) | undefined;
  #pending = false;

  constructor(options: AnnouncerOptions) {
    this.#options = options;
    const { informers, transport, clock, nodeName } = options;
    this.#log = options.log.with({ part: 'loadbalancer' });
    this.#services = informers.get<Service>(SERVICES);
    this.#slices = informers.get<EndpointSlice>(ENDPOINT_SLICES);
    this.#slices.addIndex(BY_SERVICE, slice => {
      const service = slice.metadata.labels?.[SERVICE_NAME_LABEL];
      return service ? [`${slice.metadata.namespace}/${service}`] : [];
    });
    this.#nodes = informers.get<Node>(NODES);
    const log = this.#log;
    this.#events = new ApiEventRecorder({
      transport,
      component: 'coxswain-loadbalancer-speaker',
      host: nodeName,
      log,
      clock,
    });
    this.#membership = new Membership({
      node: nodeName,
      address: options.nodeAddress,
      peers: () => this.#peers(),
      probePort: options.probePort,
      changed: () => this.#change(),
      ...(options.namespace === undefined ? {} : { namespace: options.namespace }),
      log,
      clock,
    });
  }

  /** Until the signal aborts. Failures are logged and tried again. */
  async run(signal: AbortSignal): Promise<void> {
    const { nodeAddress, runDir, namespace, clock, nodeName } = this.#options;
    const log = this.#log;
    const inNamespace = namespace === undefined ? {} : { namespace };
    const layer2 = new Layer2({ nodeAddress, log, clock, signal, ...inNamespace });
    const bgp = new BgpSpeaker({
      nodeName,
      nodeAddress,
      runDir,
      log,
      clock,
      events: this.#events,
      ended: () => this.#change(),
      ...inNamespace,
    });
    const passwords = new PeerPasswords({
      transport: this.#options.secrets,
      changed: () => this.#change(),
      log,
      clock,
      signal,
    });
    signal.addEventListener('abort', () => this.#wake?.(), { once: true });
    await Promise.race([
      Promise.all([this.#services.synced, this.#slices.synced, this.#nodes.synced]),
      new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true })),
    ]);
    for (const informer of [this.#services, this.#slices, this.#nodes] as Informer<Service | EndpointSlice | Node>[])
      informer.onChange(({ object, old }) => {
        if ([object, old].some(one => one && this.#concerns(one))) this.#change();
      });
    this.#pending = true;
    while (!signal.aborted) {
      if (this.#pending) {
        this.#pending = false;
        try {
          await this.#reconcile(layer2, bgp, passwords);
        } catch (error) {
          log.warn('announcing failed, trying again', { error: messageOf(error) });
          await clock.sleep(RETRY_MS, signal);
          this.#pending = true;
        }
        continue;
      }
      await new Promise<void>(resolve => {
        this.#wake = resolve;
      });
    }
    await this.#membership.stop();
    await bgp.stop();
  }

  /** What this node announces now; for those who show it. */
  get current(): ReadonlyMap<string, Announcement> {
    return this.#current;
  }

  #change(): void {
    this.#pending = true;
    this.#wake?.();
  }

  // Endpoints of a cluster change all the time, those behind its few announced addresses seldom.
  #concerns(object: Service | EndpointSlice | Node): boolean {
    if ('endpoints' in object) {
      const name = object.metadata.labels?.[SERVICE_NAME_LABEL];
      const service = name === undefined ? undefined : this.#services.get(`${object.metadata.namespace}/${name}`);
      return service?.spec.type === 'LoadBalancer';
    }
    return object.kind === 'Node'
      ? this.#configuration !== undefined
      : (object as Service).spec.type === 'LoadBalancer';
  }

  #peers(): ReadonlyMap<string, string> {
    const peers = new Map<string, string>();
    for (const { metadata, status } of this.#nodes.values()) {
      const address = status?.addresses?.find(
        ({ type, address }) =>
          type === 'InternalIP' && address.includes(':') === this.#options.nodeAddress.includes(':'),
      )?.address;
      if (address && metadata.name !== this.#options.nodeName) peers.set(metadata.name, address);
    }
    return peers;
  }

  #hasAddresses(): boolean {
    for (const { spec, status } of this.#services.values())
      if (spec.type === 'LoadBalancer' && status?.loadBalancer?.ingress?.length) return true;
    return false;
  }

  async #reconcile(layer2: Layer2, bgp: BgpSpeaker, passwords: PeerPasswords): Promise<void> {
    const hasAddresses = this.#hasAddresses();
    if (!this.#configuration && !hasAddresses) {
      // An earlier process may have left some.
      layer2.apply(new Map());
      return;
    }
    const configuration = (this.#configuration ??= this.#watchConfiguration());
    await Promise.all(Object.values(configuration).map(informer => informer.synced));
    this.#membership.setActive(hasAddresses && configuration.l2Advertisements.size > 0 && this.#nodes.size > 1);
    const next = announcements({
      node: this.#options.nodeName,
      services: this.#services.values(),
      slicesOf: ({ metadata }) => this.#slices.byIndex(BY_SERVICE, `${metadata.namespace}/${metadata.name}`),
      nodes: [...this.#nodes.values()],
      pools: [...configuration.pools.values()],
      l2Advertisements: [...configuration.l2Advertisements.values()],
      bgpAdvertisements: [...configuration.bgpAdvertisements.values()],
      isAlive: node => this.#membership.isAlive(node),
    });
    const addresses: Layer2Addresses = new Map(
      [...next.values()].flatMap(({ address, layer2: at }) => (at ? [[address, at.interfaces] as const] : [])),
    );
    for (const address of layer2.apply(addresses)) this.#tell(next.get(address)!, 'layer2');
    const overBgp = [...next.values()].filter(announcement => announcement.bgp.length > 0);
    for (const announcement of overBgp)
      if (!this.#current.get(announcement.address)?.bgp.length) this.#tell(announcement, 'bgp');
    this.#current = next;
    this.#announced.set(addresses.size, 'layer2');
    this.#announced.set(overBgp.length, 'bgp');
    const bgpPeers = [...configuration.bgpPeers.values()];
    await passwords.follow(bgpPeers);
    await bgp.apply({
      announcements: overBgp,
      node: this.#nodes.get(this.#options.nodeName),
      peers: bgpPeers,
      communities: [...configuration.communities.values()],
      bfdProfiles: [...configuration.bfdProfiles.values()],
      passwordOf: peer => passwords.of(peer),
    });
  }

  #watchConfiguration(): Configuration {
    const { informers } = this.#options;
    const configuration = {
      pools: informers.get<IPAddressPool>(IP_ADDRESS_POOLS),
      l2Advertisements: informers.get<L2Advertisement>(L2_ADVERTISEMENTS),
      bgpAdvertisements: informers.get<BGPAdvertisement>(BGP_ADVERTISEMENTS),
      bgpPeers: informers.get<BGPPeer>(BGP_PEERS),
      communities: informers.get<Community>(BGP_COMMUNITIES),
      bfdProfiles: informers.get<BFDProfile>(BFD_PROFILES),
    };
    for (const informer of Object.values(configuration)) informer.onChange(() => this.#change());
    return configuration;
  }

  #tell({ address, services }: Announcement, protocol: 'layer2' | 'bgp'): void {
    this.#log.info('announcing', { address, protocol });
    for (const service of services)
      this.#events.event(
        service,
        'Normal',
        'nodeAssigned',
        `announcing from node "${this.#options.nodeName}" with protocol "${protocol}"`,
      );
  }
}
