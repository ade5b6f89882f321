import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Node, Pod, PodSpec, Taint } from '../api/core/v1.gen.ts';
import { VirtualClock } from '../base/clock.ts';
import { metrics } from '../base/metrics.ts';
import { seededRandom } from '../base/random.ts';
import { SchedulerCache } from './cache.ts';
import { DeviceUsage } from './device-usage.ts';
import { describe as explain, Framework } from './framework.ts';
import { PointTimes } from './metrics.ts';
import { podInfo } from './node-info.ts';
import type { Cluster } from './plugin.ts';
import { plugins } from './plugins/registry.ts';
import { preempt } from './preemption.ts';
import { SchedulingQueue } from './queue.ts';

let sequence = 0;
const pod = (
  facts: { spec?: Partial<PodSpec>; labels?: Record<string, string>; cpu?: string; owner?: string } = {},
): Pod => {
  const name = `p${sequence++}`;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      uid: name,
      namespace: 'd',
      labels: facts.labels ?? {},
      ...(facts.owner
        ? {
            ownerReferences: [
              { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'r', uid: facts.owner, controller: true },
            ],
          }
        : {}),
    },
    spec: {
      containers: [{ name: 'c', image: 'i', ...(facts.cpu ? { resources: { requests: { cpu: facts.cpu } } } : {}) }],
      ...facts.spec,
    },
  } as Pod;
};
const node = (
  name: string,
  facts: {
    labels?: Record<string, string>;
    taints?: Taint[];
    cpu?: string;
    pods?: string;
    unschedulable?: boolean;
  } = {},
): Node =>
  ({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, labels: { 'kubernetes.io/hostname': name, ...facts.labels } },
    spec: {
      ...(facts.taints ? { taints: facts.taints } : {}),
      ...(facts.unschedulable ? { unschedulable: true } : {}),
    },
    status: { allocatable: { cpu: facts.cpu ?? '4', memory: '8Gi', pods: facts.pods ?? '110' } },
  }) as Node;

function setUp(...nodes: Node[]) {
  const cache = new SchedulerCache();
  for (const each of nodes) cache.setNode(each);
  const lookup = {
    namespace: () => undefined,
    claim: () => undefined,
    volume: () => undefined,
    storageClass: () => undefined,
    volumesOf: () => [],
    csiDriver: () => undefined,
    csiNode: () => undefined,
    capacities: () => [],
    resourceClaim: () => undefined,
    deviceClassFor: () => undefined,
    leftoverClaim: () => undefined,
    devices: { deviceClass: () => undefined, slices: () => [], usage: () => new DeviceUsage([]), newShareId: () => '' },
  };
  const cluster: Cluster = { nodes: cache.nodes, lookup };
  const framework = new Framework({ plugins, random: seededRandom(1), clock: new VirtualClock() });
  const schedule = (target: Pod) => framework.schedule(podInfo(target), cluster);
  const place = (target: Pod): string => {
    const outcome = schedule(target);
    if (!outcome.node) return explain(outcome);
    cache.assume(target, outcome.node.name);
    return outcome.node.name;
  };
  return { cache, cluster, schedule, place };
}

test('every plugin is registered', () => {
  const files = readdirSync(join(import.meta.dirname, 'plugins')).filter(
    file => file !== 'registry.ts' && !file.includes('.test.'),
  );
  const fileOf = (name: string) => `${name.replace(/(?<!^)([A-Z])/g, '-$1').toLowerCase()}.ts`;
  assert.deepEqual(plugins.map(({ name }) => fileOf(name)).sort(), files.sort());
});

test('refusals in the words of upstream', () => {
  const { place } = setUp(
    node('a'),
    node('b', { taints: [{ key: 'k', value: 'v', effect: 'NoSchedule' }] }),
    node('c', { unschedulable: true }),
  );
  assert.equal(
    place(pod({ cpu: '5' })),
    '0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable.',
  );
  assert.equal(setUp().place(pod()), 'no nodes available to schedule pods');
  assert.equal(setUp(node('a', { pods: '0' })).place(pod()), '0/1 nodes are available: 1 Too many pods.');
  assert.equal(
    place(pod({ spec: { volumes: [{ name: 'v', persistentVolumeClaim: { claimName: 'x' } }] } })),
    '0/3 nodes are available: persistentvolumeclaim "x" not found.',
  );
});

test('a burst spreads evenly, with and without an owner', () => {
  for (const owner of ['rs', undefined]) {
    const { place } = setUp(node('a'), node('b'), node('c'));
    const counts = new Map<string, number>();
    for (let i = 0; i < 30; i++) {
      const at = place(pod(owner ? { owner } : {}));
      counts.set(at, (counts.get(at) ?? 0) + 1);
    }
    assert.deepEqual([...counts.values()].sort(), [10, 10, 10]);
  }
});

test('node affinity: selector, required terms, preference', () => {
  const { place } = setUp(node('a', { labels: { disk: 'ssd', gen: '3' } }), node('b', { labels: { disk: 'hdd' } }));
  assert.equal(place(pod({ spec: { nodeSelector: { disk: 'hdd' } } })), 'b');
  const required = (matchExpressions: { key: string; operator: string; values?: string[] }[]) =>
    pod({
      spec: {
        affinity: {
          nodeAffinity: {
            requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions }] },
          },
        },
      },
    });
  assert.equal(place(required([{ key: 'gen', operator: 'Gt', values: ['2'] }])), 'a');
  assert.equal(
    place(required([{ key: 'disk', operator: 'DoesNotExist' }])),
    "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.",
  );
  assert.equal(
    place(
      pod({
        spec: {
          affinity: {
            nodeAffinity: {
              preferredDuringSchedulingIgnoredDuringExecution: [
                { weight: 100, preference: { matchExpressions: [{ key: 'disk', operator: 'In', values: ['hdd'] }] } },
              ],
            },
          },
        },
      }),
    ),
    'b',
  );
});

test('host ports, affinity and anti-affinity, topology spread', () => {
  const { place } = setUp(node('a', { labels: { zone: '1' } }), node('b', { labels: { zone: '2' } }));
  const port = () => pod({ spec: { containers: [{ name: 'c', ports: [{ containerPort: 80, hostPort: 80 }] }] } });
  assert.deepEqual([place(port()), place(port())].sort(), ['a', 'b']);
  assert.equal(place(port()), "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports.");
  const term = { labelSelector: { matchLabels: { app: 'x' } }, topologyKey: 'zone' };
  const lonely = () =>
    pod({
      labels: { app: 'x' },
      spec: { affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [term] } } },
    });
  const first = place(lonely());
  assert.notEqual(place(lonely()), first);
  assert.match(place(lonely()), /2 node\(s\) didn't match pod anti-affinity rules/);
  assert.match(place(pod({ labels: { app: 'x' } })), /2 node\(s\) didn't satisfy existing pods anti-affinity rules/);
  const near = pod({
    spec: {
      affinity: {
        podAffinity: {
          requiredDuringSchedulingIgnoredDuringExecution: [{ ...term, labelSelector: { matchLabels: { app: 'y' } } }],
        },
      },
    },
  });
  assert.match(place(near), /2 node\(s\) didn't match pod affinity rules/);
  const spread = () =>
    pod({
      labels: { app: 's' },
      spec: {
        topologySpreadConstraints: [
          {
            maxSkew: 1,
            topologyKey: 'zone',
            whenUnsatisfiable: 'DoNotSchedule',
            labelSelector: { matchLabels: { app: 's' } },
          },
        ],
      },
    });
  assert.deepEqual([place(spread()), place(spread())].sort(), ['a', 'b']);
});

test('preemption takes the least important pods that suffice', () => {
  const { schedule, place, cluster } = setUp(node('a'));
  const low = pod({ cpu: '2', spec: { priority: 1 } });
  const lower = pod({ cpu: '2', spec: { priority: 0 } });
  place(low);
  place(lower);
  const high = pod({ cpu: '2', spec: { priority: 10 } });
  const failure = schedule(high);
  assert.equal(failure.node, undefined);
  const options = {
    plugins,
    cluster,
    failure: failure as Exclude<typeof failure, { node: object }>,
    isProtected: () => false,
  };
  const choice = preempt(podInfo(high), options as never);
  assert.deepEqual(choice.node && choice.victims.map(victim => victim.pod.metadata.name), [lower.metadata.name]);
  const none = preempt(podInfo(pod({ cpu: '2' })), options as never);
  assert.equal(
    none.node === undefined && none.message,
    '0/1 nodes are available: 1 No preemption victims found for incoming pod.',
  );
});

test('the queue: priority, then age; woken by the events that were named; back-off after errors', async () => {
  const clock = new VirtualClock();
  const queue = new SchedulingQueue({ clock, onReady: () => {} });
  const [a, b, c] = [pod(), pod({ spec: { priority: 5 } }), pod()];
  for (const each of [a!, b!, c!]) queue.put(each, { changed: false });
  assert.deepEqual([queue.take(), queue.take(), queue.take(), queue.take()], [b, a, c, undefined]);
  queue.unschedulable(a!.metadata.uid!, { wakesOn: new Set(['node-added']), refusedBy: new Set(['NodeName']) });
  assert.deepEqual([...queue.refusals()], [['NodeName', 1]]);
  queue.event('pod-removed');
  assert.equal(queue.take(), undefined);
  queue.event('node-added');
  assert.equal(queue.take(), a);
  assert.equal(queue.refusals().size, 0, 'nobody refuses it while it is tried');
  queue.event('node-added');
  queue.unschedulable(a!.metadata.uid!, { wakesOn: new Set(['node-added']), refusedBy: new Set() });
  assert.equal(queue.take(), a, 'an event during the attempt counts');
  queue.failed(b!.metadata.uid!);
  assert.equal(queue.take(), undefined);
  await clock.advance(1000);
  assert.equal(queue.take(), b);
  const told = metrics.render({ prefixes: ['scheduler_queue_incoming_pods_total'] });
  for (const labels of [
    'queue="active",event="UnscheduledPodAdd"',
    'queue="unschedulable",event="ScheduleAttemptFailure"',
    'queue="backoff",event="NodeAdd"',
    'queue="active",event="BackoffComplete"',
  ])
    assert.match(told, new RegExp(`^scheduler_queue_incoming_pods_total\\{${labels}\\} [1-9]`, 'm'));
});

test('a pod that needs a feature goes to a node that declares it', () => {
  const { place } = setUp(node('a'), node('b'));
  const container = {
    name: 'c',
    image: 'i',
    restartPolicyRules: [{ action: 'RestartAllContainers', exitCodes: { operator: 'In', values: [1] } }],
  };
  const needy = () => pod({ spec: { containers: [container] } } as never);
  assert.equal(
    place(needy()),
    '0/2 nodes are available: 2 node declared features check failed - unsatisfied requirements: RestartAllContainersOnContainerExits.',
  );
  const able = node('c');
  able.status = { ...able.status, declaredFeatures: ['RestartAllContainersOnContainerExits'] };
  const other = setUp(node('a'), able);
  for (let i = 0; i < 5; i++) assert.equal(other.place(needy()), 'c');
});

test('scores: what a pod does to the balance of a node, and images of volumes too', () => {
  const { cluster } = setUp(node('a'));
  const info = cluster.nodes.get('a')!;
  const score = (name: string, of: Pod) =>
    plugins.find(one => one.name === name)!.score!(podInfo(of), cluster, [info])?.score(info);
  const asking = (requests: object) =>
    pod({ spec: { containers: [{ name: 'c', image: 'i', resources: { requests } }] } } as never);
  // Of 4 CPUs and 8 GiB: half of each keeps the balance (100 before, 100 after), half of one loses a quarter of it.
  assert.equal(score('NodeResourcesBalancedAllocation', asking({ cpu: '2', memory: '4Gi' })), 75);
  assert.equal(score('NodeResourcesBalancedAllocation', asking({ cpu: '2' })), 62);
  const withImages = node('a');
  withImages.status = { ...withImages.status, images: [{ names: ['v:latest'], sizeBytes: 900 * 1024 * 1024 }] };
  const there = setUp(withImages).cluster;
  const one = there.nodes.get('a')!;
  const plugin = plugins.find(({ name }) => name === 'ImageLocality')!;
  const mounted = pod({ spec: { volumes: [{ name: 'v', image: { reference: 'v' } }] } } as never);
  assert.ok(plugin.score!(podInfo(mounted), there, [one])!.score(one) > 0);
  assert.equal(plugin.score!(podInfo(pod()), there, [one]), undefined);
});

test('each extension point tells how long it took, and how it ended', async () => {
  const count = (point: string, status: string) =>
    metrics
      .histogram('scheduler_framework_extension_point_duration_seconds', '', [])
      .get(point, status, 'default-scheduler');
  const before = (point: string, status: string) => {
    const was = count(point, status);
    return () => count(point, status) - was;
  };
  const since = {
    prepared: before('PreFilter', 'Success'),
    rejected: before('PreFilter', 'UnschedulableAndUnresolvable'),
    filtered: before('Filter', 'Success'),
    scored: before('Score', 'Success'),
  };
  const { place } = setUp(node('a'), node('b'));
  place(pod());
  place(pod({ cpu: '100' }));
  place(pod({ spec: { volumes: [{ name: 'v', persistentVolumeClaim: { claimName: 'none' } }] } }));
  assert.deepEqual(Object.fromEntries(Object.entries(since).map(([name, told]) => [name, told()])), {
    prepared: 2,
    rejected: 1,
    filtered: 2,
    scored: 1,
  });
  const executed = (point: string, status: string) =>
    metrics.histogram('scheduler_plugin_execution_duration_seconds', '', []).get('NodeResourcesFit', point, status);
  assert.ok(executed('PreFilter', 'Success') > 0 && executed('Filter', 'Success') > 0, 'of every tenth attempt');
  const bound = before('Bind', 'Success');
  const refused = before('Bind', 'Error');
  const times = new PointTimes(new VirtualClock());
  await times.wait('Bind', async () => {});
  await assert.rejects(times.wait('Bind', () => Promise.reject(new Error('no'))));
  assert.deepEqual([bound(), refused()], [1, 1]);
});
