import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Namespace, Node, Service } from '../../api/core/v1.gen.ts';
import type {
  BackendTLSPolicy,
  Gateway,
  HTTPRouteRule,
  Listener,
  ListenerSet,
  ReferenceGrant,
  Route,
} from '../../api/gateway/v1.ts';
import { backendShape } from './backend-shape.ts';
import { type HttpFrontend, matchRequest } from './frontends.ts';
import { backendsOf } from './gateway-desired.ts';
import { slicesOf } from './gateway-front.ts';
import { buildGatewayState, type GatewayState } from './gateway-model.ts';
import { type GatewayObjects, type RouteKind, type RoutesByKind, said } from './gateway-objects.ts';
import { allocate, DATA_PLANE_ANNOTATION, serviceName, targetPorts } from './gateway-service.ts';
import { listenerSetStatus } from './gateway-status.ts';
import { compareSpecificity, covers, intersection } from './hostnames.ts';
import { escaped } from './route-rules.ts';

let ages = 0;
const metadata = (name: string, namespace = 'default') => ({
  name,
  namespace,
  generation: 1,
  creationTimestamp: new Date(++ages * 1000).toISOString(),
});
const listener = (more: Partial<Listener> = {}): Listener => ({ name: 'http', port: 80, protocol: 'HTTP', ...more });
const gateway = (...listeners: Listener[]): Gateway => ({
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind: 'Gateway',
  metadata: metadata('g'),
  spec: { gatewayClassName: 'coxswain', listeners },
});
const to = (name: string, more: object = {}) => ({ name, port: 80, ...more });
const path = (value: string, type = 'PathPrefix') => ({ path: { type, value } }) as never;
const rule = (service: string, ...matches: object[]): HTTPRouteRule => ({
  ...(matches.length > 0 ? { matches: matches as never } : {}),
  backendRefs: [to(service)],
});
function route(
  name: string,
  rules: readonly unknown[],
  hostnames: string[] = ['a.test'],
  namespace = 'default',
): Route {
  return {
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'HTTPRoute',
    metadata: metadata(name, namespace),
    spec: { parentRefs: [{ name: 'g', namespace: 'default' }], hostnames, rules },
  };
}

interface Given {
  readonly gateways?: readonly Gateway[];
  readonly sets?: readonly ListenerSet[];
  readonly http?: readonly Route[];
  readonly others?: Partial<Record<RouteKind, readonly Route[]>>;
  readonly grants?: readonly ReferenceGrant[];
  readonly policies?: readonly BackendTLSPolicy[];
  readonly configMaps?: Readonly<Record<string, Record<string, string>>>;
}
function build({ gateways = [gateway(listener())], http = [], others = {}, ...given }: Given): GatewayState {
  const routes = { HTTPRoute: http, GRPCRoute: [], TLSRoute: [], TCPRoute: [], UDPRoute: [], ...others };
  const objects: GatewayObjects = {
    classes: [
      {
        apiVersion: 'gateway.networking.k8s.io/v1',
        kind: 'GatewayClass',
        metadata: metadata('coxswain'),
        spec: { controllerName: 'coxswain.dev/gateway' },
      },
    ],
    gateways,
    listenerSets: given.sets ?? [],
    routes: routes as unknown as RoutesByKind,
    grants: given.grants ?? [],
    policies: given.policies ?? [],
    namespace: name => ({ metadata: { name, labels: { team: name } } }) as unknown as Namespace,
    service: (namespace, name) =>
      name === 'missing'
        ? undefined
        : ({
            metadata: { name, namespace },
            spec: {
              ports: [
                { port: 80, name: 'http' },
                { port: 53, name: 'dns', protocol: 'UDP' },
              ],
            },
          } as Service),
    secret: () => undefined,
    configMap: ({ name }) => given.configMaps?.[name],
  };
  const ports = new Map([80, 81, 443].map((port, at) => [port, 11_000 + at]));
  return buildGatewayState(objects, new Map(gateways.map(each => [`default/${each.metadata.name}`, ports])));
}
const ask = (state: GatewayState, url: string, headers: Record<string, string> = {}, method = 'GET', port = 80) => {
  const { hostname, pathname, searchParams } = new URL(url);
  const frontend = state.frontends.find(each => each.port === port) as HttpFrontend;
  const asked = {
    host: hostname,
    path: pathname,
    method,
    headers: new Map(Object.entries(headers)),
    query: searchParams,
  };
  return matchRequest(frontend, asked).candidate?.choices[0]?.backend.service?.name;
};
const saidOf = (state: GatewayState, at = 0) =>
  state.routes[at]!.parents.map(({ conditions }) =>
    conditions.map(({ type, status, reason }) => `${type} ${status} ${reason}`).join(', '),
  );

test('host names: wildcards are for any number of labels', () => {
  assert.ok(covers('*.a.test', 'x.y.a.test'));
  assert.ok(!covers('*.a.test', 'a.test'));
  assert.ok(covers('*.test', '*.a.test'));
  assert.ok(!covers('*.a.test', '*.test'));
  assert.ok(covers('*', 'anything'));
  assert.equal(intersection('*.test', 'a.test'), 'a.test');
  assert.equal(intersection('a.test', 'b.test'), undefined);
  assert.deepEqual(['*', '*.test', 'a.test', '*.a.test', 'long.test'].sort(compareSpecificity), [
    'long.test',
    'a.test',
    '*.a.test',
    '*.test',
    '*',
  ]);
});

test('paths and tests by upstream’s precedence, whatever the order of rules', () => {
  const rules = [
    rule('root'),
    rule('prefix', path('/a')),
    rule('long', path('/a/b')),
    rule('exact', path('/a/b', 'Exact')),
    rule('pattern', path('/p/[0-9]+', 'RegularExpression')),
    rule('method', { ...(path('/m') as object), method: 'POST' }),
    rule('two', {
      headers: [
        { name: 'X', value: '1' },
        { name: 'Y', value: '2' },
      ],
    }),
    rule('one', { headers: [{ name: 'X', value: '1' }] }),
    rule('query', { queryParams: [{ name: 'q', value: 'v' }] }),
    rule('deep', { ...(path('/a/b/c') as object), headers: [{ name: 'X', value: '1' }] }),
  ];
  for (const order of [rules, [...rules].reverse()]) {
    const state = build({ http: [route('r', order)] });
    const asked = (url: string, headers = {}, method = 'GET') => ask(state, `http://a.test${url}`, headers, method);
    assert.equal(asked('/'), 'root');
    assert.equal(asked('/ab'), 'root');
    assert.equal(asked('/a/'), 'prefix');
    assert.equal(asked('/a/b'), 'exact');
    assert.equal(asked('/a/b/'), 'long');
    assert.equal(asked('/p/12'), 'pattern');
    assert.equal(asked('/p/12x'), 'root');
    assert.equal(asked('/m', {}, 'POST'), 'method');
    assert.equal(asked('/m'), 'root');
    assert.equal(asked('/x', { x: '1', y: '2' }), 'two');
    assert.equal(asked('/x', { x: '1' }), 'one');
    assert.equal(asked('/x?q=v'), 'query');
    assert.equal(asked('/a/b/c', { x: '1' }), 'deep');
    assert.equal(asked('/a/b/c'), 'long');
  }
});

test('the more specific host comes first, then the older route; listeners are apart', () => {
  const state = build({
    gateways: [
      gateway(
        listener(),
        listener({ name: 'own', hostname: 'own.test' }),
        listener({ name: 'w', hostname: '*.w.test' }),
      ),
    ],
    http: [
      { ...route('wide', [rule('wide', path('/x'))], ['*.test']) },
      route('first', [rule('first')], ['a.test']),
      route('second', [rule('second'), rule('longer', path('/longer'))], ['a.test']),
      {
        ...route('own', [rule('own', path('/only'))], ['own.test']),
        spec: { parentRefs: [{ name: 'g', sectionName: 'own' }], rules: [rule('own', path('/only'))] },
      },
    ],
  });
  assert.equal(ask(state, 'http://a.test/x'), 'first');
  assert.equal(ask(state, 'http://a.test/longer'), 'longer');
  assert.equal(ask(state, 'http://b.test/x'), 'wide');
  assert.equal(ask(state, 'http://b.test/'), undefined);
  assert.equal(ask(state, 'http://own.test/only'), 'own');
  // The route for every name of .test is attached to the listener of own.test too, since that one is among them.
  assert.equal(ask(state, 'http://own.test/x'), 'wide');
  assert.equal(ask(state, 'http://deep.er.w.test/x'), 'wide');
});

test('listeners that cannot be told apart are none of them served', () => {
  const state = build({
    gateways: [
      gateway(
        listener(),
        listener({ name: 'tcp', protocol: 'TCP' }),
        listener({ name: 'fine', port: 81 }),
        listener({ name: 'odd', port: 82, protocol: 'example.com/x' }),
        listener({ name: 'kinds', port: 84, allowedRoutes: { kinds: [{ kind: 'TCPRoute' }] } }),
      ),
    ],
    http: [route('r', [rule('s')])],
  });
  const [{ listeners, accepted } = { listeners: [], accepted: undefined }] = state.gateways;
  assert.deepEqual(
    listeners.map(
      ({ isServed, conditions, attached }) => `${isServed} ${conditions.map(({ reason }) => reason)} ${attached.size}`,
    ),
    [
      'false ProtocolConflict,ProtocolConflict,ResolvedRefs 1',
      'false ProtocolConflict,ProtocolConflict,ResolvedRefs 0',
      'true Accepted,NoConflicts,ResolvedRefs 1',
      'false UnsupportedProtocol,NoConflicts,ResolvedRefs 0',
      'false Accepted,NoConflicts,InvalidRouteKinds 0',
    ],
  );
  assert.deepEqual([accepted?.status, accepted?.reason], ['True', 'ListenersNotValid']);
  assert.deepEqual(
    state.frontends.map(({ port }) => port),
    [81],
  );
});

const listenerSet = (name: string, listeners: Listener[], namespace = 'other'): ListenerSet => ({
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind: 'ListenerSet',
  metadata: metadata(name, namespace),
  spec: { parentRef: { name: 'g', namespace: 'default' }, listeners },
});

test('ListenerSets: who may bring some, whose comes first, and which routes are theirs', () => {
  const allowing = (from: 'All' | 'Selector' | 'Same' | 'None') => {
    const own = gateway(listener(), listener({ name: 'tcp', port: 81, protocol: 'TCP' }));
    const namespaces = { from, ...(from === 'Selector' ? { selector: { matchLabels: { team: 'other' } } } : {}) };
    return { ...own, spec: { ...own.spec, allowedListeners: { namespaces } } };
  };
  const toSet = (name: string, set: string, more: object = {}, namespace = 'other') =>
    ({
      ...route(name, [rule(name)], ['set.test'], namespace),
      spec: {
        parentRefs: [{ kind: 'ListenerSet', name: set, namespace: 'other', ...more }],
        hostnames: ['set.test'],
        rules: [rule(name)],
      },
    }) as Route;
  const first = listenerSet('first', [
    listener({ name: 'own', hostname: 'set.test' }),
    listener({ name: 'taken', port: 80 }),
    listener({ name: 'protocol', port: 81 }),
  ]);
  const second = listenerSet('second', [listener({ name: 'own', hostname: 'set.test' })]);
  const near = listenerSet('near', [listener({ name: 'own', hostname: 'near.test' })], 'default');
  const given = (from: 'All' | 'Selector' | 'Same' | 'None') =>
    build({
      gateways: [allowing(from)],
      // Not in the order of their age.
      sets: [second, near, first],
      http: [
        route('whole', [rule('whole')], ['set.test', 'near.test']),
        toSet('mine', 'first'),
        toSet('foreign', 'first', {}, 'third'),
        toSet('section', 'first', { sectionName: 'nope' }),
      ],
    });
  const sets = (state: GatewayState) =>
    state.gateways[0]!.sets.map(
      ({ key, accepted, listeners }) =>
        `${key} ${accepted.status} ${accepted.reason}: ${listeners.map(({ isServed, conditions, attached }) => `${isServed} ${conditions[1]!.reason} ${attached.size}`).join(', ')}`,
    );
  const state = given('All');
  assert.deepEqual(sets(state), [
    'other/first True ListenersNotValid: true NoConflicts 1, false HostnameConflict 1, false ProtocolConflict 1',
    'other/second False ListenersNotValid: false HostnameConflict 0',
    'default/near True Accepted: true NoConflicts 0',
  ]);
  assert.equal(state.gateways[0]!.accepted.reason, 'Accepted');
  // A name belongs to one listener: the set's routes have theirs, those of the Gateway do not reach it.
  assert.equal(ask(state, 'http://set.test/'), 'mine');
  assert.equal(ask(state, 'http://near.test/'), undefined);
  assert.deepEqual(
    state.routes.map(({ parents }) => parents[0]!.conditions[0]!.reason),
    ['Accepted', 'Accepted', 'NotAllowedByListeners', 'NoMatchingParent'],
  );
  assert.deepEqual(
    sets(given('Selector')).map(each => each.split(' ')[2]),
    ['ListenersNotValid:', 'ListenersNotValid:', 'NotAllowed:'],
  );
  assert.deepEqual(
    sets(given('Same')).map(each => each.split(' ')[2]),
    ['NotAllowed:', 'NotAllowed:', 'Accepted:'],
  );
  const closed = given('None');
  assert.deepEqual(sets(closed)[0], 'other/first False NotAllowed: ');
  assert.match(closed.routes[1]!.parents[0]!.conditions[0]!.message, /ListenerSet other\/first is not accepted/);
  assert.equal(ask(closed, 'http://set.test/'), 'whole');
  const status = listenerSetStatus(state.gateways[0]!.sets[0]!, said('Programmed', true, 'Programmed'), 'now');
  const all = [status.conditions ?? [], ...(status.listeners ?? []).map(({ conditions }) => conditions)].flat();
  assert.deepEqual(
    all.map(each => `${each.type} ${each.status}`),
    [
      ...['Accepted True', 'Programmed True'],
      ...['Accepted True', 'Conflicted False', 'ResolvedRefs True', 'Programmed True'],
      ...['Accepted False', 'Conflicted True', 'ResolvedRefs True', 'Programmed False'],
      ...['Accepted False', 'Conflicted True', 'ResolvedRefs True', 'Programmed False'],
    ],
  );
});

test('routes say why they are not attached', () => {
  const elsewhere = (parentRefs: object[]) =>
    ({ ...route('x', [rule('s')]), spec: { parentRefs, rules: [rule('s')] } }) as Route;
  const said = (given: Given) => saidOf(build(given))[0];
  assert.equal(
    said({ http: [elsewhere([{ name: 'g', sectionName: 'nope' }])] }),
    'Accepted False NoMatchingParent, ResolvedRefs True ResolvedRefs',
  );
  assert.match(said({ http: [elsewhere([{ name: 'g', port: 81 }])] })!, /NoMatchingParent/);
  assert.match(said({ http: [route('x', [rule('s')], ['a.test'], 'other')] })!, /NotAllowedByListeners/);
  assert.match(
    said({ gateways: [gateway(listener({ hostname: 'b.test' }))], http: [route('x', [rule('s')])] })!,
    /NoMatchingListenerHostname/,
  );
  const selecting = listener({
    allowedRoutes: { namespaces: { from: 'Selector', selector: { matchLabels: { team: 'other' } } } },
  });
  assert.match(
    said({ gateways: [gateway(selecting)], http: [route('x', [rule('s')], ['a.test'], 'other')] })!,
    /Accepted True/,
  );
  assert.match(said({ gateways: [gateway(selecting)], http: [route('x', [rule('s')])] })!, /NotAllowedByListeners/);
  assert.deepEqual(build({ http: [elsewhere([{ name: 'nobody' }])] }).routes, []);
});

test('references: existence, kinds, ports, grants', () => {
  const state = build({
    http: [
      route('r', [
        {
          backendRefs: [
            to('missing'),
            to('s', { kind: 'Bucket' }),
            to('s', { port: 81 }),
            to('s', { namespace: 'other' }),
          ],
        },
      ]),
    ],
    grants: [
      {
        apiVersion: 'v1',
        kind: 'ReferenceGrant',
        metadata: metadata('x', 'other'),
        spec: {
          from: [{ group: 'gateway.networking.k8s.io', kind: 'HTTPRoute', namespace: 'default' }],
          to: [{ group: '', kind: 'Service', name: 't' }],
        },
      },
    ],
  });
  const condition = state.routes[0]!.parents[0]!.conditions.at(-1)!;
  assert.equal(condition.reason, 'BackendNotFound');
  for (const text of [
    /missing does not exist/,
    /not \/Bucket s/,
    /no TCP port 81/,
    /no ReferenceGrant in namespace other/,
  ])
    assert.match(condition.message, text);
  const answers = [...backendsOf(state.frontends).values()].map(({ answer }) => answer);
  assert.deepEqual(answers, [500]);
  const granted = build({
    http: [route('r', [{ backendRefs: [to('t', { namespace: 'other' })] }])],
    grants: [
      {
        apiVersion: 'v1',
        kind: 'ReferenceGrant',
        metadata: metadata('x', 'other'),
        spec: {
          from: [{ group: 'gateway.networking.k8s.io', kind: 'HTTPRoute', namespace: 'default' }],
          to: [{ group: '', kind: 'Service' }],
        },
      },
    ],
  });
  assert.equal(ask(granted, 'http://a.test/'), 't');
});

test('what cannot be honoured is told, and answers an error; a rule that is understood goes on', () => {
  const state = build({
    http: [
      route('r', [
        rule('fine', path('/fine')),
        {
          ...rule('s', path('/x')),
          filters: [{ type: 'ExtensionRef', extensionRef: { group: 'a', kind: 'b', name: 'c' } }],
        },
        rule('s', path('(a+)+', 'RegularExpression')),
        { ...rule('s', path('/y')), retry: { backoff: '1s' } },
      ]),
    ],
  });
  assert.equal(
    saidOf(state)[0],
    'Accepted True Accepted, PartiallyInvalid True UnsupportedValue, ResolvedRefs True ResolvedRefs',
  );
  assert.equal(ask(state, 'http://a.test/fine'), 'fine');
  assert.equal(ask(state, 'http://a.test/x'), undefined);
  const bad = build({ http: [route('r', [{ ...rule('s'), retry: { codes: [418] } }])] });
  assert.match(saidOf(bad)[0]!, /Accepted False UnsupportedValue/);
});

test('weights are shares; a rule without a backend answers 500, with all weights 0 too', () => {
  const state = build({
    http: [
      route('r', [
        { backendRefs: [to('a', { weight: 9 }), to('b', { weight: 0 }), to('c', { weight: 1 })] },
        { matches: [path('/none')] },
        { matches: [path('/zero')], backendRefs: [to('a', { weight: 0 })] },
      ]),
    ],
  });
  const frontend = state.frontends[0] as HttpFrontend;
  const choices = frontend.domains.find(({ host }) => host === 'a.test')!.prefixes.get('')![0]!.choices;
  assert.deepEqual(
    choices.map(({ backend, weight }) => [backend.service?.name, weight]),
    [
      ['a', 9],
      ['c', 1],
    ],
  );
  for (const at of ['/none', '/zero'])
    assert.equal(frontend.domains[0]!.prefixes.get(at)![0]!.choices[0]!.backend.answer, 500);
});

test('prefixes are replaced as upstream’s table has it', () => {
  const rewritten = (request: string, prefix: string, replacePrefixMatch: string): string => {
    const filters = [{ type: 'URLRewrite', urlRewrite: { path: { type: 'ReplacePrefixMatch', replacePrefixMatch } } }];
    const state = build({ http: [route('r', [{ ...rule('s', path(prefix)), filters }])] });
    const { lines } = backendShape([...backendsOf(state.frontends).values()][0]!);
    let at = request;
    for (const [, action, from, format] of lines as string[][])
      if (action === 'replace-path') at = at.replace(new RegExp(from!), format!.replace('\\1', '$1'));
    return at;
  };
  for (const [request, prefix, replacement, wanted] of [
    ['/foo/bar', '/foo', '/xyz', '/xyz/bar'],
    ['/foo/bar', '/foo', '/xyz/', '/xyz/bar'],
    ['/foo/bar', '/foo/', '/xyz', '/xyz/bar'],
    ['/foo/bar', '/foo/', '/xyz/', '/xyz/bar'],
    ['/foo', '/foo', '/xyz', '/xyz'],
    ['/foo/', '/foo', '/xyz', '/xyz/'],
    ['/foo/bar', '/foo', '', '/bar'],
    ['/foo/', '/foo', '', '/'],
    ['/foo', '/foo', '', '/'],
    ['/foo/', '/foo', '/', '/'],
    ['/foo', '/foo', '/', '/'],
    ['/x', '/', '/y', '/y/x'],
    ['/foo/foo/x', '/foo', '', '/foo/x'],
  ] as const)
    assert.equal(rewritten(request, prefix, replacement), wanted, `${request} ${prefix} ${replacement}`);
  assert.equal(escaped('/a.(b)+$'), '/a\\.\\(b\\)\\+\\$');
});

test('gRPC: service and method are a path; UDP ports lead to Services', () => {
  const grpc = (match: object) => ({ matches: [{ method: match }], backendRefs: [to('grpc')] });
  const state = build({
    gateways: [gateway(listener(), listener({ name: 'udp', port: 53, protocol: 'UDP' }))],
    others: {
      GRPCRoute: [route('g', [grpc({ service: 'a.B', method: 'C' }), grpc({ service: 'd.E' }), grpc({ method: 'F' })])],
      UDPRoute: [route('u', [{ backendRefs: [to('dns', { port: 53 })] }], [])],
    },
  });
  for (const [at, wanted] of [
    ['/a.B/C', 'grpc'],
    ['/a.B/D', undefined],
    ['/d.E/X', 'grpc'],
    ['/x.Y/F', 'grpc'],
  ] as const)
    assert.equal(ask(state, `http://a.test${at}`), wanted, at);
  assert.equal([...backendsOf(state.frontends).values()][0]!.upstream.protocol, 'h2');
  assert.deepEqual([...state.gateways[0]!.udpPorts], [[53, [{ namespace: 'default', name: 'dns', port: 53 }]]]);
});

test('of two policies for one Service the older is in force', () => {
  const policy = (name: string, more: object = {}): BackendTLSPolicy => ({
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'BackendTLSPolicy',
    metadata: metadata(name),
    spec: {
      targetRefs: [{ group: '', kind: 'Service', name: 's' }],
      validation: { hostname: `${name}.test`, wellKnownCACertificates: 'System', ...more },
    },
  });
  const state = build({ http: [route('r', [rule('s')])], policies: [policy('old'), policy('new')] });
  assert.equal([...backendsOf(state.frontends).values()][0]!.upstream.tls?.hostname, 'old.test');
  assert.deepEqual(
    state.policies.map(({ ancestors }) =>
      ancestors.map(({ gateway: of, conditions }) => `${of} ${conditions[0]!.reason}`),
    ),
    [['default/g Accepted'], ['default/g Conflicted']],
  );
  const broken = build({
    http: [route('r', [rule('s')])],
    policies: [
      policy('old', {
        wellKnownCACertificates: undefined,
        caCertificateRefs: [{ group: '', kind: 'ConfigMap', name: 'x' }],
      }),
    ],
  });
  assert.match(saidOf(broken)[0]!, /ResolvedRefs False InvalidBackendTLSPolicy/);
  assert.equal(broken.policies[0]!.ancestors[0]!.conditions[0]!.reason, 'NoValidCACertificate');
});

test('target ports are kept, unique, and those of the oldest Gateway', () => {
  const [old, young] = [gateway(listener()), { ...gateway(listener()), metadata: metadata('young') }];
  const service = (targetPort: number) => ({ spec: { ports: [{ port: 80, targetPort }] } }) as Service;
  const known = targetPorts([young, old], () => service(11_005));
  assert.deepEqual([known.get('default/g'), known.get('default/young')], [new Map([[80, 11_005]]), new Map()]);
  assert.deepEqual(
    allocate('default/young', [80, 81], known),
    new Map([
      [80, 11_000],
      [81, 11_001],
    ]),
  );
  assert.deepEqual(targetPorts([old], () => service(22)).get('default/g'), new Map());
  assert.match(serviceName({ ...old, metadata: metadata(`my.gateway.${'x'.repeat(80)}`) }), /^[a-z][-a-z0-9]{1,62}$/);
});

test('certificates of clients: a port that has no authority to check them by is not served', () => {
  const https = (port: number) => listener({ name: `p${port}`, port, protocol: 'HTTPS', tls: { certificateRefs: [] } });
  const refs = (name: string, more: object = {}) => ({
    validation: { caCertificateRefs: [{ group: '', kind: 'ConfigMap', name, ...more }] },
  });
  const own = gateway(https(443), https(444), https(445), https(446), listener());
  const tls = {
    backend: { clientCertificateRef: { name: 'missing' } },
    frontend: {
      default: refs('ca'),
      perPort: [
        { port: 444, tls: refs('missing') },
        { port: 445, tls: refs('ca', { kind: 'Secret' }) },
        { port: 446, tls: refs('ca', { namespace: 'other' }) },
      ],
    },
  };
  const configMaps = { ca: { 'ca.crt': '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n' } };
  const state = build({ gateways: [{ ...own, spec: { ...own.spec, tls } }], configMaps });
  const [result] = state.gateways;
  const reasons = (type: string) =>
    result!.listeners.map(({ conditions }) => conditions.find(each => each.type === type)!.reason);
  assert.deepEqual(reasons('Accepted'), ['Accepted', ...Array(3).fill('NoValidCACertificate'), 'Accepted']);
  assert.deepEqual(reasons('ResolvedRefs').slice(1, 4), [
    'InvalidCACertificateRef',
    'InvalidCACertificateKind',
    'RefNotPermitted',
  ]);
  assert.equal(result!.listeners[0]!.clients?.isRequired, true);
  assert.equal(result!.resolved.reason, 'InvalidClientCertificateRef');
});

test('nodes serve a Gateway at their addresses of each family', () => {
  const [result] = build({ gateways: [gateway(listener())] }).gateways;
  const node = {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'node-1', annotations: { [DATA_PLANE_ANNOTATION]: '11000' } },
    status: {
      conditions: [{ type: 'Ready', status: 'True' }],
      addresses: ['10.0.0.1', 'fd00::1'].map(address => ({ type: 'InternalIP', address })),
    },
  } as unknown as Node;
  const slices = slicesOf(result!, new Map([[80, 11_000]]), [node].values(), undefined as never);
  assert.deepEqual(
    slices.map(({ addressType, endpoints }) => [addressType, endpoints![0]!.addresses[0]]),
    [
      ['IPv4', '10.0.0.1'],
      ['IPv6', 'fd00::1'],
    ],
  );
});
