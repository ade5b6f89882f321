/** What approver, signer and cleaner of certificate requests have in common: their state, and which ones kubelets may ask for. */

import type { CertificateRequestContent } from '../../api/certificates/certificate-request.ts';
import type { CertificateSigningRequest } from '../../api/certificates/v1.gen.ts';

export const KUBELET_CLIENT = 'kubernetes.io/kube-apiserver-client-kubelet';
export const KUBELET_SERVING = 'kubernetes.io/kubelet-serving';
export const API_CLIENT = 'kubernetes.io/kube-apiserver-client';
export const LEGACY_UNKNOWN = 'kubernetes.io/legacy-unknown';

export function conditionOf(request: CertificateSigningRequest, type: 'Approved' | 'Denied' | 'Failed') {
  return request.status?.conditions?.find(condition => condition.type === type);
}

const isNode = ({ organizations, commonName }: CertificateRequestContent): string | undefined => {
  if (organizations.length !== 1 || organizations[0] !== 'system:nodes')
    return 'subject organization is not system:nodes';
  return commonName.startsWith('system:node:') ? undefined : 'subject common name does not begin with system:node:';
};

/** Usages are a set: exactly these, `key encipherment` for RSA keys besides. */
function areUsages(usages: readonly string[], wanted: readonly string[]): boolean {
  const asked = new Set(usages);
  asked.delete('key encipherment');
  return asked.size === wanted.length && wanted.every(usage => asked.has(usage));
}

/** What is wrong with a kubelet's client certificate; undefined when nothing is. */
export function kubeletClientProblem(
  content: CertificateRequestContent,
  usages: readonly string[],
): string | undefined {
  const { dnsNames, ipAddresses, emailAddresses, uris } = content;
  if (dnsNames.length > 0) return 'DNS subjectAltNames are not allowed';
  if (emailAddresses.length > 0) return 'email subjectAltNames are not allowed';
  if (ipAddresses.length > 0) return 'IP subjectAltNames are not allowed';
  if (uris.length > 0) return 'URI subjectAltNames are not allowed';
  return (
    isNode(content) ??
    (areUsages(usages, ['digital signature', 'client auth'])
      ? undefined
      : 'usages did not match digital signature and client auth')
  );
}

export function kubeletServingProblem(
  content: CertificateRequestContent,
  usages: readonly string[],
): string | undefined {
  const { dnsNames, ipAddresses, emailAddresses, uris } = content;
  if (dnsNames.length + ipAddresses.length === 0) return 'at least one DNS or IP subjectAltName is required';
  if (emailAddresses.length > 0) return 'email subjectAltNames are not allowed';
  if (uris.length > 0) return 'URI subjectAltNames are not allowed';
  return (
    isNode(content) ??
    (areUsages(usages, ['digital signature', 'server auth'])
      ? undefined
      : 'usages did not match digital signature and server auth')
  );
}
