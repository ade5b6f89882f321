import assert from 'node:assert/strict';
import test from 'node:test';
import { cronJob, scheduleProblem } from '../batch/cron-job.ts';
import { job } from '../batch/job.ts';
import type { CronJob, Job } from '../batch/v1.gen.ts';
import type { Kind } from '../kind.ts';
import type { KubeObject } from '../meta.ts';
import { daemonSet } from './daemon-set.ts';
import { deployment } from './deployment.ts';
import { replicaSet } from './replica-set.ts';
import { statefulSet } from './stateful-set.ts';
import type { Deployment, StatefulSet } from './v1.gen.ts';

const labels = { app: 'web' };
const template = () => ({
  metadata: { labels: { ...labels } },
  spec: { containers: [{ name: 'c', image: 'nginx:1' }] },
});

function make<T extends KubeObject>(kind: Kind, spec: object = {}): T {
  const object = {
    apiVersion: `${kind.group}/${kind.version}`,
    kind: kind.kind,
    metadata: { name: 'web', namespace: 'default', uid: 'u', creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: { selector: { matchLabels: { ...labels } }, template: template(), ...spec },
  } as unknown as T;
  kind.defaults!(object);
  return object;
}

const findings = (kind: Kind, object: KubeObject): string[] =>
  kind.validate!(object).map(error => `${error.field}: ${error.message}`);
const shown = (kind: Kind, object: KubeObject): string =>
  kind
    .columns!.filter(column => !column.priority)
    .map(column => column.cell(object, Date.parse('2026-01-01T00:00:30Z')))
    .join(' ');

test('deployment defaults', () => {
  const { template: _, selector: __, ...spec } = make<Deployment>(deployment).spec!;
  assert.deepEqual(spec, {
    replicas: 1,
    strategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: '25%', maxSurge: '25%' } },
    revisionHistoryLimit: 10,
    progressDeadlineSeconds: 600,
  });
  // Only pods get these.
  assert.equal(make<Deployment>(deployment).spec!.template.spec!.enableServiceLinks, undefined);
});

test('valid workloads have no findings', () => {
  for (const kind of [deployment, replicaSet, daemonSet, statefulSet])
    assert.deepEqual(findings(kind, make(kind)), [], kind.kind);
});

test('selector and template', () => {
  assert.deepEqual(findings(deployment, make(deployment, { selector: { matchLabels: { app: 'other' } } })), [
    'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`',
  ]);
  assert.deepEqual(findings(deployment, make(deployment, { selector: {} })), [
    'spec.selector: Invalid value: {}: empty selector is invalid for deployment',
  ]);
  // Nothing matches without a selector.
  const mismatch =
    'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`';
  for (const kind of [deployment, replicaSet, statefulSet])
    assert.deepEqual(findings(kind, make(kind, { selector: undefined })), ['spec.selector: Required value', mismatch]);
  assert.deepEqual(findings(daemonSet, make(daemonSet, { selector: undefined })), [mismatch]);
  const never = template();
  Object.assign(never.spec, { restartPolicy: 'Never' });
  assert.deepEqual(findings(deployment, make(deployment, { template: never })), [
    'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
  ]);
});

test('the pods of a stateful set are looked at with its claims as their volumes; what was wrong before 1.34 may stay', () => {
  const set = (mount: string, image = 'nginx'): StatefulSet => {
    const { spec, ...rest } = template();
    const containers = [{ name: 'c', image, volumeMounts: [{ name: mount, mountPath: '/d' }] }];
    return make<StatefulSet>(statefulSet, {
      template: { ...rest, spec: { ...spec, containers } },
      volumeClaimTemplates: [{ metadata: { name: 'd' }, spec: {} }],
    });
  };
  const wrong = 'spec.template.spec.containers[0].volumeMounts[0].name: Not found: "e"';
  assert.deepEqual(findings(statefulSet, set('d')), []);
  assert.deepEqual(findings(statefulSet, set('e')), [wrong]);
  const update = (next: StatefulSet, old: StatefulSet): string[] =>
    statefulSet.validateUpdate!(next, old).map(({ field, message }) => `${field}: ${message}`);
  assert.deepEqual(update(set('e'), set('d')), [wrong]);
  assert.deepEqual(update(set('e', 'other'), set('e')), []);
});

test('a cron job completes the conditions of its failure policy, and no count', () => {
  const rules = [{ action: 'Ignore', onPodConditions: [{ type: 'DisruptionTarget' }] }];
  const made = make<CronJob>(cronJob, {
    schedule: '* * * * *',
    jobTemplate: { spec: { template: template(), podFailurePolicy: { rules } } },
  }).spec!.jobTemplate!.spec!;
  assert.equal(made.podFailurePolicy!.rules[0]!.onPodConditions![0]!.status, 'True');
  assert.equal(made.backoffLimit, undefined);
});

test('deployment strategy', () => {
  const strategy = (rollingUpdate: object) =>
    findings(deployment, make(deployment, { strategy: { type: 'RollingUpdate', rollingUpdate } }));
  assert.deepEqual(strategy({ maxSurge: 0, maxUnavailable: '0%' }), [
    'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0',
  ]);
  assert.deepEqual(strategy({ maxUnavailable: '120%' }), [
    'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "120%": must not be greater than 100%',
  ]);
  assert.match(
    strategy({ maxSurge: 'x' })[0]!,
    /maxSurge: Invalid value: "x": a valid percent string must be a numeric string followed by an ending '%'/,
  );
});

test('updates', () => {
  const old = make<Deployment>(deployment);
  const next = structuredClone(old);
  next.spec!.selector = { matchLabels: { app: 'x' } };
  assert.deepEqual(
    deployment.validateUpdate!(next, old).map(error => error.field),
    ['spec.selector'],
  );
  const set = make<KubeObject & { spec: { serviceName?: string } }>(statefulSet);
  const claims = (kind: string): StatefulSet =>
    make<StatefulSet>(statefulSet, { volumeClaimTemplates: [{ kind, metadata: { name: 'd' }, spec: {} }] });
  assert.deepEqual(statefulSet.validateUpdate!(claims('Other'), claims('PersistentVolumeClaim')), []);
  const renamed = structuredClone(set);
  renamed.spec.serviceName = 'other';
  assert.match(
    statefulSet.validateUpdate!(renamed, set)[0]!.message,
    /^Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template'/,
  );
});

test('generation follows spec and annotations', () => {
  const old = make<Deployment>(deployment);
  const isNew = (change: (next: Deployment) => void) => {
    const next = structuredClone(old);
    change(next);
    return deployment.isNewGeneration!(next, old);
  };
  assert.deepEqual(
    [
      isNew(({ metadata }) => void (metadata.labels = { a: 'b' })),
      isNew(({ metadata }) => void (metadata.annotations = { a: 'b' })),
      isNew(({ spec }) => void (spec!.replicas = 2)),
    ],
    [false, true, true],
  );
});

test('columns', () => {
  const object = make<Deployment>(deployment, { replicas: 3 });
  object.status = { readyReplicas: 1, updatedReplicas: 2, availableReplicas: 1 };
  assert.equal(shown(deployment, object), 'web 1/3 2 1 30s');
  assert.equal(shown(replicaSet, make(replicaSet)), 'web 1 0 0 30s');
  assert.equal(shown(daemonSet, make(daemonSet)), 'web 0 0 0 0 0 <none> 30s');
  assert.equal(shown(statefulSet, make(statefulSet)), 'web 0/1 30s');
});

test('jobs', () => {
  const pods = template();
  Object.assign(pods.spec, { restartPolicy: 'Never' });
  const object = make<Job>(job, { selector: undefined, template: pods });
  job.prepareCreate!(object);
  assert.deepEqual(object.spec!.selector, { matchLabels: { 'batch.kubernetes.io/controller-uid': 'u' } });
  assert.equal(object.spec!.template.metadata!.labels!['job-name'], 'web');
  assert.deepEqual(findings(job, object), []);
  assert.equal(shown(job, object), 'web Running 0/1  30s');
  object.status = {
    succeeded: 1,
    startTime: '2026-01-01T00:00:00Z',
    completionTime: '2026-01-01T00:00:12Z',
    conditions: [{ type: 'Complete', status: 'True' }],
  };
  assert.equal(shown(job, object), 'web Complete 1/1 12s 30s');
  const always = make<Job>(job, { selector: undefined });
  job.prepareCreate!(always);
  assert.deepEqual(findings(job, always), [
    'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
  ]);
});

test('a job without labels of its own has those of its template, also what its creation adds', () => {
  const made = (own: object | undefined, labels: Record<string, string> | undefined): unknown => {
    const pods = template();
    const object = make<Job>(job, { selector: undefined, template: { ...pods, metadata: labels ? { labels } : {} } });
    object.metadata.labels = own as Record<string, string>;
    if (!own) delete object.metadata.labels;
    job.defaults!(object);
    job.prepareCreate!(object);
    return object.metadata.labels;
  };
  const added = {
    'batch.kubernetes.io/job-name': 'web',
    'job-name': 'web',
    'batch.kubernetes.io/controller-uid': 'u',
    'controller-uid': 'u',
  };
  assert.deepEqual(made(undefined, undefined), added);
  assert.deepEqual(made(undefined, { x: 'y' }), { x: 'y', ...added });
  assert.deepEqual(made({}, undefined), added);
  assert.deepEqual(made({ x: 'y' }, { x: 'y' }), { x: 'y' });
});

const refusedJob = (spec: object): string[] => {
  const pods = { spec: { ...template().spec, restartPolicy: 'Never' } };
  const object = make<Job>(job, { selector: undefined, template: pods, ...spec });
  job.prepareCreate!(object);
  return findings(job, object);
};

test('jobs: rules of indexes, policies and their manager', () => {
  const rules = (rule: object): object => ({ podFailurePolicy: { rules: [rule] } });
  const success = (rule: object): object => ({
    completionMode: 'Indexed',
    completions: 5,
    successPolicy: { rules: [rule] },
  });
  const policy = 'spec.podFailurePolicy.rules[0]';
  const indexes = 'spec.successPolicy.rules[0].succeededIndexes: Invalid value:';
  const cases: [object, string[]][] = [
    [
      { maxFailedIndexes: 1 },
      [
        'spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified',
        'spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode',
      ],
    ],
    [
      rules({ action: 'Ignore' }),
      [`${policy}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required`],
    ],
    [
      rules({ onPodConditions: [{ type: 'a b', status: 'Maybe' }] }),
      [
        `${policy}.action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]`,
        `${policy}.onPodConditions[0].type: Invalid value: "a b": name part must consist of alphanumeric characters`,
        `${policy}.onPodConditions[0].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown"`,
      ],
    ],
    [success({ succeededIndexes: '0,2-3', succeededCount: 3 }), []],
    [
      success({ succeededIndexes: '0,2-3', succeededCount: 4 }),
      [
        'spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of indexes',
      ],
    ],
    [
      success({ succeededIndexes: '3,1' }),
      [`${indexes} "3,1": error parsing succeededIndexes: non-increasing order, previous: 3, current: 1`],
    ],
    [success({ succeededIndexes: '5' }), [`${indexes} "5": error parsing succeededIndexes: too large index: "5"`]],
    [
      success({ succeededIndexes: '1-2-3' }),
      [`${indexes} "1-2-3": error parsing succeededIndexes: the fragment "1-2-3" violates`],
    ],
    [
      success({ succeededIndexes: 'a' }),
      [`${indexes} "a": error parsing succeededIndexes: cannot convert string to integer`],
    ],
    [{ managedBy: '' }, ['spec.managedBy: Required value']],
    [{ managedBy: 'acme.io' }, ['spec.managedBy: Invalid value: "acme.io": must be a domain-prefixed path']],
    [{ managedBy: 'A/b' }, ['spec.managedBy: Invalid value: "A": a lowercase RFC 1123 subdomain']],
    [{ managedBy: 'acme.io/b c' }, ['spec.managedBy: Invalid value: "b c": Invalid path (regex used']],
  ];
  for (const [spec, expected] of cases) {
    const found = refusedJob(spec);
    assert.deepEqual(
      found.map((text, index) => text.slice(0, expected[index]?.length)),
      expected,
      JSON.stringify(spec),
    );
  }
});

test('jobs: a finished one stays finished, and its counts agree with its conditions', () => {
  const condition = (...types: string[]) => ({ conditions: types.map(type => ({ type, status: 'True' })) });
  const start = '2026-01-01T00:00:10Z';
  const end = '2026-01-01T00:00:20Z';
  const done = { startTime: start, completionTime: end, ...condition('SuccessCriteriaMet', 'Complete') };
  const cases: [spec: object, old: object, status: object, ...expected: string[]][] = [
    [{}, { startTime: start, active: 1 }, { startTime: start, active: 2, ready: 1 }],
    [{}, { startTime: start, ...condition('SuccessCriteriaMet') }, done],
    [{}, {}, { active: -1 }, 'active: Invalid value: -1: must be greater than or equal to 0'],
    [
      {},
      { failed: 2, succeeded: 2 },
      { failed: 1, succeeded: 1 },
      'failed: Invalid value: 1: cannot decrease',
      'succeeded: Invalid value: 1: cannot decrease',
    ],
    [{ completionMode: 'Indexed', completions: 2, parallelism: 2 }, { succeeded: 2 }, { succeeded: 1 }],
    [{}, {}, { active: 1, ready: 2 }, 'ready: Invalid value: 2: cannot set more ready pods than active'],
    [
      {},
      { startTime: start },
      { startTime: start, ...condition('Complete') },
      'conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition',
      'completionTime: Required value: completionTime is required for Complete jobs',
    ],
    [
      {},
      {},
      condition('Failed'),
      'conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition',
      'startTime: Required value: startTime is required for finished job',
    ],
    [{}, done, { ...done, active: 1 }, 'active: Invalid value: 1: active>0 is invalid for finished job'],
    [
      {},
      done,
      { startTime: start, ...condition('SuccessCriteriaMet') },
      'conditions: Invalid value: cannot disable the terminal Complete=True condition',
    ],
    [
      {},
      done,
      { ...done, completionTime: '2026-01-01T00:00:21Z' },
      'completionTime: Invalid value: "2026-01-01T00:00:21Z": completionTime cannot be mutated',
    ],
    [
      {},
      { startTime: start },
      { startTime: end },
      'startTime: Required value: startTime cannot be removed for unsuspended job',
    ],
    [{ suspend: true }, { startTime: start }, {}],
    [
      {},
      { startTime: start, ...condition('Suspended') },
      { startTime: end, conditions: [{ type: 'Suspended', status: 'False' }] },
    ],
    [{}, {}, { completedIndexes: '0' }, 'completedIndexes: Invalid value: "0": cannot set non-empty completedIndexes'],
    [
      { completionMode: 'Indexed', completions: 5, backoffLimitPerIndex: 1 },
      {},
      { completedIndexes: '0-2', failedIndexes: '2,4' },
      'failedIndexes: Invalid value: "2,4": failedIndexes and completedIndexes overlap at index: 2',
    ],
    [
      {},
      {},
      { uncountedTerminatedPods: { succeeded: ['a', ''], failed: ['a'] } },
      'uncountedTerminatedPods.succeeded[1]: Invalid value: "": must not be empty',
      'uncountedTerminatedPods.failed[0]: Duplicate value: "a"',
    ],
  ];
  for (const [spec, before, status, ...expected] of cases) {
    const old = { ...make<Job>(job, spec), status: before } as Job;
    const found = job.validateStatusUpdate!({ ...old, status } as Job, old).map(
      error => `${error.field.slice('status.'.length)}: ${error.message}`,
    );
    assert.deepEqual(
      found.map((text, index) => text.slice(0, expected[index]?.length)),
      expected,
      JSON.stringify(status),
    );
  }
});

test('cron schedules', () => {
  for (const good of ['* * * * *', '*/5 0-6 1,15 jan-mar MON', '@hourly', '@every 1h30m', '0 0 ? * *'])
    assert.equal(scheduleProblem(good), undefined, good);
  assert.equal(scheduleProblem('* * * *'), 'expected exactly 5 fields, found 4: [* * * *]');
  assert.equal(scheduleProblem('60 * * * *'), 'end of range (60) above maximum (59): 60');
  assert.equal(scheduleProblem('*/0 * * * *'), 'step of range should be a positive number: */0');
  assert.match(scheduleProblem('x * * * *')!, /^failed to parse int from x/);
});

test('jobs: what the pods of a suspended one ask for may change while none of them runs', () => {
  const template = (cpu: string, image = 'i') => ({
    metadata: {},
    spec: { restartPolicy: 'Never', containers: [{ name: 'c', image, resources: { requests: { cpu } } }] },
  });
  const suspended = { conditions: [{ type: 'Suspended', status: 'True' }] };
  const startTime = '2026-01-01T00:00:10Z';
  const cases: [suspend: boolean, status: object, next: object, allowed: boolean][] = [
    [true, {}, template('2'), true],
    [true, { startTime, ...suspended }, template('2'), true],
    [true, { startTime }, template('2'), false],
    [true, { active: 1, ...suspended }, template('2'), false],
    [false, {}, template('2'), false],
    [true, {}, template('2', 'other'), false],
  ];
  for (const [suspend, status, next, allowed] of cases) {
    const old = { ...make<Job>(job, { suspend, template: template('1') }), status } as Job;
    const changed = structuredClone(old);
    Object.assign(
      changed.spec!.template.spec!.containers[0]!,
      (next as typeof changed.spec.template).spec!.containers[0],
    );
    const found = job.validateUpdate!(changed, old).map(error => error.field);
    assert.deepEqual(found, allowed ? [] : ['spec.template'], JSON.stringify([suspend, status]));
  }
});
