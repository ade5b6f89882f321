/**
 * Which devices a node can give to a resource claim (KEP-4381): the first choice that meets every request, selector and
 * constraint, found by trying in order and going back. Pure. Invariant: a device is chosen once only, save for admin access and for those that
 * may be shared, and never more of it than there is (`device-usage.ts`).
 */

import type { Node, NodeSelector } from '../api/core/v1.gen.ts';
import { toleratesDeviceTaint } from '../api/machinery/device-taints.ts';
import { nodeSelectorMatch } from '../api/machinery/node-selector.ts';
import type {
  AllocationResult,
  Device,
  DeviceClass,
  DeviceConstraint,
  DeviceRequestAllocationResult,
  DeviceSelector,
  DeviceSubRequest,
  DeviceToleration,
  ExactDeviceRequest,
  ResourceClaim,
  ResourceSlice,
} from '../api/resource/v1.gen.ts';
import { attributeText, isSelected } from './device-selectors.ts';
import { type Amounts, consumption, DevicePool, type DeviceUsage, deviceId } from './device-usage.ts';

/** Upstream's AllocationResultsMaxSize. */
const DEVICES_MAX = 32;
const TRIES_MAX = 10_000;

export interface Inventory {
  deviceClass(name: string): DeviceClass | undefined;
  slices(): Iterable<ResourceSlice>;
  /** What claims have. */
  usage(): DeviceUsage;
  /** Names a share of a device. */
  newShareId(): string;
}

interface Candidate {
  readonly id: string;
  readonly driver: string;
  readonly pool: string;
  readonly device: Device;
  readonly slice: ResourceSlice;
  readonly whole: DevicePool;
}
interface Wish extends ExactDeviceRequest {
  /** `request` or `request/alternative`. */
  readonly request: string;
}
interface Pick {
  readonly wish: Wish;
  readonly candidate: Candidate;
  /** Of a device that is shared. */
  readonly consumed: Amounts | undefined;
}

/** What could be offered on the node, or why a claim can never be served. */
export type Decision = { readonly allocation: AllocationResult } | { readonly reason: string };

export function allocate(claim: ResourceClaim, node: Node, inventory: Inventory): Decision {
  const spec = claim.spec?.devices ?? {};
  const candidates = candidatesOn(node, inventory.slices());
  const usage = inventory.usage();
  const alternatives = (spec.requests ?? []).map(({ name, exactly, firstAvailable = [] }): Wish[] =>
    exactly
      ? [{ ...exactly, request: name }]
      : firstAvailable.map((one: DeviceSubRequest) => ({ ...one, request: `${name}/${one.name}` })),
  );
  let tries = 0;
  let problem: string | undefined;

  // Once more for each request, its alternatives in order.
  const search = (at: number, picks: readonly Pick[]): readonly Pick[] | undefined => {
    if (at === alternatives.length) return picks;
    for (const wish of alternatives[at]!) {
      const fitting = fittingOf(wish);
      if (!fitting) continue;
      const found = choose(wish, fitting, { at, picks, missing: countOf(wish, fitting) });
      if (found) return found;
    }
    return undefined;
  };
  const fittingOf = (wish: Wish): readonly Candidate[] | undefined => {
    const deviceClass = inventory.deviceClass(wish.deviceClassName);
    if (!deviceClass) {
      problem = `device class ${wish.deviceClassName} does not exist`;
      return undefined;
    }
    const selectors: DeviceSelector[] = [...(deviceClass.spec?.selectors ?? []), ...(wish.selectors ?? [])];
    return candidates.filter(
      ({ device, driver }) => isTolerated(device, wish.tolerations) && isSelected(device, driver, selectors),
    );
  };
  const choose = (
    wish: Wish,
    fitting: readonly Candidate[],
    { at, picks, missing }: { readonly at: number; readonly picks: readonly Pick[]; readonly missing: number },
  ): readonly Pick[] | undefined => {
    if (missing === 0) return search(at + 1, picks);
    const isEnough = fitting.length >= missing || fitting.some(({ device }) => device.allowMultipleAllocations);
    if (!isEnough || picks.length >= DEVICES_MAX) return undefined;
    for (const [i, candidate] of fitting.entries()) {
      if (++tries > TRIES_MAX) return undefined;
      const pick = pickOf(wish, candidate, picks);
      const next = pick ? [...picks, pick] : picks;
      if (!pick || !keepsConstraints(next, spec.constraints ?? [])) {
        // All means all.
        if (wish.allocationMode === 'All') return undefined;
        continue;
      }
      // More of a device that is shared may be left.
      const isAgain = candidate.device.allowMultipleAllocations && wish.allocationMode !== 'All';
      const found = choose(wish, fitting.slice(isAgain ? i : i + 1), { at, picks: next, missing: missing - 1 });
      if (found) return found;
    }
    return undefined;
  };

  /** The candidate, where enough of it is left beside what was chosen before. */
  const pickOf = (wish: Wish, candidate: Candidate, picks: readonly Pick[]): Pick | undefined => {
    const { id, device, whole } = candidate;
    const chosen = picks.filter(one => !one.wish.adminAccess);
    const same = chosen.filter(one => one.candidate.id === id);
    const isShared = device.allowMultipleAllocations === true;
    if (wish.adminAccess) return { wish, candidate, consumed: undefined };
    if (!isShared && (same.length > 0 || usage.has(id))) return undefined;
    const uses = [...usage.of(id), ...same.map(({ consumed = {} }) => ({ id, consumed }))];
    const consumed = consumption(device, wish.capacity?.requests ?? {}, uses);
    if (!consumed || !whole.hasCountersFor(id, usage, new Set(chosen.map(one => one.candidate.id)))) return undefined;
    return { wish, candidate, consumed: isShared ? consumed : undefined };
  };

  try {
    const picks = search(0, []);
    if (!picks) return { reason: problem ?? 'cannot allocate all claims' };
    return { allocation: resultOf(claim, picks, { node, inventory }) };
  } catch (error) {
    return { reason: `claim ${claim.metadata.namespace}/${claim.metadata.name}: ${(error as Error).message}` };
  }
}

/** All of one mode, at least one; else so many. */
function countOf({ allocationMode, count }: Wish, fitting: readonly Candidate[]): number {
  return allocationMode === 'All' ? Math.max(1, fitting.length) : (count ?? 1);
}

function isTolerated({ taints = [] }: Device, tolerations: readonly DeviceToleration[] = []): boolean {
  return taints
    .filter(({ effect }) => effect === 'NoSchedule' || effect === 'NoExecute')
    .every(taint => tolerations.some(toleration => toleratesDeviceTaint(toleration, taint)));
}

/** Devices of whole pools that the node reaches, the newest generation of each; first those that need not be made ready. */
function candidatesOn(node: Node, slices: Iterable<ResourceSlice>): Candidate[] {
  const reached = reachedFrom(node, slices);
  const isConditional = ({ device }: Candidate) =>
    device.bindingConditions?.length !== undefined && device.bindingConditions.length > 0;
  return reached.some(isConditional)
    ? [...reached.filter(one => !isConditional(one)), ...reached.filter(isConditional)]
    : reached;
}
function reachedFrom(node: Node, slices: Iterable<ResourceSlice>): Candidate[] {
  const pools = new Map<string, ResourceSlice[]>();
  for (const slice of slices) {
    const { driver, pool } = slice.spec;
    const key = `${driver}/${pool.name}`;
    const known = pools.get(key) ?? [];
    const generation = known[0]?.spec.pool.generation ?? pool.generation;
    if (pool.generation > generation) pools.set(key, [slice]);
    else if (pool.generation === generation) pools.set(key, [...known, slice]);
  }
  return [...pools.values()]
    .filter(parts => parts.length === parts[0]!.spec.pool.resourceSliceCount)
    .map(parts => ({ parts, whole: new DevicePool(parts) }))
    .flatMap(({ parts, whole }) =>
      [...parts].sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1)).map(slice => ({ slice, whole })),
    )
    .flatMap(({ slice, whole }) =>
      (slice.spec.devices ?? [])
        .filter(device => reaches(placeOf({ slice, device }), node))
        .map(device => {
          const { driver, pool } = slice.spec;
          const id = deviceId({ driver, pool: pool.name, device: device.name });
          return { id, driver, pool: pool.name, device, slice, whole };
        }),
    );
}

interface Place {
  readonly nodeName?: string;
  readonly nodeSelector?: NodeSelector;
  readonly allNodes?: boolean;
}
const placeOf = ({ slice, device }: { readonly slice: ResourceSlice; readonly device: Device }): Place =>
  slice.spec.perDeviceNodeSelection ? device : slice.spec;

function reaches(where: Place, node: Node): boolean {
  if (where.allNodes) return true;
  if (where.nodeName) return where.nodeName === node.metadata.name;
  return where.nodeSelector !== undefined && nodeSelectorMatch(where.nodeSelector)(node);
}

function keepsConstraints(picks: readonly Pick[], constraints: readonly DeviceConstraint[]): boolean {
  return constraints.every(({ requests, matchAttribute, distinctAttribute }) => {
    const concerned = picks.filter(
      ({ wish }) =>
        !requests?.length || requests.includes(wish.request) || requests.includes(wish.request.split('/')[0]!),
    );
    const values = (name: string) =>
      concerned.map(({ candidate: { device, driver } }) => attributeText(device, { driver, name }));
    if (matchAttribute) {
      const all = values(matchAttribute);
      return all.every(value => value !== undefined && value === all[0]);
    }
    if (distinctAttribute) {
      const all = values(distinctAttribute);
      return all.every(value => value !== undefined) && new Set(all).size === all.length;
    }
    return false;
  });
}

function resultOf(
  claim: ResourceClaim,
  picks: readonly Pick[],
  { node, inventory }: { readonly node: Node; readonly inventory: Inventory },
): AllocationResult {
  const results = picks.map(
    ({ wish, candidate, consumed }): DeviceRequestAllocationResult => ({
      request: wish.request,
      driver: candidate.driver,
      pool: candidate.pool,
      device: candidate.device.name,
      ...(wish.adminAccess ? { adminAccess: true } : {}),
      ...(consumed
        ? {
            shareID: inventory.newShareId(),
            ...(Object.keys(consumed).length ? { consumedCapacity: { ...consumed } } : {}),
          }
        : {}),
      ...(wish.tolerations?.length ? { tolerations: wish.tolerations } : {}),
      ...(candidate.device.bindingConditions?.length
        ? {
            bindingConditions: candidate.device.bindingConditions,
            bindingFailureConditions: candidate.device.bindingFailureConditions ?? [],
          }
        : {}),
    }),
  );
  const ofClasses = picks
    .filter(({ wish }, i) => picks.findIndex(other => other.wish.request === wish.request) === i)
    .flatMap(({ wish }) =>
      (inventory.deviceClass(wish.deviceClassName)?.spec?.config ?? []).map(one => ({
        source: 'FromClass',
        requests: [wish.request],
        ...one,
      })),
    );
  const ofClaim = (claim.spec?.devices?.config ?? []).map(one => ({ source: 'FromClaim', ...one }));
  const nodeSelector = selectorOf(picks, node);
  return {
    devices: { results, ...(ofClasses.length + ofClaim.length ? { config: [...ofClasses, ...ofClaim] } : {}) },
    ...(nodeSelector ? { nodeSelector } : {}),
  };
}

/** Where all of these can be reached: on the one node that has or is bound to one of them, else where every selector holds; all nodes when absent. */
function selectorOf(picks: readonly Pick[], node: Node): NodeSelector | undefined {
  const places = picks.map(({ candidate }) => placeOf(candidate));
  if (places.some(({ nodeName }) => nodeName) || picks.some(({ candidate }) => candidate.device.bindsToNode))
    return {
      nodeSelectorTerms: [{ matchFields: [{ key: 'metadata.name', operator: 'In', values: [node.metadata.name!] }] }],
    };
  // Of a slice or device the API takes one term only.
  const terms = places.flatMap(({ nodeSelector }) => nodeSelector?.nodeSelectorTerms ?? []);
  const fields = distinct(terms.flatMap(({ matchFields = [] }) => matchFields));
  const expressions = distinct(terms.flatMap(({ matchExpressions = [] }) => matchExpressions));
  if (fields.length + expressions.length === 0) return undefined;
  return {
    nodeSelectorTerms: [
      {
        ...(expressions.length ? { matchExpressions: expressions } : {}),
        ...(fields.length ? { matchFields: fields } : {}),
      },
    ],
  };
}

const distinct = <T>(all: readonly T[]): T[] => [...new Map(all.map(one => [JSON.stringify(one), one])).values()];
