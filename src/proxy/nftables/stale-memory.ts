/**
 * What the kernel remembers of earlier choices that no longer hold: UDP flows (conntrack keeps them as long as packets come)
 * and clients with session affinity. TCP and SCTP connections are left alone: they end by themselves, and an endpoint that
 * terminates gracefully finishes what it has. Pure.
 */

import { formatAddress } from '../../sys/address.ts';
import type { ConntrackEntry, Element } from '../../sys/nfnetlink.ts';
import type { Endpoint, Frontend } from '../model.ts';
import type { Change } from './table-state.ts';

/** Endpoints (`address port`) that may still be used, by what leads to them (`address port`, no address for a node port). */
export interface Stale {
  readonly udp: ReadonlyMap<string, ReadonlySet<string>>;
  /** With the protocol before: `TCP address port`. */
  readonly affinity: ReadonlyMap<string, ReadonlySet<string>>;
}

const PROTOCOL_NAMES: Readonly<Record<number, string>> = { 6: 'TCP', 17: 'UDP', 132: 'SCTP' };

/** What lost an endpoint, got its first one, or has an unknown past because there was no table before. */
export function staleAfter(changes: readonly Change[], family: 4 | 6): Stale {
  const udp = new Map<string, Set<string>>();
  const affinity = new Map<string, Set<string>>();
  for (const { before, after } of changes) {
    const old = new Map(framed(before?.frontends, family));
    const now = new Map(framed(after?.frontends, family));
    for (const [key, frontend] of new Map([...old, ...now])) {
      const current = now.get(key);
      const allowed = current ? allEndpoints(current) : [];
      const former = old.get(key);
      const moved = former !== undefined && current !== undefined && lostLocal(former, current);
      if (before && former && !moved && !lostAny(allEndpoints(former), allowed)) continue;
      const at = `${frontend.address ?? ''} ${frontend.port}`;
      const kept = new Set(allowed.map(({ ip, port }) => `${ip} ${port}`));
      if (frontend.protocol === 'UDP') udp.set(at, kept);
      // Who of the clients is an outsider, and so may have local endpoints only, is not known here: all choose anew.
      if (frontend.affinitySeconds !== undefined) affinity.set(`${frontend.protocol} ${at}`, moved ? new Set() : kept);
    }
  }
  return { udp, affinity };
}

function framed(frontends: readonly Frontend[] | undefined, family: 4 | 6): [string, Frontend][] {
  return (frontends ?? [])
    .filter(frontend => frontend.family === family && isRemembered(frontend))
    .map(frontend => [`${frontend.address ?? ''} ${frontend.protocol} ${frontend.port}`, frontend]);
}

function isRemembered({ protocol, affinitySeconds }: Frontend): boolean {
  return protocol === 'UDP' || affinitySeconds !== undefined;
}

function allEndpoints({ endpoints, localEndpoints }: Frontend): readonly Endpoint[] {
  return localEndpoints ? [...endpoints, ...localEndpoints] : endpoints;
}

// A flow begun while there was no endpoint leads to the Service's own address: it counts as having lost it.
function lostAny(had: readonly Endpoint[], allowed: readonly Endpoint[]): boolean {
  if (had.length === 0) return true;
  const still = new Set(allowed.map(({ ip, port }) => `${ip} ${port}`));
  return had.some(({ ip, port }) => !still.has(`${ip} ${port}`));
}

function lostLocal(former: Frontend, current: Frontend): boolean {
  if (current.localEndpoints === undefined) return false;
  return former.localEndpoints === undefined || lostAny(former.localEndpoints, current.localEndpoints);
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

/** Of the elements of map `affinity`: (client, address, protocol, port) → (endpoint's address, port). */
export function staleClients(
  elements: readonly Element[],
  { affinity }: Stale,
  nodeIps: ReadonlySet<string>,
): Element[] {
  return elements.filter(({ key, data }) => {
    if (!(data instanceof Uint8Array)) return false;
    const bytes = Buffer.from(key.buffer, key.byteOffset, key.byteLength);
    const size = (bytes.length - 8) / 2;
    const address = formatAddress(bytes.subarray(size, 2 * size));
    const protocol = PROTOCOL_NAMES[bytes[2 * size]!] ?? '';
    const port = bytes.readUInt16BE(2 * size + 4);
    const allowed =
      affinity.get(`${protocol} ${address} ${port}`) ??
      (nodeIps.has(address) ? affinity.get(`${protocol}  ${port}`) : undefined);
    const endpoint = `${formatAddress(data.subarray(0, size))} ${Buffer.from(data).readUInt16BE(size)}`;
    return allowed !== undefined && !allowed.has(endpoint);
  });
}
