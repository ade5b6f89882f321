/**
 * `Impersonate-*` headers (`kubectl --as`): the request goes on as another user once the real one may do that. Constrained
 * impersonation comes first (KEP 5284): the real user may be somebody (`impersonate:<mode>`) for this action
 * (`impersonate-on:<mode>:<verb>`); else the verb `impersonate` counts, which is for all actions. It never adds rights of its own.
 */

import type { IncomingHttpHeaders } from 'node:http';
import { dnsSubdomainProblems } from '../api/machinery/names.ts';
import { badRequest } from '../base/errors.ts';
import { forbiddenRequest } from './authz/denial.ts';
import { headerValues } from './header-values.ts';
import type { RequestAttributes, UserInfo } from './request.ts';

const SERVICE_ACCOUNT = /^system:serviceaccount:([^:]+):([^:]+)$/;
const NODE = 'system:node:';
const NODE_OF_ACCOUNT = 'authentication.kubernetes.io/node-name';
const EXTRA = 'impersonate-extra-';
/** From so many groups or extra values on, one question about all of them comes before one for each. */
const MANY = 4;

type Authorize = (attributes: RequestAttributes) => void | Promise<void>;
type Mode = 'associated-node' | 'arbitrary-node' | 'serviceaccount' | 'user-info';

export interface Impersonated {
  readonly user: UserInfo;
  /** The verb that allowed it, for the audit; absent with the plain `impersonate`. */
  readonly constraint?: string;
}

/** Whom the headers ask for, as they say it; undefined when they ask for nobody. Throws BadRequest. */
export function wantedUser(headers: IncomingHttpHeaders): UserInfo | undefined {
  const [name = ''] = headerValues(headers, 'impersonate-user');
  const [uid = ''] = headerValues(headers, 'impersonate-uid');
  const groups = headerValues(headers, 'impersonate-group');
  let extra: Record<string, readonly string[]> | undefined;
  for (const header in headers) {
    if (!header.startsWith(EXTRA)) continue;
    extra ??= {};
    const key = unescaped(header.slice(EXTRA.length));
    extra[key] = [...(extra[key] ?? []), ...headerValues(headers, header)];
  }
  if (name) return { name, groups, ...(uid ? { uid } : {}), ...(extra ? { extra } : {}) };
  if (uid || groups.length > 0 || extra)
    throw badRequest('requested impersonation of groups, uid or extra without impersonating a user');
  return undefined;
}

/**
 * The user to go on as. `request` is what is asked, by the real user. Throws Forbidden, with the words of the first mode that
 * could have served.
 */
export async function impersonate(
  wanted: UserInfo,
  request: RequestAttributes,
  authorize: Authorize,
): Promise<Impersonated> {
  let refusal: unknown;
  for (const mode of modesFor(wanted, request.user))
    try {
      const asked = mode === 'associated-node' ? asAssociated(request) : request;
      await authorize({ ...asked, verb: `impersonate-on:${mode}:${asked.verb}` });
      const user = await constrained(wanted, asked.user, mode, authorize);
      return { user, constraint: `impersonate:${mode}` };
    } catch (error) {
      refusal ??= error;
    }
  try {
    return { user: await unconstrained(wanted, request.user, authorize) };
  } catch (error) {
    throw refusal ?? error;
  }
}

function modesFor(wanted: UserInfo, requester: UserInfo): Mode[] {
  const node = nodeOf(wanted.name);
  const isAccount = SERVICE_ACCOUNT.test(wanted.name);
  if (node === undefined && !isAccount) return ['user-info'];
  // What else a node or a service account is, is fixed.
  if (wanted.uid || wanted.groups.length > 0 || wanted.extra) return [];
  if (node === undefined) return ['serviceaccount'];
  const [own, ...others] = requester.extra?.[NODE_OF_ACCOUNT] ?? [];
  const isOwn = SERVICE_ACCOUNT.test(requester.name) && own === node && others.length === 0;
  return isOwn ? ['associated-node', 'arbitrary-node'] : ['arbitrary-node'];
}

/** Whoever decides about a service account's own node sees which keys the account has, and not which node it is. */
function asAssociated(request: RequestAttributes): RequestAttributes {
  const keys = Object.keys(request.user.extra ?? {}).sort();
  return {
    ...request,
    user: { ...request.user, extra: { 'authentication.kubernetes.io/associated-node-keys': keys } },
  };
}

interface Part {
  readonly resource: string;
  readonly name: string;
  readonly subresource?: string;
  readonly namespace?: string;
  readonly group?: string;
}

function partOf(requester: UserInfo, verb: string, part: Part): RequestAttributes {
  return {
    user: requester,
    verb,
    isResource: true,
    version: 'v1',
    path: '',
    group: '',
    subresource: '',
    namespace: '',
    ...part,
  };
}

async function constrained(wanted: UserInfo, requester: UserInfo, mode: Mode, authorize: Authorize): Promise<UserInfo> {
  const of = (part: Part) => partOf(requester, `impersonate:${mode}`, { group: 'authentication.k8s.io', ...part });
  const check = (part: Part) => authorize(of(part));
  const account = SERVICE_ACCOUNT.exec(wanted.name);
  const node = nodeOf(wanted.name);
  if (node !== undefined) {
    await check({ resource: 'nodes', name: mode === 'associated-node' ? '*' : node });
    return { name: wanted.name, groups: ['system:nodes', 'system:authenticated'] };
  }
  if (account) {
    await check({ resource: 'serviceaccounts', namespace: account[1]!, name: account[2]! });
    return { name: wanted.name, groups: withEverybody(wanted.name, groupsOfAccount(account[1]!)) };
  }
  const { name, uid, groups, extra = {} } = wanted;
  await check({ resource: 'users', name });
  if (uid) await check({ resource: 'uids', name: uid });
  for (const [group, why] of [
    ['', 'impersonating the empty string group is not allowed'],
    ['system:masters', 'impersonating the system:masters group is not allowed'],
  ] as const)
    if (groups.includes(group)) throw forbiddenRequest(of({ resource: 'groups', name: group }), why);
  await checkAll(
    groups.map(one => ({ resource: 'groups', name: one })),
    { resource: 'groups', name: '*' },
    check,
  );
  for (const [key, values] of Object.entries(extra)) {
    const problem = extraProblem(key, values);
    if (problem) throw forbiddenRequest(of({ resource: 'userextras', name: '' }), problem);
  }
  await checkAll(
    extraParts(extra),
    { resource: 'userextras', subresource: '*', name: '*' },
    check,
    Object.keys(extra).length,
  );
  return { ...wanted, groups: withEverybody(name, groups) };
}

/** Asks about all of many parts at once first. */
async function checkAll(
  parts: readonly Part[],
  whole: Part,
  check: (part: Part) => void | Promise<void>,
  count = 0,
): Promise<void> {
  if (Math.max(parts.length, count) >= MANY)
    try {
      return await check(whole);
    } catch {
      // Each by itself may still be allowed.
    }
  for (const part of parts) await check(part);
}

function extraProblem(key: string, values: readonly string[]): string | undefined {
  if (key === '') return 'impersonating the empty string key in extra is not allowed';
  const [domain = '', ...path] = key.split('/');
  if (path.join('/') === '' || dnsSubdomainProblems(domain).length > 0)
    return `impersonating an invalid key in extra is not allowed: extra.key: Invalid value: ${JSON.stringify(key)}: must be a domain-prefixed path (such as "acme.io/foo")`;
  if (key !== key.toLowerCase())
    return `impersonating a non-lowercase key in extra is not allowed: ${JSON.stringify(key)}`;
  if (values.includes('')) return 'impersonating the empty string value in extra is not allowed';
  return undefined;
}

/** The verb `impersonate`, as it always was. */
async function unconstrained(wanted: UserInfo, requester: UserInfo, authorize: Authorize): Promise<UserInfo> {
  const check = (part: Part) => authorize(partOf(requester, 'impersonate', part));
  const { name, uid, groups, extra = {} } = wanted;
  const account = SERVICE_ACCOUNT.exec(name);
  if (account) await check({ resource: 'serviceaccounts', namespace: account[1]!, name: account[2]! });
  else await check({ resource: 'users', name });
  if (uid) await check({ resource: 'uids', group: 'authentication.k8s.io', name: uid });
  for (const group of groups) await check({ resource: 'groups', name: group });
  for (const part of extraParts(extra)) await check({ group: 'authentication.k8s.io', ...part });
  const known = account && groups.length === 0 ? groupsOfAccount(account[1]!) : groups;
  return { ...wanted, groups: withEverybody(name, known) };
}

function extraParts(extra: NonNullable<UserInfo['extra']>): Part[] {
  return Object.entries(extra).flatMap(([subresource, values]) =>
    values.map(name => ({ resource: 'userextras', subresource, name })),
  );
}

function groupsOfAccount(namespace: string): string[] {
  return ['system:serviceaccounts', `system:serviceaccounts:${namespace}`];
}

/** Everybody is one of those who are known or one of those who are not. */
function withEverybody(name: string, groups: readonly string[]): readonly string[] {
  const all = name === 'system:anonymous' ? 'system:unauthenticated' : 'system:authenticated';
  return groups.includes(all) || groups.includes('system:unauthenticated') ? groups : [...groups, all];
}

/** The node of a node's user name. */
function nodeOf(name: string): string | undefined {
  const node = name.startsWith(NODE) ? name.slice(NODE.length) : '';
  return node !== '' && dnsSubdomainProblems(node).length === 0 ? node : undefined;
}

function unescaped(key: string): string {
  const lower = key.toLowerCase();
  try {
    return decodeURIComponent(lower);
  } catch {
    return lower;
  }
}
