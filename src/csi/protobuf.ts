/**
 * Protocol buffers (proto3 wire format), as far as CSI needs them, from tables of fields. Invariants: unknown fields are skipped,
 * absent ones decode to their default (messages to undefined), and defaults are not written. 64-bit integers are numbers:
 * sizes beyond 2⁵³ bytes are refused.
 */

export interface Field<T> {
  readonly number: number;
  /** 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes. */
  readonly wire: 0 | 1 | 2 | 5;
  readonly isRepeated?: boolean;
  readonly empty: () => T;
  /** Appends the value's content, without its tag; undefined when it is the default. */
  readonly write: (value: T, out: Writer) => void;
  readonly read: (input: Reader, before: T) => T;
  readonly isEmpty: (value: T) => boolean;
}

export type Fields = Readonly<Record<string, Field<never>>>;
export type Message<F> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };
export interface Schema<F extends Fields = Fields> {
  readonly fields: F;
}
/** What `decode` gives; for `encode` any part of it. */
export type Decoded<S> = S extends Schema<infer F> ? Message<F> : never;

class Writer {
  readonly parts: Buffer[] = [];
  varint(value: number | bigint): void {
    let left = BigInt.asUintN(64, BigInt(value));
    const bytes: number[] = [];
    do {
      const low = Number(left & 127n);
      left >>= 7n;
      bytes.push(left > 0n ? low | 128 : low);
    } while (left > 0n);
    this.parts.push(Buffer.from(bytes));
  }
  bytes(content: Uint8Array): void {
    this.varint(content.length);
    this.parts.push(Buffer.from(content));
  }
  tag(number: number, wire: number): void {
    this.varint((number << 3) | wire);
  }
  raw(content: Buffer): void {
    this.parts.push(content);
  }
  get content(): Buffer {
    return Buffer.concat(this.parts);
  }
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }
  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }
  varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) throw new Error('protobuf: message ends inside a number');
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asUintN(64, value);
    }
    throw new Error('protobuf: number of more than ten bytes');
  }
  int(): number {
    const value = Number(BigInt.asIntN(64, this.varint()));
    if (!Number.isSafeInteger(value)) throw new Error(`protobuf: ${value} is too large a number`);
    return value;
  }
  bytes(): Buffer {
    const length = this.int();
    if (length < 0 || this.#at + length > this.#bytes.length) throw new Error('protobuf: message is cut off');
    const found = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    return found;
  }
  raw(length: number): Buffer {
    if (this.#at + length > this.#bytes.length) throw new Error('protobuf: message is cut off');
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
  skip(wire: number): void {
    if (wire === 0) this.varint();
    else if (wire === 1) this.#at += 8;
    else if (wire === 2) this.bytes();
    else if (wire === 5) this.#at += 4;
    else throw new Error(`protobuf: wire type ${wire}`);
  }
}

export const text = (number: number): Field<string> => ({
  number,
  wire: 2,
  empty: () => '',
  isEmpty: value => value === '',
  write: (value, out) => out.bytes(Buffer.from(value)),
  read: input => input.bytes().toString('utf8'),
});
/** int32, int64 and enums. */
export const integer = (number: number): Field<number> => ({
  number,
  wire: 0,
  empty: () => 0,
  isEmpty: value => value === 0,
  write: (value, out) => out.varint(value),
  read: input => input.int(),
});
/** A moment in nanoseconds, as milliseconds. */
export const moment = (number: number): Field<number> => ({
  ...integer(number),
  write: (value, out) => out.varint(BigInt(value) * 1_000_000n),
  read: input => Number(BigInt.asIntN(64, input.varint()) / 1_000_000n),
});
/** fixed64, as moments in nanoseconds are written. */
export const fixed64 = (number: number): Field<bigint> => ({
  number,
  wire: 1,
  empty: () => 0n,
  isEmpty: value => value === 0n,
  write: (value, out) => {
    const content = Buffer.allocUnsafe(8);
    content.writeBigUInt64LE(value);
    out.raw(content);
  },
  read: input => input.raw(8).readBigUInt64LE(),
});
export const fixed32 = (number: number): Field<number> => ({
  number,
  wire: 5,
  empty: () => 0,
  isEmpty: value => value === 0,
  write: (value, out) => {
    const content = Buffer.allocUnsafe(4);
    content.writeUInt32LE(value);
    out.raw(content);
  },
  read: input => input.raw(4).readUInt32LE(),
});
export const double = (number: number): Field<number> => ({
  number,
  wire: 1,
  empty: () => 0,
  isEmpty: value => value === 0,
  write: (value, out) => {
    const content = Buffer.allocUnsafe(8);
    content.writeDoubleLE(value);
    out.raw(content);
  },
  read: input => input.raw(8).readDoubleLE(),
});
/** One of several (`oneof`): written even where it is its type's default. */
export const chosen = <T>(field: Field<T>): Field<T | undefined> => ({
  number: field.number,
  wire: field.wire,
  empty: () => undefined,
  isEmpty: value => value === undefined,
  write: (value, out) => field.write(value as T, out),
  read: input => field.read(input, field.empty()),
});
export const bytes = (number: number): Field<Buffer> => ({
  number,
  wire: 2,
  empty: () => Buffer.alloc(0),
  isEmpty: value => value.length === 0,
  write: (value, out) => out.bytes(value),
  read: input => input.bytes(),
});
export const flag = (number: number): Field<boolean> => ({
  number,
  wire: 0,
  empty: () => false,
  isEmpty: value => !value,
  write: (value, out) => out.varint(value ? 1 : 0),
  read: input => input.varint() !== 0n,
});
export const textMap = (number: number): Field<Readonly<Record<string, string>>> => ({
  number,
  wire: 2,
  isRepeated: true,
  empty: () => ({}),
  isEmpty: value => Object.keys(value).length === 0,
  write: (value, out) => {
    Object.entries(value).forEach((entry, i) => {
      if (i > 0) out.tag(number, 2);
      const inner = new Writer();
      for (const [part, word] of entry.entries()) {
        inner.tag(part + 1, 2);
        inner.bytes(Buffer.from(word));
      }
      out.bytes(inner.content);
    });
  },
  read: (input, before) => {
    const { key, value } = decode(ENTRY, input.bytes());
    return { ...before, [key]: value };
  },
});
const ENTRY = { fields: { key: text(1), value: text(2) } };

type Part<F> = Partial<Message<F>>;

export const message = <F extends object>(
  number: number,
  schema: { readonly fields: F },
): Field<Part<F> | undefined> => ({
  number,
  wire: 2,
  empty: () => undefined,
  isEmpty: value => value === undefined,
  write: (value, out) => out.bytes(encode(schema as never, value as never)),
  read: input => decode(schema as never, input.bytes()) as Part<F>,
});
export const repeated = <T>(one: Field<T>): Field<readonly NonNullable<T>[]> => ({
  number: one.number,
  // Numbers not packed into one: every reader takes both forms.
  wire: one.wire,
  isRepeated: true,
  empty: () => [],
  isEmpty: value => value.length === 0,
  write: (value, out) =>
    value.forEach((item, i) => {
      if (i > 0) out.tag(one.number, one.wire);
      one.write(item, out);
    }),
  read: (input, before) => [...before, one.read(input, one.empty()) as NonNullable<T>],
});

export function schema<F extends object>(fields: F): { readonly fields: F } {
  return { fields };
}

export function encode<F extends object>({ fields }: { readonly fields: F }, value: Part<F>): Buffer {
  const out = new Writer();
  for (const [name, field] of Object.entries(fields) as [string, Field<unknown>][]) {
    const one = (value as Readonly<Record<string, unknown>>)[name];
    if (one === undefined || field.isEmpty(one)) continue;
    out.tag(field.number, field.wire);
    field.write(one, out);
  }
  return out.content;
}

export function decode<F extends object>({ fields }: { readonly fields: F }, bytes: Buffer): Message<F> {
  const all = Object.entries(fields) as [string, Field<unknown>][];
  const result: Record<string, unknown> = {};
  for (const [name, field] of all) result[name] = field.empty();
  const input = new Reader(bytes);
  while (!input.isAtEnd) {
    const tag = Number(input.varint());
    const found = all.find(([, field]) => field.number === tag >> 3);
    if (!found || found[1].wire !== (tag & 7)) input.skip(tag & 7);
    else result[found[0]] = found[1].read(input, result[found[0]]);
  }
  return result as Message<F>;
}
