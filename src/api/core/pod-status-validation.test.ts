import assert from 'node:assert/strict';
import test from 'node:test';
import { validatePodStatusUpdate } from './pod-status-validation.ts';
import type { Container, ContainerStatus, Pod, PodSpec, PodStatus } from './v1.gen.ts';

function findings(status: object, before: object = {}, spec: Partial<PodSpec> = {}): string[] {
  const make = (of: object): Pod => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web', namespace: 'default' },
    spec: { containers: [{ name: 'c', image: 'nginx' }], restartPolicy: 'Always', ...spec },
    status: of as PodStatus,
  });
  return validatePodStatusUpdate(make(status), make(before)).map(({ field, message }) => `${field}: ${message}`);
}

test('conditions and generations', () => {
  assert.deepEqual(findings({ observedGeneration: 1, conditions: [{ type: 'Ready', status: 'True' }] }), []);
  assert.match(
    findings({ conditions: [{ type: '', status: 'True' }] }).join(),
    /^status.conditions\[0\].Type: Invalid value: ""/,
  );
  assert.deepEqual(
    findings({ observedGeneration: -1, conditions: [{ type: 'Ready', status: 'True', observedGeneration: -2 }] }),
    [
      'status.conditions[0].observedGeneration: Invalid value: -2: must be a non-negative integer',
      'status.observedGeneration: Invalid value: -1: must be a non-negative integer',
    ],
  );
});

test('a bound pod is nominated to no other node', () => {
  assert.deepEqual(findings({ nominatedNodeName: 'n' }), []);
  const bound = { nodeName: 'm' };
  assert.deepEqual(findings({ nominatedNodeName: 'n' }, { nominatedNodeName: 'n' }, bound), []);
  assert.deepEqual(findings({ nominatedNodeName: 'n' }, {}, bound), [
    'status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node',
  ]);
});

test('which containers come back after their end', () => {
  const container = (more: Partial<Container> = {}): Container => ({ name: 'c', image: 'x', ...more });
  const rule = (action: string, ...values: number[]) => ({ action, exitCodes: { operator: 'In', values } });
  const cases: [comesBack: boolean, exitCode: number, pod: string, container?: Partial<Container>][] = [
    [true, 0, 'Always'],
    [false, 0, 'OnFailure'],
    [true, 1, 'OnFailure'],
    [false, 1, 'Never'],
    [true, 1, 'Never', { restartPolicy: 'Always' }],
    [false, 0, 'Always', { restartPolicy: 'OnFailure' }],
    [false, 1, 'Always', { restartPolicy: 'Never' }],
    [true, 7, 'Never', { restartPolicy: 'Never', restartPolicyRules: [rule('Restart', 7)] }],
    [false, 8, 'Never', { restartPolicy: 'Never', restartPolicyRules: [rule('Restart', 7)] }],
    [true, 8, 'Never', { restartPolicy: 'Never', restartPolicyRules: [rule('RestartAllContainers', 7)] }],
  ];
  for (const [comesBack, exitCode, restartPolicy, more] of cases)
    for (const [list, field] of [
      ['containers', 'containerStatuses'],
      ['initContainers', 'initContainerStatuses'],
    ] as const) {
      const expected = comesBack
        ? []
        : [`status.${field}[0].state: Forbidden: may not be transitioned to non-terminated state`];
      const of = (state: object): object => ({ [field]: [{ name: 'c', state }] });
      const spec = { restartPolicy, containers: [container({ name: 'main' })], [list]: [container(more)] };
      assert.deepEqual(
        findings(of({ running: {} }), of({ terminated: { exitCode } }), spec),
        expected,
        JSON.stringify([field, exitCode, restartPolicy, more]),
      );
    }
  const ephemeral = (state: object): object => ({ ephemeralContainerStatuses: [{ name: 'e', state }] });
  assert.deepEqual(findings(ephemeral({ running: {} }), ephemeral({ terminated: { exitCode: 1 } })), [
    'status.ephemeralContainerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state',
  ]);
});

test('claims that were made for the pod', () => {
  const spec = { resourceClaims: [{ name: 'a', resourceClaimTemplateName: 't' }] };
  const at = 'status.resourceClaimStatuses';
  assert.deepEqual(findings({ resourceClaimStatuses: [{ name: 'a', resourceClaimName: 'a-1' }] }, {}, spec), []);
  const found = findings(
    { resourceClaimStatuses: [{ name: 'a' }, { name: 'a', resourceClaimName: 'A' }, { name: 'b' }] },
    {},
    spec,
  );
  assert.deepEqual(
    found.map(text => text.slice(0, 70)),
    [
      `${at}[1].name: Duplicate value: "a"`,
      `${at}[1].resourceClaimName: Invalid value: "A": a lowercase RFC 1123 subdomain`.slice(0, 70),
      `${at}[2].name: Invalid value: "b": must match the name of an entry in \`spec.resourceClaims\``.slice(0, 70),
    ],
  );
});

test('claims for extended resources', () => {
  const resources = { requests: { 'example.com/gpu': '1' } };
  const of = (status: object): string[] =>
    findings({ extendedResourceClaimStatus: status }, {}, { containers: [{ name: 'c', image: 'x', resources }] });
  const mapping = { containerName: 'c', resourceName: 'example.com/gpu', requestName: 'r' };
  const at = 'status.extendedResourceClaimStatus';
  const cases: [status: object, ...expected: string[]][] = [
    [{ resourceClaimName: 'x', requestMappings: [mapping] }],
    [
      { requestMappings: [] },
      `${at}.requestMappings: Required value: at least one request mapping is required`,
      `${at}.resourceClaimName: Required value`,
    ],
    [
      { resourceClaimName: 'x', requestMappings: [{ ...mapping, containerName: 'd' }] },
      `${at}.requestMappings[0].containerName: Invalid value: "d": must match the name of an entry in spec.initContainers.name or spec.containers.name`,
    ],
    [
      { resourceClaimName: 'x', requestMappings: [{ ...mapping, resourceName: 'a/b' }] },
      `${at}.requestMappings[0].resourceName: Invalid value: "a/b": must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests`,
    ],
    [
      { resourceClaimName: 'x', requestMappings: [mapping, mapping] },
      `${at}.requestMappings[1].containerName: Duplicate value: "c"`,
      `${at}.requestMappings[1].resourceName: Duplicate value: "example.com/gpu"`,
      `${at}.requestMappings[1].requestName: Duplicate value: "r"`,
    ],
  ];
  for (const [status, ...expected] of cases) assert.deepEqual(of(status), expected);
});

test('users and devices of containers', () => {
  const one = (more: Partial<ContainerStatus>): object => ({ containerStatuses: [{ name: 'c', state: {}, ...more }] });
  const user = { linux: { uid: -1, gid: 0, supplementalGroups: [0, 2 ** 31] } };
  const range = 'must be between 0 and 2147483647, inclusive';
  assert.deepEqual(findings(one({ user })), [
    `status.containerStatuses[0].user.linux.uid: Invalid value: -1: ${range}`,
    `status.containerStatuses[0].user.linux.supplementalGroups[1]: Invalid value: 2147483648: ${range}`,
  ]);
  assert.deepEqual(findings(one({ user }), {}, { os: { name: 'windows' } }), [
    'status.containerStatuses[0].user.linux: Forbidden: cannot be set for a windows pod',
  ]);

  const containers = [
    {
      name: 'c',
      image: 'x',
      resources: { requests: { 'example.com/gpu': '1' }, claims: [{ name: 'a', request: 'r' }, { name: 'b' }] },
    },
  ];
  const devices = (...statuses: object[]): string[] =>
    findings(one({ allocatedResourcesStatus: statuses as never }), {}, { containers });
  const at = 'status.containerStatuses[0].allocatedResourcesStatus[0]';
  const device = { resourceID: 'd', health: 'Healthy' };
  assert.deepEqual(
    devices(...['example.com/gpu', 'claim:a/r', 'claim:b'].map(name => ({ name, resources: [device] }))),
    [],
  );
  assert.deepEqual(devices({ name: 'example.com/fpga' }), [
    `${at}.name: Invalid value: "example.com/fpga": must match one of the container's resource requests`,
  ]);
  assert.match(devices({ name: 'claim:a' }).join(), /must match one of the container's resource claims in a format/);
  assert.deepEqual(
    devices({
      name: 'example.com/gpu',
      resources: [
        { ...device, message: 'x'.repeat(1025) },
        { resourceID: 'd', health: 'Ill', message: '' },
      ],
    }),
    [
      `${at}.resources[0].message: Too long: may not be more than 1024 bytes`,
      `${at}.resources[1].resourceID: Duplicate value: "d"`,
      `${at}.resources[1].health: Unsupported value: "Ill": supported values: "Healthy", "Unhealthy", "Unknown"`,
      `${at}.resources[1].message: Required value: must be non-empty if specified`,
    ],
  );
  assert.deepEqual(
    findings({
      ephemeralContainerStatuses: [{ name: 'e', state: {}, allocatedResourcesStatus: [{ name: 'example.com/gpu' }] }],
    }),
    [
      'status.ephemeralContainerStatuses[0].allocatedResourcesStatus: Forbidden: must not be specified in container status',
    ],
  );
});
