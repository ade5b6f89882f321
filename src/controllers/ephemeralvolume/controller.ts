/**
 * Generic ephemeral volumes: makes the claim of a pod's volume, named `<pod>-<volume>` and owned by the pod, so that it goes
 * with it. Refuses a claim of that name that the pod does not own.
 */

import type { PersistentVolumeClaim, Pod, Volume } from '../../api/core/v1.gen.ts';
import { isPodTerminal } from '../../api/machinery/pod.ts';
import { controllerOf, keyOf } from '../../api/meta.ts';
import { isReason } from '../../base/errors.ts';
import { PERSISTENT_VOLUME_CLAIMS, PODS } from '../../client/resources.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';
import { controllerReference } from '../runtime/ownership.ts';

const RETRY_MS = 10_000;

function create(ctx: ReconcileContext): Controller {
  const pods = ctx.informers.get<Pod>(PODS);
  const claims = ctx.informers.get<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS);

  async function ensure(pod: Pod, { name, ephemeral }: Volume): Promise<void> {
    const { metadata: template, spec } = ephemeral!.volumeClaimTemplate!;
    const claimName = `${pod.metadata.name}-${name}`;
    const known = claims.get(`${pod.metadata.namespace}/${claimName}`);
    if (known) {
      if (controllerOf(known)?.uid === pod.metadata.uid) return;
      throw new Error(`PVC ${keyOf(known)} was not created for pod ${keyOf(pod)} (pod is not owner)`);
    }
    try {
      await ctx.client.of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS).create({
        apiVersion: 'v1',
        kind: 'PersistentVolumeClaim',
        metadata: {
          name: claimName,
          namespace: pod.metadata.namespace!,
          ...(template?.labels ? { labels: { ...template.labels } } : {}),
          ...(template?.annotations ? { annotations: { ...template.annotations } } : {}),
          ownerReferences: [controllerReference(pod)],
        },
        spec: structuredClone(spec),
      });
    } catch (error) {
      if (isReason(error, 'AlreadyExists')) return ctx.enqueue(keyOf(pod), 100);
      throw error;
    }
  }

  return {
    name: 'ephemeralvolume',
    watches: [
      watch<Pod>(PODS, change =>
        !change.deleted && !change.old && change.object.spec?.volumes?.some(volume => volume.ephemeral)
          ? [keyOf(change.object)]
          : [],
      ),
      watch<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, change => {
        // A claim deleted by hand is made again.
        const owner = change.deleted ? controllerOf(change.old) : undefined;
        return owner?.kind === 'Pod' ? [`${change.old!.metadata.namespace}/${owner.name}`] : [];
      }),
    ],
    async reconcile({ namespace, name }) {
      const pod = pods.get(`${namespace}/${name}`);
      if (!pod || pod.metadata.deletionTimestamp || isPodTerminal(pod)) return;
      for (const volume of pod.spec.volumes ?? []) {
        if (!volume.ephemeral?.volumeClaimTemplate) continue;
        try {
          await ensure(pod, volume);
        } catch (error) {
          ctx.events.event(
            pod,
            'Warning',
            'FailedToCreateEphemeralVolumeClaim',
            `ephemeral volume ${volume.name}: ${(error as Error).message}`,
          );
          return { requeueAfterMs: RETRY_MS };
        }
      }
    },
  };
}

export const ephemeralVolume: ControllerDefinition = {
  folder: 'ephemeralvolume',
  component: 'ephemeral_volume',
  create,
};
