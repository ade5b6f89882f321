/**
 * From what the metrics ask for to what is done about it now: stabilization over recent recommendations, rates of change by
 * policies, and the autoscaler's bounds. Keeps nothing: the history is the caller's. Pure.
 */

import type { HorizontalPodAutoscalerSpec, HPAScalingRules } from '../../api/autoscaling/v2.gen.ts';

/** Upstream's --horizontal-pod-autoscaler-downscale-stabilization. */
const DOWNSCALE_STABILIZATION_SECONDS = 300;

export interface Recommendation {
  readonly atMs: number;
  readonly replicas: number;
}
/** A change that was made: positive up, negative down. */
export interface ScaleEvent {
  readonly atMs: number;
  readonly change: number;
}
export interface History {
  readonly recommendations: readonly Recommendation[];
  readonly events: readonly ScaleEvent[];
}

export interface Verdict {
  readonly replicas: number;
  /** Of the condition AbleToScale. */
  readonly able: { readonly reason: string; readonly message: string };
  /** Of the condition ScalingLimited. */
  readonly limited: { readonly status: 'True' | 'False'; readonly reason: string; readonly message: string };
}

/** Longest time that any rule looks back. */
export function memoryMs({ behavior }: HorizontalPodAutoscalerSpec): number {
  const seconds = [DOWNSCALE_STABILIZATION_SECONDS];
  for (const rules of [behavior?.scaleUp, behavior?.scaleDown]) {
    seconds.push(rules?.stabilizationWindowSeconds ?? 0);
    for (const policy of rules?.policies ?? []) seconds.push(policy.periodSeconds);
  }
  return Math.max(...seconds) * 1000;
}

export function applyRules(
  spec: HorizontalPodAutoscalerSpec,
  wanted: { readonly current: number; readonly desired: number; readonly nowMs: number },
  history: History,
): Verdict {
  const { current, desired, nowMs } = wanted;
  const up = spec.behavior?.scaleUp;
  const down = spec.behavior?.scaleDown;
  const within = (seconds: number) => {
    const since = nowMs - seconds * 1000;
    return [desired, ...history.recommendations.filter(({ atMs }) => atMs > since).map(({ replicas }) => replicas)];
  };
  const downWindow = down?.stabilizationWindowSeconds ?? DOWNSCALE_STABILIZATION_SECONDS;
  const lowest = Math.min(...within(up?.stabilizationWindowSeconds ?? 0));
  const highest = Math.max(...within(downWindow));
  // Without behavior every change goes by the highest recommendation.
  const stable = spec.behavior ? Math.min(Math.max(current, lowest), highest) : highest;
  const able =
    stable === desired
      ? { reason: 'ReadyForNewScale', message: 'recommended size matches current size' }
      : desired > stable
        ? {
            reason: 'ScaleUpStabilized',
            message: 'recent recommendations were lower than current one, applying the lowest recent recommendation',
          }
        : {
            reason: 'ScaleDownStabilized',
            message: 'recent recommendations were higher than current one, applying the highest recent recommendation',
          };
  return { able, ...limit(spec, { current, desired: stable, nowMs }, history) };
}

type Limited = Omit<Verdict, 'able'>;

function limit(
  spec: HorizontalPodAutoscalerSpec,
  { current, desired, nowMs }: { current: number; desired: number; nowMs: number },
  { events }: History,
): Limited {
  const { behavior, maxReplicas, minReplicas = 1 } = spec;
  const bounded = (replicas: number, reason: string, message: string): Limited => ({
    replicas,
    limited: { status: 'True', reason, message },
  });
  if (behavior ? desired > current : desired >= current) {
    const fastest = behavior
      ? Math.max(current, upLimit(behavior.scaleUp ?? {}, current, rateIn(events, nowMs)))
      : Math.max(2 * current, 4);
    if (desired > Math.min(maxReplicas, fastest))
      return fastest < maxReplicas
        ? bounded(fastest, 'ScaleUpLimit', 'the desired replica count is increasing faster than the maximum scale rate')
        : bounded(maxReplicas, 'TooManyReplicas', 'the desired replica count is more than the maximum replica count');
  }
  if (desired < current || desired < minReplicas) {
    const slowest = behavior
      ? Math.min(current, downLimit(behavior.scaleDown ?? {}, current, rateIn(events, nowMs)))
      : 0;
    if (desired < Math.max(minReplicas, slowest))
      return slowest > minReplicas
        ? bounded(
            slowest,
            'ScaleDownLimit',
            'the desired replica count is decreasing faster than the maximum scale rate',
          )
        : bounded(minReplicas, 'TooFewReplicas', 'the desired replica count is less than the minimum replica count');
  }
  const message = 'the desired count is within the acceptable range';
  return { replicas: desired, limited: { status: 'False', reason: 'DesiredWithinRange', message } };
}

type Rate = (seconds: number) => { readonly added: number; readonly removed: number };

function rateIn(events: readonly ScaleEvent[], nowMs: number): Rate {
  return seconds => {
    let added = 0;
    let removed = 0;
    for (const { atMs, change } of events) {
      if (atMs <= nowMs - seconds * 1000) continue;
      if (change > 0) added += change;
      else removed -= change;
    }
    return { added, removed };
  };
}

function upLimit({ selectPolicy, policies = [] }: HPAScalingRules, current: number, rate: Rate): number {
  if (selectPolicy === 'Disabled') return current;
  const proposals = policies.map(({ type, value, periodSeconds }) => {
    const { added, removed } = rate(periodSeconds);
    const start = current - added + removed;
    return type === 'Pods' ? start + value : Math.ceil(start * (1 + value / 100));
  });
  if (proposals.length === 0) return Number.POSITIVE_INFINITY;
  return selectPolicy === 'Min' ? Math.min(...proposals) : Math.max(...proposals);
}

function downLimit({ selectPolicy, policies = [] }: HPAScalingRules, current: number, rate: Rate): number {
  if (selectPolicy === 'Disabled') return current;
  const proposals = policies.map(({ type, value, periodSeconds }) => {
    const { added, removed } = rate(periodSeconds);
    const start = current - added + removed;
    return type === 'Pods' ? start - value : Math.trunc(start * (1 - value / 100));
  });
  if (proposals.length === 0) return 0;
  return selectPolicy === 'Min' ? Math.max(...proposals) : Math.min(...proposals);
}
