/**
 * Reclaim policy Recycle: a pod empties the volume, which is then free for another claim. Only for volumes that such a pod can
 * mount without their claim: nfs and hostPath. Invariant: the volume is freed only after the pod succeeded; the pod's name
 * comes from the volume's, so two are never at work on one.
 */

import type { PersistentVolume, Pod } from '../../api/core/v1.gen.ts';
import { NODE_TOOLS_IMAGE } from '../../base/cluster-defaults.ts';
import { isReason } from '../../base/errors.ts';
import { PODS } from '../../client/resources.ts';
import type { ReconcileContext } from '../runtime/controller.ts';
import type { Bindings } from './binding.ts';

const NAMESPACE = 'default';
const SECONDS_MAX = 300;
const SCRUB = 'test -e /scrub && find /scrub -mindepth 1 -delete && test -z "$(ls -A /scrub)" || exit 1';

export const recyclerName = (volume: string): string => `recycler-for-${volume}`;
/** The volume that a recycler's name tells of. */
export function recycledBy(pod: Pod): string | undefined {
  const { name, namespace } = pod.metadata;
  return namespace === NAMESPACE && name.startsWith('recycler-for-') ? name.slice('recycler-for-'.length) : undefined;
}

export async function recycle(ctx: ReconcileContext, bindings: Bindings, volume: PersistentVolume): Promise<void> {
  const { hostPath, nfs } = volume.spec ?? {};
  const fail = async (message: string) => {
    await bindings.setPhase(volume, 'Failed', message);
    ctx.events.event(volume, 'Warning', 'VolumeFailedRecycle', message);
  };
  if (!hostPath && !nfs) {
    if (volume.status?.phase !== 'Failed') await fail('No recycler plugin found for the volume!');
    return;
  }
  if (volume.status?.phase === 'Failed') return;
  const pods = ctx.client.of<Pod>(PODS);
  const name = recyclerName(volume.metadata.name);
  const pod = ctx.informers.get<Pod>(PODS).get(`${NAMESPACE}/${name}`);
  if (!pod) {
    try {
      await pods.create(recycler(volume, name));
    } catch (error) {
      if (!isReason(error, 'AlreadyExists')) throw error;
    }
    return;
  }
  const { phase, message } = pod.status ?? {};
  if (phase !== 'Succeeded' && phase !== 'Failed') return;
  if (phase === 'Succeeded') {
    await bindings.unbind(volume);
    ctx.events.event(volume, 'Normal', 'VolumeRecycled', 'Volume recycled');
  } else await fail(`Recycle failed: ${message || 'Pod failed, pod.Status.Message unknown'}`);
  await pods.delete(NAMESPACE, name, { preconditions: { uid: pod.metadata.uid! } }).catch(error => {
    if (!isReason(error, 'NotFound')) throw error;
  });
}

function recycler(volume: PersistentVolume, name: string): Pod {
  const { hostPath, nfs, nodeAffinity } = volume.spec!;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: NAMESPACE },
    spec: {
      activeDeadlineSeconds: SECONDS_MAX,
      restartPolicy: 'Never',
      ...(nodeAffinity?.required
        ? {
            affinity: {
              nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: nodeAffinity.required },
            },
          }
        : {}),
      volumes: [{ name: 'vol', ...(hostPath ? { hostPath } : { nfs: nfs! }) }],
      containers: [
        {
          name: 'recycler-container',
          image: NODE_TOOLS_IMAGE,
          imagePullPolicy: 'IfNotPresent',
          command: ['/bin/sh', '-c', SCRUB],
          volumeMounts: [{ name: 'vol', mountPath: '/scrub' }],
        },
      ],
    },
  };
}
