/**
 * One worker for each pod bound to this node, fed by the API server's watch and the runtime's events. At start it ends what
 * runs for pods that are no longer there. Invariant: nothing is cleaned up before the first full list of pods was seen.
 */

import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Pod } from '../../api/core/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { keyOf } from '../../api/meta.ts';
import { messageOf } from '../../base/errors.ts';
import type { Informer } from '../../client/informer.ts';
import { removeUnmounted } from '../../sys/remove-unmounted.ts';
import type { Evictable } from '../eviction/evictor.ts';
import {
  pendingResizes,
  relistDurations,
  relistIntervals,
  resizesUnderWay,
  runningContainers,
  runningPods,
} from '../metrics.ts';
import type { ContainerState, HostPort } from '../runtime.ts';
import { mirroredUid } from '../static/manifest.ts';
import { PodVolumes } from '../volumes/pod-volumes.ts';
import type { PodContext } from './context.ts';
import { LogRotation } from './log-rotation.ts';
import { PodWorker } from './pod-worker.ts';
import { hostPorts, podCgroup } from './resources.ts';

const POLL_MS = 10_000;

export class PodWorkers {
  readonly #context: PodContext;
  readonly #pods: Informer<Pod>;
  readonly #workers = new Map<string, PodWorker>();
  readonly #rotation: LogRotation;
  #isLooking = false;
  /** Pods that are gone but whose volumes are not, by uid. */
  readonly #leftOver = new Set<string>();
  /** A pod with the name of one that is still ending waits for it. */
  readonly #uids = new Map<string, string>();

  readonly #statics = new Set<string>();
  readonly #onMirror: () => void;

  constructor(context: PodContext, pods: Informer<Pod>, onMirror: () => void) {
    this.#onMirror = onMirror;
    this.#context = context;
    this.#pods = pods;
    const { containerLogMaxBytes: bytesMax, containerLogMaxFiles: filesMax } = context.configuration;
    this.#rotation = new LogRotation({ ...context, bytesMax, filesMax });
  }
  get size(): number {
    return this.#workers.size;
  }
  /** By `namespace/name`. */
  find(key: string): PodWorker | undefined {
    const uid = this.#uids.get(key);
    return uid === undefined ? undefined : this.#workers.get(uid);
  }
  pods(): Pod[] {
    return [...this.#workers.values()].map(worker => worker.pod);
  }
  /** Pods that hold resources of the node. */
  activePods(): Pod[] {
    return [...this.#workers.values()].filter(worker => !worker.isOver).map(worker => worker.granted);
  }
  /** What runs, for the metrics: from what was last told of the pods. */
  tell(): void {
    const containers = new Map([
      ['running', 0],
      ['exited', 0],
    ]);
    const resizes = new Map([
      ['deferred', 0],
      ['infeasible', 0],
    ]);
    let pods = 0;
    let underWay = 0;
    for (const { pod } of this.#workers.values()) {
      for (const { type, reason = '' } of pod.status?.conditions ?? []) {
        if (type === 'PodResizeInProgress') underWay++;
        const word = reason.toLowerCase();
        if (type === 'PodResizePending') resizes.set(word, (resizes.get(word) ?? 0) + 1);
      }
      const { initContainerStatuses = [], containerStatuses = [], ephemeralContainerStatuses = [] } = pod.status ?? {};
      const before = containers.get('running')!;
      for (const { state } of [...initContainerStatuses, ...containerStatuses, ...ephemeralContainerStatuses]) {
        const word = state?.running ? 'running' : state?.terminated ? 'exited' : undefined;
        if (word) containers.set(word, containers.get(word)! + 1);
      }
      if (containers.get('running')! > before) pods++;
    }
    runningPods.set(pods);
    for (const [word, count] of containers) runningContainers.set(count, word);
    resizesUnderWay.set(underWay);
    for (const [word, count] of resizes) pendingResizes.set(count, word);
  }
  /** Those that could make room, with what each uses now. */
  evictable(): Evictable[] {
    const { cgroups, cgroupRoot, runtime } = this.#context;
    return [...this.#workers.values()]
      .filter(worker => !worker.isOver)
      .map(worker => {
        const cgroup = podCgroup(cgroupRoot, worker.pod);
        return {
          pod: worker.pod,
          memoryBytes: () => cgroups.usage(cgroup)?.workingSetBytes ?? 0,
          containerMemory: async () => {
            const { containers } = await runtime.snapshot(worker.pod.metadata.uid);
            const running = containers.filter(one => one.state === 'running');
            return new Map(
              running.map(one => [one.name, cgroups.usage(`${cgroup}/${one.id}`)?.workingSetBytes ?? 0] as const),
            );
          },
          processes: () => cgroups.taskCount(cgroup),
          diskBytes: () => worker.diskBytes(),
          evict: (message, graceSecondsMax) => worker.evict(message, graceSecondsMax),
        };
      });
  }
  /** Whether a pod's end stands in its status; undefined of one that is not known. */
  isOver(uid: string): boolean | undefined {
    const worker = this.#workers.get(uid);
    const phase = worker?.pod.status?.phase;
    return worker?.isOver && (phase === 'Succeeded' || phase === 'Failed');
  }
  /** Frees what pods that are over keep for their logs. */
  async removeDead(): Promise<void> {
    for (const worker of [...this.#workers.values()]) await worker.removeDead();
  }
  /** Something of these pods has changed that no event tells. */
  wake(uids: Iterable<string>): void {
    for (const uid of uids) this.#workers.get(uid)?.wake();
  }

  /** Static pods run at once, those of the API from when `ready` resolves. */
  async run(signal: AbortSignal, { ready }: { readonly ready: Promise<unknown> }): Promise<void> {
    const { log, runtime, clock } = this.#context;
    void (async () => {
      for await (const { podUid, started } of runtime.events(signal)) if (!started) this.#workers.get(podUid)?.wake();
    })().catch(error => log.error('runtime events ended', { error: messageOf(error) }));
    signal.addEventListener(
      'abort',
      () => {
        for (const worker of this.#workers.values()) worker.abandon();
      },
      { once: true },
    );
    await ready;
    if (signal.aborted) return;
    this.#pods.onChange(({ object, old, deleted }) => {
      if (signal.aborted) return;
      const mirrored = mirroredUid(object ?? old);
      if (mirrored !== undefined) {
        this.#context.statuses.observeMirror(mirrored, deleted ? undefined : object);
        return this.#onMirror();
      }
      if (deleted) return this.#removed(old);
      if (old && old.metadata.uid !== object.metadata.uid) this.#removed(old);
      this.#changed(object);
    });
    await Promise.race([
      this.#pods.synced,
      new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true })),
    ]);
    if (signal.aborted) return;
    await this.#removeOrphans();
    await this.publishPorts().catch(error => log.warn('host ports not opened', { error: messageOf(error) }));
    while (!signal.aborted) {
      await clock.sleep(POLL_MS, signal);
      if (!signal.aborted) await this.#poll();
    }
  }

  // Events are only hints: whatever ended without one is found here.
  #states = new Map<string, string>();
  #relistedMs: number | undefined;
  async #poll(): Promise<void> {
    const startMs = this.#context.clock.monotonic();
    const { containers } = await this.#context.runtime.snapshot();
    relistDurations.observe((this.#context.clock.monotonic() - startMs) / 1000);
    if (this.#relistedMs !== undefined) relistIntervals.observe((startMs - this.#relistedMs) / 1000);
    this.#relistedMs = startMs;
    void this.#lookAtDisk(containers);
    if (this.#leftOver.size > 0) await this.#removeVolumes();
    for (const { id, state, podUid } of containers) {
      // One seen first when it has ended already may have ended without a trace, its monitor being dead.
      if ((this.#states.get(id) ?? 'running') !== state) this.#workers.get(podUid)?.wake();
    }
    this.#states = new Map(containers.map(({ id, state }) => [id, state]));
  }

  // Walking large folders may take longer than a beat: the next look then waits for the one after.
  async #lookAtDisk(containers: readonly ContainerState[]): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    try {
      await this.#rotation.check(containers);
      for (const worker of [...this.#workers.values()]) await worker.checkDisk();
    } catch (error) {
      this.#context.log.warn('disk usage of pods not looked at', { error: messageOf(error) });
    } finally {
      this.#isLooking = false;
    }
  }

  /** From what runs, so it is right at any moment; cheap when nothing changed. */
  async publishPorts(): Promise<void> {
    const { runtime, network } = this.#context;
    const { sandboxes } = await runtime.snapshot();
    // Until the API server has told of all pods, ports of those that are not known yet must not be closed.
    if (!this.#pods.hasSynced && sandboxes.some(({ ready, podUid }) => ready && !this.#workers.has(podUid))) return;
    const ports = sandboxes.flatMap(({ ready, podUid, ips }): HostPort[] => {
      const pod = this.#workers.get(podUid)?.pod;
      if (!ready || !pod || pod.spec.hostNetwork) return [];
      return hostPorts(pod).flatMap(port => ips.map(podIp => ({ ...port, podIp })));
    });
    await network.publish(ports);
  }

  async shareCpus(): Promise<void> {
    const { cpus, cgroups, cgroupRoot, runtime, log } = this.#context;
    const { shared } = cpus;
    if (shared === undefined) return;
    const { containers } = await runtime.snapshot();
    for (const { id, podUid, name, state } of containers) {
      const pod = this.#workers.get(podUid)?.pod;
      if (!pod || state !== 'running' || cpus.exclusive(podUid, name).length > 0) continue;
      try {
        cgroups.set(`${podCgroup(cgroupRoot, pod)}/${id}`, { cpus: shared });
      } catch (error) {
        // It may have ended meanwhile.
        log.debug('processors of a container not set', { pod: pod.metadata.name, error: messageOf(error) });
      }
    }
  }

  /** A pod of the node's own, that no API server told of. */
  startStatic(pod: Pod): void {
    this.#statics.add(pod.metadata.uid!);
    this.#changed(pod);
  }
  endStatic(pod: Pod): void {
    this.#statics.delete(pod.metadata.uid!);
    this.#removed(pod);
  }

  #changed(pod: Pod): void {
    const uid = pod.metadata.uid!;
    if (!this.#statics.has(uid)) this.#context.statuses.observe(pod);
    this.#uids.set(keyOf(pod), uid);
    const present = this.#workers.get(uid);
    if (present) return present.update(pod);
    const worker = new PodWorker(this.#context, pod);
    this.#workers.set(uid, worker);
    void worker.done.then(() => {
      this.#workers.delete(uid);
      if (this.#uids.get(keyOf(pod)) === uid) this.#uids.delete(keyOf(pod));
    });
    worker.wake();
  }
  #removed(pod: KubeObject): void {
    this.#workers.get(pod.metadata.uid!)?.remove();
  }

  // A volume's driver may register only later: tried again until all is gone.
  async #removeVolumes(): Promise<void> {
    const { paths, volumes, log } = this.#context;
    for (const uid of this.#leftOver) {
      try {
        await this.#context.claims.release(uid);
        await new PodVolumes({ disk: paths.pod(uid), memory: paths.memory(uid), node: volumes }).unmountAll(uid);
        removeUnmounted(paths.pod(uid));
        paths.removeMemory(uid);
        this.#leftOver.delete(uid);
      } catch (error) {
        log.warn('volumes of a removed pod not cleaned up yet', { uid, error: messageOf(error) });
      }
    }
  }

  async #removeOrphans(): Promise<void> {
    const { runtime, network, paths, cgroups, cgroupRoot, log } = this.#context;
    const known = new Set([...[...this.#pods.values()].map(pod => pod.metadata.uid!), ...this.#statics]);
    const state = await runtime.snapshot();
    const strangers = new Set(
      [...state.sandboxes, ...state.containers].map(one => one.podUid).filter(uid => !known.has(uid)),
    );
    for (const uid of strangers) log.info('ending a pod that is no longer on this node', { uid });
    for (const one of state.containers) if (strangers.has(one.podUid)) await runtime.stop(one.id, 1).catch(() => {});
    for (const one of state.sandboxes)
      if (strangers.has(one.podUid))
        await runtime
          .removeSandbox(one.id)
          .catch(error => log.warn('sandbox not removed', { error: messageOf(error) }));
    for (const one of state.containers) if (strangers.has(one.podUid)) await runtime.remove(one.id).catch(() => {});
    await network.retain(known);
    this.#context.devices.retain(uid => known.has(uid));
    this.#context.memory.retain(uid => known.has(uid));
    this.#context.cpus.retain(uid => known.has(uid));
    await this.shareCpus();
    for (const uid of this.#context.claims.users) if (!known.has(uid)) this.#leftOver.add(uid);
    for (const uid of [...namesIn(paths.pods), ...namesIn(paths.memories)])
      if (!known.has(uid)) this.#leftOver.add(uid);
    await this.#removeVolumes();
    for (const name of namesIn(paths.logsRoot))
      if (!known.has(name.slice(name.lastIndexOf('_') + 1)))
        rmSync(join(paths.logsRoot, name), { recursive: true, force: true });
    for (const parent of ['', '/burstable', '/besteffort']) {
      for (const name of cgroups.children(`${cgroupRoot}/kubepods${parent}`))
        if (name.startsWith('pod') && !known.has(name.slice(3)))
          cgroups.remove(`${cgroupRoot}/kubepods${parent}/${name}`);
    }
  }
}

function namesIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}
