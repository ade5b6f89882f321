import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Node, Service } from '../../api/core/v1.gen.ts';
import type { BackendTLSPolicy } from '../../api/gateway/v1.ts';
import { backendShape } from './backend-shape.ts';
import type { HttpFrontend } from './frontends.ts';
import { backendsOf } from './gateway-desired.ts';
import { ask, build, CA, gateway, listener, metadata, path, route, rule, saidOf, to } from './gateway-fixture.ts';
import { slicesOf } from './gateway-front.ts';
import { allocate, DATA_PLANE_ANNOTATION, serviceName, targetPorts } from './gateway-service.ts';
import { compareSpecificity, covers, intersection } from './hostnames.ts';
import { escaped } from './route-rules.ts';

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
      ['b', 0],
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
  const reasons = (more: object) => {
    const refs = [{ group: '', kind: 'ConfigMap', name: 'x', ...more }];
    const wrong = [policy('old', { wellKnownCACertificates: undefined, caCertificateRefs: refs })];
    const { policies } = build({ http: [route('r', [rule('s')])], policies: wrong });
    return policies[0]!.ancestors[0]!.conditions.map(({ type, status, reason }) => `${type} ${status} ${reason}`);
  };
  const refused = 'Accepted False NoValidCACertificate';
  assert.deepEqual(reasons({}), [refused, 'ResolvedRefs False InvalidCACertificateRef']);
  assert.deepEqual(reasons({ kind: 'Secret' }), [refused, 'ResolvedRefs False InvalidKind']);
  const unknown = build({
    http: [route('r', [rule('s')])],
    policies: [policy('old', { wellKnownCACertificates: 'example.com/ours' })],
  });
  assert.equal(unknown.policies[0]!.ancestors[0]!.conditions[0]!.reason, 'Invalid');
  assert.match(saidOf(unknown)[0]!, /ResolvedRefs False InvalidBackendTLSPolicy/);
  const half = [
    { group: '', kind: 'ConfigMap', name: 'ca' },
    { group: '', kind: 'ConfigMap', name: 'x' },
  ];
  const partly = build({
    http: [route('r', [rule('s')])],
    policies: [policy('old', { wellKnownCACertificates: undefined, caCertificateRefs: half })],
    configMaps: { ca: { 'ca.crt': CA } },
  });
  assert.deepEqual(
    partly.policies[0]!.ancestors[0]!.conditions.map(({ type, status, reason }) => `${type} ${status} ${reason}`),
    ['Accepted True Accepted', 'ResolvedRefs False InvalidCACertificateRef'],
  );
  assert.equal(partly.caFiles.size, 1);
  // HAProxy checks the name that it asks for, and no other.
  const named = (...subjectAltNames: object[]) => {
    const { policies } = build({ http: [route('r', [rule('s')])], policies: [policy('old', { subjectAltNames })] });
    return policies[0]!.ancestors[0]!.conditions[0]!;
  };
  const same = { type: 'Hostname', hostname: 'old.test' };
  assert.equal(named(same, same).reason, 'Accepted');
  for (const other of [
    { type: 'Hostname', hostname: 'other.test' },
    { type: 'URI', uri: 'spiffe://a/b' },
  ])
    for (const names of [[other], [same, other]])
      assert.match(JSON.stringify(named(...names)), /"Invalid".*(other.test|spiffe:\/\/a\/b) cannot be checked/);
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
  const slices = slicesOf(result!, new Map([[80, 11_000]]), [node], undefined as never);
  assert.deepEqual(
    slices.map(({ addressType, endpoints }) => [addressType, endpoints![0]!.addresses[0]]),
    [
      ['IPv4', '10.0.0.1'],
      ['IPv6', 'fd00::1'],
    ],
  );
});

test('a port that no node listens on yet keeps no other from being served', () => {
  const [result] = build({
    gateways: [gateway(listener({ port: 80, name: 'old' }), listener({ port: 81, name: 'new' }))],
  }).gateways;
  const node = {
    metadata: { name: 'n', annotations: { [DATA_PLANE_ANNOTATION]: '11000' } },
    status: {
      conditions: [{ type: 'Ready', status: 'True' }],
      addresses: [{ type: 'InternalIP', address: '10.0.0.1' }],
    },
  } as unknown as Node;
  const targets = new Map([
    [80, 11_000],
    [81, 11_001],
  ]);
  const slices = slicesOf(result!, targets, [node], undefined as never);
  assert.deepEqual(
    slices.map(({ endpoints, ports }) => [ports![0]!.port, endpoints!.length]),
    [
      [11_000, 1],
      [11_001, 0],
    ],
  );
});

test('datagrams go straight to pods, by slices of each family', () => {
  const state = build({
    gateways: [gateway(listener({ name: 'udp', port: 53, protocol: 'UDP' }))],
    others: { UDPRoute: [route('u', [{ backendRefs: [to('dns', { port: 53 })] }], [])] },
  });
  const endpoints = { of: () => ({ addresses: ['10.244.0.2:5353', '[fd00:10:244::2]:5353'] }) };
  const slices = slicesOf(state.gateways[0]!, new Map(), [], endpoints as never);
  assert.deepEqual(
    slices.map(({ addressType, endpoints: all, ports }) => [addressType, all![0]!.addresses[0], ports![0]!.port]),
    [
      ['IPv4', '10.244.0.2', 5353],
      ['IPv6', 'fd00:10:244::2', 5353],
    ],
  );
});
