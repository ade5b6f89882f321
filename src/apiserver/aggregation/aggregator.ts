/**
 * APIService objects at work. Those with a Service hand their group-version to an extension server: requests are forwarded in
 * the name of their user, its discovery is merged with ours, and whether it answers stands in the Available condition. Those
 * without stand for what this server serves itself, and come and go with it.
 */

import type { IncomingMessage } from 'node:http';
import * as https from 'node:https';
import type { Duplex } from 'node:stream';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import type { APIService, APIServiceCondition } from '../../api/apiregistration/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { apiGroupOrder } from '../../api/resources.ts';
import type { ResourceInfo } from '../../api/schema.ts';
import { assert } from '../../base/assert.ts';
import { type Clock, formatTime } from '../../base/clock.ts';
import { isReason, messageOf, serviceUnavailable } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import { activeSpan } from '../../base/tracing/active.ts';
import { answeredBy, clientSpan, endUnanswered } from '../../base/tracing/http-client.ts';
import { traceHeaders } from '../../base/tracing/propagation.ts';
import { CUSTOM_RESOURCE_DEFINITIONS, ENDPOINT_SLICES, SERVICES } from '../../client/resources.ts';
import type { ResourceId, Transport } from '../../client/transport.ts';
import type { Pki } from '../certificates/pki.ts';
import { markRaw, type ReplyContext } from '../reply.ts';
import type { Reader, UserInfo } from '../request.ts';
import { apiVersionOf } from '../resource-table.ts';
import { connectTcp, type Endpoint } from '../streaming/dial.ts';
import { pickEndpoint } from '../streaming/proxies.ts';
import { copyBody, forwardedHeaders, requestHead, sendBody, tunnel } from '../streaming/tunnel.ts';
import { type ExtensionOpenapi, ExtensionOpenapis } from './extension-openapi.ts';
import { type FrontProxy, publishFrontProxy, userHeaders } from './front-proxy.ts';

const API_SERVICES: ResourceId = { group: 'apiregistration.k8s.io', version: 'v1', resource: 'apiservices' };
const AUTOMANAGED = 'kube-aggregator.kubernetes.io/automanaged';
const CHECK_INTERVAL_MS = 30_000;
const CHECK_SOON_MS = 50;
const CHECK_MS_MAX = 5_000;
const REPLY_BYTES_MAX = 8 * 1024 * 1024;
/** Priorities of our own groups: falling in the order of discovery, as upstream's. */
const FIRST_PRIORITY = 18_000;
const PRIORITY_STEP = 100;
const CUSTOM_PRIORITY = { groupPriorityMinimum: 1000, versionPriority: 100 };
/** The aggregator itself, as extension servers know it. */
const SELF: UserInfo = { name: 'system:kube-aggregator', groups: ['system:masters'] };

/** A group-version that an extension server serves, as discovery shows it. */
export interface ExternalVersion {
  readonly group: string;
  readonly version: string;
  readonly priority: number;
  readonly isFresh: boolean;
  /** As in `apidiscovery.k8s.io/v2`. */
  readonly resources: readonly unknown[];
}

/** A group-version that this process answers itself without storing objects of it, unless an APIService leads elsewhere. */
export interface OwnExtension {
  readonly group: string;
  readonly version: string;
  readonly priority: number;
  /** As in `apidiscovery.k8s.io/v2`. */
  readonly resources: readonly unknown[];
  /** Anything at or below its path; the user may do what is asked. Throws ApiError. */
  answer(context: ReplyContext): Promise<void>;
}

/** An upgrade request and the socket that it came on. */
export interface UpgradeArrival {
  readonly req: IncomingMessage;
  readonly socket: Duplex;
  readonly head: Buffer;
}

/** Who answers for a path; each in the name of the user, who may do what is asked. */
export interface Forwarder {
  forward(context: ReplyContext, user: UserInfo): Promise<void>;
  /** Undefined where nothing can be upgraded. */
  readonly upgrade: ((arrival: UpgradeArrival, user: UserInfo) => Promise<void>) | undefined;
}

interface Extension {
  service: APIService;
  isAvailable: boolean;
  resources: readonly unknown[];
  checking: boolean;
}

export interface AggregatorOptions {
  readonly reader: () => Reader;
  readonly transport: () => Transport;
  readonly pki: Pick<Pki, 'ca' | 'ensureFrontProxy'>;
  readonly own?: readonly OwnExtension[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export class Aggregator {
  readonly #options: AggregatorOptions;
  readonly #extensions = new Map<string, Extension>();
  readonly #agent = new https.Agent({ keepAlive: true, maxFreeSockets: 8, timeout: 60_000 });
  readonly #openapis = new ExtensionOpenapis();
  #hadOpenapi = false;
  #identity: FrontProxy | undefined;
  #version = 0;
  readonly #stop = new AbortController();

  constructor(options: AggregatorOptions) {
    this.#options = options;
  }

  /** Grows with every change of what extension servers serve. */
  get version(): number {
    return this.#version;
  }
  get versions(): readonly ExternalVersion[] {
    const others = [...this.#extensions.values()].map(({ service: { spec }, isAvailable, resources }) => ({
      group: spec.group ?? '',
      version: spec.version ?? '',
      priority: spec.groupPriorityMinimum,
      isFresh: isAvailable,
      resources,
    }));
    const own = this.#own
      .filter(one => !this.#extensions.has(`${one.version}.${one.group}`))
      .map(({ group, version, priority, resources }) => ({ group, version, priority, isFresh: true, resources }));
    return [...others, ...own];
  }
  get #own(): readonly OwnExtension[] {
    return this.#options.own ?? [];
  }

  /** Writes what every cluster has: our own APIServices, and where extension servers learn whom to trust. */
  async bootstrap(): Promise<void> {
    const { transport, pki } = this.#options;
    const reader = this.#options.reader();
    this.#identity = await pki.ensureFrontProxy();
    await Promise.all([
      publishFrontProxy(reader, transport(), { ca: this.#identity.ca, clientCa: pki.ca }),
      ...this.#own.map(({ group, version, priority }) =>
        this.#ensureLocal(group, version, 'onstart', { groupPriorityMinimum: priority, versionPriority: priority }),
      ),
      ...apiGroupOrder.flatMap(({ group, versions }, at) =>
        group === 'apiregistration.k8s.io'
          ? []
          : versions.map((version, rank) =>
              this.#ensureLocal(group, version, 'onstart', {
                groupPriorityMinimum: FIRST_PRIORITY - at * PRIORITY_STEP,
                versionPriority: (versions.length - rank) * 15,
              }),
            ),
      ),
    ]);
  }
  async #ensureLocal(group: string, version: string, managed: string, priorities: object): Promise<void> {
    const name = `${version}.${group}`;
    if (this.#options.reader().get(API_SERVICES, '', name)) return;
    const object = {
      apiVersion: 'apiregistration.k8s.io/v1',
      kind: 'APIService',
      metadata: { name, labels: { [AUTOMANAGED]: managed } },
      spec: { ...(group ? { group } : {}), version, ...priorities },
    };
    await this.#options
      .transport()
      .create({ of: API_SERVICES }, object as unknown as KubeObject)
      .catch(error => {
        if (!isReason(error, 'AlreadyExists')) throw error;
      });
  }

  /** Follows the objects until `close`. Needs loaded caches. */
  start(): void {
    const reader = this.#options.reader();
    for (const service of reader.list(API_SERVICES)) this.#follow(service as APIService);
    reader.onChange(API_SERVICES, (object, old) => {
      if (object) this.#follow(object as APIService);
      else this.#forget((old as APIService).metadata.name);
    });
    const recheck = (object: KubeObject | undefined, name: string | undefined) => {
      if (this.#extensions.size === 0 || !object) return;
      for (const { service } of this.#extensions.values())
        if (service.spec.service?.name === name && service.spec.service?.namespace === object.metadata.namespace)
          this.#checkSoon(service.metadata.name);
    };
    reader.onChange(SERVICES, (object, old) => recheck(object ?? old, (object ?? old)?.metadata.name));
    reader.onChange(ENDPOINT_SLICES, (object, old) =>
      recheck(object ?? old, (object ?? old)?.metadata.labels?.['kubernetes.io/service-name']),
    );
    // Definitions are followed by others too, which must have had their turn.
    const later = () => this.#options.clock.after(1, () => void this.#syncCustom(), { background: true });
    reader.onChange(CUSTOM_RESOURCE_DEFINITIONS, later);
    later();
    const tick = () => {
      if (this.#closed) return;
      for (const name of this.#extensions.keys()) void this.#check(name);
      this.#options.clock.after(CHECK_INTERVAL_MS, tick, { background: true });
    };
    this.#options.clock.after(CHECK_INTERVAL_MS, tick, { background: true });
  }
  /** What extension servers have of OpenAPI; undefined while there are none. Never rejects. */
  openapi(): Promise<readonly ExtensionOpenapi[]> | undefined {
    if (this.#extensions.size === 0 && !this.#hadOpenapi) return undefined;
    const servers = [...this.#extensions.values()]
      .filter(({ isAvailable }) => isAvailable)
      .map(({ service }) => ({
        path: `apis/${service.spec.group}/${service.spec.version}`,
        get: async (path: string) => this.#get(service, this.#endpoint(service), path, 'application/json'),
      }));
    this.#hadOpenapi = servers.length > 0;
    return this.#openapis.all(servers, this.#options.clock.now());
  }
  /** Resources of extension servers whose objects can be listed and deleted, each in one version; and the versions of those that do not answer. */
  deletable(): { readonly served: readonly ResourceInfo[]; readonly silent: readonly string[] } {
    const served = new Map<string, ResourceInfo>();
    const silent: string[] = [];
    const byRank = [...this.#extensions.values()].sort(
      (a, b) => b.service.spec.versionPriority - a.service.spec.versionPriority,
    );
    for (const { service, isAvailable, resources } of byRank) {
      const { group = '', version = '' } = service.spec;
      if (!isAvailable) silent.push(`${group}/${version}`);
      for (const resource of resources as readonly DiscoveredResource[]) {
        const info = infoOf(resource, { group, version });
        if (['delete', 'list'].every(verb => info.verbs.includes(verb)) && !served.has(`${group}/${info.resource}`))
          served.set(`${group}/${info.resource}`, info);
      }
    }
    return { served: [...served.values()], silent };
  }
  close(): void {
    this.#stop.abort();
    this.#agent.destroy();
  }
  get #closed(): boolean {
    return this.#stop.signal.aborted;
  }

  #follow(service: APIService): void {
    const { name } = service.metadata;
    if (!service.spec.service) return this.#forget(name);
    const known = this.#extensions.get(name);
    if (known) {
      const changed = JSON.stringify(known.service.spec) !== JSON.stringify(service.spec);
      known.service = service;
      if (!changed) return;
    } else this.#extensions.set(name, { service, isAvailable: false, resources: [], checking: false });
    this.#version++;
    this.#checkSoon(name);
  }
  #forget(name: string): void {
    if (this.#extensions.delete(name)) this.#version++;
  }

  /** One APIService for each version of each group that definitions make us serve. */
  async #syncCustom(): Promise<void> {
    const { reader, transport, log } = this.#options;
    if (this.#closed) return;
    const served = new Set((reader().table?.custom ?? []).map(({ info }) => `${info.version}.${info.group}`));
    try {
      for (const { info } of reader().table?.custom ?? [])
        await this.#ensureLocal(info.group, info.version, 'true', CUSTOM_PRIORITY);
      for (const { metadata } of reader().list(API_SERVICES))
        if (metadata.labels?.[AUTOMANAGED] === 'true' && !served.has(metadata.name))
          await transport().delete({ of: API_SERVICES, name: metadata.name });
    } catch (error) {
      if (!isReason(error, 'NotFound', 'Conflict') && !this.#closed)
        log.warn('APIServices of custom resources could not be written', { error: messageOf(error) });
    }
  }

  // Availability

  #checkSoon(name: string): void {
    this.#options.clock.after(CHECK_SOON_MS, () => void this.#check(name), { background: true });
  }
  async #check(name: string): Promise<void> {
    const extension = this.#extensions.get(name);
    if (!extension || extension.checking || this.#closed) return;
    extension.checking = true;
    try {
      const { status, reason, message } = await this.#probe(extension);
      const isAvailable = status === 'True';
      if (isAvailable !== extension.isAvailable || isAvailable) this.#version++;
      extension.isAvailable = isAvailable;
      await this.#writeCondition(extension.service, { type: 'Available', status, reason, message });
    } catch (error) {
      if (!this.#closed && !isReason(error, 'NotFound', 'Conflict'))
        this.#options.log.warn('an APIService could not be checked', { name, error: messageOf(error) });
    } finally {
      extension.checking = false;
    }
  }
  async #probe(extension: Extension): Promise<{ status: string; reason: string; message: string }> {
    const { service, ...spec } = extension.service.spec;
    const where = `service/${service!.name} in ${JSON.stringify(service!.namespace)}`;
    const failed = (reason: string, message: string) => ({ status: 'False', reason, message });
    if (!this.#options.reader().get(SERVICES, service!.namespace ?? '', service!.name ?? ''))
      return failed('ServiceNotFound', `${where} is not present`);
    let endpoint: Endpoint;
    try {
      endpoint = this.#endpoint(extension.service);
    } catch {
      return failed('MissingEndpoints', `endpoints for ${where} have no addresses with port name ""`);
    }
    const path = `/apis/${spec.group}/${spec.version}`;
    try {
      // Not every extension server knows aggregated discovery.
      const whole = await this.#get(extension.service, endpoint, '/apis', DISCOVERY).catch(() => undefined);
      extension.resources =
        resourcesIn(whole, spec.group!, spec.version!) ??
        plainResources(await this.#get(extension.service, endpoint, path, 'application/json'));
      return { status: 'True', reason: 'Passed', message: 'all checks passed' };
    } catch (error) {
      return failed(
        'FailedDiscoveryCheck',
        `failing or missing response from https://${endpoint.host}:${endpoint.port}${path}: ${messageOf(error)}`,
      );
    }
  }
  async #writeCondition(
    service: APIService,
    condition: Omit<APIServiceCondition, 'lastTransitionTime'>,
  ): Promise<void> {
    const { reader, transport, clock } = this.#options;
    const current = reader().get(API_SERVICES, '', service.metadata.name) as APIService | undefined;
    if (!current) return;
    const old = current.status?.conditions?.find(({ type }) => type === condition.type);
    if (old?.status === condition.status && old.reason === condition.reason && old.message === condition.message)
      return;
    const lastTransitionTime = (old?.status === condition.status && old.lastTransitionTime) || formatTime(clock.now());
    const others = (current.status?.conditions ?? []).filter(({ type }) => type !== condition.type);
    const status = { conditions: [...others, { ...condition, lastTransitionTime }] };
    const target = { of: API_SERVICES, name: current.metadata.name, subresource: 'status' };
    await transport().update(target, { ...current, status } as KubeObject);
  }

  // Requests

  #endpoint({ spec: { service } }: APIService): Endpoint {
    const { name = '', namespace = '', port = 443 } = service ?? {};
    return pickEndpoint(this.#options, { name, port: String(port) }, namespace);
  }
  #requestOptions({ spec }: APIService, { host, port }: Endpoint): https.RequestOptions {
    assert(this.#identity, 'the aggregator forwards before it was bootstrapped');
    const { key, certificate } = this.#identity.client;
    return {
      host,
      port,
      agent: this.#agent,
      key,
      cert: certificate,
      servername: `${spec.service?.name}.${spec.service?.namespace}.svc`,
      ...(spec.caBundle ? { ca: Buffer.from(spec.caBundle, 'base64') } : {}),
      rejectUnauthorized: !spec.insecureSkipTLSVerify,
    };
  }
  #get(service: APIService, endpoint: Endpoint, path: string, accept: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const request = https.get({
        ...this.#requestOptions(service, endpoint),
        path,
        headers: { accept, ...userHeaders(SELF) },
        signal: AbortSignal.timeout(CHECK_MS_MAX),
      });
      request.on('error', reject);
      request.on('response', reply => {
        const parts: Buffer[] = [];
        let size = 0;
        reply.on('data', (part: Buffer) => {
          size += part.length;
          if (size > REPLY_BYTES_MAX) request.destroy(new Error('the reply is too large'));
          else parts.push(part);
        });
        reply.on('end', () => {
          if (reply.statusCode !== 200) return reject(new Error(`bad status from the server: ${reply.statusCode}`));
          try {
            resolve(JSON.parse(Buffer.concat(parts).toString()));
          } catch (error) {
            reject(error as Error);
          }
        });
      });
    });
  }

  /** The extension that a path below `/apis` belongs to; undefined for what is ours. */
  find(path: string): Forwarder | undefined {
    if (!path.startsWith('/apis/') || (this.#extensions.size === 0 && this.#own.length === 0)) return undefined;
    const [, , group, version] = path.split('/');
    const extension = group && version ? this.#extensions.get(`${version}.${group}`) : undefined;
    const own = extension ? undefined : this.#own.find(one => one.group === group && one.version === version);
    if (own) return { forward: context => own.answer(context), upgrade: undefined };
    // What is served here cannot be taken over.
    if (!extension || this.#options.reader().table?.infos.some(info => apiVersionOf(info) === `${group}/${version}`))
      return undefined;
    return {
      forward: (context, user) => this.#forward(extension, context, user),
      upgrade: (arrival, user) => this.#upgrade(extension, arrival, user),
    };
  }

  /** Joins the client's socket to the server's; what the server replies is the client's, a refusal too. */
  async #upgrade(
    { service, isAvailable }: Extension,
    { req, socket, head }: UpgradeArrival,
    user: UserInfo,
  ): Promise<void> {
    if (!isAvailable) throw serviceUnavailable('service unavailable');
    const endpoint = this.#endpoint(service);
    const { host, port, key, cert, servername, ca, rejectUnauthorized } = this.#requestOptions(service, endpoint);
    const plain = await connectTcp(endpoint);
    const backend = await new Promise<TLSSocket>((resolve, reject) => {
      const secure = connectTls(
        {
          socket: plain,
          key,
          cert,
          servername,
          ca,
          rejectUnauthorized,
          ALPNProtocols: ['http/1.1'],
        } as ConnectionOptions,
        () => resolve(secure),
      );
      secure.once('error', error => {
        plain.destroy();
        reject(serviceUnavailable(`error trying to reach service: ${messageOf(error)}`));
      });
    });
    const headers = forwardedHeaders(req.headers, { upgrade: true });
    for (const name of Object.keys(headers)) if (name.startsWith('x-remote-')) delete headers[name];
    const at = `${host}:${port}`;
    const { method = 'GET', url: path = '/' } = req;
    const span = activeSpan();
    const trace = span ? traceHeaders(span.context) : {};
    const asked = requestHead({ method, path, host: at, headers: { ...headers, ...userHeaders(user), ...trace } });
    await tunnel({ socket, head }, backend, asked);
  }

  async #forward({ service, isAvailable }: Extension, context: ReplyContext, user: UserInfo): Promise<void> {
    if (!isAvailable) throw serviceUnavailable('service unavailable');
    const endpoint = this.#endpoint(service);
    const { exchange } = context;
    const { req, res } = exchange.raw();
    markRaw(context, { res });
    const headers = forwardedHeaders(req.headers, { upgrade: false });
    // Nobody but us says who the user is.
    for (const name of Object.keys(headers)) if (name.startsWith('x-remote-')) delete headers[name];
    const at = `${endpoint.host}:${endpoint.port}`;
    const span = clientSpan(() => ({ ...endpoint, method: exchange.method, url: `https://${at}${exchange.url}` }));
    const reply = await new Promise<import('node:http').IncomingMessage | undefined>((resolve, reject) => {
      const request = https.request(
        {
          ...this.#requestOptions(service, endpoint),
          method: exchange.method,
          path: exchange.url,
          headers: { ...headers, host: at, ...userHeaders(user), ...(span ? traceHeaders(span.context) : {}) },
        },
        resolve,
      );
      request.once('error', error => {
        if (span) endUnanswered(span, error);
        reject(serviceUnavailable(`error trying to reach service: ${messageOf(error)}`));
      });
      res.once('close', () => {
        request.destroy();
        resolve(undefined);
      });
      sendBody(req, request);
    });
    if (!reply) return span?.end();
    if (span) answeredBy(span, reply.statusCode ?? 0);
    reply.once('close', () => span?.end());
    context.code = reply.statusCode ?? 502;
    res.statusCode = context.code;
    for (const [name, value] of Object.entries(forwardedHeaders(reply.headers, { upgrade: false })))
      res.setHeader(name, value as string | string[]);
    await copyBody(reply, res);
  }
}

const DISCOVERY =
  'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json';

/** The resources of a version in an aggregated discovery document; undefined when it is of another kind. */
function resourcesIn(document: unknown, group: string, version: string): readonly unknown[] | undefined {
  const { kind, items } = (document ?? {}) as {
    kind?: string;
    items?: { metadata?: { name?: string }; versions?: { version?: string; resources?: unknown[] }[] }[];
  };
  if (kind !== 'APIGroupDiscoveryList') return undefined;
  const found = items?.find(item => item.metadata?.name === group)?.versions?.find(one => one.version === version);
  return found?.resources ?? [];
}

interface DiscoveredResource {
  readonly resource: string;
  readonly responseKind?: { readonly kind?: string };
  readonly scope?: string;
  readonly singularResource?: string;
  readonly verbs?: readonly string[];
}

function infoOf(of: DiscoveredResource, { group, version }: { group: string; version: string }): ResourceInfo {
  const kind = of.responseKind?.kind ?? '';
  return {
    group,
    version,
    resource: of.resource,
    singular: of.singularResource ?? '',
    kind,
    listKind: `${kind}List`,
    namespaced: of.scope === 'Namespaced',
    shortNames: [],
    categories: [],
    verbs: of.verbs ?? [],
    type: '',
    subresources: [],
  };
}

/** An APIResourceList in the words of aggregated discovery. */
function plainResources(document: unknown): readonly unknown[] {
  interface Resource {
    name: string;
    singularName?: string;
    namespaced?: boolean;
    group?: string;
    version?: string;
    kind: string;
    verbs?: string[];
    shortNames?: string[];
    categories?: string[];
  }
  const { groupVersion = '', resources = [] } = (document ?? {}) as { groupVersion?: string; resources?: Resource[] };
  const [group, version] = groupVersion.split('/');
  const kindOf = (one: Resource) => ({ group: one.group ?? group, version: one.version ?? version, kind: one.kind });
  return resources
    .filter(({ name }) => !name.includes('/'))
    .map(resource => {
      const below = resources.filter(({ name }) => name.startsWith(`${resource.name}/`));
      return {
        resource: resource.name,
        responseKind: kindOf(resource),
        scope: resource.namespaced ? 'Namespaced' : 'Cluster',
        singularResource: resource.singularName ?? '',
        verbs: resource.verbs ?? [],
        ...(resource.shortNames?.length ? { shortNames: resource.shortNames } : {}),
        ...(resource.categories?.length ? { categories: resource.categories } : {}),
        ...(below.length > 0
          ? {
              subresources: below.map(one => ({
                subresource: one.name.slice(resource.name.length + 1),
                responseKind: kindOf(one),
                verbs: one.verbs ?? [],
              })),
            }
          : {}),
      };
    });
}
