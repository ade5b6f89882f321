/**
 * HorizontalPodAutoscalers (autoscaling/v2): looks every 15 seconds at the resource metrics of the pods behind a scalable
 * object and sets its replicas. Recommendations and changes of the last minutes are kept in memory, as upstream does: after
 * a restart stabilization begins with the number of replicas there is. Metrics of types Object, Pods and External are refused.
 */

import type { Scale } from '../../api/autoscaling/v1.gen.ts';
import type {
  CrossVersionObjectReference,
  HorizontalPodAutoscaler,
  MetricSpec,
  MetricStatus,
} from '../../api/autoscaling/v2.gen.ts';
import type { Pod } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { parseLabelSelector } from '../../api/machinery/labels.ts';
import { canonicalQuantity, quantityMilli } from '../../api/machinery/quantity.ts';
import { keyOf } from '../../api/meta.ts';
import { builtinResources } from '../../api/resources.ts';
import { formatTime } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { CUSTOM_RESOURCE_DEFINITIONS, HORIZONTAL_POD_AUTOSCALERS, PODS } from '../../client/resources.ts';
import type { ResourceId } from '../../client/transport.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';
import { customResources } from '../runtime/custom-resources.ts';
import { idOf } from '../runtime/resources.ts';
import { type PodMetric, resourceMetrics } from './pod-metrics.ts';
import { byAverage, byUtilization, type Proposal, type Sample } from './replica-calculation.ts';
import { applyRules, memoryMs, type Recommendation, type ScaleEvent } from './scaling-rules.ts';

const SYNC_MS = 15_000;
const TOLERANCE = 0.1;

interface Memory {
  recommendations: Recommendation[];
  events: ScaleEvent[];
}

/** What one reconcile finds out, and tells in the status. */
class Findings {
  readonly #of: HorizontalPodAutoscaler;
  readonly #nowMs: number;
  conditions: NonNullable<NonNullable<HorizontalPodAutoscaler['status']>['conditions']>;
  metrics: MetricStatus[] | undefined;

  constructor(of: HorizontalPodAutoscaler, nowMs: number) {
    this.#of = of;
    this.#nowMs = nowMs;
    this.conditions = [...(of.status?.conditions ?? [])];
  }
  set(type: string, status: 'True' | 'False', { reason, message }: { reason: string; message: string }): void {
    const at = this.conditions.findIndex(condition => condition.type === type);
    const since =
      at >= 0 && this.conditions[at]!.status === status ? this.conditions[at]!.lastTransitionTime : undefined;
    const condition = { type, status, lastTransitionTime: since ?? formatTime(this.#nowMs), reason, message };
    if (at < 0) this.conditions.push(condition);
    else this.conditions[at] = condition;
  }
  status(current: number, desired: number, scaled: boolean): NonNullable<HorizontalPodAutoscaler['status']> {
    const { status, metadata } = this.#of;
    const lastScaleTime = scaled ? formatTime(this.#nowMs) : status?.lastScaleTime;
    return {
      ...(status?.observedGeneration === undefined && metadata.generation === undefined
        ? {}
        : { observedGeneration: metadata.generation ?? 0 }),
      ...(lastScaleTime ? { lastScaleTime } : {}),
      currentReplicas: current,
      desiredReplicas: desired,
      ...(this.metrics ? { currentMetrics: this.metrics } : {}),
      conditions: this.conditions,
    };
  }
}

function create(ctx: ReconcileContext): Controller {
  const autoscalers = ctx.informers.get<HorizontalPodAutoscaler>(HORIZONTAL_POD_AUTOSCALERS);
  const memories = new Map<string, Memory>();
  return {
    name: 'horizontalpodautoscaler',
    watches: [
      watch<HorizontalPodAutoscaler>(HORIZONTAL_POD_AUTOSCALERS, change => {
        if (change.deleted) {
          memories.delete(keyOf(change.old));
          return [];
        }
        // Our own writes of the status are no reason to look again.
        return change.old && semanticEqual(change.old.spec, change.object.spec) ? [] : [keyOf(change.object)];
      }),
      watch(CUSTOM_RESOURCE_DEFINITIONS, () => []),
      watch(PODS, () => []),
    ],
    async reconcile({ namespace, name }) {
      const autoscaler = autoscalers.get(`${namespace}/${name}`);
      if (!autoscaler) return;
      const key = keyOf(autoscaler);
      let memory = memories.get(key);
      if (!memory) memories.set(key, (memory = { recommendations: [], events: [] }));
      try {
        await new Round(ctx, autoscaler, memory).run();
      } catch (error) {
        ctx.log.debug('an autoscaler could not do its work', { key, error: messageOf(error) });
      }
      return { requeueAfterMs: SYNC_MS };
    },
  };
}

/** One look at one autoscaler. */
class Round {
  readonly #ctx: ReconcileContext;
  readonly #of: HorizontalPodAutoscaler;
  readonly #memory: Memory;
  readonly #nowMs: number;
  readonly #findings: Findings;

  constructor(ctx: ReconcileContext, of: HorizontalPodAutoscaler, memory: Memory) {
    this.#ctx = ctx;
    this.#of = of;
    this.#memory = memory;
    this.#nowMs = ctx.clock.now();
    this.#findings = new Findings(of, this.#nowMs);
  }

  async run(): Promise<void> {
    const { spec, status } = this.#of;
    const target = await this.#target();
    if (!target) return this.#write(status?.currentReplicas ?? 0, status?.desiredReplicas ?? 0);
    const { of, scale } = target;
    this.#findings.set('AbleToScale', 'True', {
      reason: 'SucceededGetScale',
      message: "the HPA controller was able to get the target's current scale",
    });
    const current = scale.spec?.replicas ?? 0;
    if (this.#memory.recommendations.length === 0)
      this.#memory.recommendations.push({ atMs: this.#nowMs, replicas: current });
    const { minReplicas = 1, maxReplicas } = spec;
    if (current === 0 && minReplicas !== 0) {
      this.#findings.set('ScalingActive', 'False', {
        reason: 'ScalingDisabled',
        message: 'scaling is disabled since the replica count of the target is zero',
      });
      return this.#write(current, 0);
    }
    if (current > maxReplicas)
      return this.#rescale(of, scale, {
        desired: maxReplicas,
        why: 'Current number of replicas above Spec.MaxReplicas',
      });
    if (current < minReplicas)
      return this.#rescale(of, scale, {
        desired: minReplicas,
        why: 'Current number of replicas below Spec.MinReplicas',
      });
    const asked = await this.#ask(scale, current);
    if (!asked) return this.#write(current, status?.desiredReplicas ?? 0);
    const desired = this.#bounded(current, asked.replicas);
    const why = desired > current ? `${asked.name} above target` : 'All metrics below target';
    await this.#rescale(of, scale, { desired, why });
  }

  async #target(): Promise<{ of: ResourceId; scale: Scale } | undefined> {
    const { scaleTargetRef: reference } = this.#of.spec;
    const { namespace = '' } = this.#of.metadata;
    try {
      const of = resourceOf(this.#ctx, reference);
      const scale = await this.#ctx.transport.get({ of, namespace, name: reference.name, subresource: 'scale' });
      return { of, scale: scale as Scale };
    } catch (error) {
      const message = messageOf(error);
      this.#warn('FailedGetScale', message);
      this.#findings.set('AbleToScale', 'False', {
        reason: 'FailedGetScale',
        message: `the HPA controller was unable to get the target's current scale: ${message}`,
      });
      return undefined;
    }
  }

  /** The most that any metric asks for; undefined when not enough of them could be had. */
  async #ask(scale: Scale, current: number): Promise<{ replicas: number; name: string } | undefined> {
    const { metrics = [] } = this.#of.spec;
    const selector = scale.status?.selector;
    if (!selector) {
      const message = "the HPA target's scale is missing a selector";
      this.#warn('SelectorRequired', 'selector is required');
      this.#findings.set('ScalingActive', 'False', { reason: 'InvalidSelector', message });
      return undefined;
    }
    let most: { replicas: number; name: string } | undefined;
    let failed: { reason: string; message: string } | undefined;
    let failures = 0;
    const statuses: MetricStatus[] = [];
    for (const metric of metrics) {
      try {
        const { replicas, name, status } = await this.#measure(metric, selector, current);
        statuses.push(status);
        if (!most || replicas > most.replicas) most = { replicas, name };
      } catch (error) {
        failures++;
        const reason = `FailedGet${metric.type}Metric`;
        const message = messageOf(error);
        failed ??= { reason, message: `failed to get ${describe(metric)} metric value: ${message}` };
        this.#warn(reason, message);
      }
    }
    // With something unknown replicas are only ever added.
    if (!most || (failed && most.replicas < current)) {
      this.#findings.set('ScalingActive', 'False', {
        reason: failed?.reason ?? 'InvalidMetricSourceType',
        message: `the HPA was unable to compute the replica count: ${failed?.message ?? 'there is no metric'}`,
      });
      const first = `invalid metrics (${failures} invalid out of ${metrics.length}), first error is: ${failed?.message}`;
      this.#warn('FailedComputeMetricsReplicas', first);
      return undefined;
    }
    this.#findings.metrics = statuses;
    this.#findings.set('ScalingActive', 'True', {
      reason: 'ValidMetricFound',
      message: `the HPA was able to successfully calculate a replica count from ${most.name}`,
    });
    return most;
  }

  async #measure(
    metric: MetricSpec,
    selector: string,
    current: number,
  ): Promise<{ replicas: number; name: string; status: MetricStatus }> {
    const source = metric.type === 'Resource' ? metric.resource : metric.containerResource;
    if (!source || (metric.type !== 'Resource' && metric.type !== 'ContainerResource'))
      throw new Error(
        `metrics of type ${metric.type} are not supported by this cluster: use Resource or ContainerResource`,
      );
    const { name: resource, target } = source;
    const container = metric.containerResource?.container ?? '';
    const { namespace = '' } = this.#of.metadata;
    const { transport, settings, informers } = this.#ctx;
    const what = container ? `${resource} container resource` : `${resource} resource`;
    let metrics: Map<string, PodMetric>;
    try {
      metrics = await resourceMetrics(settings.extensions ?? transport, { namespace, selector, resource, container });
    } catch (error) {
      throw new Error(
        `failed to get ${resource} utilization: unable to get metrics for resource ${resource}: ${messageOf(error)}`,
      );
    }
    const matches = parseLabelSelector(selector);
    const sample: Sample = {
      current,
      pods: [...informers.get<Pod>(PODS).values()].filter(
        pod => pod.metadata.namespace === namespace && matches(pod.metadata.labels),
      ),
      metrics,
      resource,
      container,
      tolerances: this.#tolerances(),
      nowMs: this.#nowMs,
    };
    const status = (proposal: Proposal) => {
      const value = {
        ...(proposal.utilization === undefined ? {} : { averageUtilization: proposal.utilization }),
        averageValue: canonicalQuantity(`${proposal.averageMilli}m`),
      };
      return metric.type === 'Resource'
        ? { type: metric.type, resource: { name: resource, current: value } }
        : { type: metric.type, containerResource: { name: resource, container, current: value } };
    };
    try {
      if (target.averageValue !== undefined) {
        const proposal = byAverage(sample, quantityMilli(target.averageValue));
        return { replicas: proposal.replicas, name: what, status: status(proposal) };
      }
      if (target.averageUtilization === undefined)
        throw new Error(
          'invalid resource metric source: neither an average utilization target nor an average value (usage) target was set',
        );
      const proposal = byUtilization(sample, target.averageUtilization);
      return {
        replicas: proposal.replicas,
        name: `${what} utilization (percentage of request)`,
        status: status(proposal),
      };
    } catch (error) {
      throw new Error(`failed to get ${resource} utilization: ${messageOf(error)}`);
    }
  }
  #tolerances(): { up: number; down: number } {
    const { scaleUp, scaleDown } = this.#of.spec.behavior ?? {};
    const of = (tolerance: string | undefined) =>
      tolerance === undefined ? TOLERANCE : quantityMilli(tolerance) / 1000;
    return { up: of(scaleUp?.tolerance), down: of(scaleDown?.tolerance) };
  }

  #bounded(current: number, desired: number): number {
    const { spec } = this.#of;
    const nowMs = this.#nowMs;
    const since = nowMs - memoryMs(spec);
    const memory = this.#memory;
    memory.recommendations = memory.recommendations.filter(({ atMs }) => atMs > since);
    memory.events = memory.events.filter(({ atMs }) => atMs > since);
    const { replicas, able, limited } = applyRules(spec, { current, desired, nowMs }, memory);
    memory.recommendations.push({ atMs: nowMs, replicas: desired });
    this.#findings.set('AbleToScale', 'True', able);
    this.#findings.set('ScalingLimited', limited.status, limited);
    return replicas;
  }

  async #rescale(of: ResourceId, scale: Scale, { desired, why }: { desired: number; why: string }): Promise<void> {
    const current = scale.spec?.replicas ?? 0;
    if (desired === current) return this.#write(current, desired);
    const { namespace = '' } = this.#of.metadata;
    const { name } = scale.metadata;
    try {
      const next = { ...scale, spec: { ...scale.spec, replicas: desired } };
      await this.#ctx.transport.update({ of, namespace, name, subresource: 'scale' }, next);
    } catch (error) {
      this.#warn('FailedRescale', `New size: ${desired}; reason: ${why}; error: ${messageOf(error)}`);
      this.#findings.set('AbleToScale', 'False', {
        reason: 'FailedUpdateScale',
        message: `the HPA controller was unable to update the target scale: ${messageOf(error)}`,
      });
      return this.#write(current, this.#of.status?.desiredReplicas ?? 0);
    }
    this.#memory.events.push({ atMs: this.#nowMs, change: desired - current });
    this.#ctx.events.event(this.#of, 'Normal', 'SuccessfulRescale', `New size: ${desired}; reason: ${why}`);
    this.#findings.set('AbleToScale', 'True', {
      reason: 'SucceededRescale',
      message: `the HPA controller was able to update the target scale to ${desired}`,
    });
    await this.#write(current, desired, { scaled: true });
  }

  async #write(current: number, desired: number, { scaled = false } = {}): Promise<void> {
    const status = this.#findings.status(current, desired, scaled);
    if (semanticEqual(status, this.#of.status)) return;
    const { namespace, name } = this.#of.metadata;
    await this.#ctx.transport.update(
      { of: HORIZONTAL_POD_AUTOSCALERS, namespace: namespace!, name, subresource: 'status' },
      { ...this.#of, status } as HorizontalPodAutoscaler,
    );
  }
  #warn(reason: string, message: string): void {
    this.#ctx.events.event(this.#of, 'Warning', reason, message);
  }
}

function describe({ type, resource, containerResource }: MetricSpec): string {
  if (resource) return `${resource.name} resource`;
  return containerResource ? `${containerResource.name} container` : type;
}

/** The resource that the reference's kind is served as. Throws when there is none that can be scaled. */
function resourceOf(ctx: ReconcileContext, { apiVersion = '', kind }: CrossVersionObjectReference): ResourceId {
  const group = apiVersion.includes('/') ? apiVersion.slice(0, apiVersion.indexOf('/')) : '';
  const version = apiVersion.slice(apiVersion.indexOf('/') + 1);
  const all = [...builtinResources, ...customResources(ctx)].filter(info => info.kind === kind && info.group === group);
  const info = all.find(one => one.version === version) ?? all[0];
  if (!info) throw new Error(`no matches for kind "${kind}" in group "${group}"`);
  return idOf(info);
}

export const horizontalPodAutoscaler: ControllerDefinition = {
  folder: 'horizontalpodautoscaler',
  component: 'horizontal-pod-autoscaler',
  create,
};
