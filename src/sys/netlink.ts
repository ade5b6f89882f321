/**
 * rtnetlink: links, addresses, routes, neighbours and bridge forwarding entries of one namespace.
 * Messages are plain values made by the functions here and sent by `RouteSocket`, several in one system call:
 * `routes.request([addLink({…}), setLink({…}), addAddress({…})])`. It refuses to know what they are for.
 */

import { formatAddress, formatMac, parseAddress, parseMac, parsePrefix } from './address.ts';
import { AF_INET, AF_INET6 } from './file-descriptor.ts';
import { SystemError } from './libc.ts';
import {
  attribute,
  attributeText,
  attributeU8,
  attributeU16BE,
  attributeU32,
  NETLINK_ROUTE,
  type NetlinkMessage,
  NetlinkSocket,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  nested,
  readAttributes,
  textOf,
} from './netlink-socket.ts';
import type { NetnsRef } from './netns.ts';

const [RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK] = [16, 17, 18];
const [RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR] = [20, 21, 22];
const [RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE] = [24, 25, 26];
const [RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH] = [28, 29, 30];
const AF_BRIDGE = 7;
const IFF_UP = 1;
const [IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO] = [1, 3, 4, 10, 18];
const [IFLA_NET_NS_FD, IFLA_IFALIAS, IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES] = [28, 20, 31, 32];
const [IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA] = [1, 2, 4, 5];
const VETH_INFO_PEER = 1;
const [IFLA_VXLAN_ID, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6] = [
  1, 3, 4, 7, 15, 17,
];
const [IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED] = [4, 33];
const [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_PROTO] = [1, 2, 4, 8, 11];
const IFA_F_NODAD = 0x02;
const IFA_F_NOPREFIXROUTE = 0x200;
const [RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE] = [1, 4, 5, 6, 7, 15];
const [NDA_DST, NDA_LLADDR] = [1, 2];
const NUD_PERMANENT = 0x80;
/** `state` of the neighbour entries made here. */
export const NEIGHBOUR_PERMANENT = NUD_PERMANENT;
const NTF_SELF = 0x02;
const RTNH_F_ONLINK = 4;
const [RT_TABLE_MAIN, RTPROT_STATIC] = [254, 4];
const [RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_HOST, RT_SCOPE_NOWHERE] = [0, 253, 254, 255];
export const ROUTE_TABLE_MAIN = RT_TABLE_MAIN;
/** `proto` of the addresses that the load balancer announces. */
export const ADDRESS_PROTOCOL_LOAD_BALANCER = 112;
/** `proto` of the routes that the pod network owns, so that it removes only its own. Unassigned in iproute2's rt_protos. */
export const ROUTE_PROTOCOL_COXSWAIN = 112;
/** `proto` of the routes to addresses of pods that are gone. */
export const ROUTE_PROTOCOL_GONE_PODS = 113;

export interface LinkSettings {
  readonly up?: boolean;
  /** Index of the bridge to join; 0 leaves it. */
  readonly master?: number;
  readonly mtu?: number;
  readonly mac?: string;
  /** Descriptor of the namespace that the link is (or goes) in. */
  readonly namespace?: number;
}

export type LinkKind =
  | { readonly kind: 'bridge' | 'dummy' }
  | { readonly kind: 'veth'; readonly peer: Omit<LinkSettings, 'up'> & { readonly name: string } }
  | {
      readonly kind: 'vxlan';
      readonly id: number;
      readonly port: number;
      readonly local: string;
      readonly link?: number;
      readonly learning: boolean;
    };

function linkHeader(options: { index?: number; up?: boolean; family?: number }): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt8(options.family ?? 0, 0);
  header.writeInt32LE(options.index ?? 0, 4);
  if (options.up !== undefined) {
    header.writeUInt32LE(options.up ? IFF_UP : 0, 8);
    header.writeUInt32LE(IFF_UP, 12);
  }
  return header;
}

function linkAttributes(settings: LinkSettings & { readonly name?: string; readonly alias?: string }): Buffer[] {
  const out: Buffer[] = [];
  if (settings.name !== undefined) out.push(attributeText(IFLA_IFNAME, settings.name));
  if (settings.master !== undefined) out.push(attributeU32(IFLA_MASTER, settings.master));
  if (settings.mtu !== undefined) out.push(attributeU32(IFLA_MTU, settings.mtu));
  if (settings.mac !== undefined) out.push(attribute(IFLA_ADDRESS, parseMac(settings.mac)));
  if (settings.namespace !== undefined) out.push(attributeU32(IFLA_NET_NS_FD, settings.namespace));
  if (settings.alias !== undefined) out.push(attributeText(IFLA_IFALIAS, settings.alias));
  return out;
}

/** Makes a link, set up as told, in one message; a veth's peer too, which stays down (the kernel refuses). EEXIST when the name is taken. */
export function addLink(options: LinkSettings & LinkKind & { readonly name: string }): NetlinkMessage {
  const info = [attributeText(IFLA_INFO_KIND, options.kind)];
  const attributes = linkAttributes(options);
  if (options.kind === 'veth') {
    // One queue instead of one a CPU: less memory and quicker to make.
    const queues = [attributeU32(IFLA_NUM_TX_QUEUES, 1), attributeU32(IFLA_NUM_RX_QUEUES, 1)];
    attributes.push(...queues);
    const peer = Buffer.concat([linkHeader({}), ...linkAttributes(options.peer), ...queues]);
    info.push(nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, peer)));
  } else if (options.kind === 'vxlan') {
    const local = parseAddress(options.local);
    info.push(
      nested(
        IFLA_INFO_DATA,
        attributeU32(IFLA_VXLAN_ID, options.id),
        attribute(local.length === 4 ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, local),
        attributeU16BE(IFLA_VXLAN_PORT, options.port),
        attributeU8(IFLA_VXLAN_LEARNING, options.learning ? 1 : 0),
        ...(options.link ? [attributeU32(IFLA_VXLAN_LINK, options.link)] : []),
      ),
    );
  }
  return {
    type: RTM_NEWLINK,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: Buffer.concat([linkHeader(options), ...attributes, nested(IFLA_LINKINFO, ...info)]),
    what: `add ${options.kind} ${options.name}`,
  };
}

/** Changes a link found by index, or by name when no index is given; `rename` needs the index and a link that is down. */
export function setLink(
  options: LinkSettings & {
    readonly index?: number;
    readonly name?: string;
    readonly alias?: string;
    readonly rename?: string;
  },
): NetlinkMessage {
  const name = options.index === undefined ? options.name : options.rename;
  const { name: _, ...settings } = options;
  return {
    type: RTM_NEWLINK,
    flags: 0,
    body: Buffer.concat([
      linkHeader(options),
      ...linkAttributes({ ...settings, ...(name === undefined ? {} : { name }) }),
    ]),
    what: `set link ${options.name ?? options.index}`,
  };
}

/** Lets a bridge send a frame back out of the port it came from: a pod that reaches itself through a Service. */
export function setHairpin(options: { readonly name: string; readonly on: boolean }): NetlinkMessage {
  return setPort('hairpin', IFLA_BRPORT_MODE, options);
}

/** Keeps a bridge from passing frames between this port and others so set; each still reaches the machine itself. */
export function setIsolated(options: { readonly name: string; readonly on: boolean }): NetlinkMessage {
  return setPort('isolated', IFLA_BRPORT_ISOLATED, options);
}

function setPort(what: string, attributeType: number, options: { name: string; on: boolean }): NetlinkMessage {
  return {
    type: RTM_NEWLINK,
    flags: 0,
    body: Buffer.concat([
      linkHeader({}),
      attributeText(IFLA_IFNAME, options.name),
      nested(
        IFLA_LINKINFO,
        attributeText(IFLA_INFO_SLAVE_KIND, 'bridge'),
        nested(IFLA_INFO_SLAVE_DATA, attributeU8(attributeType, options.on ? 1 : 0)),
      ),
    ]),
    what: `set ${what} ${options.name}`,
  };
}

/** Removes a link (a veth's peer goes with it). Idempotent. */
export function deleteLink(link: { readonly index: number } | { readonly name: string }): NetlinkMessage {
  const byName = 'name' in link;
  return {
    type: RTM_DELLINK,
    flags: 0,
    body: byName ? Buffer.concat([linkHeader({}), attributeText(IFLA_IFNAME, link.name)]) : linkHeader(link),
    what: `delete link ${byName ? link.name : link.index}`,
    ignore: ['ENODEV'],
  };
}

export interface AddressSettings {
  readonly index: number;
  /** With prefix length: `10.244.1.5/24`. */
  readonly prefix: string;
  /** False: the kernel adds no route for the prefix. Default true. */
  readonly connectedRoute?: boolean;
  /** Who made it, as for routes; kernels before 5.18 forget it. */
  readonly protocol?: number;
}

function addressBody(options: AddressSettings): Buffer {
  const { address, length } = parsePrefix(options.prefix);
  const v4 = address.length === 4;
  const header = Buffer.alloc(8);
  header.writeUInt8(v4 ? AF_INET : AF_INET6, 0);
  header.writeUInt8(length, 1);
  header.writeUInt8(v4 && address[0] === 127 ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE, 3);
  header.writeUInt32LE(options.index, 4);
  const flags = (v4 ? 0 : IFA_F_NODAD) | (options.connectedRoute === false ? IFA_F_NOPREFIXROUTE : 0);
  const attributes = [attribute(IFA_LOCAL, address), attribute(IFA_ADDRESS, address)];
  if (flags) attributes.push(attributeU32(IFA_FLAGS, flags));
  if (options.protocol !== undefined) attributes.push(attributeU8(IFA_PROTO, options.protocol));
  if (v4 && length < 31) {
    const broadcast = Buffer.alloc(4);
    broadcast.writeUInt32BE((address.readUInt32BE() | (2 ** (32 - length) - 1)) >>> 0);
    attributes.push(attribute(IFA_BROADCAST, broadcast));
  }
  return Buffer.concat([header, ...attributes]);
}

/** Idempotent. IPv6 addresses skip duplicate detection and are usable at once. */
export function addAddress(options: AddressSettings): NetlinkMessage {
  return {
    type: RTM_NEWADDR,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: addressBody(options),
    what: `add address ${options.prefix}`,
  };
}

/** Idempotent. */
export function deleteAddress(options: AddressSettings): NetlinkMessage {
  return {
    type: RTM_DELADDR,
    flags: 0,
    body: addressBody(options),
    what: `delete address ${options.prefix}`,
    ignore: ['EADDRNOTAVAIL', 'ENODEV'],
  };
}

export interface RouteSettings {
  /** `10.244.1.0/24`, or `default` (IPv4) or `::/0`. */
  readonly to: string;
  readonly via?: string;
  /** Index of the outgoing link. */
  readonly link?: number;
  /** The gateway is on the link although no prefix of it says so. */
  readonly onlink?: boolean;
  readonly source?: string;
  readonly table?: number;
  readonly protocol?: number;
  readonly metric?: number;
  readonly type?: 'unicast' | 'local' | 'blackhole' | 'unreachable';
}

const ROUTE_TYPES = { unicast: 1, local: 2, blackhole: 6, unreachable: 7 } as const;

function routeBody(options: RouteSettings): Buffer {
  const { address, length } = parsePrefix(options.to === 'default' ? '0.0.0.0/0' : options.to);
  const table = options.table ?? RT_TABLE_MAIN;
  const type = ROUTE_TYPES[options.type ?? 'unicast'];
  const header = Buffer.alloc(12);
  header.writeUInt8(address.length === 4 ? AF_INET : AF_INET6, 0);
  header.writeUInt8(length, 1);
  header.writeUInt8(table < 256 ? table : 0, 4);
  header.writeUInt8(options.protocol ?? RTPROT_STATIC, 5);
  header.writeUInt8(
    options.type === 'local'
      ? RT_SCOPE_HOST
      : options.via || type >= ROUTE_TYPES.blackhole
        ? RT_SCOPE_UNIVERSE
        : RT_SCOPE_LINK,
    6,
  );
  header.writeUInt8(type, 7);
  if (options.onlink) header.writeUInt32LE(RTNH_F_ONLINK, 8);
  const attributes: Buffer[] = [];
  if (length > 0) attributes.push(attribute(RTA_DST, address));
  if (options.via) attributes.push(attribute(RTA_GATEWAY, parseAddress(options.via)));
  if (options.link) attributes.push(attributeU32(RTA_OIF, options.link));
  if (options.source) attributes.push(attribute(RTA_PREFSRC, parseAddress(options.source)));
  if (options.metric) attributes.push(attributeU32(RTA_PRIORITY, options.metric));
  if (table >= 256) attributes.push(attributeU32(RTA_TABLE, table));
  return Buffer.concat([header, ...attributes]);
}

/** The default route's destination in the family of an address or prefix. */
export function defaultRoute(address: string): string {
  return address.includes(':') ? '::/0' : 'default';
}

/** Adds the route, or replaces the one to the same destination. */
export function addRoute(options: RouteSettings): NetlinkMessage {
  return {
    type: RTM_NEWROUTE,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: routeBody(options),
    what: `add route ${options.to}`,
  };
}

/** Removes the route to the destination, of any scope. Idempotent. */
export function deleteRoute(options: RouteSettings): NetlinkMessage {
  const body = routeBody(options);
  body.writeUInt8(RT_SCOPE_NOWHERE, 6);
  return { type: RTM_DELROUTE, flags: 0, body, what: `delete route ${options.to}`, ignore: ['ESRCH', 'ENODEV'] };
}

export interface NeighbourSettings {
  readonly index: number;
  readonly address: string;
  readonly mac: string;
}

function neighbourBody(options: {
  family: number;
  index: number;
  state: number;
  flags: number;
  destination: Buffer;
  mac?: Buffer;
}): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt8(options.family, 0);
  header.writeInt32LE(options.index, 4);
  header.writeUInt16LE(options.state, 8);
  header.writeUInt8(options.flags, 10);
  return Buffer.concat([
    header,
    attribute(NDA_DST, options.destination),
    ...(options.mac ? [attribute(NDA_LLADDR, options.mac)] : []),
  ]);
}

/** A permanent neighbour entry; replaces one of the same address. */
export function addNeighbour(options: NeighbourSettings): NetlinkMessage {
  const destination = parseAddress(options.address);
  const family = destination.length === 4 ? AF_INET : AF_INET6;
  const body = neighbourBody({
    family,
    index: options.index,
    state: NUD_PERMANENT,
    flags: 0,
    destination,
    mac: parseMac(options.mac),
  });
  return { type: RTM_NEWNEIGH, flags: NLM_F_CREATE | NLM_F_REPLACE, body, what: `add neighbour ${options.address}` };
}

/** Idempotent. */
export function deleteNeighbour(options: Omit<NeighbourSettings, 'mac'>): NetlinkMessage {
  const destination = parseAddress(options.address);
  const family = destination.length === 4 ? AF_INET : AF_INET6;
  const body = neighbourBody({ family, index: options.index, state: 0, flags: 0, destination });
  return {
    type: RTM_DELNEIGH,
    flags: 0,
    body,
    what: `delete neighbour ${options.address}`,
    ignore: ['ENOENT', 'ENODEV'],
  };
}

/** A static forwarding entry of a vxlan link: frames to `mac` go to the node at `address`. Replaces one of the same MAC. */
export function addForwarding(options: NeighbourSettings): NetlinkMessage {
  const body = neighbourBody({
    family: AF_BRIDGE,
    index: options.index,
    state: NUD_PERMANENT,
    flags: NTF_SELF,
    destination: parseAddress(options.address),
    mac: parseMac(options.mac),
  });
  return { type: RTM_NEWNEIGH, flags: NLM_F_CREATE | NLM_F_REPLACE, body, what: `add forwarding ${options.mac}` };
}

/** Idempotent. */
export function deleteForwarding(options: NeighbourSettings): NetlinkMessage {
  const body = neighbourBody({
    family: AF_BRIDGE,
    index: options.index,
    state: NUD_PERMANENT,
    flags: NTF_SELF,
    destination: parseAddress(options.address),
    mac: parseMac(options.mac),
  });
  return { type: RTM_DELNEIGH, flags: 0, body, what: `delete forwarding ${options.mac}`, ignore: ['ENOENT', 'ENODEV'] };
}

export interface Link {
  readonly index: number;
  readonly name: string;
  readonly kind: string;
  readonly up: boolean;
  readonly mtu: number;
  readonly mac: string;
  /** 0 when it is in no bridge. */
  readonly master: number;
  readonly alias: string;
}

export interface Address {
  readonly index: number;
  readonly prefix: string;
  /** See {@link AddressSettings.protocol}; 0 when nobody said. */
  readonly protocol: number;
}

export interface Route {
  readonly to: string;
  readonly via: string | undefined;
  readonly link: number;
  readonly source: string | undefined;
  readonly table: number;
  readonly protocol: number;
  readonly type: number;
}

export interface Neighbour {
  readonly index: number;
  readonly address: string | undefined;
  readonly mac: string | undefined;
  readonly state: number;
}

function linkOf(body: Buffer): Link {
  const attributes = readAttributes(body, 16);
  const info = attributes.get(IFLA_LINKINFO);
  const mac = attributes.get(IFLA_ADDRESS);
  return {
    index: body.readInt32LE(4),
    name: textOf(attributes.get(IFLA_IFNAME)),
    kind: info ? textOf(readAttributes(info).get(IFLA_INFO_KIND)) : '',
    up: (body.readUInt32LE(8) & IFF_UP) !== 0,
    mtu: attributes.get(IFLA_MTU)?.readUInt32LE() ?? 0,
    mac: mac ? formatMac(mac) : '',
    master: attributes.get(IFLA_MASTER)?.readUInt32LE() ?? 0,
    alias: textOf(attributes.get(IFLA_IFALIAS)),
  };
}

/** One namespace's rtnetlink. Close it (or `using`) when done. */
export class RouteSocket {
  readonly #socket: NetlinkSocket;

  /** Of the calling thread's own namespace when none is given. */
  constructor(namespace?: NetnsRef) {
    this.#socket = new NetlinkSocket({ protocol: NETLINK_ROUTE, ...(namespace === undefined ? {} : { namespace }) });
  }
  close(): void {
    this.#socket.close();
  }
  [Symbol.dispose](): void {
    this.close();
  }

  /** Sends the messages in order; see {@link NetlinkSocket.request}. Throws SystemError saying which failed and why. */
  request(messages: readonly NetlinkMessage[]): void {
    this.#socket.request(messages);
  }

  /** One message on another thread; see {@link NetlinkSocket.requestDetached}. */
  requestDetached(message: NetlinkMessage): Promise<void> {
    return this.#socket.requestDetached(message);
  }

  links(): Link[] {
    return this.#socket
      .dump({ type: RTM_GETLINK, flags: 0, body: linkHeader({}), what: 'list links' })
      .map(reply => linkOf(reply.body));
  }
  link(name: string): Link | undefined {
    try {
      return linkOf(
        this.#socket.get({
          type: RTM_GETLINK,
          flags: 0,
          body: Buffer.concat([linkHeader({}), attributeText(IFLA_IFNAME, name)]),
          what: `get link ${name}`,
        }).body,
      );
    } catch (error) {
      if (error instanceof SystemError && error.code === 'ENODEV') return undefined;
      throw error;
    }
  }
  /** Index of a link that must exist. */
  linkIndex(name: string): number {
    const link = this.link(name);
    if (!link) throw new SystemError('netlink', 19, `get link ${name}`);
    return link.index;
  }
  addresses(): Address[] {
    return this.#socket
      .dump({ type: RTM_GETADDR, flags: 0, body: Buffer.alloc(8), what: 'list addresses' })
      .flatMap(({ body }) => {
        const attributes = readAttributes(body, 8);
        const address = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS);
        if (!address) return [];
        const prefix = `${formatAddress(address)}/${body[1]}`;
        return [{ index: body.readUInt32LE(4), prefix, protocol: attributes.get(IFA_PROTO)?.readUInt8() ?? 0 }];
      });
  }
  /** Of all tables, both families, unless one is asked for. */
  routes(filter: { table?: number; protocol?: number } = {}): Route[] {
    return this.#socket
      .dump({ type: RTM_GETROUTE, flags: 0, body: Buffer.alloc(12), what: 'list routes' })
      .map(({ body }): Route => {
        const attributes = readAttributes(body, 12);
        const text = (type: number) => {
          const bytes = attributes.get(type);
          return bytes && formatAddress(bytes);
        };
        return {
          to: `${text(RTA_DST) ?? (body[0] === AF_INET ? '0.0.0.0' : '::')}/${body[1]}`,
          via: text(RTA_GATEWAY),
          link: attributes.get(RTA_OIF)?.readUInt32LE() ?? 0,
          source: text(RTA_PREFSRC),
          table: attributes.get(RTA_TABLE)?.readUInt32LE() ?? body[4]!,
          protocol: body[5]!,
          type: body[7]!,
        };
      })
      .filter(
        route =>
          (filter.table === undefined || route.table === filter.table) &&
          (filter.protocol === undefined || route.protocol === filter.protocol),
      );
  }
  neighbours(): Neighbour[] {
    return this.#neighbours(0);
  }
  /** Forwarding entries of all bridges and vxlan links; `address` is the remote node's for vxlan. */
  forwarding(): Neighbour[] {
    return this.#neighbours(AF_BRIDGE);
  }
  #neighbours(family: number): Neighbour[] {
    const header = Buffer.alloc(12);
    header.writeUInt8(family, 0);
    return this.#socket
      .dump({ type: RTM_GETNEIGH, flags: 0, body: header, what: 'list neighbours' })
      .map(({ body }) => {
        const attributes = readAttributes(body, 12);
        const [address, mac] = [attributes.get(NDA_DST), attributes.get(NDA_LLADDR)];
        return {
          index: body.readInt32LE(4),
          address: address && formatAddress(address),
          mac: mac && formatMac(mac),
          state: body.readUInt16LE(8),
        };
      });
  }
}

/** Opens a socket for `work` only. */
export function withRoutes<T>(namespace: NetnsRef | undefined, work: (routes: RouteSocket) => T): T {
  const routes = new RouteSocket(namespace);
  try {
    return work(routes);
  } finally {
    routes.close();
  }
}

/** Brings `lo` of a namespace up. */
export function loopbackUp(namespace: NetnsRef): void {
  withRoutes(namespace, routes => routes.request([setLink({ index: 1, up: true })]));
}
