/**
 * The projected source `clusterTrustBundle`: roots of one ClusterTrustBundle or of all those of a signer, each certificate once and in an
 * order that does not change, so that equal roots are equal files. Refuses clusters whose API server does not serve them.
 */

import type { ClusterTrustBundle } from '../../api/certificates/v1beta1.gen.ts';
import type { ClusterTrustBundleProjection } from '../../api/core/v1.gen.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import { CLUSTER_TRUST_BUNDLES } from '../../client/resources.ts';
import type { Files } from './projection.ts';
import type { VolumeContext } from './volume.ts';

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

export async function trustBundleFiles(
  source: ClusterTrustBundleProjection,
  defaultMode: number,
  context: VolumeContext,
): Promise<Files> {
  const bundles = await bundlesOf(source, context);
  const roots = new Set(
    bundles.flatMap(({ spec }) => [...(spec.trustBundle.match(CERTIFICATE) ?? [])].map(text => text.trim())),
  );
  const data = Buffer.from(
    [...roots]
      .sort()
      .map(root => `${root}\n`)
      .join(''),
  );
  const mode = context.pod.spec.securityContext?.fsGroup === undefined ? defaultMode : 0o600;
  return new Map([[source.path, { data, mode }]]);
}

async function bundlesOf(
  { name, signerName, labelSelector, optional }: ClusterTrustBundleProjection,
  context: VolumeContext,
): Promise<ClusterTrustBundle[]> {
  if (name !== undefined) {
    const bundle = await context.fetch<ClusterTrustBundle>(CLUSTER_TRUST_BUNDLES, { name });
    if (!bundle && !optional) throw new Error(`clustertrustbundle "${name}" not found${await whyNone(context)}`);
    return bundle ? [bundle] : [];
  }
  const all = await context.list<ClusterTrustBundle>(CLUSTER_TRUST_BUNDLES, `spec.signerName=${signerName}`);
  const matches = labelSelectorMatch(labelSelector);
  const found = (all ?? []).filter(({ metadata }) => matches(metadata.labels));
  if (found.length === 0 && !optional)
    throw new Error(
      `combination of signerName and labelSelector matched zero ClusterTrustBundles${all ? '' : NOT_SERVED}`,
    );
  return found;
}

const NOT_SERVED =
  ': the API server does not serve them, unless it is started with runtime-config=certificates.k8s.io/v1beta1=true';

async function whyNone(context: VolumeContext): Promise<string> {
  return (await context.list(CLUSTER_TRUST_BUNDLES, 'metadata.name=none')) ? '' : NOT_SERVED;
}
