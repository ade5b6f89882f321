/** The words of a refusal, as upstream's handlers write them. */

import { type ApiError, failure, forbidden } from '../../base/errors.ts';
import type { RequestAttributes } from '../request.ts';

/** `User "jane" cannot list resource "pods" in API group "" in the namespace "default"` */
export function denialText(attributes: RequestAttributes): string {
  const who = `User ${JSON.stringify(attributes.user.name)} cannot ${attributes.verb}`;
  if (!attributes.isResource) return `${who} path ${JSON.stringify(attributes.path)}`;
  const resource = attributes.subresource ? `${attributes.resource}/${attributes.subresource}` : attributes.resource;
  const where = attributes.namespace
    ? `in the namespace ${JSON.stringify(attributes.namespace)}`
    : 'at the cluster scope';
  return `${who} resource ${JSON.stringify(resource)} in API group ${JSON.stringify(attributes.group)} ${where}`;
}

/** The 403 for a request that no authorizer allowed. */
export function forbiddenRequest(attributes: RequestAttributes, reason = ''): ApiError {
  const why = reason ? `${denialText(attributes)}: ${reason}` : denialText(attributes);
  if (!attributes.isResource) return failure(403, 'Forbidden', `forbidden: ${why}`, {});
  return forbidden({ group: attributes.group, resource: attributes.resource }, attributes.name, why);
}
