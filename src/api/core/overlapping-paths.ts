/** Files of one volume that get into each other's way: the same path twice, or a path below another one. Pure. */

import type { KeyToPath, Volume, VolumeProjection } from './v1.gen.ts';

interface PlacedFile {
  readonly path: string;
  /** Where the file comes from, in volumes of several sources. */
  readonly source: string;
}

/** Upstream's warnings, in the order of the volumes. */
export function overlapWarnings(volumes: readonly Volume[] | undefined): string[] {
  const warnings: string[] = [];
  for (const { name, configMap, secret, downwardAPI, projected } of volumes ?? []) {
    const volume = `volume ${JSON.stringify(name)}`;
    const check = (what: string, files: readonly PlacedFile[]) => {
      for (const overlap of overlaps(files)) warnings.push(`${volume} (${what}): overlapping paths: ${overlap}`);
    };
    if (configMap) check(`ConfigMap ${quoted(configMap.name)}`, filesOf(configMap.items));
    if (secret) check(`Secret ${quoted(secret.secretName)}`, filesOf(secret.items));
    if (downwardAPI) check('DownwardAPI', filesOf(downwardAPI.items));
    const sources = projected?.sources ?? [];
    for (const source of sources)
      if (Object.keys(source).length === 0) warnings.push(`${volume} (Projected) has no sources provided`);
    if (projected) check('Projected', sources.flatMap(projectedFiles));
  }
  return warnings;
}

const quoted = (name: string | undefined): string => JSON.stringify(name ?? '');

function filesOf(items: readonly Pick<KeyToPath, 'path'>[] | undefined, source = ''): PlacedFile[] {
  return (items ?? []).map(({ path }) => ({ path, source }));
}

function projectedFiles(from: VolumeProjection): PlacedFile[] {
  const { configMap, secret, downwardAPI, serviceAccountToken, clusterTrustBundle: bundle, podCertificate } = from;
  if (configMap?.items) return filesOf(configMap.items, `ConfigMap ${quoted(configMap.name)}`);
  if (secret?.items) return filesOf(secret.items, `Secret ${quoted(secret.name)}`);
  if (downwardAPI?.items) return filesOf(downwardAPI.items, 'DownwardAPI');
  if (serviceAccountToken) return filesOf([serviceAccountToken], 'ServiceAccountToken');
  if (bundle) return filesOf([bundle], `ClusterTrustBundle ${quoted(bundle.name ?? bundle.signerName)}`);
  const { certificateChainPath, keyPath, credentialBundlePath } = podCertificate ?? {};
  return [
    { path: certificateChainPath ?? '', source: 'PodCertificate chain' },
    { path: keyPath ?? '', source: 'PodCertificate key' },
    { path: credentialBundlePath ?? '', source: 'PodCertificate credential bundle' },
  ].filter(({ path }) => path);
}

function overlaps(files: readonly PlacedFile[]): string[] {
  const found: string[] = [];
  const seen: PlacedFile[] = [];
  const show = ({ path, source }: PlacedFile) => (source ? `${quoted(path)} (${source})` : quoted(path));
  for (const { path, source } of files) {
    const file = { path: path.replace(/\/+$/, ''), source };
    for (const other of seen)
      if (isAbove(file, other) || isAbove(other, file)) found.push(`${show(file)} with ${show(other)}`);
    if (file.path) seen.push(file);
  }
  return found;
}

/** At or above it. */
const isAbove = (above: PlacedFile, file: PlacedFile): boolean =>
  above.path !== '' && `${file.path}/`.startsWith(`${above.path}/`);
