/**
 * Claims that see devices without using them up (`adminAccess`), whoever else has them: only in namespaces that are labelled for it, be
 * it in a claim, in a template of claims or in what a claim was allocated. Upstream does this in the storage of claims.
 */

import type { Namespace } from '../../api/core/v1.gen.ts';
import type {
  DeviceRequest,
  DeviceRequestAllocationResult,
  ResourceClaim,
  ResourceClaimTemplate,
} from '../../api/resource/v1.gen.ts';
import { fieldErrors, invalid } from '../../base/errors.ts';
import { NAMESPACES } from '../../client/resources.ts';
import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';
import type { AdmissionContext } from './context.ts';

const GROUP = 'resource.k8s.io';
const LABEL = 'resource.kubernetes.io/admin-access';

export function adminAccess({ reader }: Pick<AdmissionContext, 'reader'>): AdmissionPlugin {
  return {
    name: 'DeviceAdminAccess',
    validate(request) {
      const { attributes, object } = request;
      if (attributes.group !== GROUP) return;
      const path = pathOf(request);
      if (path === undefined) return;
      const namespace = reader().get(NAMESPACES, '', attributes.namespace) as Namespace | undefined;
      if (namespace?.metadata.labels?.[LABEL] === 'true') return;
      throw invalid({ group: GROUP, kind: object!.kind! }, object!.metadata.name, [
        fieldErrors.forbidden(
          path,
          `admin access to devices requires the \`${LABEL}: true\` label on the containing namespace`,
        ),
      ]);
    },
  };
}

/** Where the access is asked for; specs never change, so they matter when they are made. */
function pathOf({ attributes, operation, object, oldObject }: AdmissionRequest): string | undefined {
  const { resource, subresource } = attributes;
  if (operation === 'CREATE' && resource === 'resourceclaims')
    return requested((object as ResourceClaim).spec?.devices);
  if (operation === 'CREATE' && resource === 'resourceclaimtemplates')
    return requested((object as ResourceClaimTemplate).spec?.spec?.devices);
  if (operation !== 'UPDATE' || resource !== 'resourceclaims' || subresource !== 'status') return undefined;
  return granted(oldObject as ResourceClaim) === undefined ? granted(object as ResourceClaim) : undefined;
}

/** Upstream names the path of a claim for templates too, and without `exactly`. */
function requested(devices: { readonly requests?: readonly DeviceRequest[] } | undefined): string | undefined {
  const index = devices?.requests?.findIndex(({ exactly }) => exactly?.adminAccess) ?? -1;
  return index < 0 ? undefined : `spec.devices.requests[${index}].adminAccess`;
}

function granted({ status }: ResourceClaim): string | undefined {
  const results: readonly DeviceRequestAllocationResult[] = status?.allocation?.devices?.results ?? [];
  const index = results.findIndex(({ adminAccess }) => adminAccess);
  return index < 0 ? undefined : `status.allocation.devices.results[${index}].adminAccess`;
}
