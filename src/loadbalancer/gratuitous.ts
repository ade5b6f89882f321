/** Frames that tell a segment where an address is now: gratuitous ARP (RFC 5227) and unsolicited neighbour advertisements (RFC 4861). */

import { parseAddress, parseMac } from '../sys/address.ts';

const BROADCAST = 'ff:ff:ff:ff:ff:ff';
/** ff02::1, all nodes, and the MAC that its packets go to. */
const ALL_NODES = 'ff02::1';
const ALL_NODES_MAC = '33:33:00:00:00:01';
const [ETHERTYPE_ARP, ETHERTYPE_IPV6] = [0x0806, 0x86dd];
const [ARP_REQUEST, ARP_REPLY] = [1, 2];
const IPPROTO_ICMPV6 = 58;
const ND_NEIGHBOR_ADVERT = 136;
const ND_NA_FLAG_OVERRIDE = 0x20;
const ND_OPT_TARGET_LINKADDR = 2;

/** Ethernet frames to send, in this order: some hosts listen to requests only, some to replies only. */
export function gratuitousFrames(address: string, mac: string): Buffer[] {
  return address.includes(':')
    ? [neighbourAdvertisement(address, mac)]
    : [arp(ARP_REQUEST, address, mac), arp(ARP_REPLY, address, mac)];
}

function ethernet(options: { to: string; from: string; type: number }, payload: Buffer): Buffer {
  const type = Buffer.alloc(2);
  type.writeUInt16BE(options.type);
  return Buffer.concat([parseMac(options.to), parseMac(options.from), type, payload]);
}

function arp(operation: number, address: string, mac: string): Buffer {
  const ip = parseAddress(address);
  const header = Buffer.alloc(8);
  header.writeUInt16BE(1, 0);
  header.writeUInt16BE(0x0800, 2);
  header.writeUInt8(6, 4);
  header.writeUInt8(4, 5);
  header.writeUInt16BE(operation, 6);
  return ethernet(
    { to: BROADCAST, from: mac, type: ETHERTYPE_ARP },
    Buffer.concat([header, parseMac(mac), ip, parseMac(BROADCAST), ip]),
  );
}

function neighbourAdvertisement(address: string, mac: string): Buffer {
  const target = parseAddress(address);
  const to = parseAddress(ALL_NODES);
  const icmp = Buffer.alloc(32);
  icmp.writeUInt8(ND_NEIGHBOR_ADVERT, 0);
  icmp.writeUInt8(ND_NA_FLAG_OVERRIDE, 4);
  target.copy(icmp, 8);
  icmp.writeUInt8(ND_OPT_TARGET_LINKADDR, 24);
  icmp.writeUInt8(1, 25);
  parseMac(mac).copy(icmp, 26);
  const pseudo = Buffer.alloc(40);
  target.copy(pseudo, 0);
  to.copy(pseudo, 16);
  pseudo.writeUInt32BE(icmp.length, 32);
  pseudo.writeUInt8(IPPROTO_ICMPV6, 39);
  icmp.writeUInt16BE(checksum(Buffer.concat([pseudo, icmp])), 2);
  const header = Buffer.alloc(40);
  header.writeUInt8(0x60, 0);
  header.writeUInt16BE(icmp.length, 4);
  header.writeUInt8(IPPROTO_ICMPV6, 6);
  // Receivers drop a neighbour message whose hop limit is not 255: it came through a router.
  header.writeUInt8(255, 7);
  target.copy(header, 8);
  to.copy(header, 24);
  return ethernet({ to: ALL_NODES_MAC, from: mac, type: ETHERTYPE_IPV6 }, Buffer.concat([header, icmp]));
}

function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
