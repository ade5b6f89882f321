/**
 * HPACK out (RFC 7541): the headers of replies. It keeps no table of its own (each block says so where it has to), so that
 * blocks depend on nothing; a reply has few headers.
 */

import { systemClock } from '../../base/clock.ts';
import type { ReplyHeaders } from '../exchange.ts';
import { STATIC_NAMES } from './header-table.ts';

const INDEXED = 0x80;
const TABLE_OF_NOTHING = 0x20;
const STATUS_NAME = 8;
/** Statuses that the static table knows. */
const STATUSES: Readonly<Record<number, number>> = { 200: 8, 204: 9, 206: 10, 304: 11, 400: 12, 404: 13, 500: 14 };
/** Bytes that a string may take beside its own: prefix of name or length. */
const NUMBER_BYTES_MAX = 5;

let scratch = Buffer.allocUnsafeSlow(8192);

/** A view of the block, which the next call overwrites. `afterSettings`: the first block, or the peer may have changed its table. */
export function encodeHeaders(
  status: number,
  headers: ReplyHeaders,
  { afterSettings }: { afterSettings: boolean },
): Buffer {
  let at = 0;
  if (afterSettings) scratch[at++] = TABLE_OF_NOTHING;
  const known = STATUSES[status];
  if (known !== undefined) scratch[at++] = INDEXED | known;
  else {
    scratch[at++] = STATUS_NAME;
    at = writeString(at, String(status));
  }
  if (status >= 200 && headers['date'] === undefined) at = writeField(at, 'date', dateNow());
  for (const name in headers) {
    const value = headers[name]!;
    if (typeof value === 'string') at = writeField(at, name, value);
    else if (typeof value === 'number') at = writeField(at, name, String(value));
    else for (const one of value) at = writeField(at, name, one);
  }
  return scratch.subarray(0, at);
}

// Literals that nobody is to index.
function writeField(from: number, name: string, value: string): number {
  let at = reserve(from, name.length + value.length + 3 * NUMBER_BYTES_MAX);
  const index = STATIC_NAMES.get(name);
  if (index === undefined) {
    scratch[at++] = 0;
    at = writeString(at, name);
  } else if (index < 15) scratch[at++] = index;
  else {
    scratch[at++] = 15;
    scratch[at++] = index - 15;
  }
  return writeString(at, value);
}

function writeString(from: number, text: string): number {
  const { length } = text;
  let at = from;
  if (length < 127) {
    scratch[at++] = length;
    for (let i = 0; i < length; i++) scratch[at++] = text.charCodeAt(i);
    return at;
  }
  scratch[at++] = 127;
  let rest = length - 127;
  for (; rest > 127; rest >>>= 7) scratch[at++] = (rest & 127) | 128;
  scratch[at++] = rest;
  return at + scratch.write(text, at, 'latin1');
}

function reserve(at: number, more: number): number {
  if (at + more > scratch.length) {
    const larger = Buffer.allocUnsafeSlow(2 * (at + more));
    scratch.copy(larger, 0, 0, at);
    scratch = larger;
  }
  return at;
}

let dateSecond = -1;
let dateText = '';

function dateNow(): string {
  const ms = systemClock.now();
  const second = Math.floor(ms / 1000);
  if (second !== dateSecond) {
    dateSecond = second;
    dateText = new Date(ms).toUTCString();
  }
  return dateText;
}
