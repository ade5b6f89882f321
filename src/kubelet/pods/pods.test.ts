import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod, PodStatus, Service } from '../../api/core/v1.gen.ts';
import type { ContainerState } from '../runtime.ts';
import { appArmorMissing, appArmorProfile, appArmorRefusal } from './app-armor.ts';
import { expand, serviceVariables } from './environment.ts';
import { hostsFile, resolverFile } from './files.ts';
import { admissionRefusal } from './refusals.ts';
import {
  hugePageLimits,
  oomScoreAdj,
  podCgroup,
  podLimits,
  podRequest,
  qosOf,
  quotaOf,
  sharesOf,
} from './resources.ts';
import { podStatus, restarts, type StatusInput } from './status.ts';
import { statusPatch } from './status-writer.ts';

const pod = (spec: object = {}, status?: PodStatus): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'p', namespace: 'n', uid: 'u', generation: 2 },
  spec: { restartPolicy: 'Always', containers: [{ name: 'c', image: 'i' }], ...spec },
  ...(status ? { status } : {}),
});
const state = (extra: Partial<ContainerState> = {}): ContainerState => ({
  id: 'id',
  sandboxId: 's',
  podUid: 'u',
  name: 'c',
  attempt: 0,
  imageRef: 'i',
  imageId: 'sha256:1',
  state: 'running',
  createdMs: 1000,
  startedMs: 2000,
  finishedMs: undefined,
  exitCode: undefined,
  signal: undefined,
  oomKilled: false,
  pid: 1,
  logPath: '',
  labels: {},
  ...extra,
});
const exited = (exitCode: number, extra: Partial<ContainerState> = {}) =>
  state({ state: 'exited', exitCode, finishedMs: 3000, ...extra });
const input = (of: Pod, containers: ContainerState[], extra: Partial<StatusInput> = {}): StatusInput => ({
  pod: of,
  containers,
  isSandboxReady: true,
  podIps: ['10.0.0.1'],
  hostIps: ['10.1.0.1'],
  waiting: new Map(),
  isReady: () => true,
  isStarted: () => true,
  terminationMessage: () => undefined,
  isTerminating: false,
  nowMs: 5000,
  ...extra,
});

test('expansion of $(VAR)', () => {
  const values: Record<string, string> = { A: '1', B: 'two' };
  for (const [text, expected] of Object.entries({
    '$(A)': '1',
    '$(A)-$(B)': '1-two',
    '$$(A)': '$(A)',
    '$(X)': '$(X)',
    $A: '$A',
    a$: 'a$',
    '$(A': '$(A',
    '$$$(A)': '$1',
  }))
    assert.equal(
      expand(text, name => values[name]),
      expected,
      text,
    );
});

test('service variables: own namespace, kubernetes always, headless never', () => {
  const service = (name: string, namespace: string, clusterIP: string) =>
    ({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace },
      spec: { clusterIP, ports: [{ port: 53, protocol: 'UDP' }] },
    }) as Service;
  const all = [
    service('a-b', 'n', '1.1.1.1'),
    service('kubernetes', 'default', '2.2.2.2'),
    service('other', 'm', '3.3.3.3'),
    service('none', 'n', 'None'),
  ];
  assert.deepEqual(
    [...serviceVariables(all, 'n', true).keys()].filter(key => key.endsWith('HOST')),
    ['A_B_SERVICE_HOST', 'KUBERNETES_SERVICE_HOST'],
  );
  assert.deepEqual(
    [...serviceVariables(all, 'n', false).keys()].filter(key => key.endsWith('HOST')),
    ['KUBERNETES_SERVICE_HOST'],
  );
  assert.equal(serviceVariables(all, 'n', true).get('A_B_PORT_53_UDP'), 'udp://1.1.1.1:53');
});

test('quality of service and what follows from it', () => {
  const of = (resources: object) => pod({ containers: [{ name: 'c', resources }] });
  const guaranteed = of({ limits: { cpu: '500m', memory: '1Gi' }, requests: { cpu: '500m', memory: '1Gi' } });
  const burstable = of({ requests: { memory: '1Gi' } });
  assert.deepEqual([qosOf(guaranteed), qosOf(burstable), qosOf(pod())], ['Guaranteed', 'Burstable', 'BestEffort']);
  assert.deepEqual(
    [podCgroup('/r', guaranteed), podCgroup('/r', burstable), podCgroup('/r', pod())],
    ['/r/kubepods/podu', '/r/kubepods/burstable/podu', '/r/kubepods/besteffort/podu'],
  );
  const memory = 4 * 2 ** 30;
  assert.deepEqual(
    [guaranteed, burstable, pod()].map(one => oomScoreAdj(one, one.spec.containers[0]!, memory)),
    [-997, 750, 1000],
  );
  assert.deepEqual(podLimits(guaranteed), {
    cpuShares: 512,
    cpuQuotaMicros: 50_000,
    cpuPeriodMicros: 100_000,
    memoryBytesMax: 2 ** 30,
  });
  assert.deepEqual(podLimits(pod()), { cpuShares: 2 });
  assert.deepEqual([sharesOf(0), sharesOf(1000), quotaOf(1)], [2, 1024, 1000]);
  const steps = pod({
    initContainers: [
      { name: 'a', resources: { requests: { cpu: '3' } } },
      { name: 'b', restartPolicy: 'Always', resources: { requests: { cpu: '1' } } },
    ],
    containers: [{ name: 'c', resources: { requests: { cpu: '1' } } }],
  });
  assert.equal(podRequest(steps, 'cpu'), 3000);
});

test('restart decisions', () => {
  const [container] = pod().spec.containers;
  const rule = {
    ...container!,
    restartPolicy: 'Never',
    restartPolicyRules: [{ action: 'Restart', exitCodes: { operator: 'In', values: [42] } }],
  };
  assert.deepEqual(
    [
      restarts(pod(), container!, 0, false),
      restarts(pod({ restartPolicy: 'OnFailure' }), container!, 0, false),
      restarts(pod({ restartPolicy: 'Never' }), container!, 1, false),
      restarts(pod(), container!, 0, true),
      restarts(pod(), rule, 42, false),
      restarts(pod(), rule, 1, false),
    ],
    [true, false, false, false, true, false],
  );
  const not = {
    ...rule,
    restartPolicyRules: [{ action: 'Restart', exitCodes: { operator: 'NotIn', values: [0, 1] } }],
  };
  const always = { ...rule, restartPolicy: 'Always' };
  assert.deepEqual(
    [
      [0, 1, 2, 255].map(code => restarts(pod(), not, code, false)),
      // A rule that fits decides, else the container's own policy, whatever the pod's.
      [0, 42].map(code => restarts(pod({ restartPolicy: 'Never' }), always, code, false)),
      [0, 42, 1].map(code =>
        restarts(pod({ restartPolicy: 'Never' }), { ...rule, restartPolicy: 'OnFailure' }, code, true),
      ),
    ],
    [
      [false, false, true, true],
      [true, true],
      [false, true, true],
    ],
  );
});

test('a rule that restarts all containers: condition, phase and what is told of those removed', () => {
  const spec = {
    restartPolicy: 'Never',
    containers: [
      { name: 'a', image: 'i', restartPolicy: 'Never', restartPolicyRules: [all(42)] },
      { name: 'b', image: 'i' },
    ],
  };
  const told = (of: Pod, containers: ContainerState[]) => {
    const status = podStatus(input(of, containers));
    const found = status.conditions!.find(({ type }) => type === 'AllContainersRestarting');
    return { status, facts: [status.phase, found?.status, found?.reason] };
  };
  const asking = [exited(42, { name: 'a' }), state({ name: 'b', id: 'b' })];
  const first = told(pod(spec), asking);
  assert.deepEqual(first.facts, ['Running', 'True', 'RestartAllContainersStarted']);
  const removed = told(pod(spec, first.status), []);
  assert.deepEqual(removed.facts, ['Pending', 'False', undefined]);
  assert.deepEqual(
    removed.status.containerStatuses!.map(one => [
      one.restartCount,
      one.state!.waiting?.reason,
      one.lastState!.terminated?.exitCode,
    ]),
    [
      [1, 'RestartingAllContainers', 137],
      [1, 'RestartingAllContainers', 137],
    ],
  );
  // One that does not ask keeps the pod as it was.
  assert.deepEqual(told(pod(spec), [exited(1, { name: 'a' }), asking[1]!]).facts, ['Running', 'False', undefined]);
  assert.deepEqual(told(pod(spec), [exited(1, { name: 'a' }), exited(0, { name: 'b' })]).facts, [
    'Failed',
    'False',
    'PodFailed',
  ]);
});

const all = (code: number) => ({ action: 'RestartAllContainers', exitCodes: { operator: 'In', values: [code] } });

test('phases', () => {
  const phase = (of: Pod, containers: ContainerState[], extra: Partial<StatusInput> = {}) =>
    podStatus(input(of, containers, extra)).phase;
  const never = pod({ restartPolicy: 'Never' });
  assert.equal(phase(pod(), []), 'Pending');
  assert.equal(phase(pod(), [state()]), 'Running');
  assert.equal(phase(pod(), [exited(0)]), 'Running');
  assert.equal(phase(never, [exited(0)]), 'Succeeded');
  assert.equal(phase(never, [exited(1)]), 'Failed');
  assert.equal(phase(pod(), [state()], { ended: { reason: 'Evicted', message: 'm' } }), 'Failed');
  const init = pod({ restartPolicy: 'Never', initContainers: [{ name: 'i' }] });
  assert.equal(phase(init, [exited(1, { name: 'i' })]), 'Failed');
  assert.equal(phase(init, [exited(0, { name: 'i' }), state()]), 'Running');
  assert.equal(phase(pod({}, { phase: 'Succeeded' }), []), 'Succeeded');
});

test('conditions and container statuses', () => {
  const unready = podStatus(input(pod(), [state()], { isReady: () => false }));
  const ready = unready.conditions!.find(one => one.type === 'Ready')!;
  assert.deepEqual(
    [ready.status, ready.reason, ready.message, ready.observedGeneration],
    ['False', 'ContainersNotReady', 'containers with unready status: [c]', 2],
  );
  const init = podStatus(input(pod({ initContainers: [{ name: 'i' }] }), [state({ name: 'i' })]));
  assert.equal(
    init.conditions!.find(one => one.type === 'Initialized')!.message,
    'containers with incomplete status: [i]',
  );
  assert.deepEqual(init.containerStatuses![0]!.state, { waiting: { reason: 'PodInitializing' } });
  const gated = podStatus(input(pod({ readinessGates: [{ conditionType: 'x/y' }] }), [state()]));
  assert.deepEqual(
    gated.conditions!.filter(one => one.status === 'False').map(one => [one.type, one.reason]),
    [['Ready', 'ReadinessGatesNotReady']],
  );
  const crashed = podStatus(
    input(pod(), [exited(1, { attempt: 0 }), exited(137, { attempt: 1, oomKilled: true, id: 'two' })], {
      waiting: new Map([['c', { reason: 'CrashLoopBackOff', message: 'm' }]]),
    }),
  ).containerStatuses![0]!;
  assert.deepEqual(
    [crashed.state, crashed.lastState?.terminated?.reason, crashed.restartCount],
    [{ waiting: { reason: 'CrashLoopBackOff', message: 'm' } }, 'OOMKilled', 1],
  );
});

test('a status patch holds only what changed', () => {
  const first = podStatus(input(pod(), [state()]));
  assert.equal(statusPatch(first, structuredClone(first)), undefined);
  const second = podStatus(input(pod({}, first), [state()], { isReady: () => false, podIps: ['10.0.0.2'] }));
  const patch = statusPatch(second, first) as { conditions: { type: string }[]; podIPs: object[] };
  assert.deepEqual(Object.keys(patch).sort(), ['conditions', 'containerStatuses', 'podIP', 'podIPs']);
  assert.deepEqual(
    patch.conditions.map(one => one.type),
    ['Ready', 'ContainersReady'],
  );
  assert.deepEqual(patch.podIPs, [{ ip: '10.0.0.2' }, { $patch: 'replace' }]);
  // A condition that another controller wrote is left alone.
  const foreign = { ...first, conditions: [...first.conditions!, { type: 'x/y', status: 'True' }] };
  assert.equal(statusPatch(first, foreign), undefined);
});

test('hosts and resolver files', () => {
  const options = {
    clusterDns: ['10.96.0.10'],
    clusterDomain: 'c.l',
    nodeResolver: 'nameserver 9.9.9.9\nsearch home\n',
  };
  assert.equal(
    resolverFile(pod(), options).text,
    'search n.svc.c.l svc.c.l c.l home\nnameserver 10.96.0.10\noptions ndots:5\n',
  );
  assert.equal(resolverFile(pod({ dnsPolicy: 'Default' }), options).text, 'search home\nnameserver 9.9.9.9\n');
  assert.equal(
    resolverFile(
      pod({ dnsPolicy: 'None', dnsConfig: { nameservers: ['1.1.1.1'], options: [{ name: 'ndots', value: '2' }] } }),
      options,
    ).text,
    'nameserver 1.1.1.1\noptions ndots:2\n',
  );
  const text = hostsFile(pod({ hostAliases: [{ ip: '1.2.3.4', hostnames: ['a', 'b'] }] }), {
    podIps: ['10.0.0.1'],
    hostname: 'h',
    domain: '',
  });
  assert.ok(text.includes('10.0.0.1\th\n') && text.endsWith('# Entries added by HostAliases.\n1.2.3.4\ta\tb\n'));
});

test('what is not supported is refused', () => {
  const node = { cpuMilli: 2000, memoryBytes: 1e9, ephemeralBytes: 1e9, hugePages: {}, podsMax: 2 };
  const wants = (cpu: string) => pod({ containers: [{ name: 'c', resources: { requests: { cpu } } }] });
  assert.deepEqual(admissionRefusal(wants('1500m'), [wants('1')], node), {
    reason: 'OutOfcpu',
    message: "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000",
  });
  assert.equal(admissionRefusal(pod(), [pod(), pod()], node)?.reason, 'OutOfpods');
  const strict = pod({ securityContext: { supplementalGroupsPolicy: 'Strict' } });
  assert.deepEqual(admissionRefusal(strict, [], node), {
    reason: 'SupplementalGroupsPolicyNotSupported',
    message: 'SupplementalGroupsPolicy=Strict is not supported in this node',
  });
  assert.equal(admissionRefusal(strict, [], { ...node, hasStrictGroups: true }), undefined);
  assert.equal(
    admissionRefusal(pod({ securityContext: { sysctls: [{ name: 'kernel.x', value: '1' }] } }), [], node)?.reason,
    'SysctlForbidden',
  );
  assert.equal(admissionRefusal(pod({ hostUsers: false }), [], node), undefined);
  assert.equal(admissionRefusal(pod(), [], node), undefined);
});

test('huge pages: limits of pod and container, and a node that has too few', () => {
  const sizes = [
    { size: '1Gi', kernelSize: '1GB', pageBytes: 2 ** 30, count: 0 },
    { size: '2Mi', kernelSize: '2MB', pageBytes: 2 ** 21, count: 8 },
  ];
  const own = { name: 'own', resources: { limits: { 'hugepages-2Mi': '2Mi' }, requests: { 'hugepages-2Mi': '2Mi' } } };
  const none = { name: 'none' };
  const each = pod({ containers: [own, none], overhead: { 'hugepages-2Mi': '4Mi' } });
  const limit = (of: Pod, container?: typeof none) =>
    hugePageLimits(sizes, { pod: of, ...(container ? { container } : {}) }).hugePageBytesMax;
  assert.deepEqual(limit(each), { '1GB': 0, '2MB': 6 << 20 });
  assert.deepEqual(limit(each, own), { '1GB': 0, '2MB': 2 << 20 });
  assert.deepEqual(limit(each, none), { '1GB': 0, '2MB': 0 });
  const list = { 'hugepages-2Mi': '8Mi' };
  const whole = pod({ containers: [own, none], resources: { limits: list, requests: list } });
  assert.deepEqual(limit(whole), { '1GB': 0, '2MB': 8 << 20 });
  assert.deepEqual(limit(whole, own), { '1GB': 0, '2MB': 2 << 20 });
  assert.deepEqual(limit(whole, none), { '1GB': 0, '2MB': 8 << 20 });
  assert.deepEqual(hugePageLimits([], { pod: whole }), {});

  const node = { cpuMilli: 1, memoryBytes: 1, ephemeralBytes: 1, hugePages: { 'hugepages-2Mi': 12 << 20 }, podsMax: 9 };
  assert.equal(admissionRefusal(whole, [], node), undefined);
  assert.equal(
    admissionRefusal(whole, [each], node)?.message,
    "Node didn't have enough resource: hugepages-2Mi, requested: 8388608, used: 6291456, capacity: 12582912",
  );
  const alone = pod({ overhead: { 'hugepages-1Gi': '1Gi' } });
  assert.equal(admissionRefusal(alone, [], node)?.reason, 'OutOfhugepages-1Gi');
});

test('without AppArmor in the kernel only who asks for it is refused', { skip: !appArmorMissing() }, async () => {
  const asks = pod({ securityContext: { appArmorProfile: { type: 'RuntimeDefault' } } });
  assert.match(
    JSON.stringify(appArmorRefusal(asks)),
    /^{"reason":"AppArmor","message":"Cannot enforce AppArmor: AppArmor is not/,
  );
  const inner = (type: string) =>
    pod({ containers: [{ name: 'c', securityContext: { appArmorProfile: { type }, privileged: true } }] });
  assert.equal(appArmorRefusal(inner('Localhost'))?.reason, 'AppArmor');
  assert.equal(appArmorRefusal(inner('Unconfined')), undefined);
  assert.equal(appArmorRefusal(pod()), undefined);
  await assert.rejects(
    appArmorProfile(asks, { name: 'c' }),
    /^Error: Cannot enforce AppArmor: AppArmor is not enabled/,
  );
  assert.equal(await appArmorProfile(asks, { name: 'c', securityContext: { privileged: true } }), undefined);
  assert.equal(await appArmorProfile(pod(), { name: 'c' }), undefined);
});
