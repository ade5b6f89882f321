/**
 * From a pod's volume to what is to be mounted: claims lead to their persistent volume, in-tree cloud disks to their CSI driver.
 * Invariant: a claim that is not wholly bound to its volume, both ways and by uid, or that is being deleted, is refused.
 */

import { NOT_SOURCES } from '../../api/core/persistent-volume-sources.ts';
import type { PersistentVolume, PersistentVolumeClaim, Pod, Volume } from '../../api/core/v1.gen.ts';
import { translateInline, translateVolume } from '../../api/machinery/csi-migration.ts';
import { controllerOf } from '../../api/meta.ts';
import { PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES } from '../../client/resources.ts';
import { type SourceName, sourceOf, type VolumeContext, type VolumeUse } from './volume.ts';

export interface ResolvedVolume {
  readonly source: SourceName;
  readonly spec: unknown;
  /** A CSI driver serves what names an in-tree source. */
  readonly isMigrated?: boolean;
  /** The folder's name. */
  readonly name: string;
  readonly use: VolumeUse;
}

/** The source that a persistent volume names. */
export function persistentSourceOf({ spec = {} }: PersistentVolume): SourceName | undefined {
  return (Object.keys(spec) as (keyof typeof spec)[]).find(
    key => !NOT_SOURCES.has(key) && spec[key] !== undefined && spec[key] !== null,
  ) as SourceName | undefined;
}

/** Whether the volume's place is known only once its claim was read. */
export function needsClaim(volume: Volume): boolean {
  return volume.persistentVolumeClaim !== undefined || volume.ephemeral !== undefined;
}

type Reader = Pick<VolumeContext, 'pod' | 'fetch'>;

export async function resolveVolume(volume: Volume, context: Reader): Promise<ResolvedVolume> {
  const { pod } = context;
  if (needsClaim(volume)) return resolveClaim(volume, context);
  const source = sourceOf(volume) ?? 'emptyDir';
  const translated = translateInline(volume, pod.metadata.namespace!);
  if (translated)
    return { ...resolvePersistent(volume, translated, { isReadOnly: isReadOnly(volume[source]) }), isMigrated: true };
  return {
    source,
    spec: volume[source] ?? {},
    name: volume.name,
    use: { volume: volume.name, isReadOnly: isReadOnly(volume[source]), mountOptions: [], mode: 'Filesystem' },
  };
}

async function resolveClaim(volume: Volume, context: Reader): Promise<ResolvedVolume> {
  const { pod } = context;
  const namespace = pod.metadata.namespace!;
  const name = volume.persistentVolumeClaim?.claimName ?? `${pod.metadata.name}-${volume.name}`;
  const which = `error processing PVC ${namespace}/${name}`;
  const claim = await context.fetch<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS, { namespace, name });
  if (!claim)
    throw new Error(`${which}: failed to fetch PVC from API server: persistentvolumeclaims "${name}" not found`);
  if (volume.ephemeral && controllerOf(claim)?.uid !== pod.metadata.uid)
    throw new Error(
      `PVC ${namespace}/${name} was not created for pod ${namespace}/${pod.metadata.name} (pod is not owner)`,
    );
  // One that runs already keeps its volumes: the protection controller waits for it.
  if (claim.metadata.deletionTimestamp && !hasStarted(pod)) throw new Error(`${which}: PVC is being deleted`);
  const volumeName = claim.spec?.volumeName ?? '';
  if (claim.status?.phase !== 'Bound' || !volumeName)
    throw new Error(
      `${which}: PVC is not bound: phase ${JSON.stringify(claim.status?.phase ?? '')}, volume ${JSON.stringify(volumeName)}`,
    );
  const persistent = await context.fetch<PersistentVolume>(PERSISTENT_VOLUMES, { name: volumeName });
  if (!persistent)
    throw new Error(
      `${which}: failed to fetch PV ${volumeName} from API server: persistentvolumes "${volumeName}" not found`,
    );
  if (persistent.spec?.claimRef?.uid !== claim.metadata.uid)
    throw new Error(
      `${which}: PV ${volumeName} is bound to another claim: its claimRef.uid ${persistent.spec?.claimRef?.uid ?? '""'} does not match ${claim.metadata.uid}`,
    );
  return resolvePersistent(volume, persistent, {
    claim,
    isReadOnly: volume.persistentVolumeClaim?.readOnly ?? false,
  });
}

function resolvePersistent(
  volume: Volume,
  stored: PersistentVolume,
  { claim, isReadOnly: isAsked }: { readonly claim?: PersistentVolumeClaim; readonly isReadOnly: boolean },
): ResolvedVolume {
  const persistent = translateVolume(stored) ?? stored;
  const source = persistentSourceOf(persistent);
  if (!source) throw new Error(`persistent volume ${persistent.metadata.name} names no source`);
  const spec = (persistent.spec as Record<string, unknown>)[source];
  return {
    source,
    spec,
    ...(persistent === stored ? {} : { isMigrated: true }),
    name: persistent.metadata.name,
    use: {
      volume: volume.name,
      persistent: { volume: persistent, ...(claim ? { claim } : {}) },
      isReadOnly: isAsked || isReadOnly(spec),
      mountOptions: optionsOf(persistent),
      mode: persistent.spec?.volumeMode === 'Block' ? 'Block' : 'Filesystem',
    },
  };
}

function optionsOf({ metadata, spec }: PersistentVolume): readonly string[] {
  const annotated = metadata.annotations?.['volume.beta.kubernetes.io/mount-options'];
  return [...(annotated ? annotated.split(',') : []), ...(spec?.mountOptions ?? [])];
}

function isReadOnly(source: unknown): boolean {
  return (source as { readOnly?: boolean } | undefined)?.readOnly ?? false;
}

/** A container of it runs. */
export function hasStarted(pod: Pod): boolean {
  return (pod.status?.containerStatuses ?? []).some(({ state }) => state?.running !== undefined);
}

/** Why the containers use the volume in another way than its mode allows; undefined when they do not. */
export function modeConflict(pod: Pod, { use }: ResolvedVolume): string | undefined {
  for (const container of [
    ...(pod.spec.initContainers ?? []),
    ...pod.spec.containers,
    ...(pod.spec.ephemeralContainers ?? []),
  ]) {
    if (use.mode === 'Block' && container.volumeMounts?.some(({ name }) => name === use.volume))
      return `volume ${use.volume} has volumeMode Block, but is specified in volumeMounts`;
    if (use.mode === 'Filesystem' && container.volumeDevices?.some(({ name }) => name === use.volume))
      return `volume ${use.volume} has volumeMode Filesystem, but is specified in volumeDevices`;
  }
  return undefined;
}
