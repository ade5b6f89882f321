/**
 * ClusterTrustBundles: the root certificates of a signer, or of nobody in particular, for everybody to read. A bundle that names a signer
 * carries the signer's name in its own, so that names of different signers never clash.
 */

import { X509Certificate } from 'node:crypto';
import { defineKind } from '../kind.ts';
import { nameColumn, text } from '../machinery/columns.ts';
import { addInvalid, addProblems, checkUnchanged, type Errors } from '../machinery/validation.ts';
import { checkSignerName, trustBundleNameProblems } from './signer-name.ts';
import type { ClusterTrustBundle } from './v1beta1.gen.ts';

const OMITTED = '<value omitted>';
const BLOCK = /-----BEGIN ([^-]*)-----([^-]*)-----END ([^-]*)-----/g;

export const clusterTrustBundle = defineKind<ClusterTrustBundle>({
  group: 'certificates.k8s.io',
  version: 'v1beta1',
  kind: 'ClusterTrustBundle',
  // Which names are valid depends on the signer: see validate.
  validateName: () => [],
  validate: object => {
    const errors: Errors = [];
    const { metadata, spec } = object;
    const { name = '' } = metadata;
    addProblems(errors, 'metadata.name', name, trustBundleNameProblems(name, spec?.signerName ?? ''));
    if (spec?.signerName) checkSignerName(errors, 'spec.signerName', spec.signerName);
    checkAnchors(errors, 'spec.trustBundle', spec?.trustBundle ?? '');
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec.signerName', object.spec?.signerName ?? '', old.spec?.signerName ?? '');
    return errors;
  },
  selectableFields: { 'spec.signerName': object => object.spec?.signerName ?? '' },
  columns: [nameColumn, text('SignerName', object => object.spec?.signerName || '<none>')],
});

function checkAnchors(errors: Errors, path: string, bundle: string): void {
  const before = errors.length;
  const seen = new Map<string, number[]>();
  let index = 0;
  for (const [block, type, body] of bundle.matchAll(BLOCK)) {
    const problem = anchorProblem({ block, type: type!, body: body! });
    if (problem) addInvalid(errors, path, OMITTED, `entry ${index} ${problem}`);
    const content = body!.replace(/\s/g, '');
    seen.set(content, [...(seen.get(content) ?? []), index]);
    index++;
  }
  if (errors.length > before) return;
  if (index === 0) addInvalid(errors, path, OMITTED, 'at least one trust anchor must be provided');
  for (const indices of seen.values())
    if (indices.length > 1)
      addInvalid(errors, path, OMITTED, `duplicate trust anchor (indices [${indices.join(' ')}])`);
}

function anchorProblem({ block, type, body }: { block: string; type: string; body: string }): string | undefined {
  if (type !== 'CERTIFICATE') return `has bad block type: ${type}`;
  if (body.includes(':')) return 'has PEM block headers';
  try {
    if (!new X509Certificate(block).ca) return 'does not have the CA bit set';
  } catch {
    return 'does not parse as X.509';
  }
  return undefined;
}
