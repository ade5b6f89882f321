/**
 * The backend section that a route needs, without its servers. Two routes whose sections are alike may take each other's
 * place, which is what lets a new route be served without a reload. It puts no text of a tenant into a word that HAProxy
 * evaluates, except in forms that `annotation-values.ts` has checked.
 */

import type { ConfigMap } from '../../api/core/v1.gen.ts';
import type { Route } from '../route-table.ts';
import type { Affinity, Balance, Cors, Limits, Mirror, SecretRef, Settings } from '../settings.ts';
import { stableName } from '../stable-name.ts';
import { addressRules, basicAuthRules, certificateRules, externalAuthRules } from './access.ts';
import type { BackendFiles } from './backend-certificates.ts';
import { type Line, literal } from './configuration.ts';
import { SENT_ONCE } from './desired.ts';
import { RESOLVERS, words } from './process-sections.ts';
import { aclLines, format, refusal, when } from './rule-words.ts';

/** Secrets and ConfigMaps that settings refer to; undefined while there is none such. */
export interface Resources {
  secret(ref: SecretRef): Readonly<Record<string, string>> | undefined;
  configMap(ref: SecretRef): Readonly<Record<string, string>> | undefined;
  /** A ConfigMap that is a backend. */
  files(ref: SecretRef): ConfigMap | undefined;
}

/** A body that is to be mirrored should be there by then. */
const MIRRORED_BODY_MS = 200;

/** `authorities`: the name of those that its clients' certificates are of. */
export function backendLines(route: Route, resources: Resources, authorities?: string): readonly Line[] {
  const { settings } = route;
  if (route.isStream)
    return [words('mode tcp'), settings.isClosed ? words('tcp-request content reject') : words('option srvtcpka')];
  if (settings.isClosed || !(route.service || route.content || settings.redirect)) return [refusal(503)];
  const lines: Line[] = settings.retry?.on.includes('any') ? [] : [SENT_ONCE];
  if (!settings.isLogged) lines.push(words('http-request set-log-level silent'));
  lines.push(...addressRules(settings));
  if (settings.clientAuth) lines.push(...certificateRules(settings.clientAuth, authorities));
  if (settings.limits) lines.push(...limitRules(settings.limits));
  if (settings.cors) lines.push(...corsPreflight(settings.cors));
  if (settings.bodyBytesMax !== undefined) lines.push(...bodyRules(settings.bodyBytesMax, settings));
  lines.push(...externalAuthRules(settings, ref => resources.configMap(ref)), ...basicAuthRules(settings));
  lines.push(...redirectRules(settings));
  if (settings.errorStatuses) lines.push(...errorRules(settings.errorStatuses, route));
  if (settings.mirror) lines.push(...mirrorRules(settings.mirror));
  if (settings.rewriteTarget !== undefined) lines.push(rewriteRule(route));
  if (settings.upstreamHost) lines.push(['http-request', 'set-header', 'Host', format(settings.upstreamHost)]);
  if (settings.forwardedPrefix !== undefined)
    lines.push(['http-request', 'set-header', 'X-Forwarded-Prefix', literal(settings.forwardedPrefix)]);
  if (settings.cors) lines.push(...corsHeaders(settings.cors));
  if (settings.responseHeaders) lines.push(...responseHeaders(settings.responseHeaders, resources));
  lines.push(...replacements(settings));
  if (settings.balance) lines.push(...balanceLines(settings.balance));
  if (settings.affinity) lines.push(...affinityLines(settings.affinity, route.id));
  if (settings.closesConnections) lines.push(words('option http-server-close'));
  lines.push(...timeoutLines(settings), ...retryLines(settings));
  if (route.content) {
    const { namespace, name } = route.content;
    lines.push(['http-request', 'set-var(txn.content)', `str(${namespace}/${name})`]);
    lines.push(words('http-request use-service lua.content'));
  }
  return lines;
}

/** Words after a server's name and address; the same in the configuration and in `add server`. */
export function serverWords({ protocol, serverName, upstreamVersion }: Settings, files: BackendFiles = {}): Line {
  if (protocol === 'http') return [];
  if (protocol === 'h2c') return words('proto h2');
  const name = serverName === undefined ? 'req.hdr(host),host_only' : `str(${serverName})`;
  return [
    ...(files.authorities === undefined
      ? words('ssl verify none')
      : ['ssl', 'verify', 'required', 'ca-file', files.authorities]),
    ...(files.certificate === undefined ? [] : ['crt', files.certificate]),
    ...['sni', name, 'alpn', protocol === 'h2' ? 'h2' : 'http/1.1'],
    ...(upstreamVersion ? ['ssl-min-ver', upstreamVersion, 'ssl-max-ver', upstreamVersion] : []),
  ];
}

interface External {
  readonly host: string;
  readonly port: number;
}

export const isName = ({ host }: External): boolean => !/^[\d.]+$|^\[/.test(host);

/** A server that is not in the cluster, whose name is asked again and again. */
export function externalServer(external: External, own: Line): Line {
  const { host, port } = external;
  const resolving = isName(external) ? ['resolvers', RESOLVERS, ...words('init-addr none resolve-prefer ipv4')] : [];
  return ['server', 'external', `${host}:${port}`, ...resolving, ...own];
}

/** The key with which cookies of servers are made; servers that are added later need it said again. */
export function cookieKey(route: Route): string | undefined {
  return route.settings.affinity && !route.settings.isClosed ? stableName(route.id) : undefined;
}

// A rate over the seconds of the burst factor: so many at once are let through, but not more on average.
function limitRules({ requestsPerSecond, requestsPerMinute, connections, burst, exempt }: Limits): Line[] {
  const second = `http_req_rate(${burst}s)`;
  const lines: Line[] = [
    words(`stick-table type ipv6 size 100k expire 120s store ${second},gpc0,gpc0_rate(60s),conn_cur`),
    words('http-request track-sc0 src'),
    words('http-request sc-inc-gpc0(0)'),
  ];
  if (exempt.length > 0) lines.push(...aclLines('exempt', exempt));
  const over = (count: string, limit: number) =>
    lines.push([...refusal(503), ...when(`${count} gt ${limit}`), ...(exempt.length > 0 ? ['!exempt'] : [])]);
  if (requestsPerSecond) over('sc_http_req_rate(0)', requestsPerSecond * burst);
  if (requestsPerMinute) over('sc_gpc0_rate(0)', requestsPerMinute * burst);
  if (connections) over('sc_conn_cur(0)', connections);
  return lines;
}

// The length of a body without Content-Length is not known before it has passed.
function bodyRules(bytes: number, { protocol }: Settings): Line[] {
  const isStream = protocol === 'h2c' || protocol === 'h2';
  return [
    [...refusal(413), ...when(`req.hdr_val(content-length) gt ${bytes}`)],
    ...(isStream
      ? []
      : [
          [
            ...words('http-request return status 411 content-type text/plain string'),
            'the length of the body must be told',
            ...when('method POST PUT PATCH'),
            ...words('!{ req.hdr(content-length) -m found }'),
          ],
        ]),
  ];
}

function redirectRules({ appRoot, redirect }: Settings): Line[] {
  return [
    ...(appRoot === undefined
      ? []
      : [['http-request', 'redirect', 'location', literal(appRoot), 'code', '302', ...when('path /')]]),
    ...(redirect
      ? [['http-request', 'redirect', 'location', format(redirect.to), 'code', String(redirect.status)]]
      : []),
  ];
}

/** What the page is told of the request is noted before the request is changed. */
function errorRules(statuses: readonly number[], { ingress, service }: Route): Line[] {
  const [namespace, name] = ingress.split('/') as [string, string];
  return [
    ['http-request', 'set-var(txn.uri)', 'pathq'],
    ['http-request', 'set-var(txn.accept)', 'req.fhdr(accept)'],
    [
      ...['http-response', 'lua.error-page', namespace, name, service?.name ?? '-', String(service?.port ?? '-')],
      ...when(`status ${statuses.join(' ')}`),
    ],
  ];
}

function mirrorRules({ to, host, withBody }: Mirror): Line[] {
  return [
    ...(withBody ? [words(`http-request wait-for-body time ${MIRRORED_BODY_MS}ms`)] : []),
    ['http-request', 'set-var-fmt(txn.mirror)', format(to)],
    ['http-request', 'lua.mirror', host, withBody ? 'body' : 'head'],
  ];
}

function rewriteRule({ settings, rewritePattern }: Route): Line {
  const target = literal(settings.rewriteTarget!).replace(/\$(\d)/g, '\\$1');
  // Without an expression the whole path gives way, as nginx's rewrite does.
  const from = rewritePattern === undefined ? '.*' : `(?i)^(?:${rewritePattern})`;
  return ['http-request', 'replace-path', from, target.startsWith('/') ? target : `/${target}`];
}

export function corsPreflight(cors: Cors): Line[] {
  const { origins, methods, headers, maxAgeSeconds, credentials, exposeHeaders, privateNetwork } = cors;
  const isOpen = origins.includes('*');
  const header = (name: string, value: string): Line => ['hdr', name, value];
  return [
    ['http-request', 'set-var(txn.origin)', 'req.hdr(origin)'],
    ['http-request', 'set-var(txn.cors)', 'bool(true)', ...when(`var(txn.origin) -m reg ${originPattern(origins)}`)],
    [
      ...words('http-request return status 204'),
      ...header('Access-Control-Allow-Origin', isOpen && !credentials ? '*' : '%[var(txn.origin)]'),
      ...header('Access-Control-Allow-Methods', literal(methods)),
      ...(headers ? header('Access-Control-Allow-Headers', literal(headers)) : []),
      ...header('Access-Control-Max-Age', String(maxAgeSeconds)),
      ...(credentials ? header('Access-Control-Allow-Credentials', 'true') : []),
      ...(exposeHeaders ? header('Access-Control-Expose-Headers', literal(exposeHeaders)) : []),
      ...(privateNetwork ? header('Access-Control-Allow-Private-Network', 'true') : []),
      ...header('Vary', 'Origin'),
      ...words('if { method OPTIONS } { var(txn.cors) -m bool }'),
    ],
  ];
}

export function corsHeaders({ origins, credentials, exposeHeaders }: Cors): Line[] {
  const allowed = when('var(txn.cors) -m bool');
  const set = (name: string, value: string): Line => ['http-response', 'set-header', name, value, ...allowed];
  return [
    set('Access-Control-Allow-Origin', origins.includes('*') && !credentials ? '*' : '%[var(txn.origin)]'),
    ...(credentials ? [set('Access-Control-Allow-Credentials', 'true')] : []),
    ...(exposeHeaders ? [set('Access-Control-Expose-Headers', literal(exposeHeaders))] : []),
    ['http-response', 'add-header', 'Vary', 'Origin', ...allowed],
  ];
}

function originPattern(origins: readonly string[]): string {
  if (origins.includes('*')) return '^[^\\s]+$';
  const pattern = (origin: string) => origin.replaceAll('.', '\\.').replace('*', '[A-Za-z0-9.-]+');
  return `^(?:${origins.map(pattern).join('|')})$`;
}

/** These say where a message ends. */
const FRAMING = new Set(['connection', 'content-length', 'transfer-encoding', 'upgrade']);

function responseHeaders(ref: SecretRef, resources: Resources): Line[] {
  return Object.entries(resources.configMap(ref) ?? {})
    .filter(([name]) => !FRAMING.has(name.toLowerCase()))
    .filter(([name, value]) => /^[A-Za-z0-9-]{1,128}$/.test(name) && /^[\x20-\x7e]{1,1024}$/.test(value.trim()))
    .map(([name, value]) => ['http-response', 'set-header', name, literal(value.trim())]);
}

function replacements({ redirectFrom, cookiePath, cookieDomain }: Settings): Line[] {
  const replace = (header: string, pattern: string, by: string): Line => [
    'http-response',
    'replace-header',
    header,
    pattern,
    by,
  ];
  const escaped = (text: string) => text.replace(/[.-]/g, '\\$&');
  const lines: Line[] = [];
  if (redirectFrom) lines.push(replace('Location', `^${escaped(redirectFrom.from)}(.*)$`, `${redirectFrom.to}\\1`));
  if (cookiePath)
    lines.push(replace('Set-Cookie', `^(?i)(.*;\\s*path=)${escaped(cookiePath.from)}(.*)$`, `\\1${cookiePath.to}\\2`));
  if (cookieDomain) {
    const from = escaped(cookieDomain.from.replace(/^\./, ''));
    lines.push(replace('Set-Cookie', `^(?i)(.*;\\s*domain=)\\.?${from}(\\s*;.*)?$`, `\\1${cookieDomain.to}\\2`));
  }
  return lines;
}

function balanceLines(balance: Balance): Line[] {
  if (balance.by === 'random') return [['balance', 'random']];
  if (balance.by !== 'hash') return [['balance', balance.by]];
  return [['balance', 'hash', hashExpression(balance.of)], words('hash-type consistent')];
}

function hashExpression(of: (Balance & { by: 'hash' })['of']): string {
  switch (of.from) {
    case 'source':
      return 'src';
    case 'host':
      return 'req.hdr(host)';
    case 'uri':
      return 'pathq';
    case 'path':
      return 'path';
    case 'header':
      return `req.hdr(${of.name})`;
    case 'cookie':
      return `req.cook(${of.name})`;
    case 'argument':
      return `url_param(${of.name})`;
  }
}

function affinityLines({ cookie, path, domain, maxAgeSeconds, sameSite, secure }: Affinity, id: string): Line[] {
  const attribute = (text: string) => ['attr', text];
  return [
    [
      'cookie',
      cookie,
      ...words('insert indirect nocache httponly dynamic'),
      ...(secure ? ['secure'] : []),
      ...(domain === undefined ? [] : ['domain', domain]),
      ...(path === undefined ? [] : attribute(`Path=${path}`)),
      ...(maxAgeSeconds === undefined ? [] : attribute(`Max-Age=${maxAgeSeconds}`)),
      ...(sameSite === undefined ? [] : attribute(`SameSite=${sameSite}`)),
    ],
    ['dynamic-cookie-key', stableName(id)],
  ];
}

function timeoutLines({ connectSeconds, readSeconds, sendSeconds }: Settings): Line[] {
  const milliseconds = (value: number) => `${Math.max(1, Math.round(value * 1000))}ms`;
  const lines: Line[] = [];
  if (connectSeconds !== undefined) lines.push(['timeout', 'connect', milliseconds(connectSeconds)]);
  const server = Math.max(readSeconds ?? 0, sendSeconds ?? 0);
  if (server > 0) {
    lines.push(['timeout', 'server', milliseconds(readSeconds ?? server)]);
    lines.push(['timeout', 'tunnel', milliseconds(server)]);
  }
  return lines;
}

function retryLines({ retry }: Settings): Line[] {
  if (!retry) return [];
  const names: Readonly<Record<string, readonly string[]>> = {
    connect: ['conn-failure'],
    empty: ['empty-response', 'junk-response'],
    timeout: ['response-timeout'],
  };
  const on = [
    ...new Set(retry.on.filter(reason => reason !== 'any').flatMap(reason => names[reason] ?? [String(reason)])),
  ];
  return [
    ['retries', String(Math.max(0, retry.tries - 1))],
    ['retry-on', ...(on.length > 0 && retry.tries !== 1 ? on : ['none'])],
  ];
}
