/**
 * The configuration of bird (version 2) that announces this node's addresses to its BGP peers. Pure. Invariant: everything
 * that comes from an object is a number, an address, a name made of letters, or a string without a quote; what is not is
 * refused with the field's name, so no object can say anything else to bird. bird's kernel tables are never touched: it has no
 * `kernel` protocol.
 */

import { createHash } from 'node:crypto';
import type { Node } from '../../api/core/v1.gen.ts';
import type { BFDProfile, BGPAdvertisement, BGPPeer, Community } from '../../api/loadbalancer/v1beta1.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import { messageOf } from '../../base/errors.ts';
import { formatAddress, networkOf, parseAddress } from '../../sys/address.ts';
import type { Announcement } from '../announcement.ts';

export interface BgpTable {
  /** Those that have advertisements by BGP. */
  readonly announcements: readonly Announcement[];
  readonly node: Node | undefined;
  readonly peers: readonly BGPPeer[];
  readonly communities: readonly Community[];
  readonly bfdProfiles: readonly BFDProfile[];
  /** The password that the peer's Secret holds; throws when there is none. */
  readonly passwordOf: (peer: BGPPeer) => string;
}

export interface BirdConfiguration {
  /** `undefined` when this node has no peer. */
  readonly text: string | undefined;
  /** Peers and advertisements that were left out, by object, with the reason. */
  readonly problems: ReadonlyMap<BGPPeer | BGPAdvertisement, string>;
}

const DEFAULT_PORT = 179;
const DEFAULT_HOLD_SECONDS = 90;
/** Refused by RFC 4271, section 4.2, except 0: no keepalives at all. */
const HOLD_SECONDS_MIN = 3;
const UNITS: Readonly<Record<string, number>> = { ms: 0.001, s: 1, m: 60, h: 3600 };

export function birdConfiguration(table: BgpTable, nodeAddress: string): BirdConfiguration {
  const problems = new Map<BGPPeer | BGPAdvertisement, string>();
  const peers = table.peers.filter(({ spec }) => {
    const matches = (spec.nodeSelectors ?? []).map(labelSelectorMatch);
    return matches.length === 0 || matches.some(match => match(table.node?.metadata.labels));
  });
  const groups = routeGroups(table, peers, problems);
  const sessions: string[] = [];
  for (const peer of peers) {
    try {
      sessions.push(
        renderPeer(
          peer,
          [...groups.values()].filter(group => group.peers.has(peer.metadata.name)),
          table,
        ),
      );
    } catch (error) {
      problems.set(peer, messageOf(error));
    }
  }
  if (sessions.length === 0) return { text: undefined, problems };
  const routerId = peers.find(({ spec }) => spec.routerID)?.spec.routerID ?? routerIdOf(nodeAddress);
  return {
    text: [
      'log stderr all;',
      `router id ${formatAddress(parseAddress(routerId))};`,
      // What a neighbour kept of a session before is only given up once this much has passed.
      'graceful restart wait 30;',
      'protocol device { scan time 10; }',
      ...(sessions.some(session => session.includes('\n  bfd ')) ? ['protocol bfd {}'] : []),
      ...[...groups.values()].map(renderRoutes),
      ...sessions,
      '',
    ].join('\n'),
    problems,
  };
}

/** Prefixes that are announced alike: to the same peers, with the same attributes. */
interface RouteGroup {
  readonly name: string;
  readonly family: 4 | 6;
  readonly peers: ReadonlySet<string>;
  readonly attributes: string;
  readonly prefixes: string[];
}

interface RouteFacts {
  localPref: number | undefined;
  readonly communities: Set<string>;
}

function routeGroups(
  { announcements, communities }: BgpTable,
  peers: readonly BGPPeer[],
  problems: Map<BGPPeer | BGPAdvertisement, string>,
): Map<string, RouteGroup> {
  const aliases = new Map(
    communities.flatMap(({ spec }) => (spec?.communities ?? []).map(({ name, value }) => [name, value])),
  );
  // Several advertisements of one prefix to one peer are one route with the attributes of all.
  const routes = new Map<string, Map<string, RouteFacts>>();
  for (const { address, bgp } of announcements) {
    for (const advertisement of bgp) {
      const { localPref, communities: named = [], peers: chosen = [] } = advertisement.spec ?? {};
      let tags: string[];
      try {
        tags = named.map(name => communityOf(aliases.get(name) ?? name));
      } catch (error) {
        problems.set(advertisement, messageOf(error));
        continue;
      }
      const prefix = prefixOf(address, advertisement);
      const byPeer = routes.get(prefix) ?? new Map<string, RouteFacts>();
      routes.set(prefix, byPeer);
      for (const { metadata } of peers) {
        if (chosen.length > 0 && !chosen.includes(metadata.name)) continue;
        const facts = byPeer.get(metadata.name) ?? { localPref: undefined, communities: new Set<string>() };
        byPeer.set(metadata.name, facts);
        if (localPref !== undefined) facts.localPref = Math.max(localPref, facts.localPref ?? 0);
        for (const tag of tags) facts.communities.add(tag);
      }
    }
  }
  const groups = new Map<string, RouteGroup>();
  for (const [prefix, byPeer] of [...routes].sort()) {
    const family = prefix.includes(':') ? 6 : 4;
    const byAttributes = new Map<string, Set<string>>();
    for (const [peer, facts] of byPeer) {
      const attributes = renderAttributes(facts);
      byAttributes.set(attributes, (byAttributes.get(attributes) ?? new Set()).add(peer));
    }
    for (const [attributes, names] of byAttributes) {
      const key = `${family} ${[...names].sort().join(' ')} ${attributes}`;
      const name = `routes_${createHash('sha256').update(key).digest('hex').slice(0, 12)}`;
      const group = groups.get(key) ?? { name, family, peers: names, attributes, prefixes: [] };
      groups.set(key, group);
      group.prefixes.push(prefix);
    }
  }
  return groups;
}

function renderRoutes({ name, family, attributes, prefixes }: RouteGroup): string {
  // A table of its own: one prefix may be announced to two peers with different attributes, and of one table only the best goes out.
  const lines = prefixes.map(prefix => `  route ${prefix} blackhole${attributes ? ` { ${attributes} }` : ''};`);
  return `ipv${family} table t_${name};\nprotocol static ${name} {\n  ipv${family} { table t_${name}; };\n${lines.join('\n')}\n}`;
}

function renderAttributes({ localPref, communities }: RouteFacts): string {
  return [
    ...(localPref === undefined ? [] : [`bgp_local_pref = ${number(localPref, 'localPref')};`]),
    ...[...communities].sort().map(tag => `${tag};`),
  ].join(' ');
}

function renderPeer(peer: BGPPeer, groups: readonly RouteGroup[], table: BgpTable): string {
  const { spec } = peer;
  const address = ipAddress(spec.peerAddress, 'peerAddress');
  const name = protocolName(peer.metadata.name);
  const hold = spec.holdTime === undefined ? DEFAULT_HOLD_SECONDS : seconds(spec.holdTime, 'holdTime');
  if (hold !== 0 && hold < HOLD_SECONDS_MIN)
    throw new Error(`spec.holdTime: Invalid value: "${spec.holdTime}": must be 0s or at least ${HOLD_SECONDS_MIN}s`);
  const keepalive =
    spec.keepaliveTime === undefined ? Math.ceil(hold / 3) : Math.max(1, seconds(spec.keepaliveTime, 'keepaliveTime'));
  if (hold !== 0 && keepalive > hold)
    throw new Error(
      `spec.keepaliveTime: Invalid value: "${spec.keepaliveTime}": must not be longer than the hold time`,
    );
  if (spec.password && spec.passwordSecret)
    throw new Error('spec.passwordSecret: Invalid value: must not stand beside spec.password');
  const [password, field] = spec.passwordSecret
    ? [table.passwordOf(peer), 'passwordSecret']
    : [spec.password, 'password'];
  const source = spec.sourceAddress === undefined ? '' : ` ${ipAddress(spec.sourceAddress, 'sourceAddress')}`;
  const hub = `hub_${name}`;
  const lines = [
    `local${source} as ${number(spec.myASN, 'myASN')};`,
    `neighbor ${address} port ${number(spec.peerPort ?? DEFAULT_PORT, 'peerPort')} as ${number(spec.peerASN, 'peerASN')};`,
    ...(spec.ebgpMultiHop ? ['multihop;'] : []),
    `hold time ${hold};`,
    ...(hold === 0 ? [] : [`keepalive time ${keepalive};`]),
    `connect retry time ${spec.connectTime === undefined ? 5 : Math.max(1, seconds(spec.connectTime, 'connectTime'))};`,
    'connect delay time 1;',
    'error wait time 1, 30;',
    ...(password ? [`password "${quotable(password, field)}";`] : []),
    ...(spec.bfdProfile === undefined ? [] : [renderBfd(spec.bfdProfile, table.bfdProfiles)]),
    `graceful restart ${spec.enableGracefulRestart ? 'on' : 'aware'};`,
    ...[4, 6].map(family => `ipv${family} { table ${hub}${family}; import none; export all; next hop self; };`),
  ];
  const feeds = groups.map(
    group =>
      `protocol pipe feed_${name}_${group.name} {\n  table ${hub}${group.family};\n  peer table t_${group.name};\n  import all;\n  export none;\n}`,
  );
  return [
    `ipv4 table ${hub}4;`,
    `ipv6 table ${hub}6;`,
    ...feeds,
    `protocol bgp ${name} {\n${lines.map(line => `  ${line}`).join('\n')}\n}`,
  ].join('\n');
}

function renderBfd(name: string, profiles: readonly BFDProfile[]): string {
  const profile = profiles.find(({ metadata }) => metadata.name === name);
  if (!profile) throw new Error(`spec.bfdProfile: Not found: ${JSON.stringify(name)}: there is no such BFDProfile`);
  const { receiveInterval = 300, transmitInterval = 300, detectMultiplier = 3, passiveMode } = profile.spec ?? {};
  return [
    `bfd { min rx interval ${number(receiveInterval, 'receiveInterval')} ms;`,
    `min tx interval ${number(transmitInterval, 'transmitInterval')} ms;`,
    `multiplier ${number(detectMultiplier, 'detectMultiplier')};`,
    `passive ${passiveMode ? 'on' : 'off'}; };`,
  ].join(' ');
}

function prefixOf(address: string, { spec }: BGPAdvertisement): string {
  const bytes = parseAddress(address);
  const length = bytes.length === 4 ? (spec?.aggregationLength ?? 32) : (spec?.aggregationLengthV6 ?? 128);
  return `${formatAddress(networkOf({ address: bytes, length }))}/${length}`;
}

function communityOf(text: string): string {
  const parts = text.replace(/^large:/, '').split(':');
  const [count, max, set] = text.startsWith('large:')
    ? [3, 2 ** 32 - 1, 'bgp_large_community']
    : [2, 2 ** 16 - 1, 'bgp_community'];
  if (parts.length !== count || !parts.every(part => /^\d{1,10}$/.test(part) && Number(part) <= max))
    throw new Error(
      `spec.communities: Invalid value: "${text}": must be AS:VALUE, large:AS:VALUE:VALUE, or an alias of a Community`,
    );
  return `${set}.add((${parts.map(Number).join(',')}))`;
}

/** Names of Kubernetes objects may hold dots and dashes, bird's may not; the digest keeps two apart that then look alike. */
function protocolName(name: string): string {
  const digest = createHash('sha256').update(name).digest('hex').slice(0, 6);
  return `peer_${name.replace(/[^a-z0-9]/g, '_').slice(0, 40)}_${digest}`;
}

function ipAddress(text: string, field: string): string {
  try {
    return formatAddress(parseAddress(text));
  } catch {
    throw new Error(`spec.${field}: Invalid value: ${JSON.stringify(text)}: must be an IP address`);
  }
}

function number(value: unknown, field: string): number {
  if (!Number.isInteger(value) || (value as number) < 0 || (value as number) > 2 ** 32 - 1)
    throw new Error(`spec.${field}: Invalid value: ${JSON.stringify(value)}: must be a whole number`);
  return value as number;
}

function seconds(text: string, field: string): number {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)];
  if (parts.length === 0 || parts.map(([whole]) => whole).join('') !== text)
    throw new Error(`spec.${field}: Invalid value: ${JSON.stringify(text)}: must be a duration, such as 90s or 1m30s`);
  return Math.ceil(parts.reduce((sum, [, amount, unit]) => sum + Number(amount) * UNITS[unit!]!, 0));
}

function quotable(text: string, field: string): string {
  if (!/^[\x20\x21\x23-\x7e]*$/.test(text))
    throw new Error(`spec.${field}: Invalid value: must be printable ASCII without quotes`);
  return text;
}

/** An IPv6-only node has no 32-bit number: one is made of its address. */
function routerIdOf(address: string): string {
  const bytes = parseAddress(address);
  if (bytes.length === 4) return address;
  return formatAddress(createHash('sha256').update(bytes).digest().subarray(0, 4));
}
