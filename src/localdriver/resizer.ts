/**
 * Grows volumes whose claims ask for more, and changes their attributes: external-resizer's part. The order is that of the data: the
 * disk first, then the persistent volume says so, then the node grows the file system, and last the claim says so. Nothing shrinks.
 */

import type { PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus } from '../api/core/v1.gen.ts';
import { translateVolume } from '../api/machinery/csi-migration.ts';
import { semanticEqual } from '../api/machinery/equality.ts';
import { formatNano, quantityValue } from '../api/machinery/quantity.ts';
import { volumeBytes } from '../api/machinery/volume.ts';
import { keyOf } from '../api/meta.ts';
import type { VolumeAttributesClass } from '../api/storage/v1.gen.ts';
import { formatTime } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import { PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, VOLUME_ATTRIBUTES_CLASSES } from '../client/resources.ts';
import { isUncertain } from '../csi/grpc.ts';
import { capabilityOf } from '../csi/names.ts';
import type { Sidecar, SidecarContext } from './work.ts';

const PENDING = 'FileSystemResizePending';

export function resizer(context: SidecarContext): Sidecar {
  const { driver, csi, client, informers, events, clock } = context;
  const claims = informers.get<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS);
  const volumes = informers.get<PersistentVolume>(PERSISTENT_VOLUMES);

  const setStatus = async (claim: PersistentVolumeClaim, status: PersistentVolumeClaimStatus) => {
    if (semanticEqual(claim.status, status)) return claim;
    return client.of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS).updateStatus({ ...claim, status });
  };
  const withCondition = (
    status: PersistentVolumeClaimStatus,
    type: string,
    message: string,
  ): PersistentVolumeClaimStatus => {
    const known = status.conditions?.find(one => one.type === type);
    const others = (status.conditions ?? []).filter(one => one.type !== 'Resizing' && one.type !== PENDING);
    const lastTransitionTime = known?.lastTransitionTime ?? formatTime(clock.now());
    return {
      ...status,
      conditions: [...others, { type, status: 'True', lastTransitionTime, ...(message ? { message } : {}) }],
    };
  };

  async function grow(stored: PersistentVolumeClaim, volume: PersistentVolume, signal: AbortSignal): Promise<void> {
    const storage = stored.spec?.resources?.requests?.['storage'];
    const wanted = quantityValue(storage);
    const known = quantityValue(stored.status?.capacity?.['storage']);
    if (!storage || !known || wanted <= known) return;
    let claim = stored;
    if (volumeBytes(volume) < wanted) {
      claim = await setStatus(claim, {
        ...withCondition(claim.status!, 'Resizing', ''),
        allocatedResources: { ...claim.status!.allocatedResources, storage },
        allocatedResourceStatuses: {
          ...claim.status!.allocatedResourceStatuses,
          storage: 'ControllerResizeInProgress',
        },
      });
      events.event(claim, 'Normal', 'Resizing', `External resizer is resizing volume ${volume.metadata.name}`);
      try {
        const { capacityBytes, nodeExpansionRequired } = await csi.call(
          'controllerExpandVolume',
          {
            volumeId: volume.spec!.csi!.volumeHandle,
            capacityRange: { requiredBytes: wanted, limitBytes: 0 },
            volumeCapability: capabilityOf(volume, { knowsPods: true }),
          },
          { signal },
        );
        const grown = await client.of<PersistentVolume>(PERSISTENT_VOLUMES).patch('', volume.metadata.name, {
          spec: { capacity: { storage: formatNano(BigInt(Math.max(capacityBytes, wanted)) * 10n ** 9n, 'binary') } },
        });
        if (!nodeExpansionRequired) return finish(claim, grown);
        events.event(claim, 'Normal', 'FileSystemResizeRequired', 'Require file system resize of volume on node');
      } catch (error) {
        events.event(
          claim,
          'Warning',
          'VolumeResizeFailed',
          `resize volume ${JSON.stringify(volume.metadata.name)} by resizer ${JSON.stringify(driver)} failed: ${messageOf(error)}`,
        );
        if (!isUncertain(error))
          await setStatus(claim, {
            ...claim.status!,
            allocatedResourceStatuses: {
              ...claim.status!.allocatedResourceStatuses,
              storage: 'ControllerResizeInfeasible',
            },
          });
        throw error;
      }
    }
    await setStatus(claim, {
      ...withCondition(
        claim.status!,
        PENDING,
        'Waiting for user to (re-)start a pod to finish file system resize of volume on node.',
      ),
      allocatedResourceStatuses: { ...claim.status!.allocatedResourceStatuses, storage: 'NodeResizePending' },
    });
  }
  async function finish(claim: PersistentVolumeClaim, volume: PersistentVolume): Promise<void> {
    const { allocatedResourceStatuses: _, conditions = [], ...status } = claim.status!;
    await setStatus(claim, {
      ...status,
      capacity: { ...status.capacity, storage: volume.spec!.capacity!['storage']! },
      conditions: conditions.filter(({ type }) => type !== 'Resizing' && type !== PENDING),
    });
    events.event(claim, 'Normal', 'VolumeResizeSuccessful', 'Resize volume succeeded');
  }

  async function modify(claim: PersistentVolumeClaim, volume: PersistentVolume, signal: AbortSignal): Promise<void> {
    const wanted = claim.spec?.volumeAttributesClassName;
    if (!wanted || wanted === claim.status?.currentVolumeAttributesClassName) return;
    let current = claim;
    const tell = async (status: string): Promise<void> => {
      const modifyVolumeStatus = { targetVolumeAttributesClassName: wanted, status };
      current = await setStatus(current, { ...current.status, modifyVolumeStatus });
    };
    const fail = async (status: string, message: string) => {
      events.event(claim, 'Warning', 'VolumeModifyFailed', message);
      await tell(status);
    };
    const found = await client
      .of<VolumeAttributesClass>(VOLUME_ATTRIBUTES_CLASSES)
      .get('', wanted)
      .catch(async error => {
        await fail('Pending', `getting VolumeAttributesClass ${wanted} failed: ${messageOf(error)}`);
        throw error;
      });
    if (found.driverName !== driver)
      return fail('Pending', `VolumeAttributesClass ${wanted} is for driver ${found.driverName}, not ${driver}`);
    await tell('InProgress');
    try {
      await csi.call(
        'controllerModifyVolume',
        { volumeId: volume.spec!.csi!.volumeHandle, mutableParameters: { ...found.parameters } },
        { signal },
      );
    } catch (error) {
      await fail(
        isUncertain(error) ? 'InProgress' : 'Infeasible',
        `modify volume ${volume.metadata.name} failed: ${messageOf(error)}`,
      );
      throw error;
    }
    await client
      .of<PersistentVolume>(PERSISTENT_VOLUMES)
      .patch('', volume.metadata.name, { spec: { volumeAttributesClassName: wanted } });
    const { modifyVolumeStatus: _, ...status } = current.status ?? {};
    await setStatus(current, { ...status, currentVolumeAttributesClassName: wanted });
    events.event(claim, 'Normal', 'VolumeModifySuccessful', 'external resizer modified volume successfully');
  }

  const concerns = (claim: PersistentVolumeClaim): boolean =>
    claim.status?.phase === 'Bound' && Boolean(claim.spec?.volumeName);
  return {
    watches: [
      {
        of: PERSISTENT_VOLUME_CLAIMS,
        keys: (object, isDeleted) => (!isDeleted && concerns(object as PersistentVolumeClaim) ? [keyOf(object)] : []),
      },
      { of: PERSISTENT_VOLUMES, keys: () => [] },
    ],
    async reconcile(key, signal) {
      const claim = claims.get(key);
      if (!claim || !concerns(claim)) return;
      const stored = volumes.get(claim.spec!.volumeName!);
      const volume = stored && (translateVolume(stored) ?? stored);
      if (!volume || volume.spec?.csi?.driver !== driver || volume.spec.claimRef?.uid !== claim.metadata.uid) return;
      if (context.isOurs && !context.isOurs(volume)) return;
      await modify(claim, volume, signal);
      const after = claims.get(key) ?? claim;
      await grow(after, volume, signal);
    },
  };
}
