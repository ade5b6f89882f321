/**
 * Creates the load balancer's kinds where they are missing, and with them the pool that the cluster was told to have and its
 * announcement by layer 2. What an administrator changed or deleted afterwards stays as it is.
 */

import { LOAD_BALANCER_DEFINITIONS } from '../../api/loadbalancer/definitions.ts';
import { API_VERSION, type IPAddressPool, type L2Advertisement } from '../../api/loadbalancer/v1beta1.ts';
import { isReason } from '../../base/errors.ts';
import { keepDefinition } from '../../client/definitions.ts';
import { IP_ADDRESS_POOLS, L2_ADVERTISEMENTS } from '../../client/resources.ts';
import type { ReconcileContext } from '../runtime/controller.ts';

const DEFAULT = 'default';
/** A kind is served a moment after it was defined. */
const SERVED_AFTER_MS_MAX = 10_000;
const LOOK_EVERY_MS = 20;

export async function ensureDefinitions(ctx: ReconcileContext): Promise<void> {
  const { client, settings } = ctx;
  const created = await Promise.all(
    // The group is ours: an older version's definition becomes this one's.
    LOAD_BALANCER_DEFINITIONS.map(definition => keepDefinition(client, definition)),
  );
  const addresses = settings.loadBalancerAddresses;
  if (!created[0] || addresses.length === 0) return;
  const pool: IPAddressPool = {
    apiVersion: API_VERSION,
    kind: 'IPAddressPool',
    metadata: { name: DEFAULT },
    spec: { addresses },
  };
  const advertisement: L2Advertisement = {
    apiVersion: API_VERSION,
    kind: 'L2Advertisement',
    metadata: { name: DEFAULT },
    spec: { ipAddressPools: [DEFAULT] },
  };
  await whenServed(ctx, () => client.of<IPAddressPool>(IP_ADDRESS_POOLS).create(pool));
  await whenServed(ctx, () => client.of<L2Advertisement>(L2_ADVERTISEMENTS).create(advertisement));
}

async function whenServed({ clock, signal }: ReconcileContext, create: () => Promise<unknown>): Promise<void> {
  const deadline = clock.monotonic() + SERVED_AFTER_MS_MAX;
  for (;;) {
    try {
      await create();
      return;
    } catch (error) {
      if (isReason(error, 'AlreadyExists')) return;
      if (!isReason(error, 'NotFound') || clock.monotonic() > deadline || signal.aborted) throw error;
      await clock.sleep(LOOK_EVERY_MS, signal);
    }
  }
}
