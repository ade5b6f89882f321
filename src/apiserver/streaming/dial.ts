/** TCP connections to nodes, pods and endpoints, and which addresses may be reached for a client at all. */

import { BlockList, connect, isIP, type Socket } from 'node:net';
import { ApiError } from '../../base/errors.ts';

export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

const CONNECT_MS_MAX = 30_000;

/** Resolves once connected; rejects with upstream's `error dialing backend`. The socket may be half closed. */
export function connectTcp(endpoint: Endpoint): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      ...endpoint,
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: 30_000,
    });
    const failed = (error: Error) => {
      socket.destroy();
      reject(dialFailure(endpoint, error));
    };
    socket.setTimeout(CONNECT_MS_MAX, () => failed(new Error('i/o timeout')));
    socket.once('error', failed);
    socket.once('connect', () => {
      socket.setTimeout(0);
      socket.removeListener('error', failed);
      resolve(socket);
    });
  });
}

/** `error dialing backend: dial tcp 10.0.0.1:10250: connect: connection refused` */
export function dialFailure(endpoint: Endpoint, error: NodeJS.ErrnoException): ApiError {
  return new ApiError({
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    message: `error dialing backend: ${dialText(endpoint, error)}`,
    code: 500,
  });
}

/** Go's words for what went wrong with a connection. */
export function dialText({ host, port }: Endpoint, error: NodeJS.ErrnoException): string {
  const words: Readonly<Record<string, string>> = {
    ECONNREFUSED: 'connect: connection refused',
    EHOSTUNREACH: 'connect: no route to host',
    ENETUNREACH: 'connect: network is unreachable',
    ETIMEDOUT: 'i/o timeout',
  };
  return `dial tcp ${isIP(host) === 6 ? `[${host}]` : host}:${port}: ${words[error.code ?? ''] ?? error.message}`;
}

let forbidden: BlockList | undefined;

/** Go's IsGlobalUnicast: what a proxy may be pointed at. Loopback, link-local, multicast and unspecified addresses are not. */
export function isProxyable(address: string): boolean {
  const version = isIP(address);
  if (version === 0) return false;
  if (!forbidden) {
    forbidden = new BlockList();
    for (const [network, length] of [
      ['0.0.0.0', 32],
      ['127.0.0.0', 8],
      ['169.254.0.0', 16],
      ['224.0.0.0', 4],
      ['255.255.255.255', 32],
    ] as const)
      forbidden.addSubnet(network, length, 'ipv4');
    for (const [network, length] of [
      ['::', 128],
      ['::1', 128],
      ['fe80::', 10],
      ['ff00::', 8],
    ] as const)
      forbidden.addSubnet(network, length, 'ipv6');
  }
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped) return isProxyable(mapped);
  return !forbidden.check(address, version === 6 ? 'ipv6' : 'ipv4');
}
