/** An admission request as others see it: the body of an AdmissionReview, and the variables of expressions. */

import type { AdmissionRequest as Review } from '../../api/admission/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { ResourceInfo } from '../../api/schema.ts';
import { convertObject } from '../conversion.ts';
import type { AdmissionRequest, Reader } from '../request.ts';
import { apiVersionOf } from '../resource-table.ts';
import { ownResource } from './request-rules.ts';

const OPTIONS: Readonly<Record<string, string>> = {
  CREATE: 'CreateOptions',
  UPDATE: 'UpdateOptions',
  DELETE: 'DeleteOptions',
};

/** The request in a version of its resource; `object` and `oldObject` are converted to it. */
export function reviewOf(request: AdmissionRequest, info: ResourceInfo, uid: string, reader: Reader): Review {
  const { attributes, operation, dryRun } = request;
  const { user, subresource, name, namespace } = attributes;
  const own = ownResource(request, reader);
  const kindOf = ({ group, version, kind }: ResourceInfo) => ({ group, version, kind });
  const resourceOf = ({ group, version, resource }: ResourceInfo) => ({ group, version, resource });
  const options = OPTIONS[operation];
  return {
    uid,
    kind: request.kind ?? kindOf(info),
    resource: resourceOf(info),
    ...(subresource ? { subResource: subresource } : {}),
    requestKind: request.kind ?? kindOf(own),
    requestResource: resourceOf(own),
    ...(subresource ? { requestSubResource: subresource } : {}),
    ...(request.object?.metadata?.name || name ? { name: request.object?.metadata?.name || name } : {}),
    ...(namespace && info.resource !== 'namespaces' ? { namespace } : namespace ? { namespace } : {}),
    operation,
    userInfo: {
      username: user.name,
      ...(user.uid ? { uid: user.uid } : {}),
      groups: [...user.groups],
      ...(user.extra
        ? { extra: Object.fromEntries(Object.entries(user.extra).map(([key, values]) => [key, [...values]])) }
        : {}),
    },
    object: inVersion(request.object, request.info, info),
    oldObject: inVersion(request.oldObject, request.info, info),
    dryRun,
    options: options ? { kind: options, apiVersion: 'meta.k8s.io/v1' } : null,
  };
}

/** The object in another version of its resource; null when there is none. */
export function inVersion(object: KubeObject | undefined, from: ResourceInfo, to: ResourceInfo): KubeObject | null {
  if (!object) return null;
  const apiVersion = apiVersionOf(to);
  if (object.apiVersion === apiVersion || object.kind !== from.kind) return object;
  return convertObject(object, from, to);
}
