/**
 * Removes pods that nothing else will: those bound to a node that no longer exists, those being deleted that never had a
 * node, and the oldest finished ones beyond a limit. Keys are pods, or `nodes` for a look at everything.
 */

import type { Node, Pod } from '../../api/core/v1.gen.ts';
import { isPodTerminal } from '../../api/machinery/pod.ts';
import { keyOf } from '../../api/meta.ts';
import { formatTime } from '../../base/clock.ts';
import { isReason } from '../../base/errors.ts';
import { NODES, PODS } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';

/** A node may be absent for a moment while it registers again: upstream's quarantine. */
const NODE_QUARANTINE_MS = 40_000;
/** Upstream's --terminated-pod-gc-threshold. */
const TERMINATED_PODS_MAX = 12_500;
const NODE_INDEX = 'node';
const TERMINATED = 'terminated';

function create(ctx: ReconcileContext): Controller {
  const nodes = ctx.informers.get<Node>(NODES);
  const pods = ctx.informers.get<Pod>(PODS);
  pods.addIndex(NODE_INDEX, pod => [pod.spec?.nodeName ?? '']);
  const absentSinceMs = new Map<string, number>();
  let terminated = 0;

  async function remove(pod: Pod, condition?: { reason: string; message: string }): Promise<void> {
    const { namespace = '', name, uid } = pod.metadata;
    try {
      if (!isPodTerminal(pod)) {
        const target = condition && {
          type: 'DisruptionTarget',
          status: 'True',
          ...condition,
          lastTransitionTime: formatTime(ctx.clock.now()),
        };
        await ctx.client
          .of<Pod>(PODS)
          .patchStatus(
            namespace,
            name,
            { metadata: { uid }, status: { phase: 'Failed', ...(target ? { conditions: [target] } : {}) } },
            'application/strategic-merge-patch+json',
          );
      }
      await ctx.client.of<Pod>(PODS).delete(namespace, name, { gracePeriodSeconds: 0, preconditions: { uid: uid! } });
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
    }
  }

  async function orphaned(pod: Pod): Promise<Result | void> {
    const node = pod.spec!.nodeName!;
    if (nodes.get(node)) return;
    const nowMs = ctx.clock.monotonic();
    const sinceMs = absentSinceMs.get(node) ?? nowMs;
    absentSinceMs.set(node, sinceMs);
    if (nowMs - sinceMs < NODE_QUARANTINE_MS) return { requeueAfterMs: NODE_QUARANTINE_MS - (nowMs - sinceMs) };
    try {
      await ctx.client.of<Node>(NODES).get('', node);
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
      await remove(pod, { reason: 'DeletionByPodGC', message: 'PodGC: node no longer exists' });
    }
  }

  async function terminatedBeyondLimit(): Promise<void> {
    const finished = [...pods.values()].filter(isPodTerminal);
    const age = (pod: Pod) => pod.metadata.creationTimestamp ?? '';
    const excess = finished
      .sort((a, b) => (age(a) < age(b) ? -1 : 1))
      .slice(0, Math.max(0, finished.length - TERMINATED_PODS_MAX));
    for (const pod of excess) await remove(pod);
  }

  return {
    name: 'podgc',
    watches: [
      watch<Pod>(PODS, change => {
        const ended = !change.deleted && isPodTerminal(change.object);
        const endedBefore = change.old !== undefined && isPodTerminal(change.old);
        terminated += Number(ended) - Number(endedBefore);
        const keys = terminated > TERMINATED_PODS_MAX ? [TERMINATED] : [];
        if (change.deleted) return keys;
        const { nodeName } = change.object.spec ?? {};
        if (nodeName ? !nodes.get(nodeName) : change.object.metadata.deletionTimestamp) keys.push(keyOf(change.object));
        return keys;
      }),
      watch<Node>(NODES, change => {
        if (change.deleted) {
          absentSinceMs.set(change.old.metadata.name, ctx.clock.monotonic());
          return pods.byIndex(NODE_INDEX, change.old.metadata.name).map(keyOf);
        }
        absentSinceMs.delete(change.object.metadata.name);
        return [];
      }),
    ],
    async reconcile({ namespace, name }): Promise<Result | void> {
      if (!namespace) return terminatedBeyondLimit();
      const pod = pods.get(`${namespace}/${name}`);
      if (!pod) return;
      if (pod.spec?.nodeName) return orphaned(pod);
      if (pod.metadata.deletionTimestamp) return remove(pod);
    },
  };
}

export const podGc: ControllerDefinition = { folder: 'podgc', component: 'pod-garbage-collector', create };
