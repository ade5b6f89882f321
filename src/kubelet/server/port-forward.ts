/**
 * Port forwarding: connections of a client, each to a TCP port on a pod's localhost, over SPDY (a data and an error
 * stream for each, paired by request id), over SPDY tunnelled in a WebSocket, or over plain WebSocket channels (two for
 * each port of the request). A connection that fails ends alone; its error stream says why.
 */

import type { Duplex, Readable, Writable } from 'node:stream';
import { createWebSocketStream } from 'ws';
import type { Clock, Timer } from '../../base/clock.ts';
import { ApiError, badRequest, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { KubeletBackend } from './backend.ts';
import { ChannelSocket } from './channel-socket.ts';
import { STREAM_CREATION_MS, STREAM_IDLE_MS } from './remote-streams.ts';
import { SpdyConnection, type SpdyStream } from './spdy-connection.ts';
import { acceptSpdy, acceptWebSocket, refuse, type Upgrade, wantsWebSocket } from './upgrade.ts';

const SPDY_PROTOCOL = 'portforward.k8s.io';
const TUNNEL_PROTOCOL = `SPDY/3.1+${SPDY_PROTOCOL}`;
/** In channels no client says that it has sent all: once the pod has ended a connection, the rest has that long, as with containerd. */
const CHANNEL_END_MS = 500;
const CHANNEL_PROTOCOLS = ['v4.channel.k8s.io', 'v4.base64.channel.k8s.io'];

export interface ForwardContext {
  readonly backend: KubeletBackend;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Forwarder {
  readonly pod: string;
  readonly namespace: string;
  readonly context: ForwardContext;
  dial(port: number): Promise<Duplex>;
}

/** Resolves when the client is gone; never rejects for what a client or a pod did. */
export async function servePortForward(
  upgrade: Upgrade,
  path: { readonly namespace: string; readonly pod: string },
  context: ForwardContext,
): Promise<void> {
  const { backend } = context;
  let forwarder: Forwarder;
  let ports: readonly number[] = [];
  try {
    const { id } = await backend.sandboxOf(path.namespace, path.pod);
    forwarder = { ...path, context, dial: port => backend.runtime.portForward(id, port) };
    ports = requestedPorts(upgrade.url.searchParams);
  } catch (error) {
    return refuse(upgrade, error instanceof ApiError ? error.code : 500, messageOf(error));
  }
  if (!wantsWebSocket(upgrade.request)) {
    if (acceptSpdy(upgrade, [SPDY_PROTOCOL])) await overSpdy(upgrade.socket, forwarder);
    return;
  }
  if ((upgrade.request.headers['sec-websocket-protocol'] ?? '').includes(TUNNEL_PROTOCOL)) {
    const accepted = acceptWebSocket(upgrade, [TUNNEL_PROTOCOL]);
    if (accepted) await overSpdy(createWebSocketStream(accepted.socket), forwarder);
    return;
  }
  if (ports.length === 0) return refuse(upgrade, 400, `query parameter "port" is required`);
  await overChannels(upgrade, ports, forwarder);
}

function requestedPorts(query: URLSearchParams): number[] {
  const values = [...query.getAll('port'), ...query.getAll('ports')].flatMap(value => value.split(','));
  return values.filter(Boolean).map(value => {
    if (!/^\d+$/.test(value)) throw badRequest(`unable to parse "${value}" as a port`);
    if (Number(value) < 1 || Number(value) > 65535) throw badRequest(`port "${value}" must be > 0`);
    return Number(value);
  });
}

interface Pair {
  data?: SpdyStream;
  error?: SpdyStream;
  /** Gives up on the missing one. */
  readonly late: Timer;
}

async function overSpdy(carrier: Duplex, forwarder: Forwarder): Promise<void> {
  const { clock, log } = forwarder.context;
  const pairs = new Map<string, Pair>();
  const forget = (request: string, pair: Pair) => {
    pair.late.cancel();
    if (pairs.get(request) === pair) pairs.delete(request);
  };
  const expectPair = (request: string): Pair => {
    const giveUp = () => {
      pairs.delete(request);
      log.warn('port forward: timed out waiting for streams', { request });
      pair.data?.destroy();
      pair.error?.end(`(request=${request}) timed out waiting for streams`);
    };
    const pair: Pair = { late: clock.after(STREAM_CREATION_MS, giveUp, { background: true }) };
    pairs.set(request, pair);
    return pair;
  };
  const connection = new SpdyConnection(carrier, {
    clock,
    idleMs: STREAM_IDLE_MS,
    onStream(stream) {
      const { port: portText = '', streamtype: type, requestid } = stream.headers;
      const port = Number(portText);
      if (!/^\d+$/.test(portText) || port < 1 || port > 65535)
        throw new Error(`unable to parse "${portText}" as a port`);
      if (type !== 'data' && type !== 'error') throw new Error(`invalid stream type "${type}"`);
      // Clients without request ids open the error stream first and the data stream right behind it.
      const request = requestid ?? String(type === 'error' ? stream.id : stream.id - 2);
      const pair = pairs.get(request) ?? expectPair(request);
      if (pair[type]) throw new Error(`${type} stream of request ${request} exists`);
      pair[type] = stream;
      stream.once('close', () => forget(request, pair));
      if (!pair.data || !pair.error) return;
      pair.late.cancel();
      pair.error.resume();
      void forward(forwarder, port, pair.data, pair.error);
    },
  });
  await connection.closed;
}

async function overChannels(upgrade: Upgrade, ports: readonly number[], forwarder: Forwarder): Promise<void> {
  const accepted = acceptWebSocket(upgrade, CHANNEL_PROTOCOLS);
  if (!accepted) return;
  const { clock } = forwarder.context;
  const channels = new ChannelSocket(accepted.socket, {
    base64: accepted.protocol.includes('base64'),
    halfClose: false,
    clock,
    idleMs: STREAM_IDLE_MS,
  });
  const forwarding = ports.map((port, index) => {
    const data = channels.duplex(2 * index);
    const error = channels.writable(2 * index + 1);
    const name = Buffer.alloc(2);
    name.writeUInt16LE(port);
    data.write(name);
    error.write(name);
    data.once('finish', () => clock.after(CHANNEL_END_MS, () => channels.endReading(2 * index), { background: true }));
    return forward(forwarder, port, data, error);
  });
  // The socket ends with the last of its connections.
  await Promise.all(forwarding);
  channels.close();
  await channels.closed;
}

/** One connection, from its opening to the end of both its directions. Never rejects. */
async function forward(forwarder: Forwarder, port: number, data: Duplex, error: Writable): Promise<void> {
  const { pod, namespace, context } = forwarder;
  data.on('error', () => {});
  const fail = (failure: unknown) => {
    const text = `error forwarding port ${port} to pod ${pod}_${namespace}, uid : ${messageOf(failure)}`;
    context.log.info('port forward failed', { pod: `${namespace}/${pod}`, port, error: messageOf(failure) });
    if (!error.destroyed) error.write(text);
    data.end();
    data.resume();
  };
  try {
    const target = await forwarder.dial(port);
    // A runtime that connects only now tells so.
    target.once('error', fail);
    await join(data, target);
  } catch (failure) {
    fail(failure);
  }
  if (!error.destroyed) error.end();
}

/** Copies both ways, passing on each half's end, until both are done or one side broke off. */
function join(left: Duplex, right: Duplex): Promise<void> {
  return new Promise(resolve => {
    let open = 2;
    const link = (stream: Duplex, other: Duplex) => {
      stream.on('error', () => other.destroy());
      stream.once('close', () => {
        if (!(stream.readableEnded && stream.writableFinished)) other.destroy();
        if (--open === 0) resolve();
      });
      if (stream.destroyed) other.destroy();
      (stream as Readable).pipe(other);
    };
    link(left, right);
    link(right, left);
    if (left.destroyed || right.destroyed) {
      left.destroy();
      right.destroy();
      resolve();
    }
  });
}
