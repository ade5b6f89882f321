/**
 * Deletes pods that have a device with a NoExecute taint which their claim does not tolerate, at once or after its tolerationSeconds
 * (KEP-5055). A taint that is taken away in time cancels the deletion. Keys are pods.
 */

import type { Pod } from '../../api/core/v1.gen.ts';
import { toleratesDeviceTaint } from '../../api/machinery/device-taints.ts';
import { isPodTerminal } from '../../api/machinery/pod.ts';
import { allClaimsOf } from '../../api/machinery/resource-claims.ts';
import { keyOf } from '../../api/meta.ts';
import type {
  DeviceRequestAllocationResult,
  DeviceTaint,
  DeviceToleration,
  ResourceClaim,
  ResourceSlice,
} from '../../api/resource/v1.gen.ts';
import { PODS, RESOURCE_CLAIMS, RESOURCE_SLICES } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';
import { evictPod } from '../runtime/pod-eviction.ts';

const POOL_INDEX = 'pool';

type PoolOf = { readonly driver: string; readonly pool: string };
const poolKey = ({ driver, pool }: PoolOf): string => `${driver}/${pool}`;
const poolOfSlice = ({ spec }: ResourceSlice): string => poolKey({ driver: spec.driver, pool: spec.pool.name });
const devicesOf = (claim: ResourceClaim | undefined): readonly DeviceRequestAllocationResult[] =>
  claim?.status?.allocation?.devices?.results ?? [];

/** When a device must be given up, milliseconds since the epoch; undefined: never. A taint without a time counts from `nowMs`. */
export function giveUpTime(
  taints: readonly DeviceTaint[],
  tolerations: readonly DeviceToleration[],
  nowMs: number,
): number | undefined {
  const times = taints
    .filter(({ effect }) => effect === 'NoExecute')
    .flatMap(taint => {
      const addedMs = taint.timeAdded ? Date.parse(taint.timeAdded) : nowMs;
      const fitting = tolerations.filter(toleration => toleratesDeviceTaint(toleration, taint));
      if (fitting.length === 0) return [addedMs];
      const seconds = fitting
        .map(toleration => toleration.tolerationSeconds)
        .filter(value => typeof value === 'number');
      return seconds.length ? [addedMs + Math.max(0, Math.min(...seconds)) * 1000] : [];
    });
  return times.length ? Math.min(...times) : undefined;
}

function create(ctx: ReconcileContext): Controller {
  const pods = ctx.informers.get<Pod>(PODS);
  const claims = ctx.informers.get<ResourceClaim>(RESOURCE_CLAIMS);
  const slices = ctx.informers.get<ResourceSlice>(RESOURCE_SLICES);
  slices.addIndex(POOL_INDEX, slice => [poolOfSlice(slice)]);
  claims.addIndex(POOL_INDEX, claim => [...new Set(devicesOf(claim).map(poolKey))]);
  /** Pods that go later, by key: since when, which a taint without a time counts from. */
  const waiting = new Map<string, number>();

  function taintsOf(device: DeviceRequestAllocationResult): readonly DeviceTaint[] {
    const parts = slices.byIndex(POOL_INDEX, poolKey(device));
    const newest = Math.max(...parts.map(({ spec }) => spec.pool.generation));
    return parts
      .filter(({ spec }) => spec.pool.generation === newest)
      .flatMap(({ spec }) => spec.devices ?? [])
      .filter(({ name }) => name === device.device)
      .flatMap(({ taints = [] }) => taints);
  }

  /** The pods that a claim is reserved for. */
  const holders = (claim: ResourceClaim): string[] =>
    (claim.status?.reservedFor ?? [])
      .filter(({ resource, apiGroup }) => resource === 'pods' && !apiGroup)
      .map(({ name }) => `${claim.metadata.namespace}/${name}`);

  function evictionTime(pod: Pod, nowMs: number): number | undefined {
    const times = allClaimsOf(pod)
      .map(({ claim }) => claims.get(`${pod.metadata.namespace}/${claim}`))
      .filter(claim => claim?.status?.reservedFor?.some(({ uid }) => uid === pod.metadata.uid))
      .flatMap(devicesOf)
      .map(device => giveUpTime(taintsOf(device), device.tolerations ?? [], nowMs))
      .filter(time => time !== undefined);
    return times.length ? Math.min(...times) : undefined;
  }

  return {
    name: 'devicetainteviction',
    watches: [
      watch<ResourceSlice>(RESOURCE_SLICES, change => {
        const pools = [change.old, change.deleted ? undefined : change.object]
          .filter(slice => slice !== undefined)
          .map(poolOfSlice);
        return [...new Set(pools)].flatMap(pool => claims.byIndex(POOL_INDEX, pool).flatMap(holders));
      }),
      watch<ResourceClaim>(RESOURCE_CLAIMS, change => (change.deleted ? [] : holders(change.object))),
      watch<Pod>(PODS, change => {
        if (change.deleted) {
          waiting.delete(keyOf(change.old));
          return [];
        }
        const { object, old } = change;
        const isPlaced = object.spec.nodeName !== undefined && object.spec.nodeName !== old?.spec.nodeName;
        return isPlaced && allClaimsOf(object).length > 0 ? [keyOf(object)] : [];
      }),
    ],
    async reconcile({ namespace, name }): Promise<Result | void> {
      const key = `${namespace}/${name}`;
      const pod = pods.get(key);
      if (!pod?.spec.nodeName || pod.metadata.deletionTimestamp || isPodTerminal(pod)) return void waiting.delete(key);
      const nowMs = ctx.clock.now();
      const atMs = evictionTime(pod, waiting.get(key) ?? nowMs);
      if (atMs === undefined) {
        if (waiting.delete(key)) ctx.events.event(pod, 'Normal', 'DeviceTaintManagerEviction', 'Cancelling deletion');
        return;
      }
      if (atMs > nowMs) {
        if (!waiting.has(key)) waiting.set(key, nowMs);
        return { requeueAfterMs: atMs - nowMs };
      }
      waiting.delete(key);
      ctx.events.event(pod, 'Normal', 'DeviceTaintManagerEviction', 'Marking for deletion');
      await evictPod(ctx, pod, {
        reason: 'DeletionByDeviceTaintManager',
        message: 'Device Taint manager: deleting due to NoExecute taint',
      });
    },
  };
}

export const deviceTaintEviction: ControllerDefinition = {
  folder: 'devicetainteviction',
  component: 'device-taint-eviction-controller',
  create,
};
