/**
 * HPACK in (RFC 7541): header blocks to names and values. Its table follows every block of the connection, so each block has
 * to be decoded, wanted or not. A list that is too large is decoded but not kept: small blocks can stand for very large ones.
 */

import { CODE, ConnectionError } from './frame.ts';
import { DynamicTable, fieldSize, type HeaderField, STATIC_FIELDS } from './header-table.ts';
import { decodeHuffman } from './huffman.ts';

/** The protocol's default, which we do not change. */
const TABLE_BYTES_MAX = 4096;

/** A string of that length, such as a token that a client never lets us index, is mostly the one of the last request. */
const REMEMBERED_BYTES_MIN = 128;

export interface HeaderList {
  readonly fields: readonly HeaderField[];
  readonly tooLarge: boolean;
}

export class HeaderDecoder {
  readonly #table = new DynamicTable(TABLE_BYTES_MAX);
  readonly #listBytesMax: number;
  #source: Buffer = Buffer.alloc(0);
  #at = 0;
  /** The last long string that was decoded, and its code. */
  #longCode: Buffer = Buffer.alloc(0);
  #long = '';

  constructor(listBytesMax: number) {
    this.#listBytesMax = listBytesMax;
  }

  /** Throws a compression error, after which the connection is of no use. */
  decode(block: Buffer): HeaderList {
    this.#source = block;
    this.#at = 0;
    const fields: HeaderField[] = [];
    let size = 0;
    while (this.#at < block.length) {
      const first = block[this.#at]!;
      let field: HeaderField;
      if (first & 0x80) field = this.#field(this.#integer(0x7f));
      else if ((first & 0xe0) === 0x20) {
        if (fields.length > 0) throw broken('the table is resized within a block');
        const tableBytes = this.#integer(0x1f);
        if (tableBytes > TABLE_BYTES_MAX) throw broken('the table becomes too large');
        this.#table.resize(tableBytes);
        continue;
      } else if (first & 0x40) this.#table.add((field = this.#literal(0x3f)));
      else field = this.#literal(0x0f);
      size += fieldSize(field);
      if (size <= this.#listBytesMax) fields.push(field);
    }
    return { fields, tooLarge: size > this.#listBytesMax };
  }

  #field(index: number): HeaderField {
    const field =
      index > STATIC_FIELDS.length ? this.#table.at(index - STATIC_FIELDS.length - 1) : STATIC_FIELDS[index - 1];
    if (!field) throw broken('no such entry in the tables');
    return field;
  }
  #literal(mask: number): HeaderField {
    const index = this.#integer(mask);
    const name = index === 0 ? this.#string() : this.#field(index).name;
    return { name, value: this.#string() };
  }
  /** The mask is that of the prefix in the first byte. */
  #integer(mask: number): number {
    const source = this.#source;
    let value = source[this.#at++]! & mask;
    if (value < mask) return value;
    for (let shift = 0; ; shift += 7) {
      if (this.#at >= source.length || shift > 21) throw broken('a number is cut off or too large');
      const byte = source[this.#at++]!;
      value += (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }
  #string(): string {
    const source = this.#source;
    if (this.#at >= source.length) throw broken('a string is missing');
    const isHuffman = source[this.#at]! >= 0x80;
    const length = this.#integer(0x7f);
    const start = this.#at;
    const end = start + length;
    if (end > source.length) throw broken('a string is cut off');
    this.#at = end;
    if (!isHuffman) return source.toString('latin1', start, end);
    if (length < REMEMBERED_BYTES_MIN) return decodeHuffman(source, { start, end });
    if (length !== this.#longCode.length || source.compare(this.#longCode, 0, length, start, end) !== 0) {
      this.#long = decodeHuffman(source, { start, end });
      this.#longCode = Buffer.from(source.subarray(start, end));
    }
    return this.#long;
  }
}

function broken(what: string): ConnectionError {
  return new ConnectionError(CODE.compression, `header block: ${what}`);
}
