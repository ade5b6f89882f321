/** Reads the protobuf wire format. Refuses what ends too early or is no protobuf with a BadRequest; knows no message. */

import { type ApiError, badRequest } from '../../base/errors.ts';
import { BYTES, FIXED32, FIXED64, VARINT } from './wire.ts';

export class Reader {
  readonly bytes: Buffer;
  at: number;
  readonly end: number;
  constructor(bytes: Buffer, at = 0, end = bytes.length) {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
  }
  varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (this.at >= this.end) throw malformed('unexpected EOF');
      const byte = this.bytes[this.at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw malformed('integer overflow');
  }
  number(): number {
    let value = 0;
    for (let factor = 1, i = 0; i < 4; i++, factor *= 128) {
      if (this.at >= this.end) throw malformed('unexpected EOF');
      const byte = this.bytes[this.at++]!;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
    this.at -= 4;
    return Number(BigInt.asIntN(64, this.varint()));
  }
  /** A part with a length in front. */
  part(): Reader {
    const length = this.number();
    const start = this.at;
    if (length < 0 || start + length > this.end) throw malformed('unexpected EOF');
    this.at = start + length;
    return new Reader(this.bytes, start, start + length);
  }
  double(): number {
    if (this.at + 8 > this.end) throw malformed('unexpected EOF');
    const value = this.bytes.readDoubleLE(this.at);
    this.at += 8;
    return value;
  }
  text(): string {
    return this.bytes.toString('utf8', this.at, this.end);
  }
  raw(): Buffer {
    return this.bytes.subarray(this.at, this.end);
  }
  skip(wire: number): void {
    if (wire === VARINT) this.varint();
    else if (wire === FIXED64) this.at += 8;
    else if (wire === BYTES) this.part();
    else if (wire === FIXED32) this.at += 4;
    else throw malformed(`illegal wireType ${wire}`);
    if (this.at > this.end) throw malformed('unexpected EOF');
  }
}

export function malformed(why: string): ApiError {
  return badRequest(`unable to decode protobuf: ${why}`);
}

/** Calls `visit` for each field; it reads the value or returns false to have it skipped. */
export function eachField(reader: Reader, visit: (number: number, wire: number) => boolean | undefined): void {
  while (reader.at < reader.end) {
    const tag = reader.number();
    if (visit(tag >>> 3, tag & 7) === false) reader.skip(tag & 7);
  }
}
