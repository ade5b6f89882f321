import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import type { HorizontalPodAutoscalerSpec } from '../../api/autoscaling/v2.gen.ts';
import type { Pod } from '../../api/core/v1.gen.ts';
import type { PodMetric } from './pod-metrics.ts';
import { byAverage, byShare, byUtilization, byValue, type Sample } from './replica-calculation.ts';
import { applyRules, type History, memoryMs } from './scaling-rules.ts';

const NOW = Date.UTC(2026, 0, 1);
const LONG_AGO = '2025-01-01T00:00:00Z';

function pod(name: string, more: Partial<NonNullable<Pod['status']>> = {}, request = '1'): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default' },
    spec: { containers: [{ name: 'main', resources: { requests: { cpu: request } } }] },
    status: {
      phase: 'Running',
      startTime: LONG_AGO,
      conditions: [{ type: 'Ready', status: 'True', lastTransitionTime: LONG_AGO }],
      ...more,
    },
  } as Pod;
}

/** Pods by what each of them uses, in thousandths; undefined: not measured. */
function sample(milli: readonly (number | undefined)[], more: Partial<Sample> = {}): Sample {
  const pods = more.pods ?? milli.map((_, i) => pod(`p${i}`));
  const metrics = new Map<string, PodMetric>();
  for (const [i, value] of milli.entries())
    if (value !== undefined) metrics.set(`p${i}`, { milli: value, atMs: NOW, windowMs: 15_000 });
  return {
    current: pods.length,
    metrics,
    resource: 'cpu',
    container: '',
    tolerances: { up: 0.1, down: 0.1 },
    nowMs: NOW,
    ...more,
    pods,
  };
}

// Figures of upstream's replica_calculator_test.go.
test('replicas by utilization: up, down, within the tolerance', () => {
  assert.deepEqual(byUtilization(sample([300, 500, 700]), 30), { replicas: 5, utilization: 50, averageMilli: 500 });
  assert.equal(byUtilization(sample([100, 300, 500, 250, 250]), 50).replicas, 3);
  assert.equal(byUtilization(sample([1010, 1030, 1020]), 100).replicas, 3);
  assert.equal(byUtilization(sample([900, 900, 900]), 100).replicas, 3);
  assert.equal(byUtilization(sample([1010, 1030, 1020], { tolerances: { up: 0, down: 0 } }), 100).replicas, 4);
});

test('what the whole pod asks for counts where it asks, as since 1.34', () => {
  const { spec, ...rest } = pod('p0', {}, '100m');
  const whole = { ...rest, spec: { ...spec, resources: { requests: { cpu: '1' } } } } as Pod;
  assert.equal(byUtilization(sample([500], { pods: [whole] }), 50).replicas, 1);
  assert.equal(byUtilization(sample([500], { pods: [whole], container: 'main' }), 50).replicas, 10);
});

test('replicas by average value', () => {
  assert.deepEqual(byAverage(sample([100, 200, 300]), 100), { replicas: 6, averageMilli: 200 });
});

test("replicas by one value for all, and by each one's share of it", () => {
  const tolerances = { up: 0.1, down: 0.1 };
  const { pods } = sample([1, 1, 1]);
  assert.equal(byValue({ current: 3, pods, tolerances }, 20_000, 15_000), 4);
  assert.equal(byValue({ current: 3, pods, tolerances }, 16_000, 15_000), 3);
  assert.equal(byValue({ current: 0, pods: [], tolerances }, 31_000, 15_000), 3);
  // Pods that are not ready do no work.
  assert.equal(byValue({ current: 3, pods: [pods[0]!, pod('p9', { conditions: [] })], tolerances }, 30_000, 15_000), 2);
  assert.deepEqual(byShare({ replicas: 3, tolerances }, 9_000, 1_500), { replicas: 6, averageMilli: 3_000 });
  assert.deepEqual(byShare({ replicas: 3, tolerances }, 4_600, 1_500), { replicas: 3, averageMilli: 1_534 });
});

test('pods that start, wait, fail or were not measured never make it more extreme', () => {
  const starting = { startTime: '2025-12-31T23:59:30Z', conditions: [{ type: 'Ready', status: 'False' as const }] };
  // Unready pods count as idle when there is too much to do.
  const pods = [pod('p0', starting), pod('p1'), pod('p2')];
  assert.equal(byUtilization(sample([100, 500, 700], { pods }), 30).replicas, 4);
  const waiting = [pod('p0', { phase: 'Pending' }), pod('p1'), pod('p2')];
  assert.equal(byUtilization(sample([undefined, 500, 700], { pods: waiting }), 30).replicas, 4);
  const failed = [pod('p0', { phase: 'Failed' }), pod('p1'), pod('p2')];
  assert.equal(byUtilization(sample([undefined, 500, 700], { pods: failed, current: 2 }), 30).replicas, 4);
  // One that was not measured is taken as busy when there is too little to do.
  assert.equal(byUtilization(sample([undefined, 200, 200, 200]), 50).replicas, 4);
  assert.equal(byUtilization(sample([undefined, 100, 100, 100]), 100).replicas, 2);
});

test('what cannot be computed says why', () => {
  assert.throws(() => byUtilization(sample([], { pods: [] }), 50), /no pods returned by selector/);
  assert.throws(() => byUtilization(sample([undefined]), 50), /did not receive metrics for targeted pods/);
  const withoutRequest = [{ ...pod('p0'), spec: { containers: [{ name: 'main' }] } } as Pod];
  assert.throws(() => byUtilization(sample([5], { pods: withoutRequest }), 50), {
    message: 'missing request for cpu in container main of Pod p0',
  });
});

const spec = (more: Partial<HorizontalPodAutoscalerSpec> = {}): HorizontalPodAutoscalerSpec => ({
  scaleTargetRef: { kind: 'Deployment', name: 'web' },
  minReplicas: 1,
  maxReplicas: 100,
  ...more,
});
const NOTHING: History = { recommendations: [], events: [] };
const verdict = (of: HorizontalPodAutoscalerSpec, current: number, desired: number, history = NOTHING) => {
  const { replicas, able, limited } = applyRules(of, { current, desired, nowMs: NOW }, history);
  return [replicas, able.reason, limited.reason];
};
const ago = (seconds: number) => NOW - seconds * 1000;

test('without behavior: doubling at most, down only after five minutes', () => {
  assert.deepEqual(verdict(spec(), 10, 50), [20, 'ReadyForNewScale', 'ScaleUpLimit']);
  assert.deepEqual(verdict(spec(), 1, 3), [3, 'ReadyForNewScale', 'DesiredWithinRange']);
  assert.deepEqual(verdict(spec({ maxReplicas: 12 }), 10, 50), [12, 'ReadyForNewScale', 'TooManyReplicas']);
  assert.deepEqual(verdict(spec({ minReplicas: 4 }), 10, 2), [4, 'ReadyForNewScale', 'TooFewReplicas']);
  const busy = { ...NOTHING, recommendations: [{ atMs: ago(200), replicas: 8 }] };
  assert.deepEqual(verdict(spec(), 10, 2, busy), [8, 'ScaleDownStabilized', 'DesiredWithinRange']);
  const longAgo = { ...NOTHING, recommendations: [{ atMs: ago(301), replicas: 8 }] };
  assert.deepEqual(verdict(spec(), 10, 2, longAgo), [2, 'ReadyForNewScale', 'DesiredWithinRange']);
});

test('behavior: policies by pods and percent within their periods, and their choice', () => {
  const up = (more: object) =>
    spec({ behavior: { scaleUp: { selectPolicy: 'Max', stabilizationWindowSeconds: 0, ...more } } });
  const policies = [
    { type: 'Pods', value: 4, periodSeconds: 60 },
    { type: 'Percent', value: 20, periodSeconds: 60 },
  ];
  assert.deepEqual(verdict(up({ policies }), 10, 50), [14, 'ReadyForNewScale', 'ScaleUpLimit']);
  assert.deepEqual(verdict(up({ policies, selectPolicy: 'Min' }), 10, 50), [12, 'ReadyForNewScale', 'ScaleUpLimit']);
  assert.deepEqual(verdict(up({ policies, selectPolicy: 'Disabled' }), 10, 50)[0], 10);
  // Three of the four were used up half a minute ago.
  const used = { ...NOTHING, events: [{ atMs: ago(30), change: 3 }] };
  assert.deepEqual(verdict(up({ policies: policies.slice(0, 1) }), 10, 50, used)[0], 11);
  const calm = { ...NOTHING, recommendations: [{ atMs: ago(20), replicas: 11 }] };
  assert.deepEqual(verdict(up({ policies, stabilizationWindowSeconds: 30 }), 10, 14, calm), [
    11,
    'ScaleUpStabilized',
    'DesiredWithinRange',
  ]);

  const down = (more: object) =>
    spec({ behavior: { scaleDown: { selectPolicy: 'Max', stabilizationWindowSeconds: 0, ...more } } });
  assert.deepEqual(verdict(down({ policies }), 100, 1), [80, 'ReadyForNewScale', 'ScaleDownLimit']);
  assert.deepEqual(verdict(down({ policies, selectPolicy: 'Min' }), 100, 1)[0], 96);
  assert.deepEqual(verdict(down({ policies, selectPolicy: 'Disabled' }), 100, 1)[0], 100);
  assert.equal(memoryMs(down({ policies: [{ type: 'Pods', value: 1, periodSeconds: 1800 }] })), 1_800_000);
});
