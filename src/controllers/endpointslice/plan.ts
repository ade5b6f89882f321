/**
 * From the slices that are there to the slices that should be, with as few writes as possible: an endpoint stays in its
 * slice, freed room is filled before a slice is added, slices that nothing else changes are left alone. Pure.
 */

import type { Endpoint, EndpointPort, EndpointSlice } from '../../api/discovery/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { type DesiredGroup, portsKey } from './desired.ts';

/** Upstream's --max-endpoints-per-slice default. */
export const ENDPOINTS_PER_SLICE_MAX = 100;

export interface Content {
  readonly ports: readonly EndpointPort[];
  readonly endpoints: readonly Endpoint[];
}

export interface SlicePlan {
  readonly create: readonly Content[];
  readonly update: readonly { readonly slice: EndpointSlice; readonly endpoints: readonly Endpoint[] }[];
  readonly delete: readonly EndpointSlice[];
}

export const identity = (endpoint: Endpoint): string =>
  `${endpoint.addresses.join()}|${endpoint.hostname ?? ''}|${endpoint.targetRef?.uid ?? endpoint.targetRef?.name ?? ''}`;

export interface PlanOptions {
  /** Whether a slice must be written although its endpoints are right. */
  readonly metadataDiffers: (slice: EndpointSlice) => boolean;
  readonly endpointsMax?: number;
  /** Without endpoints one empty slice stays, so that consumers can tell "none" from "not yet"; the default. */
  readonly placeholder?: boolean;
}

export function planSlices(
  existing: readonly EndpointSlice[],
  groups: readonly DesiredGroup[],
  options: PlanOptions,
): SlicePlan {
  const byPorts = new Map<string, EndpointSlice[]>();
  for (const slice of existing) {
    const key = portsKey(slice.ports ?? []);
    byPorts.set(key, [...(byPorts.get(key) ?? []), slice]);
  }
  const create: Content[] = [];
  const update: { slice: EndpointSlice; endpoints: readonly Endpoint[] }[] = [];
  const remove: EndpointSlice[] = [];
  for (const group of groups) {
    const key = portsKey(group.ports);
    const plan = planGroup(byPorts.get(key) ?? [], group, options);
    byPorts.delete(key);
    create.push(...plan.create);
    update.push(...plan.update);
    remove.push(...plan.delete);
  }
  for (const slices of byPorts.values()) remove.push(...slices);
  const plan = { create, update, delete: remove };
  return options.placeholder === false ? plan : keepPlaceholder(existing, plan, options.metadataDiffers);
}

function keepPlaceholder(
  existing: readonly EndpointSlice[],
  plan: SlicePlan,
  metadataDiffers: (slice: EndpointSlice) => boolean,
): SlicePlan {
  if (plan.create.length > 0 || plan.delete.length !== existing.length) return plan;
  const placeholder = plan.delete.find(slice => !slice.endpoints?.length && !slice.ports?.length);
  if (!placeholder) return { ...plan, create: [{ ports: [], endpoints: [] }] };
  return {
    create: [],
    update: metadataDiffers(placeholder) ? [{ slice: placeholder, endpoints: [] }] : [],
    delete: plan.delete.filter(slice => slice !== placeholder),
  };
}

function planGroup(
  slices: readonly EndpointSlice[],
  group: DesiredGroup,
  { metadataDiffers, endpointsMax = ENDPOINTS_PER_SLICE_MAX }: PlanOptions,
): SlicePlan {
  const missing = new Map(group.endpoints.map(endpoint => [identity(endpoint), endpoint]));
  const states = slices.map(slice => {
    const endpoints: Endpoint[] = [];
    let changed = metadataDiffers(slice);
    for (const endpoint of slice.endpoints ?? []) {
      const wanted = missing.get(identity(endpoint));
      if (!wanted) {
        changed = true;
        continue;
      }
      missing.delete(identity(endpoint));
      if (!semanticEqual(endpoint, wanted)) changed = true;
      endpoints.push(wanted);
    }
    return { slice, endpoints, changed };
  });
  const rest = [...missing.values()];
  fill(
    states.filter(state => state.changed),
    rest,
    endpointsMax,
  );
  const create: Content[] = [];
  while (rest.length >= endpointsMax) create.push({ ports: group.ports, endpoints: rest.splice(0, endpointsMax) });
  // What is left goes whole into one unchanged slice with room, the fullest that fits, else into a new one.
  if (rest.length > 0) {
    const fits = states
      .filter(state => state.endpoints.length + rest.length <= endpointsMax)
      .sort((a, b) => b.endpoints.length - a.endpoints.length)[0];
    if (fits) {
      fits.endpoints.push(...rest);
      fits.changed = true;
    } else create.push({ ports: group.ports, endpoints: rest });
  }
  return {
    create,
    update: states.filter(state => state.changed && state.endpoints.length > 0),
    delete: states.filter(state => state.endpoints.length === 0).map(state => state.slice),
  };
}

/** Moves endpoints from `rest` into slices that are to be written anyway. */
function fill(states: { endpoints: Endpoint[] }[], rest: Endpoint[], endpointsMax: number): void {
  for (const state of states)
    state.endpoints.push(...rest.splice(0, Math.max(0, endpointsMax - state.endpoints.length)));
}
