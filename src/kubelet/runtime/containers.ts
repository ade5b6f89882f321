/**
 * What the node's containers do: their records brought up to what exit files and /proc say, their end, and word of it to who
 * waits or listens. Invariants: a record is saved before anybody hears of what it says; a container counts as running only
 * while the very process it started lives, and nothing of it lives on after it. It makes and starts no container.
 */

import { existsSync, readFileSync, statSync, watch } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { notFound } from '../../base/errors.ts';
import { BoundedQueue } from '../../base/queue.ts';
import type { CgroupTree } from '../../sys/cgroup.ts';
import { isAlive, sendSignal } from '../../sys/process.ts';
import type { ContainerState, RuntimeEvent } from '../runtime.ts';
import type { RuntimeFolders } from './folders.ts';
import type { Monitor } from './monitor.ts';
import { type ContainerRecord, RecordLog } from './records.ts';

/** Exit code of a container whose monitor could not tell it: the machine or its namespaces went down. */
const EXIT_CODE_UNKNOWN = 255;
const EXIT_CODE_KILLED = 137;
const EXIT_POLL_MS = 1000;
const MONITOR_LOOK_MS = 5000;
const SIGNALS: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGUSR1: 10,
  SIGUSR2: 12,
  SIGTERM: 15,
  SIGWINCH: 28,
  SIGPWR: 30,
};
const EVENTS_MAX = 4096;

interface Surroundings {
  readonly folders: RuntimeFolders;
  readonly monitor: Monitor;
  readonly cgroups: CgroupTree;
  readonly clock: Clock;
  /** See `bootIdentity`. */
  readonly boot: string;
  /** Word of each container that has ended, once. */
  readonly ended: (record: ContainerRecord) => void;
}

export class Containers {
  readonly #folders: RuntimeFolders;
  readonly #monitor: Monitor;
  readonly #cgroups: CgroupTree;
  readonly #clock: Clock;
  readonly #boot: string;
  readonly #ended: Surroundings['ended'];
  readonly #log: RecordLog<ContainerRecord>;
  readonly #records = new Map<string, ContainerRecord>();
  /** When each container's monitor was last seen to live. */
  readonly #lookedMs = new Map<string, number>();
  readonly #exitWaiters = new Map<string, Set<() => void>>();
  readonly #listeners = new Set<BoundedQueue<RuntimeEvent>>();

  constructor({ folders, monitor, cgroups, clock, boot, ended }: Surroundings) {
    this.#folders = folders;
    this.#monitor = monitor;
    this.#cgroups = cgroups;
    this.#clock = clock;
    this.#boot = boot;
    this.#ended = ended;
    this.#log = new RecordLog(folders.containerLog);
    for (const record of this.#log.load()) this.#records.set(record.id, record);
  }

  ids(): ReadonlySet<string> {
    return new Set(this.#records.keys());
  }
  all(): Iterable<ContainerRecord> {
    return this.#records.values();
  }
  inSandbox(id: string): ContainerRecord[] {
    return [...this.#records.values()].filter(one => one.sandboxId === id);
  }
  find(id: string): ContainerRecord | undefined {
    return this.#records.get(id);
  }
  get(id: string): ContainerRecord {
    const record = this.#records.get(id);
    if (!record) throw notFound({ group: '', resource: 'containers' }, id);
    return record;
  }
  /** One that runs, or an error that says it does not. */
  running(id: string): ContainerRecord {
    const record = this.get(id);
    if (this.refresh(record) !== 'running') throw new Error(`container ${id} is not running`);
    return record;
  }
  add(record: ContainerRecord): void {
    this.#log.save(record);
    this.#records.set(record.id, record);
  }
  /** What a record says has changed. */
  save(record: ContainerRecord): void {
    this.#log.save(record);
  }
  delete(id: string): void {
    this.#lookedMs.delete(id);
    this.#records.delete(id);
    this.#log.delete(id);
  }

  /** Brings a record up to what the exit files and /proc say. */
  refresh(record: ContainerRecord): ContainerState['state'] {
    if (record.finishedMs !== undefined) return 'exited';
    if (record.boot !== this.#boot) {
      // When it really ended nobody saw; as containerd, now.
      record.finishedMs = this.#clock.now();
      record.exitCode = EXIT_CODE_UNKNOWN;
      record.reason = 'Unknown';
      this.#log.save(record);
      return 'exited';
    }
    if (record.startedMs === undefined) return 'created';
    // Asked before the exit file is read: whatever a monitor that is gone has written is there by then.
    const isAbandoned = record.process && !isAlive(record.process) && !this.#monitor.isAlive(record.id);
    const exit = statSync(this.#folders.exitFile(record.id), { throwIfNoEntry: false });
    const code = exit && readFileSync(this.#folders.exitFile(record.id), 'latin1').trim();
    if (exit && code !== '') {
      record.exitCode = Number(code);
      record.finishedMs = Math.max(Math.round(exit.mtimeMs), record.startedMs);
    } else if (isAbandoned) {
      record.exitCode = EXIT_CODE_UNKNOWN;
      record.reason = 'Unknown';
      record.message = 'the exit code is not known: the process that watches the container (conmon) had ended';
      record.finishedMs = this.#clock.now();
    } else if (this.#hasLostMonitor(record)) {
      record.exitCode = EXIT_CODE_KILLED;
      record.reason = 'MonitorLost';
      record.message =
        'ended because the process that watches the container (conmon) had ended: output and exit code would have been lost';
      record.finishedMs = this.#clock.now();
    } else {
      return 'running';
    }
    record.oomKilled =
      record.exitCode !== 0 &&
      (this.#cgroups.oomKills(record.cgroup) > 0 || existsSync(join(this.#folders.bundle(record.id), 'oom')));
    this.#log.save(record);
    this.kill(record);
    this.#ended(record);
    for (const wake of this.#exitWaiters.get(record.id) ?? []) wake();
    return 'exited';
  }

  // Looking costs two files, and nobody ends a monitor often.
  #hasLostMonitor({ id, process }: ContainerRecord): boolean {
    const nowMs = this.#clock.monotonic();
    if (!process || nowMs - (this.#lookedMs.get(id) ?? Number.NEGATIVE_INFINITY) < MONITOR_LOOK_MS) return false;
    this.#lookedMs.set(id, nowMs);
    return !this.#monitor.isAlive(id) && isAlive(process);
  }

  // Nothing of an ended container may run on: without a process namespace of its own, children can outlive its first process.
  kill(record: ContainerRecord): void {
    for (const pid of this.#cgroups.processes(record.cgroup)) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // Gone already.
      }
    }
  }

  async stop(id: string, graceSeconds: number): Promise<void> {
    const record = this.#records.get(id);
    if (!record) return;
    const state = this.refresh(record);
    if (state === 'exited') return;
    if (state === 'created') {
      record.finishedMs = this.#clock.now();
      record.exitCode = EXIT_CODE_UNKNOWN;
      this.#log.save(record);
      this.#ended(record);
      return;
    }
    if (graceSeconds > 0) {
      if (record.process) sendSignal(record.process, signalNumber(record.stopSignal));
      if (await this.#waitExit(record, graceSeconds * 1000)) return;
    }
    this.kill(record);
    if (record.process) sendSignal(record.process, 'SIGKILL');
    if (!(await this.#waitExit(record, 30_000))) throw new Error(`container ${id} does not end after SIGKILL`);
  }

  async #waitExit(record: ContainerRecord, timeoutMs: number): Promise<boolean> {
    const endMs = this.#clock.monotonic() + timeoutMs;
    while (this.refresh(record) !== 'exited') {
      const leftMs = endMs - this.#clock.monotonic();
      if (leftMs <= 0) return false;
      const wake = new AbortController();
      const waiters = this.#exitWaiters.get(record.id) ?? new Set();
      const wakeUp = () => wake.abort();
      waiters.add(wakeUp);
      this.#exitWaiters.set(record.id, waiters);
      await this.#clock.sleep(Math.min(leftMs, this.#listeners.size > 0 ? EXIT_POLL_MS : 20), wake.signal);
      waiters.delete(wakeUp);
      if (waiters.size === 0) this.#exitWaiters.delete(record.id);
    }
    return true;
  }

  state(record: ContainerRecord): ContainerState {
    const state = this.refresh(record);
    const { id, sandboxId, podUid, config } = record;
    return {
      id,
      sandboxId,
      podUid,
      name: config.name,
      attempt: config.attempt,
      imageRef: config.imageRef,
      imageId: config.imageId,
      state,
      createdMs: record.createdMs,
      startedMs: record.startedMs,
      finishedMs: record.finishedMs,
      exitCode: record.exitCode,
      signal: undefined,
      oomKilled: record.oomKilled ?? false,
      pid: state === 'running' ? record.process?.pid : undefined,
      logPath: config.logPath,
      layerPath: this.#folders.layer(id),
      ...(record.reason ? { reason: record.reason } : {}),
      ...(record.message ? { message: record.message } : {}),
      ...(record.user ? { user: record.user } : {}),
      labels: config.labels,
    };
  }

  emit(event: RuntimeEvent): void {
    for (const queue of this.#listeners) {
      // A full queue already says "look again" many times over.
      queue.push(event);
    }
  }

  async *events(signal: AbortSignal): AsyncIterable<RuntimeEvent> {
    const queue = new BoundedQueue<RuntimeEvent>(EVENTS_MAX);
    const watcher = watch(this.#folders.exits, (_, name) => {
      const record = name ? this.#records.get(name) : undefined;
      if (!record || this.refresh(record) !== 'exited') return;
      this.emit({ podUid: record.podUid, containerId: record.id });
    });
    const stop = () => queue.close();
    signal.addEventListener('abort', stop, { once: true });
    this.#listeners.add(queue);
    try {
      if (!signal.aborted) yield* queue;
    } finally {
      watcher.close();
      this.#listeners.delete(queue);
      signal.removeEventListener('abort', stop);
    }
  }
}

function signalNumber(name: string): number {
  if (/^\d+$/.test(name)) return Number(name);
  const full = name.toUpperCase().startsWith('SIG') ? name.toUpperCase() : `SIG${name.toUpperCase()}`;
  const realtime = /^SIGRTMIN(?:\+(\d+))?$/.exec(full);
  return realtime ? 34 + Number(realtime[1] ?? 0) : (SIGNALS[full] ?? 15);
}
