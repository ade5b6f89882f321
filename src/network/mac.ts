/** Link-layer addresses derived from IPs, as CNI derives them. */

import { formatMac, parseAddress } from '../sys/address.ts';

/**
 * The same IP always has the same MAC, so that neighbour caches stay right when a link is made anew. IPv6 addresses are
 * folded to four bytes: those that differ in one 32-bit word only (pods of one node, ranges of nodes) keep apart.
 */
export function macOf(ip: string): string {
  const bytes = parseAddress(ip);
  const folded = Buffer.alloc(4);
  for (const [at, byte] of bytes.entries()) folded[at % 4]! ^= byte;
  return formatMac(Buffer.concat([Buffer.from([0x0a, 0x58]), folded]));
}
