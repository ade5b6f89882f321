/**
 * Moves bytes between a client and a backend: after an upgrade as a raw two-way tunnel, otherwise as one request and its
 * reply. Memory stays flat: a side that cannot write stops the other from reading. Either side may close its half first.
 */

import type { ClientRequest, IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http';
import type { Duplex, Readable, Writable } from 'node:stream';
import type { ConnectContext } from '../request.ts';

/** Headers that belong to one connection, or that prove who the client is. */
const NOT_FORWARDED = new Set([
  'host',
  'authorization',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'http2-settings',
]);
const TOKEN_PROTOCOL = 'base64url.bearer.authorization.k8s.io.';

/** The client's headers as a backend may see them. `upgrade` keeps those of the upgrade. */
export function forwardedHeaders(headers: IncomingHttpHeaders, options: { upgrade: boolean }): OutgoingHttpHeaders {
  const result: OutgoingHttpHeaders = {};
  const listed = new Set(
    (headers.connection ?? '')
      .toLowerCase()
      .split(',')
      .map(name => name.trim()),
  );
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || name.startsWith(':') || NOT_FORWARDED.has(name) || name.startsWith('impersonate-'))
      continue;
    const ofConnection = name === 'connection' || name === 'upgrade' || listed.has(name);
    if (ofConnection && !(options.upgrade && (name === 'connection' || name === 'upgrade'))) continue;
    result[name] = name === 'sec-websocket-protocol' ? withoutToken(String(value)) : value;
  }
  if (result['sec-websocket-protocol'] === '') delete result['sec-websocket-protocol'];
  return result;
}

function withoutToken(protocols: string): string {
  return protocols
    .split(',')
    .map(protocol => protocol.trim())
    .filter(protocol => !protocol.startsWith(TOKEN_PROTOCOL))
    .join(', ');
}

/** Text of an HTTP/1.1 request head. */
export function requestHead(request: {
  method: string;
  path: string;
  host: string;
  headers: OutgoingHttpHeaders;
}): string {
  let text = `${request.method} ${request.path} HTTP/1.1\r\nHost: ${request.host}\r\n`;
  for (const [name, value] of Object.entries(request.headers))
    for (const item of Array.isArray(value) ? value : [value]) text += `${name}: ${item}\r\n`;
  return `${text}\r\n`;
}

/** Sends the upgrade request on and joins the two sockets. Resolves when both are closed; never rejects. */
export function tunnel(
  client: { socket: Duplex; head?: Buffer | undefined },
  backend: Duplex,
  head: string,
): Promise<void> {
  const { socket } = client;
  return new Promise(resolve => {
    let open = 2;
    const closed = () => {
      if (--open === 0) resolve();
    };
    for (const [side, other] of [
      [socket, backend],
      [backend, socket],
    ] as const) {
      (side as Duplex & { allowHalfOpen: boolean }).allowHalfOpen = true;
      (side as Duplex & { setTimeout?(ms: number): void }).setTimeout?.(0);
      (side as Duplex & { setNoDelay?(on: boolean): void }).setNoDelay?.(true);
      side.on('error', () => other.destroy());
      side.once('close', () => {
        // What was received is still delivered; a side that vanished without its end takes the other along.
        if (side.readableEnded) other.end();
        else other.destroy();
        closed();
      });
    }
    if (socket.destroyed || backend.destroyed) {
      socket.destroy();
      backend.destroy();
      return resolve();
    }
    backend.write(head);
    if (client.head?.length) backend.write(client.head);
    socket.pipe(backend);
    backend.pipe(socket);
  });
}

type Response = NonNullable<ConnectContext['res']> | Writable;

/** Copies a reply's body to the client as fast as the client takes it. Resolves when it is through or the client went away. */
export function copyBody(from: Readable, to: Response): Promise<void> {
  return new Promise((resolve, reject) => {
    const gone = () => {
      from.destroy();
      resolve();
    };
    to.once('close', gone);
    from.on('data', (chunk: Buffer) => {
      if ((to as Writable).write(chunk)) return;
      from.pause();
      to.once('drain', () => from.resume());
    });
    from.once('end', () => {
      to.removeListener('close', gone);
      to.end(resolve);
    });
    from.once('error', error => {
      to.removeListener('close', gone);
      // The reply has begun: cutting it short is the only way to say that it is not whole.
      to.destroy();
      reject(error);
    });
  });
}

/** Sends a request's body on, as fast as the backend takes it. */
export function sendBody(from: ConnectContext['req'], to: ClientRequest): void {
  if (from.method === 'GET' || from.method === 'HEAD' || from.readableEnded) {
    to.end();
    return;
  }
  from.on('error', () => to.destroy());
  from.on('aborted', () => to.destroy());
  from.pipe(to);
}
