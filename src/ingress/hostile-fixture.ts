/** Hostile Ingresses for tests: harmless values with pieces put in that mean something to HAProxy, its command line or nginx. */

import fc from 'fast-check';
import type { Ingress } from '../api/networking/v1.gen.ts';
import { PREFIX } from './annotations.ts';

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

/** Good values of annotations, into which hostile text is then put. */
const GOOD: Record<string, string> = {
  'rewrite-target': '/x/$2',
  'use-regex': 'true',
  'app-root': '/r',
  'permanent-redirect': 'https://b.com$request_uri',
  'temporal-redirect': '/x',
  'backend-protocol': 'HTTPS',
  'proxy-ssl-name': 'name.test',
  'proxy-body-size': '8m',
  'proxy-read-timeout': '30',
  'proxy-connect-timeout': '3s',
  'proxy-next-upstream': 'error http_503',
  'proxy-next-upstream-tries': '2',
  'limit-rps': '5',
  'limit-rpm': '5',
  'limit-connections': '5',
  'limit-whitelist': '10.0.0.0/8',
  'whitelist-source-range': '10.0.0.0/8,::1/128',
  'denylist-source-range': '1.2.3.4',
  affinity: 'cookie',
  'session-cookie-name': 'C',
  'session-cookie-path': '/p',
  'session-cookie-domain': 'a.test',
  'session-cookie-max-age': '3',
  'session-cookie-samesite': 'Lax',
  'auth-type': 'basic',
  'auth-secret': 's',
  'auth-realm': 'here',
  'auth-url': 'http://a.b/c',
  'auth-signin': 'https://l/?$escaped_request_uri',
  'auth-response-headers': 'X-A,X-B',
  'auth-method': 'GET',
  'enable-cors': 'true',
  'cors-allow-origin': 'https://*.a.test',
  'cors-allow-methods': 'GET, PUT',
  'cors-allow-headers': 'X-A',
  'cors-expose-headers': 'X-B',
  'cors-max-age': '4',
  'upstream-vhost': 'in$host',
  'x-forwarded-prefix': '/p',
  'default-backend': 'd',
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
