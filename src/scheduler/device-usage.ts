/**
 * What of a pool's devices is in use: whole devices, parts of the capacity of devices that may be shared (KEP-5075), and the counters that
 * devices draw from together (KEP-4815). Pure. Invariant: what is used is never more than what a driver's slices say there is; a device
 * that nothing is known of any more uses its counters no longer.
 */

import { formatNano, parseNano } from '../api/machinery/quantity.ts';
import type {
  CapacityRequestPolicy,
  Device,
  DeviceRequestAllocationResult,
  ResourceSlice,
} from '../api/resource/v1.gen.ts';

export const deviceId = (of: { readonly driver: string; readonly pool: string; readonly device: string }): string =>
  `${of.driver}/${of.pool}/${of.device}`;

/** Amounts by name, as they are written in a claim. */
export type Amounts = Readonly<Record<string, string>>;

interface Use {
  readonly id: string;
  /** Absent: the whole device. */
  readonly consumed?: Amounts;
}

export class DeviceUsage {
  readonly #before: DeviceUsage | undefined;
  readonly #uses = new Map<string, Use[]>();

  constructor(results: Iterable<DeviceRequestAllocationResult>, before?: DeviceUsage) {
    this.#before = before;
    for (const { adminAccess, shareID, consumedCapacity = {}, ...of } of results) {
      if (adminAccess) continue;
      const id = deviceId(of);
      const use: Use = shareID === undefined ? { id } : { id, consumed: consumedCapacity };
      this.#uses.set(id, [...(this.#uses.get(id) ?? []), use]);
    }
  }
  /** With these as well; what was known before is shared, not copied. */
  with(results: Iterable<DeviceRequestAllocationResult>): DeviceUsage {
    return new DeviceUsage(results, this);
  }
  of(id: string): readonly Use[] {
    const own = this.#uses.get(id) ?? [];
    const before = this.#before?.of(id) ?? [];
    return before.length === 0 ? own : [...before, ...own];
  }
  has(id: string): boolean {
    return this.#uses.has(id) || (this.#before?.has(id) ?? false);
  }
}

const nanoOf = (text: string | undefined): bigint => (text === undefined ? 0n : (parseNano(text) ?? 0n));

/**
 * What a request takes of each capacity of the device: as much as it asks for, rounded up as the device's policy says; without a wish the policy's
 * default, or all. Undefined when the device lacks one, the policy forbids it or less is left.
 */
export function consumption(device: Device, wishes: Amounts, uses: readonly Use[]): Amounts | undefined {
  const capacity = device.capacity ?? {};
  if (Object.keys(wishes).some(name => capacity[name] === undefined)) return undefined;
  const taken: Record<string, string> = {};
  for (const [name, { value, requestPolicy: policy }] of Object.entries(capacity)) {
    const amount = allowed(wishes[name], { value, policy });
    if (amount === undefined) return undefined;
    const used = uses.reduce((sum, { consumed }) => sum + nanoOf(consumed?.[name]), 0n);
    if (used + nanoOf(amount) > nanoOf(value)) return undefined;
    taken[name] = amount;
  }
  return taken;
}

function allowed(
  wish: string | undefined,
  { value, policy }: { readonly value: string; readonly policy: CapacityRequestPolicy | undefined },
): string | undefined {
  if (wish === undefined) return policy?.default ?? value;
  const asked = nanoOf(wish);
  if (policy?.validRange) {
    const { min, max, step } = policy.validRange;
    const [least, unit] = [nanoOf(min), nanoOf(step)];
    const above = asked > least ? asked - least : 0n;
    const rounded = least + (unit > 0n ? ((above + unit - 1n) / unit) * unit : above);
    if (max !== undefined && rounded > nanoOf(max)) return undefined;
    return rounded === asked ? wish : formatNano(rounded, /i$/.test(min) ? 'binary' : 'decimal');
  }
  if (policy?.validValues?.length)
    return [...policy.validValues].sort((a, b) => (nanoOf(a) < nanoOf(b) ? -1 : 1)).find(one => nanoOf(one) >= asked);
  return wish;
}

/** The devices and shared counters of one pool. */
export class DevicePool {
  readonly #counters = new Map<string, bigint>();
  /** Those that draw from counters, by id. */
  readonly #drawing = new Map<string, Device>();

  constructor(slices: readonly ResourceSlice[]) {
    for (const { spec } of slices) {
      for (const { name, counters } of spec.sharedCounters ?? [])
        for (const [counter, { value }] of Object.entries(counters))
          this.#counters.set(`${name}/${counter}`, nanoOf(value));
      for (const device of spec.devices ?? [])
        if (device.consumesCounters?.length)
          this.#drawing.set(deviceId({ driver: spec.driver, pool: spec.pool.name, device: device.name }), device);
    }
  }

  /** Whether there is enough left for the device beside those in use and those that are about to be. */
  hasCountersFor(id: string, usage: DeviceUsage, others: ReadonlySet<string>): boolean {
    const device = this.#drawing.get(id);
    // What is shared draws once.
    if (!device || others.has(id) || usage.has(id)) return true;
    const wanted = drawnBy(device);
    const left = new Map([...wanted.keys()].map(key => [key, this.#counters.get(key)]));
    for (const [other, of] of this.#drawing) {
      if (!others.has(other) && !usage.has(other)) continue;
      for (const [key, amount] of drawnBy(of)) {
        const rest = left.get(key);
        if (rest !== undefined) left.set(key, rest - amount);
      }
    }
    return [...wanted].every(([key, amount]) => (left.get(key) ?? -1n) >= amount);
  }
}

function drawnBy({ consumesCounters = [] }: Device): Map<string, bigint> {
  return new Map(
    consumesCounters.flatMap(({ counterSet, counters }) =>
      Object.entries(counters).map(([name, { value }]) => [`${counterSet}/${name}`, nanoOf(value)] as const),
    ),
  );
}
