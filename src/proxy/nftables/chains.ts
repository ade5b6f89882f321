/**
 * The chains that Services' elements go to, one for each shape and not for each Service. Pure. Their names say all:
 *   c3 cluster IP, 3 endpoints · e3 external, masqueraded · p3 as it is · l3-1 external policy Local, 1 of 3 local · o1 the choice among those;
 *   prefix n: reached by node port; suffix -60s: clients are remembered for 60 seconds, -local: with this node's endpoints only.
 *   only-…: who may use a load balancer's address.
 * As `nft list` shows a choice: dnat to (daddr . l4proto . dport . numgen random mod K) map @endpoints. They are made as
 * expressions because libnftables 1.0.6 takes maps of such types for ones of TCP only, and has too few registers for IPv6.
 */

import { networkOf, parsePrefix } from '../../sys/address.ts';
import type { RawChain } from '../../sys/nfnetlink.ts';
import {
  copy,
  type Expression,
  end,
  equals,
  isIn,
  loadPayload,
  loadProtocol,
  loadRandom,
  lookUp,
  remember,
  rewriteDestination,
  senderIsLocal,
  toChain,
} from '../../sys/nft-expressions.ts';
import type { Affinity } from '../model.ts';
import { AFFINITY_MAP, type Family, MARK_CHAIN } from './rules.ts';

/** Local endpoints have indexes from here in the endpoint maps, beside all endpoints from 0. */
export const LOCAL_INDEX = 65_536;

export interface Chain extends RawChain {
  /** Chains that its rules go to. */
  readonly uses: readonly Chain[];
}

export interface Shape {
  readonly family: Family;
  readonly nodePort: boolean;
  readonly affinity: Pick<Affinity, 'seconds' | 'memory'> | undefined;
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
  const memory = affinity ? `-${affinity.seconds}s${affinity.memory === 'local' ? '-local' : ''}` : '';
  return `${nodePort ? 'n' : ''}${letter}${count}${memory}`;
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

/**
 * One of the endpoints. With affinity one is proposed to the memory, which takes it or keeps the client's former one for so many
 * seconds more; what it then has is used, and where it has no room any is.
 */
function choice(
  shape: Shape,
  { local, ...random }: { modulus: number; offset: number; local?: boolean },
): Expression[][] {
  const { family, nodePort, affinity } = shape;
  const words = wordsOf(family);
  const rewrite = rewriteDestination({ family: family.number === 4 ? 2 : 10, address: 0, port: words });
  const choose = (to: number) => [
    ...loadFrontend(shape, 0),
    loadRandom({ to: nodePort ? 2 : words + 2, ...random }),
    lookUp({ map: nodePort ? 'node-port-endpoints' : 'endpoints', from: 0, to }),
  ];
  if (!affinity) return [[...choose(0), rewrite]];
  const map = AFFINITY_MAP[local ? 'local' : affinity.memory];
  // nft 1.0.6 knows no length of what a map gave, and aborts when it is to show that as part of a key or an element. So registers
  // are loaded from the packet first, for nft to show, and what a map gave is put over them from a word before, which nft does not follow.
  const loadKey = [
    loadDestination(family, words),
    loadProtocol(2 * words),
    loadPort(2 * words + 1),
    nodePort
      ? lookUp({ map: 'remembered-as-node-ports', from: 2 * words, to: words - 1 })
      : lookUp({ map: 'remembered-as', from: words, to: words - 1 }),
    loadSource(family, 0),
  ];
  const proposed = 2 * words + 2;
  const propose = [
    // nft wants to know where each four registers that are copied begin; 0 it knows anyway.
    loadProtocol(4),
    ...choose(1),
    loadDestination(family, proposed),
    loadPort(proposed + words),
    copy({ from: 0, to: proposed - 1, words: words + 2 }),
  ];
  return [
    [...propose, ...loadKey, remember({ map, key: 0, data: proposed, seconds: affinity.seconds })],
    [...loadKey, lookUp({ map, from: 0, to: 0 }), rewrite],
    [...choose(0), rewrite],
  ];
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
              rules: choice(shape, { modulus: localEndpoints, offset: LOCAL_INDEX, local: true }),
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
