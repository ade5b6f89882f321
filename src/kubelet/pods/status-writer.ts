/**
 * Writes pod statuses: at once, one write a pod at a time, newest first, only what changed. Invariant: the last status given
 * reaches the API server, however long it is away, unless the pod itself is gone.
 */

import type { Pod, PodCondition, PodStatus } from '../../api/core/v1.gen.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { PODS } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import { SOURCE_ANNOTATION } from '../static/manifest.ts';

const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 10_000;
/** That a start is under way is written only when it takes longer than this: the next status mostly says that it is done. */
const BEGINNING_MS = 500;

interface Slot {
  pod: Pod;
  /** What should be there. */
  wanted: PodStatus;
  /** What the API server said is there. */
  written: PodStatus;
  running: Promise<void> | undefined;
  /** Set while a status that says nothing yet waits. */
  later: Timer | undefined;
  isGone: boolean;
  /** The pod of the API that stands for a static one; null while there is none. */
  mirror?: Pod | null;
}

export class StatusWriter {
  readonly #transport: Transport;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #slots = new Map<string, Slot>();
  /** By the uid of the static pod; null when the mirror is gone. */
  readonly #mirrors = new Map<string, Pod | null>();
  readonly #signal: AbortSignal;

  constructor(options: { transport: Transport; clock: Clock; log: Logger; signal: AbortSignal }) {
    this.#transport = options.transport;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#signal = options.signal;
  }

  /** The status last given for the pod, which may be ahead of the API server's. */
  latest(podUid: string): PodStatus | undefined {
    return this.#slots.get(podUid)?.wanted;
  }

  set(pod: Pod, status: PodStatus): void {
    const uid = pod.metadata.uid!;
    let slot = this.#slots.get(uid);
    if (!slot)
      this.#slots.set(
        uid,
        (slot = {
          pod,
          wanted: status,
          written: pod.status ?? {},
          running: undefined,
          later: undefined,
          isGone: false,
          ...(isStatic(pod) ? { mirror: this.#mirrors.get(uid) ?? null } : {}),
        }),
      );
    slot.pod = pod;
    slot.wanted = status;
    if (isBeginning(status) && slot.written.startTime === undefined) {
      slot.later ??= this.#clock.after(BEGINNING_MS, () => this.#kick(slot));
      return;
    }
    this.#kick(slot);
  }
  /** What the API server now has; a difference to what is wanted is written again. */
  observe(pod: Pod): void {
    const slot = this.#slots.get(pod.metadata.uid!);
    if (!slot) return;
    slot.pod = pod;
    if (!slot.running) {
      slot.written = pod.status ?? {};
      if (!slot.later) this.#kick(slot);
    }
  }
  /** As `observe`, of the mirror of a static pod; undefined when it is gone. */
  observeMirror(podUid: string, mirror: Pod | undefined): void {
    this.#mirrors.set(podUid, mirror ?? null);
    const slot = this.#slots.get(podUid);
    if (!slot) return;
    slot.mirror = mirror ?? null;
    if (slot.running) return;
    slot.written = mirror?.status ?? {};
    this.#kick(slot);
  }
  /** Resolves once all that was given for the pod is written, or the pod is gone. */
  async flushed(podUid: string): Promise<void> {
    const pending = this.#slots.get(podUid);
    if (pending?.later) this.#kick(pending);
    for (let slot = this.#slots.get(podUid); slot?.running; slot = this.#slots.get(podUid)) await slot.running;
  }
  forget(podUid: string): void {
    this.#mirrors.delete(podUid);
    const slot = this.#slots.get(podUid);
    if (!slot) return;
    slot.isGone = true;
    slot.later?.cancel();
    this.#slots.delete(podUid);
  }

  #kick(slot: Slot): void {
    slot.later?.cancel();
    slot.later = undefined;
    if (slot.mirror === null) return;
    if (slot.running || slot.isGone || this.#signal.aborted || !statusPatch(slot.wanted, slot.written)) return;
    slot.running = this.#write(slot).finally(() => {
      slot.running = undefined;
      this.#kick(slot);
    });
  }

  async #write(slot: Slot): Promise<void> {
    let retryMs = RETRY_MS_MIN;
    while (!this.#signal.aborted && !slot.isGone) {
      const patch = statusPatch(slot.wanted, slot.written);
      if (!patch) return;
      if (slot.mirror === null) return;
      const { namespace, name, uid } = (slot.mirror ?? slot.pod).metadata;
      try {
        const reply = await this.#transport.patch(
          { of: PODS, ...(namespace ? { namespace } : {}), name, subresource: 'status' },
          { metadata: { uid }, status: patch },
          'application/strategic-merge-patch+json',
        );
        slot.written = (reply as Pod).status ?? {};
        // What the server will not keep would be written for ever: take the answer for the wish.
        const rest = statusPatch(slot.wanted, slot.written);
        if (rest && JSON.stringify(rest) === JSON.stringify(patch)) {
          this.#log.debug('the API server changed a pod status that was written', {
            pod: `${namespace}/${name}`,
            fields: Object.keys(rest),
          });
          slot.written = slot.wanted;
        }
        return;
      } catch (error) {
        if (isReason(error, 'NotFound') || (isReason(error, 'Conflict', 'Invalid') && /uid/i.test(messageOf(error)))) {
          if (slot.mirror) slot.mirror = null;
          else slot.isGone = true;
          return;
        }
        if (isReason(error, 'Invalid', 'BadRequest', 'Forbidden'))
          this.#log.warn('pod status refused', { pod: `${namespace}/${name}`, error: messageOf(error) });
        else
          this.#log.debug('pod status not written, retrying', { pod: `${namespace}/${name}`, error: messageOf(error) });
        await this.#clock.sleep(retryMs, this.#signal);
        retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
      }
    }
  }
}

function isStatic({ metadata }: Pod): boolean {
  return (metadata.annotations?.[SOURCE_ANNOTATION] ?? 'api') !== 'api';
}

function isBeginning(status: PodStatus): boolean {
  const statuses = [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])];
  return (
    status.phase === 'Pending' &&
    !status.podIP &&
    statuses.every(({ state }) => ['ContainerCreating', 'PodInitializing'].includes(state?.waiting?.reason ?? ''))
  );
}

const OWNED = [
  'observedGeneration',
  'phase',
  'message',
  'reason',
  'hostIP',
  'hostIPs',
  'podIP',
  'podIPs',
  'startTime',
  'initContainerStatuses',
  'containerStatuses',
  'ephemeralContainerStatuses',
  'qosClass',
  'resources',
  'allocatedResources',
] as const satisfies readonly (keyof PodStatus)[];
/** Lists that a strategic merge would merge by key instead of replacing. */
const MERGED = new Set<string>(['hostIPs', 'podIPs']);

/** Conditions that are there only while they are true. */
const PASSING = new Set(['PodResizePending', 'PodResizeInProgress']);

/** The strategic merge patch of `status` that turns `from` into `to`, in the fields a kubelet owns; undefined when there is none. */
export function statusPatch(to: PodStatus, from: PodStatus): Record<string, unknown> | undefined {
  const patch: Record<string, unknown> = {};
  for (const field of OWNED) {
    if (same(to[field], from[field])) continue;
    if (to[field] === undefined) patch[field] = null;
    else
      patch[field] =
        MERGED.has(field) && from[field] !== undefined
          ? [...(to[field] as object[]), { $patch: 'replace' }]
          : to[field];
  }
  const conditions = (to.conditions ?? []).filter(
    one => !same(bare(one), bare(from.conditions?.find(other => other.type === one.type))),
  );
  const ended = (from.conditions ?? []).filter(
    ({ type }) => PASSING.has(type) && !to.conditions?.some(one => one.type === type),
  );
  if (conditions.length || ended.length)
    patch['conditions'] = [
      ...conditions.map(one => ({
        ...one,
        lastProbeTime: null,
        ...(one.reason ? {} : { reason: null }),
        ...(one.message ? {} : { message: null }),
      })),
      ...ended.map(({ type }) => ({ type, $patch: 'delete' })),
    ];
  return Object.keys(patch).length ? patch : undefined;
}

function bare(condition: PodCondition | undefined): unknown {
  if (!condition) return undefined;
  const { lastTransitionTime: _, lastProbeTime: __, ...rest } = condition;
  return rest;
}

/** Equal as JSON, where absent, empty object and null are the same: a server may drop or add them. */
export function same(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (isEmpty(a) && isEmpty(b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || !a || !b) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
  for (const key of keys)
    if (!same((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key])) return false;
  return true;
}

function isEmpty(value: unknown): boolean {
  return value === undefined || value === null || (typeof value === 'object' && Object.values(value).every(isEmpty));
}
