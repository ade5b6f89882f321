/**
 * One port of 127.0.0.1 that leads to another address: TCP streams and UDP flows, each to one of the port's targets in turn.
 * Targets may be replaced at any time: streams stay with theirs, a UDP flow moves when its target is no longer one. A port that
 * is closed takes no new streams, and those that are open go on to their end, as they would through the kernel.
 */

import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { connect, createServer, type Socket } from 'node:net';
import { systemClock } from '../base/clock.ts';
import type { NetnsRef } from '../sys/netns.ts';
import { bindUdp, listenTcp } from '../sys/socket.ts';

const LOOPBACK = '127.0.0.1';
const UDP_IDLE_MS = 60_000;
const UDP_CLIENTS_MAX = 4096;
// What nobody ends any more, a stopped pod's for one, is noticed so.
const KEEP_ALIVE_MS = 60_000;

export interface RelayTarget {
  readonly address: string;
  readonly port: number;
}

export interface RelayPortOptions {
  readonly port: number;
  readonly targets: readonly RelayTarget[];
  /** Where the port is opened; where this thread is when absent. Targets are always sought from there. */
  readonly namespace?: NetnsRef;
  /** Called when the last stream has ended. */
  readonly onIdle: () => void;
}

/** Its `open` counts streams under way. */
export interface RelayPort {
  targets: readonly RelayTarget[];
  readonly open: number;
  close(): void;
}

const SOCKET_OPTIONS = { allowHalfOpen: true, noDelay: true, keepAlive: true } as const;

/** Throws EADDRINUSE, EACCES and the like. */
export function relayTcp({ port, targets, namespace, onIdle }: RelayPortOptions): RelayPort {
  const sockets = new Set<Socket>();
  let turn = 0;
  const relay = {
    targets,
    get open() {
      return sockets.size;
    },
    close: () => void server.close(),
  };
  const keepAlive = { ...SOCKET_OPTIONS, keepAliveInitialDelay: KEEP_ALIVE_MS };
  const server = createServer(keepAlive, client => {
    const target = relay.targets[turn++ % Math.max(relay.targets.length, 1)];
    if (!target) return void client.on('error', () => {}).resetAndDestroy();
    const upstream = connect({ host: target.address, port: target.port, ...keepAlive });
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.pipe(to);
      from.on('error', () => to.resetAndDestroy());
      from.on('close', () => {
        sockets.delete(from);
        if (sockets.size === 0) onIdle();
      });
    }
  });
  // Such as too many descriptors: the next connection is tried again.
  server.on('error', () => {});
  server.listen({ fd: listenTcp({ ...at(namespace), port }) });
  return relay;
}

/** A socket for each client, so that answers find their way back. Throws as `relayTcp`. */
export function relayUdp({ port, targets, namespace }: RelayPortOptions): RelayPort {
  const fd = bindUdp({ ...at(namespace), port });
  const front = createSocket('udp4');
  const flows = new Map<string, { readonly socket: UdpSocket; readonly target: RelayTarget; lastMs: number }>();
  let turn = 0;
  const forget = (key: string) => {
    flows.get(key)?.socket.close();
    flows.delete(key);
  };
  const isTarget = ({ address, port: at }: RelayTarget) =>
    relay.targets.some(target => target.address === address && target.port === at);
  const flowOf = (client: RemoteInfo) => {
    const key = `${client.address} ${client.port}`;
    let flow = flows.get(key);
    if (flow && !isTarget(flow.target)) {
      forget(key);
      flow = undefined;
    }
    if (!flow) {
      const target = relay.targets[turn++ % Math.max(relay.targets.length, 1)];
      if (!target) return undefined;
      if (flows.size >= UDP_CLIENTS_MAX) forget(flows.keys().next().value!);
      const socket = createSocket(target.address.includes(':') ? 'udp6' : 'udp4');
      socket.on('message', answer => front.send(answer, client.port, client.address));
      socket.on('error', () => flows.get(key)?.socket === socket && forget(key));
      flows.set(key, (flow = { socket, target, lastMs: 0 }));
    }
    flow.lastMs = systemClock.monotonic();
    return flow;
  };
  front.on('message', (message, client) => {
    const flow = flowOf(client);
    flow?.socket.send(message, flow.target.port, flow.target.address);
  });
  front.on('error', () => {});
  front.bind({ fd });
  const sweep = setInterval(() => {
    for (const [key, { lastMs }] of flows) if (systemClock.monotonic() - lastMs > UDP_IDLE_MS) forget(key);
  }, UDP_IDLE_MS).unref();
  const relay = {
    targets,
    open: 0,
    close: () => {
      clearInterval(sweep);
      front.close();
      for (const key of [...flows.keys()]) forget(key);
    },
  };
  return relay;
}

const at = (namespace: NetnsRef | undefined) =>
  namespace === undefined ? { address: LOOPBACK } : { address: LOOPBACK, namespace };
