/**
 * The chains that Services' elements go to, one for each shape and not for each Service. Pure. Their names say all:
 *   c3 cluster IP, 3 endpoints · e3 external, masqueraded · p3 as it is · l3-1 external policy Local, 1 of 3 local · o1 the choice among those;
 *   prefix n: reached by node port; suffix a: with session affinity. remember-60: clients are remembered for 60 seconds.
 *   only-…: who may use a load balancer's address.
 * As `nft list` shows a choice: dnat to (daddr . l4proto . dport . numgen random mod K) map @endpoints. They are made as
 * expressions because libnftables 1.0.6 takes maps of such types for ones of TCP only, and has too few registers for IPv6.
 */

import { networkOf, parsePrefix } from '../../sys/address.ts';
import type { RawChain } from '../../sys/nfnetlink.ts';
import {
  type Expression,
  end,
  equals,
  isIn,
  loadOriginal,
  loadPayload,
  loadProtocol,
  loadRandom,
  lookUp,
  lookUpVerdict,
  remember,
  rewriteDestination,
  senderIsLocal,
  toChain,
} from '../../sys/nft-expressions.ts';
import { type Family, MARK_CHAIN, REMEMBER_CHAIN } from './rules.ts';

/** Local endpoints have indexes from here in the endpoint maps, beside all endpoints from 0. */
export const LOCAL_INDEX = 65_536;

export interface Chain extends RawChain {
  /** Chains that its rules go to. */
  readonly uses: readonly Chain[];
}

export interface Shape {
  readonly family: Family;
  readonly nodePort: boolean;
  readonly affinity: boolean;
  readonly endpoints: number;
  /** Whether pod ranges are known; without them nobody counts as outside the cluster. */
  readonly clusterCidrs: boolean;
}

// The same few shapes are asked for by thousands of Services.
const MADE_MAX = 1024;
const made = new Map<string, Chain>();

function once(shape: Shape, name: string, make: () => Omit<Chain, 'name'>): Chain {
  const key = `${shape.family.number} ${shape.clusterCidrs} ${name}`;
  let chain = made.get(key);
  if (!chain) {
    if (made.size >= MADE_MAX) made.clear();
    made.set(key, (chain = { name, ...make() }));
  }
  return chain;
}

function nameOf({ nodePort, affinity }: Shape, letter: string, count: number | string): string {
  return `${nodePort ? 'n' : ''}${letter}${count}${affinity ? 'a' : ''}`;
}

// Registers are words of four bytes; an address fills one or four of them.
function wordsOf(family: Family): number {
  return family.number === 4 ? 1 : 4;
}

function loadSource(family: Family, to: number): Expression {
  const v4 = family.number === 4;
  return loadPayload({ to, base: 'network', offset: v4 ? 12 : 8, bytes: v4 ? 4 : 16 });
}

function loadDestination(family: Family, to: number): Expression {
  const v4 = family.number === 4;
  return loadPayload({ to, base: 'network', offset: v4 ? 16 : 24, bytes: v4 ? 4 : 16 });
}

function loadPort(to: number): Expression {
  return loadPayload({ to, base: 'transport', offset: 2, bytes: 2 });
}

// What identifies a frontend, from a register on: (address,) protocol, port.
function loadFrontend({ family, nodePort }: Shape, to: number): Expression[] {
  const at = nodePort ? to : to + wordsOf(family);
  return [...(nodePort ? [] : [loadDestination(family, to)]), loadProtocol(at), loadPort(at + 1)];
}

function choice(shape: Shape, options: { modulus: number; offset: number }): Expression[][] {
  const { family, nodePort, affinity } = shape;
  const words = wordsOf(family);
  const rewrite = (map: string) => [
    lookUp({ map, from: 0, to: 0 }),
    rewriteDestination({ family: family.number === 4 ? 2 : 10, address: 0, port: words }),
  ];
  const rules: Expression[][] = [];
  if (affinity)
    rules.push([
      loadSource(family, 0),
      loadDestination(family, words),
      loadProtocol(2 * words),
      loadPort(2 * words + 1),
      ...rewrite('affinity'),
    ]);
  const index = nodePort ? 2 : words + 2;
  rules.push([
    ...loadFrontend(shape, 0),
    loadRandom({ to: index, ...options }),
    ...rewrite(nodePort ? 'node-port-endpoints' : 'endpoints'),
  ]);
  return rules;
}

/** The choice among all endpoints, senders keep their address. */
function plainChain(shape: Shape): Chain {
  return once(shape, nameOf(shape, 'p', shape.endpoints), () => ({
    rules: choice(shape, { modulus: shape.endpoints, offset: 0 }),
    uses: [],
  }));
}

/** Among all endpoints; senders outside the pod ranges are masqueraded, so that answers come back this way. */
export function clusterChain(shape: Shape): Chain {
  return once(shape, nameOf(shape, 'c', shape.endpoints), () => {
    const outsiders = [
      loadSource(shape.family, 0),
      isIn({ set: 'cluster-cidrs', from: 0, absent: true }),
      toChain('jump', MARK_CHAIN),
    ];
    const { rules } = plainChain(shape);
    return { rules: shape.clusterCidrs ? [outsiders, ...rules] : rules, uses: [] };
  });
}

/** Among all endpoints; every sender is masqueraded. */
export function externalChain(shape: Shape): Chain {
  return once(shape, nameOf(shape, 'e', shape.endpoints), () => ({
    rules: [[toChain('jump', MARK_CHAIN)], ...plainChain(shape).rules],
    uses: [],
  }));
}

/** External traffic policy Local: outsiders get local endpoints and keep their address, pods and the node get all. */
export function localChain(shape: Shape, localEndpoints: number): Chain {
  return once(shape, nameOf(shape, 'l', `${shape.endpoints}-${localEndpoints}`), () => {
    const [plain, external] = [plainChain(shape), externalChain(shape)];
    const local: Chain[] =
      localEndpoints === 0
        ? []
        : [
            once(shape, nameOf(shape, 'o', localEndpoints), () => ({
              rules: choice(shape, { modulus: localEndpoints, offset: LOCAL_INDEX }),
              uses: [],
            })),
          ];
    const pods = [loadSource(shape.family, 0), isIn({ set: 'cluster-cidrs', from: 0 }), toChain('goto', plain.name)];
    return {
      rules: [
        ...(shape.clusterCidrs ? [pods] : []),
        [senderIsLocal(), toChain('goto', external.name)],
        ...local.map(({ name }) => [toChain('goto', name)]),
      ],
      uses: [plain, external, ...local],
    };
  });
}

/** Finds out whether clients of what a connection was first sent to are to be remembered, and for how long. */
export function rememberingChain(family: Family): RawChain {
  const words = wordsOf(family);
  return {
    name: REMEMBER_CHAIN,
    rules: [
      [
        loadOriginal({ to: 0, what: family.number }),
        loadProtocol(words),
        loadOriginal({ to: words + 1, what: 'port' }),
        lookUpVerdict({ map: 'remembered', from: 0 }),
      ],
      [
        loadOriginal({ to: 0, what: family.number }),
        isIn({ set: 'node-ips', from: 0 }),
        loadProtocol(0),
        loadOriginal({ to: 1, what: 'port' }),
        lookUpVerdict({ map: 'remembered-node-ports', from: 0 }),
      ],
    ],
  };
}

/** Notes which endpoint a client got, each time anew, for so many seconds. */
export function rememberChain(family: Family, seconds: number): Chain {
  const words = wordsOf(family);
  const endpoint = 2 * words + 2;
  return {
    name: `${REMEMBER_CHAIN}-${seconds}`,
    rules: [
      [
        loadSource(family, 0),
        loadOriginal({ to: words, what: family.number }),
        loadProtocol(2 * words),
        loadOriginal({ to: 2 * words + 1, what: 'port' }),
        loadDestination(family, endpoint),
        loadPort(endpoint + words),
        remember({ map: 'affinity', key: 0, data: endpoint, seconds }),
      ],
    ],
    uses: [],
  };
}

/** Lets only these senders on. */
export function restrictChain(family: Family, ranges: readonly string[]): Chain {
  const sorted = [...new Set(ranges)].sort();
  return {
    name: `only-${hash(sorted.join())}`,
    rules: [
      ...sorted.map(text => {
        const prefix = parsePrefix(text);
        const bytes = networkOf(prefix);
        const mask = networkOf({ address: Buffer.alloc(bytes.length, 255), length: prefix.length });
        return [loadSource(family, 0), equals({ from: 0, bytes, mask }), end('return')];
      }),
      [end('drop')],
    ],
    uses: [],
  };
}

/** The chains and all that they use, what is used before its users. */
export function withUsed(chains: Iterable<Chain>): Map<string, Chain> {
  const found = new Map<string, Chain>();
  const visit = (chain: Chain) => {
    if (found.has(chain.name)) return;
    for (const used of chain.uses) visit(used);
    found.set(chain.name, chain);
  };
  for (const chain of chains) visit(chain);
  return found;
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
