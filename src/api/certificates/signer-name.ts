/** Names of signers, `domain/path`, and of their trust bundles: what certificate requests, trust bundles and volumes share. */

import { fieldErrors } from '../../base/errors.ts';
import { dnsLabelProblems, dnsSubdomainProblems, type Problems } from '../machinery/names.ts';
import { addInvalid, type Errors, requireText } from '../machinery/validation.ts';

const DOMAIN_BYTES_MAX = 253;
const NAME_BYTES_MAX = 571;

export function checkSignerName(errors: Errors, path: string, name: string | undefined): void {
  if (!requireText(errors, path, name)) return;
  const [domain = '', local, ...rest] = name.split('/');
  if (local === undefined || rest.length > 0) {
    addInvalid(errors, path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'");
    return;
  }
  if (domain.length > DOMAIN_BYTES_MAX) errors.push(fieldErrors.tooLong(path, DOMAIN_BYTES_MAX));
  checkLabels(errors, path, domain, dnsLabelProblems);
  if (!domain.includes('.'))
    addInvalid(errors, path, domain, 'should be a domain with at least two segments separated by dots');
  checkLabels(errors, path, local, dnsSubdomainProblems);
  if (name.length > NAME_BYTES_MAX) errors.push(fieldErrors.tooLong(path, NAME_BYTES_MAX));
}

/** The first bad label stands for all of them. */
function checkLabels(errors: Errors, path: string, segment: string, problemsOf: (label: string) => Problems): void {
  for (const label of segment.split('.')) {
    const problems = problemsOf(label);
    for (const problem of problems)
      addInvalid(errors, path, segment, `validating label ${JSON.stringify(label)}: ${problem}`);
    if (problems.length > 0) return;
  }
}

/** Whether a name is of Kubernetes' own signers. */
export function isKubernetesSigner(name: string): boolean {
  return /^([^/]*\.)?kubernetes\.io(\/|$)/.test(name);
}

/** What is wrong with the name of a trust bundle; without a signer it has no colon. */
export function trustBundleNameProblems(name: string, signer: string): Problems {
  if (!signer)
    return name.includes(':')
      ? ['ClusterTrustBundle without signer name must not have ":" in its name']
      : dnsSubdomainProblems(name);
  const prefix = `${signer.replaceAll('/', ':')}:`;
  return name.startsWith(prefix)
    ? dnsSubdomainProblems(name.slice(prefix.length))
    : [`ClusterTrustBundle for signerName ${signer} must be named with prefix ${prefix}`];
}
