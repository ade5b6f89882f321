/**
 * Reads tar streams: ustar, pax (with binary extended attributes) and GNU long names. One pass, constant memory; the body of
 * an entry must be read or skipped before the next is asked for. It refuses truncated archives and bad checksums.
 */

import type { Readable } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';

export interface TarEntry {
  readonly path: string;
  readonly type: 'file' | 'link' | 'symlink' | 'character' | 'block' | 'directory' | 'fifo' | 'other';
  readonly linkPath: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtimeMs: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  readonly attributes: ReadonlyMap<string, Buffer>;
  /** The content, once. What is left unread is skipped. */
  body(): AsyncIterable<Buffer>;
}

const BLOCK = 512;
const EXTENDED_BYTES_MAX = 1 << 20;
const TYPES: Readonly<Record<string, TarEntry['type']>> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'character',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
};

/** Hands out exact numbers of bytes from a stream of chunks. */
class ByteReader {
  readonly #source: AsyncIterator<Buffer>;
  #chunk: Buffer = Buffer.alloc(0);

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]();
  }
  /** At least one byte and at most `max`; undefined at the end. */
  async some(max: number): Promise<Buffer | undefined> {
    while (this.#chunk.length === 0) {
      const next = await this.#source.next();
      if (next.done) return undefined;
      this.#chunk = next.value;
    }
    const out = this.#chunk.subarray(0, max);
    this.#chunk = this.#chunk.subarray(out.length);
    return out;
  }
  async exactly(size: number): Promise<Buffer | undefined> {
    if (this.#chunk.length >= size) {
      const out = this.#chunk.subarray(0, size);
      this.#chunk = this.#chunk.subarray(size);
      return out;
    }
    const parts: Buffer[] = [];
    let have = 0;
    while (have < size) {
      const part = await this.some(size - have);
      if (!part) {
        if (have === 0) return undefined;
        throw new Error('archive ends in the middle of an entry');
      }
      parts.push(part);
      have += part.length;
    }
    return Buffer.concat(parts);
  }
  async drain(): Promise<void> {
    while (await this.some(1 << 20));
  }
}

const text = (block: Buffer, from: number, length: number): string => {
  const field = block.subarray(from, from + length);
  const end = field.indexOf(0);
  return field.toString('utf8', 0, end < 0 ? length : end);
};

function number(block: Buffer, from: number, length: number): number {
  if (block[from]! & 0x80) {
    let value = block[from]! & 0x7f;
    for (let i = 1; i < length; i++) value = value * 256 + block[from + i]!;
    return value;
  }
  return Number.parseInt(text(block, from, length).trim() || '0', 8) || 0;
}

function checkSum(block: Buffer): boolean {
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 32 : block[i]!;
  return sum === number(block, 148, 8);
}

/** pax records: `<length> <key>=<value>\n`, values as bytes. */
function paxRecords(data: Buffer): Map<string, Buffer> {
  const records = new Map<string, Buffer>();
  for (let at = 0; at < data.length; ) {
    const space = data.indexOf(32, at);
    if (space < 0) break;
    const length = Number(data.toString('latin1', at, space));
    if (!(length > 0)) break;
    const equals = data.indexOf(61, space);
    records.set(data.toString('utf8', space + 1, equals), Buffer.from(data.subarray(equals + 1, at + length - 1)));
    at += length;
  }
  return records;
}

export async function* readTar(source: AsyncIterable<Buffer>): AsyncGenerator<TarEntry> {
  const reader = new ByteReader(source);
  let global = new Map<string, Buffer>();
  let local = new Map<string, Buffer>();
  let longName: string | undefined;
  let longLink: string | undefined;
  for (;;) {
    const block = await reader.exactly(BLOCK);
    if (!block) return;
    if (block.every(byte => byte === 0)) {
      await reader.drain();
      return;
    }
    if (block.length < BLOCK || !checkSum(block)) throw new Error('not a tar archive (bad header checksum)');
    const flag = String.fromCharCode(block[156]!);
    const pax = (key: string): string | undefined => (local.get(key) ?? global.get(key))?.toString('utf8');
    const size = 'xgLK'.includes(flag) ? number(block, 124, 12) : Number(pax('size') ?? number(block, 124, 12));
    const padding = (BLOCK - (size % BLOCK)) % BLOCK;
    if ('xgLK'.includes(flag)) {
      if (size > EXTENDED_BYTES_MAX) throw new Error('archive has an oversized extended header');
      const data = (await reader.exactly(size + padding))?.subarray(0, size) ?? Buffer.alloc(0);
      if (flag === 'x') local = paxRecords(data);
      else if (flag === 'g') global = new Map([...global, ...paxRecords(data)]);
      else if (flag === 'L') longName = data.toString('utf8').replace(/\0+$/, '');
      else longLink = data.toString('utf8').replace(/\0+$/, '');
      continue;
    }
    const isUstar = block.toString('latin1', 257, 262) === 'ustar';
    const prefix = isUstar && block[263] !== 0x20 ? text(block, 345, 155) : '';
    const attributes = new Map<string, Buffer>();
    for (const [key, value] of local)
      if (key.startsWith('SCHILY.xattr.')) attributes.set(key.slice('SCHILY.xattr.'.length), value);
    let left = size;
    const body = async function* (): AsyncGenerator<Buffer> {
      while (left > 0) {
        const part = await reader.some(Math.min(left, 1 << 20));
        if (!part) throw new Error('archive ends in the middle of an entry');
        left -= part.length;
        yield part;
      }
    };
    const mtime = pax('mtime');
    yield {
      path: pax('path') ?? longName ?? (prefix ? `${prefix}/${text(block, 0, 100)}` : text(block, 0, 100)),
      type: TYPES[flag] ?? 'other',
      linkPath: pax('linkpath') ?? longLink ?? text(block, 157, 100),
      mode: number(block, 100, 8) & 0o7777,
      uid: Number(pax('uid') ?? number(block, 108, 8)),
      gid: Number(pax('gid') ?? number(block, 116, 8)),
      size,
      mtimeMs: mtime !== undefined ? Number(mtime) * 1000 : number(block, 136, 12) * 1000,
      deviceMajor: number(block, 329, 8),
      deviceMinor: number(block, 337, 8),
      attributes,
      body,
    };
    // A body that was left half read still lies before the next header.
    for await (const _ of body());
    if (padding) await reader.exactly(padding);
    local = new Map();
    longName = longLink = undefined;
  }
}

/** Undoes gzip or zstd when the first bytes say so. */
export async function* decompressed(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const iterator = source[Symbol.asyncIterator]();
  let head = Buffer.alloc(0);
  while (head.length < 4) {
    const next = await iterator.next();
    if (next.done) break;
    head = Buffer.concat([head, next.value]);
  }
  const whole = async function* (): AsyncGenerator<Buffer> {
    yield head;
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value;
  };
  const isGzip = head[0] === 0x1f && head[1] === 0x8b;
  const isZstd = head.length >= 4 && head.readUInt32LE(0) === 0xfd2fb528;
  if (!isGzip && !isZstd) {
    yield* whole();
    return;
  }
  const { Readable } = await import('node:stream');
  const decoder = isGzip ? createGunzip() : createZstdDecompress();
  const input: Readable = Readable.from(whole());
  input.on('error', error => decoder.destroy(error));
  yield* input.pipe(decoder) as AsyncIterable<Buffer>;
}
