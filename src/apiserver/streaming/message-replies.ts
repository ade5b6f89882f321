/**
 * Replies over a WebSocket, as upstream has them for watches and logs: what would be a chunk of an HTTP reply is a message. What the
 * client says is not heard; its going away ends the reply. The connection is accepted by the first thing that is written.
 */

import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { type Duplex, Writable } from 'node:stream';
import type { WebSocket, WebSocketServer } from 'ws';
import { failure } from '../../base/errors.ts';
import type { Exchange } from '../exchange.ts';

export type Frames = 'binary' | 'base64' | 'text';

/** An upgrade request that nobody has answered yet. */
export interface Unanswered {
  readonly request: IncomingMessage;
  readonly socket: Duplex;
  readonly head: Buffer;
}

const NORMAL_CLOSURE = 1000;
/** Nobody is to send much here. */
const MESSAGE_BYTES_MAX = 64 * 1024;
/** The subprotocol that a client says its token in: never one to speak. */
const TOKEN_PROTOCOL = 'base64url.bearer.authorization.k8s.io.';

let acceptor: WebSocketServer | undefined;

export const isWebSocket = (headers: IncomingHttpHeaders): boolean => headers.upgrade?.toLowerCase() === 'websocket';

/** Accepts, in the form of the client's subprotocol. Throws Forbidden when there is none that both know. */
export async function openMessages(upgrade: Unanswered, forms: Readonly<Record<string, Frames>>): Promise<Writable> {
  const offered = (upgrade.request.headers['sec-websocket-protocol'] ?? '')
    .split(',')
    .map(name => name.trim())
    .filter(name => name && !name.startsWith(TOKEN_PROTOCOL));
  const protocol = offered.length > 0 ? offered.find(name => forms[name]) : '';
  if (protocol === undefined) {
    const known = Object.keys(forms).filter(Boolean);
    throw failure(
      403,
      'Forbidden',
      `requested protocol(s) are not supported: [${offered.join(' ')}]; supports [${known.join(' ')}]`,
    );
  }
  await load();
  return accept(upgrade, { protocol, frames: forms[protocol]! });
}

/** A reply of text messages, one for each event of a watch. */
export async function watchExchange(upgrade: Unanswered): Promise<Exchange> {
  await load();
  const { request, socket } = upgrade;
  const gone = new AbortController();
  socket.once('close', () => gone.abort());
  let messages: Writable | undefined;
  const none = () => {
    throw new Error('a watch has no other reply');
  };
  return {
    method: 'GET',
    url: request.url ?? '/',
    headers: request.headers,
    remoteAddress: request.socket.remoteAddress,
    protocol: `HTTP/${request.httpVersion}`,
    signal: gone.signal,
    get started() {
      return messages !== undefined;
    },
    body: () => Buffer.alloc(0),
    reply: none,
    begin(_status, headers) {
      const isText = headers['content-type'] === 'application/json';
      messages = accept(upgrade, { protocol: '', frames: isText ? 'text' : 'binary' });
    },
    write(chunk) {
      const target = messages!;
      if (target.destroyed || target.write(chunk)) return;
      return new Promise(resolve => {
        target.once('drain', resolve);
        target.once('close', resolve);
      });
    },
    end: () => messages?.end(),
    raw: none,
  };
}

// Few clients need it, so that a start does not wait for it.
async function load(): Promise<void> {
  if (acceptor) return;
  const { WebSocketServer } = await import('ws');
  acceptor ??= new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    clientTracking: false,
    maxPayload: MESSAGE_BYTES_MAX,
    handleProtocols: (_offered, request) => chosen.get(request) || false,
  });
}
const chosen = new WeakMap<IncomingMessage, string>();

function accept(
  { request, socket, head }: Unanswered,
  { protocol, frames }: { protocol: string; frames: Frames },
): Writable {
  let accepted: WebSocket | undefined;
  chosen.set(request, protocol);
  // Answers a malformed handshake itself; otherwise calls back at once.
  acceptor!.handleUpgrade(request, socket, head, one => (accepted = one));
  const client = accepted;
  const messages = new Writable({
    write(chunk: Buffer, _encoding, done) {
      if (!client) return done();
      client.send(frames === 'base64' ? chunk.toString('base64') : chunk, { binary: frames === 'binary' }, done);
    },
    final(done) {
      client?.close(NORMAL_CLOSURE);
      done();
    },
    destroy(error, done) {
      client?.terminate();
      done(error);
    },
    // The closing handshake is still to come.
    autoDestroy: false,
  });
  messages.on('error', () => {});
  if (!client) messages.destroy();
  client?.on('error', () => {});
  client?.once('close', () => messages.destroy());
  return messages;
}
