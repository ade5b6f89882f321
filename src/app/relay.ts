/** Relays between a port of 127.0.0.1 in one network namespace and an address that this process reaches: TCP streams and UDP flows. */

import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { connect as connectTcp, createServer, type Server, type Socket } from 'node:net';
import { systemClock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { bindUdp, listenTcp } from '../sys/socket.ts';

const LOOPBACK = '127.0.0.1';
const UDP_IDLE_MS = 60_000;

export interface RelayOptions {
  /** Descriptor of the namespace where the port is opened. */
  readonly namespace: number;
  readonly port: number;
  /** Asked for each connection and flow; undefined refuses it. The port is the same one. */
  readonly target: () => string | undefined;
  readonly log: Logger;
}

export interface Relay {
  close(): void;
}

/** Throws EADDRINUSE, EACCES and the like. */
export function relayTcp({ namespace, port, target, log }: RelayOptions): Relay {
  const fd = listenTcp({ namespace, address: LOOPBACK, port });
  const open = new Set<Socket>();
  const server: Server = createServer({ allowHalfOpen: true, noDelay: true }, client => {
    const address = target();
    if (!address) return void client.resetAndDestroy();
    const upstream = connectTcp({ host: address, port, allowHalfOpen: true, noDelay: true });
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      open.add(from);
      from.pipe(to);
      from.on('error', () => to.resetAndDestroy());
      from.on('close', () => open.delete(from));
    }
  });
  server.on('error', error => log.warn('relay socket failed', { port, error: messageOf(error) }));
  server.listen({ fd });
  return {
    close: () => {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

/** One upstream socket for each client, so that replies find their way back. Throws as `relayTcp`. */
export function relayUdp({ namespace, port, target, log }: RelayOptions): Relay {
  const fd = bindUdp({ namespace, address: LOOPBACK, port });
  const front = createSocket('udp4');
  const flows = new Map<string, { socket: UdpSocket; lastMs: number }>();
  const flowOf = (client: RemoteInfo, address: string) => {
    const key = `${client.address}:${client.port}`;
    let flow = flows.get(key);
    if (!flow) {
      const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
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
    const address = target();
    if (!address) return;
    const { socket } = flowOf(client, address);
    const send = () =>
      socket.send(message, error => error && log.debug('datagram not relayed', { port, error: messageOf(error) }));
    try {
      socket.remoteAddress();
      send();
    } catch {
      socket.once('connect', send);
    }
  });
  front.on('error', error => log.warn('relay socket failed', { port, error: messageOf(error) }));
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
