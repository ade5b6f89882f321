/**
 * Pods that wait for a node. Three places: active (highest priority first, then oldest), retry (woken by an event; taken
 * when nothing is active, so that an idle scheduler never stalls and a busy one is not flooded), and unschedulable (waits
 * for an event that one of the plugins which refused it named). A pod is in one place at most.
 */

import type { Pod } from '../api/core/v1.gen.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { incomingPods } from './metrics.ts';
import type { ClusterEvent } from './plugin.ts';

/** Upstream's labels of what brings pods into a queue. */
const LABELS: Readonly<Record<ClusterEvent, string>> = {
  'node-added': 'NodeAdd',
  'node-allocatable': 'NodeUpdateNodeAllocatable',
  'node-labels': 'NodeUpdateNodeLabel',
  'node-taints': 'NodeUpdateNodeTaint',
  'node-features': 'NodeUpdateNodeDeclaredFeature',
  'pod-removed': 'AssignedPodDelete',
  'pod-added': 'AssignedPodAdd',
  volume: 'PersistentVolumeClaimUpdate',
  namespace: 'NamespaceUpdate',
  device: 'ResourceSliceUpdate',
  'device-class': 'DeviceClassUpdate',
};

/** Without any event a pod is tried again after this long: upstream's pod-max-in-unschedulable-pods-duration. */
const UNSCHEDULABLE_MS_MAX = 5 * 60 * 1000;
const ERROR_RETRY_MS_MIN = 1000;
const ERROR_RETRY_MS_MAX = 10_000;

const NOBODY: ReadonlySet<string> = new Set();

interface Waiting {
  pod: Pod;
  readonly sinceMs: number;
  readonly sequence: number;
  attempts: number;
  place: 'active' | 'retry' | 'unschedulable' | 'timer' | 'taken';
  wakesOn: ReadonlySet<ClusterEvent>;
  /** Names of the plugins that refused it when it was tried last. */
  refusedBy: ReadonlySet<string>;
  timer: Timer | undefined;
  /** An event arrived while the pod was being tried: its failure may be out of date. */
  eventsMissed: Set<ClusterEvent>;
}

function before(a: Waiting, b: Waiting): boolean {
  const difference = (b.pod.spec?.priority ?? 0) - (a.pod.spec?.priority ?? 0);
  return difference < 0 || (difference === 0 && a.sequence < b.sequence);
}

/** A binary heap; entries that have moved elsewhere are skipped when they come up. */
class Heap {
  readonly #items: Waiting[] = [];

  push(item: Waiting): void {
    const items = this.#items;
    let at = items.push(item) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(item, items[parent]!)) break;
      items[at] = items[parent]!;
      at = parent;
    }
    items[at] = item;
  }
  pop(): Waiting | undefined {
    const items = this.#items;
    const first = items[0];
    const last = items.pop();
    if (items.length === 0 || !last) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && before(items[child + 1]!, items[child]!)) child++;
      if (!before(items[child]!, last)) break;
      items[at] = items[child]!;
      at = child;
    }
    items[at] = last;
    return first;
  }
}

export class SchedulingQueue {
  readonly #clock: Clock;
  readonly #onReady: () => void;
  readonly #pods = new Map<string, Waiting>();
  readonly #active = new Heap();
  readonly #retry = new Heap();
  #sequence = 0;

  /** `onReady` is called when a pod may be taken. */
  constructor(options: { clock: Clock; onReady: () => void }) {
    this.#clock = options.clock;
    this.#onReady = options.onReady;
  }
  get size(): number {
    return this.#pods.size;
  }
  /** How often a pod was tried, and for how long it has been known. */
  history(uid: string): { readonly attempts: number; readonly ms: number } | undefined {
    const waiting = this.#pods.get(uid);
    return waiting && { attempts: waiting.attempts, ms: this.#clock.monotonic() - waiting.sinceMs };
  }
  /** Pods by upstream's names of the places where they wait. */
  pending(): Readonly<Record<'active' | 'backoff' | 'unschedulable', number>> {
    const counts = { active: 0, backoff: 0, unschedulable: 0 };
    for (const { place } of this.#pods.values()) {
      if (place === 'active') counts.active++;
      else if (place === 'retry' || place === 'timer') counts.backoff++;
      else if (place === 'unschedulable') counts.unschedulable++;
    }
    return counts;
  }
  /** How many pods that still wait each plugin has refused. */
  refusals(): ReadonlyMap<string, number> {
    const counts = new Map<string, number>();
    for (const { refusedBy } of this.#pods.values())
      for (const plugin of refusedBy) counts.set(plugin, (counts.get(plugin) ?? 0) + 1);
    return counts;
  }
  has(uid: string): boolean {
    return this.#pods.has(uid);
  }
  /** A new pod, or a newer state of one that waits; `changed` says that the change may help it. */
  put(pod: Pod, options: { changed: boolean }): void {
    const uid = pod.metadata.uid!;
    const known = this.#pods.get(uid);
    if (!known) {
      const waiting: Waiting = {
        pod,
        sinceMs: this.#clock.monotonic(),
        sequence: this.#sequence++,
        attempts: 0,
        place: 'active',
        wakesOn: new Set(),
        refusedBy: NOBODY,
        timer: undefined,
        eventsMissed: new Set(),
      };
      this.#pods.set(uid, waiting);
      this.#active.push(waiting);
      incomingPods.add(1, 'active', 'UnscheduledPodAdd');
      this.#onReady();
      return;
    }
    known.pod = pod;
    if (options.changed && known.place === 'unschedulable') this.#move(known, 'active', 'UnscheduledPodUpdate');
  }
  remove(uid: string): void {
    const waiting = this.#pods.get(uid);
    if (!waiting) return;
    waiting.timer?.cancel();
    waiting.place = 'taken';
    this.#pods.delete(uid);
  }
  /** The next pod to try; it stays known until `remove`, or goes back by one of the two below. */
  take(): Pod | undefined {
    return this.#takeFrom(this.#active, 'active') ?? this.#takeFrom(this.#retry, 'retry');
  }
  /** No node took it: wait for an event. */
  unschedulable(uid: string, { wakesOn, refusedBy }: Pick<Waiting, 'wakesOn' | 'refusedBy'>): void {
    const waiting = this.#pods.get(uid);
    if (!waiting) return;
    waiting.wakesOn = wakesOn;
    waiting.refusedBy = refusedBy;
    if ([...waiting.eventsMissed].some(event => wakesOn.has(event))) {
      this.#move(waiting, 'retry', 'ScheduleAttemptFailure');
      return;
    }
    waiting.place = 'unschedulable';
    incomingPods.add(1, 'unschedulable', 'ScheduleAttemptFailure');
    const again = () => this.#move(waiting, 'retry', 'UnschedulableTimeout');
    waiting.timer = this.#clock.after(UNSCHEDULABLE_MS_MAX, again, { background: true });
  }
  /** Something else failed, such as the write of the binding: try again after a back-off. */
  failed(uid: string): void {
    const waiting = this.#pods.get(uid);
    if (!waiting) return;
    waiting.place = 'timer';
    const delayMs = Math.min(ERROR_RETRY_MS_MAX, ERROR_RETRY_MS_MIN * 2 ** Math.min(10, waiting.attempts - 1));
    incomingPods.add(1, 'backoff', 'ScheduleAttemptFailure');
    waiting.timer = this.#clock.after(delayMs, () => this.#move(waiting, 'active', 'BackoffComplete'));
  }
  /** Wakes the pods that the event may help. */
  event(event: ClusterEvent): void {
    for (const waiting of this.#pods.values()) {
      if (waiting.place === 'taken') waiting.eventsMissed.add(event);
      else if (waiting.place === 'unschedulable' && waiting.wakesOn.has(event))
        this.#move(waiting, 'retry', LABELS[event]);
    }
  }

  #takeFrom(heap: Heap, place: 'active' | 'retry'): Pod | undefined {
    for (let waiting = heap.pop(); waiting; waiting = heap.pop()) {
      if (waiting.place !== place) continue;
      waiting.place = 'taken';
      waiting.attempts++;
      waiting.refusedBy = NOBODY;
      waiting.eventsMissed.clear();
      return waiting.pod;
    }
    return undefined;
  }
  #move(waiting: Waiting, place: 'active' | 'retry', why: string): void {
    incomingPods.add(1, place === 'active' ? 'active' : 'backoff', why);
    waiting.timer?.cancel();
    waiting.timer = undefined;
    waiting.place = place;
    (place === 'active' ? this.#active : this.#retry).push(waiting);
    this.#onReady();
  }
}
