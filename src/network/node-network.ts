/**
 * The pod network of one node: what the kubelet attaches pods to, and what keeps other nodes' pods reachable. It learns its
 * range and its peers from Node objects, publishes its own overlay MAC on its Node, and needs no other coordination.
 * Invariant: pods attached keep working whatever happens to this process or to the API server; only changes wait for them.
 */

import { join } from 'node:path';
import type { Node } from '../api/core/v1.gen.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { metrics } from '../base/metrics.ts';
import { Client } from '../client/client.ts';
import type { Informer, InformerFactory } from '../client/informer.ts';
import { NODES } from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';
import { addressAfter, formatAddress, networkOf, parsePrefix } from '../sys/address.ts';
import { RouteSocket } from '../sys/netlink.ts';
import { closeNetns, openNetns, openOwnNetns } from '../sys/netns.ts';
import { Nfnetlink } from '../sys/nfnetlink.ts';
import { Nftables } from '../sys/nftables.ts';
import { AddressPool } from './address-pool.ts';
import { GonePods } from './gone-pods.ts';
import { type HostPort, HostPorts } from './host-ports.ts';
import { Masquerade } from './masquerade.ts';
import { Overlay, type OverlayMode, type Peer } from './overlay.ts';
import { POD_BRIDGE, PodLinks } from './pod-links.ts';
import type { DomainNames } from './policy/domain-names.ts';
import { NetworkPolicies } from './policy/network-policies.ts';
import type { NodeAlias } from './policy/policy-model.ts';
import { type BlockPeer, blockPeer } from './policy/statement.ts';
import { RelayDoor, type RelayStart } from './relay-door.ts';

/** On every Node: the MAC of its overlay device. */
export const VTEP_MAC_ANNOTATION = 'network.coxswain.dev/vtep-mac';

const CHECK_MS = 5000;
const LOOPBACK_INDEX = 1;
const RETRY_MS_MIN = 200;
const RETRY_MS_MAX = 10_000;

export interface NodeNetworkOptions {
  readonly nodeName: string;
  /** One of each family that the node has; packets between nodes travel by the first one's. */
  readonly nodeIps: readonly string[];
  /** Ranges that hold all pods of the cluster. */
  readonly clusterCidrs: readonly string[];
  /** Where addresses in use are recorded; survives restarts. */
  readonly stateDir: string;
  readonly transport: Transport;
  readonly informers: InformerFactory;
  readonly mode?: OverlayMode;
  /** Of the process that serves host ports at 127.0.0.1: how it starts in the node's namespace, and its folder, which goes with the node. */
  readonly relay: { readonly start: RelayStart; readonly folder: string };
  /** Name or path of the node's namespace; the calling thread's own when absent. */
  readonly namespace?: string;
  readonly log: Logger;
  readonly clock?: Clock;
}

export class NodeNetwork {
  readonly #options: NodeNetworkOptions;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #nodes: Informer<Node>;
  readonly #namespace: number;
  readonly #routes: RouteSocket;
  readonly #pools: { readonly IPv4: AddressPool; readonly IPv6: AddressPool };
  readonly #links: PodLinks;
  readonly #overlay: Overlay;
  readonly #raw: Nfnetlink;
  readonly #gone: GonePods;
  readonly #masquerade: Masquerade;
  readonly #hostPorts: HostPorts;
  readonly #policies: NetworkPolicies;
  #podCidrs: readonly string[] = [];
  #mac: string | undefined;
  #problem: string | undefined = 'the node has no pod address range yet';
  #wake: (() => void) | undefined;
  #pending = true;

  constructor(options: NodeNetworkOptions) {
    this.#options = options;
    this.#log = options.log.with({ component: 'network' });
    this.#clock = options.clock ?? systemClock;
    this.#nodes = options.informers.get<Node>(NODES);
    this.#namespace = options.namespace === undefined ? openOwnNetns() : openNetns(options.namespace);
    this.#routes = new RouteSocket(this.#namespace);
    this.#pools = {
      IPv4: new AddressPool(join(options.stateDir, 'ipv4')),
      IPv6: new AddressPool(join(options.stateDir, 'ipv6')),
    };
    const kernel = { namespace: this.#namespace, routes: this.#routes };
    this.#links = new PodLinks(kernel);
    this.#overlay = new Overlay({ ...kernel, mode: options.mode ?? 'vxlan', nodeIp: options.nodeIps[0]! });
    this.#raw = new Nfnetlink(this.#namespace);
    const nftables = new Nftables(this.#namespace);
    this.#hostPorts = new HostPorts({
      namespace: this.#namespace,
      relay: new RelayDoor({ ...options.relay, log: this.#log, clock: this.#clock }),
      log: this.#log,
    });
    this.#gone = new GonePods({ routes: this.#routes, raw: this.#raw, nftables });
    this.#masquerade = new Masquerade({
      nftables,
      fingerprint: table => this.#raw.fingerprint(table),
    });
    this.#policies = new NetworkPolicies({
      ...options,
      namespace: this.#namespace,
      bridge: POD_BRIDGE,
      addressesOf: podUid => this.#addressesOf(podUid),
      namesPath: join(options.stateDir, 'domain-names.json'),
    });
  }

  /** Hears what this node's DNS server answers, before who asked does: policies name names. */
  get names(): Pick<DomainNames, 'isListening' | 'hear'> {
    return this.#policies.names;
  }

  /** Follows the Node objects until the signal aborts. What it made stays. */
  async run(signal: AbortSignal): Promise<void> {
    this.#nodes.onChange(change => {
      if (!change.old || !change.object || relevant(change.old) !== relevant(change.object)) this.#trigger();
    });
    void this.#nodes.synced.then(() => this.#trigger());
    const policies = this.#policies.run(signal);
    signal.addEventListener('abort', () => this.#trigger(), { once: true });
    // A node that does not know its peers yet must not cut them off, but it can serve its own pods as soon as it knows its range.
    let retryMs = RETRY_MS_MIN;
    while (!signal.aborted) {
      if (!this.#pending) await this.#idle();
      this.#wake = undefined;
      if (signal.aborted) break;
      this.#pending = false;
      try {
        await this.#reconcile();
        retryMs = RETRY_MS_MIN;
      } catch (error) {
        this.#log.warn('pod network not set up, retrying', { error: messageOf(error), retryMs });
        if (this.#podCidrs.length === 0) this.#problem = messageOf(error);
        await this.#clock.sleep(retryMs, signal);
        retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
        this.#pending = true;
      }
    }
    await policies;
    this.#hostPorts.close();
    this.#routes.close();
    this.#raw.close();
    closeNetns(this.#namespace);
  }

  /** Addresses ({@link AddressPool}), one of each of the node's ranges, and links of one pod. Rejects until there are ranges. Takes about 2 ms. */
  async attach(pod: {
    readonly uid: string;
    readonly namespace: string;
    readonly name: string;
    readonly netnsPath: string;
  }): Promise<{ readonly ips: readonly string[] }> {
    if (this.#problem !== undefined) throw new Error(`pod network not ready: ${this.#problem}`);
    const startMs = this.#clock.monotonic();
    const ips = this.#podCidrs.map(range => this.#poolOf(range).assign(pod.uid, range));
    // Before there is a link: no packet may pass that policies forbid.
    await this.#policies.admit(pod);
    this.#gone.remove(ips);
    this.#links.attach({ uid: pod.uid, ips, netnsPath: pod.netnsPath });
    attachSeconds().observe((this.#clock.monotonic() - startMs) / 1000);
    return { ips };
  }

  async detach(podUid: string): Promise<void> {
    const ips = this.#addressesOf(podUid);
    this.#gone.add(ips);
    await this.#links.detach({ uid: podUid, ips });
    // Last: an address must not be given again while a link may still have it.
    for (const pool of Object.values(this.#pools)) pool.release(podUid);
    this.#policies.release(podUid);
  }

  async retain(podUids: ReadonlySet<string>): Promise<void> {
    this.#links.retain(podUids);
    const owners = Object.values(this.#pools).flatMap(pool => [...pool.owners().keys()]);
    for (const uid of new Set(owners)) if (!podUids.has(uid)) await this.detach(uid);
  }

  /** All host ports of this node's pods: those not given any more are closed. */
  async publish(ports: readonly HostPort[]): Promise<void> {
    // What lies on the loopback link is no address of the node: the cluster's DNS address does.
    this.#hostPorts.apply(
      ports,
      this.#addresses(index => index !== LOOPBACK_INDEX),
    );
  }

  #addresses(ofLink: (index: number) => boolean): string[] {
    const found = this.#routes.addresses().filter(({ index }) => ofLink(index));
    return [...new Set(found.map(({ prefix }) => prefix.split('/')[0]!))].sort();
  }

  #addressesOf(podUid: string): string[] {
    return Object.values(this.#pools).flatMap(pool => pool.addressOf(podUid) ?? []);
  }

  #poolOf(range: string): AddressPool {
    return this.#pools[range.includes(':') ? 'IPv6' : 'IPv4'];
  }

  notReadyReason(): string | undefined {
    return this.#problem;
  }
  hasPolicies(): boolean {
    return this.#policies.isInUse;
  }

  // Until something changes; meanwhile looks after what somebody else may have flushed.
  async #idle(): Promise<void> {
    while (!this.#pending) {
      await new Promise<void>(resolve => {
        const timer = this.#clock.after(CHECK_MS, resolve, { background: true });
        this.#wake = () => {
          timer.cancel();
          resolve();
        };
      });
      try {
        if (!this.#pending && this.#masquerade.repair()) {
          this.#log.warn('masquerade rules were changed by somebody else, made anew');
          this.#gone.configure(this.#podCidrs);
        }
        if (this.#links.repair()) this.#log.info("the machine's filtering of bridged frames has changed, followed it");
      } catch (error) {
        this.#log.warn('pod network not checked', { error: messageOf(error) });
      }
    }
  }

  #trigger(): void {
    this.#pending = true;
    this.#wake?.();
  }

  async #reconcile(): Promise<void> {
    const own = this.#nodes.get(this.#options.nodeName);
    const podCidrs = podCidrsOf(own);
    if (!own || podCidrs.length === 0) return;
    const isNew = podCidrs.join() !== this.#podCidrs.join();
    if (isNew) {
      const { mac, mtu } = this.#overlay.configure(podCidrs);
      this.#links.configure({ podCidrs, mtu });
      this.#gone.configure(podCidrs);
      this.#mac = mac;
    }
    const nodes = [...this.#nodes.values()];
    if (this.#nodes.hasSynced)
      this.#overlay.apply(nodes.flatMap(node => (node.metadata.name === this.#options.nodeName ? [] : peerOf(node))));
    this.#masquerade.apply({
      podCidrs,
      clusterCidrs: [...this.#options.clusterCidrs, ...nodes.flatMap(podCidrsOf)],
      nodeIps: [...this.#options.nodeIps, ...nodes.flatMap(addressesOf)],
    });
    this.#policies.setRanges({
      podCidrs,
      // The cluster's DNS is there; upstream's is a pod that policies can name.
      served: this.#addresses(index => index === LOOPBACK_INDEX).filter(ip => ip !== '::1' && !ip.startsWith('127.')),
      anyPod: anyPod(this.#options.clusterCidrs, nodes.flatMap(podCidrsOf)),
      aliases: nodes.flatMap(node => (node.metadata.name === this.#options.nodeName ? [] : aliasesOf(node))),
    });
    if (isNew) {
      this.#podCidrs = podCidrs;
      this.#problem = undefined;
      this.#log.info('pod network ready', { podCidrs: podCidrs.join(',') });
    }
    if (this.#mac !== undefined && own.metadata.annotations?.[VTEP_MAC_ANNOTATION] !== this.#mac) {
      const patch = { metadata: { annotations: { [VTEP_MAC_ANNOTATION]: this.#mac } } };
      await new Client(this.#options.transport).of<Node>(NODES).patch('', this.#options.nodeName, patch);
    }
  }
}

const attachSeconds = () =>
  metrics.histogram(
    'coxswain_network_attach_seconds',
    'Time to connect a pod to the pod network.',
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5],
  );

/** Each node has the first two addresses of its range for itself: of its overlay link and of its bridge. */
function anyPod(clusterCidrs: readonly string[], nodesCidrs: readonly string[]): BlockPeer[] {
  const except = nodesCidrs.map(cidr => `${cidr.split('/')[0]}/${cidr.includes(':') ? 127 : 31}`).sort();
  return (clusterCidrs.length > 0 ? clusterCidrs : nodesCidrs).map(cidr => blockPeer(cidr, except));
}

/** What a node itself sends to pods of others comes from those. */
function aliasesOf(node: Node): NodeAlias[] {
  return podCidrsOf(node).flatMap(range => {
    const ip = addressesOf(node).find(address => address.includes(':') === range.includes(':'));
    const first = networkOf(parsePrefix(range));
    return ip === undefined ? [] : [first, addressAfter(first, 1)].map(alias => ({ alias: formatAddress(alias), ip }));
  });
}

function podCidrsOf(node: Node | undefined): readonly string[] {
  return node?.spec?.podCIDRs ?? (node?.spec?.podCIDR ? [node.spec.podCIDR] : []);
}

function addressesOf(node: Node): string[] {
  return (node.status?.addresses ?? [])
    .filter(({ type }) => type === 'InternalIP' || type === 'ExternalIP')
    .map(({ address }) => address);
}

function peerOf(node: Node): Peer[] {
  const podCidrs = podCidrsOf(node);
  const nodeIps = (node.status?.addresses ?? []).flatMap(({ type, address }) => (type === 'InternalIP' ? address : []));
  if (podCidrs.length === 0 || nodeIps.length === 0) return [];
  return [{ node: node.metadata.name, podCidrs, nodeIps, mac: node.metadata.annotations?.[VTEP_MAC_ANNOTATION] }];
}

// Nodes change every few seconds by their heartbeats; only these fields matter here.
function relevant(node: Node): string {
  return JSON.stringify([podCidrsOf(node), addressesOf(node), node.metadata.annotations?.[VTEP_MAC_ANNOTATION]]);
}
