/**
 * Who owns what: controller references, and claiming of objects by selector (adopt orphans that match, release owned ones
 * that no longer do), as upstream's ControllerRefManager. Patches name the uid, so that a namesake is never claimed.
 */

import { labelSelectorMatch, type Match } from '../../api/machinery/labels.ts';
import { controllerOf, type KubeObject, keyOf, type LabelSelector, type OwnerReference } from '../../api/meta.ts';
import { failure, isReason } from '../../base/errors.ts';
import type { Informer } from '../../client/informer.ts';
import type { ResourceId } from '../../client/transport.ts';
import { type Change, latest, type ReconcileContext } from './controller.ts';

export function controllerReference(owner: KubeObject): OwnerReference {
  const { name, uid } = owner.metadata;
  return {
    apiVersion: owner.apiVersion,
    kind: owner.kind,
    name,
    uid: uid!,
    controller: true,
    blockOwnerDeletion: true,
  };
}

const CONTROLLER_INDEX = 'controller';

/** Lets `dependents` and `orphans` find objects without a scan. */
export function indexByController(informer: Informer<KubeObject>): void {
  informer.addIndex(CONTROLLER_INDEX, object => [
    controllerOf(object)?.uid ?? `orphan/${object.metadata.namespace ?? ''}`,
  ]);
}

/** Objects whose controller is the owner, from an informer indexed by `indexByController`. */
export function dependents<T extends KubeObject>(informer: Informer<T>, owner: KubeObject): T[] {
  return informer.byIndex(CONTROLLER_INDEX, owner.metadata.uid!);
}

/** Objects of the namespace that nothing controls. */
export function orphans<T extends KubeObject>(informer: Informer<T>, namespace: string): T[] {
  return informer.byIndex(CONTROLLER_INDEX, `orphan/${namespace}`);
}

/**
 * Keys of the owners of one kind that a change of an object concerns: its controller and the one it had before; for an orphan all that would
 * adopt it.
 */
export function concerned<T extends KubeObject>(
  change: Change<KubeObject>,
  { kind, owners, selector }: { kind: string; owners: Informer<T>; selector: (owner: T) => LabelSelector | undefined },
): string[] {
  const { metadata } = latest(change);
  const controller = controllerOf(latest(change));
  const before = change.old && controllerOf(change.old);
  const controllers = [controller, ...(before?.uid === controller?.uid ? [] : [before])];
  const keys = controllers.flatMap(one => (one?.kind === kind ? [`${metadata.namespace}/${one.name}`] : []));
  if (controller || change.deleted) return keys;
  const adopting = [...owners.values()].filter(
    owner => owner.metadata.namespace === metadata.namespace && labelSelectorMatch(selector(owner))(metadata.labels),
  );
  return [...keys, ...adopting.map(keyOf)];
}

export interface Claim<T extends KubeObject> {
  readonly owner: KubeObject;
  readonly ownerResource: ResourceId;
  readonly of: ResourceId;
  readonly selector: Match;
  readonly objects: readonly T[];
  /** Comes with the reference and goes with it. */
  readonly finalizer?: string;
  /** A further condition for adoption and keeping. */
  readonly accepts?: (object: T) => boolean;
}

/** The objects that the owner controls after adopting and releasing. */
export async function claim<T extends KubeObject>(ctx: ReconcileContext, options: Claim<T>): Promise<T[]> {
  const { owner, selector, accepts } = options;
  const kept: T[] = [];
  let adoptionAllowed: Promise<void> | undefined;
  for (const object of options.objects) {
    const matches = selector(object.metadata.labels) && (accepts?.(object) ?? true);
    const controller = controllerOf(object);
    if (controller) {
      if (controller.uid !== owner.metadata.uid) continue;
      if (matches) kept.push(object);
      else if (!owner.metadata.deletionTimestamp) await release(ctx, options, object);
      continue;
    }
    if (!matches || owner.metadata.deletionTimestamp || object.metadata.deletionTimestamp) continue;
    await (adoptionAllowed ??= assertStillThere(ctx, options));
    if (await adopt(ctx, options, object)) kept.push(object);
  }
  return kept;
}

// Adoption by a deleted owner would let the garbage collector take the orphan: ask the server, not the cache.
async function assertStillThere<T extends KubeObject>(
  ctx: ReconcileContext,
  { owner, ownerResource }: Claim<T>,
): Promise<void> {
  const { name, namespace = '', uid } = owner.metadata;
  const fresh = await ctx.client.of(ownerResource).get(namespace, name);
  if (fresh.metadata.uid !== uid)
    throw failure(
      409,
      'Conflict',
      `original ${owner.kind} ${namespace}/${name} is gone: got uid ${fresh.metadata.uid}, wanted ${uid}`,
    );
  if (fresh.metadata.deletionTimestamp)
    throw failure(409, 'Conflict', `${namespace}/${name} has just been deleted at ${fresh.metadata.deletionTimestamp}`);
}

async function adopt<T extends KubeObject>(
  ctx: ReconcileContext,
  { owner, of, finalizer }: Claim<T>,
  object: T,
): Promise<boolean> {
  const { name, namespace = '', uid } = object.metadata;
  try {
    await ctx.client.of(of).patch(
      namespace,
      name,
      {
        metadata: {
          ownerReferences: [controllerReference(owner)],
          uid,
          ...(finalizer ? { finalizers: [finalizer] } : {}),
        },
      },
      'application/strategic-merge-patch+json',
    );
    return true;
  } catch (error) {
    if (isReason(error, 'NotFound')) return false;
    throw error;
  }
}

async function release<T extends KubeObject>(
  ctx: ReconcileContext,
  { owner, of, finalizer }: Claim<T>,
  object: T,
): Promise<void> {
  const { name, namespace = '', uid } = object.metadata;
  try {
    await ctx.client.of(of).patch(
      namespace,
      name,
      {
        metadata: {
          ownerReferences: [{ $patch: 'delete', uid: owner.metadata.uid }],
          uid,
          ...(finalizer ? { '$deleteFromPrimitiveList/finalizers': [finalizer] } : {}),
        },
      },
      'application/strategic-merge-patch+json',
    );
  } catch (error) {
    // Gone, or its reference has been removed already: either way it is released.
    if (!isReason(error, 'NotFound', 'Invalid')) throw error;
  }
}
