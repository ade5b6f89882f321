/**
 * Asks upstream servers about names that are not the cluster's. Each exchange has a socket of its own, connected to the
 * upstream, so its source port is unpredictable and the kernel drops packets of strangers; the random id and the question
 * are checked besides. Upstreams are tried in turn. It keeps no cache and never asks about the cluster's own zone: the
 * caller has seen to that.
 */

import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, isIPv6 } from 'node:net';
import { messageOf } from '../base/errors.ts';
import { HEADER_BYTES, TCP_BYTES_MAX } from './message.ts';
import { endOfPlainName } from './name.ts';

export interface Upstream {
  readonly address: string;
  readonly port: number;
}

/** `10.0.0.1`, `10.0.0.1:5353`, `fd00::1`, `[fd00::1]:53`. */
export function parseUpstream(text: string): Upstream {
  const [, address, port] = /^\[([0-9a-f:.]+)\](?::(\d+))?$/i.exec(text) ?? /^([\d.]+)(?::(\d+))?$/.exec(text) ?? [];
  return address === undefined ? { address: text, port: 53 } : { address, port: port ? Number(port) : 53 };
}

const TIMEOUT_MS = 2000;
// CoreDNS's `max_concurrent` in kubeadm's Corefile.
const CONCURRENT_MAX = 1000;

export class Forwarder {
  readonly #upstreams: readonly Upstream[];
  #pending = 0;

  constructor(upstreams: readonly string[]) {
    this.#upstreams = upstreams.map(parseUpstream);
  }
  get isEmpty(): boolean {
    return this.#upstreams.length === 0;
  }

  /** The upstream's reply to a well-formed query, with the query's own id. Rejects when none answers in time. */
  async exchange(query: Buffer, via: 'udp' | 'tcp', signal: AbortSignal): Promise<Buffer> {
    if (this.#pending >= CONCURRENT_MAX) throw new Error('too many queries in flight');
    this.#pending++;
    try {
      let failure: unknown = new Error('no upstream');
      for (const upstream of this.#upstreams) {
        const asked = Buffer.from(query);
        asked.writeUInt16BE(randomInt(0x10000), 0);
        try {
          const reply =
            via === 'udp' ? await exchangeUdp(upstream, asked, signal) : await exchangeTcp(upstream, asked, signal);
          query.copy(reply, 0, 0, 2);
          return reply;
        } catch (error) {
          failure = error;
          if (signal.aborted) break;
        }
      }
      throw new Error(`upstreams failed: ${messageOf(failure)}`);
    } finally {
      this.#pending--;
    }
  }
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
    questionOf(reply) === questionOf(asked)
  );
}

function exchangeUdp(upstream: Upstream, asked: Buffer, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = createSocket({ type: isIPv6(upstream.address) ? 'udp6' : 'udp4' });
    const limit = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
    const finish = (error: Error | undefined, reply?: Buffer): void => {
      limit.removeEventListener('abort', onAbort);
      socket.removeAllListeners();
      socket.on('error', () => {});
      socket.close();
      if (reply) resolve(reply);
      else reject(error!);
    };
    const onAbort = (): void => finish(new Error(`${upstream.address} did not answer`));
    limit.addEventListener('abort', onAbort, { once: true });
    socket.on('error', error => finish(error));
    socket.on('message', reply => {
      if (answers(reply, asked)) finish(undefined, reply);
    });
    socket.on('connect', () => socket.send(asked));
    socket.connect(upstream.port, upstream.address);
  });
}

function exchangeTcp(upstream: Upstream, asked: Buffer, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]);
    const socket = connect({ host: upstream.address, port: upstream.port, signal: limit });
    let received: Buffer = Buffer.alloc(0);
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`${upstream.address} closed the connection`)));
    socket.on('connect', () => socket.write(framed(asked)));
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
      const reply = Buffer.from(received.subarray(2, 2 + received.readUInt16BE(0)));
      if (answers(reply, asked)) resolve(reply);
      socket.destroy();
    });
  });
}

/** A message with its length before it, as over TCP. */
export function framed(message: Buffer): Buffer {
  const out = Buffer.allocUnsafe(2 + message.length);
  out.writeUInt16BE(Math.min(message.length, TCP_BYTES_MAX), 0);
  message.copy(out, 2);
  return out;
}
