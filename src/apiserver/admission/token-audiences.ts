/**
 * For whom a node may ask tokens of a pod's service account (KEP 4935): for the audiences that the pod's volumes name, and for those that
 * it was given the right to by the verb `request-serviceaccounts-token-audience`. It reads objects and decides nothing by itself.
 */

import type { PersistentVolume, PersistentVolumeClaim, Pod, Volume } from '../../api/core/v1.gen.ts';
import { translateVolume } from '../../api/machinery/csi-migration.ts';
import type { CSIDriver } from '../../api/storage/v1.gen.ts';
import { CSI_DRIVERS, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES } from '../../client/resources.ts';
import type { Reader } from '../request.ts';

/** Whether a volume of the pod asks for tokens of that audience; `''` is the API server's own. */
export function volumesName(audience: string, pod: Pod, reader: Reader): boolean {
  const { name, namespace } = pod.metadata;
  return (pod.spec.volumes ?? []).some(
    volume =>
      volume.projected?.sources?.some(
        source => source.serviceAccountToken && (source.serviceAccountToken.audience ?? '') === audience,
      ) || driverAsks(driverOf(volume)),
  );

  function driverOf(volume: Volume): string | undefined {
    if (volume.csi) return volume.csi.driver;
    const claimName = volume.ephemeral ? `${name}-${volume.name}` : volume.persistentVolumeClaim?.claimName;
    if (!claimName) return undefined;
    const claim = reader.get(PERSISTENT_VOLUME_CLAIMS, namespace ?? '', claimName) as PersistentVolumeClaim | undefined;
    const bound = claim?.spec?.volumeName;
    const disk = bound ? (reader.get(PERSISTENT_VOLUMES, '', bound) as PersistentVolume | undefined) : undefined;
    return disk && (translateVolume(disk) ?? disk).spec?.csi?.driver;
  }
  function driverAsks(driver: string | undefined): boolean {
    if (driver === undefined) return false;
    const known = reader.get(CSI_DRIVERS, '', driver) as CSIDriver | undefined;
    return known?.spec?.tokenRequests?.some(request => request.audience === audience) ?? false;
  }
}
