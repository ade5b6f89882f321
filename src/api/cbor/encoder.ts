/**
 * JSON values as CBOR (RFC 8949) in the manner of Kubernetes (KEP-4222): behind the tag that says "this is CBOR", strings and
 * keys as byte strings, numbers in their shortest form, lengths always given. Pure; knows no kind: bytes that JSON carries in
 * base 64 stay so, which Go's decoder expects of an untagged byte string.
 */

const FIRST_BYTES = 16 * 1024;
/** Tag 55799, "self-described CBOR". */
export const SELF_DESCRIBED = Buffer.from('d9d9f7', 'hex');

const UNSIGNED = 0;
const NEGATIVE = 1;
const STRING = 2;
const ARRAY = 4;
const MAP = 5;
const FALSE = 0xf4;
const TRUE = 0xf5;
const NULL = 0xf6;

class Writer {
  #buffer = Buffer.allocUnsafe(FIRST_BYTES);
  #at = 0;

  bytes(): Buffer {
    return Buffer.from(this.#buffer.subarray(0, this.#at));
  }
  raw(bytes: Buffer): void {
    this.#room(bytes.length);
    bytes.copy(this.#buffer, this.#at);
    this.#at += bytes.length;
  }
  value(value: unknown): void {
    switch (typeof value) {
      case 'string':
        return this.#text(value);
      case 'number':
        return this.#number(value);
      case 'boolean':
        return this.#byte(value ? TRUE : FALSE);
      case 'object':
        if (value === null) return this.#byte(NULL);
        if (Array.isArray(value)) {
          this.#head(ARRAY, value.length);
          for (const item of value) this.value(item === undefined ? null : item);
          return;
        }
        return this.#map(value as Record<string, unknown>);
      default:
        return this.#byte(NULL);
    }
  }
  #map(map: Record<string, unknown>): void {
    const keys = Object.keys(map).filter(key => map[key] !== undefined);
    this.#head(MAP, keys.length);
    for (const key of keys) {
      this.#text(key);
      this.value(map[key]);
    }
  }
  #text(text: string): void {
    const size = Buffer.byteLength(text);
    this.#head(STRING, size);
    this.#room(size);
    this.#buffer.write(text, this.#at);
    this.#at += size;
  }
  #number(value: number): void {
    if (Number.isSafeInteger(value) && !Object.is(value, -0))
      return value >= 0 ? this.#head(UNSIGNED, value) : this.#head(NEGATIVE, -1 - value);
    if (!Number.isFinite(value)) return this.#byte(NULL);
    this.#room(9);
    const single = Math.fround(value) === value;
    this.#buffer[this.#at++] = single ? 0xfa : 0xfb;
    this.#at = single ? this.#buffer.writeFloatBE(value, this.#at) : this.#buffer.writeDoubleBE(value, this.#at);
  }
  #head(major: number, argument: number): void {
    this.#room(9);
    const high = major << 5;
    if (argument < 24) this.#buffer[this.#at++] = high | argument;
    else if (argument < 2 ** 8) {
      this.#buffer[this.#at++] = high | 24;
      this.#buffer[this.#at++] = argument;
    } else if (argument < 2 ** 16) {
      this.#buffer[this.#at++] = high | 25;
      this.#at = this.#buffer.writeUInt16BE(argument, this.#at);
    } else if (argument < 2 ** 32) {
      this.#buffer[this.#at++] = high | 26;
      this.#at = this.#buffer.writeUInt32BE(argument, this.#at);
    } else {
      this.#buffer[this.#at++] = high | 27;
      this.#at = this.#buffer.writeBigUInt64BE(BigInt(argument), this.#at);
    }
  }
  #byte(byte: number): void {
    this.#room(1);
    this.#buffer[this.#at++] = byte;
  }
  #room(size: number): void {
    if (this.#at + size <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#at + size));
    this.#buffer.copy(grown, 0, 0, this.#at);
    this.#buffer = grown;
  }
}

/** One data item; several of them in a row are `application/cbor-seq`. What JSON cannot say becomes null. */
export function encodeCbor(value: unknown): Buffer {
  const writer = new Writer();
  writer.raw(SELF_DESCRIBED);
  writer.value(value);
  return writer.bytes();
}
