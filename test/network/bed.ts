/**
 * A bed of real namespaces for network tests: a switch, nodes with their pod network, pods. Everything is named after this
 * process and removed by `close`, whatever the test did; the machine's own namespace is never changed.
 */

import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Node } from '../../src/api/core/v1.gen.ts';
import { createLogger } from '../../src/base/log.ts';
import { InformerFactory } from '../../src/client/informer.ts';
import { NODES } from '../../src/client/resources.ts';
import { NodeNetwork } from '../../src/network/node-network.ts';
import type { OverlayMode } from '../../src/network/overlay.ts';
import {
  createNodeNamespace,
  createSwitch,
  deleteNodeNamespace,
  deleteSwitch,
  nodeAddress,
  SEGMENT,
} from '../../src/network/segment.ts';
import { HealthServer } from '../../src/proxy/health-server.ts';
import { NftablesBackend } from '../../src/proxy/nftables/nftables-backend.ts';
import { ServiceProxy, type ServiceProxyOptions } from '../../src/proxy/service-proxy.ts';
import { loopbackUp } from '../../src/sys/netlink.ts';
import { createNetns, deleteNetns, netnsPath } from '../../src/sys/netns.ts';
import { bindUdp, connectTcp, listenTcp, openUdp } from '../../src/sys/socket.ts';
import { FakeApi } from './fake-api.ts';

export const root = process.getuid?.() === 0;
export const CLUSTER_CIDR = { IPv4: '10.244.0.0/16', IPv6: 'fd00:10:244::/56' };
const POD_CIDR = {
  IPv4: (node: number) => `10.244.${node - 1}.0/24`,
  IPv6: (node: number) => `fd00:10:244:${node.toString(16)}::/64`,
};
export type Family = 'IPv4' | 'IPv6';
const log = createLogger('test', { level: process.env['COX_LOG'] ? 'debug' : 'error' });
const ENTRY = join(import.meta.dirname, '../../src/cli/main.ts');
let beds = 0;

export interface BedPod {
  readonly uid: string;
  readonly namespace: string;
  readonly ip: string;
  /** One of each family. */
  readonly ips: readonly string[];
}

export interface BedNode {
  readonly name: string;
  readonly ip: string;
  readonly ips: readonly string[];
  readonly namespace: string;
  readonly network: NodeNetwork;
  readonly stateDir: string;
}

export class Bed {
  readonly api = new FakeApi();
  readonly directory = mkdtempSync(join(tmpdir(), 'cox-bed-'));
  readonly stop = new AbortController();
  readonly informers = new InformerFactory({ transport: this.api, log });
  readonly nodes: BedNode[] = [];
  readonly switch: string;
  readonly #prefix = `cox-bed-${process.pid}-${++beds}`;
  readonly #pods = new Set<string>();
  readonly #servers = new Set<{ close(): unknown }>();
  readonly #running: Promise<void>[] = [];
  readonly #families: readonly Family[];
  #podCount = 0;

  constructor(families: readonly Family[] = ['IPv4']) {
    this.#families = families;
    this.switch = `${this.#prefix}-switch`;
    createSwitch({ name: this.switch, segments: this.segments });
    this.informers.start(this.stop.signal);
  }

  get segments(): readonly string[] {
    return this.#families.map(family => SEGMENT[family]);
  }
  get clusterCidrs(): readonly string[] {
    return this.#families.map(family => CLUSTER_CIDR[family]);
  }
  /** Node-1, node-2 …: a namespace on the switch, a Node object, and a running pod network. */
  async addNode(options: { mode?: OverlayMode } = {}): Promise<BedNode> {
    const number = this.nodes.length + 1;
    const name = `node-${number}`;
    const namespace = `${this.#prefix}-${name}`;
    const ips = this.segments.map(segment => nodeAddress(number, segment));
    createNodeNamespace({ switch: this.switch, name: namespace, ips, segments: this.segments });
    const podCIDRs = this.#families.map(family => POD_CIDR[family](number));
    const node: Node = {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name },
      spec: { podCIDR: podCIDRs[0]!, podCIDRs },
      status: { addresses: ips.map(address => ({ type: 'InternalIP', address })) },
    };
    const stateDir = join(this.directory, name);
    const network = this.startNetwork({ name, ips, namespace, stateDir, ...options });
    const made = { name, ip: ips[0]!, ips, namespace, network, stateDir };
    this.nodes.push(made);
    this.api.put(NODES, node);
    await until(() => network.notReadyReason() === undefined);
    return made;
  }
  makeNetwork(options: {
    name: string;
    ips: readonly string[];
    namespace: string;
    stateDir: string;
    mode?: OverlayMode;
    informers?: InformerFactory;
  }): NodeNetwork {
    return new NodeNetwork({
      nodeName: options.name,
      nodeIps: options.ips,
      namespace: options.namespace,
      stateDir: options.stateDir,
      clusterCidrs: this.clusterCidrs,
      relay: {
        start: { command: ['nsenter', `--net=${netnsPath(options.namespace)}`, process.execPath, ENTRY, 'relay'] },
        folder: join(this.directory, `${options.name}-relay`),
      },
      transport: this.api,
      informers: options.informers ?? this.informers,
      log,
      ...(options.mode ? { mode: options.mode } : {}),
    });
  }
  startNetwork(options: Parameters<Bed['makeNetwork']>[0]): NodeNetwork {
    const network = this.makeNetwork(options);
    this.#running.push(network.run(this.stop.signal));
    return network;
  }
  startProxy(
    node: BedNode,
    { nodePortAddresses, ...options }: Partial<ServiceProxyOptions> & { nodePortAddresses?: readonly string[] } = {},
  ): ServiceProxy {
    const backend = new NftablesBackend({
      namespace: node.namespace,
      nodeIps: node.ips,
      clusterCidrs: this.clusterCidrs,
      log,
      ...(nodePortAddresses ? { nodePortAddresses } : {}),
    });
    const proxy = new ServiceProxy({ informers: this.informers, nodeName: node.name, backend, log, ...options });
    const health = new HealthServer({ proxy, namespace: node.namespace, log });
    this.#running.push(proxy.run(this.stop.signal), health.run(this.stop.signal));
    return proxy;
  }
  async addPod(node: BedNode): Promise<BedPod> {
    const uid = `pod-${++this.#podCount}`;
    const namespace = `${this.#prefix}-${uid}`;
    createNetns(namespace);
    this.#pods.add(namespace);
    const { ips } = await node.network.attach({
      uid,
      namespace: 'default',
      name: uid,
      netnsPath: netnsPath(namespace),
    });
    // The bridge forwards a moment after its new port has a carrier; a container takes longer to start than that.
    await sleep(20);
    return { uid, namespace, ip: ips[0]!, ips };
  }
  /** A namespace with only `lo`. */
  addNamespace(suffix: string): string {
    const namespace = `${this.#prefix}-${suffix}`;
    createNetns(namespace);
    loopbackUp(namespace);
    this.#pods.add(namespace);
    return namespace;
  }
  removeNamespace(namespace: string): void {
    deleteNetns(namespace);
    this.#pods.delete(namespace);
  }

  /** Answers each TCP connection with `text` and the caller's address: `text 10.244.0.5`. */
  serve(namespace: string, port: number, text: string): Server {
    const [first] = this.#families.map(family => {
      const server = createServer(peer => {
        // A client that was cut off never ends its side.
        peer.on('error', () => {}).unref();
        peer.end(`${text} ${peer.remoteAddress}`);
      }).listen({ fd: listenTcp({ namespace, address: family === 'IPv4' ? '0.0.0.0' : '::', port }) });
      this.#servers.add(server);
      return server;
    });
    return first!;
  }
  serveUdp(namespace: string, port: number, text: string): { close(): void } {
    const sockets = this.#families.map(family => {
      const socket = createSocket(family === 'IPv4' ? 'udp4' : 'udp6');
      socket.on('message', (_, from) => socket.send(`${text} ${from.address}`, from.port, from.address));
      socket.bind({ fd: bindUdp({ namespace, address: family === 'IPv4' ? '0.0.0.0' : '::', port }) });
      return socket;
    });
    const closeable = {
      close: () => {
        if (this.#servers.delete(closeable)) for (const socket of sockets) socket.close();
      },
    };
    this.#servers.add(closeable);
    return closeable;
  }

  async close(): Promise<void> {
    this.stop.abort();
    await Promise.all(this.#running);
    for (const server of this.#servers) server.close();
    for (const namespace of this.#pods) deleteNetns(namespace);
    for (const { namespace } of this.nodes) deleteNodeNamespace({ switch: this.switch, name: namespace });
    deleteSwitch(this.switch);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** What a TCP server answers, or the error's code (`ECONNREFUSED`, `timeout`). */
export async function ask(namespace: string, address: string, port: number, timeoutMs = 1000): Promise<string> {
  const socket = connectTcp({ namespace, address, port });
  socket.setTimeout(timeoutMs, () => socket.destroy(Object.assign(new Error('timeout'), { code: 'timeout' })));
  let text = '';
  socket.on('data', bytes => {
    text += bytes;
  });
  try {
    await once(socket, 'close');
    return text;
  } catch (error) {
    return (error as { code: string }).code;
  }
}

/** What a UDP server answers to one datagram, or `timeout` or the error's code. */
export async function askUdp(
  namespace: string,
  address: string,
  port: number,
  options: { timeoutMs?: number; socket?: ReturnType<typeof createSocket> } = {},
): Promise<string> {
  const socket = options.socket ?? openUdpClient(namespace, address.includes(':') ? 6 : 4);
  try {
    return await new Promise<string>(resolve => {
      const timer = setTimeout(() => resolve('timeout'), options.timeoutMs ?? 500);
      socket.once('message', bytes => {
        clearTimeout(timer);
        resolve(String(bytes));
      });
      socket.once('error', error => resolve((error as { code?: string }).code ?? error.message));
      socket.send('?', port, address);
    });
  } finally {
    if (!options.socket) socket.close();
  }
}

export function openUdpClient(namespace: string, family: 4 | 6 = 4): ReturnType<typeof createSocket> {
  const socket = createSocket(`udp${family}`);
  socket.bind({ fd: openUdp({ namespace, family }) });
  return socket;
}

export async function until(condition: () => boolean, timeoutMs = 3000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error('condition not met in time');
    await new Promise(resolve => setTimeout(resolve, 2));
  }
}

/** Asks until the answer is like this: for what comes into being on its own. */
export async function untilAnswer(ask: () => Promise<string>, pattern: RegExp, timeoutMs = 15_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (let answer = ''; !pattern.test(answer); answer = await ask()) {
    if (performance.now() > deadline) throw new Error(`no answer like ${pattern} in time, the last was ${answer}`);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}
