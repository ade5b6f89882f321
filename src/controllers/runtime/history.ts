/**
 * ControllerRevisions: the numbered templates of StatefulSets and DaemonSets, which `kubectl rollout history` and `undo`
 * read. Invariant: equal templates have one revision; using an old one again gives it the highest number.
 */

import type { ControllerRevision } from '../../api/apps/v1.gen.ts';
import type { PodTemplateSpec } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import { objectHash } from '../../api/machinery/pod.ts';
import type { KubeObject, LabelSelector } from '../../api/meta.ts';
import { isReason } from '../../base/errors.ts';
import type { Informer } from '../../client/informer.ts';
import { CONTROLLER_REVISIONS } from '../../client/resources.ts';
import type { ResourceId } from '../../client/transport.ts';
import type { ReconcileContext } from './controller.ts';
import { claim, controllerReference, dependents, orphans } from './ownership.ts';

export const REVISION_HASH = 'controller-revision-hash';

interface Revisioned extends KubeObject {
  spec: { template: PodTemplateSpec; selector: LabelSelector; revisionHistoryLimit?: number };
  status?: { collisionCount?: number };
}

export interface RevisionHistory {
  /** By number, lowest first; `update` is among them. */
  readonly all: readonly ControllerRevision[];
  /** That of the template as it is now. */
  readonly update: ControllerRevision;
  readonly collisionCount: number | undefined;
}

/** The patch that brings the template back, in the very bytes of upstream's: sorted, and with a time of creation that is null. */
export function dataOf({ spec: { template } }: { spec: { template: PodTemplateSpec } }): object {
  const metadata = { ...template.metadata, creationTimestamp: null };
  return sorted({ spec: { template: { ...template, metadata, $patch: 'replace' } } }) as object;
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([, inner]) => inner !== undefined);
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, inner]) => [key, sorted(inner)]));
}

export const templateOf = (revision: ControllerRevision): PodTemplateSpec =>
  (revision.data as { spec: { template: PodTemplateSpec } }).spec.template;

/** Finds or makes the revision of the present template. */
export async function syncRevisions(
  ctx: ReconcileContext,
  owner: Revisioned,
  options: { of: ResourceId; informer: Informer<ControllerRevision> },
): Promise<RevisionHistory> {
  const { namespace = '' } = owner.metadata;
  const all = await claim(ctx, {
    owner,
    ownerResource: options.of,
    of: CONTROLLER_REVISIONS,
    selector: labelSelectorMatch(owner.spec.selector),
    objects: [...dependents(options.informer, owner), ...orphans(options.informer, namespace)],
  });
  all.sort((a, b) => a.revision - b.revision);
  const client = ctx.client.of<ControllerRevision>(CONTROLLER_REVISIONS);
  const data = dataOf(owner);
  const last = all.at(-1);
  const equal = all.findLast(revision => semanticEqual(revision.data, data));
  const next = (last?.revision ?? 0) + 1;
  if (equal) {
    if (equal === last) return { all, update: equal, collisionCount: owner.status?.collisionCount };
    const update = await client.update({ ...equal, revision: next });
    return {
      all: [...all.filter(revision => revision !== equal), update],
      update,
      collisionCount: owner.status?.collisionCount,
    };
  }
  let collisionCount = owner.status?.collisionCount;
  for (;;) {
    const hash = objectHash(owner.spec.template, collisionCount);
    const draft: ControllerRevision = {
      apiVersion: 'apps/v1',
      kind: 'ControllerRevision',
      metadata: {
        name: `${owner.metadata.name}-${hash}`,
        namespace,
        labels: { ...owner.spec.template.metadata?.labels, [REVISION_HASH]: hash },
        ...(owner.metadata.annotations ? { annotations: { ...owner.metadata.annotations } } : {}),
        ownerReferences: [controllerReference(owner)],
      },
      data,
      revision: next,
    };
    try {
      const update = await client.create(draft);
      return { all: [...all, update], update, collisionCount };
    } catch (error) {
      if (!isReason(error, 'AlreadyExists')) throw error;
      const present = await client.get(namespace, draft.metadata.name);
      if (semanticEqual(present.data, data)) return { all: [...all, present], update: present, collisionCount };
      collisionCount = (collisionCount ?? 0) + 1;
    }
  }
}

/** Deletes the oldest revisions beyond the limit that no pod and no status names. */
export async function truncateHistory(
  ctx: ReconcileContext,
  owner: Revisioned,
  options: { all: readonly ControllerRevision[]; live: ReadonlySet<string> },
): Promise<void> {
  const idle = options.all.filter(
    ({ metadata }) => !options.live.has(metadata.name) && !options.live.has(metadata.labels?.[REVISION_HASH] ?? ''),
  );
  const excess = idle.slice(0, Math.max(0, idle.length - (owner.spec.revisionHistoryLimit ?? 10)));
  for (const { metadata } of excess) {
    try {
      await ctx.client.of(CONTROLLER_REVISIONS).delete(metadata.namespace!, metadata.name);
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
    }
  }
}
