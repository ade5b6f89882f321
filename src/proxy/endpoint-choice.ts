/**
 * Which endpoints of a Service's port a node may use, as kube-proxy decides it: ready ones, near ones when every ready one has
 * a hint (KEP-2433, KEP-3015), else those that still serve while terminating (KEP-1669). Pure.
 */

import type { EndpointSlice, Endpoint as SliceEndpoint } from '../api/discovery/v1.gen.ts';
import type { Endpoint, Protocol } from './model.ts';

export interface Place {
  readonly nodeName: string;
  /** The node's label `topology.kubernetes.io/zone`. */
  readonly zone?: string | undefined;
}

interface Candidate extends Endpoint {
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  readonly hints: SliceEndpoint['hints'];
}

export interface Choice {
  /** For traffic policy Cluster. */
  readonly cluster: readonly Endpoint[];
  /** For traffic policy Local. */
  readonly local: readonly Endpoint[];
  /** Without those that terminate: what a load balancer's health check counts. */
  readonly localReady: readonly Endpoint[];
}

/** What slices of one Service have for one of its ports, in an order that depends on nothing but the slices. */
export function chooseEndpoints(
  slices: readonly EndpointSlice[],
  wanted: { readonly family: 4 | 6; readonly portName: string; readonly protocol: Protocol; readonly place: Place },
): Choice {
  const candidates = candidatesOf(slices, wanted);
  const ready = candidates.filter(candidate => candidate.ready);
  const serving = candidates.filter(candidate => candidate.serving && candidate.terminating);
  const near = ready.length > 0 ? nearest(ready, wanted.place) : serving;
  const localReady = ready.filter(({ local }) => local);
  const local = localReady.length > 0 ? localReady : serving.filter(candidate => candidate.local);
  return { cluster: near.map(plain), local: local.map(plain), localReady: localReady.map(plain) };
}

const plain = ({ ip, port, local }: Candidate): Endpoint => ({ ip, port, local });

// Hints count only when every ready endpoint has one and some are meant for this place: else all are used.
function nearest(ready: readonly Candidate[], { nodeName, zone }: Place): readonly Candidate[] {
  const node = hinted(ready, ({ hints }) => hints?.forNodes, nodeName);
  if (node) return node;
  return hinted(ready, ({ hints }) => hints?.forZones, zone) ?? ready;
}

function hinted(
  ready: readonly Candidate[],
  hintsOf: (candidate: Candidate) => readonly { readonly name: string }[] | undefined,
  here: string | undefined,
): Candidate[] | undefined {
  if (!ready.every(candidate => (hintsOf(candidate)?.length ?? 0) > 0)) return undefined;
  const meant = ready.filter(candidate => hintsOf(candidate)!.some(({ name }) => name === here));
  return meant.length > 0 ? meant : undefined;
}

function candidatesOf(
  slices: readonly EndpointSlice[],
  wanted: { family: 4 | 6; portName: string; protocol: Protocol; place: Place },
): Candidate[] {
  const found = new Map<string, Candidate>();
  let firstPort: number | undefined;
  for (const slice of inOrder(slices)) {
    if (slice.addressType !== (wanted.family === 4 ? 'IPv4' : 'IPv6')) continue;
    for (const port of slice.ports ?? []) {
      if ((port.name ?? '') !== wanted.portName || (port.protocol ?? 'TCP') !== wanted.protocol) continue;
      if (port.port === undefined) continue;
      firstPort ??= port.port;
      for (const endpoint of slice.endpoints ?? []) {
        const candidate = candidateOf(endpoint, port.port, wanted.place.nodeName);
        if (!candidate) continue;
        // Nearly all have one port: their addresses as they are make the quickest keys.
        const key = candidate.port === firstPort ? candidate.ip : `${candidate.ip} ${candidate.port}`;
        // While endpoints move between slices one may be in two: the more usable counts.
        const before = found.get(key);
        if (!before || rank(candidate) > rank(before)) found.set(key, candidate);
      }
    }
  }
  return [...found.values()];
}

function inOrder(slices: readonly EndpointSlice[]): readonly EndpointSlice[] {
  return slices.length < 2 ? slices : [...slices].sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
}

function rank({ ready, serving, terminating }: Candidate): number {
  return ready ? 3 : serving && terminating ? 2 : serving ? 1 : 0;
}

// Absent conditions: ready and serving are true, terminating false (API doc of EndpointConditions).
function candidateOf(
  { addresses, conditions, nodeName, hints }: SliceEndpoint,
  port: number,
  here: string,
): Candidate | undefined {
  const ip = addresses[0];
  if (ip === undefined || meansAnotherThingOnEachNode(ip)) return undefined;
  const ready = conditions?.ready ?? true;
  return {
    ip,
    port,
    local: nodeName === here,
    ready,
    serving: conditions?.serving ?? ready,
    terminating: conditions?.terminating ?? false,
    hints,
  };
}

const SUSPECT = /^(0\.|127\.|169\.254\.|22[4-9]\.|23\d\.|::1?$|::ffff:\d|fe[89ab]|ff)/i;

/** Loopback, link-local, unspecified and multicast: the API refuses them; an older or foreign server may not. */
export function meansAnotherThingOnEachNode(ip: string): boolean {
  if (!SUSPECT.test(ip)) return false;
  return !ip.startsWith('::ffff:') || SUSPECT.test(ip.slice(7));
}
