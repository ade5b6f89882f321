/** Reverse names (RFC 1035 §3.5, RFC 3596 §2.5): which address one asks about, and which zones a range of addresses is. Pure. */

import { isIPv4 } from 'node:net';
import { formatAddress, networkOf, parseAddress, parsePrefix } from '../sys/address.ts';

/** One spelling for each IPv6 address. */
export function canonical(ip: string): string {
  return ip.includes(':') ? formatAddress(parseAddress(ip)) : ip;
}

/** The address that `10.0.96.10.in-addr.arpa` or its IPv6 counterpart asks for; undefined for other names. */
export function addressOfReverse(labels: readonly string[]): string | undefined {
  const [zone, root] = labels.slice(-2);
  if (root !== 'arpa') return undefined;
  const digits = labels.slice(0, -2).reverse();
  if (zone === 'in-addr' && digits.length === 4) {
    const ip = digits.join('.');
    return isIPv4(ip) ? ip : undefined;
  }
  if (zone === 'ip6' && digits.length === 32 && digits.every(digit => /^[0-9a-f]$/.test(digit))) {
    return canonical(digits.join('').match(/.{4}/g)!.join(':'));
  }
  return undefined;
}

/**
 * The reverse zones that make up an address range: one where its length falls on a border of labels, else one for each value
 * of the label that it cuts. Throws when the text is no range.
 */
export function reverseZones(cidr: string): string[] {
  const prefix = parsePrefix(cidr);
  const bytes = networkOf(prefix);
  const v4 = bytes.length === 4;
  const bits = v4 ? 8 : 4;
  const digits = v4 ? [...bytes] : [...bytes].flatMap(byte => [byte >> 4, byte & 15]);
  const whole = Math.ceil(prefix.length / bits);
  const count = 1 << (whole * bits - prefix.length);
  const show = (value: number) => (v4 ? String(value) : value.toString(16));
  const root = v4 ? 'in-addr.arpa' : 'ip6.arpa';
  return Array.from({ length: count }, (_, step) => {
    const own = digits.slice(0, whole);
    if (whole > 0) own[whole - 1]! += step;
    return [...own.reverse().map(show), root].join('.');
  });
}
