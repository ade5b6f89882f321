/** Removes requests for pods' certificates a quarter of an hour after they were made: kubelets have long read the answer, or gave up. */

import type { PodCertificateRequest } from '../../api/certificates/v1beta1.gen.ts';
import { isReason } from '../../base/errors.ts';
import { POD_CERTIFICATE_REQUESTS } from '../../client/resources.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';

const AGE_MS_MAX = 15 * 60_000;

function create(ctx: ReconcileContext): Controller {
  const requests = ctx.informers.get<PodCertificateRequest>(POD_CERTIFICATE_REQUESTS);
  return {
    name: 'podcertificaterequestcleaner',
    watches: [
      watch<PodCertificateRequest>(POD_CERTIFICATE_REQUESTS, change =>
        change.deleted ? [] : [`${change.object.metadata.namespace}/${change.object.metadata.name}`],
      ),
    ],
    async reconcile({ namespace, name }) {
      const request = requests.get(`${namespace}/${name}`);
      if (!request) return;
      const { creationTimestamp = '', uid } = request.metadata;
      const waitMs = Date.parse(creationTimestamp) + AGE_MS_MAX - ctx.clock.now();
      if (waitMs > 0) return { requeueAfterMs: waitMs };
      try {
        await ctx.client
          .of<PodCertificateRequest>(POD_CERTIFICATE_REQUESTS)
          .delete(namespace, name, { preconditions: { uid: uid! } });
      } catch (error) {
        if (!isReason(error, 'NotFound', 'Conflict')) throw error;
      }
    },
  };
}

export const podCertificateCleaner: ControllerDefinition = {
  folder: 'podcertificatecleaner',
  component: 'certificate-controller',
  needs: POD_CERTIFICATE_REQUESTS,
  create,
};
