/**
 * Everything of the configuration that is not a backend: the process, the listeners, and the way from a request's host and path to
 * a backend, which is three look-ups in maps, so that it costs the same with one host and with thousands.
 * Precedence: the host itself, then its wildcard, then any host; within each exact path, expression, longest prefix.
 */

import type { Listening } from '../ingress-class.ts';
import type { CanaryRule } from '../settings.ts';
import type { Line, Section } from './configuration.ts';

/** Names of files, relative to the folder in which HAProxy runs. */
export const FILES = {
  configuration: 'haproxy.cfg',
  lua: 'ingress.lua',
  runtimeSocket: 'runtime.sock',
  masterSocket: 'master.sock',
  certificateList: 'certificates.list',
  defaultCertificate: 'certificates/default.pem',
  exact: 'exact.map',
  prefix: 'prefix.map',
  pattern: 'pattern.map',
  redirect: 'redirect.map',
  fallback: 'fallback.map',
  passwords: 'passwords.map',
  routes: 'routes.map',
} as const;

export const MAPS = [
  FILES.exact,
  FILES.prefix,
  FILES.pattern,
  FILES.redirect,
  FILES.fallback,
  FILES.passwords,
  FILES.routes,
] as const;

/** The key of `exact.map` for what nothing else matches: no host and path looks like it. */
export const DEFAULT_KEY = 'default';
export const NOT_FOUND_BACKEND = 'not-found';

/** Ways to a route beside a prefix of a plain host. */
export type Feature = 'exact' | 'patterns' | 'wildcards' | 'anyHost' | 'default' | 'redirects' | 'fallbacks';

export interface ListeningOptions extends Listening {
  readonly httpPort: number;
  readonly httpsPort: number;
  readonly connectionsMax: number;
  /** `` for all of IPv4, `::` for both families. */
  readonly bindAddress: string;
  /** Where names of authentication servers are asked. */
  readonly nameservers: readonly string[];
  readonly usesLua: boolean;
  readonly features: ReadonlySet<Feature>;
  readonly clientSeconds: number;
  readonly canaries: readonly { readonly of: string; readonly to: string; readonly rule: CanaryRule }[];
}

const THREADS = 2;
/** An old process serves what it had accepted for that long after a reload. */
const DRAIN_SECONDS = 600;
/** Old processes that may linger at once. */
const DRAINING_MAX = 8;
/** Slow clients: a request's head must come within this time. */
const HEAD_SECONDS = 30;
const LOG_LINE_BYTES_MAX = 8192;

const words = (line: string): Line => line.split(' ');

export function listeningSections(options: ListeningOptions): Section[] {
  return [globalSection(options), defaultsSection(options), ...resolvers(options), frontend(options), notFound()];
}

function globalSection({ connectionsMax, usesLua, nameservers }: ListeningOptions): Section {
  return {
    type: 'global',
    lines: [
      words('expose-experimental-directives'),
      ['nbthread', String(THREADS)],
      ['maxconn', String(connectionsMax)],
      ['hard-stop-after', `${DRAIN_SECONDS}s`],
      ['mworker-max-reloads', String(DRAINING_MAX)],
      ['stats', 'socket', `unix@${FILES.runtimeSocket}`, ...words('mode 600 level admin expose-fd listeners')],
      ['stats', 'timeout', '60s'],
      ['log', 'stdout', 'len', String(LOG_LINE_BYTES_MAX), ...words('format raw local0 info')],
      ['ssl-default-bind-options', ...words('ssl-min-ver TLSv1.2 no-tls-tickets')],
      words('tune.ssl.cachesize 4000'),
      ...(usesLua ? [['lua-load', FILES.lua]] : []),
      ...(usesLua && nameservers.length > 0 ? [words('httpclient.resolvers.id cluster')] : []),
      ...(usesLua ? [words('httpclient.ssl.verify none')] : []),
    ],
  };
}

function resolvers({ nameservers, usesLua }: ListeningOptions): Section[] {
  if (!usesLua || nameservers.length === 0) return [];
  return [
    {
      type: 'resolvers',
      name: 'cluster',
      lines: [
        ...nameservers.map((address, at) => ['nameserver', `dns${at}`, `${address}:53`]),
        words('hold valid 5s'),
        words('timeout resolve 1s'),
        words('accepted_payload_size 1232'),
      ],
    },
  ];
}

function defaultsSection({ clientSeconds }: ListeningOptions): Section {
  return {
    type: 'defaults',
    lines: [
      words('mode http'),
      words('option dontlognull'),
      words('option redispatch 1'),
      words('retries 3'),
      words('timeout connect 5s'),
      words('timeout server 60s'),
      ['timeout', 'client', `${clientSeconds}s`],
      ['timeout', 'http-request', `${HEAD_SECONDS}s`],
      words('timeout http-keep-alive 75s'),
      words('timeout tunnel 3600s'),
      words('timeout queue 30s'),
      words('timeout client-fin 10s'),
    ],
  };
}

/** One line of JSON a request; what clients wrote is escaped by HAProxy itself, names of objects need no escape. */
const logFormat = ({ trustsForwarded }: Listening): string =>
  [
    '{"time":%Ts.%ms',
    trustsForwarded ? '"client":"%[src]"' : '"client":"%ci"',
    '"tls":"%sslv"',
    '"method":"%HM"',
    '"host":"%[var(txn.host),bytes(0,255),json(utf8s)]"',
    '"path":"%[var(txn.path),bytes(0,1024),json(utf8s)]"',
    '"status":%ST',
    '"bytes":%B',
    '"milliseconds":%Ta',
    '"backendMilliseconds":%Tr',
    '"route":"%[var(txn.to),map_str(routes.map)]"',
    '"endpoint":"%s"',
    '"retries":"%rc"',
    '"end":"%ts"',
    '"request":"%[var(txn.request),bytes(0,64),json(utf8s)]"}',
  ].join(',');

function frontend(options: ListeningOptions): Section {
  const { httpPort, httpsPort, bindAddress, proxyProtocol } = options;
  const at = (port: number) => `${bindAddress}:${port}`;
  const how = [...(bindAddress === '::' ? ['v4v6'] : []), ...(proxyProtocol ? ['accept-proxy'] : [])];
  return {
    type: 'frontend',
    name: 'ingress',
    lines: [
      ['bind', at(httpPort), ...how],
      [
        'bind',
        at(httpsPort),
        ...how,
        ...words(`ssl crt ${FILES.defaultCertificate} crt-list ${FILES.certificateList} alpn h2,http/1.1`),
      ],
      words('log global'),
      ['log-format', logFormat(options)],
      ...normalising(),
      ...headers(options),
      ...lookups(options),
      ...canaryRules(options),
      ...(options.features.has('fallbacks') ? fallbackRules() : []),
      ...(options.features.has('redirects') ? [redirectRule(options)] : []),
      ...words2('use_backend %[var(txn.to)] if { var(txn.to) -m found }'),
      ['default_backend', NOT_FOUND_BACKEND],
    ],
  };
}

const words2 = (...lines: string[]): Line[] => lines.map(words);

// What rules decide on must be what the backend sees: no `/public/../admin`.
function normalising(): Line[] {
  return words2(
    // Without `strict` HAProxy 2.6 ignores the rule when it has a condition.
    'http-request normalize-uri percent-decode-unreserved strict if { path -m sub % }',
    'http-request normalize-uri path-strip-dot if { path -m sub /. }',
    'http-request normalize-uri path-strip-dotdot full if { path -m sub /. }',
  );
}

function headers({ trustsForwarded }: Listening): Line[] {
  const add = (name: string, value: string): Line => [
    ...['http-request', 'add-header', name, value],
    ...(trustsForwarded ? ['unless', '{', `req.hdr(${name.toLowerCase()})`, '-m', 'found', '}'] : []),
  ];
  return [
    // What clients say of themselves is believed only where that is asked for.
    ...words2(
      trustsForwarded
        ? 'http-request set-src req.hdr_ip(x-forwarded-for,1)'
        : 'http-request del-header x-forwarded- -m beg',
      'http-request del-header x-real-ip',
      'http-request del-header proxy',
    ),
    add('X-Forwarded-For', '%[src]'),
    add('X-Forwarded-Proto', '%[ssl_fc,iif(https,http)]'),
    add('X-Forwarded-Host', '%[req.hdr(host)]'),
    add('X-Forwarded-Port', '%[ssl_fc,iif(443,80)]'),
    ...words2('http-request add-header X-Real-IP %[src]'),
    ...words2(
      'http-request add-header X-Request-ID %[uuid] unless { req.hdr(x-request-id) -m found }',
      'http-request set-var(txn.request) req.hdr(x-request-id)',
    ),
  ];
}

// Each rule costs every request a little: those of features that nobody has used are not there.
function lookups({ features }: ListeningOptions): Line[] {
  const rules: string[] = [];
  const stage = (host: string) => {
    if (features.has('exact')) rules.push(`${host},concat(,txn.path,),map_str(${FILES.exact})`);
    if (features.has('patterns')) rules.push(`${host},concat(,txn.path,),map_reg(${FILES.pattern})`);
    rules.push(`${host},concat(,txn.path,/),map_beg(${FILES.prefix})`);
  };
  stage('var(txn.host)');
  if (features.has('wildcards')) stage('var(txn.host),regsub(^[^.]+,*)');
  if (features.has('anyHost')) stage('str(*)');
  if (features.has('default')) rules.push(`str(${DEFAULT_KEY}),map_str(${FILES.exact})`);
  return [
    ...words2(
      'http-request set-var(txn.host) req.hdr(host),host_only,rtrim(.),lower',
      'http-request set-var(txn.path) path',
      // Host and path are looked up as one text: a host with a slash would move the border between them.
      'http-request deny deny_status 400 if { var(txn.host) -m sub / }',
    ),
    ...rules.map(
      (expression, at): Line => [
        ...['http-request', 'set-var(txn.to)', expression],
        ...(at === 0 ? [] : words('if !{ var(txn.to) -m found }')),
      ],
    ),
  ];
}

function canaryRules({ canaries }: ListeningOptions): Line[] {
  if (canaries.length === 0) return [];
  const lines: Line[] = [];
  for (const { of, to, rule } of canaries) {
    const choose = (target: string, ...condition: string[]) =>
      lines.push([
        'http-request',
        'set-var(txn.canary)',
        `str(${target})`,
        ...words(`if { var(txn.to) -m str ${of} } !{ var(txn.canary) -m found }`),
        '{',
        ...condition,
        '}',
      ]);
    const { header, cookie, weight, total } = rule;
    if (header) {
      const value = `req.hdr(${header.name})`;
      if (header.value !== undefined) choose(to, value, '-m', 'str', '--', header.value);
      else if (header.pattern !== undefined) choose(to, value, '-m', 'reg', '--', `(?:${header.pattern})`);
      else {
        choose(to, value, '-m', 'str', 'always');
        choose(of, value, '-m', 'str', 'never');
      }
    }
    if (cookie !== undefined) {
      choose(to, `req.cook(${cookie})`, '-m', 'str', 'always');
      choose(of, `req.cook(${cookie})`, '-m', 'str', 'never');
    }
    if (weight > 0) choose(to, `rand(${total})`, 'lt', String(weight));
  }
  lines.push(...words2('http-request set-var(txn.to) var(txn.canary) if { var(txn.canary) -m found }'));
  return lines;
}

function fallbackRules(): Line[] {
  return words2(
    `http-request set-var(txn.instead) var(txn.to),map_str(${FILES.fallback})`,
    'http-request set-var(txn.to) var(txn.instead) if { var(txn.instead) -m found } { var(txn.to),nbsrv eq 0 }',
  );
}

function redirectRule({ trustsForwarded }: Listening): Line {
  return [
    ...words('http-request redirect location https://%[var(txn.host)]%[pathq] code 308 if !{ ssl_fc }'),
    ...(trustsForwarded ? words('!{ req.hdr(x-forwarded-proto) -m str -i https }') : []),
    ...words(`{ var(txn.to),map_str(${FILES.redirect}) -m found }`),
  ];
}

function notFound(): Section {
  return {
    type: 'backend',
    name: NOT_FOUND_BACKEND,
    lines: [
      [
        ...words('http-request return status 404 content-type text/plain string'),
        'no Ingress rule matches this host and path',
      ],
    ],
  };
}
