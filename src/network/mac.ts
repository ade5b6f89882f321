/** Link-layer addresses derived from IPs, as CNI derives them. */

import { formatMac, parseAddress } from '../sys/address.ts';

/** The same IP always has the same MAC, so that neighbour caches stay right when a link is made anew. */
export function macOf(ip: string): string {
  return formatMac(Buffer.concat([Buffer.from([0x0a, 0x58]), parseAddress(ip).subarray(-4)]));
}
