import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Ingress } from '../api/networking/v1.gen.ts';
import { buildRouteTable, type ClassedIngress, matchRoute } from './route-table.ts';

let ages = 0;
const PREFIX = 'nginx.ingress.kubernetes.io/';

interface Short {
  readonly namespace?: string;
  readonly host?: string;
  readonly age?: number;
  readonly annotations?: Record<string, string>;
  readonly tls?: NonNullable<Ingress['spec']>['tls'];
  readonly defaultBackend?: string;
  readonly ownsHostsByNamespace?: boolean;
}

const to = (name: string) => ({ service: { name, port: { number: 80 } } });

/** Paths are `Prefix`, or as `Exact:/x` says. */
function ingress(name: string, paths: Record<string, string>, short: Short = {}): ClassedIngress {
  const { namespace = 'default', host = 'a.test', age = ++ages, annotations = {}, tls, defaultBackend } = short;
  return {
    ingress: {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'Ingress',
      metadata: {
        name,
        namespace,
        creationTimestamp: new Date(age * 1000).toISOString(),
        annotations: Object.fromEntries(Object.entries(annotations).map(([key, value]) => [PREFIX + key, value])),
      },
      spec: {
        ...(tls ? { tls } : {}),
        ...(defaultBackend ? { defaultBackend: to(defaultBackend) } : {}),
        ...(Object.keys(paths).length > 0
          ? {
              rules: [
                {
                  ...(host ? { host } : {}),
                  http: {
                    paths: Object.entries(paths).map(([text, service]) => {
                      const [, type = 'Prefix', path] = /^(?:(\w+):)?(.*)$/.exec(text)!;
                      return { path: path!, pathType: type, backend: to(service) };
                    }),
                  },
                },
              ],
            }
          : {}),
      },
    },
    ...(short.ownsHostsByNamespace ? { ownsHostsByNamespace: true } : {}),
  };
}

const service = (table: ReturnType<typeof buildRouteTable>, host: string, path: string) =>
  table.routes.get(matchRoute(table, host, path) ?? '')?.service?.name;

test('exact before prefix, longer before shorter, whole elements', () => {
  const table = buildRouteTable([
    ingress('x', { '/': 'root', '/foo': 'foo', '/foo/bar': 'bar', 'Exact:/foo': 'exact' }),
  ]);
  for (const [path, name] of [
    ['/', 'root'],
    ['/foo', 'exact'],
    ['/foo/', 'foo'],
    ['/foo/x', 'foo'],
    ['/foo/bar/', 'bar'],
    ['/foo/barn', 'foo'],
    ['/food', 'root'],
  ] as const)
    assert.equal(service(table, 'a.test', path), name, path);
});

test('the host, its wildcard, any host, the default backend', () => {
  const table = buildRouteTable([
    ingress('exact', { '/x': 'exact' }),
    ingress('wild', { '/': 'wild' }, { host: '*.w.test' }),
    ingress('any', { '/any': 'any' }, { host: '' }),
    ingress('default', {}, { defaultBackend: 'default' }),
  ]);
  assert.equal(service(table, 'A.test', '/x'), 'exact');
  assert.equal(service(table, 'a.test', '/any'), 'any');
  assert.equal(service(table, 'b.w.test', '/'), 'wild');
  assert.equal(service(table, 'c.b.w.test', '/'), 'default');
  assert.equal(service(table, 'other.test', '/'), 'default');
});

test('a default backend beside rules answers for their hosts', () => {
  const table = buildRouteTable([ingress('x', { '/a': 'a' }, { defaultBackend: 'rest' })]);
  assert.equal(service(table, 'a.test', '/b'), 'rest');
  assert.equal(service(table, 'b.test', '/b'), undefined);
});

test('a host and path stays with the oldest Ingress, in whatever order they come', () => {
  const old = ingress('old', { '/': 'old' }, { age: 1, namespace: 'one' });
  const thief = ingress('thief', { '/': 'thief', 'Exact:/': 'thief', '/own': 'own' }, { age: 2, namespace: 'two' });
  for (const order of [
    [old, thief],
    [thief, old],
  ]) {
    const table = buildRouteTable(order);
    assert.equal(service(table, 'a.test', '/'), 'old');
    assert.equal(service(table, 'a.test', '/own'), 'own');
    assert.deepEqual(
      table.findings.map(({ ingress: of, reason }) => `${of} ${reason}`),
      ['two/thief HostPathTaken', 'two/thief HostPathTaken'],
    );
    assert.match(table.findings[0]!.message, /a\.test\/ belongs to the older Ingress one\/old/);
  }
});

test('an alias is a host like any other: who comes later does not take it', () => {
  const old = ingress('old', { '/': 'old' }, { age: 1, namespace: 'one', annotations: { 'server-alias': 'b.test' } });
  const thief = ingress('thief', { '/': 'thief', '/own': 'own' }, { age: 2, namespace: 'two', host: 'b.test' });
  const table = buildRouteTable([thief, old]);
  assert.equal(service(table, 'b.test', '/'), 'old');
  assert.equal(service(table, 'b.test', '/own'), 'own');
  assert.deepEqual(
    table.findings.map(({ ingress: of, message }) => `${of} ${message}`),
    ['two/thief b.test/ belongs to the older Ingress one/old'],
  );
});

const hosts = ['a.test', 'www.a.test', 'b.test', 'A.test', '*.test', ''];
const anyIngress = fc.record({
  host: fc.constantFrom(...hosts),
  paths: fc.uniqueArray(
    fc.constantFrom('/', '/x', '/x/', '/x/y', 'Exact:/x', 'Exact:/', 'Exact:/x/', '/x.*', '/.*', '/(x|y)'),
    { maxLength: 4 },
  ),
  annotations: fc.dictionary(
    fc.constantFrom('server-alias', 'use-regex', 'canary', 'from-to-www-redirect', 'ssl-passthrough', 'app-root'),
    fc.constantFrom('true', 'a.test', 'b.test', 'www.a.test', '/x'),
    { maxKeys: 3 },
  ),
  hasTls: fc.boolean(),
  hasDefault: fc.boolean(),
});

test('no tenant takes what an older Ingress of another has: host, path, alias, connections, certificate', () => {
  const make = (
    name: string,
    namespace: string,
    age: number,
    one: typeof anyIngress extends fc.Arbitrary<infer T> ? T : never,
  ) =>
    ingress(name, Object.fromEntries(one.paths.map(path => [path, name])), {
      ...one,
      ...{ namespace, age },
      ...(one.hasTls ? { tls: [{ secretName: name }] } : {}),
      ...(one.hasDefault ? { defaultBackend: name } : {}),
    });
  fc.assert(
    fc.property(fc.array(anyIngress, { minLength: 1, maxLength: 4 }), anyIngress, (given, last) => {
      const old = given.map((one, at) => make(`old${at}`, at % 2 ? 'one' : 'two', at, one));
      const thief = make('thief', 'thief', 100, last);
      const [before, after] = [buildRouteTable(old), buildRouteTable([thief, ...old])];
      const claimed = new Set(before.patterns.map(({ host }) => host));
      for (const [place, id] of [...before.exact, ...before.prefixes]) {
        const route = before.routes.get(id)!;
        // The other name with or without www goes to whoever asks for it as a host.
        if (route.settings.redirect) continue;
        const [, host, path] = /^([^/]+)(.*)$/.exec(place)!;
        claimed.add(host!);
        // A request for any host is asked for by a name that nobody has.
        const asked = host === '*' ? 'nobody' : host!.replace('*', 'some');
        const whole = before.exact.get(place) === id ? path! : path!.replace(/(.)\/$/, '$1');
        for (const text of [path!, whole]) {
          const who = (table: typeof before) => table.routes.get(matchRoute(table, asked, text) ?? '');
          assert.deepEqual(who(after), who(before), `${host}${text}`);
        }
        assert.deepEqual(after.routes.get(id), route);
      }
      for (const rule of before.patterns) assert.ok(after.patterns.some(each => each.route === rule.route));
      for (const host of before.passthrough.keys())
        assert.equal(after.passthrough.get(host), before.passthrough.get(host), host);
      for (const host of after.passthrough.keys()) assert.ok(before.passthrough.has(host) || !claimed.has(host), host);
      // That of an Ingress that has a rule for the host.
      for (const [host, { ingress: of }] of before.certificates)
        if (claimed.has(host) && given[Number(/\d+$/.exec(of))]!.host === host)
          assert.equal(after.certificates.get(host)?.ingress, of, host);
    }),
    { numRuns: 2000 },
  );
});

test('a host may be kept to one namespace, and never is an expression matched against the host of another', () => {
  const old = ingress('old', { '/': 'old' }, { age: 1, namespace: 'one' });
  const kept = buildRouteTable([
    old,
    ingress('two', { '/own': 'own' }, { age: 2, namespace: 'two', ownsHostsByNamespace: true }),
  ]);
  assert.equal(service(kept, 'a.test', '/own'), 'old');
  const expression = ingress(
    're',
    { 'ImplementationSpecific:/.*': 're' },
    {
      age: 2,
      namespace: 'two',
      annotations: { 'use-regex': 'true' },
    },
  );
  const table = buildRouteTable([old, expression]);
  assert.equal(service(table, 'a.test', '/x'), 'old');
  assert.equal(table.findings[0]!.reason, 'HostPathTaken');
  assert.equal(service(buildRouteTable([expression]), 'a.test', '/x'), 're');
});

test('a certificate belongs to who has rules for its host', () => {
  const squatter = ingress(
    'squatter',
    { '/': 's' },
    { age: 1, host: 's.test', namespace: 'two', tls: [{ hosts: ['a.test'], secretName: 'x' }] },
  );
  const owner = ingress(
    'owner',
    { '/': 'o' },
    { age: 2, namespace: 'one', tls: [{ hosts: ['a.test'], secretName: 'mine' }] },
  );
  assert.deepEqual(buildRouteTable([squatter, owner]).certificates.get('a.test')?.name, 'mine');
  // Nor does anybody else speak for an owner who wants none.
  const plain = ingress('plain', { '/': 'o' }, { age: 2, namespace: 'one' });
  const table = buildRouteTable([squatter, plain]);
  assert.equal(table.certificates.has('a.test'), false);
  assert.deepEqual(
    table.findings.map(({ reason, message }) => `${reason}: ${message}`),
    ['HostTaken: the host a.test is that of Ingress one/plain, of another namespace'],
  );
  const neighbour = ingress('tls', {}, { age: 3, namespace: 'one', tls: [{ hosts: ['a.test'], secretName: 'own' }] });
  assert.equal(buildRouteTable([squatter, plain, neighbour]).certificates.get('a.test')?.name, 'own');
});

test('TLS redirects the hosts that have it, unless told otherwise', () => {
  const tls = [{ hosts: ['a.test', '*.w.test'], secretName: 'x' }];
  const redirects = (...ingresses: ClassedIngress[]) =>
    [...buildRouteTable(ingresses).routes.values()].map(route => route.redirectsToTls);
  assert.deepEqual(redirects(ingress('a', { '/': 'x' }, { tls })), [true]);
  assert.deepEqual(redirects(ingress('b', { '/': 'x' }, { tls, host: 'x.w.test' })), [true]);
  assert.deepEqual(redirects(ingress('c', { '/': 'x' }, { tls, host: 'other.test' })), [false]);
  assert.deepEqual(redirects(ingress('d', { '/': 'x' }, { tls, annotations: { 'ssl-redirect': 'false' } })), [false]);
  assert.deepEqual(redirects(ingress('e', { '/': 'x' }, { annotations: { 'force-ssl-redirect': 'true' } })), [true]);
});

test('canaries share the settings of the route they stand for; one without it is told so', () => {
  const main = ingress('main', { '/': 'main' }, { annotations: { 'whitelist-source-range': '10.0.0.0/8' } });
  const canary = ingress('canary', { '/': 'new' }, { annotations: { canary: 'true', 'canary-weight': '10' } });
  const table = buildRouteTable([main, canary]);
  const route = table.routes.get(matchRoute(table, 'a.test', '/')!)!;
  assert.equal(route.service!.name, 'main');
  const other = table.routes.get(route.canaries[0]!.route)!;
  assert.deepEqual(other.settings.allow, ['10.0.0.0/8']);
  assert.equal(buildRouteTable([canary]).findings[0]!.reason, 'CanaryWithoutMain');
  const foreign = ingress(
    'canary',
    { '/': 'new' },
    { namespace: 'two', annotations: { canary: 'true', 'canary-weight': '10' } },
  );
  assert.equal(buildRouteTable([main, foreign]).findings[0]!.reason, 'CanaryWithoutMain');
});

test('what cannot be honoured is told with annotation, value and rule, and shuts when it was a guard', () => {
  const table = buildRouteTable([
    ingress(
      'x',
      { '/': 'x' },
      {
        annotations: {
          'configuration-snippet': 'return 200;',
          'auth-tls-verify-depth': '2',
          'proxy-body-size': 'much',
        },
      },
    ),
  ]);
  const messages = table.findings.map(finding => finding.message).join('\n');
  assert.match(messages, /configuration-snippet: "return 200;": snippets would let/);
  assert.match(messages, /proxy-body-size: "much": must be a size/);
  assert.match(messages, /auth-tls-verify-depth: "2": is not supported; nothing is let through/);
  assert.equal([...table.routes.values()][0]!.settings.isClosed, true);
});

test('resource backends other than ConfigMaps answer 503 and are told', () => {
  const made = ingress('x', {});
  const spec = {
    rules: [
      {
        host: 'a.test',
        http: { paths: [{ path: '/', pathType: 'Prefix', backend: { resource: { kind: 'Bucket', name: 'b' } } }] },
      },
    ],
  };
  const table = buildRouteTable([{ ingress: { ...made.ingress, spec } }]);
  assert.equal([...table.routes.values()][0]!.service, undefined);
  assert.equal(table.findings[0]!.reason, 'ResourceBackend');
});

test('the name with www leads to the one without where no rule has it, whoever is older', () => {
  const annotations = { 'from-to-www-redirect': 'true' };
  const own = ingress('own', { '/': 's' }, { annotations, tls: [{ hosts: ['a.test'], secretName: 'c' }] });
  const table = buildRouteTable([own]);
  const { redirect } = table.routes.get(matchRoute(table, 'www.a.test', '/x')!)!.settings;
  assert.deepEqual(redirect, { to: ['https', '://a.test', { variable: 'uri' }], status: 308 });
  assert.equal(table.certificates.get('www.a.test')?.name, 'c');
  const taken = buildRouteTable([own, ingress('other', { '/x': 'o' }, { host: 'www.a.test', namespace: 'other' })]);
  assert.equal(service(taken, 'www.a.test', '/x'), 'o');
  assert.equal(matchRoute(taken, 'www.a.test', '/'), undefined, 'not even beside its paths');
});

test('TLS of a host is passed through for who had the host first, to the Service of its path /', () => {
  const annotations = { 'ssl-passthrough': 'true' };
  const first = ingress('first', { '/': 's', '/api': 't' }, { annotations });
  const second = ingress('second', { '/more': 'o' }, { annotations, namespace: 'other' });
  const rootless = ingress('rootless', { '/x': 's' }, { annotations, host: 'b.test' });
  const hostless = ingress('hostless', { '/': 's' }, { annotations, host: '' });
  const table = buildRouteTable([first, second, rootless, hostless]);
  const route = table.routes.get(table.passthrough.get('a.test')!)!;
  assert.deepEqual([table.passthrough.size, route.service?.name, route.isStream], [1, 's', true]);
  const found = table.findings.filter(({ reason }) => reason === 'PassthroughRefused').map(each => each.ingress);
  assert.deepEqual(found, ['other/second', 'default/rootless', 'default/hostless']);
});
