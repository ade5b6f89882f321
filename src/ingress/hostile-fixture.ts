/** Hostile Ingresses for tests: harmless values with pieces put in that mean something to HAProxy, its command line or nginx. */

import fc from 'fast-check';
import type { KubeObject } from '../api/meta.ts';
import type { Ingress } from '../api/networking/v1.gen.ts';
import { PREFIX } from './annotation-set.ts';
import type { GatewayObjects } from './gateway/gateway-objects.ts';

/** Pieces that mean something to HAProxy, to its command line, to expressions or to nginx. */
export const hostile = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        '\n',
        '\r\n',
        "'",
        '"',
        '\\',
        '#',
        ' ',
        '\t',
        '$',
        '$' + '{HOME}',
        '%',
        '%[src]',
        '%[env(HOME)]',
        '{',
        '}',
        ' } ',
        ' if ',
        ' unless ',
        ';',
        '<<',
        '--',
        '-m',
        '-f /etc/passwd',
        '\0',
        '(',
        ')',
        ',',
        '$1',
        '\\1',
        '/',
        'a.test',
        '10.0.0.0/8',
        'https://',
        '*',
        'backend evil',
        '\nbackend evil\n  server x 1.2.3.4:80\n',
        'http-request lua.x',
        '$request_uri',
        '0',
        '1',
        'true',
        ':',
        '@1',
        '.',
      ),
      fc.string({ maxLength: 8 }),
    ),
    { maxLength: 6 },
  )
  .map(parts => parts.join(''));

/** Good values of all annotations that are read (a test compares), into which hostile text is then put. */
export const GOOD: Record<string, string> = {
  'rewrite-target': '/x/$2',
  'use-regex': 'true',
  'app-root': '/r',
  'ssl-redirect': 'true',
  'force-ssl-redirect': 'false',
  'permanent-redirect-code': '308',
  'temporal-redirect-code': '307',
  'permanent-redirect': 'https://b.com$request_uri',
  'temporal-redirect': '/x',
  'backend-protocol': 'HTTPS',
  'proxy-ssl-name': 'name.test',
  'proxy-body-size': '8m',
  'proxy-read-timeout': '30',
  'proxy-send-timeout': '30',
  'proxy-connect-timeout': '3s',
  'proxy-next-upstream': 'error http_503',
  'proxy-next-upstream-tries': '2',
  'limit-rps': '5',
  'limit-rpm': '5',
  'limit-connections': '5',
  'limit-burst-multiplier': '3',
  'limit-allowlist': '10.1.0.0/16',
  'limit-whitelist': '10.0.0.0/8',
  'allowlist-source-range': '10.0.0.0/8',
  'whitelist-source-range': '10.0.0.0/8,::1/128',
  'denylist-source-range': '1.2.3.4',
  affinity: 'cookie',
  'affinity-mode': 'persistent',
  'session-cookie-name': 'C',
  'session-cookie-path': '/p',
  'session-cookie-domain': 'a.test',
  'session-cookie-max-age': '3',
  'session-cookie-expires': '4',
  'session-cookie-secure': 'true',
  'session-cookie-samesite': 'Lax',
  'auth-type': 'basic',
  'auth-secret': 's',
  'auth-secret-type': 'auth-map',
  'auth-realm': 'here',
  'auth-url': 'http://a.b/c',
  'auth-tls-secret': 'ca',
  'auth-tls-verify-client': 'optional',
  'auth-tls-error-page': 'https://b.com$request_uri',
  'auth-tls-pass-certificate-to-upstream': 'true',
  'auth-tls-match-cn': 'CN=a.*',
  'auth-signin': 'https://l/?$escaped_request_uri',
  'auth-response-headers': 'X-A,X-B',
  'auth-method': 'GET',
  'auth-proxy-set-headers': 's',
  'auth-signin-redirect-param': 'rd',
  satisfy: 'any',
  'ssl-passthrough': 'true',
  'proxy-ssl-secret': 's',
  'proxy-ssl-verify': 'on',
  'proxy-ssl-protocols': 'TLSv1.1 TLSv1.2',
  'custom-http-errors': '404,503',
  'mirror-target': 'http://copy.test$request_uri',
  'mirror-host': 'copy.test',
  'mirror-request-body': 'off',
  'from-to-www-redirect': 'true',
  'service-upstream': 'true',
  'connection-proxy-header': 'close',
  'cors-allow-private-network': 'true',
  'proxy-buffer-size': '8k',
  'proxy-busy-buffers-size': '16k',
  'proxy-max-temp-file-size': '1m',
  'client-body-buffer-size': '8k',
  'proxy-buffers-number': '4',
  'enable-global-auth': 'true',
  'enable-access-log': 'false',
  'enable-cors': 'true',
  'cors-allow-origin': 'https://*.a.test',
  'cors-allow-methods': 'GET, PUT',
  'cors-allow-headers': 'X-A',
  'cors-expose-headers': 'X-B',
  'cors-max-age': '4',
  'cors-allow-credentials': 'false',
  'upstream-vhost': 'in$host',
  'x-forwarded-prefix': '/p',
  'default-backend': 'd',
  'proxy-redirect-from': 'http://inner/',
  'proxy-redirect-to': '/',
  'proxy-cookie-path': '/a /b',
  'proxy-cookie-domain': 'inner.test a.test',
  'server-alias': 'b.test',
  'upstream-hash-by': '$http_x_key',
  'load-balance': 'round_robin',
  'custom-headers': 'default/h',
  canary: 'false',
  'canary-by-header': 'X-C',
  'canary-by-header-value': 'v',
  'canary-by-header-pattern': 'a|b',
  'canary-by-cookie': 'c',
  'canary-weight': '3',
  'canary-weight-total': '50',
};
const NAMES = Object.keys(GOOD);

export const annotations = fc
  .array(
    fc.tuple(fc.constantFrom(...NAMES), hostile, fc.constantFrom('all', 'before', 'after', 'good', 'good', 'good')),
    { maxLength: 12 },
  )
  .map(entries =>
    Object.fromEntries(
      entries.map(([name, text, where]) => {
        const good = GOOD[name]!;
        const value =
          where === 'all' ? text : where === 'before' ? text + good : where === 'after' ? good + text : good;
        return [PREFIX + name, value];
      }),
    ),
  );

export function ingressOf(
  metadata: Record<string, string>,
  host: string,
  paths: readonly string[],
  name = 'x',
): Ingress {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'Ingress',
    metadata: { name, namespace: 'default', annotations: metadata },
    spec: {
      rules: [
        {
          host,
          http: {
            paths: paths.map(path => ({
              path,
              pathType: 'ImplementationSpecific',
              backend: { service: { name: 's', port: { number: 80 } } },
            })),
          },
        },
      ],
    },
  };
}

/** Values as the API would let them through, and worse. */
const visible = hostile.map(text => `/${text.replace(/[^\x21-\x7e]/g, '')}`);
const printable = hostile.map(text => `x${text.replace(/[^\x20-\x7e]/g, '')}`);
const good = fc.constantFrom('v1', '/a', '/', '/x/y', 'a.test', '1', 'X-A', 'https://a.test');
const value = fc.oneof(
  { weight: 4, arbitrary: good },
  { weight: 3, arbitrary: visible },
  { weight: 3, arbitrary: printable },
  { weight: 1, arbitrary: hostile },
);
const word = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom('X-A', 'x-b', 'name') },
  { weight: 1, arbitrary: hostile },
);
const optional = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.option(arbitrary, { nil: undefined });
const valueMatches = fc.array(fc.record({ type: fc.constantFrom('Exact', 'RegularExpression'), name: word, value }), {
  maxLength: 2,
});
const header = fc.record({ name: word, value });
const modifier = fc.record({
  set: fc.array(header, { maxLength: 2 }),
  add: fc.array(header, { maxLength: 2 }),
  remove: fc.array(word, { maxLength: 2 }),
});
const newPath = fc.oneof(
  value.map(replaceFullPath => ({ type: 'ReplaceFullPath', replaceFullPath })),
  value.map(replacePrefixMatch => ({ type: 'ReplacePrefixMatch', replacePrefixMatch })),
);
const backendRef = fc.record({
  name: fc.constantFrom('a', 'b', 'missing'),
  port: fc.constant(80),
  weight: fc.nat({ max: 3 }),
});
const filter = fc.oneof(
  modifier.map(requestHeaderModifier => ({ type: 'RequestHeaderModifier', requestHeaderModifier })),
  modifier.map(responseHeaderModifier => ({ type: 'ResponseHeaderModifier', responseHeaderModifier })),
  fc.record({ path: newPath }).map(urlRewrite => ({ type: 'URLRewrite', urlRewrite })),
  fc
    .record({ path: optional(newPath), statusCode: fc.constantFrom(301, 302) })
    .map(requestRedirect => ({ type: 'RequestRedirect', requestRedirect })),
  fc.record({ backendRef }).map(requestMirror => ({ type: 'RequestMirror', requestMirror })),
  fc
    .record({
      allowOrigins: fc.array(value, { maxLength: 2 }),
      allowHeaders: fc.array(word, { maxLength: 2 }),
      allowMethods: fc.subarray(['GET', 'PUT', '*']),
      exposeHeaders: fc.array(word, { maxLength: 2 }),
      allowCredentials: fc.boolean(),
    })
    .map(cors => ({ type: 'CORS', cors })),
);
const httpRule = fc.record({
  matches: fc.array(
    fc.record({
      path: fc.record({ type: fc.constantFrom('Exact', 'PathPrefix', 'RegularExpression'), value }),
      headers: valueMatches,
      queryParams: valueMatches,
      method: fc.constantFrom(undefined, 'GET', 'POST'),
    }),
    { maxLength: 3 },
  ),
  filters: fc.array(filter, { maxLength: 3 }),
  backendRefs: fc.array(backendRef, { maxLength: 3 }),
  timeouts: fc.constantFrom({}, { request: '10s' }, { backendRequest: '1h2m3s400ms' }),
});

const objectOf = (kind: string, name: string, spec: object): KubeObject => ({
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind,
  metadata: { name, namespace: 'default', creationTimestamp: '2026-01-01T00:00:00Z' },
  ...{ spec },
});

/** A Gateway with every kind of listener but those with certificates, and hostile routes at it. */
export const hostileGateways = fc
  .record({
    rules: fc.array(httpRule, { minLength: 1, maxLength: 3 }),
    grpc: fc.record({ type: fc.constantFrom('Exact', 'RegularExpression'), service: value, method: value }),
    hosts: fc.subarray(['a.test', '*.a.test', 'b.test']),
  })
  .map(({ rules, grpc, hosts }) => {
    const parentRefs = [{ name: 'g' }];
    const backendRefs = [{ name: 'a', port: 80 }];
    const objects = {
      classes: [objectOf('GatewayClass', 'coxswain', { controllerName: 'coxswain.dev/gateway' })],
      listenerSets: [],
      gateways: [
        objectOf('Gateway', 'g', {
          gatewayClassName: 'coxswain',
          listeners: [
            { name: 'http', port: 80, protocol: 'HTTP' },
            { name: 'tls', port: 443, protocol: 'TLS', tls: { mode: 'Passthrough' } },
            { name: 'tcp', port: 5000, protocol: 'TCP' },
          ],
        }),
      ],
      routes: {
        HTTPRoute: [objectOf('HTTPRoute', 'h', { parentRefs, hostnames: hosts, rules })],
        GRPCRoute: [objectOf('GRPCRoute', 'g', { parentRefs, rules: [{ matches: [{ method: grpc }], backendRefs }] })],
        TLSRoute: [
          objectOf('TLSRoute', 't', { parentRefs, hostnames: ['a.test', '*.b.test'], rules: [{ backendRefs }] }),
        ],
        TCPRoute: [
          objectOf('TCPRoute', 'c', {
            parentRefs,
            rules: [{ backendRefs: [...backendRefs, { name: 'b', port: 80 }] }],
          }),
        ],
        UDPRoute: [],
      },
      grants: [],
      policies: [],
      namespace: () => undefined,
      service: (_: string, name: string) => (name === 'missing' ? undefined : { spec: { ports: [{ port: 80 }] } }),
      secret: () => undefined,
      configMap: () => undefined,
    } as unknown as GatewayObjects;
    const targets = new Map([
      [
        'default/g',
        new Map([
          [80, 11_000],
          [443, 11_001],
          [5000, 11_002],
        ]),
      ],
    ]);
    return { objects, targets };
  });
