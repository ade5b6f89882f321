/**
 * Dev mode: node ports at the machine's 127.0.0.1. For each node port of each Service there is a socket in the machine's
 * network namespace; what arrives is relayed to that port of a ready node, from inside the segment. It refuses
 * nothing and decides nothing: where the bytes go from the node is kube-proxy's work. A port that is taken on the machine
 * is logged once and tried again at the next change.
 */

import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { connect as connectTcp, createServer, type Server, type Socket } from 'node:net';
import type { Node, Service } from '../api/core/v1.gen.ts';
import { systemClock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Informer, InformerFactory } from '../client/informer.ts';
import { NODES, SERVICES } from '../client/resources.ts';
import { bindUdp, listenTcp } from '../sys/socket.ts';

const LOOPBACK = '127.0.0.1';
const UDP_IDLE_MS = 60_000;

interface NodePort {
  readonly protocol: string;
  readonly port: number;
  /** The Service's first family: in the other it may not be reachable. */
  readonly isV6: boolean;
}

interface Listener {
  close(): void;
}

export class Gateway {
  readonly #services: Informer<Service>;
  readonly #nodes: Informer<Node>;
  readonly #machineNetns: number;
  readonly #log: Logger;
  /** By protocol, port and family. */
  readonly #listeners = new Map<string, Listener>();
  #turn = 0;

  constructor(options: { informers: InformerFactory; machineNetns: number; log: Logger }) {
    this.#services = options.informers.get<Service>(SERVICES);
    this.#nodes = options.informers.get<Node>(NODES);
    this.#machineNetns = options.machineNetns;
    this.#log = options.log.with({ part: 'gateway' });
  }

  async run(signal: AbortSignal): Promise<void> {
    let pending = false;
    this.#services.onChange(() => {
      if (pending) return;
      pending = true;
      setImmediate(() => {
        pending = false;
        if (!signal.aborted) this.#reconcile();
      });
    });
    await new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true }));
    for (const listener of this.#listeners.values()) listener.close();
    this.#listeners.clear();
  }

  #reconcile(): void {
    const wanted = new Map<string, NodePort>();
    for (const { spec } of this.#services.values()) {
      const isV6 = spec.ipFamilies?.[0] === 'IPv6';
      for (const { nodePort, protocol = 'TCP' } of spec.ports ?? [])
        if (nodePort) wanted.set(`${protocol}/${nodePort}/${isV6}`, { protocol, port: nodePort, isV6 });
    }
    for (const [key, listener] of this.#listeners) {
      if (wanted.has(key)) continue;
      listener.close();
      this.#listeners.delete(key);
    }
    for (const [key, nodePort] of wanted) {
      const { protocol, port } = nodePort;
      if (this.#listeners.has(key)) continue;
      try {
        if (protocol === 'TCP') this.#listeners.set(key, this.#relayTcp(nodePort));
        else if (protocol === 'UDP') this.#listeners.set(key, this.#relayUdp(nodePort));
      } catch (error) {
        this.#log.warn('node port cannot be opened on 127.0.0.1', { port, protocol, error: messageOf(error) });
      }
    }
  }

  /** Ready nodes in turn, so that one broken node does not take a port with it for ever. */
  #nodeAddress(isV6: boolean): string | undefined {
    const ready = [...this.#nodes.values()].filter(node =>
      node.status?.conditions?.some(condition => condition.type === 'Ready' && condition.status === 'True'),
    );
    const node = ready[this.#turn++ % Math.max(ready.length, 1)];
    return node?.status?.addresses?.find(({ type, address }) => type === 'InternalIP' && address.includes(':') === isV6)
      ?.address;
  }

  #relayTcp({ port, isV6 }: NodePort): Listener {
    const fd = listenTcp({ namespace: this.#machineNetns, address: LOOPBACK, port });
    const open = new Set<Socket>();
    const server: Server = createServer({ allowHalfOpen: true, noDelay: true }, client => {
      const address = this.#nodeAddress(isV6);
      if (!address) return void client.resetAndDestroy();
      const node = connectTcp({ host: address, port, allowHalfOpen: true, noDelay: true });
      for (const [from, to] of [
        [client, node],
        [node, client],
      ] as const) {
        open.add(from);
        from.pipe(to);
        from.on('error', () => to.resetAndDestroy());
        from.on('close', () => open.delete(from));
      }
    });
    server.on('error', error => this.#log.warn('node port socket failed', { port, error: messageOf(error) }));
    server.listen({ fd });
    return {
      close: () => {
        server.close();
        for (const socket of open) socket.destroy();
      },
    };
  }

  /** One upstream socket for each client, so that replies find their way back. */
  #relayUdp({ port, isV6 }: NodePort): Listener {
    const fd = bindUdp({ namespace: this.#machineNetns, address: LOOPBACK, port });
    const front = createSocket('udp4');
    const flows = new Map<string, { socket: UdpSocket; lastMs: number }>();
    const flowOf = (client: RemoteInfo, address: string) => {
      const key = `${client.address}:${client.port}`;
      let flow = flows.get(key);
      if (!flow) {
        const socket = createSocket(isV6 ? 'udp6' : 'udp4');
        flow = { socket, lastMs: 0 };
        flows.set(key, flow);
        socket.on('message', reply => front.send(reply, client.port, client.address));
        socket.on('error', () => closeFlow(key));
        socket.connect(port, address);
      }
      flow.lastMs = systemClock.monotonic();
      return flow;
    };
    const closeFlow = (key: string) => {
      flows.get(key)?.socket.close();
      flows.delete(key);
    };
    front.on('message', (message, client) => {
      const address = this.#nodeAddress(isV6);
      if (!address) return;
      const { socket } = flowOf(client, address);
      const send = () =>
        socket.send(
          message,
          error => error && this.#log.debug('datagram not relayed', { port, error: messageOf(error) }),
        );
      try {
        socket.remoteAddress();
        send();
      } catch {
        socket.once('connect', send);
      }
    });
    front.on('error', error => this.#log.warn('node port socket failed', { port, error: messageOf(error) }));
    front.bind({ fd });
    const sweep = setInterval(() => {
      for (const [key, { lastMs }] of flows) if (systemClock.monotonic() - lastMs > UDP_IDLE_MS) closeFlow(key);
    }, UDP_IDLE_MS).unref();
    return {
      close: () => {
        clearInterval(sweep);
        front.close();
        for (const key of [...flows.keys()]) closeFlow(key);
      },
    };
  }
}
