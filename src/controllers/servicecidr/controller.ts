/**
 * Keeps a ServiceCIDR, by its finalizer, until no cluster IP depends on it, and tells in its Ready condition whether addresses
 * are given from it. Invariant: every managed IPAddress lies within some ServiceCIDR.
 */

import { IpPrefix } from '../../api/machinery/ip-prefix.ts';
import type { IPAddress, ServiceCIDR } from '../../api/networking/v1.gen.ts';
import { formatTime } from '../../base/clock.ts';
import { IP_ADDRESSES, SERVICE_CIDRS } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';

const FINALIZER = 'networking.k8s.io/service-cidr-finalizer';
const MANAGED_BY = 'ipaddress.kubernetes.io/managed-by';
const ALLOCATOR = 'ipallocator.k8s.io';
/** Until every API server has seen the deletion and gives no address of the range any more. */
const DELETION_GRACE_MS = 10_000;

const prefixesOf = ({ spec }: ServiceCIDR): IpPrefix[] => (spec?.cidrs ?? []).map(cidr => new IpPrefix(cidr));
const isManaged = ({ metadata }: IPAddress): boolean => metadata.labels?.[MANAGED_BY] === ALLOCATOR;

/** No address in use lies within this range only, or every one of it lies within another range. */
export function isFree(
  range: ServiceCIDR,
  among: { readonly ranges: Iterable<ServiceCIDR>; readonly addresses: Iterable<IPAddress> },
): boolean {
  const others = [...among.ranges].filter(({ metadata }) => metadata.name !== range.metadata.name).flatMap(prefixesOf);
  const own = prefixesOf(range);
  if (own.every(prefix => others.some(other => other.covers(prefix)))) return true;
  return ![...among.addresses].some(
    address =>
      isManaged(address) &&
      own.some(prefix => prefix.has(address.metadata.name)) &&
      !others.some(other => other.has(address.metadata.name)),
  );
}

function create(ctx: ReconcileContext): Controller {
  const ranges = ctx.informers.get<ServiceCIDR>(SERVICE_CIDRS);
  const addresses = ctx.informers.get<IPAddress>(IP_ADDRESSES);
  const client = ctx.client.of<ServiceCIDR>(SERVICE_CIDRS);
  const namesOf = (some: Iterable<ServiceCIDR>, test: (prefix: IpPrefix) => boolean): string[] =>
    [...some].filter(range => prefixesOf(range).some(test)).map(({ metadata }) => metadata.name);

  async function setReady(
    range: ServiceCIDR,
    next: { readonly status: string; readonly reason: string; readonly message: string },
  ): Promise<void> {
    const before = range.status?.conditions?.find(({ type }) => type === 'Ready');
    if (before?.status === next.status && before?.message === next.message) return;
    const condition = { type: 'Ready', ...next, lastTransitionTime: formatTime(ctx.clock.now()) };
    const conditions = (range.status?.conditions ?? []).filter(({ type }) => type !== 'Ready');
    await client.updateStatus({ ...range, status: { ...range.status, conditions: [...conditions, condition] } });
  }

  return {
    name: 'servicecidr',
    watches: [
      // A range that comes or goes may release, or bind, another one.
      watch<ServiceCIDR>(SERVICE_CIDRS, change => {
        const own = prefixesOf(latest(change));
        return [
          latest(change).metadata.name,
          ...namesOf(ranges.values(), prefix => own.some(other => other.overlaps(prefix))),
        ];
      }),
      watch<IPAddress>(IP_ADDRESSES, change => {
        if (!change.deleted && change.old) return [];
        // Only a range that is to go asks what is in use; and each Service comes by here.
        const leaving = [...ranges.values()].filter(({ metadata }) => metadata.deletionTimestamp);
        return namesOf(leaving, prefix => prefix.has(latest(change).metadata.name));
      }),
    ],
    async reconcile({ name }): Promise<Result | void> {
      const range = ranges.get(name);
      if (!range) return;
      const finalizers = range.metadata.finalizers ?? [];
      if (!range.metadata.deletionTimestamp) {
        // Before addresses are taken from it.
        if (!finalizers.includes(FINALIZER)) {
          await client.update({ ...range, metadata: { ...range.metadata, finalizers: [...finalizers, FINALIZER] } });
          return;
        }
        return setReady(range, { status: 'True', reason: '', message: 'Kubernetes Service CIDR is ready' });
      }
      if (!finalizers.includes(FINALIZER)) return;
      if (!isFree(range, { ranges: ranges.values(), addresses: addresses.values() }))
        return setReady(range, {
          status: 'False',
          reason: 'Terminating',
          message:
            'There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR',
        });
      const leftMs = DELETION_GRACE_MS - (ctx.clock.now() - Date.parse(range.metadata.deletionTimestamp));
      if (leftMs > 0) return { requeueAfterMs: leftMs };
      await client.update({
        ...range,
        metadata: { ...range.metadata, finalizers: finalizers.filter(finalizer => finalizer !== FINALIZER) },
      });
    },
  };
}

export const serviceCidr: ControllerDefinition = {
  folder: 'servicecidr',
  component: 'service-cidr-controller',
  create,
};
