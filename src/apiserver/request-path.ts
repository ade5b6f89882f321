/**
 * URLs to request attributes, as upstream's RequestInfo: verb, group, version, namespace, resource, subresource, name.
 * Pure; whether the resource exists is decided later.
 */

import type { RequestAttributes, UserInfo } from './request.ts';

/** Attributes without the user, who is not known yet; `rest` is the path behind a proxy subresource. */
export type PathAttributes = Omit<RequestAttributes, 'user'> & { readonly rest: string };

const VERBS: Readonly<Record<string, string>> = {
  GET: 'get',
  HEAD: 'get',
  POST: 'create',
  PUT: 'update',
  PATCH: 'patch',
  DELETE: 'delete',
};

/** Subresources of namespaces; anything else below a namespace is a resource in it. */
const NAMESPACE_SUBRESOURCES = new Set(['status', 'finalize']);

export function parsePath(method: string, path: string, query: URLSearchParams | undefined): PathAttributes {
  const parts = path.split('/');
  const core = parts[1] === 'api' && parts.length > 3;
  const named = parts[1] === 'apis' && parts.length > 4;
  if (!core && !named) return nonResource(method, path);
  const group = core ? '' : decode(parts[2]!);
  const version = decode(parts[core ? 2 : 3]!);
  let at = core ? 3 : 4;
  if (parts[at] === '') return nonResource(method, path);
  let verb = VERBS[method] ?? method.toLowerCase();
  // The old form of watches, /api/v1/watch/pods, is still served.
  const oldWatch = parts[at] === 'watch' && parts.length > at + 1;
  if (oldWatch) {
    verb = 'watch';
    at++;
  }
  let namespace = '';
  if (parts[at] === 'namespaces' && parts[at + 1]) {
    namespace = decode(parts[at + 1]!);
    if (parts[at + 2] && !NAMESPACE_SUBRESOURCES.has(parts[at + 2]!)) at += 2;
  }
  const resource = decode(parts[at] ?? '');
  const name = decode(parts[at + 1] ?? '');
  const subresource = decode(parts[at + 2] ?? '');
  const rest = parts.length > at + 3 ? `/${parts.slice(at + 3).join('/')}` : '';
  // A namespace is in itself for authorization, but is stored without one.
  if (!oldWatch && query !== undefined && verb === 'get' && subresource === '') {
    const watch = query.get('watch');
    if (watch !== null && watch !== 'false' && watch !== '0') verb = 'watch';
    else if (name === '') verb = 'list';
  } else if (verb === 'get' && name === '') verb = 'list';
  if (verb === 'delete' && name === '') verb = 'deletecollection';
  const fieldSelector = query?.get('fieldSelector');
  const attributes = { verb, isResource: true, group, version, resource, subresource, namespace, name, path, rest };
  return fieldSelector && (verb === 'list' || verb === 'watch' || verb === 'deletecollection')
    ? { ...attributes, fieldSelector }
    : attributes;
}

/** The only object that a list, a watch or the deletion of many can concern, by its field selector. */
export function onlyName({
  verb,
  fieldSelector,
}: Pick<RequestAttributes, 'verb' | 'fieldSelector'>): string | undefined {
  if (!fieldSelector || !['list', 'watch', 'deletecollection'].includes(verb)) return undefined;
  const term = fieldSelector.split(',').find(part => /^metadata\.name==?[^=]/.test(part));
  return term?.slice(term.lastIndexOf('=') + 1);
}

function nonResource(method: string, path: string): PathAttributes {
  return {
    verb: method.toLowerCase(),
    isResource: false,
    group: '',
    version: '',
    resource: '',
    subresource: '',
    namespace: '',
    name: '',
    path,
    rest: '',
  };
}

function decode(part: string): string {
  if (!part.includes('%')) return part;
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function withUser(attributes: PathAttributes, user: UserInfo): RequestAttributes {
  const { verb, isResource, group, version, resource, subresource, namespace, name, path, fieldSelector } = attributes;
  const request = { user, verb, isResource, group, version, resource, subresource, namespace, name, path };
  return fieldSelector === undefined ? request : { ...request, fieldSelector };
}
