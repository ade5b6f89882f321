/**
 * Which requests a served resource has a route for, as upstream registers them: whether a namespace, a name and a method may
 * come together. A resource of the cluster has none below a namespace, for there a role of that namespace would
 * decide about it. Verbs of subresources that are no connections are the dispatcher's.
 */

import { type ApiError, failure } from '../base/errors.ts';
import type { RequestAttributes } from './request.ts';
import { type Served, subresourceOf } from './resource-table.ts';

/** Verbs that reach over all namespaces. */
const ACROSS = new Set(['list', 'watch']);
const NAMED = new Set(['update', 'patch', 'delete']);

export const unknownResource = (): ApiError =>
  failure(404, 'NotFound', 'the server could not find the requested resource', {});
export const notAllowed = (): ApiError =>
  failure(405, 'MethodNotAllowed', 'the server does not allow this method on the requested resource', {});

/** Methods of proxies that are no verb of a resource. */
const PROXIED = new Set(['HEAD', 'OPTIONS']);

/**
 * What refuses a request that no route is for; undefined where there is one. Verbs of subresources that are connections
 * (`isConnection`) are looked at here, since their handlers look at none.
 */
export function missingRoute(
  { info }: Served,
  attributes: RequestAttributes,
  { method, isConnection }: { readonly method: string; readonly isConnection: boolean },
): ApiError | undefined {
  const { namespace, name, subresource, verb } = attributes;
  if (info.namespaced) {
    if (name && !namespace) return unknownResource();
  } else if (namespace) {
    // A namespace is in itself.
    if (info.group !== '' || info.resource !== 'namespaces' || name !== namespace) return unknownResource();
  }
  if (isConnection) {
    const { verbs = [] } = subresourceOf(info, subresource) ?? {};
    const isTaken = subresource === 'proxy' && PROXIED.has(method);
    return isTaken || verbs.includes(verb) ? undefined : notAllowed();
  }
  // The old form of watches is in the path, whatever the method.
  if (verb === 'watch' && method !== 'GET') return notAllowed();
  if (subresource) return undefined;
  if (method === 'HEAD' || (name ? verb === 'create' : NAMED.has(verb))) return notAllowed();
  return info.namespaced && !namespace && !ACROSS.has(verb) ? notAllowed() : undefined;
}
