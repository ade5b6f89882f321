/**
 * Who may come in, as rules of a backend: by address, certificate, password and another server's word. Invariant: every way that is not open
 * ends in a refusal, also where what it depends on is missing.
 */

import type { ClientAuth, SecretRef, Settings } from '../settings.ts';
import { type Line, literal } from './configuration.ts';
import { words } from './process-sections.ts';
import { aclLines, format, refusal, when } from './rule-words.ts';

/** Set once one of several ways in is open. */
const SATISFIED = '{ var(txn.satisfied) -m bool }';

/** Who is kept out by one of these may come in by another. */
function hasAlternatives({ satisfiesAny, allow, basicAuth, externalAuth }: Settings): boolean {
  return satisfiesAny === true && [allow, basicAuth, externalAuth].filter(Boolean).length > 1;
}

function satisfied(...condition: Line): Line {
  return [...words('http-request set-var(txn.satisfied) bool(true) if'), ...condition];
}

export function addressRules(settings: Settings): Line[] {
  const { allow, deny } = settings;
  return [
    ...(deny ? [...aclLines('denied', deny), [...refusal(403), 'if', 'denied']] : []),
    ...(allow
      ? [
          ...aclLines('allowed', allow),
          hasAlternatives(settings) ? satisfied('allowed') : [...refusal(403), 'unless', 'allowed'],
        ]
      : []),
  ];
}

export function basicAuthRules(settings: Settings): Line[] {
  const { basicAuth } = settings;
  if (!basicAuth) return [];
  const list = userList(basicAuth.secret);
  return [
    ['http-request', 'set-var(txn.user)', 'http_auth_user'],
    ['http-request', 'set-var(txn.password)', 'http_auth_pass'],
    ['http-request', 'set-var(txn.login)', `str(${list}),concat(/,txn.user,)`],
    ['http-request', 'set-var(txn.hash)', 'var(txn.login),map_str(passwords.map)'],
    ['http-request', 'lua.check-password', ...when('var(txn.hash) -m found')],
    [
      ...words('http-request auth realm'),
      literal(basicAuth.realm),
      ...words(`if !{ var(txn.admitted) -m bool } !{ http_auth(${list}) }`),
      ...(hasAlternatives(settings) ? words(`!${SATISFIED}`) : []),
    ],
  ];
}

/** Name of the list of a Secret's users: names of objects have no underscore. */
export function userList({ namespace, name }: SecretRef): string {
  return `${namespace}_${name}`;
}

export function externalAuthRules(
  settings: Settings,
  configMap: (ref: SecretRef) => Readonly<Record<string, string>> | undefined,
): Line[] {
  const { externalAuth, basicAuth } = settings;
  if (!externalAuth) return [];
  const { url, method, signIn, responseHeaders, requestHeaders } = externalAuth;
  const told = requestHeaders ? questionHeaders(configMap(requestHeaders)) : '-';
  // Whoever is asked might answer otherwise if it were not told all.
  if (told === undefined) return [[...refusal(503)]];
  const isOneOfMany = hasAlternatives(settings);
  const otherwise = isOneOfMany ? words(`!${SATISFIED}`) : [];
  const answered = (status: number) => [...when(`var(txn.auth_status) -m int ${status}`), ...otherwise];
  const ask: Line = ['http-request', 'lua.external-auth', url, method, responseHeaders.join(',') || '-', told];
  if (!isOneOfMany || !basicAuth)
    return [
      isOneOfMany ? [...ask, 'if', ...otherwise] : ask,
      ...(signIn ? [['http-request', 'redirect', 'location', format(signIn), 'code', '302', ...answered(401)]] : []),
      [...refusal(401), ...answered(401)],
      [...refusal(403), ...answered(403)],
      [...refusal(503), 'if', ...words('!{ var(txn.auth_status) -m int 200 }'), ...otherwise],
    ];
  // The password, which is asked for next, may still let the request in.
  return [[...ask, 'if', ...otherwise], satisfied(...words('{ var(txn.auth_status) -m int 200 }'))];
}

const QUESTION_HEADERS_MAX = 32;
const QUESTION_BYTES_MAX = 8192;
/** These say whom a message is for and where it ends. */
const NOT_TOLD = /^(host|connection|content-length|transfer-encoding|upgrade|te|trailer|expect|keep-alive|proxy-.*)$/i;

/** As `Name:HEX,…` for the Lua action, whose words HAProxy must not read anything into; undefined for what cannot be told so. */
function questionHeaders(data: Readonly<Record<string, string>> | undefined): string | undefined {
  const entries = Object.entries(data ?? {}).map(([name, value]) => [name, value.trim()] as const);
  const canBeTold = entries.every(
    ([name, value]) =>
      /^[A-Za-z0-9-]{1,128}$/.test(name) && !NOT_TOLD.test(name) && /^[\x20-\x23\x25-\x7e]{1,1024}$/.test(value),
  );
  const text = entries.map(([name, value]) => `${name}:${Buffer.from(value).toString('hex')}`).join(',');
  if (!data || !canBeTold || entries.length > QUESTION_HEADERS_MAX || text.length > QUESTION_BYTES_MAX)
    return undefined;
  return text || '-';
}

const SUBJECT_HEADERS = [
  ['ssl-client-subject-dn', '%[ssl_c_s_dn(,0,rfc2253)]'],
  ['ssl-client-issuer-dn', '%[ssl_c_i_dn(,0,rfc2253)]'],
] as const;

// The name that a connection was opened with decides what was asked of its client, so it is that name that counts here.
export function certificateRules(
  { mode, errorPage, passesCertificate, commonName }: ClientAuth,
  authorities = 'none',
): Line[] {
  const set = (name: string, value: string, ...condition: string[]): Line => [
    ...['http-request', 'set-header', name, value],
    ...condition,
  ];
  const shown = words('if { ssl_c_used }');
  const wrong = (status: number, ...condition: string[]): Line =>
    errorPage
      ? ['http-request', 'redirect', 'location', format(errorPage), 'code', '302', ...condition]
      : [...refusal(status), ...condition];
  return [
    words('http-request set-var(txn.authorities) ssl_fc_sni,lower,map_str(authorities.map)'),
    words(
      'http-request set-var(txn.authorities) ssl_fc_sni,lower,regsub(^[^.]+,*),map_str(authorities.map) unless { var(txn.authorities) -m found }',
    ),
    [...refusal(421), 'unless', '{', 'var(txn.authorities)', '-m', 'str', authorities, '}'],
    ...(mode === 'required' ? [wrong(400, ...words('unless { ssl_c_used }'))] : []),
    ...(mode === 'unchecked' ? [] : [wrong(400, ...words('if { ssl_c_used } !{ ssl_c_verify 0 }'))]),
    ...(commonName === undefined
      ? []
      : [wrong(403, 'unless', '{', 'ssl_c_s_dn(cn)', '-m', 'reg', '--', `^(?:${commonName})$`, '}')]),
    set('ssl-client-verify', 'NONE'),
    set('ssl-client-verify', 'FAILED', ...shown),
    set('ssl-client-verify', 'SUCCESS', ...shown, ...words('{ ssl_c_verify 0 }')),
    ...[...SUBJECT_HEADERS.map(([name]) => name), 'ssl-client-cert'].map(name => ['http-request', 'del-header', name]),
    ...SUBJECT_HEADERS.map(([name, value]) => set(name, value, ...shown)),
    ...(passesCertificate
      ? [
          set(
            'ssl-client-cert',
            '-----BEGIN%%20CERTIFICATE-----%%0A%[ssl_c_der,base64,url_enc]%%0A-----END%%20CERTIFICATE-----%%0A',
            ...shown,
          ),
        ]
      : []),
  ];
}
