/**
 * Starts one pod's containers in their order (init containers and sidecars, ephemeral ones, all others) and starts again what
 * ended and may, after its back-off. Invariant: of each container at most one runs, in the present sandbox, and its attempt
 * counts on from the last one. It makes no sandbox, mounts no volume and writes no status; why a container waits it tells.
 */

import type { Container, EphemeralContainer } from '../../api/core/v1.gen.ts';
import { messageOf } from '../../base/errors.ts';
import type { Image } from '../images/image-store.ts';
import { startedContainerErrors, startedContainers } from '../metrics.ts';
import type { ContainerConfig, ContainerState, SandboxState } from '../runtime.ts';
import { SubPathMissing } from '../volumes/sub-path.ts';
import { containerConfig, containerHash } from './container-config.ts';
import { type ContainerStops, graceSecondsOf } from './container-stops.ts';
import type { PodContext } from './context.ts';
import { beyond, keptOfEach } from './dead-containers.ts';
import { runHook } from './hooks.ts';
import { ImagePresence } from './image-presence.ts';
import type { PodMounts } from './pod-mounts.ts';
import type { PodProbes } from './pod-probes.ts';
import type { PodResize } from './pod-resize.ts';
import type { PodSubject } from './pod-subject.ts';
import { isSidecar } from './resources.ts';
import { isRestartingAll, wasRemoved } from './restart-all.ts';
import { RestartBackoff } from './restart-backoff.ts';
import { latestOf, restarts, type Waiting } from './status.ts';

/** What containers that are to start wait for, and what they give back once they run. */
export interface Beginning {
  /** Whether the volumes are there. */
  readonly mounted: Promise<boolean>;
  leave(): void;
}
export const MOUNTED: Beginning = { mounted: Promise.resolve(true), leave: () => {} };

type Creation = { readonly id: string } | { readonly reason: string; readonly error: unknown };

interface Parts {
  readonly mounts: PodMounts;
  readonly probes: PodProbes;
  readonly stops: ContainerStops;
  readonly resize: PodResize;
}

export class ContainerStarts {
  readonly #context: PodContext;
  readonly #subject: PodSubject;
  readonly #mounts: PodMounts;
  readonly #probes: PodProbes;
  readonly #stops: ContainerStops;
  readonly #resize: PodResize;
  readonly #images: ImagePresence;
  readonly #backoff: RestartBackoff;
  readonly #waiting = new Map<string, Waiting>();

  constructor(subject: PodSubject, { mounts, probes, stops, resize }: Parts) {
    const { context } = subject;
    this.#context = context;
    this.#subject = subject;
    this.#mounts = mounts;
    this.#probes = probes;
    this.#stops = stops;
    this.#resize = resize;
    this.#images = new ImagePresence(subject);
    this.#backoff = new RestartBackoff(context.clock, context.configuration.crashLoopBackOffSecondsMax);
  }
  /** The pod ends: nothing more is fetched for it. */
  abort(): void {
    this.#images.abort();
  }
  /** Why containers that do not run wait, by name. */
  get waiting(): ReadonlyMap<string, Waiting> {
    const missing = this.#mounts.missingImage;
    if (!missing) return this.#waiting;
    const { initContainers = [], containers } = this.#subject.pod.spec;
    const waiters = [...initContainers, ...containers].filter(({ volumeMounts }) =>
      volumeMounts?.some(({ name }) => name === missing.volume),
    );
    return new Map([...waiters.map(({ name }) => [name, missing.waiting] as const), ...this.#waiting]);
  }

  /** Init containers in order, sidecars among them left running, then all others. */
  async run(sandbox: SandboxState, begin: Beginning): Promise<void> {
    const snapshot = async () => (await this.#context.runtime.snapshot(this.#subject.uid)).containers;
    const all = await snapshot();
    const current = (containers: readonly ContainerState[]) => containers.filter(one => one.sandboxId === sandbox.id);
    const hasMainRun = this.#subject.pod.spec.containers.some(spec => latestOf(current(all), spec.name));
    for (const spec of this.#subject.pod.spec.initContainers ?? []) {
      const containers = await snapshot();
      const latest = latestOf(current(containers), spec.name);
      if (isSidecar(spec)) {
        await this.#keepRunning(sandbox, spec, { containers, isInit: true, begin });
        const running = latestOf(current(await snapshot()), spec.name);
        this.#probes.update({ sandboxes: [], containers: await snapshot() });
        if (!hasMainRun && !(running?.state === 'running' && this.#probes.of(running.id)?.isStarted)) return;
        continue;
      }
      // Once the pod's own containers have run, its init steps are behind it, whatever is left of them.
      if (hasMainRun || (latest?.state === 'exited' && latest.exitCode === 0)) continue;
      if (latest?.state === 'running') return;
      if (latest?.state === 'exited' && !restarts(this.#subject.pod, spec, latest.exitCode, true)) return;
      await this.#keepRunning(sandbox, spec, { containers, isInit: true, begin });
      return;
    }
    for (const spec of this.#subject.pod.spec.ephemeralContainers ?? []) {
      const latest = latestOf(await snapshot(), spec.name);
      if (latest && latest.state !== 'created') continue;
      if (latest) await this.#context.runtime.remove(latest.id);
      const known = this.#subject.pod.status?.ephemeralContainerStatuses?.find(one => one.name === spec.name);
      // Once only, also when the runtime has forgotten it.
      if (!known?.state?.terminated && !known?.containerID) await this.#start(sandbox, spec, { attempt: 0, begin });
    }
    const containers = await snapshot();
    for (const spec of this.#subject.pod.spec.containers)
      await this.#keepRunning(sandbox, spec, { containers, isInit: false, begin });
  }

  async #keepRunning(
    sandbox: SandboxState,
    spec: Container,
    {
      containers,
      isInit,
      begin,
    }: { readonly containers: readonly ContainerState[]; readonly isInit: boolean; readonly begin: Beginning },
  ): Promise<void> {
    const { runtime } = this.#context;
    // One that has ended since the step began may ask for the end of all: that is not its own restart.
    if (isRestartingAll(this.#subject.pod, containers)) return this.#subject.wake();
    const latest = latestOf(containers, spec.name);
    if (latest?.state === 'running' && latest.sandboxId === sandbox.id) {
      const doomed = this.#probes.of(latest.id)?.doomedBy;
      const isChanged = latest.labels['hash'] !== undefined && latest.labels['hash'] !== containerHash(spec);
      if (!doomed && !isChanged) return;
      const why = doomed
        ? `Container ${spec.name} failed ${doomed} probe, will be restarted`
        : `Container ${spec.name} definition changed, will be restarted`;
      const probe = doomed === 'startup' ? spec.startupProbe : spec.livenessProbe;
      const grace = (doomed ? probe?.terminationGracePeriodSeconds : undefined) ?? graceSecondsOf(this.#subject.pod);
      await this.#stops.stop(latest, spec, grace, why);
      return this.#subject.wake();
    }
    if (
      latest?.state === 'exited' &&
      latest.sandboxId === sandbox.id &&
      !restarts(this.#subject.pod, spec, latest.exitCode, isInit)
    )
      return;
    if (latest?.state === 'exited') {
      const { leftMs, delayMs } = this.#backoff.left(spec.name, latest.finishedMs ?? latest.createdMs);
      const where = `${this.#subject.pod.metadata.name}_${this.#subject.pod.metadata.namespace}(${this.#subject.uid})`;
      if (leftMs > 0) {
        if (this.#waiting.get(spec.name)?.reason !== 'CrashLoopBackOff')
          this.#subject.event(
            'Warning',
            'BackOff',
            `Back-off restarting failed container ${spec.name} in pod ${where}`,
            spec,
          );
        this.#waiting.set(spec.name, {
          reason: 'CrashLoopBackOff',
          message: `back-off ${goDuration(delayMs)} restarting failed container=${spec.name} pod=${where}`,
        });
        return this.#subject.wakeAfter(leftMs + 5);
      }
      // A start that failed on the way has not had its restart yet.
      if (
        !['CreateContainerConfigError', 'CreateContainerError', 'ErrImagePull', 'ImagePullBackOff'].includes(
          this.#waiting.get(spec.name)?.reason ?? '',
        )
      ) {
        this.#backoff.restarted(spec.name, latest.finishedMs ?? latest.createdMs);
      }
    }
    // Of the dead the last is kept, for its logs.
    const former = containers.filter(one => one.name === spec.name && one !== latest);
    const kept = keptOfEach(this.#context.deadContainers) - (latest?.state === 'exited' ? 1 : 0);
    const dead = former.filter(({ state }) => state === 'exited');
    for (const old of [...beyond(dead, kept), ...former.filter(({ state }) => state === 'created')])
      await runtime.remove(old.id);
    if (latest?.state === 'created') await runtime.remove(latest.id);
    const attempt = latest ? latest.attempt + (latest.state === 'created' ? 0 : 1) : this.#formerRestarts(spec.name);
    await this.#start(sandbox, spec, { attempt, begin });
  }

  #typeOf({ name }: Container): string {
    const { initContainers = [], ephemeralContainers = [] } = this.#subject.pod.spec;
    if (initContainers.some(one => one.name === name)) return 'init_container';
    return ephemeralContainers.some(one => one.name === name) ? 'ephemeral_container' : 'container';
  }

  // A container that the runtime has forgotten still counts on from its status.
  #formerRestarts(name: string): number {
    const { containerStatuses = [], initContainerStatuses = [] } = this.#subject.latest.status ?? {};
    const removed = [...initContainerStatuses, ...containerStatuses].find(one => one.name === name && wasRemoved(one));
    if (removed && !removed.containerID) return removed.restartCount;
    const known = this.#subject.toldStatuses.find(one => one.name === name);
    return known?.containerID ? known.restartCount + 1 : (known?.restartCount ?? 0);
  }

  async #start(
    sandbox: SandboxState,
    spec: Container,
    { attempt, begin }: { readonly attempt: number; readonly begin: Beginning },
  ): Promise<void> {
    const { runtime } = this.#context;
    // While requests for volumes are under way the container is made, where the runtime lets it; only a subPath must be there before.
    const image = begin === MOUNTED ? undefined : this.#images.known(spec);
    const hasSubPath = spec.volumeMounts?.some(mount => mount.subPath || mount.subPathExpr) ?? false;
    const isPlaced = this.#mounts.volumes.isLocatable(this.#subject.pod);
    const early =
      image && !hasSubPath && isPlaced && !runtime.needsMounts
        ? this.#create(sandbox, spec, { image, attempt })
        : undefined;
    if (!(await begin.mounted)) {
      const made = await early;
      if (made && 'id' in made) await runtime.remove(made.id);
      return;
    }
    const presence = this.#images.ensure(spec);
    // The pod is called again when the pull has ended.
    if ('isPulling' in presence) return;
    if ('waiting' in presence) {
      this.#waiting.set(spec.name, presence.waiting);
      return this.#subject.wakeAfter(Math.min(presence.retryMs, 2000));
    }
    const fail = (reason: string, error: unknown, retryMs: number) => {
      const message = messageOf(error);
      startedContainerErrors.add(1, this.#typeOf(spec), reason);
      this.#waiting.set(spec.name, { reason, message });
      this.#subject.event('Warning', 'Failed', `Error: ${message}`, spec);
      this.#subject.wakeAfter(retryMs);
    };
    startedContainers.add(1, this.#typeOf(spec));
    const made = await (early ?? this.#create(sandbox, spec, { image: presence.image, attempt }));
    if ('error' in made) return fail(made.reason, made.error, 2000);
    const { id } = made;
    this.#subject.event('Normal', 'Created', 'Container created', spec);
    try {
      await runtime.start(id);
    } catch (error) {
      return fail('RunContainerError', error, 10);
    }
    this.#subject.event('Normal', 'Started', 'Container started', spec);
    this.#waiting.delete(spec.name);
    const hook = spec.lifecycle?.postStart;
    if (hook) {
      begin.leave();
      const container = latestOf((await runtime.snapshot(this.#subject.uid)).containers, spec.name)!;
      try {
        await runHook(hook, {
          container: spec,
          target: this.#probes.target(container, spec),
          clock: this.#context.clock,
          signal: new AbortController().signal,
        });
      } catch (error) {
        this.#subject.event('Warning', 'FailedPostStartHook', `PostStartHook failed: ${messageOf(error)}`, spec);
        this.#waiting.set(spec.name, { reason: 'PostStartHookError', message: messageOf(error) });
        await this.#stops.stop(container, spec, graceSecondsOf(this.#subject.pod), `FailedPostStartHook`);
        this.#subject.wakeAfter(10);
      }
    }
    // The probes begin now and not after the pod's other containers have started.
    this.#probes.update(await runtime.snapshot(this.#subject.uid));
  }

  async #create(
    sandbox: SandboxState,
    spec: Container,
    { image, attempt }: { readonly image: Image; readonly attempt: number },
  ): Promise<Creation> {
    let config: ContainerConfig;
    const { targetContainerName } = spec as EphemeralContainer;
    try {
      const target = targetContainerName
        ? latestOf((await this.#context.runtime.snapshot(this.#subject.uid)).containers, targetContainerName)
        : undefined;
      if (targetContainerName && target?.state !== 'running')
        throw new Error(`target container ${JSON.stringify(targetContainerName)} is not running`);
      config = await containerConfig({
        context: this.#context,
        pod: { ...this.#subject.pod, status: this.#subject.latest.status ?? {} },
        container: this.#resize.granted(spec),
        image,
        attempt,
        podIps: this.#subject.addressesIn(sandbox),
        volumes: this.#mounts.volumes,
        ...(target ? { processesOf: target.id } : {}),
      });
    } catch (error) {
      return { reason: error instanceof SubPathMissing ? 'CreateContainerError' : 'CreateContainerConfigError', error };
    }
    try {
      return { id: await this.#context.runtime.createContainer(sandbox.id, config) };
    } catch (error) {
      return { reason: 'CreateContainerError', error };
    }
  }
}

/** Go's way to print whole seconds: 10s, 1m20s, 5m0s. */
export function goDuration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${seconds % 60}s`;
}
