/**
 * One HTTP exchange with a registry, its token server or where it sends us: connects (directly, or through the relay to the machine's
 * network), speaks TLS, sends one request and hands over the answer's body. Invariant: a body never yields more bytes than the caller
 * said, and no answer is waited for without a limit. It refuses addresses that only this machine should reach (loopback, link-local)
 * unless the caller named such a host itself: a registry cannot send us there.
 */

import { lookup } from 'node:dns/promises';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { BlockList, connect, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { RegistrySettings } from './image-settings.ts';

/** How this process reaches registries. */
export interface RegistryNetwork {
  /** Socket of the relay to the machine's network; absent where the process needs none. */
  readonly relay?: string;
  /** With a relay: ranges that are reached without it. */
  readonly inside?: readonly string[];
}

export interface Ask {
  readonly url: URL;
  readonly method?: 'GET' | 'HEAD' | 'POST';
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly tls: RegistrySettings['tls'];
  /** The user or the configuration named this host, not a registry's answer. */
  readonly isTrustedHost: boolean;
  readonly signal: AbortSignal;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: IncomingMessage;
}

/** No way to the registry: nothing answered there. */
export class UnreachableError extends Error {
  override name = 'UnreachableError';
}

/** A place where a registry may not send us. */
export class RefusedError extends Error {
  override name = 'RefusedError';
}

/** What answered does not speak TLS. */
export class PlainHttpError extends Error {
  override name = 'PlainHttpError';
}

const CONNECT_MS_MAX = 15_000;
/** Silence in the middle of an answer. */
const SILENCE_MS_MAX = 30_000;
const RELAY_REPLY_BYTES_MAX = 512;

const LOCAL = new BlockList();
for (const [range, bits] of [
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['0.0.0.0', 8],
] as const)
  LOCAL.addSubnet(range, bits, 'ipv4');
LOCAL.addAddress('::1', 'ipv6');
LOCAL.addAddress('::', 'ipv6');
LOCAL.addSubnet('fe80::', 10, 'ipv6');

/** Loopback, link-local (where clouds keep their secrets) and unspecified addresses. */
export function isLocalAddress(address: string): boolean {
  return LOCAL.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
}

export async function ask(request: Ask, network: RegistryNetwork): Promise<Answer> {
  const { url, signal } = request;
  signal.throwIfAborted();
  const isSecure = url.protocol === 'https:';
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const port = Number(url.port) || (isSecure ? 443 : 80);
  const plain = await dial({ host, port, isTrustedHost: request.isTrustedHost, signal }, network);
  plain.setTimeout(SILENCE_MS_MAX, () => plain.destroy(new Error(`${url.host} fell silent`)));
  try {
    const socket = isSecure ? await secure(plain, host, request.tls) : plain;
    return await exchange(socket, request);
  } catch (error) {
    plain.destroy();
    signal.throwIfAborted();
    throw error;
  }
}

function exchange(socket: Socket, { url, method = 'GET', headers, body, signal }: Ask): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      {
        createConnection: () => socket,
        method,
        path: `${url.pathname}${url.search}`,
        headers: {
          Host: url.host,
          'User-Agent': 'coxswain',
          Connection: 'close',
          ...(body === undefined ? {} : { 'Content-Length': String(Buffer.byteLength(body)) }),
          ...headers,
        },
        signal,
      },
      answer => {
        answer.on('close', () => socket.destroy());
        resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: answer });
      },
    );
    request.on('error', reject);
    request.end(body);
  });
}

function secure(plain: Socket, host: string, tls: RegistrySettings['tls']): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({
      socket: plain,
      host,
      ...(isIP(host) ? {} : { servername: host }),
      ALPNProtocols: ['http/1.1'],
      ...(tls.ca === undefined ? {} : { ca: tls.ca }),
      ...(tls.cert === undefined ? {} : { cert: tls.cert, key: tls.key! }),
      rejectUnauthorized: !tls.skipVerify,
    });
    socket.once('secureConnect', () => resolve(socket));
    socket.once('error', error => {
      const { code = '' } = error as NodeJS.ErrnoException;
      reject(code.startsWith('ERR_SSL_') || code === 'EPROTO' ? new PlainHttpError(error.message) : error);
    });
    plain.once('close', () => reject(new PlainHttpError(`${host} ended the connection during the TLS handshake`)));
  });
}

interface Place {
  readonly host: string;
  readonly port: number;
  readonly isTrustedHost: boolean;
  readonly signal: AbortSignal;
}

async function dial(place: Place, network: RegistryNetwork): Promise<Socket> {
  const { host, port, isTrustedHost } = place;
  const isLocalName = host === 'localhost' || host.endsWith('.localhost');
  if (network.relay !== undefined && !isLocalName && !(isIP(host) && isInside(host, network.inside ?? [])))
    return throughRelay(network.relay, place);
  let address = host;
  if (!isIP(host)) {
    try {
      ({ address } = await lookup(host));
    } catch (error) {
      throw new UnreachableError(`lookup ${host}: ${(error as NodeJS.ErrnoException).code ?? error}`);
    }
  }
  if (!isTrustedHost && isLocalAddress(address))
    throw new RefusedError(`refused to follow the registry to ${host} (${address}): an address of this machine only`);
  return connected(connect({ host: address, port, noDelay: true }), `${host}:${port}`, place.signal);
}

export function isInside(address: string, ranges: readonly string[]): boolean {
  const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
  if (/^127\.|^::1$/.test(address)) return true;
  const list = new BlockList();
  for (const range of ranges) {
    const [base, bits] = range.split('/') as [string, string];
    list.addSubnet(base, Number(bits), isIP(base) === 6 ? 'ipv6' : 'ipv4');
  }
  return list.check(address, family);
}

function connected(socket: Socket, where: string, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const fail = (why: string) => {
      socket.destroy();
      reject(new UnreachableError(`dial tcp ${where}: ${why}`));
    };
    const onAbort = () => fail('given up');
    const timer = setTimeout(() => fail('i/o timeout'), CONNECT_MS_MAX);
    const settle = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    socket.once('connect', () => {
      settle();
      // Later errors reach whoever reads; this one listener keeps them from ending the process.
      socket.on('error', () => {});
      resolve(socket);
    });
    socket.once('error', error => {
      settle();
      fail(reasonOf(error));
    });
  });
}

function reasonOf(error: Error): string {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ECONNREFUSED'
    ? 'connect: connection refused'
    : code === 'ENETUNREACH'
      ? 'connect: network is unreachable'
      : (code ?? error.message);
}

/** One line to the relay, `CONNECT host port`, one line back: `OK` or why not. */
async function throughRelay(path: string, { host, port, signal }: Place): Promise<Socket> {
  let socket: Socket;
  try {
    socket = await connected(connect({ path }), `${host}:${port}`, signal);
  } catch {
    throw new UnreachableError(
      `${host} is not inside the cluster, and its nodes have no way outside; fetch the image with "cox image pull", or write "outside: true" into images.yaml and start the cluster again`,
    );
  }
  return new Promise((resolve, reject) => {
    let reply = Buffer.alloc(0);
    const fail = (why: string) => {
      socket.destroy();
      reject(new UnreachableError(`dial tcp ${host}:${port}: ${why}`));
    };
    const timer = setTimeout(() => fail('i/o timeout'), CONNECT_MS_MAX * 2);
    const onClose = () => {
      clearTimeout(timer);
      fail('the relay ended the connection');
    };
    const onReadable = () => {
      for (let part = socket.read() as Buffer | null; part; part = socket.read() as Buffer | null) {
        reply = Buffer.concat([reply, part]);
        const end = reply.indexOf(10);
        if (end < 0 && reply.length < RELAY_REPLY_BYTES_MAX) continue;
        clearTimeout(timer);
        socket.removeListener('readable', onReadable).removeListener('close', onClose);
        const line = reply.toString('utf8', 0, end);
        if (end < 0 || line !== 'OK') return fail(end < 0 ? 'the relay talks nonsense' : line);
        if (reply.length > end + 1) socket.unshift(reply.subarray(end + 1));
        return resolve(socket);
      }
    };
    socket.on('readable', onReadable).once('close', onClose);
    socket.write(`CONNECT ${host} ${port}\n`);
  });
}
