/**
 * The annotations of an Ingress: those of ingress-nginx that people bring along, by the same names and meanings, as one table. What
 * is not known, not possible or malformed becomes a finding that names annotation, value and rule. Invariant: a refused annotation
 * that was to keep somebody out closes the route instead of leaving it open.
 */

import type { Ingress } from '../api/networking/v1.gen.ts';
import { type AnnotationFinding, Annotations } from './annotation-set.ts';
import {
  boolean,
  checkPattern,
  cidr,
  cookiePath,
  headerName,
  hostName,
  httpUrl,
  integer,
  list,
  location,
  matching,
  mirrorUrl,
  oneOf,
  path,
  type Reader,
  Refused,
  reference,
  seconds,
  size,
  templatedHost,
  token,
} from './annotation-values.ts';
import type {
  Affinity,
  Balance,
  BasicAuth,
  CanaryRule,
  ClientAuth,
  Cors,
  ExternalAuth,
  HashSource,
  Limits,
  Mirror,
  Replacement,
  RetryReason,
  Settings,
  Text,
  TlsVersion,
  UpstreamTls,
} from './settings.ts';
import { DEFAULT_SETTINGS } from './settings.ts';

const COUNT_MAX = 1_000_000;
/** HAProxy's buffer without what it keeps free for changes of its own. */
const HEAD_BYTES_MAX = 15 * 1024;

const RETRY_REASONS: Readonly<Record<string, readonly RetryReason[]>> = {
  error: ['connect', 'empty'],
  timeout: ['connect', 'timeout'],
  invalid_header: ['empty'],
  http_500: [500],
  http_502: [502],
  http_503: [503],
  http_504: [504],
  http_403: [403],
  http_404: [404],
  non_idempotent: ['any'],
  off: [],
};

export interface ReadSettings {
  readonly settings: Settings;
  readonly findings: readonly AnnotationFinding[];
}

const PLAIN: ReadSettings = { settings: DEFAULT_SETTINGS, findings: [] };

/** `defaults` are the class's: annotation names without prefix. */
export function readAnnotations(ingress: Ingress, defaults: Readonly<Record<string, string>> = {}): ReadSettings {
  const { annotations = {}, namespace = '' } = ingress.metadata;
  const from = new Annotations(annotations, defaults);
  if (from.values.size === 0) return PLAIN;
  const rewriteTarget = from.get('rewrite-target', rewrite);
  const settings = compact<Settings>({
    ...DEFAULT_SETTINGS,
    tlsRedirect: tlsRedirect(from),
    usesRegex: (from.get('use-regex', boolean) ?? false) || rewriteTarget !== undefined,
    rewriteTarget,
    appRoot: from.get('app-root', path),
    redirect: redirect(from),
    protocol: from.get('backend-protocol', protocol) ?? 'http',
    serverName: from.get('proxy-ssl-name', hostName),
    upstreamTls: upstreamTls(from, namespace),
    upstreamVersion: from.get('proxy-ssl-protocols', onlyVersion),
    connectSeconds: from.get('proxy-connect-timeout', seconds),
    readSeconds: from.get('proxy-read-timeout', seconds),
    sendSeconds: from.get('proxy-send-timeout', seconds),
    retry: retry(from),
    bodyBytesMax: from.get('proxy-body-size', size) || undefined, // 0 is without limit
    limits: limits(from),
    allow: from.get('allowlist-source-range', list(cidr)) ?? from.get('whitelist-source-range', list(cidr)),
    deny: from.get('denylist-source-range', list(cidr)),
    balance: balance(from),
    affinity: affinity(from),
    basicAuth: basicAuth(from, namespace),
    externalAuth: externalAuth(from, namespace),
    clientAuth: clientAuth(from, namespace),
    mirror: mirror(from),
    cors: cors(from),
    upstreamHost: from.get('upstream-vhost', templatedHost),
    forwardedPrefix: from.get('x-forwarded-prefix', path),
    defaultBackend: from.get('default-backend', text => reference(namespace)(text).name),
    errorStatuses: errorStatuses(from),
    canary: canary(from),
    aliases: from.get('server-alias', list(hostName)) ?? [],
    responseHeaders: from.get('custom-headers', reference(namespace)),
    redirectFrom: redirectFrom(from),
    cookiePath: from.get('proxy-cookie-path', pair(PATH_TEXT)),
    cookieDomain: from.get('proxy-cookie-domain', pair(DOMAIN_TEXT)),
    isLogged: from.get('enable-access-log', boolean) ?? true,
    satisfiesAny: from.get('satisfy', oneOf('all', 'any')) === 'any' || undefined,
    redirectsWww: from.get('from-to-www-redirect', boolean) || undefined,
    passesTls: from.get('ssl-passthrough', boolean) || undefined,
    usesClusterIp: from.get('service-upstream', boolean) || undefined,
    closesConnections: from.get('connection-proxy-header', oneOf('keep-alive', 'close')) === 'close' || undefined,
  });
  checkUnneeded(from);
  from.get('whitelist-source-range', list(cidr));
  from.refuseUnknown();
  return { settings: { ...settings, isClosed: from.findings.some(({ closes }) => closes) }, findings: from.findings };
}

/** What would only be of use if bodies were buffered, or if all Ingresses asked one server who may come in. */
function checkUnneeded(from: Annotations): void {
  for (const name of ['proxy-busy-buffers-size', 'proxy-max-temp-file-size', 'client-body-buffer-size'])
    from.get(name, size);
  from.get('proxy-buffers-number', integer(1, 1000));
  from.get('proxy-buffer-size', headSize);
  from.get('enable-global-auth', boolean);
}

const headSize: Reader<number> = text => {
  const bytes = size(text);
  if (bytes > HEAD_BYTES_MAX) throw new Refused('the head of a response has at most 15k here');
  return bytes;
};

function compact<T extends object>(object: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as T;
}

const PATH_TEXT = /^\/[A-Za-z0-9._~/-]{0,255}$/;
const DOMAIN_TEXT = /^\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$/;
const PLACE_TEXT = /^(https?:\/\/[A-Za-z0-9.-]+(:\d{1,5})?(\/[A-Za-z0-9._~/-]*)?|\/[A-Za-z0-9._~/-]*)$/;

/** Two texts, `FROM TO`; `off` is as nothing. */
const pair =
  (form: RegExp): Reader<Replacement | undefined> =>
  text => {
    if (text === 'off') return undefined;
    const [before, after, more] = text.split(/\s+/);
    if (!form.test(before ?? '') || !form.test(after ?? '') || more !== undefined)
      throw new Refused('must be "off", or what is replaced and by what, without variables');
    return { from: before!, to: after! };
  };

function redirectFrom(from: Annotations): Replacement | undefined {
  const place = matching(PLACE_TEXT, 'must be a URL or a path, without variables');
  const before = from.get('proxy-redirect-from', text => (text === 'off' ? undefined : place(text)));
  const after = from.get('proxy-redirect-to', place);
  return before !== undefined && after !== undefined ? { from: before, to: after } : undefined;
}

const rewrite: Reader<string> = text => {
  if (!/^\/[A-Za-z0-9._~!&'()*+,;=:@%/$-]*$/.test(text) && !/^(\$\d)[A-Za-z0-9._~/$-]*$/.test(text))
    throw new Refused('must be a path, with $1 to $9 for captures');
  if (/\$(?![1-9](?!\d))/.test(text)) throw new Refused('"$" is followed by the number of a capture, 1 to 9');
  return text;
};

function tlsRedirect(from: Annotations): Settings['tlsRedirect'] {
  const forced = from.get('force-ssl-redirect', boolean);
  const wanted = from.get('ssl-redirect', boolean);
  if (forced) return 'always';
  return wanted === false ? 'never' : 'withTls';
}

function redirect(from: Annotations): Settings['redirect'] {
  const permanent = from.get('permanent-redirect', location);
  const permanentStatus = from.get('permanent-redirect-code', oneOf('301', '302', '303', '307', '308')) ?? '301';
  const temporal = from.get('temporal-redirect', location);
  const temporalStatus = from.get('temporal-redirect-code', oneOf('301', '302', '303', '307', '308')) ?? '302';
  if (temporal) return { to: temporal, status: Number(temporalStatus) };
  return permanent && { to: permanent, status: Number(permanentStatus) };
}

const PROTOCOLS = { HTTP: 'http', AUTO_HTTP: 'http', HTTPS: 'https', GRPC: 'h2c', GRPCS: 'h2', H2C: 'h2c' } as const;
const protocol: Reader<Settings['protocol']> = text =>
  PROTOCOLS[oneOf('HTTP', 'AUTO_HTTP', 'HTTPS', 'GRPC', 'GRPCS', 'H2C')(text.toUpperCase() as 'HTTP')];

function retry(from: Annotations): Settings['retry'] {
  const on = from.get('proxy-next-upstream', (text): readonly RetryReason[] => {
    const words = text.split(/\s+/);
    const unknown = words.find(word => !Object.hasOwn(RETRY_REASONS, word));
    if (unknown !== undefined) throw new Refused(`must be of ${Object.keys(RETRY_REASONS).join(', ')}`);
    return words.flatMap(word => RETRY_REASONS[word]!);
  });
  const tries = from.get('proxy-next-upstream-tries', integer(0, 20));
  if (on === undefined && tries === undefined) return undefined;
  // nginx counts the first try, and 0 is without limit.
  return { on: [...new Set(on ?? ['connect'])] as RetryReason[], tries: tries === undefined ? 3 : tries || 20 };
}

function limits(from: Annotations): Limits | undefined {
  const rates = compact<Partial<Limits>>({
    requestsPerSecond: from.get('limit-rps', integer(1, COUNT_MAX)),
    requestsPerMinute: from.get('limit-rpm', integer(1, COUNT_MAX)),
    connections: from.get('limit-connections', integer(1, COUNT_MAX)),
  });
  const burst = from.get('limit-burst-multiplier', integer(1, 1000)) ?? 5;
  const exempt = from.get('limit-allowlist', list(cidr)) ?? from.get('limit-whitelist', list(cidr)) ?? [];
  from.get('limit-whitelist', list(cidr));
  return Object.keys(rates).length > 0 ? { ...rates, burst, exempt } : undefined;
}

function balance(from: Annotations): Balance | undefined {
  const hash = from.get('upstream-hash-by', hashSource);
  const by = from.get('load-balance', oneOf('round_robin', 'least_conn', 'leastconn', 'random', 'ip_hash'));
  if (hash) return { by: 'hash', of: hash };
  if (by === 'ip_hash') return { by: 'hash', of: { from: 'source' } };
  if (by === 'random') return { by };
  return by === 'least_conn' || by === 'leastconn' ? { by: 'leastconn' } : undefined;
}

const HASHES: Readonly<Record<string, HashSource>> = {
  $request_uri: { from: 'uri' },
  $uri: { from: 'path' },
  $remote_addr: { from: 'source' },
  $binary_remote_addr: { from: 'source' },
  $host: { from: 'host' },
  $http_host: { from: 'host' },
};
const hashSource: Reader<HashSource> = text => {
  const known = HASHES[text];
  if (known) return known;
  const match = /^\$(http|cookie|arg)_([a-z0-9_]{1,64})$/.exec(text);
  if (!match)
    throw new Refused('must be one of $request_uri, $uri, $remote_addr, $host, $http_NAME, $cookie_NAME, $arg_NAME');
  if (match[1] === 'http') return { from: 'header', name: match[2]!.replaceAll('_', '-') };
  return { from: match[1] === 'cookie' ? 'cookie' : 'argument', name: match[2]! };
};

function affinity(from: Annotations): Affinity | undefined {
  const kind = from.get('affinity', oneOf('cookie'));
  from.get('affinity-mode', oneOf('balanced', 'persistent'));
  const rest = compact<Omit<Affinity, 'cookie' | 'secure'>>({
    path: from.get('session-cookie-path', cookiePath),
    domain: from.get('session-cookie-domain', hostName),
    maxAgeSeconds:
      from.get('session-cookie-max-age', integer(0, 1e9)) ?? from.get('session-cookie-expires', integer(0, 1e9)),
    sameSite: from.get('session-cookie-samesite', oneOf('None', 'Lax', 'Strict')),
  });
  from.get('session-cookie-expires', integer(0, 1e9));
  const cookie = from.get('session-cookie-name', token) ?? 'INGRESSCOOKIE';
  const secure = from.get('session-cookie-secure', boolean) ?? false;
  return kind && { cookie, secure, ...rest };
}

function basicAuth(from: Annotations, namespace: string): BasicAuth | undefined {
  const type = from.get('auth-type', oneOf('basic'));
  const secret = from.get('auth-secret', reference(namespace));
  const format = from.get('auth-secret-type', oneOf('auth-file', 'auth-map'));
  const realm = from.get('auth-realm', matching(/^[\x20-\x7e]{1,128}$/, 'must be visible ASCII characters'));
  if (!type) return undefined;
  if (!secret) {
    if (!from.has('auth-secret')) from.refuse('auth-type', 'needs the annotation auth-secret');
    return undefined;
  }
  return { secret, format: format === 'auth-map' ? 'map' : 'file', realm: realm ?? 'Authentication Required' };
}

function externalAuth(from: Annotations, namespace: string): ExternalAuth | undefined {
  const url = from.get('auth-url', httpUrl);
  const method = from.get('auth-method', oneOf('GET', 'HEAD', 'POST')) ?? 'GET';
  const signIn = from.get('auth-signin', location);
  const responseHeaders = from.get('auth-response-headers', list(headerName)) ?? [];
  const requestHeaders = from.get('auth-proxy-set-headers', reference(namespace));
  const parameter = from.get('auth-signin-redirect-param', token) ?? 'rd';
  if (url === undefined) return undefined;
  return {
    url,
    method,
    responseHeaders,
    ...(requestHeaders ? { requestHeaders } : {}),
    ...(signIn ? { signIn: returning(signIn, parameter) } : {}),
  };
}

/** Where to sign in, told where the client wanted to go unless that is in it already. */
function returning(signIn: Text, parameter: string): Text {
  const written = signIn.map(part => (typeof part === 'string' ? part : '')).join('');
  if (written.includes(`?${parameter}=`) || written.includes(`&${parameter}=`)) return signIn;
  const mark = written.includes('?') ? '&' : '?';
  return [
    ...signIn,
    `${mark}${parameter}=`,
    { variable: 'scheme' },
    '://',
    { variable: 'host' },
    { variable: 'escapedUri' },
  ];
}

function mirror(from: Annotations): Mirror | undefined {
  const to = from.get('mirror-target', mirrorUrl);
  const host = from.get('mirror-host', hostName);
  const withBody = from.get('mirror-request-body', oneOf('on', 'off')) !== 'off';
  return to && { to, host: host ?? String(to[0]).replace(/^https?:\/\//, ''), withBody };
}

function errorStatuses(from: Annotations): readonly number[] | undefined {
  const statuses = from.get('custom-http-errors', list(integer(400, 599)));
  if (!statuses || from.has('default-backend')) return statuses;
  from.refuse('custom-http-errors', 'needs the annotation default-backend, whose Service says what clients get');
  return undefined;
}

function upstreamTls(from: Annotations, namespace: string): UpstreamTls | undefined {
  const secret = from.get('proxy-ssl-secret', reference(namespace));
  const verifies = from.get('proxy-ssl-verify', oneOf('on', 'off')) === 'on';
  if (secret) return { secret, verifies };
  if (verifies && !from.has('proxy-ssl-secret'))
    from.refuse('proxy-ssl-verify', 'needs the annotation proxy-ssl-secret, whose ca.crt says whom to trust');
  return undefined;
}

const TLS_VERSIONS: readonly TlsVersion[] = ['TLSv1.2', 'TLSv1.3'];
const OLD_VERSIONS = ['SSLv2', 'SSLv3', 'TLSv1', 'TLSv1.1'];

/** Undefined where both are meant. Old ones beside them are not offered. */
const onlyVersion: Reader<TlsVersion | undefined> = text => {
  const given = text.split(/\s+/);
  const strange = given.find(one => ![...OLD_VERSIONS, ...TLS_VERSIONS].includes(one));
  const [first, second] = TLS_VERSIONS.filter(version => given.includes(version));
  if (strange !== undefined || !first) throw new Refused('must be TLSv1.2, TLSv1.3 or both; older ones are not spoken');
  return second ? undefined : first;
};

const CLIENT_MODES = { on: 'required', optional: 'optional', optional_no_ca: 'unchecked', off: 'off' } as const;

function clientAuth(from: Annotations, namespace: string): ClientAuth | undefined {
  const secret = from.get('auth-tls-secret', reference(namespace));
  const mode =
    CLIENT_MODES[from.get('auth-tls-verify-client', oneOf('on', 'off', 'optional', 'optional_no_ca')) ?? 'on'];
  const errorPage = from.get('auth-tls-error-page', location);
  const passesCertificate = from.get('auth-tls-pass-certificate-to-upstream', boolean) ?? false;
  const commonName = from.get('auth-tls-match-cn', text => expression(text.replace(/^CN=/, '')));
  if (!secret || mode === 'off') return undefined;
  return {
    secret,
    mode,
    passesCertificate,
    ...(errorPage ? { errorPage } : {}),
    ...(commonName ? { commonName } : {}),
  };
}

const CORS_HEADERS =
  'DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization';
export const origin = matching(
  /^(\*|https?:\/\/(\*\.)?[A-Za-z0-9.-]+(:\d{1,5})?)$/,
  'must be "*" or an origin such as https://example.com or https://*.example.com',
);

function cors(from: Annotations): Cors | undefined {
  const isEnabled = from.get('enable-cors', boolean);
  const names = matching(/^[A-Za-z0-9_*, -]{1,1024}$/, 'must be names separated by commas');
  const exposeHeaders = from.get('cors-expose-headers', names);
  const privateNetwork = from.get('cors-allow-private-network', boolean);
  const made: Cors = {
    origins: from.get('cors-allow-origin', list(origin)) ?? ['*'],
    methods: from.get('cors-allow-methods', names) ?? 'GET, PUT, POST, DELETE, PATCH, OPTIONS',
    headers: from.get('cors-allow-headers', names) ?? CORS_HEADERS,
    credentials: from.get('cors-allow-credentials', boolean) ?? true,
    maxAgeSeconds: from.get('cors-max-age', integer(0, 1e9)) ?? 1_728_000,
    ...(exposeHeaders ? { exposeHeaders } : {}),
    ...(privateNetwork ? { privateNetwork } : {}),
  };
  return isEnabled ? made : undefined;
}

const headerValue = matching(/^[A-Za-z0-9_.=:/+,@-]{1,256}$/, 'must be letters, digits or "_.=:/+,@-"');
const expression: Reader<string> = text => {
  checkPattern(text);
  return text;
};

function canary(from: Annotations): CanaryRule | undefined {
  const isCanary = from.get('canary', boolean);
  const name = from.get('canary-by-header', headerName);
  const value = from.get('canary-by-header-value', headerValue);
  const pattern = from.get('canary-by-header-pattern', expression);
  const cookie = from.get('canary-by-cookie', token);
  const total = from.get('canary-weight-total', integer(1, COUNT_MAX)) ?? 100;
  const weight = from.get('canary-weight', integer(0, COUNT_MAX)) ?? 0;
  if (!isCanary) return undefined;
  return {
    weight,
    total,
    ...(cookie ? { cookie } : {}),
    ...(name ? { header: { name, ...(value ? { value } : {}), ...(pattern ? { pattern } : {}) } } : {}),
  };
}
