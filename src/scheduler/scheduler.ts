/**
 * Gives each pod a node: takes pods from the queue one by one, decides synchronously, assumes the result, and binds in
 * the background. Invariant: a pod is bound through the binding subresource only, once; everything else it writes is
 * the pod's PodScheduled condition, its nomination, and events.
 */

import type {
  Binding,
  Namespace,
  Node,
  PersistentVolume,
  PersistentVolumeClaim,
  Pod,
  PodCondition,
} from '../api/core/v1.gen.ts';
import { semanticEqual } from '../api/machinery/equality.ts';
import { labelSelectorMatch } from '../api/machinery/labels.ts';
import { podCondition } from '../api/machinery/pod.ts';
import { volumeClass } from '../api/machinery/volume.ts';
import type { PodDisruptionBudget } from '../api/policy/v1.gen.ts';
import type { DeviceClass, ResourceClaim, ResourceSlice } from '../api/resource/v1.gen.ts';
import type { CSIDriver, CSINode, CSIStorageCapacity, StorageClass } from '../api/storage/v1.gen.ts';
import { type Clock, formatTime } from '../base/clock.ts';
import { isReason, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { metrics } from '../base/metrics.ts';
import type { Random } from '../base/random.ts';
import { Client, type ResourceClient } from '../client/client.ts';
import { ApiEventRecorder, type EventRecorder } from '../client/event-recorder.ts';
import type { Informer, InformerFactory } from '../client/informer.ts';
import {
  CSI_DRIVERS,
  CSI_NODES,
  CSI_STORAGE_CAPACITIES,
  DEVICE_CLASSES,
  NAMESPACES,
  NODES,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  POD_DISRUPTION_BUDGETS,
  PODS,
  RESOURCE_CLAIMS,
  RESOURCE_SLICES,
  STORAGE_CLASSES,
} from '../client/resources.ts';
import type { Transport } from '../client/transport.ts';
import { SchedulerCache } from './cache.ts';
import { ClaimBinder, type Reservation } from './claim-binder.ts';
import { describe, Framework, type Infeasible } from './framework.ts';
import {
  algorithmDurations,
  attemptDurations,
  attempts,
  cacheSize,
  goroutines,
  PointTimes,
  pendingPods,
  podAttempts,
  podDurations,
  preemptionAttempts,
  preemptionVictims,
  SCHEDULER_NAME,
  unschedulablePods,
} from './metrics.ts';
import { type NodeInfo, podInfo } from './node-info.ts';
import type { Cluster, ClusterEvent } from './plugin.ts';
import { plugins } from './plugins/registry.ts';
import { podResourceMetrics } from './pod-resource-metrics.ts';
import { preempt } from './preemption.ts';
import { SchedulingQueue } from './queue.ts';
import { VolumeBinder } from './volume-binder.ts';

const CLASS_INDEX = 'class';
/** Bindings under way at once; beyond it the scheduler waits for one to end. */
const BINDINGS_MAX = 128;
/** Decisions between two turns of the event loop, so that watch events and other requests are served in a burst. */
const DECISIONS_PER_TURN = 16;

export interface SchedulerOptions {
  readonly transport: Transport;
  readonly informers: InformerFactory;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
}

export class Scheduler {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #signal: AbortSignal;
  readonly #pods: ResourceClient<Pod>;
  readonly #podInformer: Informer<Pod>;
  readonly #budgets: Informer<PodDisruptionBudget>;
  readonly #events: EventRecorder;
  readonly #framework: Framework;
  readonly #points: PointTimes;
  readonly #cache = new SchedulerCache();
  readonly #queue: SchedulingQueue;
  readonly #cluster: Cluster;
  readonly #volumes: VolumeBinder;
  readonly #claims: ClaimBinder;
  /** Pods that evicted others and wait for the room: node and pod by uid. */
  readonly #nominated = new Map<string, { pod: Pod; node: string }>();
  #bindings = 0;
  #running = false;
  #started = false;
  readonly ready: Promise<void>;

  constructor(options: SchedulerOptions) {
    const { transport, informers, log, clock, random, signal } = options;
    this.#clock = clock;
    this.#log = log;
    this.#signal = signal;
    const client = new Client(transport);
    this.#pods = client.of<Pod>(PODS);
    this.#events = new ApiEventRecorder({ transport, component: SCHEDULER_NAME, log, clock });
    this.#points = new PointTimes(clock);
    this.#framework = new Framework({ plugins, random, clock });
    this.#queue = new SchedulingQueue({ clock, onReady: () => this.#wake() });
    metrics.onCollect(() => {
      for (const [type, count] of Object.entries(this.#cache.sizes)) cacheSize.set(count, type);
      for (const [place, count] of Object.entries(this.#queue.pending())) pendingPods.set(count, place);
      goroutines.set(this.#bindings, 'binding');
      unschedulablePods.clear();
      for (const [plugin, count] of this.#queue.refusals()) unschedulablePods.set(count, plugin, SCHEDULER_NAME);
      const pods = [...this.#podInformer.values()];
      pendingPods.set(pods.filter(({ spec }) => !spec?.nodeName && spec?.schedulingGates?.length).length, 'gated');
    });
    this.#podInformer = informers.get<Pod>(PODS);
    const nodes = informers.get<Node>(NODES);
    const namespaces = informers.get<Namespace>(NAMESPACES);
    const claims = informers.get<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS);
    const volumes = informers.get<PersistentVolume>(PERSISTENT_VOLUMES);
    const classes = informers.get<StorageClass>(STORAGE_CLASSES);
    const csiDrivers = informers.get<CSIDriver>(CSI_DRIVERS);
    const csiNodes = informers.get<CSINode>(CSI_NODES);
    const capacities = informers.get<CSIStorageCapacity>(CSI_STORAGE_CAPACITIES);
    const resourceClaims = informers.get<ResourceClaim>(RESOURCE_CLAIMS);
    const deviceClasses = informers.get<DeviceClass>(DEVICE_CLASSES);
    const resourceSlices = informers.get<ResourceSlice>(RESOURCE_SLICES);
    this.#claims = new ClaimBinder({
      claims: resourceClaims,
      classes: deviceClasses,
      slices: resourceSlices,
      client: client.of<ResourceClaim>(RESOURCE_CLAIMS),
      pods: this.#pods,
      random,
      clock,
    });
    volumes.addIndex(CLASS_INDEX, volume => [volumeClass(volume)]);
    this.#budgets = informers.get<PodDisruptionBudget>(POD_DISRUPTION_BUDGETS);
    this.#cluster = {
      nodes: this.#cache.nodes,
      lookup: {
        namespace: name => namespaces.get(name),
        claim: (namespace, name) => claims.get(`${namespace}/${name}`),
        volume: name => this.#volumes.volume(name),
        storageClass: name => classes.get(name),
        volumesOf: name =>
          volumes.byIndex(CLASS_INDEX, name).map(({ metadata }) => this.#volumes.volume(metadata.name)!),
        csiDriver: name => csiDrivers.get(name),
        csiNode: name => csiNodes.get(name),
        capacities: () => capacities.values(),
        resourceClaim: (namespace, name) => this.#claims.claim(namespace, name),
        deviceClassFor: resource => this.#claims.deviceClassFor(resource),
        leftoverClaim: uid => this.#claims.leftover(uid),
        devices: this.#claims,
      },
    };
    this.#volumes = new VolumeBinder({
      claims,
      volumes,
      claimClient: client.of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS),
      volumeClient: client.of<PersistentVolume>(PERSISTENT_VOLUMES),
      clock,
    });
    nodes.onChange(change => this.#nodeChanged(change.object, change.old));
    this.#podInformer.onChange(change => this.#podChanged(change.object, change.old));
    namespaces.onChange(({ object, old }) => {
      if (old && object && !semanticEqual(old.metadata.labels, object.metadata.labels)) this.#queue.event('namespace');
    });
    for (const informer of [claims, volumes, classes, csiDrivers, csiNodes, capacities] as Informer<PersistentVolume>[])
      informer.onChange(() => this.#queue.event('volume'));
    deviceClasses.onChange(() => this.#queue.event('device-class'));
    for (const informer of [resourceClaims, resourceSlices] as Informer<ResourceClaim>[])
      informer.onChange(() => this.#queue.event('device'));
    this.ready = Promise.all(
      [
        nodes,
        this.#podInformer,
        namespaces,
        claims,
        volumes,
        classes,
        csiDrivers,
        csiNodes,
        capacities,
        resourceClaims,
        deviceClasses,
        resourceSlices,
        this.#budgets,
      ].map(informer => informer.synced),
    ).then(() => {
      this.#started = true;
      this.#wake();
    });
  }

  /** The page `/metrics/resources`. */
  podResources(): string {
    return podResourceMetrics(this.#podInformer.values());
  }

  #nodeChanged(node: Node | undefined, old: Node | undefined): void {
    if (!node) {
      this.#cache.removeNode(old!.metadata.name);
      return;
    }
    this.#cache.setNode(node);
    for (const event of nodeEvents(node, old)) this.#queue.event(event);
  }

  #podChanged(pod: Pod | undefined, old: Pod | undefined): void {
    const uid = (pod ?? old)!.metadata.uid!;
    if (pod && old && old.metadata.uid !== uid) this.#podChanged(undefined, old);
    if (!pod) {
      this.#queue.remove(uid);
      this.#nominated.delete(uid);
      if (this.#cache.removePod(uid)) this.#queue.event('pod-removed');
      return;
    }
    if (pod.spec?.nodeName) {
      this.#queue.remove(uid);
      this.#nominated.delete(uid);
      const counted = this.#cache.isPlaced(uid);
      if (this.#cache.setPod(pod)) this.#queue.event('pod-added');
      else if (counted && !this.#cache.isPlaced(uid)) this.#queue.event('pod-removed');
      return;
    }
    const mine = (pod.spec?.schedulerName ?? SCHEDULER_NAME) === SCHEDULER_NAME;
    if (!mine || pod.metadata.deletionTimestamp || pod.spec?.schedulingGates?.length) {
      this.#queue.remove(uid);
      return;
    }
    if (this.#cache.isPlaced(uid)) return;
    const changed =
      old !== undefined &&
      (!semanticEqual(old.spec, pod.spec) ||
        !semanticEqual(old.metadata.labels, pod.metadata.labels) ||
        !semanticEqual(old.status?.resourceClaimStatuses, pod.status?.resourceClaimStatuses));
    this.#queue.put(pod, { changed });
  }

  #wake(): void {
    if (!this.#started || this.#running || this.#bindings >= BINDINGS_MAX || this.#signal.aborted) return;
    this.#running = true;
    // A microtask: whatever handler woke us finishes first.
    queueMicrotask(() => this.#turn());
  }
  #turn(): void {
    for (let decisions = 0; decisions < DECISIONS_PER_TURN; decisions++) {
      const pod = this.#signal.aborted || this.#bindings >= BINDINGS_MAX ? undefined : this.#queue.take();
      if (!pod) {
        this.#running = false;
        return;
      }
      this.#attempt(pod);
    }
    setImmediate(() => this.#turn());
  }

  #attempt(pod: Pod): void {
    const uid = pod.metadata.uid!;
    const startMs = this.#clock.monotonic();
    let result = 'error';
    try {
      const outcome = this.#framework.schedule(podInfo(pod), this.#clusterFor(pod));
      algorithmDurations.observe((this.#clock.monotonic() - startMs) / 1000);
      if (outcome.node) {
        result = 'scheduled';
        this.#cache.assume(pod, outcome.node.name);
        void this.#bind(pod, outcome.node);
      } else {
        result = 'unschedulable';
        this.#refuse(pod, outcome);
      }
    } catch (error) {
      this.#log.error('scheduling attempt failed', { pod: `${pod.metadata.namespace}/${pod.metadata.name}`, error });
      this.#queue.failed(uid);
    }
    attempts.add(1, result, SCHEDULER_NAME);
    attemptDurations.observe((this.#clock.monotonic() - startMs) / 1000, result, SCHEDULER_NAME);
  }

  /** With the room kept that pods of the same or higher priority have been promised. */
  #clusterFor(pod: Pod): Cluster {
    const promised = [...this.#nominated.values()].filter(
      other =>
        other.pod.metadata.uid !== pod.metadata.uid && (other.pod.spec?.priority ?? 0) >= (pod.spec?.priority ?? 0),
    );
    if (promised.length === 0) return this.#cluster;
    const nodes = new Map(this.#cache.nodes);
    for (const { pod: other, node } of promised) {
      const info = nodes.get(node);
      if (!info) continue;
      const copy = info.clone();
      copy.add(podInfo(other));
      nodes.set(node, copy);
    }
    return { ...this.#cluster, nodes };
  }

  async #bind(pod: Pod, info: NodeInfo): Promise<void> {
    const node = info.name;
    const { namespace = '', name, uid } = pod.metadata;
    this.#bindings++;
    const { lookup } = this.#cluster;
    let claims: Reservation | undefined;
    let isNominated = pod.status?.nominatedNodeName !== undefined;
    try {
      const reservation = this.#points.run('Reserve', () => this.#claims.reserve(podInfo(pod), { node: info, lookup }));
      claims = reservation;
      // Others are to know where it will be while that is prepared.
      if (claims.isNeeded || claims.isWaiting || this.#volumes.isNeeded(podInfo(pod), lookup)) {
        if (pod.status?.nominatedNodeName !== node) await this.#nominate(pod, node);
        isNominated = true;
      }
      await this.#points.wait('PreBind', () => this.#prepareBinding(pod, info, reservation));
      const binding: Binding = {
        apiVersion: 'v1',
        kind: 'Binding',
        metadata: { name, namespace, uid: uid! },
        target: { kind: 'Node', name: node },
      };
      await this.#points.wait('Bind', () => this.#pods.createSubresource(namespace, name, 'binding', binding));
      const history = this.#queue.history(uid!);
      if (history) {
        podAttempts.observe(history.attempts);
        podDurations.observe(history.ms / 1000, history.attempts > 15 ? '16+' : String(history.attempts));
      }
      this.#queue.remove(uid!);
      this.#nominated.delete(uid!);
      this.#events.event(pod, 'Normal', 'Scheduled', `Successfully assigned ${namespace}/${name} to ${node}`);
    } catch (error) {
      this.#points.run('Unreserve', () => {
        claims?.forget();
        this.#cache.forget(uid!);
      });
      this.#queue.event('pod-removed');
      if (isReason(error, 'NotFound')) this.#queue.remove(uid!);
      else if (!this.#signal.aborted) {
        this.#log.warn('binding failed, retrying', { pod: `${namespace}/${name}`, node, error: messageOf(error) });
        this.#events.event(pod, 'Warning', 'FailedScheduling', `binding rejected: ${messageOf(error)}`);
        this.#queue.failed(uid!);
        if (isNominated) void this.#nominate(pod, null);
      }
    } finally {
      this.#bindings--;
      this.#wake();
    }
  }

  async #prepareBinding(pod: Pod, node: NodeInfo, claims: Reservation): Promise<void> {
    await this.#volumes.bindClaims(podInfo(pod), { node, lookup: this.#cluster.lookup, signal: this.#signal });
    await claims.write();
    if (claims.isWaiting) await this.#untilDevicesAreReady(pod, claims, node.name);
  }

  /** Which may take minutes: other pods are bound meanwhile. */
  async #untilDevicesAreReady(pod: Pod, claims: Reservation, node: string): Promise<void> {
    const message = `waiting for binding conditions for device on node ${node}`;
    this.#events.event(pod, 'Normal', 'BindingConditionsPending', message);
    this.#bindings--;
    this.#wake();
    try {
      await claims.untilReady(this.#signal);
    } finally {
      this.#bindings++;
    }
  }

  /** Null takes the nomination back. Never rejects: the pod is bound without. */
  async #nominate(pod: Pod, nominatedNodeName: string | null): Promise<void> {
    const { namespace = '', name, uid } = pod.metadata;
    try {
      await this.#pods.patchStatus(namespace, name, { metadata: { uid }, status: { nominatedNodeName } });
    } catch (error) {
      if (!isReason(error, 'NotFound', 'Conflict'))
        this.#log.warn('nomination not written', { pod: `${namespace}/${name}`, error: messageOf(error) });
    }
  }

  #refuse(pod: Pod, failure: Infeasible): void {
    const uid = pod.metadata.uid!;
    this.#claims.discardLeftover(uid);
    const canPreempt = failure.nodesTotal > 0;
    const preemption = canPreempt
      ? this.#points.run(
          'PostFilter',
          () =>
            preempt(podInfo(pod), {
              plugins,
              cluster: this.#cluster,
              failure,
              isProtected: victim => this.#isProtected(victim),
            }),
          ({ node }) => (node === undefined ? 'Unschedulable' : 'Success'),
        )
      : undefined;
    const message = describe(
      failure,
      // The first half is what upstream's plugin for resource claims says of pods without claims.
      preemption && preemption.node === undefined
        ? `no new claims to deallocate, preemption: ${preemption.message}`
        : '',
    );
    this.#events.event(pod, 'Warning', 'FailedScheduling', message);
    const nominated = preemption?.node ? { node: preemption.node, victims: preemption.victims } : undefined;
    if (canPreempt) preemptionAttempts.add();
    if (nominated) preemptionVictims.observe(nominated.victims.length);
    if (nominated) this.#nominated.set(uid, { pod, node: nominated.node });
    this.#queue.unschedulable(uid, {
      refusedBy: failure.refusedBy,
      wakesOn: nominated ? new Set([...failure.wakesOn, 'pod-removed']) : failure.wakesOn,
    });
    const waits = preemption && preemption.node === undefined && preemption.waits;
    void this.#report(pod, message, waits ? undefined : (nominated?.node ?? null));
    if (nominated)
      void this.#evict(
        pod,
        nominated.victims.map(victim => victim.pod),
        nominated.node,
      );
  }

  #isProtected(pod: Pod): boolean {
    for (const budget of this.#budgets.values()) {
      if (
        budget.metadata.namespace === pod.metadata.namespace &&
        (budget.status?.disruptionsAllowed ?? 0) <= 0 &&
        labelSelectorMatch(budget.spec?.selector)(pod.metadata.labels)
      )
        return true;
    }
    return false;
  }

  async #evict(pod: Pod, victims: readonly Pod[], node: string): Promise<void> {
    await Promise.all(
      victims.map(async victim => {
        const { namespace = '', name, uid } = victim.metadata;
        if (victim.metadata.deletionTimestamp) return;
        try {
          const condition = {
            type: 'DisruptionTarget',
            status: 'True',
            reason: 'PreemptionByScheduler',
            message: `${SCHEDULER_NAME}: preempting to accommodate a higher priority pod`,
            lastTransitionTime: formatTime(this.#clock.now()),
          };
          await this.#pods.patchStatus(
            namespace,
            name,
            { metadata: { uid }, status: { conditions: [condition] } },
            'application/strategic-merge-patch+json',
          );
          await this.#pods.delete(namespace, name, { preconditions: { uid: uid! } });
          this.#events.event(victim, 'Normal', 'Preempted', `Preempted by pod ${pod.metadata.uid} on node ${node}`);
        } catch (error) {
          if (!isReason(error, 'NotFound'))
            this.#log.warn('victim not deleted', { pod: `${namespace}/${name}`, error: messageOf(error) });
        }
      }),
    );
  }

  /** Writes PodScheduled=False and the nomination (null: none any more; since 1.35), when they say something new. */
  async #report(pod: Pod, message: string, nominatedNodeName: string | null | undefined): Promise<void> {
    const { namespace = '', name, uid } = pod.metadata;
    const current = this.#podInformer.get(`${namespace}/${name}`) ?? pod;
    const before = podCondition(current, 'PodScheduled');
    const same = before?.status === 'False' && before.reason === 'Unschedulable' && before.message === message;
    const isNominated =
      nominatedNodeName === undefined || (current.status?.nominatedNodeName ?? null) === nominatedNodeName;
    if (same && isNominated) return;
    const condition: PodCondition = {
      type: 'PodScheduled',
      status: 'False',
      reason: 'Unschedulable',
      message,
      lastTransitionTime:
        before?.status === 'False' && before.lastTransitionTime
          ? before.lastTransitionTime
          : formatTime(this.#clock.now()),
      ...(current.metadata.generation ? { observedGeneration: current.metadata.generation } : {}),
    };
    try {
      await this.#pods.patchStatus(
        namespace,
        name,
        { metadata: { uid }, status: { conditions: [condition], ...(isNominated ? {} : { nominatedNodeName }) } },
        'application/strategic-merge-patch+json',
      );
    } catch (error) {
      if (!isReason(error, 'NotFound', 'Conflict'))
        this.#log.warn('PodScheduled condition not written', { pod: `${namespace}/${name}`, error: messageOf(error) });
    }
  }
}

function nodeEvents(node: Node, old: Node | undefined): ClusterEvent[] {
  if (!old) return ['node-added'];
  const events: ClusterEvent[] = [];
  if (!semanticEqual(node.status?.allocatable, old.status?.allocatable)) events.push('node-allocatable');
  if (!semanticEqual(node.metadata.labels, old.metadata.labels)) events.push('node-labels');
  if (!semanticEqual(node.status?.declaredFeatures, old.status?.declaredFeatures)) events.push('node-features');
  if (!semanticEqual(node.spec?.taints, old.spec?.taints) || node.spec?.unschedulable !== old.spec?.unschedulable)
    events.push('node-taints');
  return events;
}

/** Runs until the signal aborts; `ready` resolves once its informers have synced. The factory must be started by its owner. */
export function startScheduler(options: SchedulerOptions): Scheduler {
  return new Scheduler(options);
}
