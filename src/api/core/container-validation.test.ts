import assert from 'node:assert/strict';
import test from 'node:test';
import { pod as kind } from './pod.ts';
import type { Container, Pod, PodSpec } from './v1.gen.ts';

function findings(container: Partial<Container>, spec: Partial<PodSpec> = {}): string[] {
  const pod: Pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web', namespace: 'default' },
    spec: { containers: [{ name: 'c', image: 'nginx', ...container }], ...spec },
  };
  kind.defaults!(pod);
  return kind.validate!(pod).map(({ field, message }) => `${field}: ${message}`);
}

const at = 'spec.containers[0]';

test('stop signals are those of the operating system', () => {
  const of = (signal: string, name?: string) =>
    findings({ lifecycle: { stopSignal: signal } }, name ? { os: { name } } : {});
  assert.deepEqual(of('SIGTERM'), [
    `${at}.lifecycle.stopSignal: Forbidden: may not be set for containers with empty \`spec.os.name\``,
  ]);
  for (const signal of ['SIGUSR1', 'SIGRTMIN', 'SIGRTMIN+15', 'SIGRTMAX-14', 'SIGRTMAX'])
    assert.deepEqual(of(signal, 'linux'), [], signal);
  for (const signal of ['SIGFOO', 'TERM', 'SIGRTMIN+16', 'SIGRTMAX-15', 'sigterm'])
    assert.match(
      of(signal, 'linux').join(),
      new RegExp(`stopSignal: Unsupported value: "${signal.replace('+', '\\+')}"`),
    );
  assert.deepEqual(of('SIGUSR1', 'windows'), [
    `${at}.lifecycle.stopSignal: Unsupported value: "SIGUSR1": supported values: "SIGKILL", "SIGTERM"`,
  ]);
});

test('variables from files of a volume', () => {
  const from = (fileKeyRef: object, volumes: PodSpec['volumes'] = [{ name: 'v', emptyDir: {} }]) =>
    findings(
      { env: [{ name: 'A', valueFrom: { fileKeyRef: { key: 'K', path: 'f', volumeName: 'v', ...fileKeyRef } } }] },
      {
        volumes,
      },
    );
  const ref = `${at}.env[0].valueFrom.fileKeyRef`;
  const cases: [fileKeyRef: object, ...expected: string[]][] = [
    [{}],
    [{ path: '/f' }],
    [{ path: 'a/../f' }, `${ref}.path: Invalid value: "a/../f": must not contain '..'`],
    [{ volumeName: '' }, `${ref}.volumeName: Required value`, `${ref}.volumeName: Not found: ""`],
    [{ volumeName: 'w' }, `${ref}.volumeName: Not found: "w"`],
  ];
  for (const [fileKeyRef, ...expected] of cases) assert.deepEqual(from(fileKeyRef), expected);
  assert.match(
    from({ volumeName: 'V' }).join(),
    /fileKeyRef.volumeName: Invalid value: "V": a lowercase RFC 1123 label/,
  );
  assert.deepEqual(from({}, [{ name: 'v', secret: { secretName: 's' } }]), [
    `${ref}.volumeName: Invalid value: "v": referenced volume must be of type emptyDir`,
  ]);
});

test('resize policies of init containers, and of pods that never restart', () => {
  const resizePolicy = [{ resourceName: 'cpu', restartPolicy: 'RestartContainer' }];
  const init = (more: Partial<Container>) =>
    findings({}, { initContainers: [{ name: 'i', image: 'x', resizePolicy, ...more }] });
  assert.deepEqual(init({}), [
    `spec.initContainers[0].resizePolicy[0].restartPolicy: Invalid value: "RestartContainer": must not be set to 'RestartContainer' for non-sidecar initContainers`,
  ]);
  assert.deepEqual(init({ restartPolicy: 'Always' }), []);
  assert.deepEqual(findings({ resizePolicy }, { restartPolicy: 'Never' }), [
    `${at}.resizePolicy: Invalid value: "RestartContainer": must be 'NotRequired' when pod \`restartPolicy\` is 'Never'`,
  ]);
});

test('restart rules', () => {
  const of = (rule: object) => findings({ restartPolicy: 'Never', restartPolicyRules: [rule as never] });
  const rule = `${at}.restartPolicyRules[0]`;
  assert.deepEqual(of({ action: 'Restart', exitCodes: { operator: 'In', values: [1] } }), []);
  assert.deepEqual(of({ exitCodes: { values: [1] } }), [
    `${rule}.action: Unsupported value: "": supported values: "Restart", "RestartAllContainers"`,
    `${rule}.exitCodes.operator: Unsupported value: "": supported values: "In", "NotIn"`,
  ]);
  assert.deepEqual(of({ action: 'Restart' }), [`${rule}.exitCodes: Required value: must be specified`]);
});

test('divisors of the downward API, however they are written', () => {
  const of = (resource: string, divisor: string) =>
    findings({ env: [{ name: 'A', valueFrom: { resourceFieldRef: { resource, divisor } } }] });
  for (const [resource, divisor] of [
    ['limits.cpu', '1000m'],
    ['limits.cpu', '0.001'],
    ['requests.memory', '1024Ki'],
    ['requests.hugepages-2Mi', '1024Ki'],
  ] as const)
    assert.deepEqual(of(resource, divisor), [], `${resource} ${divisor}`);
  assert.match(of('limits.cpu', '2').join(), /only divisor's values 1m and 1 are supported with the cpu resource/);
  assert.match(of('limits.memory', '2Mi').join(), /are supported with the memory resource/);
});

test('variables with fields of the pod', () => {
  const field = (fieldPath: string) => findings({ env: [{ name: 'A', valueFrom: { fieldRef: { fieldPath } } }] });
  for (const path of ['spec.nodeName', 'spec.host', 'status.hostIPs', "metadata.labels['a']"])
    assert.deepEqual(field(path), [], path);
  const ref = `${at}.env[0].valueFrom.fieldRef.fieldPath`;
  assert.match(
    field('metadata.labels').join(),
    new RegExp(`^${ref.replace(/[[\].]/g, '\\$&')}: Unsupported value: "metadata.labels"`),
  );
  assert.deepEqual(field('spec.hostNetwork'), [
    `${ref}: Invalid value: "spec.hostNetwork": error converting fieldPath: field label not supported: spec.hostNetwork`,
  ]);
});
