/**
 * The sockets that questions come in by. UDP takes and sends datagrams in batches; TCP answers as replies become ready, and
 * does not read from a client that does not read. What they carry is none of their business.
 */

import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, isIPv6, type Socket } from 'node:net';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { parseAddress } from '../sys/address.ts';
import { DatagramBatch, openDatagramSocket } from '../sys/datagram-batch.ts';
import { UDP_BYTES_MAX } from './message.ts';
import { framed } from './upstream.ts';

export interface Listener {
  readonly port: number;
  close(): void;
}

/** Spelled out only for who asks. */
export interface Peer {
  readonly address: string;
}

export interface DatagramAnswerer {
  /**
   * Writes the reply to the message at [start, end) into `out` at `at`: its size, 0 for no reply, -1 when it comes later.
   * Then `later` is called at once, with a copy of the message.
   */
  now(message: Buffer, start: number, end: number, out: Buffer, at: number, peer: Peer): number;
  later(message: Buffer): Promise<Buffer>;
}

export interface StreamAnswerer {
  /** Undefined: close the connection. */
  resolve(message: Buffer, remote: string): Promise<Buffer | undefined>;
}

interface At {
  readonly address: string;
  readonly port: number;
  /** A UDP socket that is bound there already; without it, one is made. */
  readonly socket?: number | undefined;
}

const TCP_CONNECTIONS_MAX = 1000;
const TCP_IDLE_MS = 10_000;
const TCP_IN_FLIGHT_MAX = 32;
/** Queries are small; a longer datagram is malformed. */
const REQUEST_BYTES_MAX = 1024;
const BATCH_SLOTS = 32;
// After so many full batches the event loop gets its turn; the socket stays readable.
const BATCHES_A_TURN_MAX = 16;
const SOCKET_BUFFER_BYTES = 1 << 20;
const LATER = -1;

export async function listenUdp(at: At, answerer: DatagramAnswerer, log: Logger): Promise<Listener> {
  const fd = at.socket ?? openDatagramSocket({ address: parseAddress(at.address), port: at.port });
  const socket = createSocket({ type: isIPv6(at.address) ? 'udp6' : 'udp4' });
  const listening = once(socket, 'listening');
  socket.bind({ fd });
  await listening;
  socket.on('error', error => log.warn('UDP socket failed', { error: messageOf(error) }));
  try {
    socket.setRecvBufferSize(SOCKET_BUFFER_BYTES);
    socket.setSendBufferSize(SOCKET_BUFFER_BYTES);
  } catch {
    // The default sizes serve as well, with more loss under bursts.
  }
  const batch = new DatagramBatch(fd, {
    slots: BATCH_SLOTS,
    requestBytesMax: REQUEST_BYTES_MAX,
    replyBytesMax: UDP_BYTES_MAX,
  });
  const out = Buffer.allocUnsafe(UDP_BYTES_MAX);
  let closed = false;
  const slotPeer = {
    slot: 0,
    get address() {
      return batch.peer(this.slot).address;
    },
  };
  const later = (message: Buffer, peer: { readonly address: string; readonly port: number }): void => {
    void answerer.later(message).then(reply => {
      if (!closed) socket.send(reply, peer.port, peer.address, () => {});
    });
  };
  const drain = (): void => {
    for (let round = 0; round < BATCHES_A_TURN_MAX; round++) {
      const count = batch.receive();
      for (let slot = 0; slot < count; slot++) {
        const start = slot * batch.requestBytesMax;
        const size = batch.requestBytes(slot);
        if (size < 0) continue;
        slotPeer.slot = slot;
        const bytes = answerer.now(batch.input, start, start + size, batch.output, batch.replyAt, slotPeer);
        if (bytes > 0) batch.stage(slot, bytes);
        else if (bytes === LATER) later(Buffer.from(batch.input.subarray(start, start + size)), batch.peer(slot));
      }
      batch.flush();
      if (count < batch.slots) return;
    }
  };
  // Node hands over one datagram; whatever else has arrived by then is taken in batches, without an event for each.
  socket.on('message', (message, peer) => {
    const bytes = answerer.now(message, 0, Math.min(message.length, REQUEST_BYTES_MAX), out, 0, peer);
    if (bytes === LATER) later(message, peer);
    else if (bytes > 0) socket.send(Buffer.from(out.subarray(0, bytes)), peer.port, peer.address, () => {});
    drain();
  });
  return {
    port: socket.address().port,
    close() {
      closed = true;
      socket.close();
    },
  };
}

export async function listenTcp(at: At, answerer: StreamAnswerer, log: Logger): Promise<Listener> {
  const open = new Set<Socket>();
  const server = createServer({ noDelay: true }, socket => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
    serve(socket, answerer);
  });
  server.maxConnections = TCP_CONNECTIONS_MAX;
  server.listen({ host: at.address, port: at.port });
  await once(server, 'listening');
  server.on('error', error => log.warn('TCP socket failed', { error: messageOf(error) }));
  return {
    port: at.port,
    close() {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

function serve(socket: Socket, answerer: StreamAnswerer): void {
  const remote = socket.remoteAddress ?? '-';
  let received: Buffer = Buffer.alloc(0);
  let inFlight = 0;
  socket.on('error', () => socket.destroy());
  socket.setTimeout(TCP_IDLE_MS, () => socket.destroy());
  // Replies may overtake each other (RFC 7766 §6.2.1.1); a client that does not read them is not read from either.
  const take = (): void => {
    while (inFlight < TCP_IN_FLIGHT_MAX && received.length >= 2) {
      const size = received.readUInt16BE(0);
      if (received.length < 2 + size) break;
      const message = Buffer.from(received.subarray(2, 2 + size));
      received = received.subarray(2 + size);
      inFlight++;
      void answerer.resolve(message, remote).then(reply => {
        inFlight--;
        if (socket.destroyed) return;
        if (!reply) return void socket.destroy();
        socket.write(framed(reply));
        if (socket.writableLength >= SOCKET_BUFFER_BYTES) return;
        take();
      });
    }
    if (inFlight >= TCP_IN_FLIGHT_MAX || socket.writableLength >= SOCKET_BUFFER_BYTES) socket.pause();
    else socket.resume();
  };
  socket.on('drain', take);
  socket.on('data', (chunk: Buffer) => {
    received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
    take();
  });
}
