/** Approves what kubelets ask for to speak to the API server, where whoever asks may (`selfnodeclient`, `nodeclient`); nothing else. */

import type { SubjectAccessReview } from '../../api/authorization/v1.gen.ts';
import { parseCertificateRequest } from '../../api/certificates/certificate-request.ts';
import type { CertificateSigningRequest } from '../../api/certificates/v1.gen.ts';
import { formatTime } from '../../base/clock.ts';
import { CERTIFICATE_SIGNING_REQUESTS } from '../../client/resources.ts';
import { conditionOf, KUBELET_CLIENT, kubeletClientProblem } from '../runtime/certificate-requests.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';

const REVIEWS = { group: 'authorization.k8s.io', version: 'v1', resource: 'subjectaccessreviews' };

function create(ctx: ReconcileContext): Controller {
  const requests = ctx.informers.get<CertificateSigningRequest>(CERTIFICATE_SIGNING_REQUESTS);

  async function may({ spec }: CertificateSigningRequest, subresource: string): Promise<boolean> {
    const review = await ctx.client.of<SubjectAccessReview>(REVIEWS).create({
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SubjectAccessReview',
      metadata: { name: '' },
      spec: {
        user: spec.username ?? '',
        ...(spec.uid ? { uid: spec.uid } : {}),
        groups: spec.groups ?? [],
        ...(spec.extra ? { extra: spec.extra } : {}),
        resourceAttributes: {
          group: CERTIFICATE_SIGNING_REQUESTS.group,
          resource: CERTIFICATE_SIGNING_REQUESTS.resource,
          verb: 'create',
          subresource,
          version: '*',
        },
      },
    });
    return review.status?.allowed === true;
  }

  async function approve(request: CertificateSigningRequest, message: string): Promise<void> {
    const now = formatTime(ctx.clock.now());
    const approved = {
      type: 'Approved',
      status: 'True',
      reason: 'AutoApproved',
      message,
      lastUpdateTime: now,
      lastTransitionTime: now,
    };
    await ctx.transport.update(
      { of: CERTIFICATE_SIGNING_REQUESTS, name: request.metadata.name, subresource: 'approval' },
      {
        ...request,
        status: { ...request.status, conditions: [...(request.status?.conditions ?? []), approved] },
      } as CertificateSigningRequest,
    );
  }

  return {
    name: 'csrapproving',
    watches: [
      watch<CertificateSigningRequest>(CERTIFICATE_SIGNING_REQUESTS, change =>
        !change.deleted && change.object.spec.signerName === KUBELET_CLIENT ? [change.object.metadata.name] : [],
      ),
    ],
    async reconcile({ name }) {
      const request = requests.get(name);
      if (!request || request.status?.certificate) return;
      if (conditionOf(request, 'Approved') || conditionOf(request, 'Denied')) return;
      const content = parseCertificateRequest(request.spec.request);
      if (kubeletClientProblem(content, request.spec.usages ?? []) !== undefined) return;
      if (content.commonName === request.spec.username && (await may(request, 'selfnodeclient')))
        return approve(request, 'Auto approving self kubelet client certificate after SubjectAccessReview.');
      if (await may(request, 'nodeclient'))
        return approve(request, 'Auto approving kubelet client certificate after SubjectAccessReview.');
    },
  };
}

export const csrApproving: ControllerDefinition = {
  folder: 'csrapproving',
  component: 'certificate-controller',
  create,
};
