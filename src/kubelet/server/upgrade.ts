/**
 * Turning an HTTP/1.1 upgrade request into a WebSocket or into the byte stream of a SPDY/3.1 connection, or refusing it
 * with a plain-text answer, as kubectl prints it. The request was authenticated before.
 */

import { type IncomingMessage, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';

/** An upgrade request whose socket is still unanswered. */
export interface Upgrade {
  readonly request: IncomingMessage;
  readonly socket: Duplex;
  /** Bytes that came behind the request. */
  readonly head: Buffer;
  readonly url: URL;
}

/** As golang.org/x/net/websocket's default limit of one message. */
const MESSAGE_BYTES_MAX = 32 * 1024 * 1024;
const PROTOCOL_HEADER = 'X-Stream-Protocol-Version';

let acceptor: WebSocketServer | undefined;

export function refuse(
  upgrade: Upgrade,
  code: number,
  text: string,
  headers: Readonly<Record<string, string>> = {},
): void {
  const { socket } = upgrade;
  const lines = [
    `HTTP/1.1 ${code} ${STATUS_CODES[code] ?? 'Error'}`,
    'Content-Type: text/plain; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(text)}`,
    'Connection: close',
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
  ];
  socket.on('error', () => {});
  socket.end(`${lines.join('\r\n')}\r\n\r\n${text}`);
  socket.resume();
}

export function wantsWebSocket(request: IncomingMessage): boolean {
  return request.headers.upgrade?.toLowerCase() === 'websocket';
}

/**
 * The socket and the first of the client's subprotocols that is supported (`''` when it names none), or undefined when
 * the request was refused.
 */
export function acceptWebSocket(
  upgrade: Upgrade,
  supported: readonly string[],
): { readonly socket: WebSocket; readonly protocol: string } | undefined {
  const offered = (upgrade.request.headers['sec-websocket-protocol'] ?? '')
    .split(',')
    .map(name => name.trim())
    .filter(Boolean);
  const protocol = offered.find(name => supported.includes(name)) ?? '';
  if (protocol === '' && offered.length > 0) {
    refuse(
      upgrade,
      403,
      `requested protocol(s) are not supported: [${offered.join(' ')}]; supports [${supported.join(' ')}]`,
    );
    return undefined;
  }
  acceptor ??= new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    clientTracking: false,
    maxPayload: MESSAGE_BYTES_MAX,
    handleProtocols: (_offered, request) => (request as { chosenProtocol?: string }).chosenProtocol || false,
  });
  let accepted: WebSocket | undefined;
  Object.assign(upgrade.request, { chosenProtocol: protocol });
  // Answers the request itself when its handshake is malformed; otherwise calls back at once.
  acceptor.handleUpgrade(upgrade.request, upgrade.socket, upgrade.head, socket => (accepted = socket));
  return accepted && { socket: accepted, protocol };
}

/** The chosen stream protocol, with the socket now carrying SPDY; or undefined when the request was refused. */
export function acceptSpdy(upgrade: Upgrade, supported: readonly string[]): string | undefined {
  const { request, socket, head } = upgrade;
  if (!request.headers.upgrade?.toLowerCase().includes('spdy/3.1')) {
    refuse(upgrade, 400, 'unable to upgrade: missing upgrade headers in request');
    return undefined;
  }
  const offered = [request.headers[PROTOCOL_HEADER.toLowerCase()] ?? []]
    .flat()
    .flatMap(value => value.split(','))
    .map(name => name.trim());
  if (offered.length === 0) {
    refuse(upgrade, 400, `unable to upgrade: ${PROTOCOL_HEADER} is required`);
    return undefined;
  }
  const protocol = offered.find(name => supported.includes(name));
  if (!protocol) {
    refuse(
      upgrade,
      403,
      `unable to upgrade: unable to negotiate protocol: client supports [${offered.join(' ')}], server accepts [${supported.join(' ')}]`,
      { 'X-Accepted-Stream-Protocol-Versions': supported.join(', ') },
    );
    return undefined;
  }
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n${PROTOCOL_HEADER}: ${protocol}\r\n\r\n`,
  );
  if (head.length > 0) socket.unshift(head);
  return protocol;
}
