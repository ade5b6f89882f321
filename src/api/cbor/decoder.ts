/**
 * CBOR (RFC 8949) as JSON values, by the rules of Kubernetes' decoder (KEP-4222): byte strings are strings, those marked for
 * a later base 16, base 64 or base 64 for URLs get it, times become RFC 3339, other tags are looked through. Refuses with a
 * BadRequest what JSON has no value for, repeated keys, big integers, and nesting without end.
 */

import { type ApiError, badRequest } from '../../base/errors.ts';

/** Deeper than any object is; upstream's 10 000 would be as deep as this stack goes. */
const NESTING_MAX = 1000;

const LATER_ENCODING: Readonly<Record<number, BufferEncoding>> = { 21: 'base64url', 22: 'base64', 23: 'hex' };
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
/** Marks the end of an item of indefinite length. */
const BREAK = Symbol('break');

const malformed = (why: string): ApiError => badRequest(`unable to decode CBOR: ${why}`);

/** The one data item of a body. */
export function decodeCbor(bytes: Buffer): unknown {
  const reader = new CborReader(bytes);
  const value = reader.item(0);
  if (value === BREAK) throw malformed('unexpected "break" code');
  if (!reader.ended) throw malformed(`${bytes.length - reader.at} bytes of extraneous data`);
  return value;
}

class CborReader {
  readonly #bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }
  get ended(): boolean {
    return this.at >= this.#bytes.length;
  }

  item(depth: number, later?: BufferEncoding): unknown {
    if (depth > NESTING_MAX) throw malformed(`exceeded max nested level ${NESTING_MAX}`);
    const initial = this.#take(1)[0]!;
    const major = initial >> 5;
    const info = initial & 31;
    if (info > 27 && info < 31) throw malformed(`invalid additional information ${info}`);
    switch (major) {
      case 0:
        return integer(this.#argument(info));
      case 1:
        return integer(-1n - BigInt(this.#argument(info)));
      case 2:
        return this.#string(info, 2).toString(later ?? 'utf8');
      case 3:
        return this.#text(info);
      case 4:
        return this.#array(info, depth, later);
      case 5:
        return this.#map(info, depth, later);
      case 6:
        return this.#tagged(Number(this.#argument(info)), depth, later);
      default:
        return this.#simple(info);
    }
  }

  #take(size: number): Buffer {
    const end = this.at + size;
    if (end > this.#bytes.length) throw malformed('unexpected EOF');
    const part = this.#bytes.subarray(this.at, end);
    this.at = end;
    return part;
  }
  #argument(info: number): number | bigint {
    if (info < 24) return info;
    if (info === 24) return this.#take(1)[0]!;
    if (info === 25) return this.#take(2).readUInt16BE();
    if (info === 26) return this.#take(4).readUInt32BE();
    if (info === 27) return this.#take(8).readBigUInt64BE();
    throw malformed('invalid additional information 31');
  }
  #length(info: number): number {
    const length = Number(this.#argument(info));
    // Each element takes a byte at least.
    if (length > this.#bytes.length - this.at) throw malformed('unexpected EOF');
    return length;
  }
  #string(info: number, major: number): Buffer {
    if (info !== 31) return this.#take(this.#length(info));
    const parts: Buffer[] = [];
    for (;;) {
      const initial = this.#take(1)[0]!;
      if (initial === 0xff) return Buffer.concat(parts);
      if (initial >> 5 !== major || (initial & 31) > 27)
        throw malformed('wrong element of an indefinite-length string');
      parts.push(this.#take(this.#length(initial & 31)));
    }
  }
  #text(info: number): string {
    const bytes = this.#string(info, 3);
    try {
      return utf8.decode(bytes);
    } catch {
      throw malformed('invalid UTF-8 string');
    }
  }
  #array(info: number, depth: number, later: BufferEncoding | undefined): unknown[] {
    const items: unknown[] = [];
    const length = info === 31 ? Number.POSITIVE_INFINITY : this.#length(info);
    while (items.length < length) {
      const item = this.item(depth + 1, later);
      if (item === BREAK) {
        if (info === 31) break;
        throw malformed('unexpected "break" code');
      }
      items.push(item);
    }
    return items;
  }
  #map(info: number, depth: number, later: BufferEncoding | undefined): Record<string, unknown> {
    const map: Record<string, unknown> = {};
    const length = info === 31 ? Number.POSITIVE_INFINITY : this.#length(info);
    for (let i = 0; i < length; i++) {
      const key = this.item(depth + 1);
      if (key === BREAK && info === 31) break;
      if (typeof key !== 'string') throw malformed('a map key is not a string');
      if (Object.hasOwn(map, key)) throw malformed(`found duplicate map key ${JSON.stringify(key)}`);
      const value = this.item(depth + 1, later);
      if (value === BREAK) throw malformed('unexpected "break" code');
      if (key !== '__proto__') map[key] = value;
      else Object.defineProperty(map, key, { value, enumerable: true, configurable: true, writable: true });
    }
    return map;
  }
  #tagged(tag: number, depth: number, later: BufferEncoding | undefined): unknown {
    const value = this.item(depth + 1, LATER_ENCODING[tag] ?? later);
    if (value === BREAK) throw malformed('unexpected "break" code');
    if (tag === 2 || tag === 3) throw malformed('bignums are not supported');
    if (tag === 0 && (typeof value !== 'string' || Number.isNaN(Date.parse(value))))
      throw malformed('tag 0 is no time');
    if (tag !== 1) return value;
    const time = typeof value === 'number' ? new Date(value * 1000) : undefined;
    if (!time || Number.isNaN(time.getTime())) throw malformed('tag 1 is no time');
    return time.toISOString().replace(/\.?0*Z$/, 'Z');
  }
  #simple(info: number): unknown {
    switch (info) {
      case 20:
        return false;
      case 21:
        return true;
      case 22:
        return null;
      case 25:
        return finite(half(this.#take(2).readUInt16BE()));
      case 26:
        return finite(this.#take(4).readFloatBE());
      case 27:
        return finite(this.#take(8).readDoubleBE());
      case 31:
        return BREAK;
      default:
        throw malformed(`simple value ${info} is not recognized`);
    }
  }
}

function integer(value: number | bigint): number {
  if (typeof value === 'number') return value;
  if (value > 0x7fffffffffffffffn || value < -0x8000000000000000n)
    throw malformed(`${value} overflows a 64-bit integer`);
  return Number(value);
}

function finite(value: number): number {
  if (!Number.isFinite(value)) throw malformed(`${value} has no JSON form`);
  return value;
}

function half(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const size =
    exponent === 0
      ? fraction * 2 ** -24
      : exponent === 31
        ? fraction === 0
          ? Number.POSITIVE_INFINITY
          : Number.NaN
        : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -size : size;
}
