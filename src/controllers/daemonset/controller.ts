/** DaemonSets: one pod on each node that fits, replaced by RollingUpdate (maxUnavailable, maxSurge) or OnDelete. */

import type { ControllerRevision, DaemonSet, DaemonSetStatus } from '../../api/apps/v1.gen.ts';
import type { Node, Pod } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { rollingUpdateBounds } from '../../api/machinery/int-or-string.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import { isPodAvailable, isPodReady } from '../../api/machinery/pod.ts';
import { controllerOf, keyOf } from '../../api/meta.ts';
import { isReason } from '../../base/errors.ts';
import { CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';
import { Expectations } from '../runtime/expectations.ts';
import { REVISION_HASH, syncRevisions, truncateHistory } from '../runtime/history.ts';
import { claim, concerned, dependents, indexByController, orphans } from '../runtime/ownership.ts';
import { createPod, deletePod, isNamespaceTerminating, slowStart } from '../runtime/pod-control.ts';
import { msUntilAvailable } from '../runtime/pods.ts';
import { daemonPod, placement, targetNode } from './placement.ts';

const BURST_MAX = 250;

interface Work {
  /** Node names. */
  readonly create: string[];
  readonly remove: Pod[];
}

class DaemonSets {
  readonly #ctx: ReconcileContext;
  readonly #nodes;
  readonly expectations: Expectations;

  constructor(ctx: ReconcileContext) {
    this.#ctx = ctx;
    this.#nodes = ctx.informers.get<Node>(NODES);
    this.expectations = new Expectations(ctx.clock);
  }

  byNode(pods: readonly Pod[]): Map<string, Pod[]> {
    const groups = new Map<string, Pod[]>();
    for (const pod of pods) {
      const node = targetNode(pod);
      if (node === undefined) continue;
      const group = groups.get(node);
      if (group) group.push(pod);
      else groups.set(node, [pod]);
    }
    return groups;
  }

  /** Pods that are missing or too many, whatever their template. */
  placementWork(set: DaemonSet, byNode: ReadonlyMap<string, Pod[]>, hash: string): Work {
    const work: Work = { create: [], remove: [] };
    for (const node of this.#nodes.values()) {
      const { name } = node.metadata;
      const { shouldRun, mayStay } = placement(set, node);
      const pods = byNode.get(name) ?? [];
      if (shouldRun && pods.length === 0) work.create.push(name);
      else if (mayStay) {
        const alive: Pod[] = [];
        for (const pod of pods) {
          if (pod.metadata.deletionTimestamp) continue;
          if (pod.status?.phase === 'Failed') {
            this.#ctx.events.event(
              set,
              'Warning',
              'FailedDaemonPod',
              `Found failed daemon pod ${pod.metadata.namespace}/${pod.metadata.name} on node ${name}, will try to kill it`,
            );
            work.remove.push(pod);
          } else if (pod.status?.phase === 'Succeeded') work.remove.push(pod);
          else alive.push(pod);
        }
        this.#keepOldest(set, alive, hash, work);
      } else work.remove.push(...pods.filter(pod => !pod.metadata.deletionTimestamp));
    }
    return work;
  }

  // With maxSurge an old and a new pod share the node until the new one is available.
  #keepOldest(set: DaemonSet, alive: Pod[], hash: string, work: Work): void {
    if (alive.length < 2) return;
    const isNew = (pod: Pod) => pod.metadata.labels?.[REVISION_HASH] === hash;
    const surge = rollingBounds(set, 1).maxSurge > 0;
    const groups = surge ? [alive.filter(isNew), alive.filter(pod => !isNew(pod))] : [alive];
    const nowMs = this.#ctx.clock.now();
    if (surge && groups[0]!.some(pod => isPodAvailable(pod, set.spec.minReadySeconds ?? 0, nowMs)))
      work.remove.push(...groups.pop()!);
    for (const group of groups) {
      group.sort(
        (a, b) =>
          Number(Boolean(b.spec?.nodeName)) - Number(Boolean(a.spec?.nodeName)) ||
          ((a.metadata.creationTimestamp ?? '') < (b.metadata.creationTimestamp ?? '') ? -1 : 1),
      );
      work.remove.push(...group.slice(1));
    }
  }

  /** Old pods to replace now. */
  rollingWork(set: DaemonSet, byNode: ReadonlyMap<string, Pod[]>, hash: string): Work {
    const wantedNodes = [...this.#nodes.values()].filter(node => placement(set, node).shouldRun);
    const { maxSurge, maxUnavailable } = rollingBounds(set, wantedNodes.length);
    const nowMs = this.#ctx.clock.now();
    const available = (pod: Pod) =>
      !pod.metadata.deletionTimestamp && isPodAvailable(pod, set.spec.minReadySeconds ?? 0, nowMs);
    const work: Work = { create: [], remove: [] };
    const replaceable: { pod: Pod; node: string }[] = [];
    let unavailable = 0;
    let surging = 0;
    for (const { metadata } of wantedNodes) {
      const pods = (byNode.get(metadata.name) ?? []).filter(pod => !pod.metadata.deletionTimestamp);
      const old = pods.find(pod => pod.metadata.labels?.[REVISION_HASH] !== hash);
      const fresh = pods.find(pod => pod.metadata.labels?.[REVISION_HASH] === hash);
      if (!pods.some(available)) unavailable++;
      if (old && fresh) surging++;
      if (!old || fresh) continue;
      // One that does not work anyway costs nothing to replace.
      if (!available(old)) work.remove.push(old);
      else replaceable.push({ pod: old, node: metadata.name });
    }
    if (maxSurge > 0)
      work.create.push(...replaceable.slice(0, Math.max(0, maxSurge - surging)).map(({ node }) => node));
    else work.remove.push(...replaceable.slice(0, Math.max(0, maxUnavailable - unavailable)).map(({ pod }) => pod));
    return work;
  }

  async carryOut(set: DaemonSet, work: Work, hash: string): Promise<void> {
    const key = keyOf(set);
    const create = work.create.slice(0, BURST_MAX);
    const remove = work.remove.slice(0, BURST_MAX);
    if (create.length === 0 && remove.length === 0) return;
    this.expectations.expect(
      key,
      create.length,
      remove.map(pod => pod.metadata.uid!),
    );
    const { successes, error } = await slowStart({ count: create.length, first: 1 }, async index => {
      try {
        await createPod(this.#ctx, set, daemonPod(set, create[index]!, hash));
      } catch (failed) {
        if (!isNamespaceTerminating(failed)) throw failed;
      }
    });
    for (let i = successes; i < create.length; i++) this.expectations.created(key);
    let failure = error;
    await Promise.all(
      remove.map(async pod => {
        try {
          await deletePod(this.#ctx, set, pod);
        } catch (failed) {
          this.expectations.deleted(key, pod.metadata.uid!);
          if (!isReason(failed, 'NotFound')) failure ??= failed;
        }
      }),
    );
    if (failure !== undefined) throw failure;
  }

  status(
    set: DaemonSet,
    byNode: ReadonlyMap<string, Pod[]>,
    options: { hash: string; collisionCount: number | undefined },
  ): DaemonSetStatus {
    const nowMs = this.#ctx.clock.now();
    const counts = { desired: 0, current: 0, misscheduled: 0, ready: 0, available: 0, updated: 0 };
    for (const node of this.#nodes.values()) {
      const pods = byNode.get(node.metadata.name) ?? [];
      if (!placement(set, node).shouldRun) {
        if (pods.length > 0) counts.misscheduled++;
        continue;
      }
      counts.desired++;
      if (pods.length === 0) continue;
      counts.current++;
      const pod = [...pods].sort((a, b) => Number(isPodReady(b)) - Number(isPodReady(a)))[0]!;
      if (isPodReady(pod)) counts.ready++;
      if (isPodAvailable(pod, set.spec.minReadySeconds ?? 0, nowMs)) counts.available++;
      if (pods.some(candidate => candidate.metadata.labels?.[REVISION_HASH] === options.hash)) counts.updated++;
    }
    return {
      observedGeneration: set.metadata.generation ?? 0,
      desiredNumberScheduled: counts.desired,
      currentNumberScheduled: counts.current,
      numberMisscheduled: counts.misscheduled,
      numberReady: counts.ready,
      updatedNumberScheduled: counts.updated,
      ...(counts.available ? { numberAvailable: counts.available } : {}),
      ...(counts.desired - counts.available ? { numberUnavailable: counts.desired - counts.available } : {}),
      ...(options.collisionCount === undefined ? {} : { collisionCount: options.collisionCount }),
    };
  }
}

function rollingBounds(set: DaemonSet, nodes: number): { maxSurge: number; maxUnavailable: number } {
  const { maxSurge = 0, maxUnavailable = 1 } = set.spec.updateStrategy?.rollingUpdate ?? {};
  return rollingUpdateBounds({ maxSurge, maxUnavailable, replicas: nodes });
}

function create(ctx: ReconcileContext): Controller {
  const sets = ctx.informers.get<DaemonSet>(DAEMON_SETS);
  const pods = ctx.informers.get<Pod>(PODS);
  const revisions = ctx.informers.get<ControllerRevision>(CONTROLLER_REVISIONS);
  indexByController(pods as never);
  indexByController(revisions as never);
  const daemonSets = new DaemonSets(ctx);
  const { expectations } = daemonSets;

  return {
    name: 'daemonset',
    workers: 2,
    watches: [
      watch<DaemonSet>(DAEMON_SETS, change => {
        if (change.deleted) expectations.forget(keyOf(change.old));
        return [keyOf(latest(change))];
      }),
      watch<Pod>(PODS, change => {
        const pod = latest(change);
        const owner = controllerOf(pod);
        if (owner?.kind === 'DaemonSet') {
          const key = `${pod.metadata.namespace}/${owner.name}`;
          if (!change.old) expectations.created(key);
          if (change.deleted || pod.metadata.deletionTimestamp) expectations.deleted(key, pod.metadata.uid!);
        }
        return concerned(change, { kind: 'DaemonSet', owners: sets, selector: ({ spec }) => spec.selector });
      }),
      watch<Node>(NODES, change => {
        const facts = (node: Node | undefined) =>
          node && [node.metadata.labels, node.spec?.taints, node.spec?.unschedulable];
        return semanticEqual(facts(change.object), facts(change.old)) ? [] : [...sets.values()].map(keyOf);
      }),
      watch<ControllerRevision>(CONTROLLER_REVISIONS, () => []),
    ],
    async reconcile({ namespace, name }): Promise<Result | void> {
      const set = sets.get(`${namespace}/${name}`);
      if (!set) return;
      const { all, update, collisionCount } = await syncRevisions(ctx, set, { of: DAEMON_SETS, informer: revisions });
      if (set.metadata.deletionTimestamp) return;
      const hash = update.metadata.labels![REVISION_HASH]!;
      const mayChange = expectations.satisfied(keyOf(set));
      const claimed = await claim(ctx, {
        owner: set,
        ownerResource: DAEMON_SETS,
        of: PODS,
        selector: labelSelectorMatch(set.spec.selector),
        objects: [...dependents(pods, set), ...orphans(pods, namespace)],
      });
      const byNode = daemonSets.byNode(claimed);
      try {
        if (mayChange) {
          const missing = daemonSets.placementWork(set, byNode, hash);
          const rolling =
            missing.create.length + missing.remove.length === 0 && set.spec.updateStrategy?.type !== 'OnDelete';
          await daemonSets.carryOut(set, rolling ? daemonSets.rollingWork(set, byNode, hash) : missing, hash);
        }
      } finally {
        const status = daemonSets.status(set, byNode, { hash, collisionCount });
        if (!semanticEqual(set.status, status))
          await ctx.client.of<DaemonSet>(DAEMON_SETS).updateStatus({ ...set, status });
      }
      const live = new Set([update.metadata.name, ...claimed.map(pod => pod.metadata.labels?.[REVISION_HASH] ?? '')]);
      await truncateHistory(ctx, set, { all, live });
      const minReadySeconds = set.spec.minReadySeconds ?? 0;
      const waitMs = minReadySeconds > 0 ? msUntilAvailable(claimed, minReadySeconds, ctx.clock.now()) : undefined;
      if (waitMs !== undefined) return { requeueAfterMs: waitMs };
    },
  };
}

export const daemonSet: ControllerDefinition = { folder: 'daemonset', component: 'daemonset-controller', create };
