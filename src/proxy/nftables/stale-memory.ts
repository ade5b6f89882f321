/**
 * What the kernel remembers of earlier choices that no longer hold: UDP flows (conntrack keeps them as long as packets come)
 * and clients with session affinity. TCP and SCTP connections are left alone: they end by themselves, and an endpoint that
 * terminates gracefully finishes what it has. Pure.
 */

import { formatAddress } from '../../sys/address.ts';
import type { ConntrackEntry, Element } from '../../sys/nfnetlink.ts';
import type { Endpoint, Frontend } from '../model.ts';
import { AFFINITY_MAP } from './rules.ts';
import type { Change } from './table-state.ts';

/** Endpoints (`address port`) that may still be used, by what leads to them. */
export interface Stale {
  /** By `address port`, no address for a node port. */
  readonly udp: ReadonlyMap<string, ReadonlySet<string>>;
  /** By the map's name and what it has for the Service's port: `affinity TCP address port`. */
  readonly affinity: ReadonlyMap<string, ReadonlySet<string>>;
}

const PROTOCOL_NAMES: Readonly<Record<number, string>> = { 6: 'TCP', 17: 'UDP', 132: 'SCTP' };

/** What lost an endpoint, got its first one, or has an unknown past because there was no table before. */
export function staleAfter(changes: readonly Change[], family: 4 | 6): Stale {
  const udp = new Map<string, Set<string>>();
  const affinity = new Map<string, Set<string>>();
  for (const [memories, stale] of [
    [udpFlows, udp],
    [clientMemories, affinity],
  ] as const)
    for (const { before, after } of changes) {
      const old = memories(before?.frontends ?? [], family);
      const now = memories(after?.frontends ?? [], family);
      for (const key of new Set([...old.keys(), ...now.keys()])) {
        const [had, has = []] = [old.get(key), now.get(key)];
        if (!before || !had || lostAny(had, has)) stale.set(key, new Set(has.map(nameOf)));
      }
    }
  return { udp, affinity };
}

type Memories = Map<string, readonly Endpoint[]>;

function udpFlows(frontends: readonly Frontend[], family: 4 | 6): Memories {
  const found: Memories = new Map();
  for (const { protocol, address = '', port, endpoints, localEndpoints = [], ...frontend } of frontends)
    if (protocol === 'UDP' && frontend.family === family)
      found.set(`${address} ${port}`, [...endpoints, ...localEndpoints]);
  return found;
}

// All addresses of one port of a Service share a memory, and lists of endpoints.
function clientMemories(frontends: readonly Frontend[], family: 4 | 6): Memories {
  const found: Memories = new Map();
  for (const { protocol, affinity, endpoints, localEndpoints, ...frontend } of frontends) {
    if (!affinity || frontend.family !== family) continue;
    const key = `${protocol} ${affinity.address} ${affinity.port}`;
    found.set(`${AFFINITY_MAP[affinity.memory]} ${key}`, endpoints);
    if (localEndpoints) found.set(`${AFFINITY_MAP.local} ${key}`, localEndpoints);
  }
  return found;
}

const nameOf = ({ ip, port }: Endpoint) => `${ip} ${port}`;

// A flow begun while there was no endpoint leads to the Service's own address: it counts as having lost it.
function lostAny(had: readonly Endpoint[], allowed: readonly Endpoint[]): boolean {
  if (had.length === 0) return true;
  const still = new Set(allowed.map(nameOf));
  return had.some(endpoint => !still.has(nameOf(endpoint)));
}

export function staleFlows(
  flows: readonly ConntrackEntry[],
  { udp }: Stale,
  nodeIps: ReadonlySet<string>,
): ConntrackEntry[] {
  return flows.filter(({ destination, destinationPort, replySource, replySourcePort }) => {
    const address = formatAddress(destination);
    const allowed =
      udp.get(`${address} ${destinationPort}`) ?? (nodeIps.has(address) ? udp.get(` ${destinationPort}`) : undefined);
    return allowed !== undefined && !allowed.has(`${formatAddress(replySource)} ${replySourcePort}`);
  });
}

/** Of the elements of the affinity maps: (client, cluster IP, protocol, port) → (endpoint's address, port). */
export function staleClients(elements: readonly Element[], { affinity }: Stale): Element[] {
  return elements.filter(({ set, key, data }) => {
    if (!(data instanceof Uint8Array)) return false;
    const bytes = Buffer.from(key.buffer, key.byteOffset, key.byteLength);
    const size = (bytes.length - 8) / 2;
    const address = formatAddress(bytes.subarray(size, 2 * size));
    const protocol = PROTOCOL_NAMES[bytes[2 * size]!] ?? '';
    const allowed = affinity.get(`${set} ${protocol} ${address} ${bytes.readUInt16BE(2 * size + 4)}`);
    const endpoint = `${formatAddress(data.subarray(0, size))} ${Buffer.from(data).readUInt16BE(size)}`;
    return allowed !== undefined && !allowed.has(endpoint);
  });
}
