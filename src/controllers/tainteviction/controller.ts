/**
 * Deletes pods that do not tolerate a NoExecute taint of their node, at once or after their tolerationSeconds. A taint
 * that is taken away in time cancels the deletion. Keys are pods.
 */

import type { Node, Pod, Taint } from '../../api/core/v1.gen.ts';
import { isPodTerminal } from '../../api/machinery/pod.ts';
import { tolerates } from '../../api/machinery/tolerations.ts';
import { keyOf } from '../../api/meta.ts';
import { NODES, PODS } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';
import { evictPod } from '../runtime/pod-eviction.ts';

const NODE_INDEX = 'node';

/** When the pod must go, milliseconds since the epoch; undefined: never; 0: now. */
export function evictionTime(pod: Pod, taints: readonly Taint[]): number | undefined {
  let earliestMs: number | undefined;
  for (const taint of taints) {
    const tolerations = (pod.spec?.tolerations ?? []).filter(toleration => tolerates(toleration, taint));
    if (tolerations.length === 0) return 0;
    const seconds = tolerations
      .map(toleration => toleration.tolerationSeconds)
      .filter(value => value !== undefined && value !== null);
    if (seconds.length === 0) continue;
    const atMs = (Date.parse(taint.timeAdded ?? '') || 0) + Math.max(0, Math.min(...seconds)) * 1000;
    if (earliestMs === undefined || atMs < earliestMs) earliestMs = atMs;
  }
  return earliestMs;
}

function create(ctx: ReconcileContext): Controller {
  const nodes = ctx.informers.get<Node>(NODES);
  const pods = ctx.informers.get<Pod>(PODS);
  pods.addIndex(NODE_INDEX, pod => [pod.spec?.nodeName ?? '']);
  const waiting = new Set<string>();

  const executing = (node: Node | undefined): Taint[] =>
    (node?.spec?.taints ?? []).filter(({ effect }) => effect === 'NoExecute');

  return {
    name: 'tainteviction',
    watches: [
      watch<Node>(NODES, change => {
        if (change.deleted) return [];
        const before = executing(change.old);
        const now = executing(change.object);
        if (before.length === 0 && now.length === 0) return [];
        return pods.byIndex(NODE_INDEX, change.object.metadata.name).map(keyOf);
      }),
      watch<Pod>(PODS, change => {
        if (change.deleted) {
          waiting.delete(keyOf(change.old));
          return [];
        }
        const moved =
          change.object.spec?.nodeName !== change.old?.spec?.nodeName ||
          change.object.spec?.tolerations !== change.old?.spec?.tolerations;
        return change.object.spec?.nodeName && moved && executing(nodes.get(change.object.spec.nodeName)).length > 0
          ? [keyOf(change.object)]
          : [];
      }),
    ],
    async reconcile({ namespace, name }): Promise<Result | void> {
      const key = `${namespace}/${name}`;
      const pod = pods.get(key);
      if (!pod?.spec?.nodeName || pod.metadata.deletionTimestamp || isPodTerminal(pod)) return void waiting.delete(key);
      const atMs = evictionTime(pod, executing(nodes.get(pod.spec.nodeName)));
      if (atMs === undefined) {
        if (waiting.delete(key))
          ctx.events.event(pod, 'Normal', 'TaintManagerEviction', `Cancelling deletion of Pod ${key}`);
        return;
      }
      const waitMs = atMs - ctx.clock.now();
      if (waitMs > 0) {
        waiting.add(key);
        return { requeueAfterMs: waitMs };
      }
      waiting.delete(key);
      ctx.events.event(pod, 'Normal', 'TaintManagerEviction', `Marking for deletion Pod ${key}`);
      await evictPod(ctx, pod, {
        reason: 'DeletionByTaintManager',
        message: 'Taint manager: deleting due to NoExecute taint',
      });
    },
  };
}

export const taintEviction: ControllerDefinition = {
  folder: 'tainteviction',
  component: 'taint-eviction-controller',
  create,
};
