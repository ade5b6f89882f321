/**
 * How many replicas a metric asks for (upstream's replica calculator). Pods that are not ready, not measured or on their way
 * out are counted so that they never make the answer more extreme: what is missing is taken as idle when there is too much
 * to do, and as busy when there is too little. Pure.
 */

import type { Pod } from '../../api/core/v1.gen.ts';
import { isPodReady } from '../../api/machinery/pod.ts';
import { quantityMilli } from '../../api/machinery/quantity.ts';
import type { PodMetric } from './pod-metrics.ts';

/** Upstream's --horizontal-pod-autoscaler-cpu-initialization-period and -initial-readiness-delay. */
const CPU_INITIALIZATION_MS = 5 * 60_000;
const INITIAL_READINESS_MS = 30_000;

export interface Tolerances {
  readonly up: number;
  readonly down: number;
}

export interface Proposal {
  readonly replicas: number;
  /** In percent of the requests; of utilization targets only. */
  readonly utilization?: number;
  /** Of a pod, in thousandths. */
  readonly averageMilli: number;
}

export interface Sample {
  readonly current: number;
  readonly pods: readonly Pod[];
  readonly metrics: ReadonlyMap<string, PodMetric>;
  readonly resource: string;
  /** '' for the whole pod. */
  readonly container: string;
  readonly tolerances: Tolerances;
  readonly nowMs: number;
}

/** Throws what the autoscaler tells in its conditions. */
export function byUtilization(sample: Sample, targetPercent: number): Proposal {
  const requests = requestsOf(sample);
  const usage = (metrics: ReadonlyMap<string, number>) => {
    let used = 0;
    let requested = 0;
    for (const [pod, milli] of metrics) {
      const request = requests.get(pod);
      if (request === undefined) continue;
      used += milli;
      requested += request;
    }
    if (requested === 0) throw new Error('no metrics returned matched known pods');
    const percent = Math.trunc((used * 100) / requested);
    return { ratio: percent / targetPercent, percent, average: used / metrics.size };
  };
  const fallbackPercent = Math.max(100, targetPercent);
  return propose(sample, {
    usage,
    busy: pod => Math.trunc(((requests.get(pod) ?? 0) * fallbackPercent) / 100),
  });
}

export function byAverage(sample: Sample, targetMilli: number): Proposal {
  return propose(sample, {
    usage: metrics => {
      let used = 0;
      for (const milli of metrics.values()) used += milli;
      const average = Math.trunc(used / metrics.size);
      return { ratio: average / targetMilli, average };
    },
    busy: () => targetMilli,
  });
}

/** Replicas by one value for all pods together: it is to come to the target. */
export function byValue(
  sample: Pick<Sample, 'current' | 'pods' | 'tolerances'>,
  milli: number,
  targetMilli: number,
): number {
  const { current, pods, tolerances } = sample;
  const ratio = milli / targetMilli;
  if (current === 0) return Math.ceil(ratio);
  if (isWithin(tolerances, ratio)) return current;
  const ready = pods.filter(pod => pod.status?.phase === 'Running' && isPodReady(pod)).length;
  return Math.ceil(ratio * ready);
}

/** Replicas by one value that is shared among the pods: each one's share is to come to the target. */
export function byShare(
  { replicas, tolerances }: { readonly replicas: number; readonly tolerances: Tolerances },
  milli: number,
  targetMilli: number,
): { replicas: number; averageMilli: number } {
  const averageMilli = replicas === 0 ? 0 : Math.ceil(milli / replicas);
  const isClose = replicas > 0 && isWithin(tolerances, milli / (targetMilli * replicas));
  return { replicas: isClose ? replicas : Math.ceil(milli / targetMilli), averageMilli };
}

interface Measure {
  readonly usage: (metrics: ReadonlyMap<string, number>) => { ratio: number; percent?: number; average: number };
  /** What a pod that was not measured is taken for while there is too little to do. */
  readonly busy: (pod: string) => number;
}

function propose(sample: Sample, { usage, busy }: Measure): Proposal {
  const { current, tolerances } = sample;
  if (sample.pods.length === 0) throw new Error('no pods returned by selector while calculating replica count');
  const { ready, unready, missing, measured } = groupPods(sample);
  if (measured.size === 0) throw new Error('did not receive metrics for targeted pods (pods might be unready)');
  const { ratio, percent, average } = usage(measured);
  const told = { averageMilli: Math.trunc(average), ...(percent === undefined ? {} : { utilization: percent }) };
  const countUnready = unready.length > 0 && ratio > 1;
  if (!countUnready && missing.length === 0)
    return { ...told, replicas: isWithin(tolerances, ratio) ? current : Math.ceil(ratio * ready) };
  for (const pod of missing) {
    if (ratio < 1) measured.set(pod, busy(pod));
    else if (ratio > 1) measured.set(pod, 0);
  }
  if (countUnready) for (const pod of unready) measured.set(pod, 0);
  const { ratio: careful } = usage(measured);
  // Neither turn back nor go on beyond what is certain.
  if (isWithin(tolerances, careful) || (ratio < 1 && careful > 1) || (ratio > 1 && careful < 1))
    return { ...told, replicas: current };
  const replicas = Math.ceil(careful * measured.size);
  const contrary = (careful < 1 && replicas > current) || (careful > 1 && replicas < current);
  return { ...told, replicas: contrary ? current : replicas };
}

function isWithin({ up, down }: Tolerances, ratio: number): boolean {
  return 1 - down <= ratio && ratio <= 1 + up;
}

function groupPods({ pods, metrics, resource, nowMs }: Sample): {
  ready: number;
  unready: string[];
  missing: string[];
  measured: Map<string, number>;
} {
  let ready = 0;
  const unready: string[] = [];
  const missing: string[] = [];
  const measured = new Map<string, number>();
  for (const pod of pods) {
    const { name } = pod.metadata;
    if (pod.metadata.deletionTimestamp || pod.status?.phase === 'Failed') continue;
    const metric = metrics.get(name);
    if (pod.status?.phase === 'Pending') unready.push(name);
    else if (!metric) missing.push(name);
    else if (resource === 'cpu' && isStarting(pod, metric, nowMs)) unready.push(name);
    else {
      ready++;
      measured.set(name, metric.milli);
    }
  }
  return { ready, unready, missing, measured };
}

// What a pod burns while it starts says nothing about the work there is.
function isStarting({ status }: Pod, { atMs, windowMs }: PodMetric, nowMs: number): boolean {
  const condition = status?.conditions?.find(({ type }) => type === 'Ready');
  if (!condition || !status?.startTime) return true;
  const startMs = Date.parse(status.startTime);
  const changedMs = Date.parse(condition.lastTransitionTime ?? '');
  if (startMs + CPU_INITIALIZATION_MS > nowMs) return condition.status === 'False' || atMs < changedMs + windowMs;
  return condition.status === 'False' && startMs + INITIAL_READINESS_MS > changedMs;
}

function requestsOf({ pods, resource, container }: Sample): Map<string, number> {
  const requests = new Map<string, number>();
  for (const { metadata, spec } of pods) {
    const sidecars = (spec.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === 'Always');
    const whole = container ? undefined : spec.resources?.requests?.[resource];
    if (whole !== undefined) {
      requests.set(metadata.name, quantityMilli(whole));
      continue;
    }
    let sum = 0;
    for (const one of [...spec.containers, ...sidecars]) {
      if (container && one.name !== container) continue;
      const request = one.resources?.requests?.[resource];
      if (request === undefined)
        throw new Error(`missing request for ${resource} in container ${one.name} of Pod ${metadata.name}`);
      sum += quantityMilli(request);
    }
    requests.set(metadata.name, sum);
  }
  return requests;
}
