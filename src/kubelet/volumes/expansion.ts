/**
 * The node's part of growing a volume: when the persistent volume is larger than its claim says, the file system on it grows, and
 * then the claim says so too. Done before containers start, and while they run. Nothing shrinks.
 */

import type { PersistentVolumeClaim } from '../../api/core/v1.gen.ts';
import { quantityValue } from '../../api/machinery/quantity.ts';
import { messageOf } from '../../base/errors.ts';
import type { VolumeContext, VolumePlugin, VolumeTarget } from './volume.ts';

export interface ClaimStatusWriter {
  updateClaimStatus(claim: PersistentVolumeClaim, status: PersistentVolumeClaim['status']): Promise<void>;
}

/** A driver's resizer says so where its volumes grow without the node (since 1.34). */
const NODE_EXPANSION_NOT_REQUIRED = 'volume.kubernetes.io/node-expansion-not-required';
const PENDING_CONDITIONS = new Set(['FileSystemResizePending', 'Resizing', 'NodeResizeError']);

/** Failures become an event; the next look tries again. */
export async function growIfAsked(
  plugin: VolumePlugin<unknown>,
  { spec, target }: { readonly spec: unknown; readonly target: VolumeTarget },
  context: VolumeContext & ClaimStatusWriter,
): Promise<void> {
  const { volume, claim } = context.use.persistent ?? {};
  const storage = volume?.spec?.capacity?.['storage'];
  const known = claim?.status?.capacity?.['storage'];
  if (!plugin.expand || !claim || !storage || !known || context.use.isReadOnly) return;
  if (claim.metadata.annotations?.[NODE_EXPANSION_NOT_REQUIRED] !== undefined) return;
  const bytes = quantityValue(storage);
  if (bytes <= quantityValue(known)) return;
  try {
    if (!(await plugin.expand(spec, target, { ...context, bytes }))) return;
    const { allocatedResourceStatuses: statuses = {}, conditions = [], ...rest } = claim.status!;
    const { storage: _, ...others } = statuses;
    await context.updateClaimStatus(claim, {
      ...rest,
      capacity: { ...rest.capacity, storage },
      conditions: conditions.filter(({ type }) => !PENDING_CONDITIONS.has(type)),
      ...(Object.keys(others).length ? { allocatedResourceStatuses: others } : {}),
    });
    context.event(
      'Normal',
      'FileSystemResizeSuccessful',
      `MountVolume.NodeExpandVolume succeeded for volume "${target.name}" ${context.volumes.name}`,
    );
  } catch (error) {
    context.event(
      'Warning',
      'FileSystemResizeFailed',
      `MountVolume.NodeExpandVolume failed for volume "${target.name}" ${context.volumes.name}: ${messageOf(error)}`,
    );
  }
}
