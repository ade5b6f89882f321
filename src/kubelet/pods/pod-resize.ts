/**
 * In-place resize of one pod and its containers (KEP-1287, KEP-5419): what the node has granted each of them (allocated), what its control
 * group says (actual), and the way from what the spec wants over the one to the other. Invariant: pods are granted no more
 * than the node has; a container always runs with what it was granted. What was granted survives a restart of the agent in
 * the pod's status. It starts and stops no container itself.
 */

import type { Container, Pod, PodCondition, PodStatus, ResourceRequirements } from '../../api/core/v1.gen.ts';
import { compareQuantity, quantityMilli } from '../../api/machinery/quantity.ts';
import { formatTime } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { deferredResizesAccepted, infeasibleResizes, requestedResizes, resizeDurations } from '../metrics.ts';
import type { ContainerState, RuntimeState } from '../runtime.ts';
import type { ContainerStops } from './container-stops.ts';
import { graceSecondsOf } from './container-stops.ts';
import type { PodSubject } from './pod-subject.ts';
import { capacityRefusal } from './refusals.ts';
import { allContainers, containerLimits, podCgroup, podLimits, podRequest, qosOf } from './resources.ts';
import { latestOf } from './status.ts';

const COMPUTE = ['cpu', 'memory'] as const;
/** Room may be made by other pods at any time. */
const DEFERRED_RETRY_MS = 5000;
const ERROR_RETRY_MS = 5000;

const boundBy = (what: 'CPU' | 'Memory', policy: string): Waiting => ({
  reason: 'Infeasible',
  message: `Resize is infeasible for Guaranteed Pods alongside ${what} Manager policy "${policy}"`,
  detail: `guaranteed_pod_${what.toLowerCase()}_manager_static_policy`,
});

interface Waiting {
  readonly reason: 'Deferred' | 'Infeasible';
  readonly message: string;
  /** Of what is infeasible, for the metric. */
  readonly detail?: string;
}

export class PodResize {
  readonly #subject: PodSubject;
  readonly #stops: ContainerStops;
  readonly #allocated = new Map<string, ResourceRequirements>();
  /** By container id: what its control group has. */
  readonly #actual = new Map<string, ResourceRequirements>();
  /** Of the pod itself: what it was granted, and what its control group has. */
  #allocatedPod: ResourceRequirements | undefined;
  #actualPod: ResourceRequirements | undefined;
  /** What each container asked for when it was last looked at. */
  readonly #asked = new Map<string, ResourceRequirements>();
  #pending: (Waiting & { readonly generation: number | undefined }) | undefined;
  #failure: string | undefined;
  #isUnderWay = false;

  constructor(subject: PodSubject, stops: ContainerStops) {
    this.#subject = subject;
    this.#stops = stops;
  }

  /** The container with what it was granted. */
  granted<T extends Container>(container: T): T {
    const resources = this.#allocated.get(container.name);
    return resources && resources !== container.resources ? { ...container, resources } : container;
  }
  grantedPod(pod: Pod): Pod {
    if (this.#allocated.size === 0) return pod;
    const { initContainers, containers } = pod.spec;
    return {
      ...pod,
      spec: {
        ...pod.spec,
        ...(this.#allocatedPod ? { resources: this.#allocatedPod } : {}),
        containers: containers.map(one => this.granted(one)),
        ...(initContainers ? { initContainers: initContainers.map(one => this.granted(one)) } : {}),
      },
    };
  }
  /** As the status shows it: what the container of that id has, else what it will have. */
  resourcesOf(container: Container, id: string | undefined): ResourceRequirements {
    return (id === undefined ? undefined : this.#actual.get(id)) ?? this.granted(container).resources ?? {};
  }
  /** Of the pod itself, for its status. */
  get podResources(): Pick<PodStatus, 'resources' | 'allocatedResources'> {
    if (!this.#allocatedPod) return {};
    const { requests } = this.#allocatedPod;
    return {
      ...(requests && Object.keys(requests).length ? { allocatedResources: requests } : {}),
      resources: this.#actualPod ?? this.#allocatedPod,
    };
  }
  get conditions(): PodCondition[] {
    const { pod } = this.#subject;
    const of = (type: string, why: { readonly reason?: string; readonly message?: string }): PodCondition => {
      const before = pod.status?.conditions?.find(one => one.type === type);
      const { generation } = pod.metadata;
      return {
        type,
        ...(generation === undefined ? {} : { observedGeneration: generation }),
        status: 'True',
        lastProbeTime: null as unknown as string,
        lastTransitionTime: before?.lastTransitionTime ?? formatTime(this.#subject.context.clock.now()),
        ...why,
      };
    };
    return [
      ...(this.#pending
        ? [of('PodResizePending', { reason: this.#pending.reason, message: this.#pending.message })]
        : []),
      ...(this.#isUnderWay || this.#failure
        ? [of('PodResizeInProgress', this.#failure ? { reason: 'Error', message: this.#failure } : {})]
        : []),
    ];
  }

  /** What runs keeps what it has, and what does not gets what the spec says. To be called before anything else each step. */
  begin(state: RuntimeState): void {
    for (const container of allContainers(this.#subject.pod)) {
      const asked = this.#asked.get(container.name);
      if (asked !== container.resources) {
        if (asked) countRequested(asked, container.resources);
        this.#asked.set(container.name, container.resources ?? {});
      }
      const latest = latestOf(state.containers, container.name);
      const told = this.#subject.toldStatuses.find(one => one.name === container.name);
      if (!this.#allocated.has(container.name)) {
        const before = latest?.state === 'running' ? told?.resources : undefined;
        const isSame = before && COMPUTE.every(name => isEqual(before, container.resources, name));
        this.#allocated.set(container.name, before && !isSame ? before : (container.resources ?? {}));
      }
      if (latest?.state === 'running' && !this.#actual.has(latest.id))
        this.#actual.set(
          latest.id,
          told?.containerID?.endsWith(latest.id) && told.resources
            ? told.resources
            : this.#allocated.get(container.name)!,
        );
    }
    const { spec, status } = this.#subject.pod;
    if (spec.resources && !this.#allocatedPod) {
      // A pod that has run before has what its status says: nothing when it is new to resources of its own.
      const before = state.containers.length ? (status?.resources ?? {}) : undefined;
      const { cpu, memory } = status?.allocatedResources ?? {};
      const granted = { ...(cpu === undefined ? {} : { cpu }), ...(memory === undefined ? {} : { memory }) };
      this.#allocatedPod = before ? { ...before, requests: { ...before.requests, ...granted } } : spec.resources;
      this.#actualPod = before ?? spec.resources;
    }
    for (const id of this.#actual.keys())
      if (!state.containers.some(one => one.id === id && one.state === 'running')) this.#actual.delete(id);
  }

  /** Grants what there is room for, and brings running containers to it. True when the status has changed. */
  async step(state: RuntimeState): Promise<boolean> {
    const before = JSON.stringify(this.conditions);
    this.#grant(state);
    const hasChanged = await this.#actuate(state);
    return hasChanged || JSON.stringify(this.conditions) !== before;
  }

  #grant(state: RuntimeState): void {
    const { pod } = this.#subject;
    const wanted = allContainers(pod).filter(one => !isSame(one.resources, this.#allocated.get(one.name)));
    const isPodWanted = this.#allocatedPod !== undefined && !isSame(pod.spec.resources, this.#allocatedPod);
    if (wanted.length === 0 && !isPodWanted) {
      this.#pending = undefined;
      return;
    }
    const changing = isPodWanted ? allContainers(pod) : wanted;
    const isBefore = !changing.some(one => latestOf(state.containers, one.name)?.state === 'running');
    const waiting = isBefore ? undefined : this.#waitingFor(wanted);
    if (waiting) {
      const { generation } = pod.metadata;
      const before = this.#pending;
      const isNew = before?.reason !== waiting.reason || before.message !== waiting.message;
      this.#pending = { ...waiting, generation };
      if (isNew || before.generation !== generation) {
        this.#event('Warning', waiting.reason, pod, waiting.message);
        if (waiting.detail) infeasibleResizes.add(1, waiting.detail);
      }
      if (waiting.reason === 'Deferred') this.#subject.wakeAfter(DEFERRED_RETRY_MS);
      return;
    }
    // What makes room is not told here: it is looked for from time to time.
    if (this.#pending?.reason === 'Deferred') deferredResizesAccepted.add(1, 'periodic_retry');
    this.#pending = undefined;
    for (const container of wanted) this.#allocated.set(container.name, container.resources ?? {});
    if (isPodWanted) this.#allocatedPod = pod.spec.resources;
    // What does not run yet is made with what it was granted.
    if (isBefore && isPodWanted) this.#actualPod = this.#allocatedPod;
    if (!isBefore) this.#event('Normal', 'Started', this.grantedPod(pod));
  }
  /** Why the node cannot give it, now or ever. */
  #waitingFor(wanted: readonly Container[]): Waiting | undefined {
    const { pod, context, uid } = this.#subject;
    const { cpus, memory, node } = context;
    const changes = (name: string) => wanted.some(one => !isEqual(one.resources, this.#allocated.get(one.name), name));
    if (qosOf(pod) === 'Guaranteed') {
      if (cpus.isStatic && changes('cpu')) return boundBy('CPU', 'static');
      if (memory.isStatic && changes('memory')) return boundBy('Memory', 'Static');
    }
    for (const [name, capacity] of [
      ['memory', node.memoryBytes],
      ['cpu', node.cpuMilli],
    ] as const) {
      const requested = podRequest(pod, name);
      if (requested > capacity)
        return {
          reason: 'Infeasible',
          message: `Node didn't have enough capacity: ${name}, requested: ${requested}, capacity: ${capacity}`,
          detail: 'insufficient_node_allocatable',
        };
    }
    const refusal = capacityRefusal(pod, context.otherPods(uid), node);
    return refusal && { reason: 'Deferred', message: refusal.message };
  }
  #event(type: 'Normal' | 'Warning', what: string, of: Pod, error?: string): void {
    const word = what === 'Deferred' || what === 'Infeasible' ? what : what.toLowerCase();
    this.#subject.event(type, `Resize${what}`, `Pod resize ${word}: ${summaryOf(of, error)}`);
  }

  async #actuate(state: RuntimeState): Promise<boolean> {
    const { context, pod } = this.#subject;
    const changed = allContainers(pod).flatMap(spec => {
      const running = latestOf(state.containers, spec.name);
      if (running?.state !== 'running') return [];
      const actual = this.#actual.get(running.id);
      const goal = this.#allocated.get(spec.name)!;
      return actual && !isSame(actual, goal) ? [{ spec, running, actual, goal }] : [];
    });
    const isPodChanged = this.#allocatedPod !== undefined && !isSame(this.#allocatedPod, this.#actualPod);
    if (changed.length === 0 && !isPodChanged) {
      const wasUnderWay = this.#isUnderWay;
      this.#isUnderWay = false;
      this.#failure = undefined;
      if (wasUnderWay) this.#event('Normal', 'Completed', this.grantedPod(pod));
      return wasUnderWay;
    }
    this.#isUnderWay = true;
    const cgroup = podCgroup(context.cgroupRoot, pod);
    const limits = podLimits(this.grantedPod(pod), context.cpus.has(this.#subject.uid));
    const sinceMs = context.clock.monotonic();
    try {
      // Room first: the pod's group holds its containers'.
      context.cgroups.set(cgroup, { cpuQuotaMicros: -1, memoryBytesMax: -1 });
      for (const one of changed) await this.#change(one);
      if (isPodChanged) this.#checkUsage(cgroup, limits.memoryBytesMax);
      this.#actualPod = this.#allocatedPod;
      this.#failure = undefined;
    } catch (error) {
      const failure = messageOf(error);
      if (this.#failure !== failure) this.#event('Warning', 'Error', this.grantedPod(pod), failure);
      this.#failure = failure;
      this.#subject.wakeAfter(ERROR_RETRY_MS);
      return true;
    } finally {
      resizeDurations.observe(context.clock.monotonic() - sinceMs, String(!this.#failure));
      try {
        context.cgroups.set(cgroup, limits);
      } catch (error) {
        context.log.debug('limits of a pod not set', { pod: this.#subject.name, error: messageOf(error) });
      }
    }
    this.#subject.wake();
    return true;
  }

  #checkUsage(cgroup: string, limit: number | undefined): void {
    const used = this.#subject.context.cgroups.usage(cgroup)?.workingSetBytes ?? 0;
    if (limit === undefined || used < limit || isEqual(this.#allocatedPod, this.#actualPod, 'memory')) return;
    throw new Error(`attempting to set pod memory limit (${limit}) below current usage (${used})`);
  }

  async #change(one: {
    readonly spec: Container;
    readonly running: ContainerState;
    readonly actual: ResourceRequirements;
    readonly goal: ResourceRequirements;
  }): Promise<void> {
    const { spec, running, actual, goal } = one;
    const { runtime, cgroups, cgroupRoot } = this.#subject.context;
    const policies = new Map(
      (spec.resizePolicy ?? []).map(({ resourceName, restartPolicy }) => [resourceName, restartPolicy]),
    );
    const isRestart = COMPUTE.some(name => !isEqual(actual, goal, name) && policies.get(name) === 'RestartContainer');
    if (isRestart) {
      const why = `Container ${spec.name} resize requires restart`;
      await this.#stops.stop(running, spec, graceSecondsOf(this.#subject.pod), why);
      return;
    }
    const owner = { podUid: this.#subject.uid, container: spec.name };
    const limits = this.#subject.context.cpus.limits(containerLimits({ ...spec, resources: goal }), owner);
    const limit = limits.memoryBytesMax;
    const used = cgroups.usage(`${podCgroup(cgroupRoot, this.#subject.pod)}/${running.id}`)?.workingSetBytes ?? 0;
    if (limit !== undefined && used >= limit && !isEqual(actual, goal, 'memory'))
      throw new Error(
        `attempting to set container ${JSON.stringify(spec.name)} memory limit (${limit}) below current usage (${used})`,
      );
    await runtime.update(running.id, limits);
    this.#actual.set(running.id, goal);
  }
}

function isEqual(a: ResourceRequirements | undefined, b: ResourceRequirements | undefined, name: string): boolean {
  return (['requests', 'limits'] as const).every(kind => {
    const [one, other] = [a?.[kind]?.[name], b?.[kind]?.[name]];
    return one === other || (one !== undefined && other !== undefined && compareQuantity(one, other) === 0);
  });
}
function isSame(a: ResourceRequirements | undefined, b: ResourceRequirements | undefined): boolean {
  return a === b || COMPUTE.every(name => isEqual(a, b, name));
}

/** As events tell it: what the pod asks for or was granted, of which generation, and what is wrong. */
function summaryOf({ metadata: { generation = 0 }, spec }: Pod, error: string | undefined): string {
  const of = (containers: readonly Container[] | undefined) =>
    containers?.length ? containers.map(({ name, resources = {} }) => ({ name, resources })) : undefined;
  const [initContainers, containers] = [of(spec.initContainers), of(spec.containers)];
  return JSON.stringify({ initContainers, containers, generation, error });
}

function countRequested(before: ResourceRequirements, after: ResourceRequirements | undefined): void {
  for (const name of COMPUTE)
    for (const requirement of ['requests', 'limits'] as const) {
      const [from, to] = [before, after].map(of => quantityMilli(of?.[requirement]?.[name]));
      if (from === to) continue;
      const operation = !from ? 'add' : !to ? 'remove' : to > from ? 'increase' : 'decrease';
      requestedResizes.add(1, name, requirement, operation);
    }
}
