/**
 * A HTTP/2 client that costs little, so that a load generator on the same machine measures the server: requests are
 * frames made ahead, replies are only counted and their first bytes looked at. One request at a time a connection.
 */

import { connect, type TLSSocket } from 'node:tls';

const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
const FRAME = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goAway: 7, windowUpdate: 8 } as const;
const END_STREAM = 1;
const END_HEADERS = 4;
const ACK = 1;
const WINDOW_MAX = 2 ** 31 - 1;
/** The server may send this much before the window is opened again. */
const WINDOW_REFILL_BYTES = 2 ** 28;
const HEADER_BYTES = 9;

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES + payload.length);
  bytes.writeUIntBE(payload.length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(stream, 5);
  payload.copy(bytes, HEADER_BYTES);
  return bytes;
}

// HPACK: literal without indexing, new name, no Huffman.
function literal(name: string, value: string): Buffer {
  const integer = (length: number): Buffer => {
    if (length < 127) return Buffer.from([length]);
    const bytes = [127];
    for (let rest = length - 127; ; rest >>= 7) {
      if (rest < 128) {
        bytes.push(rest);
        return Buffer.from(bytes);
      }
      bytes.push((rest & 127) | 128);
    }
  };
  return Buffer.concat([
    Buffer.from([0]),
    integer(name.length),
    Buffer.from(name),
    integer(value.length),
    Buffer.from(value),
  ]);
}

export interface PreparedRequest {
  readonly headers: Buffer;
  readonly body: Buffer | undefined;
}

/** Encodes a request once; it may be sent many times. */
export function prepare(
  method: string,
  path: string,
  options: { headers?: Record<string, string>; body?: Buffer } = {},
): PreparedRequest {
  const all = {
    ':method': method,
    ':scheme': 'https',
    ':path': path,
    ':authority': '127.0.0.1',
    ...options.headers,
    ...(options.body ? { 'content-length': String(options.body.length) } : {}),
  };
  return {
    headers: Buffer.concat(Object.entries(all).map(([name, value]) => literal(name, value))),
    body: options.body,
  };
}

export class H2Client {
  readonly #socket: TLSSocket;
  #stream = -1;
  #buffer: Buffer = Buffer.alloc(0);
  #skip = 0;
  #received = 0;
  #begun = '';
  #skipEnds = false;
  #resolve: ((begin: string) => void) | undefined;
  #reject: ((error: Error) => void) | undefined;

  private constructor(socket: TLSSocket) {
    this.#socket = socket;
    socket.on('data', (chunk: string | Buffer) => this.#take(chunk as Buffer));
    socket.on('error', error => this.#reject?.(error));
    socket.on('close', () => this.#reject?.(new Error('the connection was closed')));
    const settings = Buffer.alloc(12);
    settings.writeUInt16BE(2, 0);
    settings.writeUInt16BE(4, 6);
    settings.writeUInt32BE(WINDOW_MAX, 8);
    socket.write(
      Buffer.concat([Buffer.from(PREFACE), frame(FRAME.settings, 0, 0, settings), this.#window(WINDOW_MAX - 65_535)]),
    );
  }
  static open(port: number, tls: { ca: string; key: string; cert: string }): Promise<H2Client> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host: '127.0.0.1', port, ...tls, ALPNProtocols: ['h2'] }, () =>
        resolve(new H2Client(socket)),
      );
      socket.setNoDelay(true);
      socket.once('error', reject);
    });
  }
  /** Resolves with the first bytes of the reply's body once it is whole. */
  send(request: PreparedRequest): Promise<string> {
    this.#stream += 2;
    this.#begun = '';
    const { headers, body } = request;
    const head = frame(FRAME.headers, END_HEADERS | (body ? 0 : END_STREAM), this.#stream, headers);
    this.#socket.write(body ? Buffer.concat([head, frame(FRAME.data, END_STREAM, this.#stream, body)]) : head);
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }
  close(): void {
    this.#reject = undefined;
    this.#socket.destroy();
  }

  #window(bytes: number): Buffer {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(bytes);
    return frame(FRAME.windowUpdate, 0, 0, payload);
  }
  #take(chunk: Buffer): void {
    let bytes = this.#buffer.length > 0 ? Buffer.concat([this.#buffer, chunk]) : chunk;
    for (;;) {
      if (this.#skip > 0) {
        const some = Math.min(this.#skip, bytes.length);
        if (this.#begun.length < 20) this.#begun += bytes.toString('latin1', 0, Math.min(some, 32));
        this.#skip -= some;
        bytes = bytes.subarray(some);
        if (this.#skip > 0) break;
        if (this.#skipEnds) this.#done();
      }
      if (bytes.length < HEADER_BYTES) break;
      const length = bytes.readUIntBE(0, 3);
      const type = bytes[3]!;
      const flags = bytes[4]!;
      if (type === FRAME.data) {
        this.#received += length;
        if (this.#received > WINDOW_REFILL_BYTES) {
          this.#socket.write(this.#window(this.#received));
          this.#received = 0;
        }
        this.#skip = length;
        this.#skipEnds = (flags & END_STREAM) !== 0;
        bytes = bytes.subarray(HEADER_BYTES);
        if (length === 0 && this.#skipEnds) this.#done();
        continue;
      }
      if (bytes.length < HEADER_BYTES + length) break;
      if (type === FRAME.settings && (flags & ACK) === 0)
        this.#socket.write(frame(FRAME.settings, ACK, 0, Buffer.alloc(0)));
      else if (type === FRAME.ping && (flags & ACK) === 0)
        this.#socket.write(frame(FRAME.ping, ACK, 0, bytes.subarray(HEADER_BYTES, HEADER_BYTES + length)));
      else if (type === FRAME.headers && (flags & END_STREAM) !== 0) this.#done();
      else if (type === FRAME.reset || type === FRAME.goAway) this.#reject?.(new Error(`frame ${type}`));
      bytes = bytes.subarray(HEADER_BYTES + length);
    }
    this.#buffer = bytes;
  }
  #done(): void {
    this.#skipEnds = false;
    const resolve = this.#resolve;
    this.#resolve = undefined;
    resolve?.(this.#begun);
  }
}
