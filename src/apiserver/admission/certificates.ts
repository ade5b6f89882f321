/**
 * Plugins for certificate signing requests: who asks is the authenticated user, never what the body says; who approves or
 * denies must have the right to `approve` for the signer, and who signs the right to `sign`; and nobody gets a client certificate of `system:masters`.
 * The same holds for whoever signs certificates of pods.
 */

import { isDeepStrictEqual } from 'node:util';
import { parseCertificateRequest } from '../../api/certificates/certificate-request.ts';
import type { CertificateSigningRequest, CertificateSigningRequestCondition } from '../../api/certificates/v1.gen.ts';
import type { ClusterTrustBundle, PodCertificateRequest } from '../../api/certificates/v1beta1.gen.ts';
import { formatTime } from '../../base/clock.ts';
import { type FieldError, fieldErrors, invalid } from '../../base/errors.ts';
import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';
import { type AdmissionContext, isAbout, refusal } from './context.ts';

const GROUP = 'certificates.k8s.io';
const RESOURCE = 'certificatesigningrequests';
const CLIENT_SIGNER = 'kubernetes.io/kube-apiserver-client';
const MASTERS = 'system:masters';
const POD_CERTIFICATE_SKEW_MS = 5 * 60_000;

const isChange = ({ operation, attributes }: AdmissionRequest, subresource: string): boolean =>
  operation === 'UPDATE' &&
  attributes.group === GROUP &&
  attributes.resource === RESOURCE &&
  attributes.subresource === subresource;

export function certificateRequester({ clock }: AdmissionContext): AdmissionPlugin {
  return {
    name: 'CertificateRequester',
    mutate(request) {
      const csr = request.object as CertificateSigningRequest | undefined;
      if (request.operation === 'CREATE' && isAbout(request, GROUP, RESOURCE) && csr?.spec) {
        const { name, uid, groups, extra } = request.attributes.user;
        const { username: _, uid: __, groups: ___, extra: ____, ...asked } = csr.spec;
        csr.spec = {
          ...asked,
          username: name,
          groups: [...groups],
          ...(uid ? { uid } : {}),
          ...(extra ? { extra: structuredClone(extra) as Record<string, string[]> } : {}),
        };
      }
      if (csr?.status?.conditions && (isChange(request, 'approval') || isChange(request, 'status')))
        csr.status.conditions = stamped(csr, request.oldObject as CertificateSigningRequest, formatTime(clock.now()));
    },
  };
}

function stamped(
  csr: CertificateSigningRequest,
  old: CertificateSigningRequest,
  now: string,
): CertificateSigningRequestCondition[] {
  return csr.status!.conditions!.map(condition => {
    const before = old.status?.conditions?.find(({ type }) => type === condition.type);
    const since = before?.status === condition.status ? before.lastTransitionTime : undefined;
    return {
      ...condition,
      lastUpdateTime: condition.lastUpdateTime ?? now,
      lastTransitionTime: condition.lastTransitionTime ?? since ?? now,
    };
  });
}

export function certificateApproval({ authorizer }: AdmissionContext): AdmissionPlugin {
  return {
    name: 'CertificateApproval',
    validate(request) {
      if (!isChange(request, 'approval')) return;
      const { signerName } = (request.oldObject as CertificateSigningRequest).spec;
      return demand(authorizer, request, { verb: 'approve', signerName }, () =>
        refusal(request, `user not permitted to approve requests with signerName ${JSON.stringify(signerName)}`),
      );
    },
  };
}

export function certificateSigning({ authorizer }: AdmissionContext): AdmissionPlugin {
  return {
    name: 'CertificateSigning',
    validate(request) {
      if (!isChange(request, 'status')) return;
      const [csr, old] = [request.object as CertificateSigningRequest, request.oldObject as CertificateSigningRequest];
      const failures = ({ status }: CertificateSigningRequest) =>
        JSON.stringify(status?.conditions?.filter(({ type }) => type === 'Failed') ?? []);
      if (csr.status?.certificate === old.status?.certificate && failures(csr) === failures(old)) return;
      const { signerName } = old.spec;
      return demand(authorizer, request, { verb: 'sign', signerName }, () =>
        refusal(request, `user not permitted to sign requests with signerName ${JSON.stringify(signerName)}`),
      );
    },
  };
}

/** Throws `refused` unless the user may act for the signer. Plug-ins answer at once where it need not be asked: they see every write. */
async function demand(
  authorizer: AdmissionContext['authorizer'],
  request: AdmissionRequest,
  { verb, signerName }: { verb: string; signerName: string },
  refused: () => Error,
): Promise<void> {
  // A right to the whole domain of a signer is a right to `domain/*`.
  for (const name of [signerName, `${signerName.split('/', 1)[0]}/*`]) {
    const { allowed } = await authorizer.authorize({
      ...request.attributes,
      verb,
      resource: 'signers',
      subresource: '',
      namespace: '',
      version: '*',
      name,
    });
    if (allowed) return;
  }
  throw refused();
}

/** Whoever says whom a signer's certificates come from needs the right to `attest` for it. */
export function clusterTrustBundleAttest({ authorizer }: AdmissionContext): AdmissionPlugin {
  return {
    name: 'ClusterTrustBundleAttest',
    validate(request) {
      if (!isAbout(request, GROUP, 'clustertrustbundles') || request.operation === 'DELETE') return;
      const [bundle, old] = [request.object as ClusterTrustBundle, request.oldObject as ClusterTrustBundle | undefined];
      const signerName = bundle.spec?.signerName;
      if (!signerName || (old && isDeepStrictEqual(withoutOwners(bundle), withoutOwners(old)))) return;
      return demand(authorizer, request, { verb: 'attest', signerName }, () =>
        refusal(request, `user not permitted to attest for signerName ${JSON.stringify(signerName)}`),
      );
    },
  };
}

/** What only the garbage collector changes left out. */
function withoutOwners({ metadata, spec }: ClusterTrustBundle): object {
  const { ownerReferences: _, finalizers: __, managedFields: ___, ...rest } = metadata;
  return { metadata: rest, spec };
}

const isPodRequestStatus = ({ operation, attributes }: AdmissionRequest): boolean =>
  operation === 'UPDATE' &&
  attributes.group === GROUP &&
  attributes.resource === 'podcertificaterequests' &&
  attributes.subresource === 'status';

/** Whoever issues a pod's certificate needs the right to `sign` for the signer. */
export function podCertificateSigning({ authorizer, clock }: AdmissionContext): AdmissionPlugin {
  return {
    name: 'PodCertificateSigning',
    mutate(request) {
      const { status } = (request.object ?? {}) as PodCertificateRequest;
      if (!isPodRequestStatus(request) || !status?.conditions) return;
      status.conditions = status.conditions.map(condition => ({
        ...condition,
        lastTransitionTime: condition.lastTransitionTime || formatTime(clock.now()),
      }));
    },
    validate(request) {
      if (!isPodRequestStatus(request)) return;
      const { spec, status, metadata } = request.object as PodCertificateRequest;
      if (status?.certificateChain === (request.oldObject as PodCertificateRequest).status?.certificateChain) return;
      const refuse = (error: FieldError) => invalid(request.info, metadata.name, [error]);
      const { notBefore = '' } = status ?? {};
      if (!(Math.abs(Date.parse(notBefore) - clock.now()) < POD_CERTIFICATE_SKEW_MS))
        throw refuse(
          fieldErrors.invalid(
            'status.notBefore',
            notBefore,
            "must be set to within 5 minutes of kube-apiserver's current time",
          ),
        );
      const { signerName } = spec;
      const user = JSON.stringify(request.attributes.user.name);
      return demand(authorizer, request, { verb: 'sign', signerName }, () =>
        refuse(
          fieldErrors.forbidden(
            'spec.signerName',
            `User ${user} is not permitted to "sign" for signer ${JSON.stringify(signerName)}`,
          ),
        ),
      );
    },
  };
}

export function certificateSubjectRestriction(): AdmissionPlugin {
  return {
    name: 'CertificateSubjectRestriction',
    validate(request) {
      const csr = request.object as CertificateSigningRequest | undefined;
      if (request.operation !== 'CREATE' || !isAbout(request, GROUP, RESOURCE)) return;
      if (csr?.spec?.signerName !== CLIENT_SIGNER || !namesMasters(csr.spec.request)) return;
      throw refusal(request, `use of ${CLIENT_SIGNER} signer with ${MASTERS} group is not allowed`);
    },
  };
}

function namesMasters(request: string): boolean {
  try {
    return parseCertificateRequest(request).organizations.includes(MASTERS);
  } catch {
    // Validation says what is wrong with it.
    return false;
  }
}
