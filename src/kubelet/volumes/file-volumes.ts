/** The volumes whose content the kubelet writes: configMap, secret, downwardAPI, projected. All live in memory. */

import { rmSync } from 'node:fs';
import type {
  ConfigMapVolumeSource,
  DownwardAPIVolumeSource,
  ProjectedVolumeSource,
  SecretVolumeSource,
  VolumeSource,
} from '../../api/core/v1.gen.ts';
import { unmount } from '../../sys/mount.ts';
import { writePayload } from './payload.ts';
import { configMapFiles, downwardFiles, FILE_MODE_DEFAULT, type Files, secretFiles, tokenFiles } from './projection.ts';
import { trustBundleFiles } from './trust-bundles.ts';
import type { VolumeContext, VolumePlugin, VolumeTarget } from './volume.ts';

function fileVolume<S>(
  source: keyof VolumeSource,
  folder: string,
  files: (source: S, context: VolumeContext) => Promise<Files> | Files,
): VolumePlugin<S> {
  return {
    source,
    folder,
    isLive: true,
    isInMemory: true,
    isReadOnly: true,
    isRelabelled: true,
    async mount(from: S, target: VolumeTarget, context: VolumeContext) {
      const content = await files(from, context);
      const { fsGroup } = context.pod.spec.securityContext ?? {};
      const stamp = new Date(context.clock.now()).toISOString().replace(/\D/g, '_');
      writePayload(target.path, content, { stamp, ...(fsGroup !== undefined ? { fsGroup } : {}) });
    },
    async unmount(target: VolumeTarget) {
      unmount(target.path);
      rmSync(target.path, { recursive: true, force: true });
    },
  };
}

export const configMapVolume = fileVolume<ConfigMapVolumeSource>(
  'configMap',
  'kubernetes.io~configmap',
  (source, context) => configMapFiles(source, source.defaultMode ?? FILE_MODE_DEFAULT, context),
);

export const secretVolume = fileVolume<SecretVolumeSource>(
  'secret',
  'kubernetes.io~secret',
  ({ secretName, items, optional, defaultMode }, context) =>
    secretFiles(
      {
        ...(secretName ? { name: secretName } : {}),
        ...(items ? { items } : {}),
        ...(optional !== undefined ? { optional } : {}),
      },
      defaultMode ?? FILE_MODE_DEFAULT,
      context,
    ),
);

export const downwardVolume = fileVolume<DownwardAPIVolumeSource>(
  'downwardAPI',
  'kubernetes.io~downward-api',
  (source, context) => downwardFiles(source, source.defaultMode ?? FILE_MODE_DEFAULT, context),
);

export const projectedVolume = fileVolume<ProjectedVolumeSource>(
  'projected',
  'kubernetes.io~projected',
  async (source, context) => {
    const mode = source.defaultMode ?? FILE_MODE_DEFAULT;
    const parts = await Promise.all(
      (source.sources ?? []).map((part, index) => {
        if (part.configMap) return configMapFiles(part.configMap, mode, context);
        if (part.secret) return secretFiles(part.secret, mode, context);
        if (part.downwardAPI) return downwardFiles(part.downwardAPI, mode, context);
        if (part.serviceAccountToken) return tokenFiles(part.serviceAccountToken, mode, context);
        if (part.clusterTrustBundle) return trustBundleFiles(part.clusterTrustBundle, mode, context);
        if (part.podCertificate)
          return context.volumes.certificates.files(part.podCertificate, { index, mode }, context);
        throw new Error(
          `projected source ${Object.keys(part)[0]} is not supported by this kubelet: it has configMap, secret, downwardAPI, serviceAccountToken, clusterTrustBundle and podCertificate`,
        );
      }),
    );
    return new Map(parts.flatMap(part => [...part]));
  },
);
