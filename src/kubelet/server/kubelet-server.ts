/**
 * The kubelet's HTTPS server, which the API server calls: exec, attach, port forwarding, logs, and what the node knows of
 * its pods. Invariant: nothing but /healthz answers before `access` lets the request in. It holds no state of pods.
 */

import { readFileSync, unwatchFile, watchFile } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { Duplex } from 'node:stream';
import type { Clock } from '../../base/clock.ts';
import { ApiError, messageOf } from '../../base/errors.ts';
import { countCheck, healthMetrics } from '../../base/health-metrics.ts';
import type { Logger } from '../../base/log.ts';
import { metrics } from '../../base/metrics.ts';
import { settling, within } from '../../base/tracing/active.ts';
import type { Tracer } from '../../base/tracing/span.ts';
import type { ZPageSource } from '../../base/z-page.ts';
import { probeMetrics } from '../metrics.ts';
import type { Access, Refusal } from './access.ts';
import type { KubeletBackend } from './backend.ts';
import { serveLog } from './log-request.ts';
import { NodeLogs, type NodeLogsOptions } from './node-logs.ts';
import { servePortForward } from './port-forward.ts';
import { serveAttach, serveExec } from './remote-command.ts';
import { endAnswered, requestSpan } from './request-span.ts';
import { refuse, type Upgrade } from './upgrade.ts';

export type { ContainerTarget, KubeletBackend } from './backend.ts';

export interface KubeletServerOptions {
  /** Where to listen; port 0 takes a free one. */
  readonly address: string;
  readonly port: number;
  /** PEM; `ca` is the cluster's authority, which signs the clients' certificates. */
  readonly tls: { readonly key: string; readonly cert: string; readonly ca: string };
  /** Who signs the clients' certificates instead, read again when it changes. */
  readonly clientCaFile?: string;
  /** Pairs that take the place of the one in `tls`, as they come; those who are connected keep theirs. */
  readonly renewals?: AsyncIterable<{ readonly key: string; readonly cert: string }>;
  readonly access: Pick<Access, 'refusal'>;
  readonly backend: KubeletBackend;
  /** Of the node itself; without them `/logs/` is not found. */
  readonly nodeLogs?: NodeLogsOptions;
  /** `/statusz` and `/flagz`; not found without. */
  readonly zPages?: ZPageSource | undefined;
  /** Makes spans of requests; without one nothing is traced. */
  readonly tracer?: Tracer | undefined;
  readonly log: Logger;
  readonly clock: Clock;
}

const CLIENT_CA_LOOK_MS = 5000;

/** As Go's default: a whole script may stand in the query of an exec. */
const HEADER_BYTES_MAX = 1024 * 1024;

/** Paths of sessions carry an optional pod uid before the container, as upstream's do. */
const STREAMING = /^\/(exec|attach|portForward)(?:\/|$)/;

const METRICS_TEXT = { 'Content-Type': 'text/plain; version=0.0.4; charset=utf-8' };

export class KubeletServer {
  /** The port, once it listens; rejects when it cannot. */
  readonly listening: Promise<number>;
  readonly #options: KubeletServerOptions;
  readonly #server: Server;
  readonly #nodeLogs: NodeLogs | undefined;
  readonly #sockets = new Set<Duplex>();
  readonly #requests = metrics.counter(
    'kubelet_http_requests_total',
    'Number of the http requests received since the server started',
    ['method', 'path', 'server_type', 'long_running'],
  );
  readonly #inflight = metrics.gauge('kubelet_http_inflight_requests', 'Number of the inflight http requests', [
    'method',
    'path',
    'server_type',
    'long_running',
  ]);
  /** What TLS is done with now. */
  #tls: KubeletServerOptions['tls'];
  #listen: { resolve(port: number): void; reject(error: Error): void } | undefined;

  constructor(options: KubeletServerOptions) {
    this.#options = options;
    this.#nodeLogs = options.nodeLogs && new NodeLogs(options.nodeLogs);
    const { clientCaFile } = options;
    this.#tls = clientCaFile ? { ...options.tls, ca: readFileSync(clientCaFile, 'utf8') } : options.tls;
    const { key, cert, ca } = this.#tls;
    this.listening = new Promise((resolve, reject) => (this.#listen = { resolve, reject }));
    this.listening.catch(() => {});
    this.#server = createServer({
      key,
      cert,
      ca,
      requestCert: true,
      rejectUnauthorized: false,
      minVersion: 'TLSv1.2',
      maxHeaderSize: HEADER_BYTES_MAX,
    });
    this.#server.on('request', (request, response) => void this.#request(request, response));
    this.#server.on('upgrade', (request, socket, head) => void this.#upgrade(request, socket, head));
    this.#server.on('secureConnection', socket => {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      socket.once('close', () => this.#sockets.delete(socket));
    });
  }

  async #renew(): Promise<void> {
    for await (const { key, cert } of this.#options.renewals ?? []) this.#useTls({ key, cert });
  }
  #useTls(change: Partial<KubeletServerOptions['tls']>): void {
    const next = { ...this.#tls, ...change };
    this.#server.setSecureContext(next);
    this.#tls = next;
  }
  #followClientCa(signal: AbortSignal): void {
    const { clientCaFile, log } = this.#options;
    if (!clientCaFile) return;
    const read = () => {
      try {
        this.#useTls({ ca: readFileSync(clientCaFile, 'utf8') });
        log.info('the authority of clients is another now', { file: clientCaFile });
      } catch (error) {
        log.error('the authority of clients stays what it was', { file: clientCaFile, error: messageOf(error) });
      }
    };
    watchFile(clientCaFile, { persistent: false, interval: CLIENT_CA_LOOK_MS }, read);
    signal.addEventListener('abort', () => unwatchFile(clientCaFile, read), { once: true });
  }

  /** Serves until the signal aborts, then breaks off every session. Rejects when it cannot listen. */
  async run(signal: AbortSignal): Promise<void> {
    const { address, port, log } = this.#options;
    const server = this.#server;
    this.#followClientCa(signal);
    void this.#renew().catch(error => log.error('serving certificates are not renewed any more', { error }));
    await new Promise<void>((resolve, reject) => {
      server.once('error', error => {
        this.#listen?.reject(error);
        reject(error);
      });
      server.once('listening', () => {
        const bound = server.address();
        const number = typeof bound === 'object' && bound ? bound.port : port;
        log.info('serving the kubelet API', { address, port: number });
        this.#listen?.resolve(number);
      });
      server.once('close', resolve);
      const stop = () => {
        server.close();
        for (const socket of this.#sockets) socket.destroy();
      };
      signal.addEventListener('abort', stop, { once: true });
      if (signal.aborted) stop();
      else server.listen(port, address);
    });
  }

  async #request(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'https://kubelet');
    const done = this.#count(request, url);
    response.once('close', done);
    try {
      const refusal = await this.#refusal(request, url);
      if (refusal) return answer(response, refusal.code, refusal.text);
      const { tracer } = this.#options;
      if (!tracer) return await this.#route(request, response, url);
      const span = requestSpan(tracer, request, url);
      response.once('close', () => endAnswered(span, response.statusCode));
      await within({ span }, () => this.#route(request, response, url));
    } catch (error) {
      if (!(error instanceof ApiError))
        this.#options.log.error('request failed', { path: url.pathname, error: messageOf(error) });
      if (response.headersSent) response.destroy();
      else answer(response, error instanceof ApiError ? error.code : 500, messageOf(error));
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const { backend } = this.#options;
    const [first, ...rest] = segments(url);
    if (STREAMING.test(url.pathname)) return answer(response, 400, 'Upgrade request required');
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return answer(response, 405, '405: Method Not Allowed', { Allow: 'GET' });
    if (first === 'logs' && this.#nodeLogs) return this.#nodeLogs.serve(request, response, rest, url);
    if (first === 'containerLogs' && rest.length === 3) {
      const [namespace, pod, container] = rest as [string, string, string];
      return serveLog(request, response, { namespace, pod, container }, url.searchParams, this.#options);
    }
    switch (url.pathname.replace(/(.)\/$/, '$1')) {
      case '/healthz':
      case '/healthz/ping':
        countCheck('ping', 'healthz', true);
        return answer(response, 200, 'ok');
      case '/pods':
        return json(response, podList(backend.pods()));
      case '/runningpods':
        return json(response, await runningPods(backend));
      case '/metrics':
        return answer(response, 200, metrics.render(), METRICS_TEXT);
      case '/metrics/probes':
        return answer(response, 200, probeMetrics.render(), METRICS_TEXT);
      case '/metrics/slis':
        return answer(response, 200, healthMetrics.render(), METRICS_TEXT);
      case '/metrics/resource':
        if (backend.resourceMetrics) return answer(response, 200, await backend.resourceMetrics(), METRICS_TEXT);
        break;
      case '/metrics/cadvisor':
        if (backend.cadvisorMetrics) return answer(response, 200, await backend.cadvisorMetrics(), METRICS_TEXT);
        break;
      case '/statusz':
      case '/flagz': {
        const page = await this.#options.zPages?.find(url.pathname.replace(/(.)\/$/, '$1'), request.headers.accept);
        if (page) {
          const bytes = await page.bytes;
          response.writeHead(200, { ...page.headers, 'Content-Length': bytes.length });
          return void response.end(request.method === 'HEAD' ? undefined : bytes);
        }
        break;
      }
      case '/configz':
        if (backend.configz) return json(response, backend.configz());
        break;
      case '/stats/summary':
        if (backend.summary) return json(response, await backend.summary());
    }
    answer(response, 404, '404 page not found\n');
  }

  async #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const url = new URL(request.url ?? '/', 'https://kubelet');
    const upgrade: Upgrade = { request, socket, head, url };
    socket.on('error', () => {});
    socket.once('close', this.#count(request, url));
    try {
      const refusal = await this.#refusal(request, url);
      if (refusal) return refuse(upgrade, refusal.code, refusal.text);
      const { tracer } = this.#options;
      if (!tracer) return await this.#converse(upgrade);
      const span = requestSpan(tracer, request, url);
      await settling(span, () => within({ span }, () => this.#converse(upgrade)));
    } catch (error) {
      this.#options.log.error('session failed', { path: url.pathname, error: messageOf(error) });
      socket.destroy();
    }
  }
  async #converse(upgrade: Upgrade): Promise<void> {
    const { url } = upgrade;
    const [kind, namespace, pod, ...rest] = segments(url);
    if (!namespace || !pod || !STREAMING.test(url.pathname) || rest.length > 2)
      return refuse(upgrade, 404, '404 page not found\n');
    const path = { namespace, pod, container: rest.at(-1) };
    if (kind === 'exec') await serveExec(upgrade, path, this.#options);
    else if (kind === 'attach') await serveAttach(upgrade, path, this.#options);
    else await servePortForward(upgrade, path, this.#options);
  }

  async #refusal(request: IncomingMessage, url: URL): Promise<Refusal | undefined> {
    if (url.pathname === '/healthz' || url.pathname === '/healthz/') return undefined;
    return this.#options.access.refusal(request, segments(url)[0] ?? '');
  }

  #count(request: IncomingMessage, url: URL): () => void {
    const path = segments(url)[0] ?? '';
    const known = [
      'exec',
      'attach',
      'portForward',
      'containerLogs',
      'logs',
      'pods',
      'runningpods',
      'healthz',
      'metrics',
      'stats',
      'configz',
      'statusz',
      'flagz',
    ];
    const isLong = ['exec', 'attach', 'portForward', 'containerLogs'].includes(path);
    const labels = [request.method ?? '', known.includes(path) ? path : 'other', 'readwrite', String(isLong)];
    this.#requests.add(1, ...labels);
    this.#inflight.add(1, ...labels);
    return () => this.#inflight.add(-1, ...labels);
  }
}

function segments(url: URL): string[] {
  return url.pathname.split('/').slice(1).map(decode).filter(Boolean);
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

function answer(
  response: ServerResponse,
  code: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(code, {
    'Content-Type': 'text/plain; charset=utf-8',
    'Content-Length': String(Buffer.byteLength(text)),
    ...headers,
  });
  response.end(text);
}

function json(response: ServerResponse, body: object): void {
  answer(response, 200, JSON.stringify(body), { 'Content-Type': 'application/json' });
}

const podList = (items: readonly object[]) => ({ kind: 'PodList', apiVersion: 'v1', metadata: {}, items });

async function runningPods({ runtime }: KubeletBackend): Promise<object> {
  const { sandboxes, containers } = await runtime.snapshot();
  const pods = new Map<string, object>();
  for (const sandbox of sandboxes) {
    const running = containers.filter(one => one.podUid === sandbox.podUid && one.state === 'running');
    if (running.length === 0) continue;
    pods.set(sandbox.podUid, {
      metadata: { name: sandbox.name, namespace: sandbox.namespace, uid: sandbox.podUid },
      spec: { containers: running.map(one => ({ name: one.name, image: one.imageRef, resources: {} })) },
      status: {},
    });
  }
  return podList([...pods.values()]);
}
