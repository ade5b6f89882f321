/** `IntOrString` fields that hold a count or a percentage: maxSurge, maxUnavailable, minAvailable. */

import { isPercent } from './names.ts';

export type IntOrString = number | string;

/**
 * The count that `value` means of `total`: percentages are scaled and rounded up or down, numbers are themselves.
 * undefined when it is a string that is no percentage.
 */
export function scaledValue(value: IntOrString, total: number, rounding: 'up' | 'down'): number | undefined {
  if (typeof value === 'number') return value;
  if (!isPercent(value)) return undefined;
  // Whole numbers throughout, so that no floating error rounds 100 % of 7 up to 8.
  const hundredths = Number(value.slice(0, -1)) * total;
  return rounding === 'up' ? Math.ceil(hundredths / 100) : Math.floor(hundredths / 100);
}

/** The percentage as a number, or undefined when the value is none. */
export function percentOf(value: IntOrString | undefined): number | undefined {
  return typeof value === 'string' && isPercent(value) ? Number(value.slice(0, -1)) : undefined;
}

/** Upstream's ResolveFenceposts: surge rounds up, unavailable down, and both never end at zero. */
export function rollingUpdateBounds(of: {
  maxSurge: IntOrString | undefined;
  maxUnavailable: IntOrString | undefined;
  replicas: number;
}): { maxSurge: number; maxUnavailable: number } {
  const maxSurge = scaledValue(of.maxSurge ?? 0, of.replicas, 'up') ?? 0;
  const maxUnavailable = scaledValue(of.maxUnavailable ?? 0, of.replicas, 'down') ?? 0;
  return { maxSurge, maxUnavailable: maxSurge === 0 && maxUnavailable === 0 ? 1 : maxUnavailable };
}
