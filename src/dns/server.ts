/**
 * The cluster's DNS server: UDP and TCP on one address. A question about the cluster is answered on the spot from the
 * zone; any other is forwarded, or refused when there is no upstream. It never forwards a name of the cluster, and until
 * the informers have synced it says SERVFAIL, not NXDOMAIN, for a name it does not find.
 */

import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, isIPv6, type Server, type Socket } from 'node:net';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { metrics } from '../base/metrics.ts';
import { parseAddress } from '../sys/address.ts';
import { DatagramBatch, openDatagramSocket } from '../sys/datagram-batch.ts';
import { Forwarder, framed } from './forwarder.ts';
import {
  type Answer,
  AnswerWriter,
  bareAnswer,
  CLASS_IN,
  decodeMessage,
  FLAG,
  HEADER_BYTES,
  OPT_BYTES,
  Query,
  RCODE,
  TCP_BYTES_MAX,
  TYPE,
  UDP_BYTES_MAX,
  writeReply,
} from './message.ts';
import { decodeName, encodeName, endOfPlainName } from './name.ts';
import { type InformerSource, Zone } from './zone.ts';

export interface DnsServerOptions {
  readonly informers: InformerSource;
  /** Default `cluster.local`. */
  readonly clusterDomain?: string;
  /** Port 0 takes a free one; `run` tells which through `bound`. */
  readonly listen: { readonly address: string; readonly port: number };
  /** A bound UDP socket and a listening TCP socket made elsewhere, used instead of `listen`. */
  readonly udpFd?: number;
  readonly tcpFd?: number;
  /** Servers for all other names: `address` or `address:port`. */
  readonly upstreams?: readonly string[];
  /** Default 30, as in kubeadm's Corefile. */
  readonly ttlSeconds?: number;
  readonly log: Logger;
  readonly clock?: Clock;
}

const TTL_SECONDS = 30;
const TCP_CONNECTIONS_MAX = 1000;
const TCP_IDLE_MS = 10_000;
/** Queries are small; a longer datagram is malformed. */
const REQUEST_BYTES_MAX = 1024;
const BATCH_SLOTS = 32;
// After so many full batches the event loop gets its turn; the socket stays readable.
const BATCHES_A_TURN_MAX = 16;
const SOCKET_BUFFER_BYTES = 1 << 20;
const ANSWERED_LATER = -1;
const NO_ANSWER = 0;

const FORMERR = bareAnswer(RCODE.FORMERR);
const NOTIMP = bareAnswer(RCODE.NOTIMP);
const REFUSED = bareAnswer(RCODE.REFUSED);
const SERVFAIL = bareAnswer(RCODE.SERVFAIL);
const BADVERS = bareAnswer(RCODE.BADVERS);

export class DnsServer {
  readonly #options: DnsServerOptions;
  readonly #zone: Zone;
  readonly #forwarder: Forwarder;
  readonly #log: Logger;
  readonly #query = new Query();
  readonly #stopped = new AbortController();
  #turn = 0;
  #queries = 0;
  #resolveBound!: (at: { readonly address: string; readonly port: number }) => void;
  /** Resolves once both sockets listen. */
  readonly bound: Promise<{ readonly address: string; readonly port: number }>;

  constructor(options: DnsServerOptions) {
    this.#options = options;
    this.#log = options.log;
    this.#zone = new Zone({
      informers: options.informers,
      clusterDomain: options.clusterDomain ?? 'cluster.local',
      ttlSeconds: options.ttlSeconds ?? TTL_SECONDS,
      address: options.listen.address,
      ...(options.clock ? { clock: options.clock } : {}),
    });
    this.#forwarder = new Forwarder(options.upstreams ?? []);
    this.bound = new Promise(resolve => {
      this.#resolveBound = resolve;
    });
    const requests = metrics.counter('coredns_dns_requests_total', 'Counter of DNS requests made.');
    metrics.onCollect(() => requests.set(this.#queries));
  }

  /** Resolves when the zone knows the cluster. */
  synced(): Promise<void> {
    return this.#zone.synced();
  }

  /** Listens and serves until the signal aborts; rejects when it cannot listen. */
  async run(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const udp = await this.#listenUdp();
    let tcp: Server;
    try {
      tcp = await this.#listenTcp(udp.address().port);
    } catch (error) {
      udp.close();
      throw error;
    }
    const { address, port } = udp.address();
    this.#resolveBound({ address, port });
    this.#log.debug('listening', { address, port });
    await new Promise<void>(resolve => {
      if (signal.aborted) resolve();
      else signal.addEventListener('abort', () => resolve(), { once: true });
    });
    this.#stopped.abort();
    udp.close();
    tcp.close();
  }

  /**
   * The reply to a query as over UDP, from the zone alone; undefined when there is none or it would take an upstream.
   * For tests and benchmarks.
   */
  answer(query: Buffer): Buffer | undefined {
    const out = Buffer.allocUnsafe(Math.max(UDP_BYTES_MAX, query.length + OPT_BYTES));
    const bytes = this.#reply(query, 0, query.length, out, 0, 'udp');
    return bytes > 0 ? out.subarray(0, bytes) : undefined;
  }

  /** The reply to a query, upstreams asked where needed; undefined when it deserves none. */
  async resolve(query: Buffer, via: 'udp' | 'tcp'): Promise<Buffer | undefined> {
    const out = Buffer.allocUnsafe(via === 'udp' ? Math.max(UDP_BYTES_MAX, query.length + OPT_BYTES) : TCP_BYTES_MAX);
    const bytes = this.#reply(query, 0, query.length, out, 0, via);
    if (bytes === ANSWERED_LATER) return this.#ask(query, via);
    return bytes > 0 ? Buffer.from(out.subarray(0, bytes)) : undefined;
  }

  // The hot path: parse, look up, copy. `out` has room for any reply at `at`.
  #reply(message: Buffer, start: number, end: number, out: Buffer, at: number, via: 'udp' | 'tcp'): number {
    this.#queries++;
    const query = this.#query;
    const code = query.parse(message, start, end);
    if (code === undefined) return NO_ANSWER;
    let answer: Answer | undefined;
    let flags = 0;
    if (code !== RCODE.NOERROR) answer = code === RCODE.NOTIMP ? NOTIMP : code === RCODE.BADVERS ? BADVERS : FORMERR;
    else if (query.class !== CLASS_IN) answer = REFUSED;
    else {
      answer = this.#zone.lookup(query.name, query.type);
      if (answer === undefined) {
        if (!this.#forwarder.isEmpty) return ANSWERED_LATER;
        answer = this.#zone.denyReverse(query.name) ?? REFUSED;
      } else if (answer.chase !== undefined && !this.#forwarder.isEmpty) return ANSWERED_LATER;
      if (answer.rcode === RCODE.NXDOMAIN && !this.#zone.hasSynced) answer = SERVFAIL;
      if (answer.rcode !== RCODE.REFUSED) flags = FLAG.AA;
    }
    const bytesMax = via === 'tcp' ? TCP_BYTES_MAX : Math.min(query.udpBytesMax, UDP_BYTES_MAX);
    return writeReply(query, answer, message, start, out, at, { bytesMax, turn: this.#turn++, flags });
  }

  async #ask(message: Buffer, via: 'udp' | 'tcp'): Promise<Buffer> {
    const query = new Query();
    query.parse(message, 0, message.length);
    const local = this.#zone.lookup(query.name, query.type);
    const bytesMax = via === 'tcp' ? TCP_BYTES_MAX : Math.min(query.udpBytesMax, UDP_BYTES_MAX);
    const write = (answer: Answer, flags: number): Buffer => {
      const out = Buffer.allocUnsafe(Math.max(bytesMax, message.length + OPT_BYTES));
      return Buffer.from(out.subarray(0, writeReply(query, answer, message, 0, out, 0, { bytesMax, turn: 0, flags })));
    };
    try {
      if (local?.chase === undefined) return await this.#forwarder.exchange(message, via, this.#stopped.signal);
      return write(await this.#chase(message, query, local, local.chase, via), FLAG.AA | FLAG.RA);
    } catch (error) {
      this.#log.debug('query not forwarded', { error: messageOf(error) });
      // A chain that cannot be followed is still told as far as it goes.
      return local?.chase === undefined ? write(SERVFAIL, 0) : write(local, FLAG.AA);
    }
  }

  // The CNAMEs known here, then what the upstream says of the name they lead to.
  async #chase(message: Buffer, query: Query, local: Answer, target: string, via: 'udp' | 'tcp'): Promise<Answer> {
    const name = encodeName(target);
    const tail = message.subarray(HEADER_BYTES + query.nameBytes);
    const reply = decodeMessage(
      await this.#forwarder.exchange(
        Buffer.concat([message.subarray(0, HEADER_BYTES), name, tail]),
        via,
        this.#stopped.signal,
      ),
    );
    const question = message.subarray(0, endOfPlainName(message, HEADER_BYTES, message.length) + 4);
    const header = Buffer.from(question.subarray(0, HEADER_BYTES));
    header.writeUInt16BE(local.answers, 6);
    header.writeUInt32BE(0, 8);
    const writer = new AnswerWriter(decodeName(message, HEADER_BYTES).name);
    const known = decodeMessage(Buffer.concat([header, question.subarray(HEADER_BYTES), local.body])).records;
    const followed = reply.records.filter(record => record.section === 'answer' && record.type !== TYPE.OPT);
    for (const { name: owner, type, ttlSeconds, data } of [...known, ...followed]) {
      writer.record('answer', owner, type, ttlSeconds, out => out.bytes(data));
    }
    return writer.finish();
  }

  async #listenUdp(): Promise<UdpSocket> {
    const { listen } = this.#options;
    const fd = this.#options.udpFd ?? openDatagramSocket({ address: parseAddress(listen.address), port: listen.port });
    const socket = createSocket({ type: isIPv6(listen.address) ? 'udp6' : 'udp4' });
    const listening = once(socket, 'listening');
    socket.bind({ fd });
    await listening;
    socket.on('error', error => this.#log.warn('UDP socket failed', { error: messageOf(error) }));
    this.#serveUdp(socket, fd);
    return socket;
  }

  #serveUdp(socket: UdpSocket, fd: number): void {
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
    const send = (reply: Buffer, port: number, address: string): void => socket.send(reply, port, address, () => {});
    const later = (message: Buffer, port: number, address: string): void => {
      void this.#ask(message, 'udp').then(reply => {
        if (!this.#stopped.signal.aborted) send(reply, port, address);
      });
    };
    // Node hands over one datagram; whatever else has arrived by then is taken in batches, without an event for each.
    socket.on('message', (message, { address, port }) => {
      const bytes = this.#reply(message, 0, Math.min(message.length, REQUEST_BYTES_MAX), out, 0, 'udp');
      if (bytes === ANSWERED_LATER) later(message, port, address);
      else if (bytes > 0) send(Buffer.from(out.subarray(0, bytes)), port, address);
      this.#drain(batch, later);
    });
  }

  #drain(batch: DatagramBatch, later: (message: Buffer, port: number, address: string) => void): void {
    for (let round = 0; round < BATCHES_A_TURN_MAX; round++) {
      const count = batch.receive();
      for (let slot = 0; slot < count; slot++) {
        const start = slot * batch.requestBytesMax;
        const size = batch.requestBytes(slot);
        if (size < 0) continue;
        const bytes = this.#reply(batch.input, start, start + size, batch.output, batch.replyAt, 'udp');
        if (bytes > 0) batch.stage(slot, bytes);
        else if (bytes === ANSWERED_LATER) {
          const { address, port } = batch.peer(slot);
          later(Buffer.from(batch.input.subarray(start, start + size)), port, address);
        }
      }
      batch.flush();
      if (count < batch.slots) return;
    }
  }

  async #listenTcp(port: number): Promise<Server> {
    const { listen, tcpFd } = this.#options;
    const server = createServer({ noDelay: true }, socket => this.#serveTcp(socket));
    server.maxConnections = TCP_CONNECTIONS_MAX;
    if (tcpFd === undefined) server.listen({ host: listen.address, port });
    else server.listen({ fd: tcpFd });
    await once(server, 'listening');
    server.on('error', error => this.#log.warn('TCP socket failed', { error: messageOf(error) }));
    return server;
  }

  #serveTcp(socket: Socket): void {
    let received: Buffer = Buffer.alloc(0);
    let inFlight = 0;
    const close = (): void => void socket.destroy();
    this.#stopped.signal.addEventListener('abort', close, { once: true });
    socket.on('close', () => this.#stopped.signal.removeEventListener('abort', close));
    socket.on('error', close);
    socket.setTimeout(TCP_IDLE_MS, close);
    // Replies may overtake each other (RFC 7766 §6.2.1.1); a client that does not read them is not read from either.
    const next = (): void => {
      while (received.length >= 2) {
        const size = received.readUInt16BE(0);
        if (received.length < 2 + size) break;
        const message = Buffer.from(received.subarray(2, 2 + size));
        received = received.subarray(2 + size);
        inFlight++;
        void this.resolve(message, 'tcp').then(reply => {
          inFlight--;
          if (socket.destroyed) return;
          if (reply) socket.write(framed(reply));
          else socket.destroy();
          if (inFlight === 0 && socket.writableLength < SOCKET_BUFFER_BYTES) socket.resume();
        });
      }
      if (inFlight > BATCH_SLOTS) socket.pause();
    };
    socket.on('drain', () => socket.resume());
    socket.on('data', (chunk: Buffer) => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
      next();
    });
  }
}
