/**
 * Host ports at the node's own 127.0.0.1: sockets there, and what arrives is relayed to the pod. A port that a process of
 * the node has already is that process's. Relayed connections end with this process; the kernel's do not.
 */

import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { createServer, type Socket } from 'node:net';
import { systemClock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { NetnsRef } from '../sys/netns.ts';
import { bindUdp, connectTcp, listenTcp, openUdp } from '../sys/socket.ts';
import type { HostPort } from './host-ports.ts';

const LOOPBACK = '127.0.0.1';
const UDP_IDLE_MS = 60_000;
const UDP_CLIENTS_MAX = 4096;

type Target = Pick<HostPort, 'podIp' | 'port'>;

interface Open {
  target: Target;
  readonly close: () => void;
}

export class LoopbackRelay {
  readonly #at: { readonly namespace?: NetnsRef };
  readonly #log: Logger;
  /** `TCP/8080` → its socket. */
  readonly #open = new Map<string, Open>();

  constructor(options: { readonly namespace?: NetnsRef; readonly log: Logger }) {
    this.#at = options.namespace === undefined ? {} : { namespace: options.namespace };
    this.#log = options.log;
  }

  /** Replaces all that was given before. */
  apply(ports: readonly HostPort[]): void {
    const wanted = new Map<string, HostPort>();
    for (const port of ports) {
      const isHere = !port.hostIp || port.hostIp === '0.0.0.0' || port.hostIp === LOOPBACK;
      const key = `${port.protocol}/${port.hostPort}`;
      if (isHere && port.protocol !== 'SCTP' && !port.podIp.includes(':') && !wanted.has(key)) wanted.set(key, port);
    }
    for (const [key, open] of this.#open) {
      const port = wanted.get(key);
      if (port) open.target = port;
      else {
        open.close();
        this.#open.delete(key);
      }
    }
    for (const [key, port] of wanted) {
      if (this.#open.has(key)) continue;
      try {
        const open: Open = { target: port, close: () => closer() };
        const closer =
          port.protocol === 'TCP' ? this.#relayTcp(port.hostPort, open) : this.#relayUdp(port.hostPort, open);
        this.#open.set(key, open);
      } catch (error) {
        this.#log.debug('host port not served on 127.0.0.1', { port: port.hostPort, error: messageOf(error) });
      }
    }
  }

  close(): void {
    this.apply([]);
  }

  #relayTcp(port: number, open: Open): () => void {
    const sockets = new Set<Socket>();
    const server = createServer({ allowHalfOpen: true, noDelay: true }, client => {
      const pod = connectTcp({ ...this.#at, address: open.target.podIp, port: open.target.port });
      pod.setNoDelay(true);
      for (const [from, to] of [
        [client, pod],
        [pod, client],
      ] as const) {
        sockets.add(from);
        from.pipe(to);
        from.on('error', () => to.resetAndDestroy());
        from.on('close', () => sockets.delete(from));
      }
    });
    server.on('error', error => this.#log.warn('host port socket failed', { port, error: messageOf(error) }));
    server.listen({ fd: listenTcp({ ...this.#at, address: LOOPBACK, port }) });
    return () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    };
  }

  // A socket for each client, so that answers find their way back.
  #relayUdp(port: number, open: Open): () => void {
    const front = createSocket('udp4');
    const clients = new Map<string, { socket: UdpSocket; lastMs: number }>();
    const forget = (key: string) => {
      clients.get(key)?.socket.close();
      clients.delete(key);
    };
    const socketOf = (client: RemoteInfo) => {
      const key = `${client.address} ${client.port}`;
      let known = clients.get(key);
      if (!known) {
        if (clients.size >= UDP_CLIENTS_MAX) forget(clients.keys().next().value!);
        const socket = createSocket('udp4').bind({ fd: openUdp(this.#at) });
        socket.on('message', answer => front.send(answer, client.port, client.address));
        socket.on('error', () => forget(key));
        clients.set(key, (known = { socket, lastMs: 0 }));
      }
      known.lastMs = systemClock.monotonic();
      return known.socket;
    };
    front.on('message', (message, client) => socketOf(client).send(message, open.target.port, open.target.podIp));
    front.on('error', error => this.#log.warn('host port socket failed', { port, error: messageOf(error) }));
    front.bind({ fd: bindUdp({ ...this.#at, address: LOOPBACK, port }) });
    const sweep = setInterval(() => {
      for (const [key, { lastMs }] of clients) if (systemClock.monotonic() - lastMs > UDP_IDLE_MS) forget(key);
    }, UDP_IDLE_MS).unref();
    return () => {
      clearInterval(sweep);
      front.close();
      for (const key of [...clients.keys()]) forget(key);
    };
  }
}
