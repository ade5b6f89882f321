/**
 * The built-in signers: signs approved requests for clients of the API server and for kubelets. A request that its signer does not allow
 * gets the condition Failed and never a certificate.
 */

import { type CertificateRequestContent, parseCertificateRequest } from '../../api/certificates/certificate-request.ts';
import type { CertificateSigningRequest } from '../../api/certificates/v1.gen.ts';
import { formatTime } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { CERTIFICATE_SIGNING_REQUESTS } from '../../client/resources.ts';
import {
  API_CLIENT,
  conditionOf,
  KUBELET_CLIENT,
  KUBELET_SERVING,
  kubeletClientProblem,
  kubeletServingProblem,
  LEGACY_UNKNOWN,
} from '../runtime/certificate-requests.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';

/** Upstream's `--cluster-signing-duration`. */
const DURATION_SECONDS_MAX = 365 * 24 * 3600;
const DURATION_SECONDS_MIN = 600;
/** Clocks that are behind ours. */
const BACKDATE_MS = 5 * 60_000;
const CLIENT_USAGES = ['digital signature', 'key encipherment', 'client auth'];

type Check = (content: CertificateRequestContent, request: CertificateSigningRequest) => string | undefined;

const SIGNERS: Readonly<Record<string, Check>> = {
  [API_CLIENT]: (_, { spec: { usages = [] } }) => {
    const other = usages.find(usage => !CLIENT_USAGES.includes(usage));
    if (other) return `invalid usage for client certificate: ${other}`;
    return usages.includes('client auth') ? undefined : 'missing required usage for client certificate: client auth';
  },
  [KUBELET_CLIENT]: (content, { spec }) => kubeletClientProblem(content, spec.usages ?? []),
  [KUBELET_SERVING]: (content, { spec }) =>
    content.commonName === spec.username
      ? kubeletServingProblem(content, spec.usages ?? [])
      : `the common name ${JSON.stringify(content.commonName)} is not who asks, ${JSON.stringify(spec.username ?? '')}`,
  [LEGACY_UNKNOWN]: () => undefined,
};

function create(ctx: ReconcileContext): Controller {
  const requests = ctx.informers.get<CertificateSigningRequest>(CERTIFICATE_SIGNING_REQUESTS);

  function signed(request: CertificateSigningRequest): CertificateSigningRequest['status'] {
    const { spec, status } = request;
    const now = ctx.clock.now();
    let problem: string | undefined;
    try {
      const content = parseCertificateRequest(spec.request);
      problem = SIGNERS[spec.signerName]!(content, request);
      if (problem === undefined) {
        const seconds = Math.min(spec.expirationSeconds ?? DURATION_SECONDS_MAX, DURATION_SECONDS_MAX);
        const certificate = ctx.settings.authority!.sign({
          ...content,
          usages: spec.usages ?? [],
          notBeforeMs: now - BACKDATE_MS,
          notAfterMs: now - BACKDATE_MS + Math.max(seconds, DURATION_SECONDS_MIN) * 1000,
        });
        return { ...status, certificate: Buffer.from(certificate).toString('base64') };
      }
    } catch (error) {
      problem = messageOf(error);
    }
    const time = formatTime(now);
    const failed = {
      type: 'Failed',
      status: 'True',
      reason: 'SignerValidationFailure',
      message: problem,
      lastUpdateTime: time,
      lastTransitionTime: time,
    };
    return { ...status, conditions: [...(status?.conditions ?? []), failed] };
  }

  return {
    name: 'csrsigning',
    watches: [
      watch<CertificateSigningRequest>(CERTIFICATE_SIGNING_REQUESTS, change =>
        !change.deleted && Object.hasOwn(SIGNERS, change.object.spec.signerName) ? [change.object.metadata.name] : [],
      ),
    ],
    async reconcile({ name }) {
      const request = requests.get(name);
      if (!ctx.settings.authority || !request || request.status?.certificate) return;
      if (!conditionOf(request, 'Approved') || conditionOf(request, 'Denied') || conditionOf(request, 'Failed')) return;
      await ctx.transport.update({ of: CERTIFICATE_SIGNING_REQUESTS, name, subresource: 'status' }, {
        ...request,
        status: signed(request),
      } as CertificateSigningRequest);
    },
  };
}

export const csrSigning: ControllerDefinition = { folder: 'csrsigning', component: 'certificate-controller', create };
