/**
 * StatefulSets: pods with stable names and claims, made and removed in order (or in parallel). Invariant: a pod of an
 * ordinal is created only when none of that name is there, and one is deleted by uid, so a stale view cannot harm.
 */

import type { ControllerRevision, StatefulSet, StatefulSetStatus } from '../../api/apps/v1.gen.ts';
import type { PersistentVolumeClaim, Pod } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { scaledValue } from '../../api/machinery/int-or-string.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import { isPodAvailable, isPodReady, isPodTerminal } from '../../api/machinery/pod.ts';
import { controllerOf, keyOf } from '../../api/meta.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import { metrics } from '../../base/metrics.ts';
import { CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';
import { syncRevisions, truncateHistory } from '../runtime/history.ts';
import { claim, concerned, controllerReference, dependents, indexByController, orphans } from '../runtime/ownership.ts';
import { msUntilAvailable } from '../runtime/pods.ts';
import { claimsFor, ordinalOf, podFor, revisionOfPod, startOrdinal } from './identity.ts';

interface Pass {
  readonly set: StatefulSet;
  /** By ordinal; those that the pass makes come in, so that one status tells of the change and of what came of it. */
  readonly pods: Map<number, Pod>;
  readonly current: ControllerRevision;
  readonly update: ControllerRevision;
}

const LABELS = ['statefulset_namespace', 'statefulset_name', 'pod_management_policy'];
const maxUnavailables = metrics.gauge(
  'statefulset_controller_statefulset_max_unavailable',
  'Maximum number of unavailable pods allowed during StatefulSet rolling updates',
  LABELS,
);
const unavailables = metrics.gauge(
  'statefulset_controller_statefulset_unavailable_replicas',
  'Current number of unavailable pods in StatefulSet',
  LABELS,
);
const labelsOf = ({ metadata, spec }: StatefulSet): [string, string, string] => [
  metadata.namespace!,
  metadata.name,
  spec.podManagementPolicy ?? 'OrderedReady',
];
function forget(set: StatefulSet): void {
  for (const gauge of [maxUnavailables, unavailables]) gauge.remove(...labelsOf(set));
}

class StatefulSets {
  readonly #ctx: ReconcileContext;

  constructor(ctx: ReconcileContext) {
    this.#ctx = ctx;
  }

  /** One step, or in parallel mode all steps that are possible now. */
  async step(pass: Pass): Promise<void> {
    const { set, pods } = pass;
    const first = startOrdinal(set);
    const end = first + (set.spec.replicas ?? 1);
    const ordered = set.spec.podManagementPolicy !== 'Parallel';
    for (let ordinal = first; ordinal < end; ordinal++) {
      const pod = pods.get(ordinal);
      if (!pod) {
        await this.#create(pass, ordinal);
        if (ordered) return;
      } else if (isPodTerminal(pod)) {
        // A finished pod is replaced; it must be gone before its name can be used again.
        if (!pod.metadata.deletionTimestamp) await this.#delete(set, pod);
        if (ordered) return;
      } else if (ordered && !this.#isHealthy(set, pod)) return;
    }
    const condemned = [...pods.keys()].filter(ordinal => ordinal < first || ordinal >= end).sort((a, b) => b - a);
    for (const ordinal of condemned) {
      const pod = pods.get(ordinal)!;
      if (!pod.metadata.deletionTimestamp) await this.#delete(set, pod);
      if (ordered) return;
    }
    if (set.spec.updateStrategy?.type !== 'OnDelete') await this.#roll(pass, first, end);
  }

  #isHealthy(set: StatefulSet, pod: Pod): boolean {
    return !pod.metadata.deletionTimestamp && isPodAvailable(pod, set.spec.minReadySeconds ?? 0, this.#ctx.clock.now());
  }

  /** Replaces pods of another revision from the highest ordinal down to the partition. */
  async #roll({ set, pods, update }: Pass, first: number, end: number): Promise<void> {
    const { partition = 0, maxUnavailable = 1 } = set.spec.updateStrategy?.rollingUpdate ?? {};
    const budget = Math.max(1, scaledValue(maxUnavailable, set.spec.replicas ?? 1, 'up') ?? 1);
    let unavailable = 0;
    for (let ordinal = end - 1; ordinal >= first; ordinal--) {
      const pod = pods.get(ordinal);
      if (!pod || !this.#isHealthy(set, pod)) unavailable++;
    }
    maxUnavailables.set(budget, ...labelsOf(set));
    unavailables.set(unavailable, ...labelsOf(set));
    for (let ordinal = end - 1; ordinal >= first + partition; ordinal--) {
      const pod = pods.get(ordinal);
      if (pod && !pod.metadata.deletionTimestamp && revisionOfPod(pod) !== update.metadata.name) {
        const wasHealthy = this.#isHealthy(set, pod);
        if (wasHealthy && unavailable >= budget) return;
        await this.#delete(set, pod);
        if (wasHealthy) unavailable++;
        if (budget === 1) return;
      } else if (budget === 1 && (!pod || !this.#isHealthy(set, pod))) return;
    }
  }

  #revisionFor({ set, current, update }: Pass, ordinal: number): ControllerRevision {
    const strategy = set.spec.updateStrategy;
    if (current === update || strategy?.type === 'OnDelete') return update;
    const old = strategy?.rollingUpdate ? (strategy.rollingUpdate.partition ?? 0) : (set.status?.currentReplicas ?? 0);
    return ordinal < startOrdinal(set) + old ? current : update;
  }

  async #create(pass: Pass, ordinal: number): Promise<void> {
    const { set } = pass;
    const pod = podFor(set, ordinal, this.#revisionFor(pass, ordinal));
    const { events, client } = this.#ctx;
    for (const wanted of claimsFor(set, ordinal)) await this.#createClaim(set, pod, wanted);
    try {
      pass.pods.set(ordinal, await client.of<Pod>(PODS).create(pod));
      events.event(
        set,
        'Normal',
        'SuccessfulCreate',
        `create Pod ${pod.metadata.name} in StatefulSet ${set.metadata.name} successful`,
      );
    } catch (error) {
      if (isReason(error, 'AlreadyExists')) {
        const present = await client.of<Pod>(PODS).get(set.metadata.namespace!, pod.metadata.name);
        if (controllerOf(present)?.uid === set.metadata.uid) return;
      }
      events.event(
        set,
        'Warning',
        'FailedCreate',
        `create Pod ${pod.metadata.name} in StatefulSet ${set.metadata.name} failed error: ${messageOf(error)}`,
      );
      throw error;
    }
  }

  async #createClaim(set: StatefulSet, pod: Pod, wanted: PersistentVolumeClaim): Promise<void> {
    const claims = this.#ctx.informers.get<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS);
    if (claims.get(keyOf(wanted))) return;
    const ownerReferences =
      set.spec.persistentVolumeClaimRetentionPolicy?.whenDeleted === 'Delete' ? [controllerReference(set)] : undefined;
    const what = `Claim ${wanted.metadata.name} Pod ${pod.metadata.name} in StatefulSet ${set.metadata.name}`;
    try {
      await this.#ctx.client
        .of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS)
        .create({ ...wanted, metadata: { ...wanted.metadata, ...(ownerReferences ? { ownerReferences } : {}) } });
      this.#ctx.events.event(set, 'Normal', 'SuccessfulCreate', `create ${what} success`);
    } catch (error) {
      if (isReason(error, 'AlreadyExists')) return;
      this.#ctx.events.event(set, 'Warning', 'FailedCreate', `create ${what} failed error: ${messageOf(error)}`);
      throw error;
    }
  }

  async #delete(set: StatefulSet, pod: Pod): Promise<void> {
    const what = `delete Pod ${pod.metadata.name} in StatefulSet ${set.metadata.name}`;
    try {
      await this.#releaseClaims(set, pod);
      await this.#ctx.client
        .of<Pod>(PODS)
        .delete(pod.metadata.namespace!, pod.metadata.name, { preconditions: { uid: pod.metadata.uid! } });
      this.#ctx.events.event(set, 'Normal', 'SuccessfulDelete', `${what} successful`);
    } catch (error) {
      if (isReason(error, 'NotFound')) return;
      this.#ctx.events.event(set, 'Warning', 'FailedDelete', `${what} failed error: ${messageOf(error)}`);
      throw error;
    }
  }

  /** With whenScaled: Delete the claims of a pod beyond the size go with it. */
  async #releaseClaims(set: StatefulSet, pod: Pod): Promise<void> {
    const ordinal = ordinalOf(set, pod.metadata.name)!;
    const inside = ordinal >= startOrdinal(set) && ordinal < startOrdinal(set) + (set.spec.replicas ?? 1);
    if (inside || set.spec.persistentVolumeClaimRetentionPolicy?.whenScaled !== 'Delete') return;
    const owner = { apiVersion: 'v1', kind: 'Pod', name: pod.metadata.name, uid: pod.metadata.uid! };
    for (const { metadata } of claimsFor(set, ordinal)) {
      await this.#ctx.client
        .of(PERSISTENT_VOLUME_CLAIMS)
        .patch(
          set.metadata.namespace!,
          metadata.name,
          { metadata: { ownerReferences: [owner] } },
          'application/strategic-merge-patch+json',
        );
    }
  }

  status({ set, pods, current, update }: Pass, collisionCount: number | undefined): StatefulSetStatus {
    const nowMs = this.#ctx.clock.now();
    const first = startOrdinal(set);
    const end = first + (set.spec.replicas ?? 1);
    const made = [...pods.values()].filter(pod => !isPodTerminal(pod));
    const count = (test: (pod: Pod) => boolean) => made.filter(test).length;
    const alive = (pod: Pod) =>
      !pod.metadata.deletionTimestamp &&
      ordinalOf(set, pod.metadata.name)! >= first &&
      ordinalOf(set, pod.metadata.name)! < end;
    const readyReplicas = count(pod => isPodReady(pod));
    const updatedReplicas = count(pod => alive(pod) && revisionOfPod(pod) === update.metadata.name);
    const complete = updatedReplicas === made.length && readyReplicas === made.length && made.length === end - first;
    const currentRevision = complete ? update : current;
    return {
      observedGeneration: set.metadata.generation ?? 0,
      replicas: made.length,
      readyReplicas,
      availableReplicas: count(pod => isPodAvailable(pod, set.spec.minReadySeconds ?? 0, nowMs)),
      currentReplicas: complete
        ? updatedReplicas
        : count(pod => alive(pod) && revisionOfPod(pod) === current.metadata.name),
      updatedReplicas,
      currentRevision: currentRevision.metadata.name,
      updateRevision: update.metadata.name,
      collisionCount: collisionCount ?? 0,
    };
  }
}

function create(ctx: ReconcileContext): Controller {
  const sets = ctx.informers.get<StatefulSet>(STATEFUL_SETS);
  const pods = ctx.informers.get<Pod>(PODS);
  const revisions = ctx.informers.get<ControllerRevision>(CONTROLLER_REVISIONS);
  indexByController(pods as never);
  indexByController(revisions as never);
  const statefulSets = new StatefulSets(ctx);

  return {
    name: 'statefulset',
    watches: [
      watch<StatefulSet>(STATEFUL_SETS, change => {
        if (change.deleted) forget(change.old);
        return [keyOf(latest(change))];
      }),
      watch<Pod>(PODS, change =>
        concerned(change, { kind: 'StatefulSet', owners: sets, selector: ({ spec }) => spec.selector }),
      ),
      watch<ControllerRevision>(CONTROLLER_REVISIONS, () => []),
      watch<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, () => []),
    ],
    async reconcile({ namespace, name }): Promise<Result | void> {
      const set = sets.get(`${namespace}/${name}`);
      if (!set) return;
      const claimed = await claim(ctx, {
        owner: set,
        ownerResource: STATEFUL_SETS,
        of: PODS,
        selector: labelSelectorMatch(set.spec.selector),
        objects: [...dependents(pods, set), ...orphans(pods, namespace)],
        accepts: pod => ordinalOf(set, pod.metadata.name) !== undefined,
      });
      const { all, update, collisionCount } = await syncRevisions(ctx, set, { of: STATEFUL_SETS, informer: revisions });
      const current = all.find(revision => revision.metadata.name === set.status?.currentRevision) ?? update;
      const pass: Pass = {
        set,
        pods: new Map(claimed.map(pod => [ordinalOf(set, pod.metadata.name)!, pod])),
        current,
        update,
      };
      try {
        if (!set.metadata.deletionTimestamp) await statefulSets.step(pass);
      } finally {
        const status = statefulSets.status(pass, collisionCount);
        if (!semanticEqual(set.status, status))
          await ctx.client.of<StatefulSet>(STATEFUL_SETS).updateStatus({
            ...set,
            status: { ...(set.status?.conditions ? { conditions: set.status.conditions } : {}), ...status },
          });
      }
      await truncateHistory(ctx, set, {
        all,
        live: new Set([current.metadata.name, update.metadata.name, ...claimed.map(revisionOfPod)]),
      });
      const minReadySeconds = set.spec.minReadySeconds ?? 0;
      const waitMs = minReadySeconds > 0 ? msUntilAvailable(claimed, minReadySeconds, ctx.clock.now()) : undefined;
      if (waitMs !== undefined) return { requeueAfterMs: waitMs };
    },
  };
}

export const statefulSet: ControllerDefinition = { folder: 'statefulset', component: 'statefulset-controller', create };
