/** What a pod refers to in its own namespace: the reason why its node may read those objects. */

import type { Container, EphemeralContainer, Pod } from '../../api/core/v1.gen.ts';

/** `secret/NAME`, `configmap/NAME`, `claim/NAME` (persistent volume claims), `resourceclaim/NAME`, `serviceaccount/NAME`. */
export type PodReference = string;

const known = new WeakMap<Pod, ReadonlySet<PodReference>>();

/** References of a frozen pod; computed once per object. */
export function podReferences(pod: Pod): ReadonlySet<PodReference> {
  let references = known.get(pod);
  if (!references) known.set(pod, (references = collect(pod)));
  return references;
}

/** The pod was made by its kubelet from a file, and so may refer to nothing. */
export const isMirrorPod = (pod: { metadata: { annotations?: Record<string, string> } }): boolean =>
  pod.metadata.annotations?.['kubernetes.io/config.mirror'] !== undefined;

/** Every container of the pod: init, regular and ephemeral ones. */
export function containersOf(pod: Pod): readonly (Container | EphemeralContainer)[] {
  return [
    ...(pod.spec?.initContainers ?? []),
    ...(pod.spec?.containers ?? []),
    ...(pod.spec?.ephemeralContainers ?? []),
  ];
}

function collect(pod: Pod): ReadonlySet<PodReference> {
  const references = new Set<PodReference>();
  const add = (kind: string, name: string | undefined) => name && references.add(`${kind}/${name}`);
  const spec = pod.spec;
  if (!spec || isMirrorPod(pod)) return references;
  add('serviceaccount', spec.serviceAccountName);
  for (const secret of spec.imagePullSecrets ?? []) add('secret', secret.name);
  for (const container of containersOf(pod)) {
    for (const source of container.envFrom ?? []) {
      add('secret', source.secretRef?.name);
      add('configmap', source.configMapRef?.name);
    }
    for (const { valueFrom } of container.env ?? []) {
      add('secret', valueFrom?.secretKeyRef?.name);
      add('configmap', valueFrom?.configMapKeyRef?.name);
    }
  }
  for (const volume of spec.volumes ?? []) {
    add('secret', volume.secret?.secretName);
    add('configmap', volume.configMap?.name);
    add('claim', volume.persistentVolumeClaim?.claimName);
    if (volume.ephemeral) add('claim', `${pod.metadata.name}-${volume.name}`);
    for (const source of volume.projected?.sources ?? []) {
      add('secret', source.secret?.name);
      add('configmap', source.configMap?.name);
    }
    for (const source of [
      volume.csi?.nodePublishSecretRef,
      volume.cephfs?.secretRef,
      volume.flexVolume?.secretRef,
      volume.iscsi?.secretRef,
      volume.rbd?.secretRef,
      volume.scaleIO?.secretRef,
      volume.storageos?.secretRef,
    ])
      add('secret', source?.name);
    add('secret', volume.azureFile?.secretName);
  }
  const generated = new Map(
    (pod.status?.resourceClaimStatuses ?? []).map(status => [status.name, status.resourceClaimName]),
  );
  for (const claim of spec.resourceClaims ?? [])
    add('resourceclaim', claim.resourceClaimName ?? generated.get(claim.name));
  add('resourceclaim', pod.status?.extendedResourceClaimStatus?.resourceClaimName);
  return references;
}
