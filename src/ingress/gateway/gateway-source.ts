/**
 * Everything that gateways are made of, followed through the API. Says what it all comes to now, and calls back after each change. While no
 * Gateway is ours nothing but Gateways and their classes is watched.
 */

import type { ConfigMap, Namespace, Secret, Service } from '../../api/core/v1.gen.ts';
import type {
  BackendTLSPolicy,
  Gateway,
  GatewayClass,
  ListenerSet,
  ReferenceGrant,
  Route,
} from '../../api/gateway/v1.ts';
import { type KubeObject, keyOf } from '../../api/meta.ts';
import type { Logger } from '../../base/log.ts';
import type { Informer, InformerFactory } from '../../client/informer.ts';
import {
  BACKEND_TLS_POLICIES,
  CONFIG_MAPS,
  GATEWAY_CLASSES,
  GATEWAYS,
  GRPC_ROUTES,
  HTTP_ROUTES,
  LISTENER_SETS,
  NAMESPACES,
  REFERENCE_GRANTS,
  SECRETS,
  SERVICES,
  TCP_ROUTES,
  TLS_ROUTES,
  UDP_ROUTES,
} from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import type { SecretData } from '../credentials.ts';
import { NamedObjects } from '../named-objects.ts';
import type { SecretRef } from '../settings.ts';
import { buildGatewayState, type GatewayState, ourGateways } from './gateway-model.ts';
import { CONTROLLER_NAME, ROUTE_KINDS, type RouteKind, type RoutesByKind } from './gateway-objects.ts';
import { serviceName, targetPorts } from './gateway-service.ts';

export interface GatewaySourceOptions {
  /** May read Secrets and ConfigMaps. */
  readonly transport: Transport;
  /** Of `transport`. */
  readonly informers: InformerFactory;
  /** Of whoever follows Services anyway. */
  readonly serviceInformers: InformerFactory;
  readonly log: Logger;
}

const RESOURCES = {
  HTTPRoute: HTTP_ROUTES,
  GRPCRoute: GRPC_ROUTES,
  TLSRoute: TLS_ROUTES,
  TCPRoute: TCP_ROUTES,
  UDPRoute: UDP_ROUTES,
} as const;

/** What is followed only while there is a Gateway of ours. */
interface Rest {
  readonly routes: Readonly<Record<RouteKind, Informer<Route>>>;
  readonly listenerSets: Informer<ListenerSet>;
  readonly grants: Informer<ReferenceGrant>;
  readonly policies: Informer<BackendTLSPolicy>;
  readonly namespaces: Informer<Namespace>;
}

export class GatewaySource {
  readonly #options: GatewaySourceOptions;
  readonly #classes: Informer<GatewayClass>;
  readonly #gateways: Informer<Gateway>;
  readonly #services: Informer<Service>;
  readonly #secrets: NamedObjects<Secret>;
  readonly #configMaps: NamedObjects<ConfigMap>;
  readonly #decoded = new WeakMap<Secret, SecretData>();
  readonly #handlers: (() => void)[] = [];
  #rest: Rest | undefined;
  /** Services whose change matters. */
  #mentioned: ReadonlySet<string> = new Set();

  constructor(options: GatewaySourceOptions) {
    const { transport, informers, serviceInformers, log } = options;
    this.#options = options;
    this.#classes = informers.get<GatewayClass>(GATEWAY_CLASSES);
    this.#gateways = informers.get<Gateway>(GATEWAYS);
    this.#services = serviceInformers.get<Service>(SERVICES);
    const changed = () => this.#changed();
    this.#secrets = new NamedObjects({ transport, of: SECRETS, log, changed });
    this.#configMaps = new NamedObjects({ transport, of: CONFIG_MAPS, log, changed });
    this.#follow(this.#classes);
    this.#follow(this.#gateways);
    this.#services.onChange(({ object, old }) => {
      if (object?.spec !== old?.spec && this.#mentioned.has(keyOf((object ?? old)!))) changed();
    });
    void this.#services.synced.then(changed);
  }

  onChange(handler: () => void): void {
    this.#handlers.push(handler);
  }
  start(signal: AbortSignal): void {
    signal.addEventListener('abort', () => {
      this.#secrets.want([]);
      this.#configMaps.want([]);
    });
  }
  get classes(): Informer<GatewayClass> {
    return this.#classes;
  }
  gateway(key: string): Gateway | undefined {
    return this.#gateways.get(key);
  }
  route(kind: RouteKind, key: string): Route | undefined {
    return this.#rest?.routes[kind].get(key);
  }
  listenerSet(key: string): ListenerSet | undefined {
    return this.#rest?.listenerSets.get(key);
  }
  policy(key: string): BackendTLSPolicy | undefined {
    return this.#rest?.policies.get(key);
  }

  /** `KIND namespace/name` of what has a status of ours. */
  withOurStatus(): string[] {
    if (!this.#rest) return [];
    const found: string[] = [];
    for (const kind of ROUTE_KINDS)
      for (const route of this.#rest.routes[kind].values())
        if (route.status?.parents.some(({ controllerName }) => controllerName === CONTROLLER_NAME))
          found.push(`${kind} ${keyOf(route)}`);
    for (const policy of this.#rest.policies.values())
      if (policy.status?.ancestors.some(({ controllerName }) => controllerName === CONTROLLER_NAME))
        found.push(`BackendTLSPolicy ${keyOf(policy)}`);
    return found;
  }

  /** Gateways of our classes, or undefined until all are known. */
  ours(): Gateway[] | undefined {
    if (!this.#classes.hasSynced || !this.#gateways.hasSynced) return undefined;
    return ourGateways(this.#classes.values(), this.#gateways.values());
  }

  /** What it comes to, or undefined until everything that matters has been read once. */
  state(): GatewayState | undefined {
    const ours = this.ours();
    if (!ours) return undefined;
    const rest = this.#rest ?? (ours.length > 0 ? this.#followRest() : undefined);
    if (!rest) return buildGatewayState(this.#objects(undefined, [], []), new Map());
    const { routes, listenerSets, grants, policies, namespaces } = rest;
    const all = [...Object.values(routes), listenerSets, grants, policies, namespaces, this.#services];
    if (!all.every(informer => informer.hasSynced)) return undefined;
    const secrets: SecretRef[] = [];
    const configMaps: SecretRef[] = [];
    const serviceOf = (namespace: string, name: string) => this.#services.get(`${namespace}/${name}`);
    const state = buildGatewayState(this.#objects(rest, secrets, configMaps), targetPorts(ours, serviceOf));
    this.#mentioned = new Set([
      ...state.services,
      ...ours.map(gateway => `${gateway.metadata.namespace}/${serviceName(gateway)}`),
    ]);
    this.#secrets.want(secrets);
    this.#configMaps.want(configMaps);
    return this.#secrets.hasSynced && this.#configMaps.hasSynced ? state : undefined;
  }

  /** References that were looked for are noted, so that they can be followed from now on. */
  #objects(rest: Rest | undefined, secrets: SecretRef[], configMaps: SecretRef[]) {
    return {
      classes: [...this.#classes.values()],
      gateways: [...this.#gateways.values()],
      listenerSets: rest ? [...rest.listenerSets.values()] : [],
      routes: Object.fromEntries(
        ROUTE_KINDS.map(kind => [kind, rest ? [...rest.routes[kind].values()] : []]),
      ) as unknown as RoutesByKind,
      grants: rest ? [...rest.grants.values()] : [],
      policies: rest ? [...rest.policies.values()] : [],
      namespace: (name: string) => rest?.namespaces.get(name),
      service: (namespace: string, name: string) => this.#services.get(`${namespace}/${name}`),
      secret: (ref: SecretRef) => {
        secrets.push(ref);
        const secret = this.#secrets.get(ref);
        return secret && this.#decode(secret);
      },
      configMap: (ref: SecretRef) => {
        configMaps.push(ref);
        return this.#configMaps.get(ref)?.data;
      },
    };
  }

  #decode(secret: Secret): SecretData {
    let data = this.#decoded.get(secret);
    if (!data) {
      data = Object.fromEntries(
        Object.entries(secret.data ?? {}).map(([key, value]) => [key, Buffer.from(value, 'base64').toString()]),
      );
      this.#decoded.set(secret, data);
    }
    return data;
  }

  #followRest(): Rest {
    const { informers } = this.#options;
    const routes = Object.fromEntries(
      ROUTE_KINDS.map(kind => [kind, informers.get<Route>(RESOURCES[kind])]),
    ) as unknown as Rest['routes'];
    const namespaces = informers.get<Namespace>(NAMESPACES);
    const rest: Rest = {
      routes,
      listenerSets: informers.get<ListenerSet>(LISTENER_SETS),
      grants: informers.get<ReferenceGrant>(REFERENCE_GRANTS),
      policies: informers.get<BackendTLSPolicy>(BACKEND_TLS_POLICIES),
      namespaces,
    };
    this.#rest = rest;
    for (const informer of [...Object.values(routes), rest.listenerSets, rest.policies])
      this.#follow<KubeObject>(informer as never);
    this.#follow(rest.grants);
    namespaces.onChange(({ object, old }) => {
      if (object?.metadata.labels !== old?.metadata.labels) this.#changed();
    });
    void namespaces.synced.then(() => this.#changed());
    return rest;
  }

  /** What a status says changes nothing here. */
  #follow<T extends KubeObject>(informer: Informer<T>): void {
    informer.onChange(({ object, old }) => {
      if (
        !object ||
        !old ||
        object.metadata.generation !== old.metadata.generation ||
        object.metadata.deletionTimestamp !== old.metadata.deletionTimestamp
      )
        this.#changed();
    });
    void informer.synced.then(() => this.#changed());
  }

  #changed(): void {
    for (const handler of this.#handlers) handler();
  }
}
