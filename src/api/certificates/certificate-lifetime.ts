/** What pods and the requests of their kubelets may ask of a signer: for how long, and with which words. */

import { validateAnnotations } from '../machinery/metadata.ts';
import { addInvalid, addRequired, type Errors } from '../machinery/validation.ts';
import { isKubernetesSigner } from './signer-name.ts';

export const EXPIRATION_SECONDS_DEFAULT = 86_400;
export const EXPIRATION_SECONDS_MIN = 3600;
const EXPIRATION_SECONDS_MAX = 91 * 86_400;
/** Of Kubernetes' own signers. */
const OWN_EXPIRATION_SECONDS_MAX = 86_400;

export function expirationSecondsMax(signerName: string): number {
  return isKubernetesSigner(signerName) ? OWN_EXPIRATION_SECONDS_MAX : EXPIRATION_SECONDS_MAX;
}

export function checkExpiration(errors: Errors, path: string, signerName: string, seconds: number | undefined): void {
  const max = expirationSecondsMax(signerName);
  if (seconds === undefined) addRequired(errors, path, 'must be set');
  else if (seconds < EXPIRATION_SECONDS_MIN || seconds > max)
    addInvalid(errors, path, seconds, `must be in the range [${EXPIRATION_SECONDS_MIN}, ${max}]`);
}

/** As annotations of an object, but every key has a domain. */
export function checkUserAnnotations(
  errors: Errors,
  path: string,
  annotations: Readonly<Record<string, string>> | undefined,
): void {
  if (!annotations) return;
  errors.push(...validateAnnotations(annotations, path));
  for (const key of Object.keys(annotations))
    if (!key.includes('/')) addInvalid(errors, path, key, 'must be a domain-prefixed key (such as "acme.io/foo")');
}
