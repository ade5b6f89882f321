/**
 * The cluster's side of gateways, in the server process: the kinds themselves and our class, a Service and its EndpointSlices for each Gateway,
 * and every status. It refuses to touch Gateways of other controllers, and what other controllers say of a route.
 */

import type { Node, Service } from '../../api/core/v1.gen.ts';
import type { EndpointSlice } from '../../api/discovery/v1.gen.ts';
import { GATEWAY_DEFINITIONS } from '../../api/gateway/definitions.ts';
import { type GatewayClass, GROUP } from '../../api/gateway/v1.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { type KubeObject, keyOf } from '../../api/meta.ts';
import type { Clock } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { Client } from '../../client/client.ts';
import { keepDefinition } from '../../client/definitions.ts';
import type { EventRecorder } from '../../client/event-recorder.ts';
import type { Informer, InformerFactory } from '../../client/informer.ts';
import {
  BACKEND_TLS_POLICIES,
  CUSTOM_RESOURCE_DEFINITIONS,
  ENDPOINT_SLICES,
  GATEWAY_CLASSES,
  GATEWAYS,
  GRPC_ROUTES,
  HTTP_ROUTES,
  LISTENER_SETS,
  NODES,
  SERVICES,
  TCP_ROUTES,
  TLS_ROUTES,
  UDP_ROUTES,
} from '../../client/resources.ts';
import type { ResourceId, Transport } from '../../client/transport.ts';
import { WorkQueue } from '../../client/work-queue.ts';
import { ServiceEndpoints } from '../service-endpoints.ts';
import { FEATURES } from './features.ts';
import { isReady, serviceOf, servingNodes, slicesOf } from './gateway-front.ts';
import type { GatewayResult, GatewayState } from './gateway-model.ts';
import { CLASS_NAME, CONTROLLER_NAME, isOurClass, type RouteKind, said } from './gateway-objects.ts';
import {
  allocate,
  DATA_PLANE_ANNOTATION,
  MANAGED_LABEL,
  MANAGER,
  serviceName,
  targetPorts,
} from './gateway-service.ts';
import { GatewaySource } from './gateway-source.ts';
import {
  conditionsOf,
  gatewayStatus,
  listenerSetStatus,
  type Progress,
  policyStatus,
  routeStatus,
  supportedVersion,
} from './gateway-status.ts';

export interface GatewayControllerOptions {
  readonly transport: Transport;
  readonly informers: InformerFactory;
  readonly events: EventRecorder;
  /** Makes this machine able to run a data plane; rejects with what to do when it cannot. Called until it works. */
  readonly prepare: () => Promise<void>;
  readonly log: Logger;
  readonly clock: Clock;
}

/** Who wrote the definitions of clusters that have them already: it cannot be renamed. */
const FIELD_MANAGER = 'gateway-controller';
const ALL = 'all';
const GATHER_MS = 20;
const WORKERS = 8;
const SERVED_AFTER_MS_MAX = 10_000;
const LOOK_EVERY_MS = 20;
const ROUTES: Readonly<Record<RouteKind, ResourceId>> = {
  HTTPRoute: HTTP_ROUTES,
  GRPCRoute: GRPC_ROUTES,
  TLSRoute: TLS_ROUTES,
  TCPRoute: TCP_ROUTES,
  UDPRoute: UDP_ROUTES,
};

export class GatewayController {
  readonly #options: GatewayControllerOptions;
  readonly #client: Client;
  readonly #endpoints: ServiceEndpoints;
  readonly #nodes: Informer<Node>;
  readonly #services: Informer<Service>;
  readonly #slices: Informer<EndpointSlice>;
  readonly #queue: WorkQueue;
  readonly #log: Logger;
  #source: GatewaySource | undefined;
  #state: GatewayState | undefined;
  /** Routes and policies that have a status of ours, by `KIND namespace/name`. */
  #written = new Set<string>();
  #isPrepared = false;

  constructor(options: GatewayControllerOptions) {
    const { transport, informers, log, clock } = options;
    this.#options = options;
    this.#log = log.with({ controller: 'gateway' });
    this.#client = new Client(transport);
    this.#endpoints = new ServiceEndpoints(informers);
    this.#nodes = informers.get<Node>(NODES);
    this.#services = informers.get<Service>(SERVICES);
    this.#slices = informers.get<EndpointSlice>(ENDPOINT_SLICES);
    this.#queue = new WorkQueue({ clock, name: 'gateway', retryMsMax: 60_000 });
  }

  async run(signal: AbortSignal): Promise<void> {
    const { transport, informers } = this.#options;
    await this.#define(signal).catch(error =>
      this.#log.warn('the Gateway API is not there', { error: messageOf(error) }),
    );
    if (signal.aborted) return;
    const source = new GatewaySource({ transport, informers, serviceInformers: informers, log: this.#log });
    this.#source = source;
    const changed = () => this.#queue.addAfter(ALL, GATHER_MS);
    source.onChange(changed);
    this.#services.onChange(({ object, old }) => {
      if (isManaged(object ?? old)) changed();
    });
    this.#endpoints.onChange(service => {
      if (this.#udpServices().has(service) || service === '') changed();
    });
    this.#nodes.onChange(({ object, old }) => {
      const said = (node: Node | undefined) => node?.metadata.annotations?.[DATA_PLANE_ANNOTATION];
      if (said(object) !== said(old) || (said(object) && isReady(object!) !== isReady(old!))) changed();
    });
    source.start(signal);
    await this.#queue.run(
      {
        workers: WORKERS,
        process: key => this.#reconcile(key),
        failed: (key, error) => this.#log.warn('a gateway is not in order yet', { key, error: messageOf(error) }),
      },
      signal,
    );
  }

  /** What an administrator has put in their place stays, and so does a class that was deleted. */
  async #define(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    let isNew = false;
    for (const definition of GATEWAY_DEFINITIONS) {
      const created = await keepDefinition(this.#client, definition, { manager: FIELD_MANAGER });
      if (created) isNew ||= definition.spec.names.kind === 'GatewayClass';
    }
    if (!isNew) return;
    const deadline = clock.monotonic() + SERVED_AFTER_MS_MAX;
    for (;;)
      try {
        await this.#client.of<GatewayClass>(GATEWAY_CLASSES).create({
          apiVersion: 'gateway.networking.k8s.io/v1',
          kind: 'GatewayClass',
          metadata: { name: CLASS_NAME },
          spec: { controllerName: CONTROLLER_NAME, description: 'HAProxy on every node' },
        });
        return;
      } catch (error) {
        if (isReason(error, 'AlreadyExists')) return;
        if (!isReason(error, 'NotFound') || clock.monotonic() > deadline || signal.aborted) throw error;
        await clock.sleep(LOOK_EVERY_MS, signal);
      }
  }

  async #reconcile(key: string): Promise<void> {
    if (key === ALL) return this.#look();
    const [kind, name] = key.split(' ') as [string, string];
    if (kind === 'GatewayClass') return this.#keepClass(name);
    if (kind === 'Gateway') return this.#keepGateway(name);
    if (kind === 'Service') return this.#removeService(name);
    return this.#keepStatus(kind as RouteKind | 'BackendTLSPolicy', name);
  }

  /** Finds out what has to be done, and for what. */
  async #look(): Promise<void> {
    const source = this.#source!;
    if (!source.classes.hasSynced) return;
    for (const { metadata } of source.classes.values()) this.#queue.add(`GatewayClass ${metadata.name}`);
    if (![this.#nodes, this.#services, this.#slices].every(informer => informer.hasSynced))
      return void this.#queue.addAfter(ALL, GATHER_MS);
    const state = source.state();
    if (!state) return;
    this.#state = state;
    const services = new Set(
      state.gateways.map(({ gateway }) => `${gateway.metadata.namespace}/${serviceName(gateway)}`),
    );
    for (const service of this.#services.values())
      if (isManaged(service) && !services.has(keyOf(service))) this.#queue.add(`Service ${keyOf(service)}`);
    for (const { key } of state.gateways) this.#queue.add(`Gateway ${key}`);
    const written = new Set([
      ...state.routes.map(({ kind, route }) => `${kind} ${keyOf(route)}`),
      ...state.policies
        .filter(({ ancestors }) => ancestors.length > 0)
        .map(({ policy }) => `BackendTLSPolicy ${keyOf(policy)}`),
    ]);
    for (const key of new Set([...written, ...this.#written, ...source.withOurStatus()])) this.#queue.add(key);
    this.#written = written;
  }

  async #keepClass(name: string): Promise<void> {
    const found = this.#source!.classes.get(name);
    if (!isOurClass(found)) return;
    const { parametersRef } = found.spec;
    const accepted = parametersRef
      ? said('Accepted', false, 'InvalidParameters', 'parametersRef: there are no parameters')
      : said('Accepted', true, 'Accepted', 'Gateways of this class are served by a HAProxy on every node');
    const version = supportedVersion(
      await this.#client.of(CUSTOM_RESOURCE_DEFINITIONS).get('', `${GATEWAY_CLASSES.resource}.${GROUP}`),
    );
    const conditions = conditionsOf(found, found.status?.conditions, [accepted, version], this.#now());
    await this.#write(GATEWAY_CLASSES, found, { conditions, supportedFeatures: FEATURES });
  }

  async #keepGateway(key: string): Promise<void> {
    const result = this.#state?.gateways.find(each => each.key === key);
    const gateway = this.#source!.gateway(key);
    if (!result || !gateway) return;
    let targets: ReadonlyMap<number, number> | undefined = new Map();
    let missing: string | undefined;
    if (result.tcpPorts.length > 0 || result.udpPorts.size > 0) {
      targets = allocate(key, result.tcpPorts, this.#targetPorts());
      if (!targets) missing = 'the nodes have no ports left for gateways';
      else {
        if (targets.size > 0) missing = await this.#prepare(gateway);
        await this.#putService(result, targets);
        await this.#putSlices(result, targets);
      }
    } else await this.#removeService(`${gateway.metadata.namespace}/${serviceName(gateway)}`);
    const progress = this.#progress(result, targets ?? new Map(), missing);
    await this.#write(GATEWAYS, gateway, gatewayStatus(gateway, result, progress, this.#now()));
    for (const judged of result.sets) {
      const set = this.#source!.listenerSet(judged.key);
      const status = set && listenerSetStatus({ ...judged, set }, progress.programmed, this.#now());
      if (set && status) await this.#write(LISTENER_SETS, set, status);
    }
    if (missing) throw new Error(missing);
  }

  /** Rejects not: says what is missing. */
  async #prepare(gateway: KubeObject): Promise<string | undefined> {
    if (this.#isPrepared) return undefined;
    try {
      await this.#options.prepare();
      this.#isPrepared = true;
      return undefined;
    } catch (error) {
      this.#options.events.event(gateway, 'Warning', 'DataPlaneMissing', messageOf(error));
      return messageOf(error);
    }
  }

  #targetPorts(): Map<string, Map<number, number>> {
    const gateways = (this.#state?.gateways ?? []).map(({ gateway }) => gateway);
    return targetPorts(gateways, (namespace, name) => this.#services.get(`${namespace}/${name}`));
  }

  async #putService(result: GatewayResult, targets: ReadonlyMap<number, number>): Promise<void> {
    const client = this.#client.of<Service>(SERVICES);
    const { namespace, name } = { namespace: result.gateway.metadata.namespace, name: serviceName(result.gateway) };
    const known = this.#services.get(`${namespace}/${name}`);
    if (known && !isManaged(known)) throw new Error(`Service ${namespace}/${name} is not the Gateway's`);
    const wanted = serviceOf(result, targets, known);
    if (!known) return void (await client.create(wanted));
    const { metadata, spec } = known;
    const isSame =
      semanticEqual(metadata.labels, wanted.metadata.labels) &&
      semanticEqual(metadata.annotations ?? {}, wanted.metadata.annotations ?? {}) &&
      spec?.externalTrafficPolicy === wanted.spec?.externalTrafficPolicy &&
      (spec?.loadBalancerIP ?? '') === (wanted.spec?.loadBalancerIP ?? '') &&
      portsOf(known) === portsOf(wanted);
    if (!isSame) await client.update(wanted);
  }

  async #putSlices(result: GatewayResult, targets: ReadonlyMap<number, number>): Promise<void> {
    const client = this.#client.of<EndpointSlice>(ENDPOINT_SLICES);
    const wanted = slicesOf(result, targets, [...this.#nodes.values()], this.#endpoints);
    const service = serviceName(result.gateway);
    const { namespace } = result.gateway.metadata;
    const names = new Set(wanted.map(({ metadata }) => metadata.name));
    for (const slice of wanted) {
      const known = this.#slices.get(keyOf(slice));
      if (!known) await client.create(slice);
      else if (!semanticEqual(known.endpoints ?? [], slice.endpoints ?? []) || !semanticEqual(known.ports, slice.ports))
        await client.update({ ...slice, metadata: { ...known.metadata, ...slice.metadata } });
    }
    for (const { metadata } of this.#slices.values())
      if (
        metadata.namespace === namespace &&
        metadata.labels?.['kubernetes.io/service-name'] === service &&
        metadata.labels['endpointslice.kubernetes.io/managed-by'] === MANAGER &&
        !names.has(metadata.name)
      )
        await client.delete(namespace ?? '', metadata.name).catch(ignoring('NotFound'));
  }

  #progress(result: GatewayResult, targets: ReadonlyMap<number, number>, missing: string | undefined): Progress {
    const { gateway, isAccepted, accepted } = result;
    const service = this.#services.get(`${gateway.metadata.namespace}/${serviceName(gateway)}`);
    const addresses = isAccepted
      ? (service?.status?.loadBalancer?.ingress ?? []).flatMap(({ ip, hostname }) =>
          ip ? [{ type: 'IPAddress', value: ip }] : hostname ? [{ type: 'Hostname', value: hostname }] : [],
        )
      : [];
    const not = (reason: string, message: string): Progress => ({
      addresses,
      programmed: said('Programmed', false, reason, message),
    });
    if (!isAccepted) return not('Invalid', accepted.message);
    if (missing) return not('NoResources', missing);
    const lacking = (gateway.spec.addresses ?? [])
      .flatMap(({ value }) => value || [])
      .filter(asked => !addresses.some(({ value }) => value === asked));
    if (lacking.length > 0)
      return not(
        'AddressNotUsable',
        `${lacking.join(', ')} could not be had, of each family one at most; the events of Service ${serviceName(gateway)} say why`,
      );
    if (addresses.length === 0)
      return not('AddressNotAssigned', `Service ${serviceName(gateway)} has no address yet; its events say why`);
    if (targets.size > 0 && !servingNodes(this.#nodes.values(), [...targets.values()]).some(isReady))
      return not('Pending', 'no node serves it yet');
    return { addresses, programmed: said('Programmed', true, 'Programmed', 'the Gateway is served') };
  }

  async #removeService(key: string): Promise<void> {
    const service = this.#services.get(key);
    if (!service || !isManaged(service)) return;
    const { namespace = '', name } = service.metadata;
    await this.#client.of(SERVICES).delete(namespace, name).catch(ignoring('NotFound'));
  }

  async #keepStatus(kind: RouteKind | 'BackendTLSPolicy', key: string): Promise<void> {
    if (kind === 'BackendTLSPolicy') {
      const policy = this.#source!.policy(key);
      const result = this.#state?.policies.find(each => keyOf(each.policy) === key);
      if (policy) await this.#write(BACKEND_TLS_POLICIES, policy, policyStatus(policy, result, this.#now()));
      return;
    }
    const route = this.#source!.route(kind, key);
    const result = this.#state?.routes.find(each => each.kind === kind && keyOf(each.route) === key);
    if (route) await this.#write(ROUTES[kind], route, routeStatus(route, result, this.#now()));
  }

  /** Only over the version that was judged. */
  async #write(of: ResourceId, object: KubeObject & { readonly status?: unknown }, status: object): Promise<void> {
    if (semanticEqual(object.status ?? {}, status)) return;
    const { namespace = '', name, resourceVersion } = object.metadata;
    try {
      await this.#client.of(of).patchStatus(namespace, name, { metadata: { resourceVersion }, status });
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
    }
  }

  #udpServices(): Set<string> {
    const refs = (this.#state?.gateways ?? []).flatMap(({ udpPorts }) => [...udpPorts.values()].flat());
    return new Set(refs.map(({ namespace, name }) => `${namespace}/${name}`));
  }
  #now(): string {
    return new Date(this.#options.clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');
  }
}

function isManaged(service: Service | undefined): boolean {
  return service?.metadata.labels?.[MANAGED_LABEL] === MANAGER;
}

function portsOf({ spec }: Service): string {
  return JSON.stringify(
    (spec?.ports ?? []).map(({ name, port, targetPort, protocol }) => [name, port, targetPort, protocol]).sort(),
  );
}

function ignoring(reason: 'NotFound'): (error: unknown) => void {
  return error => {
    if (!isReason(error, reason)) throw error;
  };
}
