/** HorizontalPodAutoscalers through the real API server; metrics.k8s.io is a stand-in that says what each pod uses. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Deployment } from '../../src/api/apps/v1.gen.ts';
import type { HorizontalPodAutoscaler } from '../../src/api/autoscaling/v2.gen.ts';
import type { Pod } from '../../src/api/core/v1.gen.ts';
import { mapSelectorMatch } from '../../src/api/machinery/labels.ts';
import { isPodReady } from '../../src/api/machinery/pod.ts';
import { notFound } from '../../src/base/errors.ts';
import { DEPLOYMENTS, HORIZONTAL_POD_AUTOSCALERS, PODS } from '../../src/client/resources.ts';
import { type ListOptions, pathOf, type Target, type Transport } from '../../src/client/transport.ts';
import { openCluster, type TestCluster } from './cluster.ts';

let cluster: TestCluster;
/** Thousandths of a CPU that each container of every pod uses; nothing is measured while undefined. */
let usedMilli: number | undefined = 200;

/** What the other metrics APIs are asked, and what they say: by group and path. */
const asked: string[] = [];
const told: Record<string, object[]> = {};

const extensions = {
  async list(target: Target, options: ListOptions) {
    if (target.of.group !== 'metrics.k8s.io') {
      const { labelSelector, metricLabelSelector } = options;
      asked.push([pathOf(target), labelSelector, metricLabelSelector].filter(Boolean).join(' '));
      const items = told[pathOf(target)];
      if (!items) throw notFound({ resource: target.of.resource, group: target.of.group }, target.name ?? '');
      return { items };
    }
    return podMetrics(target, options);
  },
} as unknown as Transport;

async function podMetrics({ namespace }: Target, { labelSelector = '' }: ListOptions) {
  const { items } = await cluster.of<Pod>(PODS).list(namespace!, { labelSelector });
  // Measured long after the pods became ready: what they burn while they start does not count.
  const timestamp = new Date(Date.now() + 3_600_000).toISOString();
  const usage = { cpu: `${usedMilli}m`, memory: '1Mi' };
  return {
    items: (usedMilli === undefined ? [] : items).map(({ metadata, spec }) => ({
      metadata: { name: metadata.name, namespace },
      timestamp,
      window: '15s',
      containers: spec.containers.map(({ name }) => ({ name, usage })),
    })),
  };
}

before(async () => {
  cluster = await openCluster({ extensions });
  await cluster.addNode('node-1', { cpu: '64' });
});
after(() => cluster.close());

async function deploy(app: string, replicas: number): Promise<void> {
  await cluster.of<Deployment>(DEPLOYMENTS).create({
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: app, namespace: 'default' },
    spec: {
      replicas,
      selector: { matchLabels: { app } },
      template: {
        metadata: { labels: { app } },
        spec: { containers: [{ name: 'main', image: 'a:1', resources: { requests: { cpu: '100m' } } }] },
      },
    },
  } as Deployment);
  const matches = mapSelectorMatch({ app });
  await cluster.until(`${replicas} pods of ${app}`, async () => {
    const pods = (await cluster.of<Pod>(PODS).list('default')).items.filter(pod => matches(pod.metadata.labels));
    const seen = cluster.informers.get<Pod>(PODS);
    return (
      pods.length === replicas &&
      pods.every(({ metadata }) => {
        const pod = seen.get(`default/${metadata.name}`);
        return pod !== undefined && isPodReady(pod);
      })
    );
  });
}

const autoscalers = () => cluster.of<HorizontalPodAutoscaler>(HORIZONTAL_POD_AUTOSCALERS);
const autoscale = (app: string, spec: object) =>
  autoscalers().create({
    apiVersion: 'autoscaling/v2',
    kind: 'HorizontalPodAutoscaler',
    metadata: { name: app, namespace: 'default' },
    spec: { scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: app }, minReplicas: 1, ...spec },
  } as HorizontalPodAutoscaler);
const cpu = (averageUtilization: number) => [
  { type: 'Resource', resource: { name: 'cpu', target: { type: 'Utilization', averageUtilization } } },
];
const untilCondition = (app: string, type: string, reason: string) =>
  cluster.until(`${type} ${reason} of ${app}`, async () => {
    const { status } = await autoscalers().get('default', app);
    return status?.conditions?.find(condition => condition.type === type && condition.reason === reason) && status;
  });
const replicasOf = async (app: string) => (await cluster.of<Deployment>(DEPLOYMENTS).get('default', app)).spec.replicas;

test('by CPU utilization: as fast as without rules, and the status says what was done', async () => {
  await deploy('busy', 2);
  await autoscale('busy', { maxReplicas: 10, metrics: cpu(50) });
  // 200 % of 50 % asks for eight; twice as many is the most in one step, but always four.
  await cluster.until('four replicas', async () => (await replicasOf('busy')) === 4);
  const status = await untilCondition('busy', 'AbleToScale', 'SucceededRescale');
  assert.equal(status.desiredReplicas, 4);
  assert.ok(status.lastScaleTime);
  assert.deepEqual(status.currentMetrics?.[0]?.resource?.current, { averageUtilization: 200, averageValue: '200m' });
  const reasons = status.conditions!.map(({ type, status: value, reason }) => `${type} ${value} ${reason}`);
  assert.deepEqual(reasons, [
    'AbleToScale True SucceededRescale',
    'ScalingActive True ValidMetricFound',
    'ScalingLimited True ScaleUpLimit',
  ]);
  await cluster.until('the event', async () =>
    (await cluster.events()).some(({ message }) =>
      message.startsWith('New size: 4; reason: cpu resource utilization (percentage of request) above target'),
    ),
  );
});

test('memory is told in binary units, a target without a value is refused', async () => {
  await deploy('full', 1);
  const memory = (target: object) => [{ type: 'Resource', resource: { name: 'memory', target } }];
  await autoscale('full', { maxReplicas: 2, metrics: memory({ type: 'AverageValue', averageValue: '2Mi' }) });
  await cluster.until('the memory', async () => {
    const { status } = await autoscalers().get('default', 'full');
    return status?.currentMetrics?.[0]?.resource?.current.averageValue === '1Mi';
  });
  await assert.rejects(
    autoscale('none', { maxReplicas: 2, metrics: memory({ type: 'Utilization' }) }),
    /target\. utilization, value and averageValue: Invalid value: "Utilization": at least one not nil/,
  );
});

test('by a container, with rules: two pods at a time; bounds come before metrics', async () => {
  await deploy('ruled', 2);
  const metrics = [
    {
      type: 'ContainerResource',
      containerResource: { name: 'cpu', container: 'main', target: { type: 'AverageValue', averageValue: '20m' } },
    },
  ];
  const scaleUp = { policies: [{ type: 'Pods', value: 1, periodSeconds: 60 }] };
  await autoscale('ruled', { maxReplicas: 10, metrics, behavior: { scaleUp } });
  await cluster.until('three replicas', async () => (await replicasOf('ruled')) === 3);
  await autoscalers().patch('default', 'ruled', { spec: { minReplicas: 5 } }, 'application/merge-patch+json');
  await cluster.until('five replicas', async () => (await replicasOf('ruled')) === 5);
});

test('by a metric of pods, of an object and from outside: the APIs that others serve are asked', async () => {
  const custom = '/apis/custom.metrics.k8s.io/v1beta1/namespaces/default';
  await deploy('queue', 2);
  const pods = (await cluster.of<Pod>(PODS).list('default', { labelSelector: 'app=queue' })).items;
  // A server of the older version only.
  told[`${custom}/pods/*/requests`] = pods.map(({ metadata }) => ({
    describedObject: { kind: 'Pod', name: metadata.name },
    timestamp: new Date().toISOString(),
    value: '300m',
  }));
  const metric = { name: 'requests', selector: { matchLabels: { verb: 'get' } } };
  const byPods = { type: 'Pods', pods: { metric, target: { type: 'AverageValue', averageValue: '200m' } } };
  await autoscale('queue', { maxReplicas: 10, metrics: [byPods] });
  await cluster.until('three replicas', async () => (await replicasOf('queue')) === 3);
  assert.ok(asked.includes(`${custom}/pods/*/requests app=queue verb=get`), asked.join('\n'));
  const status = await untilCondition('queue', 'ScalingActive', 'ValidMetricFound');
  assert.deepEqual(status.currentMetrics?.[0], { type: 'Pods', pods: { metric, current: { averageValue: '300m' } } });

  const newest = '/apis/custom.metrics.k8s.io/v1beta2/namespaces/default';
  told[`${newest}/ingresses.networking.k8s.io/front/hits`] = [{ value: '40' }];
  const describedObject = { apiVersion: 'networking.k8s.io/v1', kind: 'Ingress', name: 'front' };
  const byObject = {
    type: 'Object',
    object: { describedObject, metric: { name: 'hits' }, target: { type: 'Value', value: '20' } },
  };
  await deploy('front', 2);
  await autoscale('front', { maxReplicas: 10, metrics: [byObject] });
  await cluster.until('four replicas', async () => (await replicasOf('front')) === 4);
  const event = 'New size: 4; reason: Ingress metric hits above target';
  await cluster.until('the event', async () => (await cluster.events()).some(({ message }) => message === event));

  told['/apis/external.metrics.k8s.io/v1beta1/namespaces/default/jobs'] = [{ value: '3' }, { value: '4' }];
  const byQueue = {
    type: 'External',
    external: { metric: { name: 'jobs' }, target: { type: 'AverageValue', averageValue: '2' } },
  };
  await deploy('worker', 2);
  await autoscale('worker', { maxReplicas: 10, metrics: [byQueue] });
  await cluster.until('four replicas', async () => (await replicasOf('worker')) === 4);
});

test('pods of two autoscalers are left alone', async () => {
  await deploy('shared', 2);
  usedMilli = 200;
  const scaleTargetRef = { apiVersion: 'apps/v1', kind: 'Deployment', name: 'shared' };
  const never = {
    behavior: { scaleUp: { selectPolicy: 'Disabled' } },
    scaleTargetRef,
    maxReplicas: 10,
    metrics: cpu(50),
  };
  await autoscale('one', never);
  await untilCondition('one', 'ScalingActive', 'ValidMetricFound');
  await autoscale('two', never);
  const status = await untilCondition('two', 'ScalingActive', 'AmbiguousSelector');
  assert.equal(
    status.conditions?.find(({ type }) => type === 'ScalingActive')?.message,
    'pods by selector app=shared are controlled by multiple HPAs: [default/two default/one]',
  );
  await autoscalers().delete('default', 'one');
});

test('what cannot be found out is told, and nothing is changed', async () => {
  await deploy('dark', 2);
  usedMilli = undefined;
  await autoscale('dark', { maxReplicas: 10, metrics: cpu(50) });
  const { conditions = [] } = await untilCondition('dark', 'ScalingActive', 'FailedGetResourceMetric');
  assert.equal(
    conditions.find(({ type }) => type === 'ScalingActive')?.message,
    'the HPA was unable to compute the replica count: failed to get cpu resource metric value: failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API',
  );
  assert.equal(await replicasOf('dark'), 2);
  await autoscale('nobody', { maxReplicas: 10, metrics: cpu(50) });
  await untilCondition('nobody', 'AbleToScale', 'FailedGetScale');
});
