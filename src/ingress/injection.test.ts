/**
 * Nothing that a tenant may write gets into the configuration as anything but a word of it: hostile annotations, hosts, paths, users
 * and header values are rendered, read back by HAProxy's own rules, and must give the same tree, of the same shape as harmless ones.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Annotations, PREFIX } from './annotation-set.ts';
import { checkPattern, Refused } from './annotation-values.ts';
import { readAnnotations } from './annotations.ts';
import { readUsers } from './credentials.ts';
import { backendLines } from './haproxy/backend.ts';
import { parseConfiguration, quote, renderConfiguration, type Section, splitWords } from './haproxy/configuration.ts';
import { desiredMaps, shapeOf, userSections } from './haproxy/desired-state.ts';
import { listeningSections } from './haproxy/listening.ts';
import { annotations, GOOD, hostile, ingressOf } from './hostile-fixture.ts';
import { isNodesOwn } from './node-own-host.ts';
import { buildRouteTable, type Route } from './route-table.ts';
import { DEFAULT_SETTINGS } from './settings.ts';

const TYPES = new Set([
  'global',
  'defaults',
  'frontend',
  'backend',
  'userlist',
  'resolvers',
  'listen',
  'program',
  'ring',
  'peers',
  'cache',
  'mailers',
]);

function render(route: Route, headers: Record<string, string>): Section[] {
  return [
    {
      type: 'backend',
      name: 'b0',
      lines: backendLines(route, { secret: () => undefined, files: () => undefined, configMap: () => headers }),
    },
  ];
}

const sameTree = (sections: readonly Section[]) =>
  assert.deepEqual(parseConfiguration(renderConfiguration(sections), TYPES), sections);

test('any words come back as they were', () => {
  const word = fc.string({
    minLength: 1,
    maxLength: 30,
    unit: fc.integer({ min: 0x20, max: 0x7e }).map(code => String.fromCharCode(code)),
  });
  fc.assert(
    fc.property(fc.array(word, { minLength: 1, maxLength: 8 }), words => {
      assert.deepEqual(splitWords(words.map(quote).join(' ')), words);
    }),
    { numRuns: 2000 },
  );
  for (const control of ['\n', '\r', '\0', '\x1b', '\x7f']) assert.throws(() => quote(`a${control}b`));
});

test('the hostile fixture has every annotation that is read, with a value that is accepted', t => {
  const read = new Set<string>();
  const { get } = Annotations.prototype;
  t.mock.method(Annotations.prototype, 'get', function (this: Annotations, name: string, reader: never) {
    read.add(name);
    return get.call(this, name, reader);
  });
  const given = Object.fromEntries(Object.entries(GOOD).map(([name, value]) => [PREFIX + name, value]));
  const { findings } = readAnnotations(ingressOf(given, 'a.test', ['/']));
  assert.deepEqual([...read].sort(), Object.keys(GOOD).sort());
  assert.deepEqual(findings, []);
});

test('annotations, hosts and paths give the same tree back, and only directives of ours', () => {
  const headers = fc.dictionary(hostile, hostile, { maxKeys: 3 });
  fc.assert(
    fc.property(
      annotations,
      fc.array(
        hostile.map(text => `/${text}`),
        { maxLength: 3 },
      ),
      headers,
      (given, paths, values) => {
        const ingress = ingressOf(given, 'a.test', paths.length > 0 ? paths : ['/']);
        const table = buildRouteTable([{ ingress }]);
        for (const route of table.routes.values()) {
          const sections = render(route, values);
          sameTree(sections);
          for (const [keyword, action] of sections[0]!.lines as string[][]) {
            assert.ok(
              ['option http-server-close', 'option srvtcpka', 'mode tcp', 'tcp-request content'].includes(
                `${keyword} ${action}`,
              ) ||
                /^(http-request|http-response|acl|stick-table|balance|hash-type|cookie|dynamic-cookie-key|timeout|retries|retry-on)$/.test(
                  keyword!,
                ),
              keyword,
            );
            if (action?.startsWith('lua.'))
              assert.ok(['lua.check-password', 'lua.external-auth', 'lua.mirror', 'lua.error-page'].includes(action));
          }
          // What HAProxy evaluates is ours: every %[…] stands in the list of what we ever write.
          // The expression of a rewrite and the pattern of a condition are matched, not evaluated.
          const isPattern = (line: readonly string[], at: number) =>
            line[1] === 'replace-path' ? at < 3 : line[at - 3] === '-m' && line[at - 1] === '--';
          for (const word of sections[0]!.lines.flatMap(line => line.filter((_, at) => !isPattern(line, at))))
            for (const [, expression] of word.replaceAll('%%', '').matchAll(/%\[([^\]]*)\]?/g))
              assert.ok(
                /^(var\(txn\.origin\)|pathq|pathq,url_enc|path|query|src|method|req\.hdr\(host\),host_only|ssl_fc,iif\(https,http\)|ssl_c_[si]_dn\(,0,rfc2253\)|ssl_c_der,base64,url_enc)$/.test(
                  expression!,
                ),
                word,
              );
        }
        for (const map of desiredMaps({ table, users: new Map() }, () => 'b0').values())
          for (const [key, value] of map) {
            assert.ok(/^[\x21-\x7e]+$/.test(key), 'a key is one word of visible characters');
            assert.ok(/^[\x20-\x7e]+$/.test(value));
          }
      },
    ),
    { numRuns: 3000 },
  );
});

test('canaries stand in the front with words of their own', () => {
  fc.assert(
    fc.property(hostile, hostile, hostile, (name, value, pattern) => {
      const { settings } = readAnnotations(
        ingressOf(
          {
            [`${PREFIX}canary`]: 'true',
            [`${PREFIX}canary-by-header`]: name,
            [`${PREFIX}canary-by-header-value`]: value,
            [`${PREFIX}canary-by-header-pattern`]: pattern,
            [`${PREFIX}canary-by-cookie`]: name,
          },
          'a.test',
          ['/'],
        ),
      );
      const sections = listeningSections({
        httpPort: 1,
        httpsPort: 2,
        resolves: false,
        bindAddress: '',
        nameservers: [],
        usesLua: true,
        features: new Set(['exact', 'patterns', 'wildcards', 'anyHost', 'default', 'redirects', 'fallbacks']),
        clientSeconds: 60,
        proxyProtocol: true,
        trustsForwarded: true,
        canaries: [{ of: 'b0', to: 'b1', rule: settings.canary! }],
      });
      sameTree(sections);
      for (const line of sections.flatMap(section => section.lines)) {
        const opened = line.filter(word => word === '{' || word === '!{').length;
        assert.equal(line.filter(word => word === '}').length, opened, 'braces of conditions are ours');
      }
    }),
    { numRuns: 1000 },
  );
});

test('users of a Secret are users and nothing else', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(hostile, fc.oneof(hostile, fc.constant('$6$abcdefgh$ltjgWl6579NluT')))), pairs => {
      const users = readUsers({ auth: pairs.map(([user, hash]) => `${user}:${hash}`).join('\n') }, 'file');
      const sections = userSections({ users: new Map([['default_s', users]]) } as never);
      sameTree(sections);
      for (const line of sections[0]!.lines) assert.deepEqual([line[0], line[2], line.length], ['user', 'password', 4]);
      for (const [user, hash] of users.htpasswd) assert.ok(/^[\x21-\x7e]+$/.test(user + hash));
    }),
    { numRuns: 1000 },
  );
});

test('expressions that could run for long, or are more than matching, are refused', () => {
  for (const bad of [
    '(a+)+',
    '(a*)*b',
    '((ab)*c)+',
    '(?=x)',
    '(?<n>x)',
    '(*COMMIT)',
    '\\1',
    'a b',
    '(',
    '[',
    'a{2000}',
    '(?i)x',
    '\\Q',
    '[\\X]',
    '[]\\X&[a]',
    '[\\]',
    '[a-\\d]',
    '[\\d-z]',
    '[z-a]',
    '[a-c-e]',
    '[[:alpha:]]',
    '[:a:]',
    '[.x.]',
    '[a-\\X]',
    '(?:abcdefghij[a-z][0-9]){999}',
    'a{2}{3}',
  ])
    assert.throws(() => checkPattern(bad), Refused, bad);
  for (const good of [
    '/api(/|$)(.*)',
    '/v[0-9]{1,3}/(?:x|y)',
    '/a\\.b',
    '/[^/]+/(.*)',
    '/(foo|bar)?x*',
    '[\\]a]',
    '[a-z-]',
    '[-a]',
    '[^\\]]{2}',
    '[\\w.-]+',
    '/{id}',
  ])
    checkPattern(good);
  assert.equal(checkPattern('/api(/|$)(.*)(?:x)'), 2);
});

test('a URL that leads to the node itself is refused, and what it guards stays shut', () => {
  const read = (name: string, url: string) =>
    readAnnotations(ingressOf({ [`${PREFIX}${name}`]: url }, 'a.test', ['/'])).settings;
  const hosts = [
    '127.0.0.1:10250',
    '127.8.8.8',
    '0.0.0.0',
    '169.254.169.254',
    'localhost',
    'X.LOCALHOST.',
    '127.1',
    '0x7f000001',
  ];
  for (const host of hosts) {
    const { externalAuth, isClosed } = read('auth-url', `http://${host}/x`);
    assert.deepEqual([externalAuth, isClosed], [undefined, true], host);
    assert.equal(read('mirror-target', `https://${host}`).mirror, undefined, host);
  }
  assert.ok(isNodesOwn('::ffff:127.0.0.1') && isNodesOwn('fe80::1') && isNodesOwn('::') && !isNodesOwn('fd00:10::1'));
  for (const host of ['auth.default.svc.cluster.local:80', '10.96.0.7', '0.127.example']) {
    assert.equal(read('auth-url', `http://${host}/x`).externalAuth?.url, `http://${host}/x`);
    assert.equal(read('mirror-target', `http://${host}`).mirror?.to[0], `http://${host}`);
  }
});

test('a path that would end the attribute of a cookie is refused', () => {
  const given = { [`${PREFIX}affinity`]: 'cookie', [`${PREFIX}session-cookie-path`]: '/a;b' };
  const { settings, findings } = readAnnotations(ingressOf(given, 'a.test', ['/']));
  assert.equal(settings.affinity?.path, undefined);
  assert.match(JSON.stringify(findings), /session-cookie-path.*without/);
});

test('a plain route has the plain shape, which any spare backend has', () => {
  const route: Route = {
    id: 'x',
    ingress: 'default/x',
    service: { namespace: 'default', name: 's' },
    settings: DEFAULT_SETTINGS,
    redirectsToTls: true,
    canaries: [],
  };
  assert.equal(shapeOf(route, { secret: () => undefined, files: () => undefined, configMap: () => undefined }).key, '');
});
