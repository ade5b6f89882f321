/** Removes certificate requests that nobody needs any more: decided or failed for an hour, waiting for a day, or with an expired certificate. */

import { X509Certificate } from 'node:crypto';
import type { CertificateSigningRequest } from '../../api/certificates/v1.gen.ts';
import { isReason } from '../../base/errors.ts';
import { CERTIFICATE_SIGNING_REQUESTS } from '../../client/resources.ts';
import { conditionOf } from '../runtime/certificate-requests.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';

const DECIDED_MS = 3_600_000;
const PENDING_MS = 24 * 3_600_000;

/** When the request may go. */
export function expiryMs(request: CertificateSigningRequest): number {
  const { metadata, status } = request;
  const since = (time: string | undefined) => Date.parse(time ?? metadata.creationTimestamp ?? '');
  const [approved, denied, failed] = [
    conditionOf(request, 'Approved'),
    conditionOf(request, 'Denied'),
    conditionOf(request, 'Failed'),
  ];
  const ends = [denied, failed].flatMap(one => (one ? [since(one.lastUpdateTime) + DECIDED_MS] : []));
  if (approved && status?.certificate)
    ends.push(since(approved.lastUpdateTime) + DECIDED_MS, certificateEndMs(status.certificate));
  if (!approved && !denied && !failed) ends.push(since(undefined) + PENDING_MS);
  return Math.min(...ends);
}

function certificateEndMs(certificate: string): number {
  try {
    return Date.parse(new X509Certificate(Buffer.from(certificate, 'base64')).validTo);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

function create(ctx: ReconcileContext): Controller {
  const requests = ctx.informers.get<CertificateSigningRequest>(CERTIFICATE_SIGNING_REQUESTS);
  return {
    name: 'csrcleaner',
    watches: [
      watch<CertificateSigningRequest>(CERTIFICATE_SIGNING_REQUESTS, change =>
        change.deleted ? [] : [change.object.metadata.name],
      ),
    ],
    async reconcile({ name }) {
      const request = requests.get(name);
      if (!request) return;
      const waitMs = expiryMs(request) - ctx.clock.now();
      if (waitMs === Number.POSITIVE_INFINITY) return;
      if (waitMs > 0) return { requeueAfterMs: waitMs };
      try {
        await ctx.client
          .of<CertificateSigningRequest>(CERTIFICATE_SIGNING_REQUESTS)
          .delete('', name, { preconditions: { uid: request.metadata.uid! } });
      } catch (error) {
        if (!isReason(error, 'NotFound', 'Conflict')) throw error;
      }
    },
  };
}

export const csrCleaner: ControllerDefinition = { folder: 'csrcleaner', component: 'certificate-controller', create };
