import assert from 'node:assert/strict';
import test from 'node:test';
import type { FieldError } from '../../base/errors.ts';
import { pod as kind } from './pod.ts';
import { pullPolicyOf } from './pod-defaults.ts';
import { validatePodResize } from './pod-resize-validation.ts';
import type { Pod } from './v1.gen.ts';

const NOW = Date.parse('2026-01-01T12:00:00Z');

/** A valid, defaulted pod; `change` works on its spec before defaulting. */
function make(change: (pod: Pod) => void = () => {}): Pod {
  const pod: Pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web', namespace: 'default', creationTimestamp: '2025-12-30T09:00:00Z' },
    spec: { containers: [{ name: 'c', image: 'nginx' }] },
  };
  change(pod);
  kind.defaults!(pod);
  return pod;
}

const texts = (errors: readonly FieldError[]): string[] => errors.map(error => `${error.field}: ${error.message}`);
const findings = (change: (pod: Pod) => void): string[] => texts(kind.validate!(make(change)));

test('defaults are what kubectl get -o yaml shows upstream', () => {
  const pod = make(object => {
    object.spec!.containers[0]!.livenessProbe = { httpGet: { port: 80 } };
    object.spec!.containers[0]!.resources = { limits: { cpu: '0.5', memory: '1024Mi' } };
    object.spec!.containers[0]!.env = [{ name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } }];
    object.spec!.volumes = [
      { name: 'a' },
      { name: 'b', secret: { secretName: 's' } },
      { name: 'c', hostPath: { path: '/x' } },
    ];
    object.spec!.serviceAccountName = 'me';
  });
  assert.deepEqual(pod.spec, {
    containers: [
      {
        name: 'c',
        image: 'nginx',
        env: [{ name: 'IP', valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: 'status.podIP' } } }],
        livenessProbe: {
          httpGet: { port: 80, path: '/', scheme: 'HTTP' },
          timeoutSeconds: 1,
          periodSeconds: 10,
          successThreshold: 1,
          failureThreshold: 3,
        },
        resources: { limits: { cpu: '500m', memory: '1Gi' }, requests: { cpu: '500m', memory: '1Gi' } },
        imagePullPolicy: 'Always',
        terminationMessagePath: '/dev/termination-log',
        terminationMessagePolicy: 'File',
      },
    ],
    volumes: [
      { name: 'a', emptyDir: {} },
      { name: 'b', secret: { secretName: 's', defaultMode: 420 } },
      { name: 'c', hostPath: { path: '/x', type: '' } },
    ],
    restartPolicy: 'Always',
    dnsPolicy: 'ClusterFirst',
    terminationGracePeriodSeconds: 30,
    schedulerName: 'default-scheduler',
    securityContext: {},
    serviceAccountName: 'me',
    serviceAccount: 'me',
    enableServiceLinks: true,
  });
  kind.prepareCreate!(pod);
  assert.deepEqual(pod.status, { phase: 'Pending', qosClass: 'Guaranteed' });
  assert.deepEqual(kind.validate!(pod), []);
});

test('pull policy by tag', () => {
  const cases: Record<string, string> = {
    nginx: 'Always',
    'nginx:latest': 'Always',
    'nginx:1.2': 'IfNotPresent',
    'localhost:5000/nginx': 'Always',
    'localhost:5000/nginx:1': 'IfNotPresent',
    'nginx@sha256:00': 'IfNotPresent',
    'nginx:latest@sha256:00': 'Always',
  };
  for (const [image, policy] of Object.entries(cases)) assert.equal(pullPolicyOf(image), policy, image);
});

test('validation: paths and messages', () => {
  const container = (pod: Pod) => pod.spec!.containers[0]!;
  const cases: [change: (pod: Pod) => void, ...expected: string[]][] = [
    [() => {}],
    [pod => void (pod.spec!.containers = []), 'spec.containers: Required value'],
    [pod => void (container(pod).image = ''), 'spec.containers[0].image: Required value'],
    [
      pod => void (container(pod).image = ' nginx'),
      'spec.containers[0].image: Invalid value: " nginx": must not have leading or trailing whitespace',
    ],
    [pod => void pod.spec!.containers.push({ name: 'c', image: 'x' }), 'spec.containers[1].name: Duplicate value: "c"'],
    [
      pod => void (container(pod).ports = [{ containerPort: 70_000 }]),
      'spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive',
    ],
    [
      pod => void (container(pod).ports = [{ containerPort: 80, protocol: 'ICMP' }]),
      'spec.containers[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"',
    ],
    [
      pod =>
        void (container(pod).ports = [
          { containerPort: 80, hostPort: 80 },
          { containerPort: 81, hostPort: 80 },
        ]),
      'spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//80"',
    ],
    [
      pod => void (container(pod).env = [{ name: 'A=B', value: '1' }]),
      'spec.containers[0].env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of printable ASCII characters other than \'=\'',
    ],
    [
      pod =>
        void (container(pod).env = [{ name: 'A', value: '1', valueFrom: { secretKeyRef: { name: 's', key: 'k' } } }]),
      'spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty',
    ],
    [
      pod => void (container(pod).env = [{ name: 'A', valueFrom: { fieldRef: { fieldPath: 'spec.nope' } } }]),
      'spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.nope": error converting fieldPath: field label not supported: spec.nope',
    ],
    [
      pod => void (container(pod).volumeMounts = [{ name: 'v', mountPath: '/v' }]),
      'spec.containers[0].volumeMounts[0].name: Not found: "v"',
    ],
    [
      pod => void (container(pod).resources = { limits: { cpu: '1' }, requests: { cpu: '2' } }),
      'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
    ],
    [
      pod => void (container(pod).resources = { limits: { gpu: '1' } }),
      'spec.containers[0].resources.limits[gpu]: Invalid value: "gpu": must be a standard resource type or fully qualified',
      'spec.containers[0].resources.limits[gpu]: Invalid value: "gpu": must be a standard resource for containers',
      'spec.containers[0].resources.requests[gpu]: Invalid value: "gpu": must be a standard resource type or fully qualified',
      'spec.containers[0].resources.requests[gpu]: Invalid value: "gpu": must be a standard resource for containers',
    ],
    [
      pod => void (container(pod).livenessProbe = {}),
      'spec.containers[0].livenessProbe: Required value: must specify a handler type',
    ],
    [
      pod => void (container(pod).livenessProbe = { exec: { command: ['x'] }, successThreshold: 2 }),
      'spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1',
    ],
    [
      pod => void (pod.spec!.initContainers = [{ name: 'i', image: 'x', livenessProbe: { exec: { command: ['x'] } } }]),
      'spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always',
    ],
    [
      pod => void (pod.spec!.initContainers = [{ name: 'c', image: 'x' }]),
      'spec.initContainers[0].name: Duplicate value: "c"',
    ],
    [
      pod => void (pod.spec!.restartPolicy = 'Sometimes'),
      'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"',
    ],
    [
      pod => void (pod.spec!.volumes = [{ name: 'v', emptyDir: {}, hostPath: { path: '/x' } }]),
      'spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type',
    ],
    [
      pod => void (pod.spec!.volumes = [{ name: 'v', hostPath: { path: '/a/../b' } }]),
      'spec.volumes[0].hostPath.path: Invalid value: "/a/../b": must not contain \'..\'',
    ],
    [
      pod => void (pod.spec!.volumes = [{ name: 'v', configMap: { name: 'c', items: [{ key: 'k', path: '/abs' }] } }]),
      'spec.volumes[0].configMap.items[0].path: Invalid value: "/abs": must be a relative path',
    ],
    [
      pod => void (pod.spec!.tolerations = [{ operator: 'Equal', value: 'x' }]),
      'spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"',
    ],
    [
      pod => void (pod.spec!.tolerations = [{ key: 'x', operator: 'Gt', value: '5' }]),
      'spec.tolerations[0].operator: Unsupported value: "Gt": supported values: "Equal", "Exists"',
    ],
    [
      pod => {
        Object.assign(pod.spec!, {
          hostUsers: false,
          volumes: [{ name: 'v', persistentVolumeClaim: { claimName: 'c' } }],
        });
        container(pod).volumeDevices = [{ name: 'v', devicePath: '/dev/x' }];
      },
      'spec.containers[0].volumeDevices: Forbidden: when `hostUsers` is false',
    ],
    [
      pod => void (pod.spec!.dnsPolicy = 'None'),
      'spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None',
    ],
    [pod => void (pod.spec!.hostNetwork = true)],
    [
      pod => void (pod.spec!.securityContext = { runAsUser: -1 }),
      'spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive',
    ],
    [
      pod => void (pod.spec!.activeDeadlineSeconds = 0),
      'spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive',
    ],
    [
      pod =>
        void (pod.spec!.affinity = {
          podAntiAffinity: {
            requiredDuringSchedulingIgnoredDuringExecution: [{ labelSelector: {}, topologyKey: 'zone' }],
          },
        }),
    ],
    [
      pod =>
        void (pod.spec!.affinity = {
          nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [] } },
        }),
      'spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term',
    ],
    [
      pod =>
        void (pod.spec!.topologySpreadConstraints = [
          { maxSkew: 0, topologyKey: 'zone', whenUnsatisfiable: 'DoNotSchedule' },
        ]),
      'spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero',
    ],
    [
      pod => void (pod.spec!.ephemeralContainers = [{ name: 'debug', image: 'x' }]),
      'spec.ephemeralContainers: Forbidden: cannot be set on create',
    ],
  ];
  for (const [change, ...expected] of cases) assert.deepEqual(findings(change), expected);
});

test('updates: images, deadline, tolerations, gates and nothing else', () => {
  const old = make(pod => {
    pod.spec!.tolerations = [{ key: 'a', operator: 'Exists' }];
    pod.spec!.activeDeadlineSeconds = 100;
  });
  const update = (change: (pod: Pod) => void): string[] => {
    const pod = structuredClone(old);
    change(pod);
    return texts(kind.validateUpdate!(pod, old)).map(text => text.split('\n')[0]!);
  };
  assert.deepEqual(
    update(() => {}),
    [],
  );
  assert.deepEqual(
    update(pod => void (pod.spec!.containers[0]!.image = 'nginx:2')),
    [],
  );
  assert.deepEqual(
    update(pod => void pod.spec!.tolerations!.push({ key: 'b', operator: 'Exists' })),
    [],
  );
  assert.deepEqual(
    update(pod => void (pod.spec!.activeDeadlineSeconds = 50)),
    [],
  );
  assert.deepEqual(
    update(pod => void (pod.spec!.activeDeadlineSeconds = 150)),
    ['spec.activeDeadlineSeconds: Invalid value: 150: must be less than or equal to previous value'],
  );
  assert.deepEqual(
    update(pod => void (pod.spec!.activeDeadlineSeconds = -1)),
    ['spec.activeDeadlineSeconds: Invalid value: -1: must be between 0 and 2147483647, inclusive'],
  );
  assert.deepEqual(
    update(pod => void (pod.spec!.tolerations = [])),
    ['spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds'],
  );
  assert.deepEqual(
    update(pod => void pod.spec!.containers.push({ name: 'd', image: 'x' })),
    ['spec.containers: Forbidden: pod updates may not add or remove containers'],
  );
  assert.deepEqual(
    update(pod => void (pod.spec!.nodeName = 'n')),
    [
      'spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)',
    ],
  );
});

test('resize changes CPU and memory within the same class', () => {
  const old = make(pod => void (pod.spec!.containers[0]!.resources = { requests: { cpu: '100m' } }));
  old.metadata.resourceVersion = '1';
  const resize = (change: (pod: Pod) => void): string[] => {
    const pod = structuredClone(old);
    change(pod);
    return texts(validatePodResize(pod, old));
  };
  assert.deepEqual(
    resize(pod => void (pod.spec!.containers[0]!.resources = { requests: { cpu: '200m' } })),
    [],
  );
  assert.deepEqual(
    resize(pod => void (pod.spec!.containers[0]!.image = 'x')),
    ['spec: Forbidden: only cpu and memory resources are mutable'],
  );
  assert.match(resize(pod => void (pod.spec!.containers[0]!.resources = {})).join(), /QOS Class may not change/);
  assert.deepEqual(
    resize(pod => void (pod.spec!.resources = { requests: { cpu: '200m' } })),
    [],
  );
});

test('deletion grace', () => {
  const grace = (change: (pod: Pod) => void, asked?: number): number => kind.deletionGraceSeconds!(make(change), asked);
  assert.equal(
    grace(() => {}),
    0,
  );
  assert.equal(
    grace(pod => void (pod.spec!.nodeName = 'n')),
    30,
  );
  assert.equal(
    grace(pod => void (pod.spec!.nodeName = 'n'), 5),
    5,
  );
  assert.equal(
    grace(pod => {
      pod.spec!.nodeName = 'n';
      pod.status = { phase: 'Failed' };
    }),
    0,
  );
});

test('columns', () => {
  const running = { running: { startedAt: '2026-01-01T11:00:00Z' } };
  const status = (name: string, state: object, more: object = {}) => ({
    name,
    state,
    ready: false,
    restartCount: 0,
    image: '',
    imageID: '',
    ...more,
  });
  const cases: [expected: string, change: (pod: Pod) => void][] = [
    ['0/1 Pending 0 2d3h', pod => void (pod.status = { phase: 'Pending' })],
    [
      '1/1 Running 0 2d3h',
      pod => void (pod.status = { phase: 'Running', containerStatuses: [status('c', running, { ready: true })] }),
    ],
    [
      '0/1 ContainerCreating 0 2d3h',
      pod =>
        void (pod.status = {
          phase: 'Pending',
          containerStatuses: [status('c', { waiting: { reason: 'ContainerCreating' } })],
        }),
    ],
    [
      '0/1 CrashLoopBackOff 2 (5m ago) 2d3h',
      pod =>
        void (pod.status = {
          phase: 'Running',
          containerStatuses: [
            status(
              'c',
              { waiting: { reason: 'CrashLoopBackOff' } },
              { restartCount: 2, lastState: { terminated: { exitCode: 1, finishedAt: '2026-01-01T11:55:00Z' } } },
            ),
          ],
        }),
    ],
    [
      '0/1 Completed 0 2d3h',
      pod =>
        void (pod.status = {
          phase: 'Succeeded',
          containerStatuses: [status('c', { terminated: { exitCode: 0, reason: 'Completed' } })],
        }),
    ],
    [
      '0/1 OOMKilled 0 2d3h',
      pod =>
        void (pod.status = {
          phase: 'Failed',
          containerStatuses: [status('c', { terminated: { exitCode: 137, reason: 'OOMKilled' } })],
        }),
    ],
    [
      '0/1 ExitCode:3 0 2d3h',
      pod => void (pod.status = { phase: 'Failed', containerStatuses: [status('c', { terminated: { exitCode: 3 } })] }),
    ],
    ['0/1 Evicted 0 2d3h', pod => void (pod.status = { phase: 'Failed', reason: 'Evicted' })],
    [
      '0/1 Init:0/1 0 2d3h',
      pod => {
        pod.spec!.initContainers = [{ name: 'i', image: 'x' }];
        pod.status = {
          phase: 'Pending',
          initContainerStatuses: [status('i', { waiting: { reason: 'PodInitializing' } })],
        };
      },
    ],
    [
      '0/1 Init:Error 1 2d3h',
      pod => {
        pod.spec!.initContainers = [{ name: 'i', image: 'x' }];
        pod.status = {
          phase: 'Pending',
          initContainerStatuses: [status('i', { terminated: { exitCode: 1, reason: 'Error' } }, { restartCount: 1 })],
        };
      },
    ],
    [
      '2/2 Running 1 2d3h',
      pod => {
        pod.spec!.initContainers = [{ name: 's', image: 'x', restartPolicy: 'Always' }];
        pod.status = {
          phase: 'Running',
          initContainerStatuses: [status('s', running, { started: true, ready: true, restartCount: 1 })],
          containerStatuses: [status('c', running, { ready: true })],
        };
      },
    ],
    [
      '1/1 Terminating 0 2d3h',
      pod => {
        pod.metadata.deletionTimestamp = '2026-01-01T11:59:00Z';
        pod.status = { phase: 'Running', containerStatuses: [status('c', running, { ready: true })] };
      },
    ],
    [
      '0/1 SchedulingGated 0 2d3h',
      pod =>
        void (pod.status = {
          phase: 'Pending',
          conditions: [{ type: 'PodScheduled', status: 'False', reason: 'SchedulingGated' }],
        }),
    ],
  ];
  for (const [expected, change] of cases) {
    const cells = kind.columns!.filter(column => !column.priority).map(column => column.cell(make(change), NOW));
    assert.equal(cells.slice(1).join(' '), expected);
  }
  assert.deepEqual(
    kind.columns!.map(column => `${column.name}${column.priority ? '*' : ''}`),
    ['Name', 'Ready', 'Status', 'Restarts', 'Age', 'IP*', 'Node*', 'Nominated Node*', 'Readiness Gates*'],
  );
});

test('no file of a volume gets a name that leads out of it, or that the kubelet itself uses', () => {
  const problems = (path: string) =>
    findings(({ spec }) => {
      spec.volumes = [
        { name: 'v', projected: { sources: [{ configMap: { name: 'c', items: [{ key: 'k', path }] } }] } },
      ];
    }).filter(text => text.includes('path'));
  for (const path of ['../x', 'a/../../x', '..', 'a/..'])
    assert.match(String(problems(path)), /must not contain '\.\.'/);
  for (const path of ['..data', '..data/x', '..2026'])
    assert.match(String(problems(path)), /must not start with '\.\.'/);
  assert.match(String(problems('/x')), /must be a relative path/);
  assert.deepEqual(problems('a/..b/c..'), []);
});

test('huge pages: whole pages, no overcommitment, beside cpu or memory; a pod has as many as its containers', () => {
  const of = (resources: object) => findings(pod => (pod.spec.containers[0]!.resources = resources));
  const at = 'spec.containers[0].resources';
  assert.deepEqual(of({ limits: { 'hugepages-2Mi': '4Mi', memory: '8Mi' } }), []);
  assert.deepEqual(of({ limits: { 'hugepages-2Mi': '4Mi' } }), [`${at}: Forbidden: HugePages require cpu or memory`]);
  assert.match(
    of({ limits: { 'hugepages-2Mi': '3Mi', memory: '8Mi' } })[0]!,
    /limits\[hugepages-2Mi\]: .*3Mi is not positive integer multiple of hugepages-2Mi$/,
  );
  assert.match(
    of({ limits: { 'hugepages-2Mi': '4Mi', memory: '8Mi' }, requests: { 'hugepages-2Mi': '2Mi' } })[0]!,
    /must be equal to hugepages-2Mi limit of 4Mi$/,
  );
  const whole = (pages: string) => (pod: Pod) => {
    const limits = { memory: '64Mi', 'hugepages-2Mi': '4Mi' };
    pod.spec.containers = ['a', 'b'].map(name => ({ name, image: 'i', resources: { limits } }));
    pod.spec.resources = { limits: { memory: '256Mi', 'hugepages-2Mi': pages } };
  };
  assert.equal(make(whole('16Mi')).spec.resources?.requests?.['hugepages-2Mi'], '16Mi');
  assert.deepEqual(findings(whole('8Mi')), []);
  assert.match(findings(whole('6Mi')).join(), /must be greater than or equal to aggregate container limits of 8Mi/);
});
