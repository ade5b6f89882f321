/** Deleting pods that have to go because of where they run, as upstream's taint managers do. */

import type { Pod } from '../../api/core/v1.gen.ts';
import { formatTime } from '../../base/clock.ts';
import { isReason } from '../../base/errors.ts';
import { PODS } from '../../client/resources.ts';
import type { ReconcileContext } from './controller.ts';

/** Says why in the pod's DisruptionTarget condition, then deletes it with its grace. One that is gone, or another of its name, is left. */
export async function evictPod(
  ctx: ReconcileContext,
  { metadata: { namespace = '', name, uid } }: Pod,
  why: { readonly reason: string; readonly message: string },
): Promise<void> {
  const target = { type: 'DisruptionTarget', status: 'True', ...why, lastTransitionTime: formatTime(ctx.clock.now()) };
  const pods = ctx.client.of<Pod>(PODS);
  try {
    await pods.patchStatus(
      namespace,
      name,
      { metadata: { uid }, status: { conditions: [target] } },
      'application/strategic-merge-patch+json',
    );
    await pods.delete(namespace, name, { preconditions: { uid: uid! } });
  } catch (error) {
    if (!isReason(error, 'NotFound')) throw error;
  }
}
