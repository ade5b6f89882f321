/**
 * HorizontalPodAutoscalers (autoscaling/v2): looks every 15 seconds at the metrics of a scalable object and sets its replicas.
 * Recommendations and changes of the last minutes are kept in memory, as upstream does: after a restart stabilization begins with
 * the number of replicas there is. Pods that two autoscalers would scale are left alone.
 */

import type { Scale } from '../../api/autoscaling/v1.gen.ts';
import type {
  CrossVersionObjectReference,
  ExternalMetricSource,
  HorizontalPodAutoscaler,
  MetricIdentifier,
  MetricSpec,
  MetricStatus,
  MetricTarget,
  ObjectMetricSource,
  PodsMetricSource,
} from '../../api/autoscaling/v2.gen.ts';
import type { Pod } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { formatLabelSelector, parseLabelSelector } from '../../api/machinery/labels.ts';
import { formatNano, quantityMilli } from '../../api/machinery/quantity.ts';
import { keyOf } from '../../api/meta.ts';
import { formatTime } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { CUSTOM_RESOURCE_DEFINITIONS, HORIZONTAL_POD_AUTOSCALERS, PODS } from '../../client/resources.ts';
import type { ResourceId, Transport } from '../../client/transport.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';
import { infoOf } from '../runtime/custom-resources.ts';
import { idOf } from '../runtime/resources.ts';
import { externalMetric, objectMetric, podsMetric } from './other-metrics.ts';
import { type PodMetric, resourceMetrics } from './pod-metrics.ts';
import { byAverage, byShare, byUtilization, byValue, type Proposal, type Sample } from './replica-calculation.ts';
import { setReplicas } from './rescaling.ts';
import { applyRules, memoryMs, type Recommendation, type ScaleEvent } from './scaling-rules.ts';

const SYNC_MS = 15_000;
const TOLERANCE = 0.1;

interface Memory {
  /** Of the pods that it scales, as a string. */
  selector?: string;
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
        await new Round(ctx, autoscaler, memory, memories).run();
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
  readonly #memories: ReadonlyMap<string, Memory>;
  readonly #nowMs: number;
  readonly #findings: Findings;

  constructor(
    ctx: ReconcileContext,
    of: HorizontalPodAutoscaler,
    memory: Memory,
    memories: ReadonlyMap<string, Memory>,
  ) {
    this.#ctx = ctx;
    this.#memories = memories;
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
    this.#memory.selector = selector;
    const rivals = this.#rivals(selector);
    if (rivals.length > 0) {
      const message = `pods by selector ${selector} are controlled by multiple HPAs: [${rivals.join(' ')}]`;
      this.#warn('AmbiguousSelector', message);
      this.#findings.set('ScalingActive', 'False', { reason: 'AmbiguousSelector', message });
      return undefined;
    }
    let most: { replicas: number; name: string } | undefined;
    let failed: { reason: string; message: string } | undefined;
    let failures = 0;
    const statuses: MetricStatus[] = [];
    for (const metric of metrics) {
      try {
        const { replicas, name, status } = await this.#measure(metric, scale, current);
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

  /** All autoscalers of the pods, when there is more than this one. */
  #rivals(selector: string): string[] {
    const { namespace = '' } = this.#of.metadata;
    const others = [...this.#memories].filter(
      ([key, memory]) => memory !== this.#memory && memory.selector && key.startsWith(`${namespace}/`),
    );
    if (others.length === 0) return [];
    const pods = this.#pods(selector);
    const rivals = others.filter(([, memory]) => {
      const matches = parseLabelSelector(memory.selector!);
      return pods.some(({ metadata }) => matches(metadata.labels));
    });
    return rivals.length === 0 ? [] : [keyOf(this.#of), ...rivals.map(([key]) => key)];
  }

  #pods(selector: string): Pod[] {
    const matches = parseLabelSelector(selector);
    const { namespace } = this.#of.metadata;
    return [...this.#ctx.informers.get<Pod>(PODS).values()].filter(
      pod => pod.metadata.namespace === namespace && matches(pod.metadata.labels),
    );
  }

  #measure(metric: MetricSpec, scale: Scale, current: number): Promise<Measured> {
    const selector = scale.status?.selector ?? '';
    const told = scale.status?.replicas ?? 0;
    if (metric.pods) return this.#measurePods(metric.pods, selector, current);
    if (metric.object) return this.#measureObject(metric.object, { selector, current, told });
    if (metric.external) return this.#measureExternal(metric.external, { selector, current, told });
    return this.#measureResource(metric, selector, current);
  }

  get #metrics(): Transport {
    return this.#ctx.settings.extensions ?? this.#ctx.transport;
  }

  async #measurePods({ metric, target }: PodsMetricSource, selector: string, current: number): Promise<Measured> {
    const { namespace = '' } = this.#of.metadata;
    let metrics: Map<string, PodMetric>;
    try {
      metrics = await podsMetric(this.#metrics, { namespace, selector, metric });
    } catch (error) {
      throw new Error(`unable to get metric ${metric.name}: ${messageOf(error)}`);
    }
    const proposal = byAverage(
      {
        current,
        pods: this.#pods(selector),
        metrics,
        resource: '',
        container: '',
        tolerances: this.#tolerances(),
        nowMs: this.#nowMs,
      },
      quantityMilli(target.averageValue),
    );
    return {
      replicas: proposal.replicas,
      name: `pods metric ${metric.name}`,
      status: { type: 'Pods', pods: { metric, current: { averageValue: quantityOf(proposal.averageMilli) } } },
    };
  }

  async #measureObject({ describedObject, metric, target }: ObjectMetricSource, of: Replicas): Promise<Measured> {
    const { namespace = '' } = this.#of.metadata;
    const info = infoOf(this.#ctx, describedObject);
    let milli: number;
    try {
      milli = await objectMetric(this.#metrics, { namespace, object: describedObject, info, metric });
    } catch (error) {
      const { kind, name } = describedObject;
      throw new Error(`unable to get metric ${metric.name}: ${kind} on ${namespace} ${name}/${messageOf(error)}`);
    }
    const { replicas, value } = this.#judge(milli, target, of);
    const name = target.value === undefined ? externalName(metric) : `${describedObject.kind} metric ${metric.name}`;
    return { replicas, name, status: { type: 'Object', object: { metric, describedObject, current: value } } };
  }

  async #measureExternal({ metric, target }: ExternalMetricSource, of: Replicas): Promise<Measured> {
    const { namespace = '' } = this.#of.metadata;
    let milli: number;
    try {
      milli = await externalMetric(this.#metrics, { namespace, metric });
    } catch (error) {
      const selector = metric.selector ? formatLabelSelector(metric.selector) : 'nil';
      throw new Error(`unable to get external metric ${namespace}/${metric.name}/${selector}: ${messageOf(error)}`);
    }
    const { replicas, value } = this.#judge(milli, target, of);
    return { replicas, name: externalName(metric), status: { type: 'External', external: { metric, current: value } } };
  }

  /** What a value that is not of single pods asks for. */
  #judge(milli: number, target: MetricTarget, { selector, current, told }: Replicas) {
    const tolerances = this.#tolerances();
    if (target.averageValue !== undefined) {
      const share = byShare({ replicas: told, tolerances }, milli, quantityMilli(target.averageValue));
      return { replicas: share.replicas, value: { averageValue: quantityOf(share.averageMilli) } };
    }
    const pods = this.#pods(selector);
    const replicas = byValue({ current, pods, tolerances }, milli, quantityMilli(target.value));
    return { replicas, value: { value: quantityOf(milli) } };
  }

  async #measureResource(metric: MetricSpec, selector: string, current: number): Promise<Measured> {
    const source = metric.type === 'Resource' ? metric.resource : metric.containerResource;
    if (!source) throw new Error(`invalid metric source: ${metric.type}`);
    const { name: resource, target } = source;
    const container = metric.containerResource?.container ?? '';
    const { namespace = '' } = this.#of.metadata;
    const what = container ? `${resource} container resource` : `${resource} resource`;
    let metrics: Map<string, PodMetric>;
    try {
      metrics = await resourceMetrics(this.#metrics, { namespace, selector, resource, container });
    } catch (error) {
      throw new Error(
        `failed to get ${resource} utilization: unable to get metrics for resource ${resource}: ${messageOf(error)}`,
      );
    }
    const sample: Sample = {
      current,
      pods: this.#pods(selector),
      metrics,
      resource,
      container,
      tolerances: this.#tolerances(),
      nowMs: this.#nowMs,
    };
    const status = (proposal: Proposal) => {
      const value = {
        ...(proposal.utilization === undefined ? {} : { averageUtilization: proposal.utilization }),
        averageValue: quantityOf(proposal.averageMilli, resource),
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
    const target = { of, namespace, name, subresource: 'scale' };
    try {
      await setReplicas(this.#ctx.transport, target, { scale, desired });
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

interface Measured {
  readonly replicas: number;
  /** In events and conditions. */
  readonly name: string;
  readonly status: MetricStatus;
}

interface Replicas {
  readonly selector: string;
  /** That are asked for. */
  readonly current: number;
  /** That the target says it has. */
  readonly told: number;
}

/** Memory is told in Ki and Mi where it is whole bytes. */
const quantityOf = (milli: number, resource = ''): string =>
  formatNano(BigInt(milli) * 1_000_000n, resource === 'memory' ? 'binary' : 'decimal');
const externalName = ({ name, selector }: MetricIdentifier): string =>
  `external metric ${name}(${selector ? formatLabelSelector(selector) : 'nil'})`;

function describe({ type, resource, containerResource }: MetricSpec): string {
  if (resource) return `${resource.name} resource`;
  return containerResource ? `${containerResource.name} container` : type.toLowerCase();
}

/** The resource that the reference's kind is served as. Throws when there is none that can be scaled. */
function resourceOf(ctx: ReconcileContext, reference: CrossVersionObjectReference): ResourceId {
  return idOf(infoOf(ctx, reference));
}

export const horizontalPodAutoscaler: ControllerDefinition = {
  folder: 'horizontalpodautoscaler',
  component: 'horizontal-pod-autoscaler',
  create,
};
