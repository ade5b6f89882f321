/**
 * A proxy in front of the API server vouches for its users: who shows a client certificate of the front proxy's own authority names
 * user, uid, groups and extra in headers. Without such a certificate the headers mean nothing.
 */

import { headerValues } from '../header-values.ts';
import type { Credentials, UserInfo } from '../request.ts';

export interface RequestHeaderOptions {
  /** Common names of the proxies; any that the authority vouches for when empty. */
  readonly allowedNames: readonly string[];
  readonly usernameHeaders: readonly string[];
  readonly uidHeaders: readonly string[];
  readonly groupHeaders: readonly string[];
  readonly extraHeaderPrefixes: readonly string[];
}

const CERTIFICATE = /-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----/g;

/** Where users and proxies share an authority, the proxies must be named: else every user is one (refused since 1.35). */
export function checkAuthorities(
  { allowedNames }: RequestHeaderOptions,
  { users, proxies }: { readonly users: string; readonly proxies: string },
): void {
  const certificates = (pem: string) => [...pem.matchAll(CERTIFICATE)].map(([, body]) => body!.replace(/\s/g, ''));
  const ofUsers = new Set(certificates(users));
  if (allowedNames.length === 0 && certificates(proxies).some(each => ofUsers.has(each)))
    throw new Error(
      '--requestheader-client-ca-file and --client-ca-file contain overlapping certificates; --requestheader-allowed-names must be specified to ensure regular client certificates cannot set authenticating proxy headers for arbitrary users',
    );
}

/** As kubeadm sets them up. */
export const REQUEST_HEADER_DEFAULTS: RequestHeaderOptions = {
  allowedNames: ['front-proxy-client'],
  usernameHeaders: ['X-Remote-User'],
  uidHeaders: ['X-Remote-Uid'],
  groupHeaders: ['X-Remote-Group'],
  extraHeaderPrefixes: ['X-Remote-Extra-'],
};

/** The user that the proxy speaks for; undefined when it is none of the allowed proxies or names no user. */
export function proxiedUser(
  { headers, certificate }: Credentials,
  options: RequestHeaderOptions,
): UserInfo | undefined {
  if (!certificate?.isFrontProxy) return undefined;
  if (options.allowedNames.length > 0 && !options.allowedNames.includes(certificate.commonName)) return undefined;
  const first = (names: readonly string[]) =>
    names.map(name => headerValues(headers, name.toLowerCase())[0] ?? '').find(Boolean) ?? '';
  const name = first(options.usernameHeaders);
  if (name === '') return undefined;
  const uid = first(options.uidHeaders);
  const groups = options.groupHeaders.flatMap(header => headerValues(headers, header.toLowerCase())).filter(Boolean);
  const extra: Record<string, readonly string[]> = {};
  for (const header of Object.keys(headers))
    for (const prefix of options.extraHeaderPrefixes)
      if (header.startsWith(prefix.toLowerCase()))
        extra[unescaped(header.slice(prefix.length))] = headerValues(headers, header);
  return { name, groups, ...(uid ? { uid } : {}), ...(Object.keys(extra).length > 0 ? { extra } : {}) };
}

function unescaped(key: string): string {
  try {
    return decodeURIComponent(key);
  } catch {
    return key;
  }
}
