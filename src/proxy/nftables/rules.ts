/**
 * The nftables table's fixed part and its chains, as text. Pure.
 *
 * Packet path of a new connection (later packets follow conntrack and see none of this):
 *   prerouting or output (nat) ─► chain services: one lookup of (address, protocol, port) in map `services`, or of
 *   (protocol, port) in `node-ports` when the destination is the node ─► a chain for the number of endpoints K, which looks
 *   up (address, protocol, port, random index below K) in map `endpoints` and rewrites the destination ─► postrouting
 *   masquerades what was marked, and what a pod sent to itself.
 *   Not rewritten ─► filter: map `refused` rejects or drops where there is no endpoint.
 * So a Service is elements only, and the cost of a packet does not depend on how many there are. Chains exist per distinct
 * K, not per Service. Their names say all about them:
 *   c3 cluster IP, 3 endpoints · e3 external, masqueraded · p3 the choice itself · l3-1 external policy Local, 1 of 3 local · o1 the choice among those;
 *   prefix n: reached by node port; suffix a: with session affinity.
 */

import {
  type Expression,
  loadHash,
  loadPayload,
  loadProtocol,
  loadRandom,
  lookUp,
  rewriteDestination,
} from '../../sys/nft-expressions.ts';

/** The packet mark between choosing an endpoint and masquerading, kube-proxy's own bit. */
const MASQUERADE_MARK = '0x00004000';
/** Local endpoints have indexes from here in the endpoint maps, beside all endpoints from 0. */
export const LOCAL_INDEX = 65_536;
// nft can join the original port to a key only where the protocol is a constant: one rule for each.
const PROTOCOLS = ['tcp', 'udp', 'sctp'];
const AFFINITY_ENTRIES_MAX = 262_144;
export const TABLE = 'coxswain-proxy';
export const REJECT_CHAIN = 'reject-it';

export interface Family {
  readonly number: 4 | 6;
  /** nft's word for the family. */
  readonly word: 'ip' | 'ip6';
  readonly addressType: 'ipv4_addr' | 'ipv6_addr';
}

export const FAMILIES = {
  4: { number: 4, word: 'ip', addressType: 'ipv4_addr' },
  6: { number: 6, word: 'ip6', addressType: 'ipv6_addr' },
} as const satisfies Record<number, Family>;

export interface StaticOptions {
  readonly family: Family;
  readonly nodeIps: readonly string[];
  readonly clusterCidrs: readonly string[];
}

/** Names of all sets and maps whose elements are Services'. */
export const ELEMENT_SETS = [
  'cluster-ips',
  'endpoints',
  'hairpins',
  'node-port-endpoints',
  'node-ports',
  'refused',
  'refused-node-ports',
  'remembered',
  'remembered-node-ports',
  'restricted',
  'services',
] as const;

/** Adds table, sets and base chains where missing and replaces the base chains' rules; elements stay. */
export function renderStatic({ family, nodeIps, clusterCidrs }: StaticOptions): string {
  const { word, addressType } = family;
  const t = `${word} ${TABLE}`;
  const service = `${word} daddr . meta l4proto . th dport`;
  const original = `ct original ${word} daddr . meta l4proto . ct original proto-dst`;
  const serviceType = `${addressType} . inet_proto . inet_service`;
  const toNode = `${word} daddr @node-ips meta l4proto . th dport`;
  const chains: [name: string, hook: string, rules: string[]][] = [
    [REJECT_CHAIN, '', ['meta l4proto tcp reject with tcp reset', 'reject']],
    ['choose', '', [`${service} vmap @services`, `${toNode} vmap @node-ports`]],
    [
      'refuse',
      '',
      [
        `${service} vmap @refused`,
        `${toNode} vmap @refused-node-ports`,
        `${word} daddr @cluster-ips goto ${REJECT_CHAIN}`,
      ],
    ],
    [
      'remember',
      '',
      PROTOCOLS.flatMap(protocol => [
        `meta l4proto ${protocol} ${original} vmap @remembered`,
        `meta l4proto ${protocol} ct original ${word} daddr @node-ips meta l4proto . ct original proto-dst vmap @remembered-node-ports`,
      ]),
    ],
    ['nat-prerouting', 'type nat hook prerouting priority dstnat; policy accept;', ['jump choose']],
    ['nat-output', 'type nat hook output priority -100; policy accept;', ['jump choose']],
    [
      'nat-postrouting',
      'type nat hook postrouting priority srcnat; policy accept;',
      [
        `meta mark & ${MASQUERADE_MARK} != 0 meta mark set meta mark ^ ${MASQUERADE_MARK} masquerade fully-random`,
        `ct status dnat ${word} saddr . ${word} daddr @hairpins masquerade fully-random`,
      ],
    ],
    [
      'restrict-prerouting',
      'type filter hook prerouting priority dstnat - 10; policy accept;',
      [`ct state new ${service} vmap @restricted`],
    ],
    [
      'remember-prerouting',
      'type filter hook prerouting priority dstnat + 10; policy accept;',
      ['ct state new ct status dnat jump remember'],
    ],
    [
      'remember-output',
      'type filter hook output priority -90; policy accept;',
      ['ct state new ct status dnat jump remember'],
    ],
    ['filter-input', 'type filter hook input priority filter - 10; policy accept;', ['ct state new jump refuse']],
    ['filter-forward', 'type filter hook forward priority filter - 10; policy accept;', ['ct state new jump refuse']],
    ['filter-output', 'type filter hook output priority filter - 10; policy accept;', ['ct state new jump refuse']],
  ];
  const lines = [
    `add table ${t} { comment "Services of Coxswain"; }`,
    `add set ${t} node-ips { type ${addressType}; }`,
    `flush set ${t} node-ips`,
    `add set ${t} cluster-cidrs { type ${addressType}; flags interval; auto-merge; }`,
    `flush set ${t} cluster-cidrs`,
    `add set ${t} cluster-ips { type ${addressType}; }`,
    `add set ${t} hairpins { type ${addressType} . ${addressType}; }`,
    `add map ${t} services { type ${serviceType} : verdict; }`,
    `add map ${t} refused { type ${serviceType} : verdict; }`,
    `add map ${t} restricted { type ${serviceType} : verdict; }`,
    `add map ${t} remembered { type ${serviceType} : verdict; }`,
    `add map ${t} node-ports { type inet_proto . inet_service : verdict; }`,
    `add map ${t} refused-node-ports { type inet_proto . inet_service : verdict; }`,
    `add map ${t} remembered-node-ports { type inet_proto . inet_service : verdict; }`,
    `add map ${t} endpoints { type ${serviceType} . mark : ${addressType} . inet_service; }`,
    `add map ${t} node-port-endpoints { type inet_proto . inet_service . mark : ${addressType} . inet_service; }`,
    `add map ${t} affinity { type ${addressType} . ${serviceType} : ${addressType} . inet_service; flags dynamic,timeout; timeout 3h; size ${AFFINITY_ENTRIES_MAX}; }`,
  ];
  const own = (items: readonly string[]) => items.filter(item => item.includes(':') === (family.number === 6));
  if (own(nodeIps).length > 0) lines.push(`add element ${t} node-ips { ${own(nodeIps).join(', ')} }`);
  if (own(clusterCidrs).length > 0) lines.push(`add element ${t} cluster-cidrs { ${own(clusterCidrs).join(', ')} }`);
  // Chains that rules jump to come first.
  for (const [name, hook] of chains)
    lines.push(`add chain ${t} ${name}${hook ? ` { ${hook} }` : ''}`, `flush chain ${t} ${name}`);
  for (const [name, , rules] of chains) for (const rule of rules) lines.push(`add rule ${t} ${name} ${rule}`);
  return `${lines.join('\n')}\n`;
}

/** A chain that Services' elements go to, with all that it needs: rules as text, or as expressions. */
export interface Chain {
  readonly name: string;
  readonly rules: readonly string[] | readonly (readonly Expression[])[];
  /** Chains that its rules go to. */
  readonly uses: readonly Chain[];
}

export interface TargetOptions {
  readonly family: Family;
  readonly kind: 'cluster' | 'external' | 'plain';
  readonly nodePort: boolean;
  readonly affinity: boolean;
  readonly endpoints: number;
  /** Whether pod ranges are known; without them nobody counts as outside the cluster. */
  readonly clusterCidrs: boolean;
}

/** Chooses among all endpoints. */
export function targetChain(options: TargetOptions): Chain {
  const { family, kind, endpoints, clusterCidrs } = options;
  const plain = choiceChain({ ...options, letter: 'p', modulus: endpoints, offset: 0 });
  if (kind === 'plain') return plain;
  const mark = `meta mark set meta mark | ${MASQUERADE_MARK}`;
  const rules: string[] = [];
  if (kind === 'external') rules.push(mark);
  else if (clusterCidrs) rules.push(`${family.word} saddr != @cluster-cidrs ${mark}`);
  rules.push(`goto ${plain.name}`);
  return {
    name: chainName({ ...options, letter: kind === 'external' ? 'e' : 'c', count: endpoints }),
    rules,
    uses: [plain],
  };
}

/** External traffic policy Local: outsiders get local endpoints and keep their address, pods and the node get all. */
export function localChain(options: Omit<TargetOptions, 'kind'> & { readonly localEndpoints: number }): Chain {
  const { family, endpoints, localEndpoints, clusterCidrs } = options;
  const plain = targetChain({ ...options, kind: 'plain' });
  const external = targetChain({ ...options, kind: 'external' });
  const local =
    localEndpoints > 0 ? [choiceChain({ ...options, letter: 'o', modulus: localEndpoints, offset: LOCAL_INDEX })] : [];
  const rules = [
    ...(clusterCidrs ? [`${family.word} saddr @cluster-cidrs goto ${plain.name}`] : []),
    `fib saddr type local goto ${external.name}`,
    ...local.map(({ name }) => `goto ${name}`),
  ];
  return {
    name: chainName({ ...options, letter: 'l', count: `${endpoints}-${localEndpoints}` }),
    rules,
    uses: [plain, external, ...local],
  };
}

function chainName(options: { letter: string; count: number | string; nodePort: boolean; affinity: boolean }): string {
  return `${options.nodePort ? 'n' : ''}${options.letter}${options.count}${options.affinity ? 'a' : ''}`;
}

// As `nft list` shows it: dnat to (daddr . l4proto . dport . numgen random mod K) map @endpoints, before it what a client
// is remembered to have. As expressions, because of libnftables 1.0.6: it takes a map of such a type for one of TCP only.
function choiceChain(options: {
  family: Family;
  nodePort: boolean;
  affinity: boolean;
  letter: string;
  modulus: number;
  offset: number;
}): Chain {
  const { family, nodePort, affinity, letter, modulus, offset } = options;
  const v4 = family.number === 4;
  const bytes = v4 ? 4 : 16;
  const words = bytes / 4;
  const source = (to: number) => loadPayload({ to, base: 'network', offset: v4 ? 12 : 8, bytes });
  const destination = (to: number) => loadPayload({ to, base: 'network', offset: v4 ? 16 : 24, bytes });
  const service = (to: number) => [
    loadProtocol(to),
    loadPayload({ to: to + 1, base: 'transport', offset: 2, bytes: 2 }),
  ];
  const rewrite = (map: string) => [
    lookUp({ map, from: 0, to: 0 }),
    rewriteDestination({ family: v4 ? 2 : 10, address: 0, port: words }),
  ];

  const rules: Expression[][] = [];
  if (affinity && remembers(family))
    rules.push([source(0), destination(words), ...service(2 * words), ...rewrite('affinity')]);
  const at = nodePort ? 0 : words;
  const index = at + 2;
  const choose =
    affinity && !remembers(family)
      ? [source(index + 1), loadHash({ to: index, from: index + 1, bytes, modulus, offset })]
      : [loadRandom({ to: index, modulus, offset })];
  rules.push([
    ...(nodePort ? [] : [destination(0)]),
    ...service(at),
    ...choose,
    ...rewrite(nodePort ? 'node-port-endpoints' : 'endpoints'),
  ]);
  return { name: chainName({ letter, count: modulus, nodePort, affinity }), rules, uses: [] };
}

/**
 * Whether affinity is remembered, or computed from the client's address alone. Remembering an IPv6 client needs more
 * registers than the kernel has: there a change of endpoints may move clients, as long as it lasts none do.
 */
export function remembers(family: Family): boolean {
  return family.number === 4;
}

/** Notes which endpoint a client got, each time anew, for so many seconds. */
export function rememberChain(family: Family, seconds: number): Chain {
  const { word } = family;
  const rules = PROTOCOLS.map(
    protocol =>
      `meta l4proto ${protocol} update @affinity { ${word} saddr . ct original ${word} daddr . meta l4proto . ct original proto-dst timeout ${seconds}s : ${word} daddr . th dport }`,
  );
  return { name: `remember-${seconds}`, rules, uses: [] };
}

/** Lets only these senders on. */
export function restrictChain(family: Family, ranges: readonly string[]): Chain {
  const sorted = [...new Set(ranges)].sort();
  return {
    name: `only-${hash(sorted.join())}`,
    rules: [`${family.word} saddr { ${sorted.join(', ')} } return`, 'drop'],
    uses: [],
  };
}

/** The chains and all that they use, what is used before its users, without those in `known`. */
export function withUsed(chains: Iterable<Chain>, known: ReadonlySet<string>): Chain[] {
  const found = new Map<string, Chain>();
  const visit = (chain: Chain) => {
    if (known.has(chain.name) || found.has(chain.name)) return;
    for (const used of chain.uses) visit(used);
    found.set(chain.name, chain);
  };
  for (const chain of chains) visit(chain);
  return [...found.values()];
}

/** Text that makes a chain, or replaces its rules. */
export function renderChain(family: Family, name: string, rules: readonly string[]): string {
  const t = `${family.word} ${TABLE}`;
  return [
    `add chain ${t} ${name}`,
    `flush chain ${t} ${name}`,
    ...rules.map(rule => `add rule ${t} ${name} ${rule}`),
    '',
  ].join('\n');
}

export function isText(rules: Chain['rules']): rules is readonly string[] {
  return typeof rules[0] === 'string';
}

// FNV-1a over UTF-16 units, 2 x 32 bits: a name, not a secret.
function hash(text: string): string {
  const round = (seed: number) => {
    let h = seed;
    for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
    return (h >>> 0).toString(16).padStart(8, '0');
  };
  return round(0x811c9dc5) + round(0x1b873593);
}
