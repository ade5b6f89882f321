/**
 * No field of the API is accepted and ignored: a change of it alone changes what is served, or what is said. Fields are those of the definitions, so
 * that one which is added there is asked about here.
 */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GATEWAY_DEFINITIONS } from '../../api/gateway/definitions.ts';
import { build, CA, type Given, gateway, listener, metadata, to } from './gateway-fixture.ts';
import { serviceOf } from './gateway-front.ts';
import { said } from './gateway-objects.ts';
import { gatewayStatus, listenerSetStatus } from './gateway-status.ts';

// biome-ignore lint/suspicious/noExplicitAny: specs and schemas of any shape
type Any = any;
type Spec = Record<string, Any>;
interface Change {
  readonly of: Spec;
  readonly to: Spec;
}

/** What a field may be without being asked for: it says something to people, or to others. */
const UNASKED: Readonly<Record<string, string>> = {
  'GatewayClass spec.description': 'for people',
  'GatewayClass spec.parametersRef': 'refused by the controller: InvalidParameters (see ourGateways)',
  'GatewayClass spec.controllerName': 'whose class it is; it never changes',
  'HTTPRoute spec.rules[].name': 'in messages',
  'GRPCRoute spec.rules[].name': 'in messages',
  'TLSRoute spec.rules[].name': 'for people: there is one rule',
  'TCPRoute spec.rules[].name': 'for people: there is one rule',
  'UDPRoute spec.rules[].name': 'for people: there is one rule',
};

const path = (value: string, type = 'PathPrefix') => ({ path: { type, value } });
const refs = (name: string) => ({ validation: { caCertificateRefs: [{ group: '', kind: 'ConfigMap', name }] } });
const https = (more: object = {}) =>
  listener({
    name: 'https',
    port: 443,
    protocol: 'HTTPS',
    tls: { certificateRefs: [{ name: 'c' }] },
    ...more,
  } as never);
const filter = (type: string, field: string, value: object) => ({ filters: [{ type, [field]: value }] });
const header = (field: 'set' | 'add', name: string, value: string) => ({ [field]: [{ name, value }] });

function* filterChanges(): Iterable<readonly [string, object, object]> {
  for (const [type, field] of [
    ['RequestHeaderModifier', 'requestHeaderModifier'],
    ['ResponseHeaderModifier', 'responseHeaderModifier'],
  ] as const) {
    const f = (value: object) => filter(type, field, value);
    yield [field, {}, f({ remove: ['A'] })];
    for (const how of ['set', 'add'] as const) {
      yield [`${field}.${how}`, f({ remove: ['A'] }), f({ remove: ['A'], ...header(how, 'b', 'c') })];
      yield [`${field}.${how}[].name`, f(header(how, 'a', 'b')), f(header(how, 'c', 'b'))];
      yield [`${field}.${how}[].value`, f(header(how, 'a', 'b')), f(header(how, 'a', 'c'))];
    }
    yield [`${field}.remove`, f({ remove: ['A'] }), f({ remove: ['B'] })];
  }
  const mirror = (value: object) =>
    filter('RequestMirror', 'requestMirror', { ...value, backendRef: to('m', (value as Any).backendRef) });
  yield ['requestMirror', {}, mirror({})];
  for (const [key, value] of [
    ['name', 'n'],
    ['port', 81],
    ['namespace', 'other'],
    ['group', 'a.b'],
    ['kind', 'ConfigMap'],
  ] as const)
    yield [`requestMirror.backendRef.${key}`, mirror({}), mirror({ backendRef: { [key]: value } })];
  yield ['requestMirror.backendRef', mirror({}), mirror({ backendRef: { name: 'n' } })];
  yield ['requestMirror.percent', mirror({}), mirror({ percent: 10 })];
  yield ['requestMirror.fraction', mirror({}), mirror({ fraction: { numerator: 1 } })];
  yield [
    'requestMirror.fraction.numerator',
    mirror({ fraction: { numerator: 1 } }),
    mirror({ fraction: { numerator: 2 } }),
  ];
  yield [
    'requestMirror.fraction.denominator',
    mirror({ fraction: { numerator: 1, denominator: 2 } }),
    mirror({ fraction: { numerator: 1, denominator: 3 } }),
  ];
  yield ['extensionRef', {}, filter('ExtensionRef', 'extensionRef', { group: 'a.b', kind: 'C', name: 'd' })];
}

function* httpFilterChanges(): Iterable<readonly [string, object, object]> {
  yield* filterChanges();
  const prefix = { type: 'ReplacePrefixMatch', replacePrefixMatch: '/x' };
  const full = { type: 'ReplaceFullPath', replaceFullPath: '/x' };
  for (const [type, field] of [
    ['RequestRedirect', 'requestRedirect'],
    ['URLRewrite', 'urlRewrite'],
  ] as const) {
    const f = (value: object) => filter(type, field, value);
    yield [field, {}, f({ hostname: 'x.test' })];
    yield [`${field}.hostname`, f({ hostname: 'x.test' }), f({ hostname: 'y.test' })];
    yield [`${field}.path`, f({}), f({ path: full })];
    yield [`${field}.path.type`, f({ path: full }), f({ path: prefix })];
    yield [`${field}.path.replaceFullPath`, f({ path: full }), f({ path: { ...full, replaceFullPath: '/y' } })];
    yield [
      `${field}.path.replacePrefixMatch`,
      f({ path: prefix }),
      f({ path: { ...prefix, replacePrefixMatch: '/y' } }),
    ];
  }
  const redirect = (value: object) => filter('RequestRedirect', 'requestRedirect', value);
  yield ['requestRedirect.scheme', redirect({}), redirect({ scheme: 'https' })];
  yield ['requestRedirect.port', redirect({}), redirect({ port: 8080 })];
  yield ['requestRedirect.statusCode', redirect({}), redirect({ statusCode: 307 })];
  const cors = (more: object) => filter('CORS', 'cors', { allowOrigins: ['https://a.test'], ...more });
  yield ['cors', {}, cors({})];
  yield ['cors.allowOrigins', cors({}), cors({ allowOrigins: ['https://b.test'] })];
  yield ['cors.allowCredentials', cors({}), cors({ allowCredentials: true })];
  yield ['cors.allowMethods', cors({}), cors({ allowMethods: ['PUT'] })];
  yield ['cors.allowHeaders', cors({}), cors({ allowHeaders: ['X-A'] })];
  yield ['cors.exposeHeaders', cors({}), cors({ exposeHeaders: ['X-A'] })];
  yield ['cors.maxAge', cors({}), cors({ maxAge: 7 })];
}

function* ruleChanges(kind: 'HTTPRoute' | 'GRPCRoute'): Iterable<readonly [string, Change]> {
  const spec = (rule: object): Spec => ({ rules: [{ backendRefs: [to('s')], ...rule }] });
  const change = (of: object, into: object): Change => ({ of: spec(of), to: spec(into) });
  yield ['rules', { of: spec({}), to: { rules: [] } }];
  for (const [at, of, into] of kind === 'HTTPRoute' ? httpFilterChanges() : filterChanges()) {
    yield [`rules[].filters[].${at}`, change(of, into)];
    const inside = (more: object) => ({ backendRefs: [to('s', more)] });
    yield [`rules[].backendRefs[].filters[].${at}`, change(inside(of), inside(into))];
  }
  const ref = (more: object) => ({ backendRefs: [to('s', more), to('t')] });
  for (const more of [
    { name: 'u' },
    { port: 81 },
    { namespace: 'other' },
    { weight: 2 },
    { group: 'a.b' },
    { kind: 'Pod' },
  ])
    yield [`rules[].backendRefs[].${Object.keys(more)[0]}`, change(ref({}), ref(more))];
  yield ['rules[].matches', change({}, { matches: [{ headers: [{ name: 'a', value: 'b' }] }] })];
  const tests = (field: string) => {
    const one = (more: object) => ({ matches: [{ [field]: [{ name: 'a', value: 'b', ...more }] }] });
    const at = `rules[].matches[].${field}`;
    return [
      [at, change({}, one({}))],
      [`${at}[].name`, change(one({}), one({ name: 'c' }))],
      [`${at}[].value`, change(one({}), one({ value: 'c' }))],
      [`${at}[].type`, change(one({}), one({ type: 'RegularExpression' }))],
    ] as const;
  };
  yield* tests('headers');
  if (kind === 'GRPCRoute') {
    const method = (more: object) => ({ matches: [{ method: { service: 'a.B', method: 'C', ...more } }] });
    yield ['rules[].matches[].method', change({}, method({}))];
    yield ['rules[].matches[].method.service', change(method({}), method({ service: 'd.E' }))];
    yield ['rules[].matches[].method.method', change(method({}), method({ method: 'D' }))];
    yield ['rules[].matches[].method.type', change(method({}), method({ type: 'RegularExpression' }))];
    return;
  }
  yield* tests('queryParams');
  const at = (more: object) => ({ matches: [more] });
  yield ['rules[].matches[].path', change(at({}), at(path('/a')))];
  yield ['rules[].matches[].path.value', change(at(path('/a')), at(path('/b')))];
  yield ['rules[].matches[].path.type', change(at(path('/a')), at(path('/a', 'Exact')))];
  yield ['rules[].matches[].method', change(at({}), at({ method: 'PUT' }))];
  for (const key of ['request', 'backendRequest'])
    yield [`rules[].timeouts.${key}`, change({}, { timeouts: { [key]: '1s' } })];
  yield ['rules[].retry', change({}, { retry: {} })];
  yield ['rules[].retry.codes', change({ retry: {} }, { retry: { codes: [503] } })];
  yield ['rules[].retry.attempts', change({ retry: {} }, { retry: { attempts: 4 } })];
  yield ['rules[].retry.backoff', change({ retry: {} }, { retry: { backoff: '1s' } })];
}

function* streamChanges(): Iterable<readonly [string, Change]> {
  const spec = (more: object): Spec => ({ rules: [{ backendRefs: [to('s', more), to('t')] }] });
  for (const more of [
    { name: 'u' },
    { port: 81 },
    { namespace: 'other' },
    { weight: 2 },
    { group: 'a.b' },
    { kind: 'Pod' },
  ])
    yield [`rules[].backendRefs[].${Object.keys(more)[0]}`, { of: spec({}), to: spec(more) }];
}

function* parentChanges(): Iterable<readonly [string, Change]> {
  const parent = (more: object): Spec => ({ parentRefs: [{ name: 'g', namespace: 'default', ...more }] });
  for (const more of [
    { name: 'h' },
    { namespace: 'other' },
    { group: 'a.b' },
    { kind: 'ListenerSet' },
    { port: 9 },
    { sectionName: 'nope' },
  ])
    yield [`parentRefs[].${Object.keys(more)[0]}`, { of: parent({}), to: parent(more) }];
}
const hosts: readonly [string, Change] = [
  'hostnames',
  { of: { hostnames: ['a.test'] }, to: { hostnames: ['b.test'] } },
];

function* listenerChanges(): Iterable<readonly [string, Change]> {
  const spec = (more: object): Spec => ({ listeners: [listener({ port: 81, ...more })] });
  const change = (of: object, into: object): Change => ({ of: spec(of), to: spec(into) });
  const tls = (more: object) => ({ listeners: [https({ port: 444, ...more })] });
  yield ['listeners[].name', change({}, { name: 'other' })];
  yield ['listeners[].hostname', change({}, { hostname: 'b.test' })];
  yield ['listeners[].port', change({}, { port: 82 })];
  yield ['listeners[].protocol', change({}, { protocol: 'TCP' })];
  const refsOf = (more: object) => tls({ tls: { certificateRefs: [{ name: 'c', ...more }] } });
  for (const more of [{ name: 'd' }, { namespace: 'third' }, { group: 'a.b' }, { kind: 'Pod' }])
    yield [`listeners[].tls.certificateRefs[].${Object.keys(more)[0]}`, { of: refsOf({}), to: refsOf(more) }];
  const options = { certificateRefs: [{ name: 'c' }], options: { a: 'b' } };
  yield ['listeners[].tls.options', { of: tls({}), to: tls({ tls: options }) }];
  const mode = (mode: string) => tls({ protocol: 'TLS', tls: { mode, certificateRefs: [{ name: 'c' }] } });
  yield ['listeners[].tls.mode', { of: mode('Terminate'), to: mode('Passthrough') }];
  const allowed = (namespaces: object, kinds?: object[]) => ({
    allowedRoutes: { namespaces, ...(kinds ? { kinds } : {}) },
  });
  const selecting = (team: string) => allowed({ from: 'Selector', selector: { matchLabels: { team } } });
  yield ['listeners[].allowedRoutes.namespaces.from', change(allowed({ from: 'All' }), allowed({ from: 'Same' }))];
  yield ['listeners[].allowedRoutes.namespaces.selector', change(selecting('default'), selecting('x'))];
  const kinds = (more: object) => allowed({ from: 'All' }, [{ kind: 'HTTPRoute', ...more }]);
  yield ['listeners[].allowedRoutes.kinds[].kind', change(kinds({}), kinds({ kind: 'GRPCRoute' }))];
  yield ['listeners[].allowedRoutes.kinds[].group', change(kinds({}), kinds({ group: 'a.b' }))];
}

function* gatewayChanges(): Iterable<readonly [string, Change]> {
  yield ['gatewayClassName', { of: {}, to: { gatewayClassName: 'other' } }];
  yield* listenerChanges();
  const address = (more: object) => ({ addresses: [{ value: '192.0.2.1', ...more }] });
  yield ['addresses', { of: {}, to: address({}) }];
  yield ['addresses[].value', { of: address({}), to: address({ value: '192.0.2.2' }) }];
  yield ['addresses[].type', { of: address({}), to: address({ type: 'Hostname' }) }];
  const sets = (namespaces: object) => ({ allowedListeners: { namespaces } });
  const select = (team: string) => sets({ from: 'Selector', selector: { matchLabels: { team } } });
  yield ['allowedListeners.namespaces.from', { of: sets({ from: 'All' }), to: sets({ from: 'None' }) }];
  yield ['allowedListeners.namespaces.selector', { of: select('other'), to: select('x') }];
  const infrastructure = (more: object) => ({ infrastructure: more });
  yield ['infrastructure.labels', { of: {}, to: infrastructure({ labels: { a: 'b' } }) }];
  yield ['infrastructure.annotations', { of: {}, to: infrastructure({ annotations: { a: 'b' } }) }];
  const parametersRef = { group: '', kind: 'ConfigMap', name: 'x' };
  yield ['infrastructure.parametersRef', { of: {}, to: infrastructure({ parametersRef }) }];
  const own = (more: object) => ({ tls: { backend: { clientCertificateRef: { name: 'c', ...more } } } });
  for (const more of [{ name: 'd' }, { namespace: 'other' }, { group: 'a.b' }, { kind: 'Pod' }])
    yield [`tls.backend.clientCertificateRef.${Object.keys(more)[0]}`, { of: own({}), to: own(more) }];
  const front = (of: Any, perPort?: object[]) => ({
    listeners: [https({ port: 443 })],
    tls: { frontend: { default: of, ...(perPort ? { perPort } : {}) } },
  });
  const mode = (which: string) => ({ validation: { ...refs('ca').validation, mode: which } });
  const withRef = (more: object) => ({
    validation: { caCertificateRefs: [{ group: '', kind: 'ConfigMap', name: 'ca', ...more }] },
  });
  for (const [at, make] of [
    ['tls.frontend.default', (of: object) => front(of)],
    ['tls.frontend.perPort[].tls', (of: object) => front({}, [{ port: 443, tls: of }])],
  ] as const) {
    yield [`${at}.validation.mode`, { of: make(mode('AllowValidOnly')), to: make(mode('AllowInsecureFallback')) }];
    for (const more of [{ name: 'd' }, { namespace: 'other' }, { group: 'a.b' }, { kind: 'Pod' }])
      yield [
        `${at}.validation.caCertificateRefs[].${Object.keys(more)[0]}`,
        { of: make(withRef({})), to: make(withRef(more)) },
      ];
  }
  const perPort = (port: number) => front({}, [{ port, tls: refs('ca') }]);
  yield ['tls.frontend.perPort[].port', { of: perPort(443), to: perPort(444) }];
}

function* setChanges(): Iterable<readonly [string, Change]> {
  const parent = (more: object) => ({ parentRef: { name: 'g', namespace: 'default', ...more } });
  for (const more of [{ name: 'h' }, { namespace: 'other' }, { group: 'a.b' }, { kind: 'Pod' }])
    yield [`parentRef.${Object.keys(more)[0]}`, { of: parent({}), to: parent(more) }];
  yield* listenerChanges();
}

function* grantChanges(): Iterable<readonly [string, Change]> {
  const grant = (from: object, into: object) => ({
    from: [{ group: 'gateway.networking.k8s.io', kind: 'HTTPRoute', namespace: 'default', ...from }],
    to: [{ group: '', kind: 'Service', ...into }],
  });
  for (const more of [{ group: 'a.b' }, { kind: 'GRPCRoute' }, { namespace: 'x' }])
    yield [`from[].${Object.keys(more)[0]}`, { of: grant({}, {}), to: grant(more, {}) }];
  for (const more of [{ group: 'a.b' }, { kind: 'Secret' }, { name: 'x' }])
    yield [`to[].${Object.keys(more)[0]}`, { of: grant({}, {}), to: grant({}, more) }];
}

function* policyChanges(): Iterable<readonly [string, Change]> {
  const target = (more: object) => ({ targetRefs: [{ group: '', kind: 'Service', name: 's', ...more }] });
  for (const more of [{ group: 'a.b' }, { kind: 'Pod' }, { name: 'x' }, { sectionName: 'x' }])
    yield [`targetRefs[].${Object.keys(more)[0]}`, { of: target({}), to: target(more) }];
  const ref = (more: object) => ({ group: '', kind: 'ConfigMap', name: 'ca', ...more });
  const valid = (more: object) => ({ validation: { hostname: 's.test', caCertificateRefs: [ref({})], ...more } });
  yield ['validation.hostname', { of: valid({}), to: valid({ hostname: 't.test' }) }];
  for (const more of [{ group: 'a.b' }, { kind: 'Pod' }, { name: 'x' }])
    yield [
      `validation.caCertificateRefs[].${Object.keys(more)[0]}`,
      { of: valid({}), to: valid({ caCertificateRefs: [ref(more)] }) },
    ];
  const known = { caCertificateRefs: undefined, wellKnownCACertificates: 'System' };
  yield ['validation.wellKnownCACertificates', { of: valid({}), to: valid(known) }];
  const named = (more: object) => valid({ subjectAltNames: [more] });
  const host = (hostname: string) => named({ type: 'Hostname', hostname });
  const uri = (text: string) => named({ type: 'URI', uri: text });
  yield ['validation.subjectAltNames[].type', { of: host('s.test'), to: uri('a://s.test') }];
  yield ['validation.subjectAltNames[].hostname', { of: host('s.test'), to: host('t.test') }];
  yield ['validation.subjectAltNames[].uri', { of: uri('a://b'), to: uri('a://c') }];
  yield ['options', { of: {}, to: { options: { a: 'b' } } }];
}

const CHANGES: Readonly<Record<string, () => Iterable<readonly [string, Change]>>> = {
  GatewayClass: () => [],
  Gateway: gatewayChanges,
  ListenerSet: setChanges,
  HTTPRoute: function* () {
    yield* parentChanges();
    yield hosts;
    yield* ruleChanges('HTTPRoute');
  },
  GRPCRoute: function* () {
    yield* parentChanges();
    yield hosts;
    yield* ruleChanges('GRPCRoute');
  },
  TLSRoute: function* () {
    yield* parentChanges();
    yield hosts;
    yield* streamChanges();
  },
  TCPRoute: function* () {
    yield* parentChanges();
    yield* streamChanges();
  },
  UDPRoute: function* () {
    yield* parentChanges();
    yield* streamChanges();
  },
  ReferenceGrant: grantChanges,
  BackendTLSPolicy: policyChanges,
};

/** Everything that comes of objects: what is served and what is said. Names and ages are the same each time. */
function outcome(kind: string, spec: Spec): string {
  const own = { spec: { allowedListeners: { namespaces: { from: 'All' } } } };
  const object = (name: string, namespace: string, of: Spec) => ({
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind,
    metadata: { ...metadata(name, namespace), creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: of,
  });
  const front = gateway(
    listener(),
    listener({ name: 'tls', port: 443, protocol: 'TLS', tls: { mode: 'Passthrough' } }),
    listener({ name: 'tcp', port: 5000, protocol: 'TCP' }),
    listener({ name: 'udp', port: 53, protocol: 'UDP' }),
  ).spec;
  const parentRefs = [{ name: 'g', namespace: 'default' }];
  const rules = (more: object = {}) => ({ rules: [{ backendRefs: [to('s', more)] }] });
  const isRoute = kind.endsWith('Route');
  const http: object[] = [];
  if (kind === 'HTTPRoute') http.push(object('r', 'default', { parentRefs, ...rules(), ...spec }));
  // Routes from near and far, that lead there.
  if (!isRoute)
    for (const namespace of ['default', 'other'])
      for (const parents of [parentRefs, [{ kind: 'ListenerSet', name: 'l', namespace: 'other' }]])
        http.push(object('r', namespace, { parentRefs: parents, hostnames: ['a.test'], ...rules() }));
  if (kind === 'ReferenceGrant') http.push(object('far', 'default', { parentRefs, ...rules({ namespace: 'other' }) }));
  const sets: Readonly<Record<string, Spec>> = {
    Gateway: { parentRef: parentRefs[0], listeners: [listener({ name: 'set', hostname: 'set.test' })] },
    ListenerSet: { parentRef: parentRefs[0], listeners: [listener({ name: 'set', port: 82 })], ...spec },
  };
  const policy = {
    targetRefs: [{ group: '', kind: 'Service', name: 's' }],
    validation: { hostname: 's.test', caCertificateRefs: [{ group: '', kind: 'ConfigMap', name: 'ca' }] },
    ...spec,
  };
  const given = {
    gateways: [object('g', 'default', { ...front, ...own.spec, ...(kind === 'Gateway' ? spec : {}) })],
    sets: sets[kind] ? [object('l', 'other', sets[kind])] : [],
    http,
    others:
      isRoute && kind !== 'HTTPRoute' ? { [kind]: [object('r', 'default', { parentRefs, ...rules(), ...spec })] } : {},
    grants: kind === 'ReferenceGrant' ? [object('grant', 'other', spec)] : [],
    policies: kind === 'BackendTLSPolicy' ? [object('p', 'default', policy)] : [],
    configMaps: { ca: { 'ca.crt': CA } },
  };
  const state = build(given as unknown as Given);
  const programmed = said('Programmed', true, 'Programmed');
  const text = {
    gateways: state.gateways.map(each => [
      gatewayStatus(each.gateway, each, { addresses: [], programmed }, 'now'),
      serviceOf(each, new Map(each.tcpPorts.map((port, at) => [port, 11_000 + at])), undefined),
      each.sets.map(judged => listenerSetStatus(judged, programmed, 'now')),
      [...each.udpPorts],
    ]),
    routes: state.routes.map(({ parents }) => parents),
    policies: state.policies.map(({ ancestors }) => ancestors),
    frontends: state.frontends.map(({ gateway: _, ...rest }) => rest),
    files: [...state.caFiles],
  };
  // What a status repeats of the spec is not an answer to it.
  const shown = (key: string, value: unknown) =>
    key === 'parentRef' ? undefined : value instanceof Map || value instanceof Set ? [...value] : value;
  return JSON.stringify(text, shown);
}

/** `spec.listeners[].tls.mode`: every field that holds no others, and maps. */
function* fieldsOf(schema: Any, at: string): Iterable<string> {
  if (schema.type === 'array') return yield* fieldsOf(schema.items, `${at}[]`);
  const isSelector = at.endsWith('elector');
  if (schema.properties && !isSelector)
    for (const [name, inner] of Object.entries(schema.properties)) yield* fieldsOf(inner, `${at}.${name}`);
  else yield at;
}

const CHANGED_WHOLE = /\.extensionRef\.|\.parametersRef\.|filters\[\]\.type$/;

for (const { spec } of GATEWAY_DEFINITIONS) {
  const { kind } = spec.names;
  test(`${kind}: each field is honoured or refused`, () => {
    const changes = [...CHANGES[kind]!()];
    const [[, first] = []] = changes;
    if (first) assert.equal(outcome(kind, first.of), outcome(kind, first.of), 'nothing else makes a difference');
    for (const [at, change] of changes)
      assert.notEqual(outcome(kind, change.of), outcome(kind, change.to), `${kind} spec.${at} changes nothing`);
    const tried = new Set(changes.map(([at]) => `spec.${at}`));
    const schema = spec.versions[0]!.schema!.openAPIV3Schema as Any;
    const missing = [...fieldsOf(schema.properties.spec, 'spec')]
      .map(each => each.replace(/\[\]$/, ''))
      .filter(at => !tried.has(at) && !CHANGED_WHOLE.test(at))
      .map(at => `${kind} ${at}`)
      .filter(at => !Object.keys(UNASKED).some(known => at === known || at.startsWith(`${known}.`)));
    assert.deepEqual(missing, []);
  });
}
