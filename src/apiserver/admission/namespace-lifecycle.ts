/** NamespaceLifecycle: nothing is written into a missing namespace, nothing created in a terminating one, and the system's own namespaces stay. */

import type { Namespace } from '../../api/core/v1.gen.ts';
import { ApiError, forbidden, notFound } from '../../base/errors.ts';
import { NAMESPACES } from '../../client/resources.ts';
import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';
import { type AdmissionContext, refusal } from './context.ts';

const IMMORTAL: readonly string[] = ['default', 'kube-system', 'kube-public'];

export function namespaceLifecycle({ reader }: AdmissionContext): AdmissionPlugin {
  return {
    name: 'NamespaceLifecycle',
    mutate(request: AdmissionRequest): void {
      const { attributes, operation } = request;
      const { group, resource, namespace, name } = attributes;
      if (group === '' && resource === 'namespaces') {
        if (operation === 'DELETE' && attributes.subresource === '' && IMMORTAL.includes(name))
          throw forbidden(NAMESPACES, name, 'this namespace may not be deleted');
        return;
      }
      if (namespace === '' || operation === 'DELETE' || resource === 'localsubjectaccessreviews') return;
      const found = reader().get(NAMESPACES, '', namespace) as Namespace | undefined;
      if (!found) throw notFound(NAMESPACES, namespace);
      if (operation !== 'CREATE' || (found.status?.phase !== 'Terminating' && !found.metadata.deletionTimestamp))
        return;
      const { status } = refusal(
        request,
        `unable to create new content in namespace ${namespace} because it is being terminated`,
      );
      const cause = {
        reason: 'NamespaceTerminating',
        message: `namespace ${namespace} is being terminated`,
        field: 'metadata.namespace',
      };
      throw new ApiError({ ...status, details: { ...status.details, causes: [cause] } });
    },
  };
}
