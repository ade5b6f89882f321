/**
 * Creating and deleting pods on behalf of an owner, with the events upstream writes about it. Refuses to create a pod
 * that its owner would not control.
 */

import type { Pod, PodTemplateSpec } from '../../api/core/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { ApiError, isReason, messageOf } from '../../base/errors.ts';
import { PODS } from '../../client/resources.ts';
import type { ReconcileContext } from './controller.ts';
import { controllerReference } from './ownership.ts';

/** A pod as the template says, named `<owner>-` plus a suffix the server adds. */
export function podFromTemplate(template: PodTemplateSpec, owner: KubeObject): Pod {
  const { metadata = {} as NonNullable<PodTemplateSpec['metadata']>, spec } = template;
  const prefix = `${owner.metadata.name}-`;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      // A prefix too long for a name is used without the dash, as upstream does.
      generateName: prefix.length > 253 ? owner.metadata.name : prefix,
      namespace: owner.metadata.namespace!,
      labels: { ...metadata.labels },
      ...(metadata.annotations ? { annotations: { ...metadata.annotations } } : {}),
      ...(metadata.finalizers ? { finalizers: [...metadata.finalizers] } : {}),
      ownerReferences: [controllerReference(owner)],
    } as Pod['metadata'],
    spec: spec!,
  };
}

/** Creates the pod; a refusal is an event about the owner and is thrown. */
export async function createPod(ctx: ReconcileContext, owner: KubeObject, pod: Pod): Promise<Pod> {
  try {
    const created = await ctx.client.of<Pod>(PODS).create(pod);
    ctx.events.event(owner, 'Normal', 'SuccessfulCreate', `Created pod: ${created.metadata.name}`);
    return created;
  } catch (error) {
    if (!isNamespaceTerminating(error))
      ctx.events.event(owner, 'Warning', 'FailedCreate', `Error creating: ${messageOf(error)}`);
    throw error;
  }
}

/** Deletes the pod; one that is gone already counts as deleted, but throws NotFound so that expectations can be lowered. */
export async function deletePod(ctx: ReconcileContext, owner: KubeObject, pod: Pod): Promise<void> {
  const { name, namespace = '', uid } = pod.metadata;
  try {
    await ctx.client.of<Pod>(PODS).delete(namespace, name, uid ? { preconditions: { uid } } : {});
    ctx.events.event(owner, 'Normal', 'SuccessfulDelete', `Deleted pod: ${name}`);
  } catch (error) {
    if (!isReason(error, 'NotFound'))
      ctx.events.event(owner, 'Warning', 'FailedDelete', `Error deleting: ${messageOf(error)}`);
    throw error;
  }
}

/** True for the refusal of a create because its namespace goes away. */
export function isNamespaceTerminating(error: unknown): boolean {
  return (
    error instanceof ApiError &&
    error.status.details?.causes?.some(cause => cause.reason === 'NamespaceTerminating') === true
  );
}

/**
 * Runs `action(i)` for i < count in batches that double from `first`, stopping after the batch in which one fails: a quota
 * or a bad template then costs few requests. Returns how many succeeded, and the first error.
 */
export async function slowStart(
  options: { count: number; first: number },
  action: (index: number) => Promise<void>,
): Promise<{ successes: number; error: unknown }> {
  let successes = 0;
  let done = 0;
  for (
    let batch = Math.min(options.count, options.first);
    batch > 0;
    batch = Math.min(2 * batch, options.count - done)
  ) {
    const results = await Promise.allSettled(Array.from({ length: batch }, (_, i) => action(done + i)));
    done += batch;
    successes += results.filter(result => result.status === 'fulfilled').length;
    const failed = results.find(result => result.status === 'rejected');
    if (failed) return { successes, error: failed.reason };
  }
  return { successes, error: undefined };
}
