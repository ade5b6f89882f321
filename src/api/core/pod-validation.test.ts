import assert from 'node:assert/strict';
import test from 'node:test';
import { pod as kind } from './pod.ts';
import type { Container, Pod, PodSpec } from './v1.gen.ts';

const container = { name: 'c', image: 'nginx' };

function findings(spec: Partial<PodSpec>): string[] {
  const pod: Pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web', namespace: 'default' },
    spec: { containers: [container], ...spec },
  };
  kind.defaults!(pod);
  return kind.validate!(pod).map(({ field, message }) => `${field}: ${message}`);
}

test('a host name that stands for the one of the pod', () => {
  assert.deepEqual(findings({ hostnameOverride: 'a.example' }), []);
  assert.deepEqual(findings({ hostnameOverride: 'a.example', setHostnameAsFQDN: true, hostNetwork: true }), [
    'spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true',
    'spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true',
  ]);
  assert.deepEqual(findings({ hostnameOverride: 'a'.repeat(65) }), [
    'spec.hostnameOverride: Too long: may not be more than 64 bytes',
  ]);
  assert.match(findings({ hostnameOverride: 'A' }).join(), /^spec.hostnameOverride: Invalid value: "A": a lowercase/);
});

test('operating systems', () => {
  assert.deepEqual(findings({ os: { name: '' } }), ['spec.os.name: Required value']);
  assert.deepEqual(findings({ os: { name: 'windows' }, resources: { requests: { cpu: '1' } } }), [
    'spec.resources: Forbidden: may not be set for a windows pod',
  ]);
});

test('the pod asks for no less than its containers do', () => {
  const containers: Container[] = [
    { ...container, resources: { requests: { cpu: '300m', memory: '64Mi' } } },
    { ...container, name: 'd', resources: { requests: { cpu: '300m' } } },
  ];
  const of = (resources: PodSpec['resources']) => findings({ containers, resources });
  assert.deepEqual(of({ requests: { cpu: '600m', memory: '64Mi' } }), []);
  assert.deepEqual(of({ requests: { cpu: '500m', memory: '32Mi' } }), [
    'spec.resources.requests[cpu]: Invalid value: "500m": must be greater than or equal to aggregate container requests of 600m',
    'spec.resources.requests[memory]: Invalid value: "32Mi": must be greater than or equal to aggregate container requests of 64Mi',
  ]);
  const sized = (cpu: string): Container[] => [{ ...container, resources: { limits: { cpu } } }, containers[1]!];
  assert.deepEqual(findings({ containers: sized('1'), resources: { limits: { cpu: '1' } } }), []);
  assert.deepEqual(findings({ containers: sized('2'), resources: { limits: { cpu: '1' } } }), [
    'spec.resources.containers[0][cpu].limits: Invalid value: "2": must be less than or equal to pod limits of 1',
  ]);
});

test('what the resources of the pod may name', () => {
  assert.deepEqual(findings({ resources: { limits: { 'example.com/gpu': '1' } } }).slice(0, 1), [
    'spec.resources.limits[example.com/gpu]: Unsupported value: "example.com/gpu": supported values: "cpu", "hugepages-", "memory"',
  ]);
  assert.deepEqual(findings({ resources: { claims: [] } }), [
    'spec.resources.claims: Forbidden: claims may not be set for Resources at pod-level',
  ]);
});

test('pages are whole', () => {
  const of = (name: string, quantity: string) =>
    findings({
      containers: [{ ...container, resources: { limits: { cpu: '1', [name]: quantity } } }],
    }).filter(finding => finding.includes('.limits['));
  const at = (name: string) => `spec.containers[0].resources.limits[${name}]`;
  assert.deepEqual(of('hugepages-2Mi', '4Mi'), []);
  assert.deepEqual(of('hugepages-2Mi', '3Mi'), [
    `${at('hugepages-2Mi')}: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi`,
  ]);
  assert.deepEqual(of('hugepages-2Foo', '4Mi'), [
    `${at('hugepages-2Foo')}: Invalid value: "4Mi": 4Mi is not positive integer multiple of hugepages-2Foo`,
  ]);
  assert.deepEqual(findings({ overhead: { cpu: '1', 'hugepages-2Mi': '3Mi' } }), [
    'spec.overhead.limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi',
  ]);
});

test('a claim is named by a container once, as a whole or by its requests', () => {
  const of = (...claims: { name: string; request?: string }[]) =>
    findings({
      containers: [{ ...container, resources: { claims } }],
      resourceClaims: [{ name: 'a', resourceClaimName: 'a' }],
    });
  const at = 'spec.containers[0].resources.claims';
  const cases: [claims: { name: string; request?: string }[], ...expected: string[]][] = [
    [
      [
        { name: 'a', request: 'x' },
        { name: 'a', request: 'y' },
      ],
    ],
    [[{ name: 'a' }, { name: 'a', request: 'x' }], `${at}[1]: Duplicate value: "a"`],
    [[{ name: 'a', request: 'x' }, { name: 'a' }], `${at}[1]: Duplicate value: "a"`],
    [
      [
        { name: 'a', request: 'x' },
        { name: 'a', request: 'x' },
      ],
      `${at}[1]: Duplicate value: "a/x"`,
    ],
  ];
  for (const [claims, ...expected] of cases) assert.deepEqual(of(...claims), expected);
});

test('search paths of DNS', () => {
  const of = (search: string) => findings({ dnsConfig: { searches: [search] } });
  for (const search of ['.', 'a.example.', '_tcp.example', 'a_b.example']) assert.deepEqual(of(search), [], search);
  for (const search of ['__a', 'a_', '-a', 'A'])
    assert.match(of(search).join(), /searches\[0\]: Invalid value/, search);
});
