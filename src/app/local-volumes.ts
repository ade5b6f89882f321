/** Objects with which every cluster has `cox-local`, the driver of local volumes: its class (the default one), itself, its rights. */

import type { KubeObject } from '../api/meta.ts';
import { CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, CSI_DRIVERS, STORAGE_CLASSES } from '../client/resources.ts';
import type { ResourceId } from '../client/transport.ts';
import { LOCAL_DRIVER } from '../localdriver/names.ts';

/** Group of the certificates with which the driver's sidecars on the nodes make volumes and take snapshots. */
export const NODE_STORAGE_GROUP = 'system:coxswain:storage';

const RBAC = 'rbac.authorization.k8s.io';
const READ = ['get', 'list', 'watch'];
const WRITE = [...READ, 'create', 'update', 'patch', 'delete'];

export const LOCAL_VOLUME_OBJECTS: readonly (readonly [ResourceId, KubeObject])[] = [
  [
    CSI_DRIVERS,
    {
      apiVersion: 'storage.k8s.io/v1',
      kind: 'CSIDriver',
      metadata: { name: LOCAL_DRIVER },
      spec: {
        attachRequired: false,
        podInfoOnMount: false,
        storageCapacity: true,
        fsGroupPolicy: 'File',
        seLinuxMount: true,
        volumeLifecycleModes: ['Persistent', 'Ephemeral'],
      },
    } as KubeObject,
  ],
  [
    STORAGE_CLASSES,
    {
      apiVersion: 'storage.k8s.io/v1',
      kind: 'StorageClass',
      metadata: { name: LOCAL_DRIVER, annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' } },
      provisioner: LOCAL_DRIVER,
      reclaimPolicy: 'Delete',
      volumeBindingMode: 'WaitForFirstConsumer',
      allowVolumeExpansion: true,
    } as KubeObject,
  ],
  [
    CLUSTER_ROLES,
    {
      apiVersion: `${RBAC}/v1`,
      kind: 'ClusterRole',
      metadata: { name: NODE_STORAGE_GROUP },
      rules: [
        { apiGroups: [''], resources: ['persistentvolumes'], verbs: WRITE },
        { apiGroups: [''], resources: ['persistentvolumeclaims'], verbs: [...READ, 'update', 'patch'] },
        { apiGroups: [''], resources: ['persistentvolumeclaims/status'], verbs: ['update', 'patch'] },
        { apiGroups: [''], resources: ['nodes'], verbs: READ },
        {
          apiGroups: ['storage.k8s.io'],
          resources: ['storageclasses', 'csinodes', 'volumeattributesclasses'],
          verbs: READ,
        },
        { apiGroups: ['storage.k8s.io'], resources: ['csistoragecapacities'], verbs: WRITE },
        { apiGroups: ['snapshot.storage.k8s.io'], resources: ['*'], verbs: WRITE },
        { apiGroups: ['gateway.networking.k8s.io'], resources: ['referencegrants'], verbs: READ },
        { apiGroups: ['apiextensions.k8s.io'], resources: ['customresourcedefinitions'], verbs: READ },
        { apiGroups: ['', 'events.k8s.io'], resources: ['events'], verbs: ['create', 'patch', 'update'] },
      ],
    } as KubeObject,
  ],
  [
    CLUSTER_ROLE_BINDINGS,
    {
      apiVersion: `${RBAC}/v1`,
      kind: 'ClusterRoleBinding',
      metadata: { name: NODE_STORAGE_GROUP },
      roleRef: { apiGroup: RBAC, kind: 'ClusterRole', name: NODE_STORAGE_GROUP },
      subjects: [{ apiGroup: RBAC, kind: 'Group', name: NODE_STORAGE_GROUP }],
    } as KubeObject,
  ],
];
