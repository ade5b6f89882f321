/** The Gateway API's definitions by our own API server: its defaults, limits and rules, as upstream's. */

import { strict as assert } from 'node:assert';
import { before, test } from 'node:test';
import { GATEWAY_DEFINITIONS } from '../../api/gateway/definitions.ts';
import type { KubeObject } from '../../api/meta.ts';
import { ApiError } from '../../base/errors.ts';
import { CUSTOM_RESOURCE_DEFINITIONS } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import { openMemoryStore } from '../../store/memory.ts';
import { LOOPBACK_USER } from '../request.ts';
import { ApiServer } from '../server.ts';

// biome-ignore lint/suspicious/noExplicitAny: tests look into objects freely
type Any = any;
let api: Transport;
let count = 0;

before(async () => {
  const server = await ApiServer.open({ store: openMemoryStore() });
  api = server.transport(LOOPBACK_USER);
  await api.create({ of: { group: '', version: 'v1', resource: 'namespaces' } }, {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'default' },
  } as KubeObject);
  for (const definition of GATEWAY_DEFINITIONS) await api.create({ of: CUSTOM_RESOURCE_DEFINITIONS }, definition);
  for (const { metadata } of GATEWAY_DEFINITIONS)
    for (let served = false; !served; ) {
      const { status } = (await api.get({ of: CUSTOM_RESOURCE_DEFINITIONS, name: metadata.name })) as Any;
      served = status?.conditions?.some((each: Any) => each.type === 'Established' && each.status === 'True');
      for (const each of status?.conditions ?? [])
        assert.notEqual(`${each.type} ${each.status}`, 'NonStructuralSchema True', `${metadata.name}: ${each.message}`);
      if (!served) await new Promise(resolve => setTimeout(resolve, 2));
    }
});

const RESOURCES: Record<string, string> = {
  GatewayClass: 'gatewayclasses v1',
  Gateway: 'gateways v1',
  ListenerSet: 'listenersets v1',
  HTTPRoute: 'httproutes v1',
  GRPCRoute: 'grpcroutes v1',
  TLSRoute: 'tlsroutes v1',
  TCPRoute: 'tcproutes v1',
  ReferenceGrant: 'referencegrants v1beta1',
  BackendTLSPolicy: 'backendtlspolicies v1',
};

function create(kind: string, spec: object): Promise<Any> {
  const [resource, version] = RESOURCES[kind]!.split(' ') as [string, string];
  return api.create(
    {
      of: { group: 'gateway.networking.k8s.io', version, resource },
      ...(kind === 'GatewayClass' ? {} : { namespace: 'default' }),
    },
    {
      apiVersion: `gateway.networking.k8s.io/${version}`,
      kind,
      metadata: { name: `x${++count}` },
      spec,
    } as unknown as KubeObject,
  );
}
const refused = (kind: string, spec: object, message: RegExp) =>
  assert.rejects(create(kind, spec), (error: unknown) => {
    assert.ok(error instanceof ApiError, String(error));
    assert.match(error.message, message);
    return true;
  });

const http = (more: object = {}) => ({ name: 'http', port: 80, protocol: 'HTTP', ...more });
const gateway = (...listeners: object[]) => ({ gatewayClassName: 'coxswain', listeners });
const to = (name: string, more: object = {}) => ({ name, port: 80, ...more });
const match = (path: object) => ({ rules: [{ matches: [{ path }], backendRefs: [to('a')] }] });

test('defaults are filled in', async () => {
  const made = await create('Gateway', gateway(http()));
  assert.deepEqual(made.spec.listeners[0].allowedRoutes, { namespaces: { from: 'Same' } });
  assert.deepEqual(
    made.status.conditions.map((each: Any) => `${each.type} ${each.status} ${each.reason}`),
    ['Accepted Unknown Pending', 'Programmed Unknown Pending'],
  );
  const route = await create('HTTPRoute', { parentRefs: [{ name: 'g' }], rules: [{ backendRefs: [to('a')] }] });
  assert.deepEqual(route.spec.parentRefs, [{ name: 'g', group: 'gateway.networking.k8s.io', kind: 'Gateway' }]);
  assert.deepEqual(route.spec.rules[0].matches, [{ path: { type: 'PathPrefix', value: '/' } }]);
  assert.deepEqual(route.spec.rules[0].backendRefs[0], { name: 'a', port: 80, group: '', kind: 'Service', weight: 1 });
  const whole = await create('HTTPRoute', {});
  assert.equal(whole.spec.rules[0].matches[0].path.value, '/');
  const redirected = await create('HTTPRoute', {
    rules: [{ filters: [{ type: 'RequestRedirect', requestRedirect: { scheme: 'https' } }] }],
  });
  assert.equal(redirected.spec.rules[0].filters[0].requestRedirect.statusCode, 302);
});

test('ListenerSets: a parent, and the listeners of a Gateway', async () => {
  const made = await create('ListenerSet', { parentRef: { name: 'g' }, listeners: [http()] });
  assert.deepEqual(made.spec.parentRef, { name: 'g', group: 'gateway.networking.k8s.io', kind: 'Gateway' });
  assert.equal(made.status.conditions[0].reason, 'Pending');
  await refused('ListenerSet', { parentRef: { name: 'g' }, listeners: [] }, /should have at least 1 items/);
  await refused('ListenerSet', { listeners: [http()] }, /parentRef/);
  const closed = await create('Gateway', { ...gateway(http()), allowedListeners: { namespaces: {} } });
  assert.equal(closed.spec.allowedListeners.namespaces.from, 'None');
});

test('Gateways: listeners', async () => {
  const tls = { certificateRefs: [{ name: 'c' }] };
  await create('Gateway', gateway(http(), { name: 'https', port: 443, protocol: 'HTTPS', tls }));
  await refused('Gateway', gateway(), /should have at least 1 items/);
  await refused('Gateway', gateway(http({ tls })), /tls must not be specified for protocols/);
  await refused('Gateway', gateway(http(), http({ port: 81 })), /Duplicate value|Listener name must be unique/);
  await refused('Gateway', gateway(http(), http({ name: 'b' })), /Combination of port, protocol and hostname/);
  await refused('Gateway', gateway(http({ protocol: 'TLS' })), /tls mode must be set for protocol TLS/);
  await refused('Gateway', gateway(http({ protocol: 'TCP', hostname: 'a.b' })), /hostname must not be specified/);
  await refused(
    'Gateway',
    gateway(http({ protocol: 'HTTPS', tls: {} })),
    /certificateRefs or options must be specified/,
  );
  await refused(
    'Gateway',
    gateway(http({ protocol: 'HTTPS', tls: { mode: 'Passthrough' } })),
    /tls mode must be Terminate for protocol HTTPS/,
  );
  await refused('Gateway', gateway(http({ hostname: 'A.b' })), /hostname/);
  await refused(
    'Gateway',
    { ...gateway(http()), addresses: [{ value: '1.2.3.4' }, { value: '1.2.3.4' }] },
    /IPAddress values must be unique/,
  );
  for (const value of ['1.2.3.4', 'fd00::1', '']) {
    const made = create('Gateway', { ...gateway(http()), addresses: [value ? { value } : {}] });
    assert.equal((await made).spec.addresses[0].type, 'IPAddress');
  }
  await create('Gateway', { ...gateway(http()), addresses: [{ type: 'Hostname', value: 'a.test' }] });
  await refused('Gateway', { ...gateway(http()), addresses: [{ value: 'a.test' }] }, /addresses\[0\]/);
  const tlsOf = (port: number) => ({ port, tls: {} });
  await refused(
    'Gateway',
    { ...gateway(http()), tls: { frontend: { default: {}, perPort: [tlsOf(1), tlsOf(1)] } } },
    /Port for TLS configuration must be unique within the Gateway|Duplicate value/,
  );
  await refused(
    'Gateway',
    { ...gateway(http()), infrastructure: { labels: { 'a/b/c': 'x' } } },
    /Label keys must be in the form/,
  );
});

test('HTTPRoutes: matches', async () => {
  await create('HTTPRoute', match({ type: 'RegularExpression', value: '/a.*#' }));
  await refused('HTTPRoute', match({ value: 'a' }), /must be an absolute path/);
  await refused('HTTPRoute', match({ type: 'Exact', value: '/a//b' }), /must not contain '\/\/'/);
  await refused('HTTPRoute', match({ value: '/a/../b' }), /must not contain '\/\.\.\/'/);
  await refused('HTTPRoute', match({ value: '/a%2fb' }), /must not contain '%2f'/);
  await refused('HTTPRoute', match({ value: '/a/..' }), /must not end with/);
  await refused('HTTPRoute', match({ value: '/a b' }), /must only contain valid characters/);
  await refused('HTTPRoute', { rules: [{ matches: [{ method: 'FOO' }] }] }, /Unsupported value: "FOO"/);
  const many = Array.from({ length: 64 }, (_, at) => ({ path: { value: `/${at}` } }));
  await refused('HTTPRoute', { rules: [{ matches: many }, { matches: many }, {}] }, /must be less than 128/);
  await refused('HTTPRoute', { hostnames: ['1.2.3.4.'] }, /hostnames/);
});

test('HTTPRoutes: filters and references', async () => {
  const modifier = { type: 'RequestHeaderModifier', requestHeaderModifier: { set: [{ name: 'a', value: 'b' }] } };
  const rewrite = (path: object) => ({ type: 'URLRewrite', urlRewrite: { path } });
  const filters = (...list: object[]) => ({ rules: [{ filters: list }] });
  await create('HTTPRoute', filters(modifier, rewrite({ type: 'ReplaceFullPath', replaceFullPath: '/x' })));
  await refused('HTTPRoute', filters({ type: 'RequestHeaderModifier' }), /must be specified for RequestHeaderModifier/);
  await refused('HTTPRoute', filters({ ...modifier, type: 'URLRewrite' }), /must be nil if the filter.type is not/);
  await refused('HTTPRoute', filters(modifier, modifier), /RequestHeaderModifier filter cannot be repeated/);
  await refused('HTTPRoute', filters(rewrite({ type: 'ReplaceFullPath' })), /replaceFullPath must be specified when/);
  await refused(
    'HTTPRoute',
    { rules: [{ filters: [{ type: 'RequestRedirect', requestRedirect: {} }], backendRefs: [to('a')] }] },
    /must not be used together with backendRefs/,
  );
  await refused(
    'HTTPRoute',
    {
      rules: [
        {
          matches: [{ path: { type: 'Exact', value: '/a' } }],
          filters: [rewrite({ type: 'ReplacePrefixMatch', replacePrefixMatch: '/x' })],
        },
      ],
    },
    /exactly one PathPrefix match must be specified/,
  );
  await refused('HTTPRoute', { rules: [{ backendRefs: [{ name: 'a' }] }] }, /Must have port for Service reference/);
  await refused('HTTPRoute', { rules: [{ backendRefs: [to('a', { weight: -1 })] }] }, /weight/);
  await refused('HTTPRoute', { parentRefs: [{ name: 'g' }, { name: 'g' }] }, /sectionName or port must be/);
  await refused(
    'HTTPRoute',
    { parentRefs: [{ name: 'g', sectionName: 'a' }, { name: 'g' }] },
    /sectionName or port must be specified/,
  );
  await create('HTTPRoute', {
    parentRefs: [
      { name: 'g', sectionName: 'a' },
      { name: 'g', sectionName: 'b' },
    ],
  });
  await refused('HTTPRoute', { rules: [{ timeouts: { request: '1s', backendRequest: '2s' } }] }, /cannot be longer/);
  await refused('HTTPRoute', { rules: [{ timeouts: { request: '1 s' } }] }, /request/);
});

test('what the experimental channel alone has is refused, or is not there and not kept', async () => {
  const externalAuth = { protocol: 'HTTP', backendRef: to('a') };
  const filters = [{ type: 'ExternalAuth', externalAuth }];
  await refused('HTTPRoute', { rules: [{ filters, backendRefs: [to('a')] }] }, /Unsupported value: "ExternalAuth"/);
  for (const kind of ['HTTPRoute', 'GRPCRoute']) {
    const rules = [{ sessionPersistence: { type: 'Cookie' }, backendRefs: [to('a')] }];
    const { spec } = await create(kind, { useDefaultGateways: 'All', rules });
    assert.deepEqual([spec.rules[0].sessionPersistence, spec.useDefaultGateways], [undefined, undefined], kind);
  }
  const made = await create('Gateway', { ...gateway(http()), defaultScope: 'All' });
  assert.equal(made.spec.defaultScope, undefined);
});

test('the other kinds', async () => {
  await refused('GRPCRoute', { rules: [{ matches: [{ method: { service: 'a/b' } }] }] }, /service must only contain/);
  await create('GRPCRoute', { rules: [{ matches: [{ method: { service: 'a.B', method: 'C' } }] }] });
  await refused('GRPCRoute', { rules: [{ matches: [{ method: {} }] }] }, /One or both of 'service' or 'method'/);
  await refused('TLSRoute', { hostnames: ['10.0.0.1'], rules: [{ backendRefs: [to('a')] }] }, /cannot contain an IP/);
  await create('TLSRoute', { hostnames: ['*.a.b'], rules: [{ backendRefs: [to('a')] }] });
  await refused('TLSRoute', { rules: [{ backendRefs: [to('a')] }] }, /hostnames: Required/);
  await refused('TCPRoute', { rules: [] }, /should have at least 1 items/);
  await refused('ReferenceGrant', { from: [], to: [] }, /at least 1 items/);
  const target = { group: '', kind: 'Service', name: 's' };
  const policy = (validation: object) => ({ targetRefs: [target], validation: { hostname: 'a.b', ...validation } });
  await create('BackendTLSPolicy', policy({ wellKnownCACertificates: 'System' }));
  await create('BackendTLSPolicy', policy({ wellKnownCACertificates: 'example.com/ours' }));
  await refused('BackendTLSPolicy', policy({ wellKnownCACertificates: 'ours' }), /wellKnownCACertificates/);
  await refused('BackendTLSPolicy', policy({}), /must specify either/);
  const grants = GATEWAY_DEFINITIONS.find(({ spec }) => spec.names.kind === 'ReferenceGrant')!.spec.versions;
  assert.deepEqual(
    grants.map(({ name, storage }) => `${name} ${storage}`),
    ['v1 false', 'v1beta1 true'],
  );
  const made = await create('GatewayClass', { controllerName: 'coxswain.dev/gateway' });
  assert.equal(made.status.conditions[0].type, 'Accepted');
  await refused('GatewayClass', { controllerName: 'coxswain' }, /controllerName/);
  await assert.rejects(
    api.update(
      {
        of: { group: 'gateway.networking.k8s.io', version: 'v1', resource: 'gatewayclasses' },
        name: made.metadata.name,
      },
      {
        ...made,
        spec: { controllerName: 'a.b/c' },
      },
    ),
    /Value is immutable/,
  );
});
