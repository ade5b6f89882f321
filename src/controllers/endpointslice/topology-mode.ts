/**
 * Topology-aware routing (KEP-2433, Service annotation `service.kubernetes.io/topology-mode: Auto`): endpoints are given to zones
 * in proportion to the zones' processors, most to their own. Where that would overload a zone by more than a fifth there are no
 * hints at all. Pure; the same input gives the same hints, so a reconcile without news writes nothing.
 */

import type { Node, Service } from '../../api/core/v1.gen.ts';
import type { Endpoint } from '../../api/discovery/v1.gen.ts';
import { quantityMilli } from '../../api/machinery/quantity.ts';
import type { DesiredGroup } from './desired.ts';

const ANNOTATIONS = ['service.kubernetes.io/topology-mode', 'service.kubernetes.io/topology-aware-hints'];
const ZONE_LABEL = 'topology.kubernetes.io/zone';
const EXCLUDED_LABELS = ['node-role.kubernetes.io/control-plane', 'node-role.kubernetes.io/master'];
/** How much more than its share an endpoint may get. */
const OVERLOAD = 0.2;

/** Asked for by the annotation; `trafficDistribution` then does not count. */
export function isAuto(service: Service): boolean {
  return ANNOTATIONS.some(name => ['Auto', 'auto'].includes(service.metadata.annotations?.[name] ?? ''));
}

export type ZoneShares =
  | ReadonlyMap<string, number>
  | 'Insufficient Node information: allocatable CPU or zone not specified on one or more nodes';

/** Each zone's share of the ready nodes' processors. */
export function zoneShares(nodes: Iterable<Node>): ZoneShares {
  const cpus = new Map<string, number>();
  let total = 0;
  for (const { metadata, status } of nodes) {
    if (EXCLUDED_LABELS.some(label => metadata.labels?.[label] !== undefined)) continue;
    if (!status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True')) continue;
    const zone = metadata.labels?.[ZONE_LABEL];
    const cpu = quantityMilli(status.allocatable?.['cpu']);
    if (!zone || !cpu) {
      cpus.clear();
      break;
    }
    cpus.set(zone, (cpus.get(zone) ?? 0) + cpu);
    total += cpu;
  }
  if (cpus.size < 2) return 'Insufficient Node information: allocatable CPU or zone not specified on one or more nodes';
  return new Map([...cpus].sort(([a], [b]) => (a < b ? -1 : 1)).map(([zone, cpu]) => [zone, cpu / total]));
}

/** The groups with hints, or without any and why. */
export function withZoneHints(
  groups: readonly DesiredGroup[],
  shares: ZoneShares,
): { readonly groups: readonly DesiredGroup[]; readonly reason?: string } {
  const ready = groups
    .flatMap(({ endpoints }) => endpoints)
    .filter(({ conditions }) => conditions?.ready)
    .sort((a, b) => (identity(a) < identity(b) ? -1 : 1));
  const zones = typeof shares === 'string' ? shares : zonesOf(ready, shares);
  const set = (hintsOf: (endpoint: Endpoint) => Endpoint['hints']) =>
    groups.map(({ ports, endpoints }) => ({
      ports,
      endpoints: endpoints.map(({ hints: _none, ...endpoint }): Endpoint => {
        const hints = hintsOf(endpoint);
        return hints ? { ...endpoint, hints } : endpoint;
      }),
    }));
  if (typeof zones === 'string') return { groups: set(() => undefined), reason: zones };
  return {
    groups: set(endpoint => {
      const zone = endpoint.conditions?.ready ? zones.get(identity(endpoint)) : undefined;
      return zone === undefined ? undefined : { forZones: [{ name: zone }] };
    }),
  };
}

const identity = ({ addresses, targetRef }: Endpoint): string => `${addresses[0]} ${targetRef?.uid ?? ''}`;

function zonesOf(ready: readonly Endpoint[], shares: ReadonlyMap<string, number>): Map<string, string> | string {
  const count = ready.length;
  const facts = `(${count} endpoints, ${shares.size} zones)`;
  if (shares.size > count) return `Insufficient number of endpoints ${facts}`;
  const wanted = new Map<string, number>();
  let minimums = 0;
  for (const [zone, share] of shares) {
    const minimum = Math.ceil((share * count) / (1 + OVERLOAD));
    minimums += minimum;
    wanted.set(zone, Math.max(share * count, minimum));
  }
  if (minimums > count) return `Minimum allocation of required endpoints exceeds endpoint overload threshold ${facts}`;
  if (ready.some(({ zone }) => !zone)) return 'One or more endpoints do not have a zone specified';
  // First everybody serves its own zone; then zones with too many give to those with too few.
  const zones = new Map(ready.map(endpoint => [identity(endpoint), endpoint.zone!]));
  const have = new Map<string, number>();
  for (const { zone } of ready) have.set(zone!, (have.get(zone!) ?? 0) + 1);
  for (;;) {
    // Zones without processors of their own are not in `wanted`; they keep what is theirs, as upstream.
    const surplus = most([...wanted].map(([zone, want]) => [zone, (have.get(zone) ?? 0) - want]));
    const lack = most([...wanted].map(([zone, want]) => [zone, want - (have.get(zone) ?? 0)]));
    if ((surplus[1] < 1 && lack[1] < 1) || surplus[1] < 0.5 || lack[1] < 0.5) return zones;
    const given = ready.find(endpoint => zones.get(identity(endpoint)) === surplus[0])!;
    zones.set(identity(given), lack[0]);
    have.set(surplus[0], have.get(surplus[0])! - 1);
    have.set(lack[0], (have.get(lack[0]) ?? 0) + 1);
  }
}

function most(zones: readonly (readonly [zone: string, amount: number])[]): readonly [string, number] {
  return zones.reduce((best, zone) => (zone[1] > best[1] ? zone : best), ['', 0] as const);
}
