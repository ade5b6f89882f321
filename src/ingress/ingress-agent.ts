/**
 * The ingress data plane of one node: runs a HAProxy there while there are Ingresses of ours, keeps it at what they ask for, and says
 * on the Node that it is there. Changes of endpoints alone take a short way. What a failed change left is tried again with back-off.
 */

import { copyFileSync, existsSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { Backoff } from '../base/backoff.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { InformerFactory } from '../client/informer.ts';
import { NODES } from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';
import { DataPlane } from './haproxy/data-plane.ts';
import { HAPROXY, HaproxyProcess, haproxyUser } from './haproxy/haproxy-process.ts';
import { publishMetrics } from './haproxy/statistics.ts';
import { DATA_PLANE_ANNOTATION, HTTP_PORT, HTTPS_PORT } from './ingress-service.ts';
import { IngressSource, type IngressState } from './ingress-source.ts';
import type { Route } from './route-table.ts';
import { ServiceEndpoints } from './service-endpoints.ts';

export interface IngressAgentOptions {
  readonly nodeName: string;
  readonly nodeIps: readonly string[];
  /** HAProxy lives in `runDir/ingress`. */
  readonly runDir: string;
  /** A line of JSON for each request; beside it `.1`, the one before. */
  readonly accessLog: string;
  /** Acts as system:coxswain:ingress: reads Ingresses and Secrets. */
  readonly transport: Transport;
  /** Services, slices and nodes, shared with the node's proxy. */
  readonly informers: InformerFactory;
  /** Of `transport`. */
  readonly ingressInformers: InformerFactory;
  /** May patch this node. */
  readonly nodeTransport: Transport;
  readonly nameservers: readonly string[];
  readonly defaultCertificate: string;
  /** Default: every address of the node. */
  readonly bindAddress?: string;
  readonly httpPort?: number;
  readonly httpsPort?: number;
  readonly log: Logger;
  readonly clock: Clock;
}

/** Changes of the routes within this time go together; endpoints do not wait. */
const GATHER_MS = 20;
const SWEEP_MS = 1000;
const RETRY_MS_MIN = 200;
const RETRY_MS_MAX = 30_000;
const ACCESS_LOG_BYTES_MAX = 20_000_000;

export class IngressAgent {
  readonly #options: IngressAgentOptions;
  readonly #source: IngressSource;
  readonly #endpoints: ServiceEndpoints;
  readonly #log: Logger;
  readonly #backoff: Backoff;
  readonly #changedServices = new Set<string>();
  #plane: DataPlane | undefined;
  #state: IngressState | undefined;
  #routesByService = new Map<string, Route[]>();
  #servers = new Map<string, readonly string[]>();
  #routesChanged = false;
  #endpointsChanged = false;
  #announced: boolean | undefined;
  #wake: () => void = () => {};

  constructor(options: IngressAgentOptions) {
    this.#options = options;
    this.#log = options.log.with({ part: 'ingress' });
    this.#backoff = new Backoff({ initialMs: RETRY_MS_MIN, maxMs: RETRY_MS_MAX, clock: options.clock });
    this.#source = new IngressSource({
      transport: options.transport,
      informers: options.ingressInformers,
      log: this.#log,
    });
    this.#endpoints = new ServiceEndpoints(options.informers);
  }

  /** Until the signal aborts. HAProxy goes on afterwards. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    this.#source.onChange(() => {
      this.#routesChanged = true;
      this.#wake();
    });
    this.#endpoints.onChange(service => {
      this.#changedServices.add(service);
      this.#endpointsChanged = true;
      this.#wake();
    });
    this.#source.start(signal);
    signal.addEventListener('abort', () => this.#wake(), { once: true });
    let sweepAtMs = Number.POSITIVE_INFINITY;
    while (!signal.aborted) {
      if (!this.#routesChanged && !this.#endpointsChanged) await this.#sleep(sweepAtMs - clock.monotonic(), signal);
      if (signal.aborted) return;
      try {
        await this.#step(signal);
        this.#backoff.reset('apply');
        if (clock.monotonic() >= sweepAtMs || sweepAtMs === Number.POSITIVE_INFINITY) {
          this.#boundAccessLog();
          await this.#plane?.sweep();
          sweepAtMs = this.#plane ? clock.monotonic() + SWEEP_MS : Number.POSITIVE_INFINITY;
        }
      } catch (error) {
        this.#log.warn('ingress is not as it should be, trying again', { error: messageOf(error) });
        this.#routesChanged = true;
        await clock.sleep(this.#backoff.next('apply'), signal);
      }
    }
  }

  #sleep(atMostMs: number, signal: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      const timer = Number.isFinite(atMostMs) ? this.#options.clock.after(Math.max(0, atMostMs), resolve) : undefined;
      this.#wake = () => {
        timer?.cancel();
        resolve();
      };
      if (signal.aborted) this.#wake();
    });
  }

  async #step(signal: AbortSignal): Promise<void> {
    const isDown = this.#plane !== undefined && !this.#process?.isRunning;
    if (this.#routesChanged || isDown) {
      if (this.#state && !isDown) await this.#options.clock.sleep(GATHER_MS, signal);
      await this.#applyRoutes();
    } else if (this.#endpointsChanged) await this.#applyEndpoints();
  }

  #process: HaproxyProcess | undefined;

  async #applyRoutes(): Promise<void> {
    this.#routesChanged = false;
    this.#endpointsChanged = false;
    this.#changedServices.clear();
    const ours = this.#source.ours();
    if (!ours) return;
    if (ours.length === 0) return this.#stop();
    const state = this.#source.state();
    if (!state || !this.#endpoints.hasSynced) return;
    if (!HaproxyProcess.isInstalled())
      throw new Error(`${HAPROXY} is missing; it comes with the Debian package haproxy: apt-get install haproxy`);
    this.#state = state;
    this.#routesByService = new Map();
    this.#servers = new Map();
    for (const route of state.table.routes.values()) {
      this.#servers.set(route.id, this.#serversOf(route));
      if (!route.service) continue;
      const key = `${route.service.namespace}/${route.service.name}`;
      const routes = this.#routesByService.get(key);
      if (routes) routes.push(route);
      else this.#routesByService.set(key, [route]);
    }
    await this.#start().apply({ ...state, servers: this.#servers });
    await this.#announce(true);
  }

  async #applyEndpoints(): Promise<void> {
    this.#endpointsChanged = false;
    const changed = [...this.#changedServices].flatMap(service => this.#routesByService.get(service) ?? []);
    const isFirst = this.#changedServices.has('');
    this.#changedServices.clear();
    if (isFirst && !this.#state) {
      this.#routesChanged = true;
      return;
    }
    const different = changed.filter(route => {
      const servers = this.#serversOf(route);
      if (String(servers) === String(this.#servers.get(route.id))) return false;
      this.#servers.set(route.id, servers);
      return true;
    });
    if (different.length > 0) await this.#plane?.applyServers(different, this.#servers);
  }

  #serversOf(route: Route): readonly string[] {
    return route.service && !route.settings.isClosed ? this.#endpoints.of(route.service).addresses : [];
  }

  #start(): DataPlane {
    if (this.#plane) return this.#plane;
    const { runDir, accessLog, clock, nodeIps, bindAddress, nameservers, defaultCertificate } = this.#options;
    const { httpPort = HTTP_PORT, httpsPort = HTTPS_PORT } = this.#options;
    this.#process = new HaproxyProcess({ folder: join(runDir, 'ingress'), accessLog, user: haproxyUser(), clock });
    this.#plane = new DataPlane({
      process: this.#process,
      httpPort,
      httpsPort,
      bindAddress: bindAddress ?? (nodeIps.some(address => address.includes(':')) ? '::' : ''),
      nameservers,
      defaultCertificate,
      clock,
      log: this.#log,
    });
    publishMetrics(
      () => this.#plane,
      route => this.#state?.table.routes.get(route),
    );
    return this.#plane;
  }

  async #stop(): Promise<void> {
    this.#state = undefined;
    this.#routesByService.clear();
    await this.#announce(false);
    const { runDir, accessLog, clock } = this.#options;
    const folder = join(runDir, 'ingress');
    if (!this.#plane && existsSync(folder))
      this.#process ??= new HaproxyProcess({ folder, accessLog, user: haproxyUser(), clock });
    (this.#plane ?? this.#process)?.stop();
    this.#plane = undefined;
    this.#process = undefined;
  }

  /** Tells on the Node whether traffic may come here. */
  async #announce(isServing: boolean): Promise<void> {
    if (this.#announced === isServing) return;
    const { nodeTransport, nodeName, httpPort = HTTP_PORT, httpsPort = HTTPS_PORT } = this.#options;
    await nodeTransport.patch(
      { of: NODES, name: nodeName },
      { metadata: { annotations: { [DATA_PLANE_ANNOTATION]: isServing ? `${httpPort}/${httpsPort}` : null } } },
      'application/merge-patch+json',
    );
    this.#announced = isServing;
  }

  /** HAProxy writes to the file it was given, so it is copied and emptied. */
  #boundAccessLog(): void {
    const path = this.#options.accessLog;
    if (!existsSync(path) || statSync(path).size < ACCESS_LOG_BYTES_MAX) return;
    copyFileSync(path, `${path}.1`);
    truncateSync(path);
  }
}
