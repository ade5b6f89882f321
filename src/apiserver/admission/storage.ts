/** Plugins for volumes and ingresses: DefaultStorageClass, StorageObjectInUseProtection, PersistentVolumeClaimResize and DefaultIngressClass. */

import type { PersistentVolumeClaim } from '../../api/core/v1.gen.ts';
import { compareQuantity } from '../../api/machinery/quantity.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { Ingress } from '../../api/networking/v1.gen.ts';
import type { StorageClass } from '../../api/storage/v1.gen.ts';
import { STORAGE_CLASSES } from '../../client/resources.ts';
import type { AdmissionPlugin } from '../request.ts';
import { type AdmissionContext, isAbout, refusal } from './context.ts';

const INGRESS_CLASSES = { group: 'networking.k8s.io', version: 'v1', resource: 'ingressclasses' };

// Of several defaults the newest counts, and of equally old ones the first by name.
function newestDefault(objects: readonly KubeObject[], annotation: string): KubeObject | undefined {
  return objects
    .filter(object => object.metadata.annotations?.[annotation] === 'true')
    .sort(
      (a, b) =>
        (b.metadata.creationTimestamp ?? '').localeCompare(a.metadata.creationTimestamp ?? '') ||
        (a.metadata.name < b.metadata.name ? -1 : 1),
    )[0];
}

export function defaultStorageClass({ reader }: AdmissionContext): AdmissionPlugin {
  return {
    name: 'DefaultStorageClass',
    mutate(request) {
      if (request.operation !== 'CREATE' || !isAbout(request, '', 'persistentvolumeclaims')) return;
      const claim = request.object as PersistentVolumeClaim;
      if (
        !claim.spec ||
        claim.spec.storageClassName !== undefined ||
        claim.metadata.annotations?.['volume.beta.kubernetes.io/storage-class'] !== undefined
      )
        return;
      const found = newestDefault(reader().list(STORAGE_CLASSES), 'storageclass.kubernetes.io/is-default-class');
      if (found) claim.spec.storageClassName = found.metadata.name;
    },
  };
}

/** A claim or volume in use is not removed: its finalizer is taken away by the protection controllers. */
export function storageObjectInUseProtection(): AdmissionPlugin {
  const finalizers: Readonly<Record<string, string>> = {
    persistentvolumeclaims: 'kubernetes.io/pvc-protection',
    persistentvolumes: 'kubernetes.io/pv-protection',
  };
  return {
    name: 'StorageObjectInUseProtection',
    mutate(request) {
      if (request.operation !== 'CREATE' || request.attributes.group !== '' || request.attributes.subresource !== '')
        return;
      const finalizer = finalizers[request.attributes.resource];
      const { metadata } = request.object!;
      if (finalizer && !metadata.finalizers?.includes(finalizer))
        metadata.finalizers = [...(metadata.finalizers ?? []), finalizer];
    },
  };
}

export function persistentVolumeClaimResize({ reader }: AdmissionContext): AdmissionPlugin {
  return {
    name: 'PersistentVolumeClaimResize',
    validate(request) {
      if (request.operation !== 'UPDATE' || !isAbout(request, '', 'persistentvolumeclaims')) return;
      const [claim, old] = [request.object as PersistentVolumeClaim, request.oldObject as PersistentVolumeClaim];
      const size = (of: PersistentVolumeClaim) => of.spec?.resources?.requests?.['storage'] ?? '0';
      if (compareQuantity(size(claim), size(old)) <= 0) return;
      if (old.status?.phase !== 'Bound') throw refusal(request, 'Only bound persistent volume claims can be expanded');
      const name = claim.spec?.storageClassName;
      const found = name ? (reader().get(STORAGE_CLASSES, '', name) as StorageClass | undefined) : undefined;
      if (!found?.allowVolumeExpansion)
        throw refusal(
          request,
          'only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize',
        );
    },
  };
}

export function defaultIngressClass({ reader }: AdmissionContext): AdmissionPlugin {
  return {
    name: 'DefaultIngressClass',
    mutate(request) {
      if (request.operation !== 'CREATE' || !isAbout(request, 'networking.k8s.io', 'ingresses')) return;
      const ingress = request.object as Ingress;
      if (
        !ingress.spec ||
        ingress.spec.ingressClassName !== undefined ||
        ingress.metadata.annotations?.['kubernetes.io/ingress.class'] !== undefined
      )
        return;
      const found = newestDefault(reader().list(INGRESS_CLASSES), 'ingressclass.kubernetes.io/is-default-class');
      if (found) ingress.spec.ingressClassName = found.metadata.name;
    },
  };
}
