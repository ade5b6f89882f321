/**
 * Watches nodes' heartbeats (leases): a silent node's conditions become Unknown, its taints follow its conditions, and its
 * pods stop being ready. Evicting them is the taint eviction controller's. Invariant: time is this process's own since
 * it last saw a heartbeat change, never the node's clock; when no node at all is ready it taints none for eviction, since
 * then the fault is more likely here.
 */

import type { Lease } from '../../api/coordination/v1.gen.ts';
import type { Node, NodeCondition, Pod, Taint } from '../../api/core/v1.gen.ts';
import { isPodReady } from '../../api/machinery/pod.ts';
import { formatTime } from '../../base/clock.ts';
import { isReason } from '../../base/errors.ts';
import { metrics } from '../../base/metrics.ts';
import { LEASES, NODES, PODS } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';

const evictions = metrics.counter(
  'node_collector_evictions_total',
  'Number of Node evictions that happened since current instance of NodeController started.',
  ['zone'],
);
/** Of the metric. */
const zoneOf = ({ metadata: { labels = {} } }: Node): string => {
  const region = labels['topology.kubernetes.io/region'] ?? '';
  const zone = labels['topology.kubernetes.io/zone'] ?? '';
  return region === '' && zone === '' ? '' : `${region}:\0:${zone}`;
};

/** Upstream's --node-monitor-grace-period: 50 s since v1.32. */
const GRACE_MS = 50_000;
/** A node that never posted a status gets longer: --node-startup-grace-period. */
const STARTUP_GRACE_MS = 60_000;
const LEASE_NAMESPACE = 'kube-node-lease';
const NODE_INDEX = 'node';

const NOT_READY = 'node.kubernetes.io/not-ready';
const UNREACHABLE = 'node.kubernetes.io/unreachable';
/** Condition type → status → key of the NoSchedule taint it means. */
const CONDITION_TAINTS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  Ready: { False: NOT_READY, Unknown: UNREACHABLE },
  MemoryPressure: { True: 'node.kubernetes.io/memory-pressure' },
  DiskPressure: { True: 'node.kubernetes.io/disk-pressure' },
  PIDPressure: { True: 'node.kubernetes.io/pid-pressure' },
  NetworkUnavailable: { True: 'node.kubernetes.io/network-unavailable' },
};
const UNSCHEDULABLE = 'node.kubernetes.io/unschedulable';
const OWN_NO_SCHEDULE = new Set([
  ...Object.values(CONDITION_TAINTS).flatMap(byStatus => Object.values(byStatus)),
  UNSCHEDULABLE,
]);
const MONITORED = ['Ready', 'MemoryPressure', 'DiskPressure', 'PIDPressure'];

const readyStatus = (node: Node): string | undefined =>
  node.status?.conditions?.find(({ type }) => type === 'Ready')?.status;

/** The taints the node should have; foreign ones are kept, times of those that stay too. */
export function desiredTaints(node: Node, options: { evict: boolean; nowMs: number }): Taint[] {
  const present = node.spec?.taints ?? [];
  const wanted: Taint[] = [];
  for (const { type, status } of node.status?.conditions ?? []) {
    const key = CONDITION_TAINTS[type]?.[status];
    if (key) wanted.push({ key, effect: 'NoSchedule' });
  }
  if (node.spec?.unschedulable) wanted.push({ key: UNSCHEDULABLE, effect: 'NoSchedule' });
  const ready = readyStatus(node);
  if (options.evict && ready === 'False') wanted.push({ key: NOT_READY, effect: 'NoExecute' });
  if (options.evict && ready === 'Unknown') wanted.push({ key: UNREACHABLE, effect: 'NoExecute' });
  const isOwn = ({ key, effect }: Taint) =>
    (effect === 'NoSchedule' && OWN_NO_SCHEDULE.has(key)) ||
    (effect === 'NoExecute' && (key === NOT_READY || key === UNREACHABLE));
  const isWanted = (taint: Taint) => wanted.some(({ key, effect }) => key === taint.key && effect === taint.effect);
  const kept = present.filter(taint => !isOwn(taint) || isWanted(taint));
  const added = wanted.filter(
    ({ key, effect }) => !present.some(taint => taint.key === key && taint.effect === effect),
  );
  return [...kept, ...added.map(taint => ({ ...taint, timeAdded: formatTime(options.nowMs) }))];
}

function silentConditions(node: Node, nowMs: number): NodeCondition[] {
  const present = node.status?.conditions ?? [];
  const now = formatTime(nowMs);
  const unknown = MONITORED.map((type): NodeCondition => {
    const old = present.find(condition => condition.type === type);
    if (!old)
      return {
        type,
        status: 'Unknown',
        reason: 'NodeStatusNeverUpdated',
        message: 'Kubelet never posted node status.',
        lastHeartbeatTime: node.metadata.creationTimestamp!,
        lastTransitionTime: now,
      };
    if (old.status === 'Unknown') return old;
    return {
      ...old,
      status: 'Unknown',
      reason: 'NodeStatusUnknown',
      message: 'Kubelet stopped posting node status.',
      lastTransitionTime: now,
    };
  });
  return [...present.filter(({ type }) => !MONITORED.includes(type)), ...unknown];
}

class NodeLifecycle {
  readonly #ctx: ReconcileContext;
  readonly nodes;
  readonly #pods;
  /** When this process last saw the node's heartbeat change. */
  readonly #heardMs = new Map<string, number>();

  constructor(ctx: ReconcileContext) {
    this.#ctx = ctx;
    this.nodes = ctx.informers.get<Node>(NODES);
    this.#pods = ctx.informers.get<Pod>(PODS);
    this.#pods.addIndex(NODE_INDEX, pod => [pod.spec?.nodeName ?? '']);
  }

  heard(name: string): void {
    this.#heardMs.set(name, this.#ctx.clock.monotonic());
    this.#ctx.enqueue(name, GRACE_MS + 100);
  }
  forget(name: string): void {
    this.#heardMs.delete(name);
  }

  async reconcile(name: string): Promise<Result | void> {
    let node = this.nodes.get(name);
    if (!node) return;
    const nowMs = this.#ctx.clock.monotonic();
    const heardMs = this.#heardMs.get(name) ?? nowMs;
    const graceMs = node.status?.conditions?.length ? GRACE_MS : STARTUP_GRACE_MS;
    if (
      nowMs - heardMs >= graceMs &&
      MONITORED.some(type => node!.status?.conditions?.find(condition => condition.type === type)?.status !== 'Unknown')
    ) {
      const wasReady = readyStatus(node) === 'True';
      node = await this.#ctx.client.of<Node>(NODES).updateStatus({
        ...node,
        status: { ...node.status, conditions: silentConditions(node, this.#ctx.clock.now()) },
      });
      if (wasReady) this.#ctx.events.event(node, 'Normal', 'NodeNotReady', `Node ${name} status is now: NodeNotReady`);
    }
    await this.#syncTaints(node);
    if (readyStatus(node) !== 'True' && readyStatus(node) !== undefined) await this.#markPodsNotReady(node);
    if (nowMs - heardMs < graceMs) return { requeueAfterMs: graceMs - (nowMs - heardMs) + 100 };
  }

  async #syncTaints(node: Node): Promise<void> {
    const evict = [...this.nodes.values()].some(other => readyStatus(other) === 'True');
    const taints = desiredTaints(node, { evict, nowMs: this.#ctx.clock.now() });
    const present = node.spec?.taints ?? [];
    if (taints.length === present.length && taints.every((taint, i) => taint === present[i])) return;
    await this.#ctx.client.of<Node>(NODES).patch('', node.metadata.name, {
      metadata: { resourceVersion: node.metadata.resourceVersion },
      spec: { taints },
    });
    const isEvicting = (all: readonly Taint[]) =>
      all.some(({ key, effect }) => effect === 'NoExecute' && [NOT_READY, UNREACHABLE].includes(key));
    if (isEvicting(taints) && !isEvicting(present)) evictions.add(1, zoneOf(node));
  }

  async #markPodsNotReady(node: Node): Promise<void> {
    await Promise.all(
      this.#pods
        .byIndex(NODE_INDEX, node.metadata.name)
        .filter(isPodReady)
        .map(async pod => {
          const { namespace = '', name } = pod.metadata;
          const now = formatTime(this.#ctx.clock.now());
          const conditions = (pod.status?.conditions ?? []).map(condition =>
            condition.type === 'Ready' ? { ...condition, status: 'False', lastTransitionTime: now } : condition,
          );
          try {
            await this.#ctx.client.of<Pod>(PODS).updateStatus({ ...pod, status: { ...pod.status, conditions } });
            this.#ctx.events.event(pod, 'Warning', 'NodeNotReady', 'Node is not ready');
          } catch (error) {
            if (!isReason(error, 'NotFound', 'Conflict')) throw error;
            this.#ctx.log.debug('pod not marked unready', { pod: `${namespace}/${name}` });
          }
        }),
    );
  }
}

function create(ctx: ReconcileContext): Controller {
  const lifecycle = new NodeLifecycle(ctx);
  return {
    name: 'nodelifecycle',
    watches: [
      watch<Node>(NODES, change => {
        const { name } = latest(change).metadata;
        if (change.deleted) {
          lifecycle.forget(name);
          ctx.events.event(
            change.old,
            'Normal',
            'RemovingNode',
            `Node ${name} event: Removing Node ${name} from Controller`,
          );
          return [];
        }
        if (!change.old) {
          lifecycle.heard(name);
          ctx.events.event(
            change.object,
            'Normal',
            'RegisteredNode',
            `Node ${name} event: Registered Node ${name} in Controller`,
          );
        } else if (heartbeat(change.object) !== heartbeat(change.old)) lifecycle.heard(name);
        // Whether anything may be evicted depends on all nodes together.
        const turned = readyStatus(change.object) !== (change.old && readyStatus(change.old));
        return turned ? [...lifecycle.nodes.values()].map(node => node.metadata.name).concat(name) : [name];
      }),
      watch<Lease>(LEASES, change => {
        const { namespace, name } = latest(change).metadata;
        if (
          namespace === LEASE_NAMESPACE &&
          !change.deleted &&
          change.object.spec?.renewTime !== change.old?.spec?.renewTime
        )
          lifecycle.heard(name);
        return [];
      }),
      watch<Pod>(PODS, () => []),
    ],
    reconcile: ({ name }) => lifecycle.reconcile(name),
  };
}

const heartbeat = (node: Node): string | undefined =>
  node.status?.conditions?.find(({ type }) => type === 'Ready')?.lastHeartbeatTime;

export const nodeLifecycle: ControllerDefinition = { folder: 'nodelifecycle', component: 'node-controller', create };
