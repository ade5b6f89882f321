/** Ranges of addresses, written as a prefix (`192.0.2.0/24`) or by their ends (`192.0.2.10-192.0.2.20`), as numbers. Pure. */

import { formatAddress, networkOf, parsePrefix, tryParseAddress } from './address.ts';

export interface AddressRange {
  readonly family: 4 | 6;
  readonly first: bigint;
  readonly last: bigint;
}

/** Throws saying what is wrong with the text. */
export function parseAddressRange(text: string): AddressRange {
  const dash = text.indexOf('-');
  if (dash < 0) {
    const { address, length } = parsePrefix(text.trim());
    const first = numberOf(networkOf({ address, length }));
    return { family: familyOf(address), first, last: first + (1n << BigInt(address.length * 8 - length)) - 1n };
  }
  const [from, to] = [text.slice(0, dash).trim(), text.slice(dash + 1).trim()].map(tryParseAddress);
  if (!from || !to) throw new Error(`not a range of addresses: ${JSON.stringify(text)}`);
  if (from.length !== to.length) throw new Error(`its ends are of different families: ${JSON.stringify(text)}`);
  const [first, last] = [numberOf(from), numberOf(to)];
  if (first > last) throw new Error(`its end is before its start: ${JSON.stringify(text)}`);
  return { family: familyOf(from), first, last };
}

export function rangeHolds(range: AddressRange, address: string): boolean {
  const bytes = tryParseAddress(address);
  if (!bytes || familyOf(bytes) !== range.family) return false;
  const number = numberOf(bytes);
  return range.first <= number && number <= range.last;
}

export function rangesOverlap(one: AddressRange, other: AddressRange): boolean {
  return one.family === other.family && one.first <= other.last && other.first <= one.last;
}

export function sizeOf(range: AddressRange): bigint {
  return range.last - range.first + 1n;
}

/** The text of the address with this number. */
export function addressOf(family: 4 | 6, number: bigint): string {
  const hex = number.toString(16).padStart(family === 4 ? 8 : 32, '0');
  return formatAddress(Buffer.from(hex, 'hex'));
}

function numberOf(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
}

function familyOf(bytes: Uint8Array): 4 | 6 {
  return bytes.length === 4 ? 4 : 6;
}
