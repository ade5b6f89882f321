/**
 * The nftables table's fixed part, as text. Pure. `chains.ts` has the chains that Services' elements go to.
 *
 * Packet path of a new connection (later packets follow conntrack and see none of this):
 *   prerouting or output (nat) ─► chain choose: one lookup of (address, protocol, port) in map `services`, or of
 *   (protocol, port) in `node-ports` when the destination is the node ─► a chain for the number of endpoints K, which looks
 *   up (address, protocol, port, random index below K) in map `endpoints` and rewrites the destination ─► postrouting
 *   masquerades what was marked, and what a pod sent to itself.
 *   With session affinity the chain looks for (client, cluster IP, protocol, port) in map `affinity` before it chooses, and
 *   puts there what it chose. All addresses of a Service's port have one memory: `remembered-as` gives an address's cluster IP.
 *   Not rewritten ─► filter: map `refused` rejects or drops where there is no endpoint.
 * So a Service is elements only, and the cost of a packet does not depend on how many there are. It never sets
 * route_localnet: nothing from outside this node ever reaches what listens on its loopback.
 *
 * Priorities, for tables of others: senders that may not use an address are dropped before the destination is rewritten
 * (dstnat - 10), the rewriting is at dstnat (-100; output -100), what has no endpoint is refused at filter - 10. Whatever
 * hooks forward, input or output at filter (0) sees endpoints' addresses, and senders' own: they change in postrouting.
 */

/** The packet mark between choosing an endpoint and masquerading, kube-proxy's own bit. */
const MASQUERADE_MARK = '0x00004000';
const AFFINITY_ENTRIES_MAX = 262_144;
export const TABLE = 'coxswain-proxy';
export const REJECT_CHAIN = 'reject-it';
/** Marks for masquerading, then comes back. */
export const MARK_CHAIN = 'mark-it';

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
  /** Where node ports answer. */
  readonly nodeIps: readonly string[];
  readonly clusterCidrs: readonly string[];
}

/** Where clients are remembered, by `Affinity.memory`: whose choice is among all endpoints, and among this node's. */
export const AFFINITY_MAP = { all: 'affinity', local: 'affinity-local' } as const;
export const AFFINITY_MAPS = Object.values(AFFINITY_MAP);

/** Names of all sets and maps whose elements are Services'. */
export const ELEMENT_SETS = [
  'cluster-ips',
  'endpoints',
  'hairpins',
  'node-port-endpoints',
  'node-ports',
  'refused',
  'refused-node-ports',
  'remembered-as',
  'remembered-as-node-ports',
  'restricted',
  'services',
] as const;

/** Base chains and those that are there whatever Services there are. */
export const STATIC_CHAINS: ReadonlySet<string> = new Set([
  REJECT_CHAIN,
  MARK_CHAIN,
  'choose',
  'refuse',
  'nat-prerouting',
  'nat-output',
  'nat-postrouting',
  'restrict-prerouting',
  'restrict-output',
  'filter-input',
  'filter-forward',
  'filter-output',
]);

/** Adds table, sets and base chains where missing and replaces the base chains' rules; elements stay. */
export function renderStatic({ family, nodeIps, clusterCidrs }: StaticOptions): string {
  const { word, addressType } = family;
  const t = `${word} ${TABLE}`;
  const service = `${word} daddr . meta l4proto . th dport`;
  const serviceType = `${addressType} . inet_proto . inet_service`;
  const portType = 'inet_proto . inet_service';
  const endpointType = `${addressType} . inet_service`;
  const toNode = `${word} daddr @node-ips meta l4proto . th dport`;
  const chains: [name: string, hook: string, rules: string[]][] = [
    [REJECT_CHAIN, '', ['meta l4proto tcp reject with tcp reset', 'reject']],
    [MARK_CHAIN, '', [`meta mark set meta mark | ${MASQUERADE_MARK}`]],
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
      'restrict-output',
      'type filter hook output priority -110; policy accept;',
      [`ct state new ${service} vmap @restricted`],
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
    `add map ${t} remembered-as { type ${serviceType} : mark . ${serviceType}; }`,
    `add map ${t} node-ports { type ${portType} : verdict; }`,
    `add map ${t} refused-node-ports { type ${portType} : verdict; }`,
    `add map ${t} remembered-as-node-ports { type ${portType} : mark . ${serviceType}; }`,
    `add map ${t} endpoints { type ${serviceType} . mark : ${endpointType}; }`,
    `add map ${t} node-port-endpoints { type ${portType} . mark : ${endpointType}; }`,
    ...AFFINITY_MAPS.map(
      map =>
        `add map ${t} ${map} { type ${addressType} . ${serviceType} : ${endpointType}; flags dynamic,timeout; timeout 3h; size ${AFFINITY_ENTRIES_MAX}; }`,
    ),
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
