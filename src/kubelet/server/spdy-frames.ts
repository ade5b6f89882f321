/**
 * SPDY/3.1 framing (draft-mbelshe-httpbis-spdy-00 and "SPDY Protocol - Draft 3.1"): bytes to frames and back. DATA is
 * passed on in pieces as it arrives, so a frame of 16 MB costs no memory; control frames are bounded. It keeps no stream
 * state and refuses frames of another version.
 */

import { constants, createInflate, type Inflate } from 'node:zlib';

export type Headers = Readonly<Record<string, string>>;

export type Frame =
  | { readonly type: 'open'; readonly id: number; readonly fin: boolean; readonly headers: Headers }
  | { readonly type: 'reply' | 'headers'; readonly id: number; readonly fin: boolean; readonly headers: Headers }
  | { readonly type: 'data'; readonly id: number; readonly fin: boolean; readonly data: Buffer }
  | { readonly type: 'reset'; readonly id: number; readonly status: number }
  | { readonly type: 'settings'; readonly initialWindowBytes: number | undefined }
  | { readonly type: 'ping'; readonly id: number }
  | { readonly type: 'goaway' }
  | { readonly type: 'window'; readonly id: number; readonly delta: number };

export const RESET = { protocolError: 1, refusedStream: 3, cancel: 5 } as const;

const VERSION = 3;
const CONTROL = { open: 1, reply: 2, reset: 3, settings: 4, ping: 6, goaway: 7, headers: 8, window: 9 } as const;
const FLAG_FIN = 1;
const SETTING_INITIAL_WINDOW = 7;
const CONTROL_BYTES_MAX = 64 * 1024;
const HEADER_BYTES_MAX = 256 * 1024;
const EMPTY = Buffer.alloc(0);
const FLUSH = Buffer.from([0, 0, 0, 0xff, 0xff]);

/** Frames of the stream, in order, until it ends. Throws on malformed input: the connection cannot go on. */
export async function* readFrames(source: AsyncIterable<Buffer>): AsyncGenerator<Frame, void, void> {
  const inflater = new HeaderInflater();
  let rest: Buffer = EMPTY;
  let data: { readonly id: number; readonly fin: boolean; left: number } | undefined;
  try {
    for await (const chunk of source) {
      const buffer = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
      let at = 0;
      for (;;) {
        if (data) {
          const piece = buffer.subarray(at, at + data.left);
          if (piece.length === 0 && data.left > 0) break;
          at += piece.length;
          data.left -= piece.length;
          yield { type: 'data', id: data.id, fin: data.fin && data.left === 0, data: piece };
          if (data.left === 0) data = undefined;
          continue;
        }
        if (buffer.length - at < 8) break;
        const head = buffer.readUInt32BE(at);
        const flags = buffer[at + 4]!;
        const length = buffer.readUIntBE(at + 5, 3);
        if (head < 0x80000000) {
          if (head === 0) throw new Error('SPDY data on stream 0');
          data = { id: head, fin: (flags & FLAG_FIN) !== 0, left: length };
          at += 8;
          continue;
        }
        if (((head >>> 16) & 0x7fff) !== VERSION) throw new Error(`SPDY version ${(head >>> 16) & 0x7fff}`);
        if (length > CONTROL_BYTES_MAX) throw new Error(`SPDY control frame of ${length} bytes`);
        if (buffer.length - at < 8 + length) break;
        const frame = await parseControl(head & 0xffff, flags, buffer.subarray(at + 8, at + 8 + length), inflater);
        at += 8 + length;
        if (frame) yield frame;
      }
      rest = at < buffer.length ? buffer.subarray(at) : EMPTY;
    }
  } finally {
    inflater.close();
  }
}

async function parseControl(
  type: number,
  flags: number,
  body: Buffer,
  inflater: HeaderInflater,
): Promise<Frame | undefined> {
  const fin = (flags & FLAG_FIN) !== 0;
  const word = (at: number) => {
    if (at + 4 > body.length) throw new Error(`SPDY control frame ${type} is too short`);
    return body.readUInt32BE(at);
  };
  switch (type) {
    case CONTROL.open:
      return { type: 'open', id: word(0) & 0x7fffffff, fin, headers: await inflater.headers(body.subarray(10)) };
    case CONTROL.reply:
      return { type: 'reply', id: word(0), fin, headers: await inflater.headers(body.subarray(4)) };
    case CONTROL.headers:
      return { type: 'headers', id: word(0), fin, headers: await inflater.headers(body.subarray(4)) };
    case CONTROL.reset:
      return { type: 'reset', id: word(0), status: word(4) };
    case CONTROL.settings: {
      let initialWindowBytes: number | undefined;
      for (let i = 0, count = word(0); i < count; i++)
        if ((word(4 + 8 * i) & 0xffffff) === SETTING_INITIAL_WINDOW) initialWindowBytes = word(8 + 8 * i);
      return { type: 'settings', initialWindowBytes };
    }
    case CONTROL.ping:
      return { type: 'ping', id: word(0) };
    case CONTROL.goaway:
      return { type: 'goaway' };
    case CONTROL.window:
      return { type: 'window', id: word(0) & 0x7fffffff, delta: word(4) & 0x7fffffff };
    default:
      // Unknown control frames are to be ignored (2.2.1).
      return undefined;
  }
}

/** The one zlib stream that all header blocks of a connection's peer share. */
class HeaderInflater {
  #inflate: Inflate | undefined;
  #output: Buffer[] = [];
  #bytes = 0;
  #failure: Error | undefined;

  async headers(block: Buffer): Promise<Headers> {
    const inflate = (this.#inflate ??= this.#start());
    this.#output = [];
    this.#bytes = 0;
    await new Promise<void>(resolve => {
      // A failed stream closes without calling back.
      inflate.once('close', resolve);
      // Output is emitted in ticks before the immediate.
      inflate.write(block, () =>
        setImmediate(() => {
          inflate.off('close', resolve);
          resolve();
        }),
      );
    });
    if (this.#failure) throw this.#failure;
    return parseHeaders(Buffer.concat(this.#output));
  }
  #start(): Inflate {
    const inflate = createInflate({ dictionary: headerDictionary(), flush: constants.Z_SYNC_FLUSH });
    inflate.on('error', error => (this.#failure = error));
    inflate.on('data', (chunk: Buffer) => {
      this.#bytes += chunk.length;
      if (this.#bytes > HEADER_BYTES_MAX) inflate.destroy((this.#failure = new Error('SPDY headers are too long')));
      else this.#output.push(chunk);
    });
    return inflate;
  }
  close(): void {
    this.#inflate?.close();
  }
}

function parseHeaders(block: Buffer): Headers {
  const headers: Record<string, string> = {};
  let at = 4;
  const text = () => {
    const length = block.readUInt32BE(at);
    at += 4 + length;
    if (at > block.length) throw new Error('SPDY header block is cut short');
    return block.toString('utf8', at - length, at);
  };
  for (let count = block.readUInt32BE(0); count > 0; count--) {
    const name = text().toLowerCase();
    headers[name] = text();
  }
  return headers;
}

/** Writes frames of one connection; header blocks share its zlib stream, so they must be sent in the order made. */
export class FrameWriter {
  #headersBegun = false;

  open(id: number, headers: Headers, options: { readonly fin?: boolean } = {}): Buffer {
    const fixed = Buffer.alloc(10);
    fixed.writeUInt32BE(id, 0);
    return control(CONTROL.open, options.fin ? FLAG_FIN : 0, [fixed, this.#headerBlock(headers)]);
  }
  reply(id: number, headers: Headers): Buffer {
    return control(CONTROL.reply, 0, [words(id), this.#headerBlock(headers)]);
  }
  data(id: number, data: Uint8Array, options: { readonly fin?: boolean } = {}): Buffer {
    const frame = Buffer.allocUnsafe(8 + data.length);
    frame.writeUInt32BE(id, 0);
    frame.writeUInt32BE(data.length, 4);
    if (options.fin) frame[4] = FLAG_FIN;
    frame.set(data, 8);
    return frame;
  }
  reset(id: number, status: number): Buffer {
    return control(CONTROL.reset, 0, [words(id, status)]);
  }
  ping(id: number): Buffer {
    return control(CONTROL.ping, 0, [words(id)]);
  }
  goaway(lastId: number): Buffer {
    return control(CONTROL.goaway, 0, [words(lastId, 0)]);
  }
  window(id: number, delta: number): Buffer {
    return control(CONTROL.window, 0, [words(id, delta)]);
  }
  // Headers written here are few and short, so they go as stored deflate blocks (RFC 1951 3.2.4) behind a zlib header
  // that names no dictionary: every inflater reads them, and nothing waits for a compressor. Go's hands out a stored block
  // only when the empty one of a flush follows.
  #headerBlock(headers: Headers): Buffer {
    const parts: Buffer[] = [words(Object.keys(headers).length)];
    for (const [name, value] of Object.entries(headers))
      for (const text of [name.toLowerCase(), value]) parts.push(words(Buffer.byteLength(text)), Buffer.from(text));
    const plain = Buffer.concat(parts);
    const prefix = Buffer.alloc(5);
    prefix.writeUInt16LE(plain.length, 1);
    prefix.writeUInt16LE(plain.length ^ 0xffff, 3);
    const begin = this.#headersBegun ? EMPTY : Buffer.from([0x78, 0x01]);
    this.#headersBegun = true;
    return Buffer.concat([begin, prefix, plain, FLUSH]);
  }
}

function words(...values: number[]): Buffer {
  const bytes = Buffer.allocUnsafe(4 * values.length);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, 4 * index);
  return bytes;
}

function control(type: number, flags: number, parts: readonly Buffer[]): Buffer {
  const head = Buffer.allocUnsafe(8);
  head.writeUInt16BE(0x8000 | VERSION, 0);
  head.writeUInt16BE(type, 2);
  head.writeUInt32BE(
    parts.reduce((sum, part) => sum + part.length, 0),
    4,
  );
  head[4] = flags;
  return Buffer.concat([head, ...parts]);
}

// Section 2.6.10.1: words behind their length, then loose text.
const DICTIONARY_WORDS =
  'options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow ' +
  'authorization cache-control connection content-base content-encoding content-language content-length ' +
  'content-location content-md5 content-range content-type date etag expect expires from host if-match ' +
  'if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma ' +
  'proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade ' +
  'user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie ' +
  'keep-alive origin';
const DICTIONARY_TEXT =
  '100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505' +
  '203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden' +
  '404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable' +
  'Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT' +
  'chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,' +
  'publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.';

let dictionary: Buffer | undefined;

/** The preset dictionary of every peer's header stream. */
export function headerDictionary(): Buffer {
  if (!dictionary) {
    const parts: Buffer[] = [];
    for (const word of DICTIONARY_WORDS.split(' ')) {
      const bytes = Buffer.from(word.replace('_', ' '));
      parts.push(words(bytes.length), bytes);
    }
    dictionary = Buffer.concat([...parts, Buffer.from(DICTIONARY_TEXT)]);
  }
  return dictionary;
}
