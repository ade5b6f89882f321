/** Contents of configMap, secret, downwardAPI and service-account-token sources as files; shared by the volumes of those kinds. */

import type {
  ConfigMap,
  ConfigMapProjection,
  DownwardAPIProjection,
  KeyToPath,
  Pod,
  Secret,
  SecretProjection,
  ServiceAccountTokenProjection,
} from '../../api/core/v1.gen.ts';
import { CONFIG_MAPS, SECRETS } from '../../client/resources.ts';
import { podField, resourceField } from '../fields.ts';
import type { PayloadFile } from './payload.ts';
import type { VolumeContext } from './volume.ts';

export type Files = Map<string, PayloadFile>;
export const FILE_MODE_DEFAULT = 0o644;
const TOKEN_SECONDS_DEFAULT = 3607;

export async function configMapFiles(
  source: ConfigMapProjection,
  defaultMode: number,
  context: VolumeContext,
): Promise<Files> {
  const object = await context.read<ConfigMap>(CONFIG_MAPS, source.name ?? '');
  if (!object) {
    if (source.optional) return new Map();
    throw new Error(`configmap "${source.name}" not found`);
  }
  const data = new Map<string, Buffer>();
  for (const [key, value] of Object.entries(object.data ?? {})) data.set(key, Buffer.from(value));
  for (const [key, value] of Object.entries(object.binaryData ?? {})) data.set(key, Buffer.from(value, 'base64'));
  return select(
    data,
    source.items,
    defaultMode,
    source.optional ?? false,
    key => `configmap references non-existent config key: ${key}`,
  );
}

export async function secretFiles(
  source: SecretProjection,
  defaultMode: number,
  context: VolumeContext,
): Promise<Files> {
  const object = await context.read<Secret>(SECRETS, source.name ?? '');
  if (!object) {
    if (source.optional) return new Map();
    throw new Error(`secret "${source.name}" not found`);
  }
  const data = new Map(Object.entries(object.data ?? {}).map(([key, value]) => [key, Buffer.from(value, 'base64')]));
  return select(
    data,
    source.items,
    defaultMode,
    source.optional ?? false,
    key => `references non-existent secret key: ${key}`,
  );
}

function select(
  data: ReadonlyMap<string, Buffer>,
  items: readonly KeyToPath[] | undefined,
  defaultMode: number,
  isOptional: boolean,
  missing: (key: string) => string,
): Files {
  const files: Files = new Map();
  if (!items?.length) {
    for (const [key, value] of data) files.set(key, { data: value, mode: defaultMode });
    return files;
  }
  for (const { key, path, mode } of items) {
    const value = data.get(key);
    if (value) files.set(path, { data: value, mode: mode ?? defaultMode });
    else if (!isOptional) throw new Error(missing(key));
  }
  return files;
}

export function downwardFiles(source: DownwardAPIProjection, defaultMode: number, context: VolumeContext): Files {
  const files: Files = new Map();
  const { pod } = context;
  for (const { path, fieldRef, resourceFieldRef, mode } of source.items ?? []) {
    let text = '';
    if (fieldRef) text = podField(pod, fieldRef.fieldPath, context.addresses());
    else if (resourceFieldRef) {
      const container = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].find(
        one => one.name === resourceFieldRef.containerName,
      );
      if (!container) throw new Error(`container ${resourceFieldRef.containerName} not found`);
      text = resourceField(pod, container, resourceFieldRef, context.node);
    }
    files.set(path, { data: Buffer.from(text), mode: mode ?? defaultMode });
  }
  return files;
}

export async function tokenFiles(
  source: ServiceAccountTokenProjection,
  defaultMode: number,
  context: VolumeContext,
): Promise<Files> {
  const token = await context.token({
    audience: source.audience || undefined,
    expirationSeconds: source.expirationSeconds ?? TOKEN_SECONDS_DEFAULT,
  });
  return new Map([[source.path, privateFile(Buffer.from(token), defaultMode, context.pod)]]);
}

/** For the pod's own user only, where there is just one, or for its group. */
export function privateFile(data: Buffer, defaultMode: number, pod: Pod): PayloadFile {
  const owner = soleUser(pod);
  const isPrivate = owner !== undefined || pod.spec.securityContext?.fsGroup !== undefined;
  return { data, mode: isPrivate ? 0o600 : defaultMode, ...(owner !== undefined ? { uid: owner } : {}) };
}

function soleUser(pod: Pod): number | undefined {
  const ids = new Set(
    [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].map(
      one => one.securityContext?.runAsUser ?? pod.spec.securityContext?.runAsUser,
    ),
  );
  return ids.size === 1 ? [...ids][0] : undefined;
}
