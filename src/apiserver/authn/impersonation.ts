/**
 * `Impersonate-User`, `-Uid`, `-Group` and `-Extra-*`: the request runs as somebody else when the authorizer grants the
 * real user the verb `impersonate` on each thing it claims to be. `system:masters` may be claimed only by who may
 * impersonate that group.
 */

import type { IncomingHttpHeaders } from 'node:http';
import { internalError } from '../../base/errors.ts';
import { forbiddenRequest } from '../authz/denial.ts';
import type { Authorizer, RequestAttributes, UserInfo } from '../request.ts';

/** Throws Forbidden with upstream's message; BadRequest-like headers (group without user) are an InternalError upstream too. */
export async function impersonatedUser(
  user: UserInfo,
  headers: IncomingHttpHeaders,
  authorizer: Authorizer,
): Promise<UserInfo> {
  const name = single(headers['impersonate-user']);
  const uid = single(headers['impersonate-uid']);
  let groups = all(headers['impersonate-group']);
  const extra: Record<string, string[]> = {};
  for (const [header, value] of Object.entries(headers))
    if (header.startsWith('impersonate-extra-'))
      extra[decodeKey(header.slice('impersonate-extra-'.length))] = all(value);
  if (name === undefined) {
    if (groups.length || uid !== undefined || Object.keys(extra).length)
      throw internalError(
        'requested [...] without impersonating a user'.replace(
          '[...]',
          JSON.stringify([...groups, ...(uid ? [uid] : []), ...Object.keys(extra)]),
        ),
      );
    return user;
  }

  const may = async (resource: string, subject: string, parts: Partial<RequestAttributes> = {}) => {
    const attributes: RequestAttributes = {
      user,
      verb: 'impersonate',
      isResource: true,
      group: '',
      version: 'v1',
      resource,
      subresource: '',
      namespace: '',
      name: subject,
      path: '',
      ...parts,
    };
    const decision = await authorizer.authorize(attributes);
    if (!decision.allowed) throw forbiddenRequest(attributes, decision.reason);
  };
  const account = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(name);
  if (account) {
    await may('serviceaccounts', account[2]!, { namespace: account[1]! });
    if (groups.length === 0) groups = ['system:serviceaccounts', `system:serviceaccounts:${account[1]}`];
    else for (const group of groups) await may('groups', group);
  } else {
    await may('users', name);
    for (const group of groups) await may('groups', group);
  }
  for (const [key, values] of Object.entries(extra))
    for (const value of values) await may('userextras', value, { group: 'authentication.k8s.io', subresource: key });
  if (uid !== undefined) await may('uids', uid, { group: 'authentication.k8s.io' });

  if (name === 'system:anonymous') {
    if (!groups.includes('system:unauthenticated')) groups = [...groups, 'system:unauthenticated'];
  } else if (!groups.includes('system:authenticated') && !groups.includes('system:unauthenticated'))
    groups = [...groups, 'system:authenticated'];
  return { name, groups, ...(uid === undefined ? {} : { uid }), ...(Object.keys(extra).length ? { extra } : {}) };
}

function single(value: string | readonly string[] | undefined): string | undefined {
  return typeof value === 'string' ? value : value?.[0];
}

// Node joins repeated headers of unknown names with ", "; a group name holding a comma cannot be told apart.
function all(value: string | readonly string[] | undefined): string[] {
  if (value === undefined) return [];
  return typeof value === 'string' ? value.split(', ').filter(Boolean) : [...value];
}

function decodeKey(key: string): string {
  try {
    return decodeURIComponent(key).toLowerCase();
  } catch {
    return key.toLowerCase();
  }
}
