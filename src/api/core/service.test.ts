import assert from 'node:assert/strict';
import test from 'node:test';
import { service as kind } from './service.ts';
import type { Service, ServiceSpec } from './v1.gen.ts';

const NOW = Date.parse('2026-01-01T00:10:00Z');

function make(spec: ServiceSpec): Service {
  const object: Service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'default', creationTimestamp: '2026-01-01T00:00:00Z' },
    spec,
  };
  kind.defaults!(object);
  return object;
}

const findings = (object: Service): string[] => kind.validate!(object).map(error => `${error.field}: ${error.message}`);
const shown = (object: Service): string => kind.columns!.map(column => column.cell(object, NOW)).join(' ');
const ip = { clusterIP: '10.96.0.10', clusterIPs: ['10.96.0.10'] };

test('defaults', () => {
  assert.deepEqual(make({ ports: [{ port: 80 }] } as ServiceSpec).spec, {
    ports: [{ port: 80, protocol: 'TCP', targetPort: 80 }],
    sessionAffinity: 'None',
    type: 'ClusterIP',
    internalTrafficPolicy: 'Cluster',
  });
  const balanced = make({
    type: 'LoadBalancer',
    sessionAffinity: 'ClientIP',
    ports: [{ port: 80, targetPort: 'web' }],
  } as ServiceSpec).spec!;
  assert.equal(balanced.externalTrafficPolicy, 'Cluster');
  assert.equal(balanced.allocateLoadBalancerNodePorts, true);
  assert.deepEqual(balanced.sessionAffinityConfig, { clientIP: { timeoutSeconds: 10_800 } });
  assert.equal(make({ type: 'ExternalName', externalName: 'a.b' }).spec!.internalTrafficPolicy, undefined);
});

test('validation', () => {
  const port = { port: 80 } as NonNullable<ServiceSpec['ports']>[0];
  const cases: [spec: ServiceSpec, ...expected: string[]][] = [
    [{ ...ip, ports: [port] }],
    [{ ...ip }, 'spec.ports: Required value'],
    [
      { ...ip, ports: [port, { ...port, port: 81 }] },
      'spec.ports[0].name: Required value',
      'spec.ports[1].name: Required value',
    ],
    [
      { ...ip, ports: [{ ...port, nodePort: 30_000 }] },
      "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
    ],
    [
      { ...ip, ports: [{ ...port, targetPort: 'Bad_' }] },
      'spec.ports[0].targetPort: Invalid value: "Bad_": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)',
    ],
    [
      { ...ip, ports: [port], type: 'Nope' },
      'spec.type: Unsupported value: "Nope": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"',
    ],
    [{ type: 'ExternalName' }, 'spec.externalName: Required value'],
    [{ clusterIP: 'None', clusterIPs: ['None'] }],
    [
      { type: 'NodePort', clusterIP: 'None', clusterIPs: ['None'], ports: [port] },
      'spec.clusterIPs[0]: Invalid value: "None": may not be set to \'None\' for NodePort services',
    ],
    [
      { ...ip, ports: [port], externalTrafficPolicy: 'Local' },
      'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services',
    ],
    [
      { ...ip, ports: [port], externalIPs: ['127.0.0.1'] },
      'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)',
    ],
  ];
  for (const [spec, ...expected] of cases) assert.deepEqual(findings(make(spec)), expected);
});

test('a clusterIP stays', () => {
  const old = make({ ...ip, ports: [{ port: 80 } as never] });
  const next = structuredClone(old);
  next.spec!.clusterIP = '10.96.0.11';
  next.spec!.clusterIPs = ['10.96.0.11'];
  assert.deepEqual(
    kind.validateUpdate!(next, old).map(error => `${error.field}: ${error.message}`),
    ['spec.clusterIPs[0]: Invalid value: ["10.96.0.11"]: may not change once set'],
  );
});

test('columns', () => {
  assert.equal(
    shown(make({ ...ip, ports: [{ port: 80 } as never], selector: { b: '2', a: '1' } })),
    'web ClusterIP 10.96.0.10 <none> 80/TCP 10m a=1,b=2',
  );
  assert.equal(
    shown(make({ ...ip, type: 'NodePort', ports: [{ port: 80, nodePort: 30_080 } as never] })),
    'web NodePort 10.96.0.10 <none> 80:30080/TCP 10m <none>',
  );
  const balanced = make({ ...ip, type: 'LoadBalancer', ports: [{ port: 53, protocol: 'UDP' } as never] });
  assert.equal(shown(balanced), 'web LoadBalancer 10.96.0.10 <pending> 53/UDP 10m <none>');
  balanced.status = { loadBalancer: { ingress: [{ ip: '192.0.2.9' }, { ip: '192.0.2.1' }] } };
  assert.equal(shown(balanced), 'web LoadBalancer 10.96.0.10 192.0.2.1,192.0.2.9 53/UDP 10m <none>');
  assert.equal(
    shown(make({ type: 'ExternalName', externalName: 'a.b' })),
    'web ExternalName <none> a.b <none> 10m <none>',
  );
  assert.equal(shown(make({ clusterIP: 'None', clusterIPs: ['None'] })), 'web ClusterIP None <none> <none> 10m <none>');
});

test('warnings of what is ignored, deprecated or oddly written', () => {
  const port = { port: 80 } as NonNullable<ServiceSpec['ports']>[0];
  const warnings = (spec: ServiceSpec, annotations?: Record<string, string>) => {
    const object = make({ ports: [port], ...spec });
    return kind.warnings!(
      annotations ? { ...object, metadata: { ...object.metadata, annotations } } : object,
      undefined,
    );
  };
  const headless = { clusterIP: 'None', clusterIPs: ['None'] };
  assert.deepEqual(warnings(ip), []);
  assert.deepEqual(warnings(headless), []);
  assert.deepEqual(
    warnings({ ...headless, sessionAffinity: 'ClientIP', loadBalancerIP: '192.0.2.1', externalIPs: ['192.0.2.2'] }),
    [
      'spec.loadBalancerIP is ignored for headless services',
      'spec.externalIPs is ignored for headless services',
      'spec.SessionAffinity is ignored for headless services',
    ],
  );
  assert.deepEqual(warnings({ ...ip, externalIPs: ['2001:DB8::1'], externalName: 'x' }), [
    'spec.externalIPs[0]: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")',
    'spec.externalIPs is deprecated',
    'spec.externalName is ignored when spec.type is not "ExternalName"',
  ]);
  const topology = { 'service.kubernetes.io/topology-aware-hints': 'auto' };
  assert.deepEqual(warnings(ip, topology), [
    'annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead',
  ]);
});

test('rules of the fields beside addresses', () => {
  const port = { port: 80 } as NonNullable<ServiceSpec['ports']>[0];
  const balanced = { ...ip, type: 'LoadBalancer', ports: [port] };
  const cases: [spec: ServiceSpec, ...expected: string[]][] = [
    [{ ...balanced, loadBalancerClass: 'example.com/lb', loadBalancerSourceRanges: [' 10.0.0.0/8 '] }],
    [
      { ...ip, ports: [port], loadBalancerClass: 'x', loadBalancerSourceRanges: ['10.0.0.0/8'] },
      "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
      "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
    ],
    [{ ...balanced, externalTrafficPolicy: 'Local' }, 'spec.healthCheckNodePort: Required value'],
    [
      { ...balanced, healthCheckNodePort: 30_000 },
      "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
    ],
    [
      { ...ip, ports: [port], allocateLoadBalancerNodePorts: true },
      "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
    ],
    [
      {
        ...ip,
        ports: [port],
        sessionAffinity: 'ClientIP',
        sessionAffinityConfig: { clientIP: { timeoutSeconds: 86_401 } },
      },
      'spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400',
    ],
    [
      { ...ip, ports: [port], internalTrafficPolicy: 'Near', trafficDistribution: 'PreferNear' },
      'spec.internalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local"',
      'spec.trafficDistribution: Unsupported value: "PreferNear": supported values: "PreferClose", "PreferSameZone", "PreferSameNode"',
    ],
    [
      { type: 'ExternalName', externalName: 'a.b', ipFamilyPolicy: 'SingleStack', ipFamilies: ['IPv4'], ...ip },
      'spec.clusterIPs: Forbidden: may not be set for ExternalName services',
      'spec.ipFamilies: Forbidden: may not be set for ExternalName services',
      'spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services',
    ],
    [{ ...ip, ports: [port], ipFamilies: ['IPv4', 'IPv4'] }, 'spec.ipFamilies[1]: Duplicate value: "IPv4"'],
    [
      { clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.1', '10.96.0.2'], ports: [port] },
      'spec.clusterIPs: Invalid value: ["10.96.0.1","10.96.0.2"]: may specify no more than one IP for each IP family',
    ],
    [
      { clusterIP: 'None', clusterIPs: ['None', '10.96.0.2'] },
      'spec.clusterIPs: Invalid value: ["None","10.96.0.2"]: \'None\' must be the first and only value',
    ],
  ];
  for (const [spec, ...expected] of cases)
    assert.deepEqual(
      findings(make(spec)).filter(text => !(expected.length && text.startsWith('spec.ports: Required'))),
      expected,
      JSON.stringify(spec),
    );
});

test('the class of a load balancer and its health check port stay', () => {
  const old = make({
    ...ip,
    type: 'LoadBalancer',
    externalTrafficPolicy: 'Local',
    healthCheckNodePort: 30_000,
    ports: [{ port: 80 } as never],
  });
  const changed = structuredClone(old);
  Object.assign(changed.spec!, { loadBalancerClass: 'example.com/lb', healthCheckNodePort: 30_001 });
  assert.deepEqual(
    kind.validateUpdate!(changed, old).map(error => `${error.field}: ${error.message}`),
    [
      'spec.loadBalancerClass: Invalid value: "example.com/lb": may not change once set',
      'spec.healthCheckNodePort: Forbidden: field is immutable',
    ],
  );
});
