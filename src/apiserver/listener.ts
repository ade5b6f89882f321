/**
 * TLS listeners: HTTP/2 and HTTP/1.1 by ALPN on one port, client certificates asked for and passed on only when they were
 * verified. It hands over exchanges and upgrades and decides nothing about them.
 */

import { createServer as createHttp1Server, type IncomingMessage } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { comesFrom } from './certificates/certificate.ts';
import { type Exchange, Http1Exchange } from './exchange.ts';
import { ServerConnection } from './http2/connection.ts';
import { Http2Exchange } from './http2/exchange.ts';
import type { Credentials } from './request.ts';
import { certificateSeconds, handshakeErrors } from './request-metrics.ts';

export interface TlsOptions {
  readonly key: string | Buffer;
  readonly cert: string | Buffer;
  /** Who signs client certificates. */
  readonly ca: string;
  /** Who signs the certificates of proxies that speak for their users. */
  readonly frontProxyCa?: string;
}

export type ListenAddress = { readonly fd: number } | { readonly host: string; readonly port: number };

export interface ListenerHandlers {
  /** Resolves when the request is done with; never rejects. */
  readonly request: (exchange: Exchange, certificate: Credentials['certificate']) => Promise<void>;
  readonly upgrade: (
    upgrade: { request: IncomingMessage; socket: Duplex; head: Buffer },
    certificate: Credentials['certificate'],
  ) => void;
}

/** A client that vanished without a word is noticed. */
const KEEP_ALIVE_MS = 30_000;
/** Of one listener: more are refused at once, before TLS costs anything. Each kubelet, proxy and controller has one or two. */
const CONNECTIONS_MAX = 10_000;

export interface Listener {
  readonly port: number;
  close(): Promise<void>;
}

/** As Go's servers: the words of `kubectl exec` are in its URL. */
const HEADER_BYTES_MAX = 1024 * 1024;

export async function listenTls(
  address: ListenAddress,
  tls: TlsOptions,
  handlers: ListenerHandlers,
): Promise<Listener> {
  const sockets = new Set<Socket>();
  const connections = new Set<ServerConnection>();
  const certificates = new WeakMap<object, Credentials['certificate']>();

  const http1 = createHttp1Server(
    { requestTimeout: 0, headersTimeout: 60_000, keepAliveTimeout: 90_000, maxHeaderSize: HEADER_BYTES_MAX },
    (request, response) =>
      void handlers.request(new Http1Exchange(request, response), certificates.get(request.socket)),
  );
  http1.on('upgrade', (request, socket, head) =>
    handlers.upgrade({ request, socket, head }, certificates.get(request.socket)),
  );

  const { frontProxyCa, ...shown } = tls;
  const server = createTlsServer({
    ...shown,
    ca: frontProxyCa ? [tls.ca, frontProxyCa] : tls.ca,
    requestCert: true,
    rejectUnauthorized: false,
    ALPNProtocols: ['h2', 'http/1.1'],
    minVersion: 'TLSv1.2',
    keepAlive: true,
    keepAliveInitialDelay: KEEP_ALIVE_MS,
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.on('tlsClientError', () => handshakeErrors.add());
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('secureConnection', (socket: TLSSocket) => {
    socket.on('error', () => {});
    socket.setNoDelay(true);
    const certificate = certificateOf(socket, tls);
    if (socket.alpnProtocol !== 'h2') {
      certificates.set(socket, certificate);
      http1.emit('connection', socket);
      return;
    }
    const connection = new ServerConnection(socket, {
      handle: stream => handlers.request(new Http2Exchange(stream, socket.remoteAddress), certificate),
    });
    connections.add(connection);
    socket.once('close', () => connections.delete(connection));
  });

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen('fd' in address ? { fd: address.fd } : { host: address.host, port: address.port }, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      const closed = new Promise<void>(resolve => server.close(() => resolve()));
      for (const connection of connections) connection.close();
      for (const socket of sockets) socket.destroy();
      http1.close();
      await closed;
    },
  };
}

/** Kubernetes' own attribute of a subject (KEP 5018). */
const UID_ATTRIBUTE = '1.3.6.1.4.1.57683.2';

function certificateOf(socket: TLSSocket, { ca, frontProxyCa }: TlsOptions): Credentials['certificate'] {
  if (!socket.authorized) return undefined;
  const { subject, serialNumber, fingerprint256, valid_to: validTo } = socket.getPeerCertificate();
  const chain = socket.getPeerX509Certificate();
  if (!subject) return undefined;
  certificateSeconds.observe(Math.max(0, (Date.parse(validTo) - Date.now()) / 1000));
  const list = (value: string | string[] | undefined) =>
    value === undefined ? [] : Array.isArray(value) ? value : [value];
  return {
    commonName: list(subject.CN)[0] ?? '',
    organizations: list(subject.O),
    uids: list((subject as unknown as Record<string, string | string[] | undefined>)[UID_ATTRIBUTE]),
    serial: serialNumber,
    fingerprint: fingerprint256.replaceAll(':', '').toLowerCase(),
    // A name that both authorities have vouched for is a user's.
    ...(frontProxyCa && comesFrom(chain, frontProxyCa) && !comesFrom(chain, ca) ? { isFrontProxy: true } : {}),
  };
}
