/**
 * Hosts that mean the node itself, or what only it may reach: loopback, unspecified and link-local addresses (where clouds keep their
 * metadata and its secrets) and `localhost`. What a tenant writes may not lead a node's HAProxy there. It judges what is written; what
 * a name leads to is the kernel's to judge (`haproxy/reach-guard.ts`).
 */

import { BlockList, isIP } from 'node:net';

export const OWN_RANGES: readonly (readonly [address: string, bits: number])[] = [
  ['0.0.0.0', 8],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['::', 127],
  ['fe80::', 10],
  // Where a cloud's metadata answers by IPv6.
  ['fd00:ec2::', 32],
];
const OWN = new BlockList();
for (const [address, bits] of OWN_RANGES) OWN.addSubnet(address, bits, address.includes(':') ? 'ipv6' : 'ipv4');

/** `host` is a name or an address without brackets and port. */
export function isNodesOwn(host: string): boolean {
  const name = host.replace(/\.$/, '').toLowerCase();
  const version = isIP(name);
  if (version !== 0) return OWN.check(name, version === 6 ? 'ipv6' : 'ipv4');
  // No name of DNS ends in a number, but some libraries read one as an address: 127.1, 0x7f000001.
  return name === 'localhost' || name.endsWith('.localhost') || /(^|\.)(\d+|0x[0-9a-f]*)$/.test(name);
}
