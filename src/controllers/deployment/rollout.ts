/**
 * One pass over one Deployment: finds or makes the new replica set, scales the others by the strategy, writes status.
 * Invariant: a pass works on one consistent draft; a write that lost a race throws and the next pass starts afresh.
 */

import type { Deployment, DeploymentStatus, ReplicaSet } from '../../api/apps/v1.gen.ts';
import type { Pod } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { isPodTerminal, podTemplateHash } from '../../api/machinery/pod.ts';
import { controllerOf } from '../../api/meta.ts';
import { failure, isReason, messageOf } from '../../base/errors.ts';
import { DEPLOYMENTS, REPLICA_SETS } from '../../client/resources.ts';
import type { ReconcileContext, Result } from '../runtime/controller.ts';
import { controllerReference } from '../runtime/ownership.ts';
import { isNamespaceTerminating } from '../runtime/pod-control.ts';
import {
  activeOrLatest,
  activeSets,
  annotationNumber,
  DESIRED_REPLICAS,
  hasHistoryLimit,
  hasProgressDeadline,
  isRolling,
  isSaturated,
  newSetSize,
  proportionalSizes,
  replicasOf,
  setName,
  shrinkOldSets,
  sum,
  wanted,
} from './arithmetic.ts';
import {
  byRevision,
  findNewSet,
  maxRevision,
  newSetAnnotations,
  POD_TEMPLATE_HASH,
  REVISION,
  replicaAnnotations,
  sameTemplate,
} from './revision.ts';
import { calculateStatus, condition, isComplete, msUntilDeadline, rolloutStatus, withCondition } from './status.ts';

export class Rollout {
  readonly #ctx: ReconcileContext;
  /** As the pass knows it: writes replace it by what the server returned. */
  #deployment: Deployment;
  #sets: ReplicaSet[];
  readonly #podsOf: (set: ReplicaSet) => readonly Pod[];

  constructor(
    ctx: ReconcileContext,
    options: { deployment: Deployment; sets: readonly ReplicaSet[]; podsOf: (set: ReplicaSet) => readonly Pod[] },
  ) {
    this.#ctx = ctx;
    this.#deployment = options.deployment;
    this.#sets = [...options.sets];
    this.#podsOf = options.podsOf;
  }

  async run(): Promise<Result | void> {
    const deployment = this.#deployment;
    if (deployment.metadata.deletionTimestamp)
      return this.#writeStatus(calculateStatus(deployment, this.#sets, this.#newSet(), this.#now()));
    await this.#notePause();
    if (deployment.spec.paused) return this.#scaleOnly({ cleanup: true });
    if (await this.#isScaling()) return this.#scaleOnly({ cleanup: false });
    return isRolling(deployment) ? this.#rolling() : this.#recreate();
  }

  #now(): number {
    return this.#ctx.clock.now();
  }
  #newSet(): ReplicaSet | undefined {
    return findNewSet(this.#deployment, this.#sets);
  }
  #oldSets(): ReplicaSet[] {
    const newSet = this.#newSet();
    return this.#sets.filter(set => set.metadata.uid !== newSet?.metadata.uid);
  }

  async #notePause(): Promise<void> {
    const deployment = this.#deployment;
    const progressing = condition(deployment.status, 'Progressing');
    if (!hasProgressDeadline(deployment) || progressing?.reason === 'ProgressDeadlineExceeded') return;
    const noted = progressing?.reason === 'DeploymentPaused';
    if (Boolean(deployment.spec.paused) === noted) return;
    const next = deployment.spec.paused
      ? { type: 'Progressing' as const, status: 'Unknown', reason: 'DeploymentPaused', message: 'Deployment is paused' }
      : {
          type: 'Progressing' as const,
          status: 'Unknown',
          reason: 'DeploymentResumed',
          message: 'Deployment is resumed',
        };
    await this.#writeStatus(withCondition(deployment.status ?? {}, next, this.#now()));
  }

  async #isScaling(): Promise<boolean> {
    await this.#syncRevision({ create: false });
    return activeSets(this.#sets).some(set => {
      const desired = annotationNumber(set, DESIRED_REPLICAS);
      return desired !== undefined && desired !== wanted(this.#deployment);
    });
  }

  async #scaleOnly(options: { cleanup: boolean }): Promise<void> {
    await this.#syncRevision({ create: false });
    await this.#scaleAll();
    if (options.cleanup) await this.#cleanup();
    await this.#writeStatus(calculateStatus(this.#deployment, this.#sets, this.#newSet(), this.#now()));
  }

  async #scaleAll(): Promise<void> {
    const newSet = this.#newSet();
    const old = this.#oldSets();
    const only = activeOrLatest(newSet, old);
    if (only) return void (await this.#scale(only, wanted(this.#deployment)));
    if (isSaturated(this.#deployment, newSet)) {
      for (const set of activeSets(old)) await this.#scale(set, 0);
    } else if (isRolling(this.#deployment)) {
      for (const { set, to } of proportionalSizes(this.#deployment, activeSets(this.#sets)))
        await this.#resize(set, to);
    }
  }

  async #rolling(): Promise<Result | void> {
    const newSet = (await this.#syncRevision({ create: true }))!;
    const replicas = wanted(this.#deployment);
    const size =
      replicasOf(newSet) > replicas ? replicas : newSetSize(this.#deployment, this.#sets, replicasOf(newSet));
    if (size !== replicasOf(newSet)) {
      await this.#scale(newSet, size);
      return this.#syncStatus();
    }
    const shrinking = shrinkOldSets(this.#deployment, this.#sets, activeSets(this.#oldSets()), newSet);
    for (const { set, to } of shrinking) await this.#scale(this.#current(set), to);
    if (shrinking.length === 0 && isComplete(this.#deployment, this.#deployment.status)) await this.#cleanup();
    return this.#syncStatus();
  }

  async #recreate(): Promise<Result | void> {
    await this.#syncRevision({ create: false });
    const active = activeSets(this.#oldSets());
    for (const set of active) await this.#scale(set, 0);
    if (active.length > 0 || this.#oldPodsRun()) return this.#syncStatus();
    const newSet = (await this.#syncRevision({ create: true }))!;
    await this.#scale(newSet, wanted(this.#deployment));
    if (isComplete(this.#deployment, this.#deployment.status)) await this.#cleanup();
    return this.#syncStatus();
  }

  #oldPodsRun(): boolean {
    const old = this.#oldSets();
    return (
      sum(old, set => set.status?.replicas) > 0 || old.some(set => this.#podsOf(set).some(pod => !isPodTerminal(pod)))
    );
  }

  /** Makes annotations and status agree on the revision; creates the new replica set when asked. */
  async #syncRevision(options: { create: boolean }): Promise<ReplicaSet | undefined> {
    const existing = this.#newSet();
    const revision = maxRevision(this.#oldSets()) + 1n;
    if (!existing) return options.create ? this.#createNewSet(revision) : undefined;
    const annotations = newSetAnnotations(this.#deployment, existing.metadata.annotations ?? {}, {
      revision,
      exists: true,
    });
    const minReadySeconds = this.#deployment.spec.minReadySeconds ?? 0;
    let newSet = existing;
    if (
      !semanticEqual(annotations, existing.metadata.annotations) ||
      (existing.spec.minReadySeconds ?? 0) !== minReadySeconds
    ) {
      newSet = await this.#updateSet({
        ...existing,
        metadata: { ...existing.metadata, annotations },
        spec: { ...existing.spec, minReadySeconds },
      });
    }
    let status = this.#deployment.status ?? {};
    if (hasProgressDeadline(this.#deployment) && !condition(status, 'Progressing')) {
      status = withCondition(
        status,
        {
          type: 'Progressing',
          status: 'True',
          reason: 'FoundNewReplicaSet',
          message: `Found new replica set "${newSet.metadata.name}"`,
        },
        this.#now(),
      );
    }
    await this.#writeStatus(status, newSet.metadata.annotations?.[REVISION]);
    return newSet;
  }

  async #createNewSet(revision: bigint): Promise<ReplicaSet> {
    const deployment = this.#deployment;
    const hash = podTemplateHash(deployment.spec.template, deployment.status?.collisionCount);
    const { template, selector } = deployment.spec;
    const labels = { ...template.metadata?.labels, [POD_TEMPLATE_HASH]: hash };
    const replicas = newSetSize(deployment, this.#sets, 0);
    const draft: ReplicaSet = {
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      metadata: {
        name: setName(deployment.metadata.name, hash),
        namespace: deployment.metadata.namespace!,
        ownerReferences: [controllerReference(deployment)],
        labels,
        annotations: newSetAnnotations(deployment, {}, { revision, exists: false }),
      },
      spec: {
        replicas,
        ...(deployment.spec.minReadySeconds ? { minReadySeconds: deployment.spec.minReadySeconds } : {}),
        selector: { ...selector, matchLabels: { ...selector.matchLabels, [POD_TEMPLATE_HASH]: hash } },
        template: { ...template, metadata: { ...template.metadata, labels } as NonNullable<typeof template.metadata> },
      },
    };
    const { set, existed } = await this.#createOrFind(draft);
    this.#sets.push(set);
    if (!existed && replicas > 0)
      this.#ctx.events.event(
        deployment,
        'Normal',
        'ScalingReplicaSet',
        `Scaled up replica set ${set.metadata.name} from 0 to ${replicas}`,
      );
    let status = deployment.status ?? {};
    if (!existed && hasProgressDeadline(deployment)) {
      status = withCondition(
        status,
        {
          type: 'Progressing',
          status: 'True',
          reason: 'NewReplicaSetCreated',
          message: `Created new replica set "${set.metadata.name}"`,
        },
        this.#now(),
      );
    }
    await this.#writeStatus(status, String(revision));
    return set;
  }

  async #createOrFind(draft: ReplicaSet): Promise<{ set: ReplicaSet; existed: boolean }> {
    const client = this.#ctx.client.of<ReplicaSet>(REPLICA_SETS);
    const deployment = this.#deployment;
    try {
      return { set: await client.create(draft), existed: false };
    } catch (error) {
      if (isReason(error, 'AlreadyExists')) {
        const set = await client.get(draft.metadata.namespace!, draft.metadata.name);
        if (
          controllerOf(set)?.uid === deployment.metadata.uid &&
          sameTemplate(set.spec.template, deployment.spec.template)
        )
          return { set, existed: true };
        // Another template has this hash: the next pass hashes with the higher count.
        await this.#writeStatus({ ...deployment.status, collisionCount: (deployment.status?.collisionCount ?? 0) + 1 });
        throw failure(409, 'Conflict', `replica set ${draft.metadata.name} has another template; hashing again`);
      }
      if (isNamespaceTerminating(error)) throw error;
      const message = `Failed to create new replica set "${draft.metadata.name}": ${messageOf(error)}`;
      if (hasProgressDeadline(deployment)) {
        await this.#writeStatus(
          withCondition(
            deployment.status ?? {},
            { type: 'Progressing', status: 'False', reason: 'ReplicaSetCreateError', message },
            this.#now(),
          ),
        );
      }
      this.#ctx.events.event(deployment, 'Warning', 'ReplicaSetCreateError', message);
      throw error;
    }
  }

  #current(set: ReplicaSet): ReplicaSet {
    return this.#sets.find(candidate => candidate.metadata.uid === set.metadata.uid) ?? set;
  }

  async #scale(set: ReplicaSet, to: number): Promise<void> {
    if (replicasOf(set) !== to) await this.#resize(set, to);
  }

  async #resize(set: ReplicaSet, to: number): Promise<void> {
    const from = replicasOf(set);
    const annotations = { ...set.metadata.annotations, ...replicaAnnotations(this.#deployment) };
    if (from === to && semanticEqual(annotations, set.metadata.annotations)) return;
    await this.#updateSet({ ...set, metadata: { ...set.metadata, annotations }, spec: { ...set.spec, replicas: to } });
    if (from !== to) {
      this.#ctx.events.event(
        this.#deployment,
        'Normal',
        'ScalingReplicaSet',
        `Scaled ${from < to ? 'up' : 'down'} replica set ${set.metadata.name} from ${from} to ${to}`,
      );
    }
  }

  async #updateSet(next: ReplicaSet): Promise<ReplicaSet> {
    const written = await this.#ctx.client.of<ReplicaSet>(REPLICA_SETS).update(next);
    this.#sets = this.#sets.map(set => (set.metadata.uid === written.metadata.uid ? written : set));
    return written;
  }

  async #cleanup(): Promise<void> {
    const deployment = this.#deployment;
    if (!hasHistoryLimit(deployment)) return;
    const alive = this.#oldSets().filter(set => !set.metadata.deletionTimestamp);
    const excess = alive.length - deployment.spec.revisionHistoryLimit!;
    if (excess <= 0) return;
    for (const set of alive.sort(byRevision).slice(0, excess)) {
      const settled = (set.metadata.generation ?? 0) <= (set.status?.observedGeneration ?? 0);
      if ((set.status?.replicas ?? 0) !== 0 || replicasOf(set) !== 0 || !settled) continue;
      try {
        await this.#ctx.client
          .of(REPLICA_SETS)
          .delete(set.metadata.namespace!, set.metadata.name, { propagationPolicy: 'Background' });
      } catch (error) {
        if (!isReason(error, 'NotFound')) throw error;
      }
    }
  }

  async #syncStatus(): Promise<Result | void> {
    const status = rolloutStatus(this.#deployment, this.#sets, this.#newSet(), this.#now());
    await this.#writeStatus(status);
    const waitMs = msUntilDeadline(this.#deployment, status, this.#now());
    if (waitMs !== undefined) return { requeueAfterMs: waitMs };
  }

  /** Writes status, and the revision annotation, which upstream lets through the status subresource. */
  async #writeStatus(status: DeploymentStatus, revision?: string): Promise<void> {
    const deployment = this.#deployment;
    const revisionChanged = revision !== undefined && deployment.metadata.annotations?.[REVISION] !== revision;
    if (!revisionChanged && semanticEqual(deployment.status ?? {}, status)) return;
    const metadata = revisionChanged
      ? { ...deployment.metadata, annotations: { ...deployment.metadata.annotations, [REVISION]: revision } }
      : deployment.metadata;
    this.#deployment = await this.#ctx.client
      .of<Deployment>(DEPLOYMENTS)
      .updateStatus({ ...deployment, metadata, status });
  }
}
