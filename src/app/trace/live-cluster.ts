/**
 * What a trace looks at: the API's objects as they are now, and the nodes' own network and processes. Each list is asked for
 * once and kept for the one trace. It changes nothing.
 */

import { readdirSync, readFileSync } from 'node:fs';
import type { ConfigMap, Event, Namespace, Node, Pod, Secret, Service } from '../../api/core/v1.gen.ts';
import type { EndpointSlice } from '../../api/discovery/v1.gen.ts';
import type {
  BackendTLSPolicy,
  Gateway,
  GatewayClass,
  GRPCRoute,
  HTTPRoute,
  ListenerSet,
  ReferenceGrant,
  Route,
  StreamRouteRule,
} from '../../api/gateway/v1.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { Ingress, IngressClass, NetworkPolicy, ServiceCIDR } from '../../api/networking/v1.gen.ts';
import type { ClusterPolicy } from '../../api/networkpolicy/kinds.ts';
import { isReason } from '../../base/errors.ts';
import {
  BACKEND_TLS_POLICIES,
  CONFIG_MAPS,
  ENDPOINT_SLICES,
  EVENTS,
  GATEWAY_CLASSES,
  GATEWAYS,
  GRPC_ROUTES,
  HTTP_ROUTES,
  INGRESS_CLASSES,
  INGRESSES,
  LISTENER_SETS,
  NAMESPACES,
  NETWORK_POLICIES,
  NODES,
  PODS,
  REFERENCE_GRANTS,
  SECRETS,
  SERVICE_CIDRS,
  SERVICES,
  TCP_ROUTES,
  TLS_ROUTES,
  UDP_ROUTES,
} from '../../client/resources.ts';
import type { ResourceId, Transport } from '../../client/transport.ts';
import type { GatewayObjects } from '../../ingress/gateway/gateway-objects.ts';
import { parseAddress, parsePrefix, prefixContains } from '../../sys/address.ts';
import { type ClusterRecord, netnsPath, nodeNamespace, switchNamespace } from '../cluster-record.ts';

const SERVICE_NAME_LABEL = 'kubernetes.io/service-name';

export class LiveCluster {
  readonly record: ClusterRecord;
  readonly #transport: Transport;
  readonly #lists = new Map<string, Promise<readonly KubeObject[]>>();

  constructor(record: ClusterRecord, transport: Transport) {
    this.record = record;
    this.#transport = transport;
  }

  #list<T extends KubeObject>(of: ResourceId, namespace = '', fieldSelector = ''): Promise<readonly T[]> {
    const key = `${of.resource} ${namespace} ${fieldSelector}`;
    let list = this.#lists.get(key);
    if (!list) {
      const target = { of, ...(namespace ? { namespace } : {}) };
      list = this.#transport.list(target, fieldSelector ? { fieldSelector } : {}).then(({ items }) => items);
      this.#lists.set(key, list);
    }
    return list as Promise<readonly T[]>;
  }
  nodes(): Promise<readonly Node[]> {
    return this.#list<Node>(NODES);
  }
  namespaces(): Promise<readonly Namespace[]> {
    return this.#list<Namespace>(NAMESPACES);
  }
  services(): Promise<readonly Service[]> {
    return this.#list<Service>(SERVICES);
  }
  pods(namespace = ''): Promise<readonly Pod[]> {
    return this.#list<Pod>(PODS, namespace);
  }
  networkPolicies(): Promise<readonly NetworkPolicy[]> {
    return this.#list<NetworkPolicy>(NETWORK_POLICIES);
  }
  /** Empty where the kind is not served. */
  clusterPolicies(of: ResourceId): Promise<readonly ClusterPolicy[]> {
    return this.#list<ClusterPolicy>(of).catch(error => {
      if (isReason(error, 'NotFound')) return [];
      throw error;
    });
  }
  ingresses(): Promise<readonly Ingress[]> {
    return this.#list<Ingress>(INGRESSES);
  }
  ingressClasses(): Promise<readonly IngressClass[]> {
    return this.#list<IngressClass>(INGRESS_CLASSES);
  }
  /** What Gateways are made of; nothing where their kinds are not defined. */
  async gatewayObjects(): Promise<Omit<GatewayObjects, 'service'>> {
    const all = <T extends KubeObject>(of: ResourceId) => this.#list<T>(of).catch((): readonly T[] => []);
    const [classes, gateways, listenerSets, http, grpc, tls, tcp, udp, grants, policies] = await Promise.all([
      all<GatewayClass>(GATEWAY_CLASSES),
      all<Gateway>(GATEWAYS),
      all<ListenerSet>(LISTENER_SETS),
      all<HTTPRoute>(HTTP_ROUTES),
      all<GRPCRoute>(GRPC_ROUTES),
      all<Route<StreamRouteRule>>(TLS_ROUTES),
      all<Route<StreamRouteRule>>(TCP_ROUTES),
      all<Route<StreamRouteRule>>(UDP_ROUTES),
      all<ReferenceGrant>(REFERENCE_GRANTS),
      all<BackendTLSPolicy>(BACKEND_TLS_POLICIES),
    ]);
    const [secrets, configMaps, namespaces] =
      gateways.length > 0
        ? await Promise.all([all<Secret>(SECRETS), all<ConfigMap>(CONFIG_MAPS), this.namespaces()])
        : [[], [], []];
    const find = <T extends KubeObject>(list: readonly T[], { namespace, name }: { namespace: string; name: string }) =>
      list.find(({ metadata }) => metadata.namespace === namespace && metadata.name === name);
    const text = (data: string) => Buffer.from(data, 'base64').toString();
    return {
      classes,
      gateways,
      listenerSets,
      routes: { HTTPRoute: http, GRPCRoute: grpc, TLSRoute: tls, TCPRoute: tcp, UDPRoute: udp },
      grants,
      policies,
      namespace: name => namespaces.find(({ metadata }) => metadata.name === name),
      secret: ref => {
        const found = find(secrets, ref);
        return found && Object.fromEntries(Object.entries(found.data ?? {}).map(([key, data]) => [key, text(data)]));
      },
      configMap: ref => find(configMaps, ref)?.data,
    };
  }
  async slicesOf({ metadata }: Service): Promise<readonly EndpointSlice[]> {
    const all = await this.#list<EndpointSlice>(ENDPOINT_SLICES, metadata.namespace);
    return all.filter(slice => slice.metadata.labels?.[SERVICE_NAME_LABEL] === metadata.name);
  }
  /** Newest first. */
  async eventsOf(pod: Pod): Promise<readonly Event[]> {
    const found = await this.#list<Event>(
      EVENTS,
      pod.metadata.namespace,
      `involvedObject.kind=Pod,involvedObject.name=${pod.metadata.name}`,
    );
    const at = (event: Event): string => event.lastTimestamp ?? event.eventTime ?? '';
    return [...found].sort((a, b) => at(b).localeCompare(at(a)));
  }
  /** The pod that has this address and is not over; hostNetwork pods share theirs with the node and do not count. */
  async podAt(ip: string): Promise<Pod | undefined> {
    return (await this.pods()).find(
      pod =>
        !pod.spec.hostNetwork &&
        pod.status?.phase !== 'Succeeded' &&
        pod.status?.phase !== 'Failed' &&
        pod.status?.podIPs?.some(one => one.ip === ip),
    );
  }
  async nodeAt(ip: string): Promise<Node | undefined> {
    return (await this.nodes()).find(node => addressesOf(node).includes(ip));
  }

  /** The node whose pods have their addresses from a range that this one is in. */
  async nodeOfPodRange(ip: string): Promise<Node | undefined> {
    return (await this.nodes()).find(({ spec }) =>
      [...(spec.podCIDRs ?? []), ...(spec.podCIDR ? [spec.podCIDR] : [])].some(range => isWithin(range, ip)),
    );
  }
  /** The range that addresses of Services come from, when this is one of them. */
  async serviceRangeOf(ip: string): Promise<string | undefined> {
    const ranges = await this.#list<ServiceCIDR>(SERVICE_CIDRS);
    return ranges.flatMap(({ spec }) => spec?.cidrs ?? []).find(range => isWithin(range, ip));
  }

  /** Path of the network namespace that joins the nodes. */
  get switchNetwork(): string {
    return netnsPath(switchNamespace(this.record.name));
  }
  /** A process in the node's own network. */
  processOfNode(node: string): number | undefined {
    return this.record.nodes.find(({ name }) => name === node)?.supervisor?.pid;
  }
  /** Path of the node's network namespace. */
  networkOf(node: string): string {
    return netnsPath(nodeNamespace(this.record.name, node));
  }
  /** A process of one of the pod's containers, as the machine numbers it; undefined when none runs. */
  processOf(pod: Pod): number | undefined {
    const { uid } = pod.metadata;
    if (!uid) return undefined;
    const commandOf = (pid: number): string => read(`/proc/${pid}/comm`)?.trim() ?? 'crun';
    const processes = readdirSync('/proc')
      .filter(entry => /^\d+$/.test(entry))
      .map(Number)
      .filter(
        pid =>
          read(`/proc/${pid}/cgroup`)?.includes(`/pod${uid}/`) &&
          !/^(conmon|crun|runc|containerd-shim)/.test(commandOf(pid)),
      );
    // containerd has a process before all others that only holds the sandbox, with files of its own.
    return processes.find(pid => commandOf(pid) !== 'pause') ?? processes.at(-1);
  }
  /** A file as a process sees it. */
  fileOf(pid: number, path: string): string | undefined {
    return read(`/proc/${pid}/root${path}`);
  }
}

export const isLoopback = (ip: string): boolean => ip === '::1' || isWithin('127.0.0.0/8', ip);

function isWithin(range: string, ip: string): boolean {
  const [prefix, address] = [parsePrefix(range), parseAddress(ip)];
  return prefix.address.length === address.length && prefixContains(prefix, address);
}

export const addressesOf = (node: Node): string[] =>
  (node.status?.addresses ?? []).filter(({ type }) => type === 'InternalIP').map(({ address }) => address);

export const isReady = (object: Pod | Node): boolean =>
  (object.status?.conditions ?? []).some(({ type, status }) => type === 'Ready' && status === 'True');

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
