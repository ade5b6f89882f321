/**
 * One name server that others are asked through: a single exchange over UDP, TCP or TLS. Each exchange has a socket of its
 * own, connected to the server, so its source port is unpredictable and the kernel drops packets of strangers; the random id
 * and the question are checked besides. It keeps nothing and retries nothing but what the protocol asks for: over TCP what
 * was cut, and without EDNS what a server did not understand.
 */

import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, isIP, isIPv6, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { type Clock, systemClock } from '../base/clock.ts';
import { encodeQuery, FLAG, HEADER_BYTES, RCODE, TCP_BYTES_MAX } from './message.ts';
import { endOfPlainName } from './name.ts';

export interface UpstreamAddress {
  readonly address: string;
  readonly port: number;
  readonly tls: boolean;
}

export interface Question {
  readonly name: string;
  readonly type: number;
  readonly recursionDesired: boolean;
  readonly checkingDisabled: boolean;
  readonly dnssecOk: boolean;
}

export interface ExchangeOptions {
  readonly via: 'udp' | 'tcp';
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly tls?: { readonly servername?: string; readonly ca?: string; readonly cert?: string; readonly key?: string };
  readonly clock?: Clock;
}

/** What fits a packet on any path without being cut up (DNS flag day 2020). */
const UDP_BYTES = 1232;

/** `10.0.0.1`, `10.0.0.1:5353`, `fd00::1`, `[fd00::1]:53`, `dns://…`, `tls://…`. Undefined: none of these. */
export function parseUpstream(text: string): UpstreamAddress | undefined {
  const [, scheme, rest] = /^(?:(dns|tls):\/\/)?(.+)$/.exec(text) ?? [];
  if (rest === undefined) return undefined;
  const tls = scheme === 'tls';
  const [, address = rest, port] =
    /^\[([0-9a-f:.]+)\](?::(\d{1,5}))?$/i.exec(rest) ?? /^([\d.]+)(?::(\d{1,5}))?$/.exec(rest) ?? [];
  return isIP(address) ? { address, port: port ? Number(port) : tls ? 853 : 53, tls } : undefined;
}

export function formatUpstream({ address, port, tls }: UpstreamAddress): string {
  return `${tls ? 'tls://' : ''}${isIPv6(address) ? `[${address}]` : address}:${port}`;
}

/** The server's reply to the question. Rejects when none comes in time. */
export async function exchange(to: UpstreamAddress, question: Question, options: ExchangeOptions): Promise<Buffer> {
  const query = (edns: boolean): Buffer =>
    encodeQuery({
      ...question,
      id: randomInt(0x10000),
      ...(edns ? { udpBytesMax: UDP_BYTES } : {}),
    });
  let reply = await once(to, query(true), options);
  const rcode = reply[3]! & 15;
  if (rcode === RCODE.FORMERR || rcode === RCODE.NOTIMP) reply = await once(to, query(false), options);
  if (options.via === 'tcp' || to.tls || !(reply.readUInt16BE(2) & FLAG.TC)) return reply;
  try {
    return await once(to, query(true), { ...options, via: 'tcp' });
  } catch (error) {
    if (options.signal.aborted) throw error;
    return reply;
  }
}

function once(to: UpstreamAddress, asked: Buffer, options: ExchangeOptions): Promise<Buffer> {
  const { timeoutMs, signal, clock = systemClock } = options;
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(new Error('stopped'));
    let done = false;
    const finish = (error: Error | undefined, reply?: Buffer): void => {
      if (done) return;
      done = true;
      timer.cancel();
      signal.removeEventListener('abort', onAbort);
      end();
      if (reply) resolve(reply);
      else reject(error!);
    };
    const onAbort = (): void => finish(new Error('stopped'));
    const timer = clock.after(timeoutMs, () => finish(new Error('did not answer in time')));
    signal.addEventListener('abort', onAbort, { once: true });
    const end =
      to.tls || options.via === 'tcp' ? overStream(to, asked, options, finish) : overDatagrams(to, asked, finish);
  });
}

type Finish = (error: Error | undefined, reply?: Buffer) => void;

function overDatagrams(to: UpstreamAddress, asked: Buffer, finish: Finish): () => void {
  const socket = createSocket({ type: isIPv6(to.address) ? 'udp6' : 'udp4' });
  let open = true;
  socket.on('error', error => finish(error));
  socket.on('message', reply => {
    if (answers(reply, asked)) finish(undefined, reply);
  });
  socket.on('connect', () => {
    if (open) socket.send(asked, error => error && finish(error));
  });
  socket.connect(to.port, to.address);
  return () => {
    open = false;
    socket.close();
  };
}

function overStream(to: UpstreamAddress, asked: Buffer, { tls = {} }: ExchangeOptions, finish: Finish): () => void {
  const target = { host: to.address, port: to.port };
  const socket: Socket = to.tls ? connectTls({ ...target, ...tls }) : connect(target);
  let received: Buffer = Buffer.alloc(0);
  socket.on('error', error => finish(error));
  socket.on('close', () => finish(new Error('closed the connection')));
  socket.on(to.tls ? 'secureConnect' : 'connect', () => socket.write(framed(asked)));
  socket.on('data', (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
    const reply = Buffer.from(received.subarray(2, 2 + received.readUInt16BE(0)));
    finish(
      answers(reply, asked) ? undefined : new Error('answered another question'),
      answers(reply, asked) ? reply : undefined,
    );
  });
  return () => void socket.destroy();
}

function questionOf(message: Buffer): string {
  const end = endOfPlainName(message, HEADER_BYTES, message.length);
  return end < 0 ? '' : message.toString('latin1', HEADER_BYTES, end + 4).toLowerCase();
}

function answers(reply: Buffer, asked: Buffer): boolean {
  return (
    reply.length >= HEADER_BYTES &&
    reply[0] === asked[0] &&
    reply[1] === asked[1] &&
    (reply[2]! & 0x80) !== 0 &&
    // A server that cannot read a query may leave the question out of its refusal.
    (questionOf(reply) === questionOf(asked) || ((reply[3]! & 15) !== 0 && reply.readUInt16BE(4) === 0))
  );
}

/** A message with its length before it, as over TCP. */
export function framed(message: Buffer): Buffer {
  const out = Buffer.allocUnsafe(2 + message.length);
  out.writeUInt16BE(Math.min(message.length, TCP_BYTES_MAX), 0);
  message.copy(out, 2);
  return out;
}
