/** Validation of the projected source `podCertificate`. Where its files lie is for `volume-validation.ts` to check. */

import { fieldErrors } from '../../base/errors.ts';
import {
  checkUserAnnotations,
  EXPIRATION_SECONDS_MIN,
  expirationSecondsMax,
} from '../certificates/certificate-lifetime.ts';
import { checkSignerName } from '../certificates/signer-name.ts';
import { addInvalid, addRequired, type Errors } from '../machinery/validation.ts';
import type { PodCertificateProjection } from './v1.gen.ts';

const KEY_TYPES = ['RSA3072', 'RSA4096', 'ECDSAP256', 'ECDSAP384', 'ECDSAP521', 'ED25519'];
const FILES = ['credentialBundlePath', 'keyPath', 'certificateChainPath'] as const;

export function checkPodCertificate(errors: Errors, path: string, source: PodCertificateProjection): void {
  checkSignerName(errors, `${path}.signerName`, source.signerName);
  checkUserAnnotations(errors, `${path}.userAnnotations`, source.userAnnotations);
  if (!KEY_TYPES.includes(source.keyType ?? ''))
    errors.push(fieldErrors.notSupported(`${path}.keyType`, source.keyType ?? '', KEY_TYPES));
  const { maxExpirationSeconds: seconds = EXPIRATION_SECONDS_MIN } = source;
  const max = expirationSecondsMax(source.signerName ?? '');
  const at = `${path}.maxExpirationSeconds`;
  if (seconds < EXPIRATION_SECONDS_MIN)
    addInvalid(errors, at, seconds, `if provided, maxExpirationSeconds must be >= ${EXPIRATION_SECONDS_MIN}`);
  if (seconds > max) addInvalid(errors, at, seconds, `if provided, maxExpirationSeconds must be <= ${max}`);
  if (certificateFiles(source).length === 0)
    addRequired(errors, path, 'specify at least one of credentialBundlePath, keyPath, and certificateChainPath');
}

/** The files that it asks for. */
export function certificateFiles(
  source: PodCertificateProjection,
): readonly { readonly field: (typeof FILES)[number]; readonly path: string }[] {
  return FILES.flatMap(field => (source[field] ? [{ field, path: source[field] }] : []));
}
