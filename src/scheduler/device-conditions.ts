/**
 * Devices that are bound under conditions (KEP-5007): a driver has to make them ready for the node that was chosen, and says in the claim's
 * status how far it is. Pure. The conditions that count are those that were copied into the allocation.
 */

import type { ResourceClaim } from '../api/resource/v1.gen.ts';

/** From the allocation on, as upstream's `bindingTimeout`. */
export const BINDING_MS_MAX = 600_000;

export type Readiness =
  | { readonly is: 'ready' }
  | { readonly is: 'waiting'; readonly untilMs: number }
  | { readonly is: 'failed'; readonly why: string };

const READY: Readiness = { is: 'ready' };

/** Whether the claim's devices can be used on their node; `untilMs` is of the clock's time of day. */
export function readinessOf({ metadata, status }: ResourceClaim, nowMs: number): Readiness {
  if (!status?.allocation) return { is: 'failed', why: `claim ${metadata.name} is not allocated any more` };
  const conditional = (status.allocation.devices?.results ?? []).filter(one => one.bindingConditions?.length);
  let isReady = true;
  for (const { driver, pool, device, shareID, bindingConditions = [], bindingFailureConditions = [] } of conditional) {
    const said = status.devices?.find(
      one => one.driver === driver && one.pool === pool && one.device === device && one.shareID === shareID,
    );
    const isTrue = (type: string) => said?.conditions?.some(one => one.type === type && one.status === 'True') === true;
    const failure = bindingFailureConditions.find(isTrue);
    if (failure !== undefined) {
      const message = said?.conditions?.find(one => one.type === failure)?.message;
      return {
        is: 'failed',
        why: `claim ${metadata.name} binding failed: device ${driver}/${pool}/${device}: ${failure}${message ? `: ${message}` : ''}`,
      };
    }
    isReady &&= bindingConditions.every(isTrue);
  }
  if (isReady) return READY;
  const { allocationTimestamp } = status.allocation;
  const untilMs = (allocationTimestamp ? Date.parse(allocationTimestamp) : nowMs) + BINDING_MS_MAX;
  return nowMs >= untilMs
    ? { is: 'failed', why: `claim ${metadata.name}: device binding timeout` }
    : { is: 'waiting', untilMs };
}
