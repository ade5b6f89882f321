/**
 * `Impersonate-*` headers (`kubectl --as`): the request goes on as another user once the real one may impersonate each
 * part. It never adds rights of its own.
 */

import type { IncomingHttpHeaders } from 'node:http';
import { badRequest } from '../base/errors.ts';
import type { RequestAttributes, UserInfo } from './request.ts';

const SERVICE_ACCOUNT = /^system:serviceaccount:([^:]+):([^:]+)$/;

/** The user to go on as; `user` itself without such headers. `authorize` throws Forbidden. */
export async function impersonate(
  user: UserInfo,
  headers: IncomingHttpHeaders,
  authorize: (attributes: RequestAttributes) => void | Promise<void>,
): Promise<UserInfo> {
  const name = single(headers['impersonate-user']);
  const uid = single(headers['impersonate-uid']);
  const groups = several(headers['impersonate-group']);
  const extra: Record<string, readonly string[]> = {};
  for (const [header, value] of Object.entries(headers))
    if (header.startsWith('impersonate-extra-'))
      extra[decodeURIComponent(header.slice('impersonate-extra-'.length))] = several(value);
  const asked = uid !== '' || groups.length > 0 || Object.keys(extra).length > 0;
  if (name === '' && asked)
    throw badRequest('requested impersonation of groups, uid or extra without impersonating a user');

  const check = (resource: string, of: { name: string; namespace?: string; group?: string; subresource?: string }) =>
    authorize({
      user,
      verb: 'impersonate',
      isResource: true,
      group: of.group ?? '',
      version: 'v1',
      resource,
      subresource: of.subresource ?? '',
      namespace: of.namespace ?? '',
      name: of.name,
      path: '',
    });
  const account = SERVICE_ACCOUNT.exec(name);
  if (account) await check('serviceaccounts', { namespace: account[1]!, name: account[2]! });
  else await check('users', { name });
  for (const group of groups) await check('groups', { name: group });
  if (uid) await check('uids', { group: 'authentication.k8s.io', name: uid });
  for (const [key, values] of Object.entries(extra))
    for (const value of values)
      await check('userextras', { group: 'authentication.k8s.io', subresource: key, name: value });

  const all = new Set(groups);
  if (account && groups.length === 0) {
    all.add('system:serviceaccounts');
    all.add(`system:serviceaccounts:${account[1]}`);
  }
  all.add(name === 'system:anonymous' ? 'system:unauthenticated' : 'system:authenticated');
  return { name, groups: [...all], ...(uid ? { uid } : {}), ...(Object.keys(extra).length > 0 ? { extra } : {}) };
}

export function wantsImpersonation(headers: IncomingHttpHeaders): boolean {
  return (
    headers['impersonate-user'] !== undefined ||
    headers['impersonate-group'] !== undefined ||
    headers['impersonate-uid'] !== undefined
  );
}

function single(value: string | string[] | undefined): string {
  return (Array.isArray(value) ? value[0] : value) ?? '';
}

// Node joins repeated headers with commas.
function several(value: string | string[] | undefined): string[] {
  if (value === undefined) return [];
  return (Array.isArray(value) ? value : value.split(',')).map(item => item.trim()).filter(item => item !== '');
}
