/**
 * The nftables table `inet coxswain-policy`: its fixed part. Pure.
 *
 * Packet path, in prerouting, after Services have rewritten the destination and before the route is chosen:
 *   of a flow judged since the last change ─► marked, goes on. One lookup, however many policies there are.
 *   from a pod to its own node ─► as the cluster-scoped policies say: list of (sender, block of addresses), else the sender's own.
 *   Addresses that the node serves the cluster at (its DNS) are always open. Whatever else is for the node goes on unmarked.
 *   else its flow is judged by conntrack's view of it (who began it, who answers it), so a reply is judged as its request:
 *   egress: receiver → class; list of ports of (sender, class), else of (sender, block of addresses), else the sender's own;
 *   port in list ─► ingress: the same with the ends exchanged ─► allow: flow and packet are marked.
 * Only marked packets are routed from or to pods (`routing-guard.ts`): a table that is missing or broken closes, not opens.
 * An address of this node's range that is nobody's is closed too, and so is what a pod sends in another's name.
 */

export const POLICY_TABLE = 'coxswain-policy';
/** On packets that policies let pass. kube-proxy's bits are 0x4000 and 0x8000. */
export const PASSED_MARK = 0x0001_0000;

export const FAMILIES = [
  { number: 4, type: 'ipv4_addr', word: 'ip' },
  { number: 6, type: 'ipv6_addr', word: 'ip6' },
] as const;
const MARK = `meta mark set meta mark | ${PASSED_MARK}`;

const T = `inet ${POLICY_TABLE}`;
const LIST = '8000:0-ffff:fffe';

/** Sets, maps and chains that nothing hooks into yet; adds what is missing and replaces the rules of the chains. */
export function renderParts({
  bridge,
  podCidrs,
  served,
}: {
  readonly bridge: string;
  readonly podCidrs: readonly string[];
  /** Addresses of the node that are always open to its pods. */
  readonly served: readonly string[];
}): string {
  const lines = [`add table ${T} { comment "network policies, by Coxswain"; }`];
  for (const { number, type } of FAMILIES) {
    lines.push(`add map ${T} peers${number} { type ${type} : classid; }`);
    for (const direction of ['ingress', 'egress'])
      lines.push(`add map ${T} ${direction}-class${number} { type ${type} . classid : classid; }`);
    for (const what of ['ingress', 'egress', 'node'])
      lines.push(
        `add map ${T} ${what}-block${number} { type ${type} . ${type} : classid; flags interval; }`,
        `add map ${T} ${what}-default${number} { type ${type} : classid; }`,
      );
    lines.push(
      `add set ${T} selves${number} { type ${type} . ${type}; }`,
      `add set ${T} ranges${number} { type ${type}; flags interval; auto-merge; }`,
      `flush set ${T} ranges${number}`,
      `add set ${T} served${number} { type ${type}; }`,
      `flush set ${T} served${number}`,
    );
    for (const [set, all] of [
      ['ranges', podCidrs],
      ['served', served],
    ] as const) {
      const own = all.filter(one => one.includes(':') === (number === 6));
      if (own.length) lines.push(`add element ${T} ${set}${number} { ${own.join(', ')} }`);
    }
  }
  lines.push(
    `add set ${T} ports { type classid . inet_proto . inet_service; flags interval; }`,
    `add set ${T} epoch { type mark; }`,
    `add map ${T} now { type nf_proto : mark; }`,
  );
  const chains: Readonly<Record<string, readonly string[]>> = {
    allow: ['ct mark set meta nfproto map @now', MARK, 'meta priority set none', 'accept'],
    refuse: ['ct state established meta l4proto tcp reject with tcp reset', 'drop'],
    'egress-ports': portRules('ingress'),
    'ingress-ports': portRules('allow'),
    node: [
      ...FAMILIES.map(({ number, word }) => `ct reply ${word} saddr @served${number} accept`),
      ...FAMILIES.flatMap(family => judgeNode(family)),
      'goto allow',
    ],
    egress: [
      ...FAMILIES.map(
        ({ number, word }) => `ct original ${word} saddr . ct reply ${word} saddr @selves${number} goto allow`,
      ),
      ...FAMILIES.flatMap(family => judge('egress', family)),
      `iifname "${bridge}" ct direction original drop`,
      'goto ingress',
    ],
    ingress: [
      ...FAMILIES.flatMap(family => judge('ingress', family)),
      ...FAMILIES.map(({ number, word }) => `ct reply ${word} saddr @ranges${number} drop`),
      'goto allow',
    ],
  };
  for (const name of Object.keys(chains)) lines.push(`add chain ${T} ${name}`);
  for (const [name, rules] of Object.entries(chains))
    lines.push(`flush chain ${T} ${name}`, ...rules.map(rule => `add rule ${T} ${name} ${rule}`));
  return `${lines.join('\n')}\n`;
}

/** The chain that packets come to; last, when all that it leads to is there. */
export function renderHook(bridge: string): string {
  return [
    `add chain ${T} prerouting { type filter hook prerouting priority dstnat + 20; policy accept; }`,
    `flush chain ${T} prerouting`,
    `add rule ${T} prerouting ct state established,related ct mark @epoch ${MARK} accept`,
    `add rule ${T} prerouting iifname "${bridge}" fib daddr type local ct direction original goto node`,
    `add rule ${T} prerouting fib daddr type != unicast accept`,
    `add rule ${T} prerouting goto egress`,
    '',
  ].join('\n');
}

// A packet's priority is where a lookup's result waits to become part of the next lookup's key: first a class, then a list.
function judge(direction: 'ingress' | 'egress', { number, word }: (typeof FAMILIES)[number]): string[] {
  const [sender, receiver] = [`ct original ${word} saddr`, `ct reply ${word} saddr`];
  const [own, peer] = direction === 'egress' ? [sender, receiver] : [receiver, sender];
  return [
    'meta priority set none',
    `meta priority set ${peer} map @peers${number}`,
    `meta priority set ${own} . meta priority map @${direction}-class${number}`,
    `jump ${direction}-ports`,
    `meta priority set ${own} . ${peer} map @${direction}-block${number}`,
    `jump ${direction}-ports`,
    `meta priority set ${own} map @${direction}-default${number}`,
    `jump ${direction}-ports`,
  ];
}

function judgeNode({ number, word }: (typeof FAMILIES)[number]): string[] {
  const [sender, receiver] = [`ct original ${word} saddr`, `ct reply ${word} saddr`];
  return [
    'meta priority set none',
    `meta priority set ${sender} . ${receiver} map @node-block${number}`,
    'jump ingress-ports',
    `meta priority set ${sender} map @node-default${number}`,
    'jump ingress-ports',
  ];
}

// Comes back when no list was found.
function portRules(next: string): string[] {
  return [
    `ct direction original meta priority . meta l4proto . th dport @ports goto ${next}`,
    `ct direction reply meta priority . meta l4proto . th sport @ports goto ${next}`,
    `meta priority ${LIST} goto refuse`,
  ];
}
