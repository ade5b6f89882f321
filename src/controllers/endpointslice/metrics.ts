/** The EndpointSlice controller's metrics, by upstream's names. Sums over all Services are made when they are asked for. */

import type { EndpointPort, EndpointSlice } from '../../api/discovery/v1.gen.ts';
import { metrics } from '../../base/metrics.ts';
import { type DesiredGroup, portsKey } from './desired.ts';
import { ENDPOINTS_PER_SLICE_MAX, identity, type SlicePlan } from './plan.ts';

const at = (name: string): string => `endpoint_slice_controller_${name}`;
const ENDPOINTS = Array.from({ length: 15 }, (_, i) => 2 ** (i + 1));
const added = metrics.histogram(
  at('endpoints_added_per_sync'),
  'Number of endpoints added on each Service sync',
  ENDPOINTS,
);
const removed = metrics.histogram(
  at('endpoints_removed_per_sync'),
  'Number of endpoints removed on each Service sync',
  ENDPOINTS,
);
const desiredEndpoints = metrics.gauge(at('endpoints_desired'), 'Number of endpoints desired');
const slices = metrics.gauge(at('num_endpoint_slices'), 'Number of EndpointSlices');
const desiredSlices = metrics.gauge(
  at('desired_endpoint_slices'),
  'Number of EndpointSlices that would exist with perfect endpoint allocation',
);
const changes = metrics.counter(at('changes'), 'Number of EndpointSlice changes', ['operation']);
const distributions = metrics.gauge(
  at('services_count_by_traffic_distribution'),
  'Number of Services using some specific trafficDistribution',
  ['traffic_distribution'],
);

interface Counts {
  readonly endpoints: number;
  readonly slices: number;
  readonly desiredSlices: number;
}

export class SliceMetrics {
  /** By Service and family. */
  readonly #counts = new Map<string, Counts>();

  /** Of the distributions that Services ask for, each as often as it is asked for. */
  constructor(wanted: () => Iterable<string | undefined>) {
    metrics.onCollect(() => {
      const all = [...this.#counts.values()];
      const sum = (of: keyof Counts) => all.reduce((total, counts) => total + counts[of], 0);
      desiredEndpoints.set(sum('endpoints'));
      slices.set(sum('slices'));
      desiredSlices.set(sum('desiredSlices'));
      distributions.clear();
      for (const distribution of wanted()) if (distribution) distributions.add(1, distribution);
    });
  }
  /** The Service has slices of these families only. */
  keep(service: string, families: readonly string[]): void {
    for (const family of ['IPv4', 'IPv6']) if (!families.includes(family)) this.#counts.delete(`${service} ${family}`);
  }
  synced(
    key: string,
    {
      existing,
      desired,
      plan,
    }: {
      readonly existing: readonly EndpointSlice[];
      readonly desired: readonly DesiredGroup[];
      readonly plan: SlicePlan;
    },
  ): void {
    this.#counts.set(key, {
      endpoints: desired.reduce((sum, { endpoints }) => sum + endpoints.length, 0),
      slices: existing.length + plan.create.length - plan.delete.length,
      desiredSlices: Math.max(
        1,
        desired.reduce((sum, { endpoints }) => sum + Math.ceil(endpoints.length / ENDPOINTS_PER_SLICE_MAX), 0),
      ),
    });
    const isQuiet = plan.create.length + plan.update.length + plan.delete.length === 0;
    const [before, after] = isQuiet
      ? [new Set<string>(), new Set<string>()]
      : [endpointsOf(existing), endpointsOf(desired)];
    added.observe(after.difference(before).size);
    removed.observe(before.difference(after).size);
    for (const operation of ['create', 'update', 'delete'] as const)
      if (plan[operation].length > 0) changes.add(plan[operation].length, operation);
  }
}

export function countRemoved(slices: number): void {
  if (slices > 0) changes.add(slices, 'delete');
}

function endpointsOf(
  groups: readonly Pick<EndpointSlice, 'ports' | 'endpoints'>[] | readonly DesiredGroup[],
): Set<string> {
  return new Set(
    groups.flatMap(({ ports, endpoints }) => {
      const key = portsKey((ports ?? []) as readonly EndpointPort[]);
      return (endpoints ?? []).map(endpoint => `${key} ${identity(endpoint)}`);
    }),
  );
}
