/**
 * Everything of the configuration that is not a backend: the process, the listeners, and the way from a request's host and path to
 * a backend, which is three look-ups in maps, so that it costs the same with one host and with thousands.
 * Precedence: the host itself, then its wildcard, then any host; within each exact path, expression, longest prefix.
 */

import type { Listening } from '../ingress-class.ts';
import type { CanaryRule } from '../settings.ts';
import type { Line, Section } from './configuration.ts';
import { ERROR_SOCKET, FAILED_BACKEND } from './lua.ts';
import { clientHeaders, connectionVariables, lines, normalising, processSections, words } from './process-sections.ts';

/** Names of files, relative to the folder in which HAProxy runs. */
export const FILES = {
  lua: 'ingress.lua',
  content: 'content.lua',
  certificateList: 'certificates.list',
  defaultCertificate: 'certificates/default.pem',
  exact: 'exact.map',
  prefix: 'prefix.map',
  pattern: 'pattern.map',
  redirect: 'redirect.map',
  fallback: 'fallback.map',
  passwords: 'passwords.map',
  authorities: 'authorities.map',
  routes: 'routes.map',
  canaries: 'canaries.map',
  passthrough: 'passthrough.map',
} as const;

/** The key of `exact.map` for what nothing else matches: no host and path looks like it. */
export const DEFAULT_KEY = 'default';
export const NOT_FOUND_BACKEND = 'not-found';

/** Ways to a route beside a prefix of a plain host. */
export type Feature =
  | 'passthrough'
  | 'exact'
  | 'patterns'
  | 'wildcards'
  | 'anyHost'
  | 'default'
  | 'redirects'
  | 'fallbacks';

export interface ListeningOptions extends Listening {
  readonly httpPort: number;
  readonly httpsPort: number;
  /** `` for all of IPv4, `::` for both families. */
  readonly bindAddress: string;
  /** Where names of authentication servers are asked. */
  readonly nameservers: readonly string[];
  readonly usesLua: boolean;
  /** Some backend's errors give way to another's pages. */
  readonly hasErrorPages?: boolean;
  /** The file of certificates whose names ask clients for theirs. */
  readonly askingList?: string | undefined;
  /** Of the files that ConfigMaps are served from; absent: there are none. */
  readonly contentVersion?: string | undefined;
  /** Some backend is a name of DNS. */
  readonly resolves: boolean;
  readonly features: ReadonlySet<Feature>;
  readonly clientSeconds: number;
  readonly canaries: readonly { readonly of: string; readonly to: string; readonly rule: CanaryRule }[];
}

export function listeningSections(options: ListeningOptions): Section[] {
  const { usesLua, contentVersion: version, nameservers, resolves, clientSeconds } = options;
  return [
    ...processSections({
      nameservers,
      resolves,
      clientSeconds,
      // As ingress-nginx without annotations: what a server took along when it ended is asked of another.
      retryOn: ['conn-failure', 'empty-response'],
      ...(usesLua ? { lua: FILES.lua } : {}),
      ...(version === undefined ? {} : { content: { file: FILES.content, version } }),
    }),
    ...(options.features.has('passthrough') ? passthrough(options) : []),
    frontend(options),
    ...(options.hasErrorPages ? [errorPages()] : []),
    notFound(),
  ];
}

/** One line of JSON a request; what clients wrote is escaped by HAProxy itself, names of objects need no escape. */
const logFormat = ({ trustsForwarded }: Listening): string =>
  [
    '{"time":%Ts.%ms',
    `"client":"%[${trustsForwarded ? 'src' : 'var(sess.client)'}]"`,
    '"tls":"%sslv"',
    '"method":"%HM"',
    '"host":"%[var(txn.host),bytes(0,255),json(ascii)]"',
    '"path":"%[var(txn.path),bytes(0,1024),json(ascii)]"',
    '"status":%ST',
    '"bytes":%B',
    '"milliseconds":%Ta',
    '"backendMilliseconds":%Tr',
    '"route":"%[var(txn.to),map_str(routes.map)]"',
    '"endpoint":"%s"',
    '"retries":"%rc"',
    '"end":"%ts"',
    '"request":"%[var(txn.request)]"}',
  ].join(',');

function at({ bindAddress, proxyProtocol }: ListeningOptions, port: number): Line {
  return [
    `${bindAddress}:${port}`,
    ...(bindAddress === '::' ? ['v4v6'] : []),
    ...(proxyProtocol ? ['accept-proxy'] : []),
  ];
}

/** Where HAProxy hands itself connections whose TLS it is to decrypt. */
const TLS_SOCKET = 'tls.sock';
/** A client's first words must come within this time. */
const HELLO_SECONDS = 5;

/** Reads the server name that a client asks for; connections for the others are decrypted as ever. */
function passthrough(options: ListeningOptions): Section[] {
  const name = 'tcp-request content set-var(txn.to) var(txn.name)';
  return [
    {
      type: 'frontend',
      name: 'tls',
      lines: [
        words('mode tcp'),
        ['bind', ...at(options, options.httpsPort)],
        words('option clitcpka'),
        ['tcp-request', 'inspect-delay', `${HELLO_SECONDS}s`],
        ...lines(
          'tcp-request content reject unless { req.ssl_hello_type 1 }',
          'tcp-request content set-var(txn.name) req.ssl_sni,lower',
          `${name},map_str(${FILES.passthrough})`,
          `${name},regsub(^[^.]+,*),map_str(${FILES.passthrough}) unless { var(txn.to) -m found }`,
          'use_backend %[var(txn.to)] if { var(txn.to) -m found }',
        ),
        ['default_backend', 'decrypt'],
      ],
    },
    {
      type: 'backend',
      name: 'decrypt',
      lines: [words('mode tcp'), ['server', 'self', `unix@${TLS_SOCKET}`, 'send-proxy-v2']],
    },
  ];
}

function frontend(options: ListeningOptions): Section {
  const { httpPort, httpsPort, askingList, features } = options;
  // Behind the one that looks at server names, if it is there.
  const https = features.has('passthrough')
    ? [`unix@${TLS_SOCKET}`, ...words('accept-proxy mode 600')]
    : at(options, httpsPort);
  return {
    type: 'frontend',
    name: 'ingress',
    lines: [
      ['bind', ...at(options, httpPort)],
      [
        'bind',
        ...https,
        ...words(`ssl crt ${FILES.defaultCertificate} crt-list ${FILES.certificateList} alpn h2,http/1.1`),
        // What a certificate is worth is for the routes to say, which know who may come without.
        ...(askingList ? ['crt-list', askingList, ...words('crt-ignore-err all ca-ignore-err all')] : []),
      ],
      ...connectionVariables(),
      words('log global'),
      ['log-format', logFormat(options)],
      ...normalising(),
      ...clientHeaders(options),
      ...lookups(options),
      ...canaryRules(options),
      ...(options.features.has('fallbacks') ? fallbackRules() : []),
      ...(options.features.has('redirects') ? [redirectRule(options)] : []),
      ...lines('use_backend %[var(txn.to)] if { var(txn.to) -m found }'),
      ['default_backend', NOT_FOUND_BACKEND],
    ],
  };
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
    ...lines(
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
  const chosen: Line[] = [];
  for (const { of, to, rule } of canaries) {
    const choose = (target: string, ...condition: string[]) =>
      chosen.push([
        'http-request',
        'set-var(txn.canary)',
        `str(${target})`,
        ...words(`if { var(txn.to) -m str ${of} } !{ var(txn.canary) -m found }`),
        '{',
        ...condition,
        '}',
      ]);
    const { header, cookie, total } = rule;
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
    chosen.push(
      words(
        `http-request set-var(txn.weight) str(${to}),map_str_int(${FILES.canaries}) if { var(txn.to) -m str ${of} }`,
      ),
    );
    choose(to, `rand(${total}),sub(txn.weight)`, 'lt', '0');
  }
  chosen.push(...lines('http-request set-var(txn.to) var(txn.canary) if { var(txn.canary) -m found }'));
  return chosen;
}

function fallbackRules(): Line[] {
  return lines(
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

/** A client of this one is HAProxy itself. */
function errorPages(): Section {
  return {
    type: 'frontend',
    name: 'errors',
    lines: [
      ['bind', `unix@${ERROR_SOCKET}`, ...words('mode 600')],
      ...lines(
        `http-request set-var(txn.to) req.hdr(${FAILED_BACKEND}),map_str(${FILES.fallback})`,
        `http-request del-header ${FAILED_BACKEND}`,
        'use_backend %[var(txn.to)] if { var(txn.to) -m found }',
      ),
      ['default_backend', NOT_FOUND_BACKEND],
    ],
  };
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
