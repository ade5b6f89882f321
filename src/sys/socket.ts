/**
 * Sockets that live in a given network namespace: a socket belongs for ever to the namespace where it was made, wherever the
 * thread that uses it is. This is how the agent serves inside a node's namespace, and how 127.0.0.1 leads into one.
 */

import { Socket } from 'node:net';
import { formatAddress, parseAddress } from './address.ts';
import {
  AF_INET,
  AF_INET6,
  bind,
  close,
  getsockname,
  listen,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
  setIntOption,
  socket,
} from './file-descriptor.ts';
import { inNamespace, type NetnsRef } from './netns.ts';

const SO_REUSEADDR = 2;
const IPPROTO_IP = 0;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
const IP_FREEBIND = 15;
const BACKLOG = 4096;

export interface SocketAddress {
  readonly address: string;
  readonly port: number;
}

/** The kernel's `sockaddr_in` or `sockaddr_in6`. */
export function encodeSocketAddress({ address, port }: SocketAddress): Buffer {
  const bytes = parseAddress(address);
  const out = Buffer.alloc(bytes.length === 4 ? 16 : 28);
  out.writeUInt16LE(bytes.length === 4 ? AF_INET : AF_INET6, 0);
  out.writeUInt16BE(port, 2);
  out.set(bytes, bytes.length === 4 ? 4 : 8);
  return out;
}

/** Address and port that a socket is bound to; tells the port chosen for port 0. */
export function localAddressOf(fd: number): SocketAddress {
  const bytes = Buffer.alloc(28);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  getsockname(fd, bytes, length);
  const v4 = bytes.readUInt16LE(0) === AF_INET;
  return { address: formatAddress(v4 ? bytes.subarray(4, 8) : bytes.subarray(8, 24)), port: bytes.readUInt16BE(2) };
}

function open(namespace: NetnsRef | undefined, family: number, type: number): number {
  const make = () => socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  return namespace === undefined ? make() : inNamespace(namespace, make);
}

export interface BindOptions extends SocketAddress {
  /** The calling thread's own when absent. */
  readonly namespace?: NetnsRef;
  /** Bind although no link has the address yet. */
  readonly freebind?: boolean;
}

function bound(options: BindOptions, type: number, prepare: (fd: number) => void): number {
  const address = encodeSocketAddress(options);
  const v6 = address.length === 28;
  const fd = open(options.namespace, v6 ? AF_INET6 : AF_INET, type);
  try {
    if (v6) setIntOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (options.freebind) setIntOption(fd, IPPROTO_IP, IP_FREEBIND, 1);
    prepare(fd);
    bind(fd, address, address.length);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

/**
 * A listening TCP socket, at once. The caller owns the descriptor: `server.listen({ fd })` of node:net takes it over.
 * Throws EADDRINUSE, EADDRNOTAVAIL.
 */
export function listenTcp(options: BindOptions): number {
  const fd = bound(options, SOCK_STREAM, fd => setIntOption(fd, SOL_SOCKET, SO_REUSEADDR, 1));
  try {
    listen(fd, BACKLOG);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** A bound UDP socket; `socket.bind({ fd })` of node:dgram takes it over. */
export function bindUdp(options: BindOptions): number {
  return bound(options, SOCK_DGRAM, () => {});
}

/** An unconnected UDP socket in the namespace, bound to any address and port. */
export function openUdp(options: { readonly namespace?: NetnsRef; readonly family?: 4 | 6 }): number {
  return bindUdp({ ...options, address: options.family === 6 ? '::' : '0.0.0.0', port: 0 });
}

/**
 * Starts to connect from inside the namespace and returns node's socket, which emits 'connect' or 'error' as if
 * `net.connect` had made it. The caller sets timeouts and destroys it.
 */
export function connectTcp(
  options: SocketAddress & { readonly namespace?: NetnsRef; readonly localAddress?: string },
): Socket {
  const family = parseAddress(options.address).length === 4 ? AF_INET : AF_INET6;
  const fd = open(options.namespace, family, SOCK_STREAM);
  let handed = false;
  try {
    // node connects the descriptor later, on whatever namespace its thread is in: the socket stays in this one.
    const wrapped = new Socket({ fd, readable: true, writable: true, manualStart: true } as ConstructorParameters<
      typeof Socket
    >[0]);
    handed = true;
    wrapped.connect({
      host: options.address,
      port: options.port,
      ...(options.localAddress ? { localAddress: options.localAddress } : {}),
    });
    return wrapped;
  } finally {
    if (!handed) close(fd);
  }
}
