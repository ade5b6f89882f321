/**
 * Writes the protobuf wire format from its end to its beginning: the length of a message is known when its content is
 * written, so nothing is measured or copied twice. Callers write fields, and what is in a field, in reverse.
 */

import { BYTES } from './wire.ts';

const FIRST_BYTES = 64 * 1024;
/** Shorter strings are copied here; longer ones are worth the call into the runtime. */
const SHORT_CHARS = 24;

export class ReverseWriter {
  #buffer = Buffer.allocUnsafeSlow(FIRST_BYTES);
  #at = FIRST_BYTES;

  /** Bytes written so far: where a message that is written next will end. */
  get length(): number {
    return this.#buffer.length - this.#at;
  }
  /** A copy of what was written; the writer is empty then. */
  take(): Buffer {
    const bytes = Buffer.allocUnsafeSlow(this.length);
    this.#buffer.copy(bytes, 0, this.#at);
    this.reset();
    return bytes;
  }
  reset(): void {
    // One large list must not hold its memory for ever.
    if (this.#buffer.length > 64 * FIRST_BYTES) this.#buffer = Buffer.allocUnsafeSlow(FIRST_BYTES);
    this.#at = this.#buffer.length;
  }
  tag(number: number, wire: number): void {
    this.varint((number << 3) | wire);
  }
  varint(value: number): void {
    if (value >= 0 && value < 128) {
      this.#room(1);
      this.#buffer[--this.#at] = value;
      return;
    }
    this.#large(value);
  }
  #large(value: number): void {
    this.#room(10);
    let size = 1;
    if (value >= 0 && value <= 0x7fffffff) {
      for (let rest = value >>> 7; rest > 0; rest >>>= 7) size++;
      let at = (this.#at -= size);
      let rest = value;
      for (; rest > 127; rest >>>= 7) this.#buffer[at++] = (rest & 127) | 128;
      this.#buffer[at] = rest;
      return;
    }
    let rest = BigInt.asUintN(64, BigInt(Math.trunc(value)));
    for (let more = rest >> 7n; more > 0n; more >>= 7n) size++;
    let at = (this.#at -= size);
    for (; rest > 127n; rest >>= 7n) this.#buffer[at++] = Number(rest & 127n) | 128;
    this.#buffer[at] = Number(rest);
  }
  double(value: number): void {
    this.#room(8);
    this.#at -= 8;
    this.#buffer.writeDoubleLE(value, this.#at);
  }
  raw(bytes: Uint8Array): void {
    this.#room(bytes.length);
    this.#at -= bytes.length;
    this.#buffer.set(bytes, this.#at);
  }
  /** Text without length or tag. */
  text(value: string): void {
    const { length } = value;
    if (length <= SHORT_CHARS && this.#ascii(value)) return;
    const size = Buffer.byteLength(value);
    this.#room(size);
    this.#at -= size;
    this.#buffer.write(value, this.#at);
  }
  #ascii(value: string): boolean {
    const { length } = value;
    this.#room(length);
    const start = this.#at - length;
    for (let i = 0; i < length; i++) {
      const code = value.charCodeAt(i);
      if (code > 127) return false;
      this.#buffer[start + i] = code;
    }
    this.#at = start;
    return true;
  }
  /** Closes a field of bytes whose content begins here and ended at `end`. */
  close(number: number, end: number): void {
    this.varint(this.length - end);
    this.tag(number, BYTES);
  }
  textField(number: number, value: string): void {
    const end = this.length;
    this.text(value);
    this.close(number, end);
  }
  #room(size: number): void {
    if (this.#at >= size) return;
    const { length } = this;
    const grown = Buffer.allocUnsafeSlow(Math.max(this.#buffer.length * 2, length + size));
    this.#buffer.copy(grown, grown.length - length, this.#at);
    this.#buffer = grown;
    this.#at = grown.length - length;
  }
}
