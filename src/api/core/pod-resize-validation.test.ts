import assert from 'node:assert/strict';
import test from 'node:test';
import { pod as kind } from './pod.ts';
import { validatePodResize } from './pod-resize-validation.ts';
import type { Container, Pod, PodSpec } from './v1.gen.ts';

const requests = (cpu: string): Pick<Container, 'resources'> => ({ resources: { requests: { cpu } } });
const container = (name: string, more: Partial<Container> = {}): Container => ({
  name,
  image: 'nginx',
  ...requests('100m'),
  ...more,
});

function make(spec: Partial<PodSpec>): Pod {
  const pod: Pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web', namespace: 'default' },
    spec: { containers: [container('c')], ...spec },
  };
  kind.defaults!(pod);
  kind.prepareCreate!(pod);
  return pod;
}

const findings = (now: Partial<PodSpec>, was: Partial<PodSpec> = {}, status: object = {}): string[] => {
  const old = make(was);
  Object.assign(old.status!, status);
  return validatePodResize({ ...make(now), status: old.status! }, old).map(
    ({ field, message }) => `${field}: ${message}`,
  );
};

test('containers keep their places', () => {
  const cases: [now: Partial<PodSpec>, was: Partial<PodSpec>, ...expected: string[]][] = [
    [{ containers: [container('c', requests('1'))] }, {}],
    [
      { containers: [container('c'), container('d')] },
      {},
      'spec.containers: Forbidden: containers may not be added or removed on resize',
    ],
    [
      { containers: [container('d')], initContainers: [container('i')] },
      {},
      'spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize',
      'spec.initContainers: Forbidden: initContainers may not be added or removed on resize',
    ],
    [{ hostname: 'a' }, {}, 'spec: Forbidden: only cpu and memory resources are mutable'],
  ];
  for (const [now, was, ...expected] of cases) assert.deepEqual(findings(now, was), expected);
});

test('init containers too', () => {
  const of = (now: Partial<Container>, was: Partial<Container> = {}): string[] =>
    findings({ initContainers: [container('i', now)] }, { initContainers: [container('i', was)] });
  assert.deepEqual(of(requests('1')), []);
  assert.deepEqual(of({ ...requests('1'), restartPolicy: 'Always' }, { restartPolicy: 'Always' }), []);
  assert.deepEqual(of({ image: 'x' }), [
    'spec.initContainers[0]: Forbidden: only cpu and memory resources for init or sidecar containers are mutable',
  ]);
  assert.deepEqual(of({ resources: {} }), [
    'spec.initContainers[0].resources.requests: Forbidden: resource requests cannot be removed',
  ]);
  const resizePolicy = [{ resourceName: 'cpu', restartPolicy: 'RestartContainer' }];
  assert.deepEqual(of({ ...requests('1'), resizePolicy }, { resizePolicy }), [
    'spec.initContainers[0]: Forbidden: non-sidecar init containers with a resize policy of RestartContainer cannot be resized',
  ]);
});

test('resources of the pod', () => {
  const of = (now: PodSpec['resources'], was?: PodSpec['resources']): string[] =>
    findings(now ? { resources: now } : {}, was ? { resources: was } : {});
  const cpu = (text: string): PodSpec['resources'] => ({ requests: { cpu: text } });
  assert.deepEqual(of(cpu('2'), cpu('1')), []);
  assert.deepEqual(of(cpu('2')), []);
  assert.deepEqual(of(undefined, cpu('1')), ['spec.resources: Forbidden: pod-level resources cannot be removed']);
  assert.deepEqual(of({ requests: {} }, cpu('1')), [
    'spec.resources.requests: Forbidden: pod-level resource requests cannot be removed',
  ]);
  const pages = (count: string): PodSpec['resources'] => ({
    requests: { cpu: '1', 'hugepages-2Mi': count },
    limits: { 'hugepages-2Mi': count },
  });
  assert.deepEqual(of(pages('4Mi'), pages('2Mi')), [
    'spec: Forbidden: only cpu and memory resources are mutable at pod-level',
  ]);
});

test('a node that tells no resources of running containers cannot resize', () => {
  const of = (status: object): string[] =>
    findings({ containers: [container('c', requests('1'))] }, {}, { containerStatuses: [{ name: 'c', ...status }] });
  assert.deepEqual(of({ state: { running: {} }, resources: {} }), []);
  assert.deepEqual(of({ state: { waiting: {} } }), []);
  assert.deepEqual(of({ state: { running: {} } }), ['spec: Forbidden: Pod running on node without support for resize']);
});
