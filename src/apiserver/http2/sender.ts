/**
 * What one connection sends: heads, whole replies at once where the windows allow, and else what streams have queued, in turns.
 * What is said in one turn of the event loop is one write. It keeps to the client's windows, and puts nothing into a socket that
 * does not drain.
 */

import type { Duplex } from 'node:stream';
import type { ReplyHeaders } from '../exchange.ts';
import {
  FLAG,
  FRAME,
  FRAME_HEAD_BYTES,
  FRAME_PAYLOAD_BYTES_MAX,
  INITIAL_WINDOW_BYTES,
  writeFrameHead,
} from './frame.ts';
import { encodeHeaders } from './header-encoder.ts';
import type { ServerStream } from './stream.ts';

/** What may wait in the socket before streams keep what they have. */
const SOCKET_BYTES_MAX = 256 * 1024;
/** One stream's turn, when several have something to send. */
const TURN_BYTES_MAX = 16 * FRAME_PAYLOAD_BYTES_MAX;
/** What is copied together before it is written; of more, the socket takes the parts. */
const JOINED_BYTES_MAX = 32 * 1024;

export class Sender {
  readonly #socket: Duplex;
  readonly #sentAll: (stream: ServerStream) => void;
  #out: Buffer[] = [];
  #outBytes = 0;
  #flushing = false;
  #closed = false;
  #window = INITIAL_WINDOW_BYTES;
  /** What a new stream may send. */
  streamWindow = INITIAL_WINDOW_BYTES;
  /** With something to send that neither their window nor anything that they know of forbids. */
  readonly #sending = new Set<ServerStream>();
  #peerTableChanged = true;

  /** `sentAll`: the end of the stream's reply is on its way. */
  constructor(socket: Duplex, options: { sentAll: (stream: ServerStream) => void }) {
    this.#socket = socket;
    this.#sentAll = options.sentAll;
  }
  /** What the connection may send. */
  get window(): number {
    return this.#window;
  }
  widen(bytes: number): void {
    this.#window += bytes;
    this.#scheduleFlush();
  }
  /** The peer may have changed the size of its table. */
  tableChanged(): void {
    this.#peerTableChanged = true;
  }
  forget(stream: ServerStream): void {
    this.#sending.delete(stream);
  }
  /** Nothing is written any more. */
  stop(): void {
    this.#closed = true;
    this.#out = [];
    this.#sending.clear();
  }

  sendHead(stream: ServerStream, status: number, headers: ReplyHeaders, { end }: { end: boolean }): void {
    const block = this.#encode(status, headers);
    const bytes = Buffer.allocUnsafe(headBytes(block));
    writeHead(bytes, block, { stream: stream.id, end });
    this.write(bytes);
    if (end) this.#sentAll(stream);
  }
  sendReply(stream: ServerStream, status: number, headers: ReplyHeaders, body: readonly Buffer[]): void {
    let size = 0;
    for (const part of body) size += part.length;
    const block = this.#encode(status, headers);
    const head = headBytes(block);
    const fits = size <= FRAME_PAYLOAD_BYTES_MAX && size <= stream.sendWindow && size <= this.#window;
    if (!fits || this.#isCrowded()) {
      const bytes = Buffer.allocUnsafe(head);
      writeHead(bytes, block, { stream: stream.id, end: false });
      this.write(bytes);
      stream.queue.push(...body);
      stream.queuedBytes = size;
      return this.sendQueued(stream);
    }
    const bytes = Buffer.allocUnsafe(head + FRAME_HEAD_BYTES + size);
    writeHead(bytes, block, { stream: stream.id, end: false });
    let at = writeFrameHead(bytes, head, { length: size, type: FRAME.data, flags: FLAG.endStream, stream: stream.id });
    for (const part of body) {
      part.copy(bytes, at);
      at += part.length;
    }
    stream.sendWindow -= size;
    this.#window -= size;
    this.write(bytes);
    this.#sentAll(stream);
  }
  sendQueued(stream: ServerStream): void {
    if (stream.sent || stream.closed || (stream.queuedBytes === 0 && !stream.ending)) return;
    this.#sending.add(stream);
    this.#scheduleFlush();
  }
  #encode(status: number, headers: ReplyHeaders): Buffer {
    const afterSettings = this.#peerTableChanged;
    this.#peerTableChanged = false;
    return encodeHeaders(status, headers, { afterSettings });
  }
  #isCrowded(): boolean {
    return this.#outBytes + this.#socket.writableLength > SOCKET_BYTES_MAX;
  }
  write(bytes: Buffer): void {
    if (this.#closed) return;
    this.#out.push(bytes);
    this.#outBytes += bytes.length;
    this.#scheduleFlush();
  }
  // What is said in one turn goes out as one.
  #scheduleFlush(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    process.nextTick(this.flush);
  }
  readonly flush = () => {
    this.#flushing = false;
    if (this.#closed || this.#socket.destroyed) return;
    this.#takeTurns();
    if (this.#out.length === 0) return;
    const more = this.#writeOut();
    // The rest of what is queued goes when the socket has drained; if it has at once, nobody will say so.
    if (more && this.#sending.size > 0 && this.#window > 0) this.#scheduleFlush();
  };
  #writeOut(): boolean {
    const out = this.#out;
    const size = this.#outBytes;
    const socket = this.#socket;
    this.#out = [];
    this.#outBytes = 0;
    if (out.length === 1) return socket.write(out[0]!);
    if (size <= JOINED_BYTES_MAX) return socket.write(Buffer.concat(out, size));
    socket.cork();
    let more = true;
    for (const part of out) more = socket.write(part);
    socket.uncork();
    return more;
  }
  #takeTurns(): void {
    for (const stream of this.#sending) {
      if (this.#isCrowded() || (this.#window <= 0 && stream.queuedBytes > 0)) return;
      this.#sending.delete(stream);
      const size = Math.min(stream.queuedBytes, stream.sendWindow, this.#window, TURN_BYTES_MAX);
      const isLast = stream.ending && size === stream.queuedBytes;
      // Its own window is shut: it is back when that opens.
      if (size <= 0 && !isLast) continue;
      this.#writeData(stream, { size, isLast });
      if (isLast) this.#sentAll(stream);
      // Behind the others, whose turn comes first.
      else if (stream.queuedBytes > 0 && !stream.closed) this.#sending.add(stream);
    }
  }
  // The parts of a body stay where they are: only frame heads are put between them.
  #writeData(stream: ServerStream, { size, isLast }: { size: number; isLast: boolean }): void {
    let index = 0;
    let offset = stream.queueOffset;
    let rest = size;
    do {
      let length = Math.min(rest, FRAME_PAYLOAD_BYTES_MAX);
      rest -= length;
      const head = Buffer.allocUnsafe(FRAME_HEAD_BYTES);
      const flags = isLast && rest === 0 ? FLAG.endStream : 0;
      writeFrameHead(head, 0, { length, type: FRAME.data, flags, stream: stream.id });
      this.#out.push(head);
      this.#outBytes += FRAME_HEAD_BYTES + length;
      while (length > 0) {
        const part = stream.queue[index]!;
        const some = Math.min(length, part.length - offset);
        this.#out.push(some === part.length ? part : part.subarray(offset, offset + some));
        offset += some;
        length -= some;
        if (offset === part.length) {
          index++;
          offset = 0;
        }
      }
    } while (rest > 0);
    stream.sendWindow -= size;
    this.#window -= size;
    stream.wasSent(size);
  }
}

/** Size of the frames that carry a header block. */
function headBytes(block: Buffer): number {
  return block.length + FRAME_HEAD_BYTES * Math.max(1, Math.ceil(block.length / FRAME_PAYLOAD_BYTES_MAX));
}

function writeHead(target: Buffer, block: Buffer, { stream, end }: { stream: number; end: boolean }): void {
  let at = 0;
  let from = 0;
  do {
    const length = Math.min(block.length - from, FRAME_PAYLOAD_BYTES_MAX);
    const isLast = from + length === block.length;
    const type = from === 0 ? FRAME.headers : FRAME.continuation;
    const flags = (from === 0 && end ? FLAG.endStream : 0) | (isLast ? FLAG.endHeaders : 0);
    at = writeFrameHead(target, at, { length, type, flags, stream });
    block.copy(target, at, from, from + length);
    at += length;
    from += length;
  } while (from < block.length);
}
