/**
 * What others ask the proxy over HTTP, with kube-proxy's ports, paths, codes and bodies: `/healthz` and `/livez` on 10256,
 * `/metrics`, `/proxyMode`, `/statusz` and `/flagz` on 10249 of loopback, and for each Service with a `healthCheckNodePort` whether this node has ready
 * endpoints of it. A port that cannot be had is told once and tried again; nothing else waits for it.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type Clock, formatTime, systemClock } from '../base/clock.ts';
import { ApiError, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { metrics } from '../base/metrics.ts';
import type { ZPageSource } from '../base/z-page.ts';
import { SystemError } from '../sys/libc.ts';
import type { NetnsRef } from '../sys/netns.ts';
import { listenTcp } from '../sys/socket.ts';
import type { ServiceTable } from './model.ts';
import { type Family, healthRequests } from './proxy-metrics.ts';
import type { ServiceProxy } from './service-proxy.ts';

const HEALTH_PORT = 10_256;
const METRICS_PORT = 10_249;
const RETRY_MS = 5000;
const EVERYWHERE = ['0.0.0.0', '::'];
const LOOPBACK = ['127.0.0.1', '::1'];

export interface HealthServerOptions {
  readonly proxy: ServiceProxy;
  /** Where to listen; the calling thread's own when absent. */
  readonly namespace?: NetnsRef;
  /** That the proxy serves; IPv4 when absent. */
  readonly families?: readonly Family[];
  /** `/statusz` and `/flagz`; not found without. */
  readonly zPages?: ZPageSource;
  readonly log: Logger;
  readonly clock?: Clock;
}

interface Check {
  /** `namespace/name`. */
  readonly key: string;
  readonly port: number;
  localEndpoints: number;
  readonly servers: Server[];
  failure: string | undefined;
}

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** Of the process, which is the kubelet's too, what a stock kube-proxy shows beside its own. */
const METRICS = ['kubeproxy_', 'kubernetes_', 'process_', 'rest_client_'];

export class HealthServer {
  readonly #options: HealthServerOptions;
  readonly #log: Logger;
  readonly #clock: Clock;
  /** By Service. */
  readonly #checks = new Map<string, Check>();

  constructor(options: HealthServerOptions) {
    this.#options = options;
    this.#log = options.log.with({ component: 'proxy-health' });
    this.#clock = options.clock ?? systemClock;
  }

  /** Serves until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const fixed: Omit<Check, 'key' | 'localEndpoints'>[] = [
      { port: HEALTH_PORT, servers: [], failure: undefined },
      { port: METRICS_PORT, servers: [], failure: undefined },
    ];
    const open = () => {
      this.#open(fixed[0]!, EVERYWHERE, (request, response) => this.#answerHealth(request, response));
      this.#open(fixed[1]!, LOOPBACK, (request, response) => void this.#answerMetrics(request, response));
      for (const check of this.#checks.values())
        this.#open(check, EVERYWHERE, (_, response) => this.#answerCheck(check, response));
    };
    this.#options.proxy.onProgrammed(table => {
      if (signal.aborted) return;
      this.#follow(table);
      open();
    });
    while (!signal.aborted) {
      open();
      await this.#clock.sleep(RETRY_MS, signal);
    }
    for (const { servers } of [...fixed, ...this.#checks.values()]) closeAll(servers);
  }

  #follow(table: ServiceTable): void {
    const wanted = new Map(
      [...table.values()].flatMap(({ key, healthCheck }) => (healthCheck ? [[key, healthCheck] as const] : [])),
    );
    for (const [key, check] of this.#checks) {
      if (wanted.get(key)?.port === check.port) continue;
      closeAll(check.servers);
      this.#checks.delete(key);
    }
    for (const [key, { port, localEndpoints }] of wanted) {
      const check = this.#checks.get(key);
      if (check) check.localEndpoints = localEndpoints;
      else this.#checks.set(key, { key, port, localEndpoints, servers: [], failure: undefined });
    }
  }

  #open(
    at: { readonly port: number; readonly servers: Server[]; failure: string | undefined },
    addresses: readonly string[],
    answer: Answer,
  ): void {
    if (at.servers.length > 0) return;
    const { namespace } = this.#options;
    for (const address of addresses) {
      try {
        const fd = listenTcp({ ...(namespace === undefined ? {} : { namespace }), address, port: at.port });
        const server = createServer({ keepAliveTimeout: 5000 }, answer).listen({ fd });
        server.on('error', error => this.#log.warn('health socket failed', { port: at.port, error: messageOf(error) }));
        at.servers.push(server);
      } catch (error) {
        // A node without IPv6 has no such address.
        const noFamily = error instanceof SystemError && ['EAFNOSUPPORT', 'EADDRNOTAVAIL'].includes(error.code);
        if (noFamily && address.includes(':')) continue;
        const failure = messageOf(error);
        if (failure !== at.failure)
          this.#log.warn('health port cannot be opened, trying again', { port: at.port, address, error: failure });
        at.failure = failure;
      }
    }
  }

  #answerHealth({ url = '' }: IncomingMessage, response: ServerResponse): void {
    const path = url.split('?')[0];
    if (path !== '/healthz' && path !== '/livez') return notFound(response);
    const { healthy, lastUpdatedMs, nodeEligible } = this.#options.proxy.health();
    const ok = healthy && (path === '/livez' || nodeEligible);
    const now = formatTime(this.#clock.now());
    const updated = lastUpdatedMs === undefined ? '0001-01-01T00:00:00Z' : formatTime(lastUpdatedMs);
    const families = this.#options.families ?? ['IPv4'];
    const status = Object.fromEntries(families.map(family => [family, { lastUpdated: updated, healthy }]));
    healthRequests(path === '/healthz' ? 'healthz' : 'livez').add(1, ok ? '200' : '503');
    answerJson(
      response,
      ok,
      JSON.stringify({
        lastUpdated: ok ? now : updated,
        currentTime: now,
        ...(path === '/healthz' ? { nodeEligible } : {}),
        healthy,
        ...(lastUpdatedMs === undefined ? {} : { status }),
      }),
    );
  }

  /** Never rejects. */
  async #answerMetrics({ url = '', headers }: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = url.split('?')[0]!;
    if (path === '/metrics')
      return answerText(response, 'text/plain; version=0.0.4; charset=utf-8', metrics.render({ prefixes: METRICS }));
    if (path === '/proxyMode') return answerText(response, 'text/plain; charset=utf-8', 'nftables');
    if (path === '/healthz') return answerText(response, 'text/plain; charset=utf-8', 'ok');
    try {
      const page = await this.#options.zPages?.find(path, headers.accept);
      if (page) response.writeHead(200, page.headers).end(await page.bytes);
      else notFound(response);
    } catch (error) {
      response.statusCode = error instanceof ApiError ? error.code : 500;
      answerText(response, 'text/plain; charset=utf-8', `${messageOf(error)}\n`);
    }
  }

  // Load balancers and people know kube-proxy's very layout.
  #answerCheck({ key, localEndpoints }: Check, response: ServerResponse): void {
    const [namespace, name] = key.split('/');
    const { healthy } = this.#options.proxy.health();
    response.setHeader('X-Load-Balancing-Endpoint-Weight', String(localEndpoints));
    const body = { service: { namespace, name }, localEndpoints, serviceProxyHealthy: healthy };
    answerJson(response, localEndpoints > 0 && healthy, JSON.stringify(body, null, '\t'));
  }
}

function answerJson(response: ServerResponse, ok: boolean, body: string): void {
  response.setHeader('Content-Type', 'application/json');
  response.setHeader('X-Content-Type-Options', 'nosniff');
  response.writeHead(ok ? 200 : 503).end(body);
}

function answerText(response: ServerResponse, type: string, body: string): void {
  response.setHeader('Content-Type', type);
  response.setHeader('X-Content-Type-Options', 'nosniff');
  response.end(body);
}

function notFound(response: ServerResponse): void {
  response.statusCode = 404;
  answerText(response, 'text/plain; charset=utf-8', '404 page not found\n');
}

function closeAll(servers: Server[]): void {
  for (const server of servers.splice(0)) {
    server.close();
    server.closeAllConnections();
  }
}
