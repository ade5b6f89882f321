/**
 * IP addresses, prefixes and link-layer addresses as bytes and back. Pure.
 * Text forms are RFC 5952 for IPv6 and dotted quads for IPv4; octets with leading zeros are refused, as the API does.
 */

/** IPv4 is 4 bytes, IPv6 16. Throws on anything else. */
export function parseAddress(text: string): Buffer {
  const bytes = tryParseAddress(text);
  if (!bytes) throw new Error(`not an IP address: ${JSON.stringify(text)}`);
  return bytes;
}

export function tryParseAddress(text: string): Buffer | undefined {
  return text.includes(':') ? parseIpv6(text) : parseIpv4(text);
}

function parseIpv4(text: string): Buffer | undefined {
  const bytes = Buffer.allocUnsafe(4);
  let at = 0;
  let value = -1;
  for (let i = 0; i <= text.length; i++) {
    const code = i === text.length ? 46 : text.charCodeAt(i);
    if (code === 46) {
      if (value < 0 || value > 255 || at > 3) return undefined;
      bytes[at++] = value;
      value = -1;
    } else if (code >= 48 && code <= 57 && value !== 0) value = (value < 0 ? 0 : value * 10) + code - 48;
    else return undefined;
  }
  return at === 4 ? bytes : undefined;
}

function parseIpv6(text: string): Buffer | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const groups = halves.map(half => (half === '' ? [] : half.split(':')));
  const last = groups.at(-1)!.at(-1);
  if (last?.includes('.')) {
    const quad = parseIpv4(last);
    if (!quad) return undefined;
    groups.at(-1)!.splice(-1, 1, quad.readUInt16BE(0).toString(16), quad.readUInt16BE(2).toString(16));
  }
  const [head, tail] = [groups[0]!, groups[1] ?? []];
  const gap = 8 - head.length - tail.length;
  if (halves.length === 2 ? gap < 1 : gap !== 0) return undefined;
  const all = [...head, ...new Array<string>(gap).fill('0'), ...tail];
  const bytes = Buffer.alloc(16);
  for (let i = 0; i < 8; i++) {
    if (!/^[0-9a-f]{1,4}$/i.test(all[i]!)) return undefined;
    bytes.writeUInt16BE(Number.parseInt(all[i]!, 16), i * 2);
  }
  return bytes;
}

export function formatAddress(bytes: Uint8Array): string {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`;
  const groups = Array.from({ length: 8 }, (_, i) => (bytes[i * 2]! << 8) | bytes[i * 2 + 1]!);
  let best = { start: -1, length: 1 };
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > best.length) best = { start: i, length: end - i };
  }
  const text = (part: number[]) => part.map(group => group.toString(16)).join(':');
  if (best.start < 0) return text(groups);
  return `${text(groups.slice(0, best.start))}::${text(groups.slice(best.start + best.length))}`;
}

export interface Prefix {
  readonly address: Buffer;
  readonly length: number;
}

/** `10.244.1.0/24`; host bits are kept as given. Throws on anything else. */
export function parsePrefix(text: string): Prefix {
  const slash = text.lastIndexOf('/');
  const address = tryParseAddress(text.slice(0, slash < 0 ? text.length : slash));
  const length = slash < 0 ? Number.NaN : Number(text.slice(slash + 1));
  if (!address || !Number.isInteger(length) || length < 0 || length > address.length * 8) {
    throw new Error(`not an address prefix: ${JSON.stringify(text)}`);
  }
  return { address, length };
}

/** The prefix's address with its host bits zeroed. */
export function networkOf({ address, length }: Prefix): Buffer {
  const out = Buffer.from(address);
  for (let i = 0; i < out.length; i++) {
    const bits = Math.min(8, Math.max(0, length - i * 8));
    out[i] = out[i]! & (0xff00 >> bits);
  }
  return out;
}

export function prefixContains(prefix: Prefix, address: Uint8Array): boolean {
  if (address.length !== prefix.address.length) return false;
  return networkOf({ address: Buffer.from(address), length: prefix.length }).equals(networkOf(prefix));
}

/** The address `offset` places after `base`; carries, and wraps at the end of the family. */
export function addressAfter(base: Uint8Array, offset: number): Buffer {
  const out = Buffer.from(base);
  let carry = offset;
  for (let i = out.length - 1; i >= 0 && carry > 0; i--) {
    carry += out[i]!;
    out[i] = carry % 256;
    carry = Math.floor(carry / 256);
  }
  return out;
}

export function parseMac(text: string): Buffer {
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text)) throw new Error(`not a MAC address: ${JSON.stringify(text)}`);
  return Buffer.from(text.replaceAll(':', ''), 'hex');
}

export function formatMac(bytes: Uint8Array): string {
  return Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join(':');
}
