/** What one Service is in the table: elements of sets and maps, and the chains that they go to. Pure. */

import { parseAddress } from '../../sys/address.ts';
import type { Element, ElementData } from '../../sys/nfnetlink.ts';
import type { Endpoint, Frontend, Protocol, ServiceEntry } from '../model.ts';
import {
  type Chain,
  FAMILIES,
  type Family,
  LOCAL_INDEX,
  localChain,
  REJECT_CHAIN,
  rememberChain,
  remembers,
  restrictChain,
  targetChain,
} from './rules.ts';

export interface Rendered {
  readonly elements: readonly Element[];
  readonly chains: readonly Chain[];
}

export const PROTOCOL_NUMBERS: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };

/** A frontend's identity in the kernel, for telling who owns it. */
export function frontendKey({ address, protocol, port }: Frontend): string {
  return `${address ?? ''} ${protocol} ${port}`;
}

/** One family's part of the entry, without frontends that `skip` says are another's. */
export function render(
  entry: ServiceEntry,
  options: { family: Family; clusterCidrs: boolean; skip?: (frontend: Frontend) => boolean },
): Rendered {
  const { family, clusterCidrs, skip } = options;
  const elements: Element[] = [];
  const chains: Chain[] = [];
  const hairpins = new Set<string>();
  for (const frontend of entry.frontends) {
    if (frontend.family !== family.number || skip?.(frontend)) continue;
    renderFrontend(frontend, { family, clusterCidrs, elements, chains });
    for (const { ip, local } of frontend.endpoints) if (local) hairpins.add(ip);
  }
  for (const ip of hairpins) {
    const bytes = parseAddress(ip);
    elements.push({ set: 'hairpins', key: Buffer.concat([bytes, bytes]), data: undefined });
  }
  for (const ip of entry.clusterIps) {
    if (ip.includes(':') === (family.number === 6))
      elements.push({ set: 'cluster-ips', key: parseAddress(ip), data: undefined });
  }
  return { elements, chains };
}

function renderFrontend(
  frontend: Frontend,
  into: { family: Family; clusterCidrs: boolean; elements: Element[]; chains: Chain[] },
): void {
  const { family, clusterCidrs, elements, chains } = into;
  const { endpoints, localEndpoints } = frontend;
  const nodePort = frontend.address === undefined;
  const suffix = nodePort ? '-node-ports' : '';
  const key = serviceKey(frontend);
  const put = (set: string, data: ElementData) => elements.push({ set, key, data });
  const go = (set: string, chain: Chain) => {
    chains.push(chain);
    put(set, { goto: chain.name });
  };
  if ((localEndpoints ?? endpoints).length === 0)
    put(`refused${suffix}`, frontend.whenEmpty === 'reject' ? { goto: REJECT_CHAIN } : 'drop');
  if (frontend.sourceRanges && !nodePort) go('restricted', restrictChain(family, frontend.sourceRanges));
  if (endpoints.length === 0) return;

  const affinity = frontend.affinitySeconds !== undefined;
  const shape = { family, nodePort, affinity, endpoints: endpoints.length, clusterCidrs };
  const chain = localEndpoints
    ? localChain({ ...shape, localEndpoints: localEndpoints.length })
    : targetChain({ ...shape, kind: frontend.masquerade === 'always' ? 'external' : 'cluster' });
  go(nodePort ? 'node-ports' : 'services', chain);
  if (frontend.affinitySeconds !== undefined && remembers(family))
    go(`remembered${suffix}`, rememberChain(family, frontend.affinitySeconds));
  const set = nodePort ? 'node-port-endpoints' : 'endpoints';
  const list = (part: readonly Endpoint[], from: number) => {
    part.forEach((endpoint, i) => {
      elements.push({ set, key: withIndex(key, from + i), data: endpointData(endpoint) });
    });
  };
  list(endpoints, 0);
  if (localEndpoints) list(localEndpoints, LOCAL_INDEX);
}

// Components of a concatenation are padded to four bytes each: address, protocol (1), port (2, big-endian).
function serviceKey({ address, protocol, port }: Frontend): Buffer {
  const ip = address === undefined ? undefined : parseAddress(address);
  const at = ip?.length ?? 0;
  const out = Buffer.alloc(at + 8);
  if (ip) out.set(ip);
  out[at] = PROTOCOL_NUMBERS[protocol];
  out.writeUInt16BE(port, at + 4);
  return out;
}

// numgen's number is a plain integer of the machine: little-endian.
function withIndex(key: Buffer, index: number): Buffer {
  const out = Buffer.allocUnsafe(key.length + 4);
  out.set(key);
  out.writeUInt32LE(index, key.length);
  return out;
}

export function endpointData({ ip, port }: { readonly ip: string; readonly port: number }): Buffer {
  const address = parseAddress(ip);
  const out = Buffer.alloc(address.length + 4);
  out.set(address);
  out.writeUInt16BE(port, address.length);
  return out;
}

/** An element's identity within its table. */
export function elementKey({ set, key }: Element): string {
  return `${set} ${Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString('latin1')}`;
}

export function sameData(a: ElementData, b: ElementData): boolean {
  if (a instanceof Uint8Array) return b instanceof Uint8Array && Buffer.compare(a, b) === 0;
  if (typeof a === 'object') return typeof b === 'object' && !(b instanceof Uint8Array) && a.goto === b.goto;
  return a === b;
}

export const ALL_FAMILIES: readonly Family[] = [FAMILIES[4], FAMILIES[6]];
