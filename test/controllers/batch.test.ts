/** StatefulSets, DaemonSets, Jobs, CronJobs and the scheduler's refusals, through the real API server. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { DaemonSet, StatefulSet } from '../../src/api/apps/v1.gen.ts';
import type { CronJob, Job } from '../../src/api/batch/v1.gen.ts';
import type { Event as CoreEvent, Pod } from '../../src/api/core/v1.gen.ts';
import { podCondition } from '../../src/api/machinery/pod.ts';
import type { PodDisruptionBudget } from '../../src/api/policy/v1.gen.ts';
import { metrics } from '../../src/base/metrics.ts';
import {
  CRON_JOBS,
  DAEMON_SETS,
  DEVICE_CLASSES,
  EVENTS,
  JOBS,
  NODES,
  POD_DISRUPTION_BUDGETS,
  PODS,
  RESOURCE_CLAIMS,
  RESOURCE_SLICES,
  STATEFUL_SETS,
} from '../../src/client/resources.ts';
import { openCluster, type TestCluster } from './cluster.ts';

let cluster: TestCluster;
before(async () => {
  cluster = await openCluster();
  await cluster.addNode('node-1', { labels: { disk: 'ssd' } });
  await cluster.addNode('node-2');
});
after(() => cluster.close());

const podsOf = async (app: string): Promise<Pod[]> =>
  (await cluster.of<Pod>(PODS).list('default', { labelSelector: `app=${app}` })).items;
const names = async (app: string) => (await podsOf(app)).map(pod => pod.metadata.name).sort();
const template = (app: string, spec: object = {}) => ({
  metadata: { labels: { app } },
  spec: { containers: [{ name: 'main', image: 'a:1' }], ...spec },
});
const finish = (pod: Pod, phase: string) =>
  cluster.of<Pod>(PODS).patchStatus(
    'default',
    pod.metadata.name,
    {
      status: {
        phase,
        containerStatuses: [
          {
            name: 'main',
            ready: false,
            restartCount: 0,
            image: 'a:1',
            imageID: '',
            state: { terminated: { exitCode: phase === 'Failed' ? 1 : 0, finishedAt: '2020-01-01T00:00:00Z' } },
          },
        ],
      },
    },
    'application/strategic-merge-patch+json',
  );
const make = (of: { group: string; version: string; resource: string }, kind: string, name: string, spec: object) =>
  cluster.of(of).create({
    apiVersion: of.group ? `${of.group}/${of.version}` : of.version,
    kind,
    metadata: { name, namespace: 'default' },
    spec,
  } as never);
const bare = (name: string, spec: object = {}) =>
  make(PODS, 'Pod', name, { containers: [{ name: 'main', image: 'a:1' }], ...spec });
const pod = (name: string) => cluster.of<Pod>(PODS).get('default', name);

test('a stateful set grows and shrinks in order and rolls from the top', async () => {
  const order: string[] = [];
  cluster.informers.get<Pod>(PODS).onChange(({ object, old }) => {
    if (object && !old && object.metadata.labels?.['app'] === 'db') order.push(object.metadata.name);
  });
  await make(STATEFUL_SETS, 'StatefulSet', 'db', {
    replicas: 3,
    serviceName: 'db',
    selector: { matchLabels: { app: 'db' } },
    template: template('db'),
  });
  const set = () => cluster.of<StatefulSet>(STATEFUL_SETS).get('default', 'db');
  await cluster.until('3 ready', async () => (await set()).status?.readyReplicas === 3);
  assert.deepEqual(order, ['db-0', 'db-1', 'db-2']);
  const first = await pod('db-0');
  assert.equal(first.spec?.hostname, 'db-0');
  assert.equal(first.spec?.subdomain, 'db');
  assert.equal(first.metadata.labels?.['apps.kubernetes.io/pod-index'], '0');
  order.length = 0;
  await cluster
    .of(STATEFUL_SETS)
    .patch('default', 'db', { spec: { template: { spec: { containers: [{ name: 'main', image: 'a:2' }] } } } });
  const done = await cluster.until('rolled', async () => {
    const found = await set();
    return (
      found.status?.observedGeneration === found.metadata.generation &&
      found.status?.updatedReplicas === 3 &&
      found.status.currentRevision === found.status.updateRevision &&
      found.status.readyReplicas === 3 &&
      found
    );
  });
  assert.equal(done.status?.currentReplicas, 3);
  const counted = (name: string) =>
    new RegExp(
      `^statefulset_controller_statefulset_${name}\\{statefulset_namespace="default",statefulset_name="db",pod_management_policy="OrderedReady"\\} (\\d+)$`,
      'm',
    ).exec(metrics.render())?.[1];
  assert.equal(counted('max_unavailable'), '1');
  await cluster.until('all are available', () => counted('unavailable_replicas') === '0');
  assert.deepEqual(order, ['db-2', 'db-1', 'db-0']);
  await cluster.of(STATEFUL_SETS).patch('default', 'db', { spec: { replicas: 1 } });
  await cluster.until('one is left', async () => (await names('db')).join() === 'db-0');
  await cluster.until('that is told', async () => (await set()).status?.replicas === 1);
  const told: (number | undefined)[] = [];
  cluster.informers.get<StatefulSet>(STATEFUL_SETS).onChange(({ object, old }) => {
    const { generation } = object?.metadata ?? {};
    if (old && object?.spec.replicas === 2 && object.status?.observedGeneration === generation)
      told.push(object.status?.replicas);
  });
  await cluster.of(STATEFUL_SETS).patch('default', 'db', { spec: { replicas: 2 } });
  await cluster.until('two are ready', async () => (await set()).status?.readyReplicas === 2);
  assert.ok(!told.includes(1), 'the status that tells of the change tells of the pod made for it');
});

test('a daemon set runs once on each node that fits, and rolls', async () => {
  await make(DAEMON_SETS, 'DaemonSet', 'agent', {
    selector: { matchLabels: { app: 'agent' } },
    template: template('agent'),
  });
  const set = () => cluster.of<DaemonSet>(DAEMON_SETS).get('default', 'agent');
  await cluster.until('both', async () => (await set()).status?.numberAvailable === 2);
  assert.deepEqual((await podsOf('agent')).map(({ spec }) => spec?.nodeName).sort(), ['node-1', 'node-2']);
  await cluster.addNode('node-3');
  await cluster.until('the new node too', async () => (await set()).status?.numberAvailable === 3);
  await cluster
    .of(DAEMON_SETS)
    .patch('default', 'agent', { spec: { template: { spec: { nodeSelector: { disk: 'ssd' } } } } });
  await cluster.until('only where it fits', async () => {
    const { status } = await set();
    return (
      status?.desiredNumberScheduled === 1 &&
      status.updatedNumberScheduled === 1 &&
      status.numberAvailable === 1 &&
      (await podsOf('agent')).length === 1
    );
  });
  await cluster.of(NODES).delete('', 'node-3');
});

test('a job completes after its pods succeed; failures count to the limit', async () => {
  const job = (name: string) => cluster.of<Job>(JOBS).get('default', name);
  await make(JOBS, 'Job', 'sum', {
    completions: 3,
    parallelism: 2,
    template: template('sum', { restartPolicy: 'Never' }),
  });
  const finished = new Set<string>();
  await cluster.until('complete', async () => {
    for (const found of await podsOf('sum')) {
      if (found.status?.phase !== 'Running' || finished.has(found.metadata.name)) continue;
      finished.add(found.metadata.name);
      await finish(found, 'Succeeded');
    }
    return (await job('sum')).status?.conditions?.some(({ type }) => type === 'Complete');
  });
  const done = await job('sum');
  assert.equal(done.status?.succeeded, 3);
  assert.equal(finished.size, 3);
  assert.deepEqual(
    done.status?.conditions?.map(({ type }) => type),
    ['SuccessCriteriaMet', 'Complete'],
  );
  assert.ok(done.status?.completionTime);
  await cluster.until('finalizers are off', async () =>
    (await podsOf('sum')).every(({ metadata }) => !metadata.finalizers?.length),
  );

  await make(JOBS, 'Job', 'bad', {
    backoffLimit: 0,
    podFailurePolicy: {
      rules: [{ action: 'Count', onPodConditions: [{ type: 'PodScheduled', status: 'True' }] }],
    },
    template: template('bad', { restartPolicy: 'Never' }),
  });
  const failing = await cluster.until('it runs', async () =>
    (await podsOf('bad')).find(({ status }) => status?.phase === 'Running'),
  );
  await finish(failing, 'Failed');
  const failed = await cluster.until('failed', async () => {
    const found = await job('bad');
    return found.status?.conditions?.some(({ type }) => type === 'Failed') && found;
  });
  assert.equal(failed.status?.failed, 1);
  assert.equal(failed.status?.conditions?.at(-1)?.message, 'Job has reached the specified backoff limit');
  const told = (name: string, labels: string) =>
    new RegExp(`^job_controller_${name}\\{completion_mode="NonIndexed",${labels}\\} (\\d+)$`, 'm').exec(
      metrics.render(),
    )?.[1];
  assert.equal(told('jobs_finished_total', 'result="succeeded",reason="CompletionsReached"'), '1');
  assert.equal(told('jobs_finished_total', 'result="failed",reason="BackoffLimitExceeded"'), '1');
  assert.equal(told('job_pods_finished_total', 'result="succeeded"'), '3');
  assert.equal(told('job_pods_finished_total', 'result="failed"'), '1');
  for (const action of ['tracking', 'pods_created'])
    assert.ok(told('job_syncs_total', `result="success",action="${action}"`), action);
  assert.ok(told('job_sync_duration_seconds_count', 'result="success",action="pods_created"'));
  assert.match(metrics.render(), /^job_controller_pod_failures_handled_by_failure_policy_total\{action="Count"\} 1$/m);
  await cluster.until('all that end are released', () => {
    const [added, removed] = ['add', 'delete'].map(event =>
      Number(
        new RegExp(`^job_controller_terminated_pods_tracking_finalizer_total\\{event="${event}"\\} (\\d+)$`, 'm').exec(
          metrics.render(),
        )?.[1],
      ),
    );
    return added === 4 && removed === 4;
  });
});

test('an indexed job gives each index one pod', async () => {
  await make(JOBS, 'Job', 'parts', {
    completions: 2,
    parallelism: 2,
    completionMode: 'Indexed',
    template: template('parts', { restartPolicy: 'Never' }),
  });
  const running = await cluster.until('both run', async () => {
    const found = (await podsOf('parts')).filter(({ status }) => status?.phase === 'Running');
    return found.length === 2 && found;
  });
  assert.deepEqual(
    running.map(({ metadata }) => metadata.annotations?.['batch.kubernetes.io/job-completion-index']).sort(),
    ['0', '1'],
  );
  for (const found of running) await finish(found, 'Succeeded');
  await cluster.until(
    'complete',
    async () => (await cluster.of<Job>(JOBS).get('default', 'parts')).status?.completedIndexes === '0,1',
  );
});

test('a cron job that was due starts a job', async () => {
  const made = (await make(CRON_JOBS, 'CronJob', 'tick', {
    schedule: '* * * * *',
    suspend: true,
    jobTemplate: { spec: { template: template('tick', { restartPolicy: 'Never' }) } },
  })) as CronJob;
  await cluster.of(CRON_JOBS).patchStatus('default', 'tick', { status: { lastScheduleTime: '2020-01-01T00:00:00Z' } });
  await cluster.of(CRON_JOBS).patch('default', 'tick', { spec: { suspend: false, startingDeadlineSeconds: 120 } });
  const job = await cluster.until('a job', async () =>
    (await cluster.of<Job>(JOBS).list('default')).items.find(
      ({ metadata }) => metadata.ownerReferences?.[0]?.uid === made.metadata.uid,
    ),
  );
  assert.match(job.metadata.name, /^tick-\d{8}$/);
  await cluster.until(
    'it is listed',
    async () => (await cluster.of<CronJob>(CRON_JOBS).get('default', 'tick')).status?.active?.length === 1,
  );
  assert.match(metrics.render(), /^cronjob_controller_job_creation_skew_duration_seconds_count [1-9]/m);
  await cluster.of(CRON_JOBS).delete('default', 'tick');
});

test('a pod that fits nowhere is nominated no more', async () => {
  const pods = cluster.of<Pod>(PODS);
  await pods.create({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'nominated', namespace: 'default' },
    spec: { containers: [{ name: 'c', image: 'x' }], nodeSelector: { nowhere: 'yes' } },
  });
  const conditions = async () => (await pods.get('default', 'nominated')).status?.conditions ?? [];
  await cluster.until('the refusal', async () => (await conditions()).some(({ status }) => status === 'False'));
  await pods.patchStatus('default', 'nominated', { status: { nominatedNodeName: 'node-1' } });
  // Looked at again since what it asks for has changed.
  await pods.patch('default', 'nominated', { metadata: { labels: { again: 'yes' } } });
  await cluster.until(
    'no nomination',
    async () => (await pods.get('default', 'nominated')).status?.nominatedNodeName === undefined,
  );
  await pods.delete('default', 'nominated');
});

test('a pod that does not fit says why, and is placed as soon as it does', async () => {
  await bare('big', { containers: [{ name: 'main', image: 'a:1', resources: { requests: { cpu: '6' } } }] });
  const refused = await cluster.until(
    'the condition',
    async () => podCondition(await pod('big'), 'PodScheduled')?.status === 'False' && pod('big'),
  );
  assert.equal(
    podCondition(refused, 'PodScheduled')?.message,
    '0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.',
  );
  assert.equal(podCondition(refused, 'PodScheduled')?.reason, 'Unschedulable');
  await cluster.addNode('node-big', { cpu: '8' });
  await cluster.until('it is bound', async () => (await pod('big')).spec?.nodeName === 'node-big');
});

test('taints keep pods away, tolerations let them in', async () => {
  await bare('picky', { nodeSelector: { disk: 'floppy' } });
  await cluster
    .of(NODES)
    .patch('', 'node-big', { spec: { taints: [{ key: 'only', value: 'me', effect: 'NoSchedule' }] } });
  await bare('tolerant', {
    nodeSelector: { 'kubernetes.io/hostname': 'node-big' },
    tolerations: [{ key: 'only', operator: 'Exists' }],
  });
  await cluster.until('tolerant runs', async () => (await pod('tolerant')).spec?.nodeName === 'node-big');
  await bare('intolerant', { nodeSelector: { 'kubernetes.io/hostname': 'node-big' } });
  const refused = await cluster.until(
    'refused',
    async () => podCondition(await pod('intolerant'), 'PodScheduled')?.status === 'False' && pod('intolerant'),
  );
  assert.equal(
    podCondition(refused, 'PodScheduled')?.message,
    "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
  );
  await cluster.of(NODES).patch('', 'node-big', { spec: { taints: [] } });
  await cluster.until('then placed', async () => (await pod('intolerant')).spec?.nodeName === 'node-big');
});

test('a higher priority evicts a lower one', async () => {
  await bare('low', {
    priority: 0,
    nodeSelector: { 'kubernetes.io/hostname': 'node-1' },
    containers: [{ name: 'main', image: 'a:1', resources: { requests: { cpu: '3' } } }],
  });
  await cluster.until('low runs', async () => (await pod('low')).spec?.nodeName);
  await bare('high', {
    priority: 1000,
    nodeSelector: { 'kubernetes.io/hostname': 'node-1' },
    containers: [{ name: 'main', image: 'a:1', resources: { requests: { cpu: '3' } } }],
  });
  await cluster.until('high has the room', async () => (await pod('high')).spec?.nodeName === 'node-1');
  await assert.rejects(pod('low'));
  await cluster.until('the event', async () => (await cluster.events()).some(({ reason }) => reason === 'Preempted'));
});

test('a disruption budget counts', async () => {
  await make(POD_DISRUPTION_BUDGETS, 'PodDisruptionBudget', 'db', {
    minAvailable: 1,
    selector: { matchLabels: { app: 'db' } },
  });
  await cluster.until(
    'one of two may go',
    async () =>
      (await cluster.of<PodDisruptionBudget>(POD_DISRUPTION_BUDGETS).get('default', 'db')).status
        ?.disruptionsAllowed === 1,
  );
});

test('a disruption budget whose pods cannot be counted allows nothing and says why', async () => {
  const budget = async (name: string) =>
    (await cluster.of<PodDisruptionBudget>(POD_DISRUPTION_BUDGETS).get('default', name)).status;
  const said = (wanted: string) => async () => (await cluster.events()).some(({ reason }) => reason === wanted);
  const select = (app: string) => ({ maxUnavailable: 1, selector: { matchLabels: { app } } });

  await make(POD_DISRUPTION_BUDGETS, 'PodDisruptionBudget', 'nobody', select('nobody'));
  await cluster.until('no pods', said('NoPods'));

  await cluster.of<Pod>(PODS).create({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'alone', namespace: 'default', labels: { app: 'alone' } },
    spec: { containers: [{ name: 'main', image: 'a:1' }] },
  } as never);
  await make(POD_DISRUPTION_BUDGETS, 'PodDisruptionBudget', 'alone', select('alone'));
  await cluster.until('unmanaged', said('UnmanagedPods'));
  assert.equal((await budget('alone'))?.disruptionsAllowed ?? 0, 0);

  await make(JOBS, 'Job', 'owned', { template: template('owned', { restartPolicy: 'Never' }) });
  await make(POD_DISRUPTION_BUDGETS, 'PodDisruptionBudget', 'owned', select('owned'));
  const condition = async () => (await budget('owned'))?.conditions?.[0];
  await cluster.until('it failed', async () => (await condition())?.reason === 'SyncFailed');
  assert.equal((await condition())?.message, 'jobs.batch does not implement the scale subresource');
  await cluster.until('the event', said('CalculateExpectedPodCountFailed'));
});

test('the scheduler tells how much it knows', () => {
  const size = (type: string) =>
    Number(new RegExp(`^scheduler_cache_size\\{type="${type}"\\} (\\d+)$`, 'm').exec(metrics.render())?.[1]);
  assert.ok(size('nodes') >= 1 && size('pods') >= 1);
  assert.equal(size('assumed_pods'), 0);
  const page = metrics.render({ prefixes: ['scheduler_', 'running_managed'] });
  assert.match(page, /^scheduler_scheduling_algorithm_duration_seconds_count [1-9]/m);
  assert.match(page, /^scheduler_plugin_evaluation_total\{plugin="NodeResourcesFit",extension_point="Filter",/m);
  assert.match(
    page,
    /^scheduler_framework_extension_point_duration_seconds_count\{extension_point="Bind",status="Success",profile="default-scheduler"\} [1-9]/m,
  );
  assert.match(page, /^scheduler_goroutines\{operation="binding"\} \d+$/m);
  assert.match(page, /^running_managed_controllers\{name="nodeipam",manager="kube-controller-manager"\} 1$/m);
});

test('a device that is tainted with NoExecute takes its pods along, but for those whose claims tolerate it, for as long as they do', async () => {
  const exactly = (more: object) => ({
    devices: { requests: [{ name: 'one', exactly: { deviceClassName: 'gpu', ...more } }] },
  });
  const forever = { key: 'broken', operator: 'Exists', effect: 'NoExecute' };
  const hour = { ...forever, tolerationSeconds: 3600 };
  await cluster.of(DEVICE_CLASSES).create({
    apiVersion: 'resource.k8s.io/v1',
    kind: 'DeviceClass',
    metadata: { name: 'gpu' },
    spec: { selectors: [{ cel: { expression: 'device.driver == "gpu.example.com"' } }] },
  } as never);
  const devices = ['a', 'b', 'c'].map(name => ({ name }));
  await cluster.of(RESOURCE_SLICES).create({
    apiVersion: 'resource.k8s.io/v1',
    kind: 'ResourceSlice',
    metadata: { name: 'gpus' },
    spec: {
      driver: 'gpu.example.com',
      nodeName: 'node-1',
      pool: { name: 'gpus', generation: 1, resourceSliceCount: 1 },
      devices,
    },
  } as never);
  for (const [name, tolerations] of Object.entries({ frail: [], patient: [hour], sturdy: [forever] })) {
    await make(RESOURCE_CLAIMS, 'ResourceClaim', `gpu-${name}`, exactly({ tolerations }));
    await bare(`gpu-${name}`, { resourceClaims: [{ name: 'gpu', resourceClaimName: `gpu-${name}` }] });
    await cluster.until(`${name} placed`, async () => (await pod(`gpu-${name}`)).spec.nodeName);
  }
  const taint = async (timeAdded?: string) =>
    cluster.of(RESOURCE_SLICES).patch('', 'gpus', {
      spec: {
        devices: devices.map(one => ({
          ...one,
          taints: timeAdded === undefined ? [] : [{ key: 'broken', effect: 'NoExecute', timeAdded }],
        })),
      },
    });
  const messages = async (name: string) =>
    (await cluster.of<CoreEvent>(EVENTS).list('default', { fieldSelector: `involvedObject.name=gpu-${name}` })).items
      .filter(({ reason }) => reason === 'DeviceTaintManagerEviction')
      .map(({ message }) => message);
  const isGoing = async (name: string) => {
    const found = await pod(`gpu-${name}`).catch(() => undefined);
    return found === undefined || found.metadata.deletionTimestamp !== undefined;
  };
  await taint(new Date().toISOString().replace(/\.\d+Z/, 'Z'));
  await cluster.until('frail evicted', () => isGoing('frail'));
  await cluster.until('told', async () => (await messages('frail')).includes('Marking for deletion'));
  assert.deepEqual([await isGoing('patient'), await isGoing('sturdy')], [false, false]);
  await taint();
  await cluster.until('cancelled', async () => (await messages('patient')).includes('Cancelling deletion'));
  await taint(new Date(Date.now() - 3_600_000).toISOString().replace(/\.\d+Z/, 'Z'));
  await cluster.until('patience over', () => isGoing('patient'));
  assert.equal(await isGoing('sturdy'), false);
});

test('a node that is tainted with NoExecute loses its pods, but for those that tolerate it', async () => {
  const at = { nodeName: 'node-2' };
  await bare('weak', at);
  await bare('strong', { ...at, tolerations: [{ key: 'fire', operator: 'Exists', effect: 'NoExecute' }] });
  await cluster.until(
    'both there',
    async () => (await pod('weak')).spec.nodeName && (await pod('strong')).spec.nodeName,
  );
  const conditions: string[] = [];
  cluster.informers.get<Pod>(PODS).onChange(({ object }) => {
    const found = object?.metadata.name === 'weak' && podCondition(object, 'DisruptionTarget');
    if (found) conditions.push(`${found.status} ${found.reason}`);
  });
  await cluster.of(NODES).patch('', 'node-2', { spec: { taints: [{ key: 'fire', effect: 'NoExecute' }] } });
  await cluster.until('weak evicted', async () => {
    const found = await pod('weak').catch(() => undefined);
    return found === undefined || found.metadata.deletionTimestamp !== undefined;
  });
  await cluster.until('told', () => conditions.includes('True DeletionByTaintManager'));
  assert.equal((await pod('strong')).metadata.deletionTimestamp, undefined);
  await cluster.of(NODES).patch('', 'node-2', { spec: { taints: [] } });
});
