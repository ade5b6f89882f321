/**
 * An ingress data plane with everything real but the cluster: the agent's ingress and its HAProxy on 127.0.0.1, over an API in memory, with
 * backends in this process. Everything it starts it ends.
 */

import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type Agent, createServer, type IncomingHttpHeaders, request, type Server } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { KubeObject } from '../../src/api/meta.ts';
import type { HTTPIngressPath, Ingress } from '../../src/api/networking/v1.gen.ts';
import { ensurePki, type Pki } from '../../src/apiserver/certificates/pki.ts';
import { systemClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { InformerFactory } from '../../src/client/informer.ts';
import {
  CONFIG_MAPS,
  ENDPOINT_SLICES,
  INGRESS_CLASSES,
  INGRESSES,
  NODES,
  SECRETS,
  SERVICES,
} from '../../src/client/resources.ts';
import { HaproxyProcess, isSettled } from '../../src/ingress/haproxy/haproxy-process.ts';
import { MASTER_SOCKET } from '../../src/ingress/haproxy/process-files.ts';
import { IngressAgent } from '../../src/ingress/ingress-agent.ts';
import { FakeApi } from './fake-api.ts';
import { endpoint, service, slice } from './services.ts';

const log = createLogger('test', { level: process.env['COX_LOG'] ? 'debug' : 'error' });
export const PREFIX = 'nginx.ingress.kubernetes.io/';

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

/** Ports of the backends of the Services `web` and `other`. */
export interface Web {
  readonly a: number;
  readonly b: number;
}

export const canRunIngress = process.getuid?.() === 0 && HaproxyProcess.isInstalled();

export interface Seen {
  readonly backend: string;
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
}

export async function freePort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

export class IngressBed {
  readonly api = new FakeApi();
  readonly folder = mkdtempSync(join(tmpdir(), 'cox-ingress-'));
  /** Of HAProxy, in `folder`. */
  readonly folderName: string = 'ingress';
  readonly accessLog = join(this.folder, 'access.log');
  nameservers: readonly string[] = [];
  httpPort = 0;
  httpsPort = 0;
  pki!: Pki;
  #stop = new AbortController();
  #running: Promise<void> | undefined;
  readonly #servers = new Set<{ close(): unknown }>();
  #ages = 0;

  async start(): Promise<void> {
    this.httpPort = await freePort();
    this.httpsPort = await freePort();
    this.pki = await ensurePki(join(this.folder, 'pki'), { sans: ['localhost'] });
    this.api.put(NODES, { apiVersion: 'v1', kind: 'Node', metadata: { name: 'node-1' } });
    this.putClass('coxswain');
    await this.startAgent();
  }
  /** With two Services, and with a host `plain.test`. */
  async startWeb(): Promise<Web> {
    await this.start();
    const a = (await this.backend('a')).port;
    const b = (await this.backend('b')).port;
    this.putService('web', [a]);
    this.putService('other', [b]);
    this.putIngress('plain', { '/': 'web' });
    // The first exact path, wildcard and redirect cost a reload, which later ones do not.
    this.putIngress(
      'first',
      { '/': { pathType: 'Exact' } },
      { host: '*.first.test', tls: [{ hosts: ['*.first.test'] }] },
    );
    await this.answers('plain.test', '/', 200);
    await this.answers('x.first.test', '/', 308);
    return { a, b };
  }
  get reloads(): number {
    return (readFileSync(`${this.folder}/ingress/haproxy.log`, 'utf8').match(/Loading success/g) ?? []).length;
  }
  async startAgent(): Promise<void> {
    this.#stop = new AbortController();
    this.#running = this.run(this.#stop.signal);
  }
  async run(signal: AbortSignal): Promise<void> {
    const informers = new InformerFactory({ transport: this.api, log });
    const serving = await this.pki.ensureServer('default', { commonName: 'default', organizations: [] }, [
      'default.local',
    ]);
    const agent = new IngressAgent({
      nodeName: 'node-1',
      nodeIps: ['127.0.0.1'],
      runDir: this.folder,
      accessLog: this.accessLog,
      transport: this.api,
      informers,
      ingressInformers: informers,
      nodeTransport: this.api,
      nameservers: this.nameservers,
      defaultCertificate: `${serving.certificate}\n${serving.key}`,
      bindAddress: '127.0.0.1',
      httpPort: this.httpPort,
      httpsPort: this.httpsPort,
      log,
      clock: systemClock,
    });
    informers.start(signal);
    await agent.run(signal);
  }
  /** Ends the agent as a crash would: HAProxy goes on. */
  async stopAgent(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
  get masterPid(): number | undefined {
    try {
      return JSON.parse(readFileSync(join(this.folder, this.folderName, 'process.json'), 'utf8')).pid;
    } catch {
      return undefined;
    }
  }
  /** The newest child of the master. */
  get workerPid(): number | undefined {
    const master = this.masterPid;
    if (master === undefined) return undefined;
    return readFileSync(`/proc/${master}/task/${master}/children`, 'utf8').trim().split(' ').map(Number).at(-1);
  }
  async close(): Promise<void> {
    await this.stopAgent();
    const pid = this.masterPid;
    if (pid !== undefined) process.kill(pid, 'SIGTERM');
    for (const server of this.#servers) server.close();
    await until('HAProxy is gone', () => pid === undefined || !isRunning(pid));
    rmSync(this.folder, { recursive: true, force: true });
  }

  putClass(name: string, options: { parameters?: string; annotations?: Record<string, string> } = {}): void {
    this.api.put(INGRESS_CLASSES, {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'IngressClass',
      metadata: { name, ...(options.annotations ? { annotations: options.annotations } : {}) },
      spec: {
        controller: 'coxswain.dev/ingress',
        ...(options.parameters
          ? {
              parameters: { kind: 'ConfigMap', name: options.parameters, scope: 'Namespace', namespace: 'default' },
            }
          : {}),
      },
    } as KubeObject);
  }
  putIngress(
    name: string,
    paths: Record<string, string | Partial<HTTPIngressPath>>,
    options: {
      host?: string;
      annotations?: Record<string, string>;
      tls?: NonNullable<Ingress['spec']>['tls'];
      className?: string;
      namespace?: string;
    } = {},
  ): void {
    const { host = `${name}.test`, annotations = {}, tls, className = 'coxswain', namespace = 'default' } = options;
    this.api.put(INGRESSES, {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'Ingress',
      metadata: {
        name,
        namespace,
        uid: `${namespace}/${name}`,
        creationTimestamp: new Date(Date.UTC(2026, 0, 1) + 1000 * ++this.#ages).toISOString(),
        annotations: Object.fromEntries(
          Object.entries(annotations).map(([key, value]) => [key.includes('/') ? key : PREFIX + key, value]),
        ),
      },
      spec: {
        ingressClassName: className,
        ...(tls ? { tls } : {}),
        rules: [
          {
            ...(host ? { host } : {}),
            http: {
              paths: Object.entries(paths).map(([path, to]) => ({
                path,
                pathType: 'Prefix',
                ...(typeof to === 'string' ? { backend: backend(to) } : { backend: backend('web'), ...to }),
              })),
            },
          },
        ],
      },
    } as Ingress);
  }
  removeIngress(name: string, namespace = 'default'): void {
    this.api.remove(INGRESSES, `${namespace}/${name}`);
  }
  putSecret(name: string, data: Record<string, string>, type = 'Opaque'): void {
    this.api.put(SECRETS, {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name, namespace: 'default' },
      type,
      data: Object.fromEntries(
        Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString('base64')]),
      ),
    } as KubeObject);
  }
  async putCertificate(name: string, hosts: readonly string[], generation = 1): Promise<string> {
    const pair = await this.pki.ensureServer(
      `${name}-${generation}`,
      { commonName: `${name}-${generation}`, organizations: [] },
      [...hosts],
    );
    this.putSecret(name, { 'tls.crt': pair.certificate, 'tls.key': pair.key }, 'kubernetes.io/tls');
    return pair.certificate;
  }
  putConfigMap(name: string, data: Record<string, string>): void {
    this.api.put(CONFIG_MAPS, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name, namespace: 'default' },
      data,
    } as KubeObject);
  }
  /** A Service with these ports of 127.0.0.1 as its endpoints: one slice for each, since ports differ. */
  putService(name: string, ports: readonly number[]): void {
    this.api.put(
      SERVICES,
      service({ name, clusterIP: '10.96.0.9', ports: [{ name: 'http', port: 80, targetPort: 80 }] }),
    );
    for (let at = 0; at < 8; at++) {
      const port = ports[at];
      if (port === undefined) this.api.remove(ENDPOINT_SLICES, `default/${name}-${at}`);
      else
        this.api.put(
          ENDPOINT_SLICES,
          slice({
            service: name,
            name: `${name}-${at}`,
            endpoints: [endpoint('127.0.0.1')],
            ports: [{ name: 'http', port: 80, targetPort: port }],
          }),
        );
    }
  }

  /** A backend that tells what it saw, as JSON; `answer` may do otherwise. */
  async backend(
    name: string,
    answer?: (
      seen: Seen,
      response: import('node:http').ServerResponse,
      request: import('node:http').IncomingMessage,
    ) => boolean | void,
  ): Promise<{ port: number; server: Server }> {
    const server = createServer((incoming, response) => {
      const seen: Seen = { backend: name, method: incoming.method!, url: incoming.url!, headers: incoming.headers };
      if (answer?.(seen, response, incoming)) return;
      incoming.resume();
      incoming.on('end', () => response.end(JSON.stringify(seen)));
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    this.track(server);
    return { port: (server.address() as AddressInfo).port, server };
  }
  track(server: { close(): unknown }): void {
    this.#servers.add(server);
  }

  get(
    host: string,
    path = '/',
    options: { method?: string; headers?: Record<string, string>; body?: string; port?: number; agent?: Agent } = {},
  ): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const call = request(
        {
          host: '127.0.0.1',
          port: options.port ?? this.httpPort,
          path,
          method: options.method ?? 'GET',
          headers: { Host: host, ...options.headers },
          agent: options.agent ?? false,
          timeout: 10_000,
        },
        response => {
          let text = '';
          response.on('data', part => {
            text += part;
          });
          response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, text }));
          response.on('error', reject);
        },
      );
      call.on('error', reject);
      call.on('timeout', () => call.destroy(new Error('no answer in time')));
      call.end(options.body);
    });
  }
  async seen(host: string, path = '/', options: Parameters<IngressBed['get']>[2] = {}): Promise<Seen> {
    const reply = await this.get(host, path, options);
    if (reply.status !== 200) throw new Error(`${reply.status}: ${reply.text}`);
    return JSON.parse(reply.text) as Seen;
  }
  /** Waits until the host and path answer with this status. */
  async answers(
    host: string,
    path: string,
    status: number,
    options: Parameters<IngressBed['get']>[2] = {},
  ): Promise<Reply> {
    let last: Reply | undefined;
    await until(
      () => `${host}${path} answers ${status} (last: ${last?.status} ${last?.text.slice(0, 100)})`,
      async () => {
        last = await this.get(host, path, options).catch(() => undefined);
        return last?.status === status;
      },
    );
    // The answer may have come from either side of a reload: what counts is that of the newest worker.
    if (await isSettled(this.#masterSocket)) return last!;
    await this.settled();
    return this.answers(host, path, status, options);
  }
  /** Until workers that were replaced by a reload accept nothing more. */
  settled(): Promise<void> {
    return until('old workers accept nothing more', () => isSettled(this.#masterSocket));
  }
  get #masterSocket(): string {
    return join(this.folder, this.folderName, MASTER_SOCKET);
  }
}

function backend(to: string) {
  const [name, port = 'http'] = to.split(':') as [string, string?];
  return { service: { name, port: /^\d+$/.test(port) ? { number: Number(port) } : { name: port } } };
}

function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

export async function until(
  what: string | (() => string),
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 15_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not in time: ${typeof what === 'string' ? what : what()}`);
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}

/** Every name leads to 127.0.0.1. */
export async function nameServer(): Promise<{ dns: Socket; asked: Set<string> }> {
  const asked = new Set<string>();
  const dns = createSocket('udp4');
  dns.on('message', (question, { port, address }) => {
    const labels: string[] = [];
    let at = 12;
    for (; question[at] !== 0; at += question[at]! + 1)
      labels.push(question.toString('latin1', at + 1, at + 1 + question[at]!));
    asked.add(labels.join('.').toLowerCase());
    const isA = question.readUInt16BE(at + 1) === 1;
    const head = Buffer.from(question.subarray(0, 12));
    head.writeUInt16BE(0x8180, 2);
    head.writeUInt16BE(isA ? 1 : 0, 6);
    head.writeUInt32BE(0, 8);
    const answer = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 127, 0, 0, 1]);
    dns.send(Buffer.concat([head, question.subarray(12, at + 5), ...(isA ? [answer] : [])]), port, address);
  });
  dns.bind(0, '127.0.0.1');
  await once(dns, 'listening');
  return { dns, asked };
}
