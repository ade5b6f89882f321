import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Service } from '../../api/core/v1.gen.ts';
import type { BackendTLSPolicy, Gateway, Listener, ListenerSet, ReferenceGrant, Route } from '../../api/gateway/v1.ts';
import { BUNDLE_VERSION } from '../../api/gateway/v1.ts';
import { ask, build, CA, type Given, gateway, listener, metadata, route, rule, saidOf, to } from './gateway-fixture.ts';
import { serviceOf } from './gateway-front.ts';
import type { GatewayState } from './gateway-model.ts';
import { said } from './gateway-objects.ts';
import { listenerSetStatus, supportedVersion } from './gateway-status.ts';

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

test('certificates of listeners: what is missing or malformed, and which grants count', () => {
  const ref = (more: object) => ({ name: 'c', group: '', kind: 'Secret', ...more });
  const https = (...refs: object[]) =>
    listener({ port: 443, protocol: 'HTTPS', hostname: 'a.test', tls: { certificateRefs: refs as never } });
  const grant = (from: object, to: object, namespace = 'other'): ReferenceGrant => ({
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'ReferenceGrant',
    metadata: metadata('grant', namespace),
    spec: {
      from: [{ group: 'gateway.networking.k8s.io', kind: 'Gateway', namespace: 'default', ...from }],
      to: [{ group: '', kind: 'Secret', ...to }],
    },
  });
  const secrets = { 'default/malformed': { 'tls.crt': 'Hello', 'tls.key': 'world' } };
  const said = (refs: object[], grants: ReferenceGrant[] = []) => {
    const state = build({ gateways: [gateway(https(...refs))], http: [route('r', [rule('s')])], secrets, grants });
    const [{ listeners, resolved }] = state.gateways as [GatewayState['gateways'][0]];
    const [{ conditions, attached }] = listeners as [GatewayState['gateways'][0]['listeners'][0]];
    assert.equal(resolved.status, 'False');
    // A route is attached whatever becomes of the listener.
    assert.equal(attached.size, 1);
    return conditions.find(({ type }) => type === 'ResolvedRefs')?.reason;
  };
  for (const more of [{}, { group: 'wrong.example' }, { kind: 'ConfigMap' }, { name: 'malformed' }])
    assert.equal(said([ref(more)]), 'InvalidCertificateRef', JSON.stringify(more));
  const far = [ref({ namespace: 'other' })];
  for (const grants of [
    [],
    [grant({}, { name: 'else' })],
    [grant({ kind: 'HTTPRoute' }, {})],
    [grant({ namespace: 'third' }, {})],
    [grant({ group: 'else' }, {})],
    [grant({}, { kind: 'ConfigMap' })],
    [grant({}, {}, 'default')],
  ])
    assert.equal(said(far, grants), 'RefNotPermitted', JSON.stringify(grants));
  // Permitted, but there is no such Secret.
  for (const grants of [[grant({}, {})], [grant({}, { name: 'c' })]])
    assert.equal(said(far, grants), 'InvalidCertificateRef');
});

test('kinds of routes: only those of the protocol are supported, and only those that are named', () => {
  const kinds = (...all: string[]) => {
    const allowedRoutes = { kinds: all.map(kind => ({ kind })) };
    const [judged] = build({ gateways: [gateway(listener({ allowedRoutes }))] }).gateways[0]!.listeners;
    return [judged!.kinds.join(), judged!.conditions.find(({ type }) => type === 'ResolvedRefs')!.reason];
  };
  assert.deepEqual(kinds(), ['HTTPRoute,GRPCRoute', 'ResolvedRefs']);
  assert.deepEqual(kinds('HTTPRoute'), ['HTTPRoute', 'ResolvedRefs']);
  assert.deepEqual(kinds('InvalidRoute'), ['', 'InvalidRouteKinds']);
  assert.deepEqual(kinds('InvalidRoute', 'HTTPRoute'), ['HTTPRoute', 'InvalidRouteKinds']);
});

test('infrastructure: labels and annotations of the Service and its slices', () => {
  const own = gateway(listener());
  const infrastructure = { labels: { team: 'a' }, annotations: { note: 'b' } };
  const [result] = build({ gateways: [{ ...own, spec: { ...own.spec, infrastructure } }] }).gateways;
  const { metadata: made } = serviceOf(result!, new Map([[80, 11_000]]), undefined);
  assert.deepEqual([made.labels?.['team'], made.annotations?.['note']], ['a', 'b']);
  assert.equal(made.labels?.['gateway.networking.k8s.io/gateway-name'], 'g');
});

test('HTTPS listeners that share names say so, by port', () => {
  const https = (name: string, hostname: string, port = 443) =>
    listener({ name, port, protocol: 'HTTPS', hostname, tls: { certificateRefs: [] } });
  const state = build({
    gateways: [
      gateway(
        https('foo', 'foo.a.test'),
        https('wild', '*.a.test'),
        https('apart', 'b.test'),
        https('port', '*.a.test', 444),
      ),
    ],
  });
  assert.deepEqual(
    state.gateways[0]!.listeners.map(
      ({ conditions }) => conditions.find(({ type }) => type === 'OverlappingTLSConfig')?.reason,
    ),
    ['OverlappingHostnames', 'OverlappingHostnames', undefined, undefined],
  );
});

test('addresses: one is asked for as such, one of each family by annotation', () => {
  const asking = (...values: (string | undefined)[]) => {
    const own = gateway(listener());
    return { ...own, spec: { ...own.spec, addresses: values.map(value => (value ? { value } : {})) } };
  };
  const service = (of: Gateway, before?: Service) =>
    serviceOf(build({ gateways: [of] }).gateways[0]!, new Map(), before);
  const annotation = 'loadbalancer.coxswain.dev/loadBalancerIPs';
  const both = service(asking('192.0.2.1', '192.0.2.2', 'fd00::1'));
  assert.equal(both.metadata.annotations?.[annotation], '192.0.2.1,fd00::1');
  assert.equal(both.spec?.loadBalancerIP, undefined);
  const one = service(asking('192.0.2.1'), both);
  assert.equal(one.metadata.annotations?.[annotation], undefined);
  assert.deepEqual([one.spec?.loadBalancerIP, one.spec?.ipFamilies], ['192.0.2.1', ['IPv4']]);
  assert.equal(service(asking(undefined)).spec?.ipFamilyPolicy, 'PreferDualStack');
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

test('certificates of clients: a port that has no authority to check them by is not served', () => {
  const https = (port: number) => listener({ name: `p${port}`, port, protocol: 'HTTPS', tls: { certificateRefs: [] } });
  const refs = (name: string, more: object = {}) => ({
    validation: { caCertificateRefs: [{ group: '', kind: 'ConfigMap', name, ...more }] },
  });
  const own = gateway(https(443), https(444), https(445), https(446), https(447), listener());
  const tls = {
    backend: { clientCertificateRef: { name: 'missing' } },
    frontend: {
      default: refs('ca'),
      perPort: [
        { port: 444, tls: refs('missing') },
        { port: 447, tls: refs('nonsense') },
        { port: 445, tls: refs('ca', { kind: 'Secret' }) },
        { port: 446, tls: refs('ca', { namespace: 'other' }) },
      ],
    },
  };
  const configMaps = { ca: { 'ca.crt': CA }, nonsense: { 'ca.crt': CA.replace('MII', 'AII') } };
  const state = build({ gateways: [{ ...own, spec: { ...own.spec, tls } }], configMaps });
  const [result] = state.gateways;
  const reasons = (type: string) =>
    result!.listeners.map(({ conditions }) => conditions.find(each => each.type === type)!.reason);
  assert.deepEqual(reasons('Accepted'), ['Accepted', ...Array(4).fill('NoValidCACertificate'), 'Accepted']);
  assert.deepEqual(reasons('ResolvedRefs').slice(1, 5), [
    'InvalidCACertificateRef',
    'InvalidCACertificateKind',
    'RefNotPermitted',
    'InvalidCACertificateRef',
  ]);
  assert.equal(result!.listeners[0]!.clients?.isRequired, true);
  assert.equal(result!.resolved.reason, 'InvalidClientCertificateRef');
});

test('filters that contradict each other, and backends that speak something else', () => {
  const rewrite = { type: 'URLRewrite', urlRewrite: { hostname: 'b.test' } };
  const redirect = { type: 'RequestRedirect', requestRedirect: { hostname: 'c.test' } };
  const both = { filters: [rewrite], backendRefs: [to('s', { filters: [redirect] })] };
  assert.match(saidOf(build({ http: [route('x', [both])] }))[0]!, /^Accepted False IncompatibleFilters/);
  assert.match(
    saidOf(build({ http: [route('x', [both, rule('s')])] }))[0]!,
    /^Accepted True Accepted, PartiallyInvalid True IncompatibleFilters/,
  );
  const speaking = (protocol: string, kind: 'HTTPRoute' | 'GRPCRoute', hasTls = false) => {
    const policy: BackendTLSPolicy = {
      apiVersion: 'gateway.networking.k8s.io/v1',
      kind: 'BackendTLSPolicy',
      metadata: metadata('p'),
      spec: {
        targetRefs: [{ group: '', kind: 'Service', name: 's' }],
        validation: { hostname: 's.test', wellKnownCACertificates: 'System' },
      },
    };
    const routes = [route('x', [rule('s')])];
    return saidOf(
      build({
        ...(kind === 'HTTPRoute' ? { http: routes } : { others: { GRPCRoute: routes } }),
        policies: hasTls ? [policy] : [],
        appProtocols: { s: `kubernetes.io/${protocol}` },
      }),
    )[0]!
      .split(' ')
      .at(-1);
  };
  for (const [protocol, kind, hasTls, wanted] of [
    ['h2c', 'HTTPRoute', false, 'ResolvedRefs'],
    ['ws', 'HTTPRoute', false, 'ResolvedRefs'],
    ['wss', 'HTTPRoute', false, 'UnsupportedProtocol'],
    ['wss', 'HTTPRoute', true, 'ResolvedRefs'],
    ['other', 'HTTPRoute', false, 'UnsupportedProtocol'],
    ['h2c', 'GRPCRoute', false, 'ResolvedRefs'],
    ['ws', 'GRPCRoute', false, 'UnsupportedProtocol'],
  ] as const)
    assert.equal(speaking(protocol, kind, hasTls), wanted, `${kind} ${protocol} ${hasTls}`);
});

test('a class says whether the definitions are of our version', () => {
  const reason = (version?: string) =>
    supportedVersion({
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
      metadata: {
        name: 'x',
        ...(version ? { annotations: { 'gateway.networking.k8s.io/bundle-version': version } } : {}),
      },
    }).reason;
  assert.equal(reason(BUNDLE_VERSION), 'SupportedVersion');
  assert.equal(reason('v1.5.1'), 'SupportedVersion');
  for (const version of ['v1.50.0', 'v1.9.0', 'v2.0.0', undefined]) assert.equal(reason(version), 'UnsupportedVersion');
});
