/**
 * A data plane of one node: runs a HAProxy there while there is something to serve, keeps it at what is asked for, and says on the
 * Node that it is there. Changes of endpoints alone take a short way. What a failed change left is tried again with back-off.
 * What is asked for comes from a `DataPlaneSource`, which knows the API's objects.
 */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Backoff } from '../../base/backoff.ts';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { Pace } from '../../base/pace.ts';
import { NODES } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import type { ServiceRef } from '../route-table.ts';
import type { ServiceEndpoints } from '../service-endpoints.ts';
import { boundAccessLog } from './access-log.ts';
import { DataPlane } from './data-plane.ts';
import type { Desired } from './desired.ts';
import { HAPROXY, HaproxyProcess, haproxyUser } from './haproxy-process.ts';
import { publishMetrics, type RouteLabels } from './statistics.ts';

/** What is to be served, but for endpoints. */
export interface Plan {
  /** Routes that want endpoints, and of what. */
  readonly services: ReadonlyMap<string, ServiceRef>;
  /** Said on the Node once it is served. */
  readonly announcement: string;
  desired(servers: ReadonlyMap<string, readonly string[]>): Desired;
  labels(route: string): RouteLabels | undefined;
}

export interface DataPlaneSource {
  onChange(handler: () => void): void;
  start(signal: AbortSignal): void;
  /** Undefined until everything that matters is known. */
  plan(): Plan | 'nothing' | undefined;
}

export interface NodeDataPlaneOptions {
  /** Names its folder, its metrics and its part of the log. */
  readonly name: 'ingress' | 'gateway';
  readonly source: DataPlaneSource;
  readonly endpoints: ServiceEndpoints;
  readonly nodeName: string;
  /** The annotation of the Node. */
  readonly annotation: string;
  /** HAProxy lives in a folder of this one. */
  readonly runDir: string;
  /** A line of JSON for each request; beside it `.1`, the one before. */
  readonly accessLog: string;
  /** May patch this node. */
  readonly nodeTransport: Transport;
  /** Whatever HAProxy may not reach is closed to it before it starts; absent where there is nothing to guard. */
  readonly guard?: { keep(): void } | undefined;
  readonly log: Logger;
  readonly clock: Clock;
}

/** Changes of the routes within this time go together; endpoints do not wait. */
const GATHER_MS = 20;
/** Changes that take a reload: as many at once, then one in a while, with all that has gathered. Each leaves a worker that has to drain. */
const RELOADS_AT_ONCE = 10;
const RELOAD_EVERY_MS = 1000;
const SWEEP_MS = 1000;
const RETRY_MS_MIN = 200;
const RETRY_MS_MAX = 30_000;
const ACCESS_LOG_BYTES_MAX = 20_000_000;

export class NodeDataPlane {
  readonly #options: NodeDataPlaneOptions;
  readonly #folder: string;
  readonly #log: Logger;
  readonly #backoff: Backoff;
  readonly #pace: Pace;
  #changedServices = new Set<string>();
  #process: HaproxyProcess | undefined;
  #plane: DataPlane | undefined;
  #plan: Plan | undefined;
  #routesByService = new Map<string, string[]>();
  #servers = new Map<string, readonly string[]>();
  #routesChanged = false;
  #endpointsChanged = false;
  /** Routes wait for that time: they take a reload. */
  #routesAtMs = Number.POSITIVE_INFINITY;
  #announced: string | null | undefined;
  #wake: () => void = () => {};

  constructor(options: NodeDataPlaneOptions) {
    this.#options = options;
    this.#folder = join(options.runDir, options.name);
    this.#log = options.log.with({ part: options.name });
    this.#backoff = new Backoff({ initialMs: RETRY_MS_MIN, maxMs: RETRY_MS_MAX, clock: options.clock });
    this.#pace = new Pace({ atOnce: RELOADS_AT_ONCE, everyMs: RELOAD_EVERY_MS, clock: options.clock });
  }

  /** Until the signal aborts. HAProxy goes on afterwards. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, source, endpoints } = this.#options;
    source.onChange(() => {
      this.#routesChanged = true;
      this.#wake();
    });
    endpoints.onChange(service => {
      this.#changedServices.add(service);
      this.#endpointsChanged = true;
      this.#wake();
    });
    source.start(signal);
    signal.addEventListener('abort', () => this.#wake(), { once: true });
    let sweepAtMs = Number.POSITIVE_INFINITY;
    while (!signal.aborted) {
      if (!this.#routesChanged && !this.#endpointsChanged)
        await this.#sleep(Math.min(sweepAtMs, this.#routesAtMs) - clock.monotonic(), signal);
      if (signal.aborted) return;
      try {
        await this.#step(signal);
        this.#backoff.reset('apply');
        if (clock.monotonic() >= sweepAtMs || sweepAtMs === Number.POSITIVE_INFINITY) {
          await this.#boundAccessLog();
          await this.#plane?.sweep();
          sweepAtMs = this.#plane ? clock.monotonic() + SWEEP_MS : Number.POSITIVE_INFINITY;
        }
      } catch (error) {
        this.#log.warn('not as it should be, trying again', { error: messageOf(error) });
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
    const { clock } = this.#options;
    const isDown = this.#plane !== undefined && !this.#process?.isRunning;
    if (this.#routesChanged || isDown || clock.monotonic() >= this.#routesAtMs) {
      if (this.#plan && !isDown) await clock.sleep(GATHER_MS, signal);
      await this.#applyRoutes();
    } else if (this.#endpointsChanged) await this.#applyEndpoints();
  }

  async #applyRoutes(): Promise<void> {
    const changed = this.#changedServices;
    this.#changedServices = new Set();
    this.#routesChanged = false;
    this.#endpointsChanged = false;
    this.#routesAtMs = Number.POSITIVE_INFINITY;
    const plan = this.#options.source.plan();
    if (!plan) return;
    if (plan === 'nothing') return this.#stop();
    if (!this.#options.endpoints.hasSynced) return;
    if (!HaproxyProcess.isInstalled())
      throw new Error(`${HAPROXY} is missing; it comes with the Debian package haproxy: apt-get install haproxy`);
    const routesByService = new Map<string, string[]>();
    const servers = new Map<string, readonly string[]>();
    for (const [route, service] of plan.services) {
      servers.set(route, this.#serversOf(service));
      const key = `${service.namespace}/${service.name}`;
      const routes = routesByService.get(key);
      if (routes) routes.push(route);
      else routesByService.set(key, [route]);
    }
    if (!(await this.#applyInTurn(plan.desired(servers)))) {
      for (const service of changed) this.#changedServices.add(service);
      return this.#applyEndpoints();
    }
    this.#plan = plan;
    this.#routesByService = routesByService;
    this.#servers = servers;
    await this.#announce(plan.announcement);
  }

  /** False when it takes a reload whose turn has not come. */
  async #applyInTurn(desired: Desired): Promise<boolean> {
    const plane = this.#start();
    const { reloads } = plane;
    if (!(await plane.apply(desired, { mayReload: this.#pace.mayNow }))) {
      this.#routesAtMs = this.#pace.nextMs;
      return false;
    }
    if (plane.reloads > reloads) this.#pace.took();
    return true;
  }

  async #applyEndpoints(): Promise<void> {
    this.#endpointsChanged = false;
    const changed = [...this.#changedServices].flatMap(service => this.#routesByService.get(service) ?? []);
    const isFirst = this.#changedServices.has('');
    this.#changedServices.clear();
    if (isFirst && !this.#plan) {
      this.#routesChanged = true;
      return;
    }
    const different = changed.filter(route => {
      const servers = this.#serversOf(this.#plan!.services.get(route)!);
      if (String(servers) === String(this.#servers.get(route))) return false;
      this.#servers.set(route, servers);
      return true;
    });
    if (different.length > 0) await this.#plane?.applyServers(different, this.#servers);
  }

  #serversOf(service: ServiceRef): readonly string[] {
    return this.#options.endpoints.of(service).addresses;
  }

  #start(): DataPlane {
    if (this.#plane) return this.#plane;
    const { name, accessLog, clock, guard } = this.#options;
    guard?.keep();
    this.#process = new HaproxyProcess({
      folder: this.#folder,
      accessLog,
      user: haproxyUser(),
      clock,
      onExit: () => this.#wake(),
    });
    this.#plane = new DataPlane({ process: this.#process, clock, log: this.#log });
    publishMetrics(
      name,
      () => this.#plane,
      route => this.#plan?.labels(route),
    );
    return this.#plane;
  }

  async #stop(): Promise<void> {
    this.#plan = undefined;
    this.#routesByService.clear();
    await this.#announce(null);
    const { accessLog, clock } = this.#options;
    if (!this.#plane && existsSync(this.#folder))
      this.#process ??= new HaproxyProcess({ folder: this.#folder, accessLog, user: haproxyUser(), clock });
    (this.#plane ?? this.#process)?.stop();
    this.#plane = undefined;
    this.#process = undefined;
  }

  /** Tells on the Node whether, and where, traffic may come here. */
  async #announce(what: string | null): Promise<void> {
    if (this.#announced === what) return;
    const { nodeTransport, nodeName, annotation } = this.#options;
    await nodeTransport.patch(
      { of: NODES, name: nodeName },
      { metadata: { annotations: { [annotation]: what } } },
      'application/merge-patch+json',
    );
    this.#announced = what;
  }

  async #boundAccessLog(): Promise<void> {
    const pid = this.#process?.pid;
    if (pid === undefined) return;
    try {
      await boundAccessLog(this.#options.accessLog, { bytesMax: ACCESS_LOG_BYTES_MAX, pid });
    } catch (error) {
      this.#log.warn('the access log grows beyond its bounds', { error: messageOf(error) });
    }
  }
}
