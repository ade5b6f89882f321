/** Which volumes pods of a node need attached to it. Pure, over informers. */

import type { PersistentVolume, PersistentVolumeClaim, Pod } from '../../api/core/v1.gen.ts';
import { translateInline, translateVolume } from '../../api/machinery/csi-migration.ts';
import { isPodTerminal } from '../../api/machinery/pod.ts';
import { BIND_COMPLETED } from '../../api/machinery/volume.ts';
import type { CSIDriver } from '../../api/storage/v1.gen.ts';
import { attachedName, attachmentName } from '../../csi/names.ts';

export interface WantedVolume {
  /** Of its VolumeAttachment. */
  readonly attachment: string;
  /** In the node's status. */
  readonly unique: string;
  readonly driver: string;
  /** Of the persistent volume; made up for a pod's own disk. */
  readonly name: string;
  /** Absent for a persistent volume, which the attachment names. */
  readonly inline?: PersistentVolume;
  /** By one node only. */
  readonly isExclusive: boolean;
  readonly pods: Pod[];
}

export interface Lookup {
  claim(key: string): PersistentVolumeClaim | undefined;
  volume(name: string): PersistentVolume | undefined;
  driver(name: string): CSIDriver | undefined;
}

export function wantedOn(node: string, pods: readonly Pod[], lookup: Lookup): Map<string, WantedVolume> {
  const wanted = new Map<string, WantedVolume>();
  for (const pod of pods) {
    // A finished pod's volumes stay until its kubelet has unmounted them, which volumesInUse tells.
    if (isPodTerminal(pod)) continue;
    for (const found of volumesOf(pod, lookup)) {
      const { csi, accessModes = [] } = found.translated.spec!;
      if (!(lookup.driver(csi!.driver)?.spec.attachRequired ?? true)) continue;
      const volume = { driver: csi!.driver, handle: csi!.volumeHandle };
      const attachment = attachmentName(volume, node);
      const known = wanted.get(attachment);
      if (known) known.pods.push(pod);
      else
        wanted.set(attachment, {
          attachment,
          unique: attachedName(volume),
          driver: csi!.driver,
          name: found.translated.metadata.name,
          ...(found.isInline ? { inline: found.translated } : {}),
          isExclusive: !accessModes.includes('ReadWriteMany') && !accessModes.includes('ReadOnlyMany'),
          pods: [pod],
        });
    }
  }
  return wanted;
}

function* volumesOf(
  pod: Pod,
  lookup: Lookup,
): Generator<{ readonly translated: PersistentVolume; readonly isInline: boolean }> {
  const namespace = pod.metadata.namespace!;
  for (const volume of pod.spec.volumes ?? []) {
    const inline = translateInline(volume, namespace);
    if (inline) {
      yield { translated: inline, isInline: true };
      continue;
    }
    const name =
      volume.persistentVolumeClaim?.claimName ?? (volume.ephemeral ? `${pod.metadata.name}-${volume.name}` : undefined);
    const claim = name === undefined ? undefined : lookup.claim(`${namespace}/${name}`);
    if (!claim?.spec.volumeName || claim.metadata.annotations?.[BIND_COMPLETED] === undefined) continue;
    const stored = lookup.volume(claim.spec.volumeName);
    const translated = stored && (translateVolume(stored) ?? stored);
    if (translated?.spec?.csi) yield { translated, isInline: false };
  }
}
