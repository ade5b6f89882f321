/** HorizontalPodAutoscalers through the real API server; metrics.k8s.io is a stand-in that says what each pod uses. */

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { Deployment } from '../../src/api/apps/v1.gen.ts';
import type { HorizontalPodAutoscaler } from '../../src/api/autoscaling/v2.gen.ts';
import type { Pod } from '../../src/api/core/v1.gen.ts';
import { mapSelectorMatch } from '../../src/api/machinery/labels.ts';
import { isPodReady } from '../../src/api/machinery/pod.ts';
import { DEPLOYMENTS, HORIZONTAL_POD_AUTOSCALERS, PODS } from '../../src/client/resources.ts';
import type { ListOptions, Target, Transport } from '../../src/client/transport.ts';
import { openCluster, type TestCluster } from './cluster.ts';

let cluster: TestCluster;
/** Thousandths of a CPU that each container of every pod uses; nothing is measured while undefined. */
let usedMilli: number | undefined = 200;

const extensions = {
  async list({ namespace }: Target, { labelSelector = '' }: ListOptions) {
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
  },
} as unknown as Transport;

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
