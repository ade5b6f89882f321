/** What one Service is in the table: elements of sets and maps, and the chains that they go to. Pure. */

import { parseAddress } from '../../sys/address.ts';
import type { Element, ElementData } from '../../sys/nfnetlink.ts';
import type { Endpoint, Frontend, Protocol, ServiceEntry } from '../model.ts';
import { type Chain, clusterChain, externalChain, LOCAL_INDEX, localChain, restrictChain } from './chains.ts';
import { type Family, REJECT_CHAIN } from './rules.ts';

export interface Rendered {
  readonly elements: readonly Element[];
  readonly chains: readonly Chain[];
}

export const PROTOCOL_NUMBERS: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };

/**
 * One family's part of the entry. Endpoints that `kept` has at the same places are left out: a change of a Service with
 * thousands of them is then not rendered whole, twice.
 */
export function render(
  entry: ServiceEntry,
  options: { family: Family; clusterCidrs: boolean; kept?: ServiceEntry | undefined },
): Rendered {
  const { family, clusterCidrs, kept } = options;
  const elements: Element[] = [];
  const chains: Chain[] = [];
  const others = new Map(kept?.frontends.map(frontend => [frontendKey(frontend), frontend]));
  const hairpins = new Set<string>();
  for (const frontend of entry.frontends) {
    if (frontend.family !== family.number) continue;
    const other = others.get(frontendKey(frontend));
    renderFrontend(frontend, { family, clusterCidrs, elements, chains, other });
    for (const list of [frontend.endpoints, frontend.localEndpoints ?? []])
      for (const { ip, local } of list) if (local) hairpins.add(ip);
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
  into: {
    family: Family;
    clusterCidrs: boolean;
    elements: Element[];
    chains: Chain[];
    other: Frontend | undefined;
  },
): void {
  const { family, clusterCidrs, elements, chains, other } = into;
  const { address, endpoints, localEndpoints, affinity } = frontend;
  const nodePort = address === undefined;
  const suffix = nodePort ? '-node-ports' : '';
  const key = frontendBytes(frontend);
  const put = (set: string, data: ElementData) => elements.push({ set, key, data });
  const go = (set: string, chain: Chain) => {
    chains.push(chain);
    put(set, { goto: chain.name });
  };
  if ((localEndpoints ?? endpoints).length === 0)
    put(`refused${suffix}`, frontend.whenEmpty === 'reject' ? { goto: REJECT_CHAIN } : 'drop');
  // A node that has the address itself sends from it: that sender is let on too.
  if (frontend.sourceRanges && !nodePort)
    go('restricted', restrictChain(family, [...frontend.sourceRanges, `${address}/${family.number === 4 ? 32 : 128}`]));
  if (endpoints.length === 0) return;

  const shape = { family, nodePort, affinity, endpoints: endpoints.length, clusterCidrs };
  go(
    nodePort ? 'node-ports' : 'services',
    localEndpoints
      ? localChain(shape, localEndpoints.length)
      : frontend.masquerade === 'always'
        ? externalChain(shape)
        : clusterChain(shape),
  );
  if (affinity) {
    const canonical = frontendBytes({ ...affinity, family: family.number, protocol: frontend.protocol });
    put(`remembered-as${suffix}`, Buffer.concat([NO_MARK, canonical]));
  }
  const set = nodePort ? 'node-port-endpoints' : 'endpoints';
  const list = (part: readonly Endpoint[], from: number, there: readonly Endpoint[] | undefined) => {
    part.forEach((endpoint, i) => {
      const same = there?.[i];
      if (same && same.ip === endpoint.ip && same.port === endpoint.port) return;
      elements.push({ set, key: withIndex(key, from + i), data: endpointData(endpoint) });
    });
  };
  list(endpoints, 0, other?.endpoints);
  if (localEndpoints) list(localEndpoints, LOCAL_INDEX, other?.localEndpoints);
}

/** A word that nobody reads: see `choice` in `chains.ts`. */
const NO_MARK = Buffer.alloc(4);

function frontendKey({ address, family, protocol, port }: Frontend): string {
  return `${address ?? family} ${protocol} ${port}`;
}

// A first programming makes tens of thousands of these: one small buffer each, nothing in between.

// Components of a concatenation are padded to four bytes each: address, protocol (1), port (2, big-endian).
function frontendBytes({
  address,
  family,
  protocol,
  port,
}: Pick<Frontend, 'address' | 'family' | 'protocol' | 'port'>): Buffer {
  const at = address === undefined ? 0 : addressBytes(family);
  const out = Buffer.alloc(at + 8);
  if (address !== undefined) putAddress(out, address);
  out[at] = PROTOCOL_NUMBERS[protocol];
  putPort(out, at + 4, port);
  return out;
}

// numgen's number is a plain integer of the machine: little-endian.
function withIndex(key: Buffer, index: number): Buffer {
  const out = Buffer.allocUnsafe(key.length + 4);
  key.copy(out);
  out.writeUInt32LE(index, key.length);
  return out;
}

export function endpointData({ ip, port }: { readonly ip: string; readonly port: number }): Buffer {
  const at = addressBytes(ip.includes(':') ? 6 : 4);
  const out = Buffer.alloc(at + 4);
  putAddress(out, ip);
  putPort(out, at, port);
  return out;
}

const addressBytes = (family: 4 | 6) => (family === 4 ? 4 : 16);

function putPort(out: Buffer, at: number, port: number): void {
  out[at] = port >> 8;
  out[at + 1] = port & 255;
}

function putAddress(out: Buffer, text: string): void {
  let [at, value] = [0, 0];
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 46) {
      out[at++] = value;
      value = 0;
    } else if (code >= 48 && code <= 57 && at < 4) value = value * 10 + code - 48;
    // Not IPv4 in its plain form.
    else return void out.set(parseAddress(text));
  }
  out[at] = value;
}

/** An element's identity within its table. */
export function elementKey({ set, key }: Element): string {
  const bytes = Buffer.isBuffer(key) ? key : Buffer.from(key.buffer, key.byteOffset, key.byteLength);
  return `${set} ${bytes.toString('latin1')}`;
}

export function sameData(a: ElementData, b: ElementData): boolean {
  if (a instanceof Uint8Array) return b instanceof Uint8Array && Buffer.compare(a, b) === 0;
  if (typeof a === 'object') return typeof b === 'object' && !(b instanceof Uint8Array) && a.goto === b.goto;
  return a === b;
}
