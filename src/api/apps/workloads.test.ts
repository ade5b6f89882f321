import assert from 'node:assert/strict';
import test from 'node:test';
import { scheduleProblem } from '../batch/cron-job.ts';
import { job } from '../batch/job.ts';
import type { Job } from '../batch/v1.gen.ts';
import type { Kind } from '../kind.ts';
import type { KubeObject } from '../meta.ts';
import { daemonSet } from './daemon-set.ts';
import { deployment } from './deployment.ts';
import { replicaSet } from './replica-set.ts';
import { statefulSet } from './stateful-set.ts';
import type { Deployment } from './v1.gen.ts';

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
  const renamed = structuredClone(set);
  renamed.spec.serviceName = 'other';
  assert.match(
    statefulSet.validateUpdate!(renamed, set)[0]!.message,
    /^Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template'/,
  );
});

test('generation follows spec and annotations', () => {
  const old = make<Deployment>(deployment);
  old.metadata.generation = 3;
  const next = structuredClone(old);
  deployment.prepareUpdate!(next, old);
  assert.equal(next.metadata.generation, 3);
  next.spec!.replicas = 2;
  deployment.prepareUpdate!(next, old);
  assert.equal(next.metadata.generation, 4);
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

test('cron schedules', () => {
  for (const good of ['* * * * *', '*/5 0-6 1,15 jan-mar MON', '@hourly', '@every 1h30m', '0 0 ? * *'])
    assert.equal(scheduleProblem(good), undefined, good);
  assert.equal(scheduleProblem('* * * *'), 'expected exactly 5 fields, found 4: [* * * *]');
  assert.equal(scheduleProblem('60 * * * *'), 'end of range (60) above maximum (59): 60');
  assert.equal(scheduleProblem('*/0 * * * *'), 'step of range should be a positive number: */0');
  assert.match(scheduleProblem('x * * * *')!, /^failed to parse int from x/);
});
