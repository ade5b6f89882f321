/**
 * The API server, put together: caches over a store, the registry behind them, and the two doors to it, HTTPS listeners
 * and in-process transports. Everything that decides about a request is given in the options.
 */

import type { KubeObject } from '../api/meta.ts';
import { builtinResources } from '../api/resources.ts';
import type { ResourceInfo } from '../api/schema.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import { KUBERNETES_VERSION } from '../base/cluster-defaults.ts';
import { type Logger, silentLogger } from '../base/log.ts';
import { metrics } from '../base/metrics.ts';
import { type Random, systemRandom } from '../base/random.ts';
import type { Tracer } from '../base/tracing/span.ts';
import type { ResourceId, Transport } from '../client/transport.ts';
import type { Store } from '../store/store.ts';
import type { Aggregator } from './aggregation/aggregator.ts';
import { AuditedTransport } from './audit/audited-transport.ts';
import type { Auditor } from './audit/auditor.ts';
import type { Trail } from './audit/trail.ts';
import type { ServiceAccountTokens } from './authn/service-account-tokens.ts';
import { forbiddenRequest } from './authz/denial.ts';
import { Caches } from './cache.ts';
import { type ComponentPages, ComponentServer } from './component-server.ts';
import type { Component } from './component-statuses.ts';
import { CustomResources } from './customresources/custom-resources.ts';
import { Discovery } from './discovery.ts';
import { Dispatcher, shownObject } from './dispatcher.ts';
import type { Fairness } from './fairness/fairness.ts';
import { Health, type HealthCheck } from './health.ts';
import { HttpHandler, route } from './http-handler.ts';
import { InProcessTransport } from './in-process-transport.ts';
import { type ListenAddress, type Listener, listenTls, type TlsOptions } from './listener.ts';
import { Maintenance } from './maintenance.ts';
import { OpenapiService } from './openapi-service.ts';
import { Registry } from './registry.ts';
import type {
  AdmissionPlugin,
  Allocator,
  Authenticator,
  Authorizer,
  ConnectHandler,
  CreateHandler,
  Decision,
  Reader,
  RequestAttributes,
  UserInfo,
} from './request.ts';
import { LOOPBACK_USER } from './request.ts';
import {
  authorizations,
  storageEvents,
  storageSize,
  storedBytes,
  storedObjects,
  storedObjectsByName,
} from './request-metrics.ts';
import { ResourceHandler } from './resource-handler.ts';
import { ResourceTable, type Served } from './resource-table.ts';
import { TracedTransport } from './traced-transport.ts';
import { handleUpgrade } from './upgrade.ts';
import { WebhookClient } from './webhooks/client.ts';

export interface ApiServerOptions {
  readonly store: Store;
  /** Beta resources that are served beside those of every server. */
  readonly optional?: readonly ResourceInfo[];
  /** The options that the server was given, for `/flagz`. */
  readonly flags?: Readonly<Record<string, string>>;
  readonly authenticators?: readonly Authenticator[];
  /** Without one everything is allowed. */
  readonly authorizer?: Authorizer;
  readonly admission?: readonly AdmissionPlugin[];
  readonly allocators?: readonly Allocator[];
  readonly createHandlers?: readonly CreateHandler[];
  readonly connectHandlers?: readonly ConnectHandler[];
  /** Bodies of `/.well-known/openid-configuration` and `/openid/v1/jwks`. */
  readonly openid?: ServiceAccountTokens['discovery'];
  /** Without one no APIService is acted on. */
  readonly aggregator?: Aggregator;
  /** Records requests; closed with the server. Without one nothing is recorded. */
  readonly auditor?: Auditor | undefined;
  /** Makes spans of requests; closed by the caller. Without one nothing is traced. */
  readonly tracer?: Tracer | undefined;
  /** Without one every request runs at once. */
  readonly fairness?: Fairness;
  readonly log?: Logger;
  readonly clock?: Clock;
  readonly random?: Random;
}

export class ApiServer {
  readonly table: ResourceTable;
  readonly caches: Caches;
  readonly reader: Reader;
  readonly dispatcher: Dispatcher;
  readonly #options: ApiServerOptions;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #health = new Health();
  readonly #handler: HttpHandler;
  readonly #resources: ResourceHandler;
  readonly #listeners: Listener[] = [];
  readonly #stop = new AbortController();
  #opened = false;

  constructor(options: ApiServerOptions) {
    this.#options = options;
    this.#log = options.log ?? silentLogger;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? systemRandom;
    this.table = options.optional?.length
      ? new ResourceTable([...builtinResources, ...options.optional])
      : new ResourceTable();
    this.caches = new Caches(options.store);
    this.reader = new CacheReader(this.table, this.caches);
    const registry = new Registry({
      caches: this.caches,
      table: this.table,
      admission: options.admission ?? [],
      allocators: options.allocators ?? [],
      clock: this.#clock,
      random: this.#random,
    });
    this.dispatcher = new Dispatcher({
      registry,
      createHandlers: options.createHandlers ?? [],
      clock: this.#clock,
      authorize: attributes => this.authorize(attributes),
    });
    this.#resources = new ResourceHandler({
      dispatcher: this.dispatcher,
      table: this.table,
      connectHandlers: options.connectHandlers ?? [],
      clock: this.#clock,
    });
    this.#handler = new HttpHandler({
      authenticators: options.authenticators ?? [{ authenticate: () => LOOPBACK_USER }],
      authorize: (attributes, trail) => this.authorize(attributes, trail),
      auditor: options.auditor,
      tracer: options.tracer,
      fairness: options.fairness,
      stored: of => {
        const served = this.table.find(of.group, of.version, of.resource);
        if (!served) return { count: 0, bytes: 0 };
        const { entries, bytes } = this.caches.of(served.prefix);
        return { count: entries.size, bytes };
      },
      knows: ({ group, version, resource, subresource }) => {
        const info = this.table.find(group, version, resource)?.info;
        return info !== undefined && (subresource === '' || info.subresources.some(({ name }) => name === subresource));
      },
      resources: this.#resources,
      discovery: new Discovery(this.table, options.aggregator),
      aggregator: options.aggregator,
      openapi: new OpenapiService(KUBERNETES_VERSION.git, this.table),
      health: this.#health,
      openid: options.openid,
      flags: options.flags ?? {},
      clock: this.#clock,
      random: this.#random,
      log: this.#log,
    });
    metrics.onCollect(() => {
      for (const { prefix, entries, bytes, received } of this.caches.all()) {
        const [, named = '', resource = ''] = /^\/registry\/([^/]+)\/([^/]+)\//.exec(prefix) ?? [];
        const group = named === 'core' ? '' : named;
        storedObjects.set(entries.size, group, resource);
        storedObjectsByName.set(entries.size, group ? `${resource}.${group}` : resource);
        storedBytes.set(bytes, group, resource);
        storageEvents.set(received, group, resource);
      }
      // The same name as among the components' statuses.
      storageSize.set(options.store.bytesOnDisk?.() ?? 0, 'etcd-0');
    });
    const store = () => (this.caches.failure ? 'the store is lost' : undefined);
    this.#health.add({ name: 'etcd', check: store });
    this.addComponent({ name: 'etcd-0', check: store });
    this.#health.add({
      name: 'informer-sync',
      check: () => (this.#opened ? undefined : 'caches are not loaded'),
      readinessOnly: true,
    });
    this.#health.add({
      name: 'shutdown',
      check: () => (this.#stop.signal.aborted ? 'process is shutting down' : undefined),
      readinessOnly: true,
    });
  }

  /** A server whose caches are loaded. */
  static async open(options: ApiServerOptions): Promise<ApiServer> {
    const server = new ApiServer(options);
    await server.open();
    return server;
  }
  /** Loads the caches; for callers whose plug-ins need `reader` or `transport` before. */
  async open(): Promise<void> {
    await this.caches.open();
    new CustomResources({
      table: this.table,
      reader: this.reader,
      transport: this.transport(LOOPBACK_USER),
      webhooks: new WebhookClient({ reader: () => this.reader, random: this.#random }),
      clock: this.#clock,
      random: this.#random,
      log: this.#log,
      signal: this.#stop.signal,
    }).open();
    this.#opened = true;
    void new Maintenance({ caches: this.caches, clock: this.#clock, log: this.#log }).run(this.#stop.signal);
    this.#log.debug('caches loaded', { revision: this.caches.revision });
  }

  /** The in-process door for a user; cheap, one for each component, whose name is the manager of the fields it writes. */
  transport(user: UserInfo, component = 'kube-apiserver'): Transport {
    const options = {
      dispatcher: this.dispatcher,
      table: this.table,
      user,
      component,
      authorize: (attributes: RequestAttributes, trail?: Trail) => this.authorize(attributes, trail),
    };
    const { auditor, tracer } = this.#options;
    const transport = auditor ? new AuditedTransport(options, auditor, this.#random) : new InProcessTransport(options);
    return tracer ? new TracedTransport(transport, tracer, component) : transport;
  }

  /** Throws Forbidden in upstream's words. */
  authorize(attributes: RequestAttributes, trail?: Trail): void | Promise<void> {
    const { authorizer } = this.#options;
    if (!authorizer || attributes.user.groups.includes('system:masters')) return note(trail, ALLOWED);
    const decision = authorizer.authorize(attributes);
    if (decision instanceof Promise) return decision.then(later => check(attributes, later, trail));
    return check(attributes, decision, trail);
  }

  /** A named part of `/readyz` (and of `/livez` unless `readinessOnly`), such as a bootstrap that must finish. */
  addCheck(check: HealthCheck): void {
    this.#health.add(check);
  }

  /** Resolves once somebody has the answer that the server is ready: whoever waits for that waits for nothing else. */
  async toldReady(): Promise<void> {
    await this.#health.toldReady;
    // The answer is written at the end of this turn.
    await new Promise(resolve => setImmediate(resolve));
  }

  /** A part of the control plane that `kubectl get componentstatuses` shows. */
  addComponent(component: Component): void {
    this.dispatcher.components.add(component);
  }

  /** Serves HTTPS; may be called for several addresses. `fd` is a listening socket made elsewhere. */
  async listen(address: ListenAddress, tls: TlsOptions): Promise<{ port: number }> {
    const listener = await listenTls(address, tls, {
      request: (exchange, certificate) => this.#handler.handle(exchange, certificate),
      upgrade: (upgrade, certificate) =>
        void handleUpgrade(
          { ...upgrade, certificate },
          {
            authenticate: (exchange, arrival) => this.#handler.authenticate(exchange, arrival),
            authorize: (attributes, trail) => this.authorize(attributes, trail),
            resources: this.#resources,
            aggregator: this.#options.aggregator,
            route,
            nowMs: () => this.#clock.monotonic(),
            auditIdOf: headers => this.#handler.auditIdOf(headers),
            tracer: this.#options.tracer,
          },
        ),
    });
    this.#listeners.push(listener);
    return { port: listener.port };
  }

  /** Serves the port of a component of this process, to whoever this server would let. */
  async listenFor(pages: ComponentPages, address: ListenAddress, tls: TlsOptions): Promise<{ port: number }> {
    const component = new ComponentServer({
      ...pages,
      identify: credentials => this.#handler.identify(credentials),
      authorize: attributes => this.authorize(attributes),
      auditIdOf: headers => this.#handler.auditIdOf(headers),
      clock: this.#clock,
      log: this.#log,
    });
    const listener = await listenTls(address, tls, {
      request: (exchange, certificate) => component.handle(exchange, certificate),
      upgrade: ({ socket }) => void socket.destroy(),
    });
    this.#listeners.push(listener);
    return { port: listener.port };
  }

  /** Closes the listeners and every connection; the store is the caller's. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#options.aggregator?.close();
    this.caches.close();
    await Promise.all(this.#listeners.map(listener => listener.close()));
    await this.#options.auditor?.close();
  }
}

const ALLOWED: Decision = { allowed: true, reason: '' };

const allowedSeries = authorizations.series('allowed');

function note(trail: Trail | undefined, { allowed, reason }: Decision): void {
  if (allowed) allowedSeries.add(1);
  else authorizations.add(1, 'no-opinion');
  trail?.annotate('authorization.k8s.io/decision', allowed ? 'allow' : 'forbid');
  trail?.annotate('authorization.k8s.io/reason', reason);
}

function check(attributes: RequestAttributes, decision: Decision, trail: Trail | undefined): void {
  note(trail, decision);
  if (!decision.allowed) throw forbiddenRequest(attributes, decision.reason);
}

/** Reads of the caches for everything inside the API server that must not wait. */
class CacheReader implements Reader {
  readonly table: ResourceTable;
  readonly #caches: Caches;

  constructor(table: ResourceTable, caches: Caches) {
    this.table = table;
    this.#caches = caches;
  }
  #served(of: ResourceId): Served | undefined {
    return this.table.of(of);
  }
  get(of: ResourceId, namespace: string, name: string): KubeObject | undefined {
    const served = this.#served(of);
    const entry =
      served && this.#caches.of(served.prefix).entries.get(served.info.namespaced ? `${namespace}/${name}` : name);
    return entry && shownObject(served, entry.object);
  }
  list(of: ResourceId, namespace = ''): readonly KubeObject[] {
    const served = this.#served(of);
    if (!served) return [];
    const objects: KubeObject[] = [];
    this.#caches.of(served.prefix).entries.walk(namespace ? `${namespace}/` : '', undefined, entry => {
      objects.push(shownObject(served, entry.object));
      return true;
    });
    return objects;
  }
  onChange(of: ResourceId, handler: (object: KubeObject | undefined, old: KubeObject | undefined) => void): () => void {
    const served = this.#served(of);
    if (!served) return () => {};
    const shown = (object: KubeObject | undefined) => object && shownObject(served, object);
    return this.#caches.of(served.prefix).onChange((object, old) => handler(shown(object), shown(old)));
  }
}
