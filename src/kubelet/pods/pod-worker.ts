/**
 * Brings one pod from what runs to what its object wants, and its status to what runs. One step at a time: `wake` during a
 * step makes one more step follow. Invariant: it decides from the runtime's snapshot alone, so a new worker (after a crash of
 * the agent) carries on where the old one was; what it remembers beside is back-off, probes and reasons to wait.
 */

import { readFileSync, rmSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import type { Container, EphemeralContainer, Pod, PodCondition, PodStatus } from '../../api/core/v1.gen.ts';
import type { Timer } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import { PODS } from '../../client/resources.ts';
import type { Image } from '../images/image-store.ts';
import { ContainerProbes } from '../probes/container-probes.ts';
import type { ProbeTarget } from '../probes/prober.ts';
import type { ContainerConfig, ContainerState, RuntimeState, SandboxState } from '../runtime.ts';
import { PodVolumes, VolumeError } from '../volumes/pod-volumes.ts';
import type { VolumeContext } from '../volumes/volume.ts';
import { containerConfig, containerHash, terminationPath } from './container-config.ts';
import type { PodContext } from './context.ts';
import { diskExcess, hasDiskLimits } from './disk-limits.ts';
import { hostnameOf } from './files.ts';
import { runHook } from './hooks.ts';
import { ImagePresence } from './image-presence.ts';
import { logTail } from './log-tail.ts';
import { admissionRefusal } from './refusals.ts';
import { allContainers, everyContainer, hostPorts, isSidecar, podCgroup, podLimits } from './resources.ts';
import { RestartBackoff } from './restart-backoff.ts';
import { latestOf, podStatus, restarts, type Waiting } from './status.ts';

const RESYNC_MS = 60_000;
const VOLUME_RETRY_MS_MIN = 500;
const VOLUME_RETRY_MS_MAX = 122_000;
const SANDBOX_RETRY_MS = 1000;
const NETWORK_RETRY_MS = 50;
const NETWORK_PATIENCE_MS = 1000;
const GRACE_SECONDS_DEFAULT = 30;
/** A container gets this long even when its preStop hook took all the time. */
const GRACE_SECONDS_MIN = 2;
const TERMINATION_MESSAGE_BYTES_MAX = 4096;
/** Who breaks a limit gets no more time. */
const EVICTION_SECONDS = 1;
const EXEC_OUTPUT_BYTES_MAX = 10 * 1024;

/** What containers that are to start wait for, and what they give back once they run. */
interface Beginning {
  /** Whether the volumes are there. */
  readonly mounted: Promise<boolean>;
  leave(): void;
}
const MOUNTED: Beginning = { mounted: Promise.resolve(true), leave: () => {} };

type Creation = { readonly id: string } | { readonly reason: string; readonly error: unknown };

export class PodWorker {
  readonly #context: PodContext;
  readonly #volumes: PodVolumes;
  readonly #images: ImagePresence;
  readonly #backoff: RestartBackoff;
  readonly #probes = new Map<string, ContainerProbes>();
  readonly #waiting = new Map<string, Waiting>();
  readonly #stopping = new Map<string, Promise<void>>();
  readonly #uid: string;
  #pod: Pod;
  #isRemoved = false;
  #isAdmitted: boolean | undefined;
  #ended: { reason: string; message: string } | undefined;
  #isOver = false;
  #graceSeconds: number | undefined;
  #volumeRetryMs = VOLUME_RETRY_MS_MIN;
  #nextRefreshMs = 0;
  #volumesChanged = false;
  #networkWaitMs = 0;
  #podIps: readonly string[] = [];
  #isDirty = false;
  #isRunning = false;
  #isAbandoned = false;
  #timer: { timer: Timer; atMs: number } | undefined;
  readonly done: Promise<void>;
  #finish!: () => void;

  constructor(context: PodContext, pod: Pod) {
    this.#context = context;
    this.#pod = pod;
    this.#uid = pod.metadata.uid!;
    const { paths } = context;
    this.#volumes = new PodVolumes({ disk: paths.pod(this.#uid), memory: paths.memory(this.#uid) });
    this.#images = new ImagePresence(context);
    this.#backoff = new RestartBackoff(context.clock);
    this.#podIps = pod.status?.podIPs?.map(({ ip }) => ip) ?? [];
    this.done = new Promise(resolve => {
      this.#finish = resolve;
    });
  }
  /** With the status as last decided here, not as the API server has it. */
  get pod(): Pod {
    const status = this.#context.statuses.latest(this.#uid);
    if (!status) return this.#pod;
    const conditions = [...(status.conditions ?? []), ...foreignConditions(this.#pod, status)];
    return { ...this.#pod, status: { ...this.#pod.status, ...status, conditions } };
  }
  get isOver(): boolean {
    return this.#isOver || this.#isAdmitted === false;
  }

  update(pod: Pod): void {
    const before = this.#pod.metadata.deletionGracePeriodSeconds;
    const after = pod.metadata.deletionGracePeriodSeconds;
    // The status written here comes back; only what someone else changed is news.
    const isNews = newsOf(pod) !== newsOf(this.#pod);
    this.#pod = pod;
    if (!isNews) return;
    this.#volumesChanged = true;
    // Force deletion overtakes a graceful one under way.
    if (
      this.#graceSeconds !== undefined &&
      after !== undefined &&
      after < (before ?? this.#graceSeconds + 1) &&
      after < this.#graceSeconds
    ) {
      this.#graceSeconds = after;
      for (const id of this.#stopping.keys()) void this.#context.runtime.stop(id, after).catch(() => {});
    }
    this.wake();
  }
  /** The object is gone: end and clean up, write nothing. */
  remove(): void {
    this.#isRemoved = true;
    this.#context.statuses.forget(this.#uid);
    this.wake();
  }
  wake(): void {
    this.#isDirty = true;
    if (!this.#isRunning && !this.#isAbandoned) void this.#run();
  }
  /** Leaves everything running and forgets it: the agent stops. */
  abandon(): void {
    this.#isAbandoned = true;
    for (const probes of this.#probes.values()) probes.stop();
    this.#timer?.timer.cancel();
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#isDirty && !this.#isAbandoned) {
      this.#isDirty = false;
      try {
        await this.#step();
      } catch (error) {
        this.#context.log.warn('pod step failed, retrying', { pod: this.#name, error: error as Error });
        this.#wakeAfter(1000);
      }
    }
    this.#isRunning = false;
  }
  get #name(): string {
    return `${this.#pod.metadata.namespace}/${this.#pod.metadata.name}`;
  }
  #wakeAfter(delayMs: number): void {
    if (this.#isAbandoned) return;
    const atMs = this.#context.clock.monotonic() + delayMs;
    if (this.#timer && this.#timer.atMs <= atMs) return;
    this.#timer?.timer.cancel();
    const timer = this.#context.clock.after(delayMs, () => {
      this.#timer = undefined;
      this.wake();
    });
    this.#timer = { timer, atMs };
  }
  #event(type: 'Normal' | 'Warning', reason: string, message: string, container?: Container): void {
    this.#context.events.event(
      this.#pod,
      type,
      reason,
      message,
      container ? { fieldPath: this.#fieldPath(container) } : {},
    );
  }
  #fieldPath(container: Container): string {
    const isInit = this.#pod.spec.initContainers?.some(one => one.name === container.name);
    const isMain = this.#pod.spec.containers.some(one => one.name === container.name);
    return `spec.${isInit ? 'initContainers' : isMain ? 'containers' : 'ephemeralContainers'}{${container.name}}`;
  }

  async #step(): Promise<void> {
    const { runtime } = this.#context;
    let state = await runtime.snapshot(this.#uid);
    this.#updateProbes(state);
    if (this.#isRemoved || this.#pod.metadata.deletionTimestamp !== undefined) return this.#terminate(state);
    this.#checkDeadline();
    const phase = this.pod.status?.phase;
    if (this.#ended || phase === 'Failed' || phase === 'Succeeded') return this.#conclude(state);
    if (!this.#admit(state)) return;
    const isOver = this.#publish(state);
    if (isOver) return this.#conclude(state);
    await this.#converge(state);
    state = await runtime.snapshot(this.#uid);
    this.#updateProbes(state);
    this.#publish(state);
    this.#checkDeadline();
    this.#wakeAfter(RESYNC_MS);
  }

  /** Writes the status that follows from the state; true when the pod's work is over. */
  #publish(state: RuntimeState, isTerminating = false): boolean {
    const { clock, nodeIps, statuses } = this.#context;
    const sandbox = readySandbox(state);
    if (sandbox) this.#podIps = this.#pod.spec.hostNetwork ? nodeIps : sandbox.ips;
    const status = podStatus({
      pod: this.pod,
      containers: state.containers,
      isSandboxReady: sandbox !== undefined,
      podIps: this.#podIps,
      hostIps: nodeIps,
      waiting: this.#waiting,
      isReady: container => this.#probes.get(container.id)?.isReady ?? false,
      isStarted: container => this.#probes.get(container.id)?.isStarted ?? false,
      terminationMessage: container => this.#terminationMessage(container),
      ...(this.#ended ? { ended: this.#ended } : {}),
      isTerminating,
      nowMs: clock.now(),
    });
    statuses.set(this.#pod, status);
    return status.phase === 'Succeeded' || status.phase === 'Failed';
  }

  #terminationMessage(container: ContainerState): string | undefined {
    const spec = allContainers(this.#pod).find(one => one.name === container.name);
    const path = terminationPath(this.#context.paths.memory(this.#uid), container.name, container.attempt);
    try {
      const text = readFileSync(path).subarray(0, TERMINATION_MESSAGE_BYTES_MAX).toString('utf8');
      if (text) return text;
    } catch {
      // Gone with a restart of the machine; what was told of it stays.
      const told = [...(this.#pod.status?.containerStatuses ?? []), ...(this.#pod.status?.initContainerStatuses ?? [])]
        .flatMap(({ state, lastState }) => [state?.terminated, lastState?.terminated])
        .find(ended => ended?.containerID === `cox://${container.id}`);
      if (told) return told.message;
    }
    if (spec?.terminationMessagePolicy === 'FallbackToLogsOnError' && container.exitCode !== 0)
      return logTail(container.logPath) || undefined;
    return undefined;
  }

  /** Evicts the pod when it uses more of the disk than it may. */
  async checkDisk(): Promise<void> {
    const isEnding = () =>
      this.isOver || this.#ended || this.#isRemoved || this.#pod.metadata.deletionTimestamp !== undefined;
    if (isEnding() || !hasDiskLimits(this.#pod)) return;
    const { containers } = await this.#context.runtime.snapshot(this.#uid);
    const excess = await diskExcess(this.#pod, {
      containers,
      volumePath: name => this.#volumes.locate(this.#pod, name)?.path,
    });
    if (excess === undefined || isEnding()) return;
    this.#ended = { reason: 'Evicted', message: excess };
    this.#event('Warning', 'Evicted', excess);
    this.wake();
  }

  #checkDeadline(): void {
    const { activeDeadlineSeconds } = this.#pod.spec;
    const startTime = this.pod.status?.startTime;
    if (activeDeadlineSeconds === undefined || !startTime || this.#ended) return;
    const leftMs = Date.parse(startTime) + activeDeadlineSeconds * 1000 - this.#context.clock.now();
    if (leftMs > 0) return this.#wakeAfter(leftMs);
    this.#ended = {
      reason: 'DeadlineExceeded',
      message: 'Pod was active on the node longer than the specified deadline',
    };
    this.#event('Normal', 'DeadlineExceeded', this.#ended.message);
    this.wake();
  }

  /** Decided once, and never against a pod that runs already. */
  #admit(state: RuntimeState): boolean {
    if (this.#isAdmitted === undefined) {
      const { context } = { context: this.#context };
      const refusal =
        state.containers.length || state.sandboxes.length
          ? undefined
          : admissionRefusal(this.#pod, context.otherPods(this.#uid), context.node);
      this.#isAdmitted = refusal === undefined;
      if (refusal) {
        this.#ended = refusal;
        this.#event('Warning', refusal.reason, refusal.message);
        this.#publish(state);
      }
    }
    return this.#isAdmitted;
  }

  async #converge(state: RuntimeState): Promise<void> {
    const { network } = this.#context;
    const reason = this.#pod.spec.hostNetwork ? undefined : network.notReadyReason();
    if (reason !== undefined && !readySandbox(state)) {
      // Just after the node's start it is a matter of moments.
      this.#networkWaitMs += NETWORK_RETRY_MS;
      if (this.#networkWaitMs > NETWORK_PATIENCE_MS)
        this.#event('Warning', 'NetworkNotReady', `network is not ready: ${reason}`);
      return this.#wakeAfter(NETWORK_RETRY_MS);
    }
    this.#networkWaitMs = 0;
    this.#context.paths.ensureMemory(this.#uid);
    if (readySandbox(state) && !this.#volumesReady) {
      // After a restart of the agent: running containers do not wait for their volumes to be looked at again.
      void this.#mountVolumes().then(isMounted => isMounted && this.wake());
      if (!this.#needsStart(state)) return;
    }
    if (this.#volumesReady) await this.#refreshVolumes();
    const present = readySandbox(state);
    if (present && !this.#needsStart(state)) return this.#runContainers(present, MOUNTED);
    const mounted = this.#mountVolumes();
    const leave = await this.#context.starts.enter();
    try {
      // The requests for volumes leave before the work that holds this thread.
      if (!this.#volumesReady) await new Promise(setImmediate);
      const sandbox = await this.#ensureSandbox(state);
      if (!present) await this.#publishPorts();
      if (sandbox) await this.#runContainers(sandbox, { mounted, leave });
      else await mounted;
    } finally {
      leave();
    }
  }
  async #publishPorts(): Promise<void> {
    if (!this.#pod.spec.hostNetwork && hostPorts(this.#pod).length > 0) await this.#context.publishPorts();
  }
  #needsStart(state: RuntimeState): boolean {
    const isNew = ({ name }: { readonly name: string }) => latestOf(state.containers, name) === undefined;
    return (
      this.#pod.spec.containers.some(spec => latestOf(state.containers, spec.name)?.state !== 'running') ||
      (this.#pod.spec.ephemeralContainers ?? []).some(isNew)
    );
  }

  #volumesReady = false;
  #volumeContext(): VolumeContext {
    const { clock, node, references, tokens, nodeIps } = this.#context;
    const pod = this.#pod;
    const namespace = pod.metadata.namespace!;
    return {
      pod,
      clock,
      node,
      addresses: () => ({ podIps: this.#podIps, hostIps: nodeIps }),
      read: (of, name) => {
        references.hold(this.#uid, of, namespace, name, () => {
          this.#volumesChanged = true;
          this.wake();
        });
        return references.get(of, namespace, name);
      },
      token: request => tokens.get(pod, request),
    };
  }
  #mounting: Promise<boolean> | undefined;
  #mountVolumes(): Promise<boolean> {
    if (this.#volumesReady) return Promise.resolve(true);
    this.#mounting ??= this.#mountAll().finally(() => {
      this.#mounting = undefined;
    });
    return this.#mounting;
  }
  async #mountAll(): Promise<boolean> {
    try {
      await this.#volumes.mountAll(this.#volumeContext());
      this.#volumesReady = true;
      this.#volumesChanged = false;
      this.#nextRefreshMs = this.#context.clock.monotonic() + RESYNC_MS;
      this.#volumeRetryMs = VOLUME_RETRY_MS_MIN;
      return true;
    } catch (error) {
      this.#event('Warning', 'FailedMount', error instanceof VolumeError ? error.message : messageOf(error));
      this.#wakeAfter(this.#volumeRetryMs);
      this.#volumeRetryMs = Math.min(this.#volumeRetryMs * 2, VOLUME_RETRY_MS_MAX);
      return false;
    }
  }
  async #refreshVolumes(): Promise<void> {
    const nowMs = this.#context.clock.monotonic();
    if (!this.#pod.spec.volumes?.length || (!this.#volumesChanged && nowMs < this.#nextRefreshMs)) return;
    this.#volumesChanged = false;
    this.#nextRefreshMs = nowMs + RESYNC_MS;
    for (const error of await this.#volumes.refresh(this.#volumeContext()))
      this.#event('Warning', 'FailedMount', error.message);
  }

  async #ensureSandbox(state: RuntimeState): Promise<SandboxState | undefined> {
    const { runtime, cgroups, cgroupRoot, clusterDomain } = this.#context;
    const ready = readySandbox(state);
    if (ready) return ready;
    const pod = this.#pod;
    const attempt = Math.max(-1, ...state.sandboxes.map(one => one.attempt)) + 1;
    if (attempt > 0) this.#event('Normal', 'SandboxChanged', 'Pod sandbox changed, it will be killed and re-created.');
    for (const old of state.sandboxes) await runtime.stopSandbox(old.id, { keepsAddress: !pod.spec.hostNetwork });
    const cgroup = podCgroup(cgroupRoot, pod);
    const shared = {
      hostNetwork: pod.spec.hostNetwork ?? false,
      hostPid: pod.spec.hostPID ?? false,
      hostIpc: pod.spec.hostIPC ?? false,
    };
    try {
      cgroups.create(cgroup, podLimits(pod));
      return await runtime.runSandbox({
        podUid: this.#uid,
        namespace: pod.metadata.namespace!,
        name: pod.metadata.name,
        attempt,
        hostname: hostnameOf(pod, clusterDomain).hostname,
        ...shared,
        sysctls: Object.fromEntries((pod.spec.securityContext?.sysctls ?? []).map(({ name, value }) => [name, value])),
        cgroupParent: cgroup,
        labels: {},
      });
    } catch (error) {
      this.#event('Warning', 'FailedCreatePodSandBox', `Failed to create pod sandbox: ${messageOf(error)}`);
      this.#wakeAfter(SANDBOX_RETRY_MS);
      return undefined;
    }
  }

  /** Init containers in order, sidecars among them left running, then all others. */
  async #runContainers(sandbox: SandboxState, begin: Beginning): Promise<void> {
    const snapshot = async () => (await this.#context.runtime.snapshot(this.#uid)).containers;
    const all = await snapshot();
    const current = (containers: readonly ContainerState[]) => containers.filter(one => one.sandboxId === sandbox.id);
    const hasMainRun = this.#pod.spec.containers.some(spec => latestOf(current(all), spec.name));
    for (const spec of this.#pod.spec.initContainers ?? []) {
      const containers = await snapshot();
      const latest = latestOf(current(containers), spec.name);
      if (isSidecar(spec)) {
        await this.#keepRunning(sandbox, spec, { containers, isInit: true, begin });
        const running = latestOf(current(await snapshot()), spec.name);
        this.#updateProbes({ sandboxes: [], containers: await snapshot() });
        if (!hasMainRun && !(running?.state === 'running' && this.#probes.get(running.id)?.isStarted)) return;
        continue;
      }
      // Once the pod's own containers have run, its init steps are behind it, whatever is left of them.
      if (hasMainRun || (latest?.state === 'exited' && latest.exitCode === 0)) continue;
      if (latest?.state === 'running') return;
      if (latest?.state === 'exited' && !restarts(this.#pod, spec, latest.exitCode, true)) return;
      await this.#keepRunning(sandbox, spec, { containers, isInit: true, begin });
      return;
    }
    for (const spec of this.#pod.spec.ephemeralContainers ?? []) {
      const latest = latestOf(await snapshot(), spec.name);
      if (latest && latest.state !== 'created') continue;
      if (latest) await this.#context.runtime.remove(latest.id);
      const known = this.#pod.status?.ephemeralContainerStatuses?.find(one => one.name === spec.name);
      // Once only, also when the runtime has forgotten it.
      if (!known?.state?.terminated && !known?.containerID) await this.#start(sandbox, spec, { attempt: 0, begin });
    }
    const containers = await snapshot();
    for (const spec of this.#pod.spec.containers)
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
    const latest = latestOf(containers, spec.name);
    if (latest?.state === 'running' && latest.sandboxId === sandbox.id) {
      const doomed = this.#probes.get(latest.id)?.doomedBy;
      const isChanged = latest.labels['hash'] !== undefined && latest.labels['hash'] !== containerHash(spec);
      if (!doomed && !isChanged) return;
      const why = doomed
        ? `Container ${spec.name} failed ${doomed} probe, will be restarted`
        : `Container ${spec.name} definition changed, will be restarted`;
      const probe = doomed === 'startup' ? spec.startupProbe : spec.livenessProbe;
      const grace =
        (doomed ? probe?.terminationGracePeriodSeconds : undefined) ??
        this.#pod.spec.terminationGracePeriodSeconds ??
        GRACE_SECONDS_DEFAULT;
      await this.#stopContainer(latest, spec, grace, why);
      return this.wake();
    }
    if (
      latest?.state === 'exited' &&
      latest.sandboxId === sandbox.id &&
      !restarts(this.#pod, spec, latest.exitCode, isInit)
    )
      return;
    if (latest?.state === 'exited') {
      const { leftMs, delayMs } = this.#backoff.left(spec.name, latest.finishedMs ?? latest.createdMs);
      const where = `${this.#pod.metadata.name}_${this.#pod.metadata.namespace}(${this.#uid})`;
      if (leftMs > 0) {
        if (this.#waiting.get(spec.name)?.reason !== 'CrashLoopBackOff')
          this.#event('Warning', 'BackOff', `Back-off restarting failed container ${spec.name} in pod ${where}`, spec);
        this.#waiting.set(spec.name, {
          reason: 'CrashLoopBackOff',
          message: `back-off ${goDuration(delayMs)} restarting failed container=${spec.name} pod=${where}`,
        });
        return this.#wakeAfter(leftMs + 5);
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
    // Of the dead only the last is kept, for its logs.
    for (const old of containers)
      if (old.name === spec.name && old !== latest && old.state !== 'running') await runtime.remove(old.id);
    if (latest?.state === 'created') await runtime.remove(latest.id);
    const attempt = latest ? latest.attempt + (latest.state === 'created' ? 0 : 1) : this.#formerRestarts(spec.name);
    await this.#start(sandbox, spec, { attempt, begin });
  }
  // A container that the runtime has forgotten still counts on from its status.
  #formerRestarts(name: string): number {
    const known = [
      ...(this.#pod.status?.containerStatuses ?? []),
      ...(this.#pod.status?.initContainerStatuses ?? []),
    ].find(one => one.name === name);
    return known?.containerID ? known.restartCount + 1 : (known?.restartCount ?? 0);
  }

  async #start(
    sandbox: SandboxState,
    spec: Container,
    { attempt, begin }: { readonly attempt: number; readonly begin: Beginning },
  ): Promise<void> {
    const { runtime, images } = this.#context;
    // While requests for volumes are under way the container is made; only a subPath must be there before.
    const image = begin === MOUNTED ? undefined : images.find(spec.image ?? '');
    const hasSubPath = spec.volumeMounts?.some(mount => mount.subPath || mount.subPathExpr) ?? false;
    const early = image && !hasSubPath ? this.#create(sandbox, spec, { image, attempt }) : undefined;
    if (!(await begin.mounted)) {
      const made = await early;
      if (made && 'id' in made) await runtime.remove(made.id);
      return;
    }
    const presence = this.#images.ensure(this.#pod, spec, this.#fieldPath(spec));
    if ('waiting' in presence) {
      this.#waiting.set(spec.name, presence.waiting);
      return this.#wakeAfter(Math.min(presence.retryMs, 2000));
    }
    const fail = (reason: string, error: unknown, retryMs: number) => {
      const message = messageOf(error);
      this.#waiting.set(spec.name, { reason, message });
      this.#event('Warning', 'Failed', `Error: ${message}`, spec);
      this.#wakeAfter(retryMs);
    };
    const made = await (early ?? this.#create(sandbox, spec, { image: presence.image, attempt }));
    if ('error' in made) return fail(made.reason, made.error, 2000);
    const { id } = made;
    this.#event('Normal', 'Created', 'Container created', spec);
    try {
      await runtime.start(id);
    } catch (error) {
      return fail('RunContainerError', error, 10);
    }
    this.#event('Normal', 'Started', 'Container started', spec);
    this.#waiting.delete(spec.name);
    const hook = spec.lifecycle?.postStart;
    if (hook) {
      begin.leave();
      const container = latestOf((await runtime.snapshot(this.#uid)).containers, spec.name)!;
      try {
        await runHook(hook, {
          container: spec,
          target: this.#target(container, spec),
          clock: this.#context.clock,
          signal: new AbortController().signal,
        });
      } catch (error) {
        this.#event('Warning', 'FailedPostStartHook', `PostStartHook failed: ${messageOf(error)}`, spec);
        this.#waiting.set(spec.name, { reason: 'PostStartHookError', message: messageOf(error) });
        await this.#stopContainer(
          container,
          spec,
          this.#pod.spec.terminationGracePeriodSeconds ?? GRACE_SECONDS_DEFAULT,
          `FailedPostStartHook`,
        );
        this.#wakeAfter(10);
      }
    }
    // The probes begin now and not after the pod's other containers have started.
    this.#updateProbes(await runtime.snapshot(this.#uid));
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
        ? latestOf((await this.#context.runtime.snapshot(this.#uid)).containers, targetContainerName)
        : undefined;
      if (targetContainerName && target?.state !== 'running')
        throw new Error(`target container ${JSON.stringify(targetContainerName)} is not running`);
      config = await containerConfig({
        context: this.#context,
        pod: { ...this.#pod, status: this.pod.status ?? {} },
        container: spec,
        image,
        attempt,
        podIps: this.#pod.spec.hostNetwork ? this.#context.nodeIps : sandbox.ips,
        volumes: this.#volumes,
        ...(target ? { processesOf: target.id } : {}),
      });
    } catch (error) {
      return { reason: 'CreateContainerConfigError', error };
    }
    try {
      return { id: await this.#context.runtime.createContainer(sandbox.id, config) };
    } catch (error) {
      return { reason: 'CreateContainerError', error };
    }
  }

  #target(container: ContainerState, spec: Container): ProbeTarget {
    return {
      podIp: (this.#pod.spec.hostNetwork ? this.#context.nodeIps : this.#podIps)[0] ?? '127.0.0.1',
      container: spec,
      exec: async (command, signal) => {
        const sink = new PassThrough();
        const parts: Buffer[] = [];
        let bytes = 0;
        sink.on('data', (part: Buffer) => {
          if (bytes < EXEC_OUTPUT_BYTES_MAX) parts.push(part.subarray(0, EXEC_OUTPUT_BYTES_MAX - bytes));
          bytes += part.length;
        });
        const { exitCode } = await this.#context.runtime.exec(container.id, {
          command,
          tty: false,
          stdout: sink,
          stderr: sink,
          signal,
        });
        return { exitCode, output: Buffer.concat(parts).toString('utf8') };
      },
    };
  }

  #updateProbes(state: RuntimeState): void {
    const sandbox = readySandbox(state);
    if (sandbox) this.#podIps = this.#pod.spec.hostNetwork ? this.#context.nodeIps : sandbox.ips;
    const running = new Map(state.containers.filter(one => one.state === 'running').map(one => [one.id, one]));
    for (const [id, probes] of this.#probes) {
      if (running.has(id)) continue;
      probes.stop();
      this.#probes.delete(id);
    }
    if (this.#isRemoved || this.#isAbandoned || this.#pod.metadata.deletionTimestamp !== undefined) return;
    for (const container of running.values()) {
      if (this.#probes.has(container.id)) continue;
      const spec = allContainers(this.#pod).find(one => one.name === container.name);
      if (!spec) continue;
      const known = [
        ...(this.#pod.status?.containerStatuses ?? []),
        ...(this.#pod.status?.initContainerStatuses ?? []),
      ].find(one => one.containerID === `cox://${container.id}`);
      this.#probes.set(
        container.id,
        new ContainerProbes({
          container: spec,
          startedMs: container.startedMs ?? container.createdMs,
          target: this.#target(container, spec),
          clock: this.#context.clock,
          random: this.#context.random,
          wasReady: known?.ready ?? false,
          failed: (kind, output) =>
            this.#event(
              'Warning',
              'Unhealthy',
              `${kind[0]!.toUpperCase()}${kind.slice(1)} probe failed: ${output}`,
              spec,
            ),
          changed: () => this.wake(),
        }),
      );
    }
  }

  /** preStop, then the stop signal, all within the grace; probes end first. Idempotent. */
  #stopContainer(
    container: ContainerState,
    spec: Container | undefined,
    graceSeconds: number,
    message: string,
  ): Promise<void> {
    const present = this.#stopping.get(container.id);
    if (present) return present;
    const work = this.#stopOnce(container, spec, graceSeconds, message).finally(() =>
      this.#stopping.delete(container.id),
    );
    this.#stopping.set(container.id, work);
    return work;
  }
  async #stopOnce(
    container: ContainerState,
    spec: Container | undefined,
    graceSeconds: number,
    message: string,
  ): Promise<void> {
    const { clock, runtime } = this.#context;
    this.#probes.get(container.id)?.stop();
    if (spec) this.#event('Normal', 'Killing', message, spec);
    const hook = spec?.lifecycle?.preStop;
    let leftSeconds = graceSeconds;
    if (hook && spec && graceSeconds > 0 && container.state === 'running') {
      const late = new AbortController();
      const timer = clock.after(graceSeconds * 1000, () => late.abort());
      const beganMs = clock.monotonic();
      try {
        await Promise.race([
          runHook(hook, { container: spec, target: this.#target(container, spec), clock, signal: late.signal }),
          new Promise<void>(resolve => late.signal.addEventListener('abort', () => resolve())),
        ]);
      } catch (error) {
        this.#event('Warning', 'FailedPreStopHook', `PreStopHook failed: ${messageOf(error)}`, spec);
      } finally {
        timer.cancel();
      }
      leftSeconds = Math.max(GRACE_SECONDS_MIN, graceSeconds - (clock.monotonic() - beganMs) / 1000);
    }
    await runtime.stop(container.id, Math.min(leftSeconds, this.#graceSeconds ?? leftSeconds));
  }

  /** Main containers together, then sidecars one by one in reverse. */
  async #stopAll(state: RuntimeState, graceSeconds: number): Promise<void> {
    const { clock } = this.#context;
    const running = state.containers.filter(one => one.state !== 'exited');
    const sidecars = (this.#pod.spec.initContainers ?? []).filter(isSidecar).map(spec => spec.name);
    const specOf = (name: string) => everyContainer(this.#pod).find(one => one.name === name);
    const endMs = clock.monotonic() + graceSeconds * 1000;
    await Promise.all(
      running
        .filter(one => !sidecars.includes(one.name))
        .map(one => this.#stopContainer(one, specOf(one.name), graceSeconds, `Stopping container ${one.name}`)),
    );
    for (const name of sidecars.reverse()) {
      const left = graceSeconds === 0 ? 0 : Math.max(GRACE_SECONDS_MIN, (endMs - clock.monotonic()) / 1000);
      for (const one of running)
        if (one.name === name) await this.#stopContainer(one, specOf(name), left, `Stopping container ${name}`);
    }
  }

  /** The pod's work is over or was ended: nothing of it runs on, its object stays. */
  async #conclude(state: RuntimeState): Promise<void> {
    if (this.#isOver) {
      this.#publish(state, true);
      return;
    }
    const grace = this.#pod.spec.terminationGracePeriodSeconds ?? GRACE_SECONDS_DEFAULT;
    await this.#stopAll(state, this.#ended?.reason === 'Evicted' ? Math.min(EVICTION_SECONDS, grace) : grace);
    for (const sandbox of state.sandboxes) await this.#context.runtime.stopSandbox(sandbox.id);
    await this.#publishPorts();
    this.#publish(await this.#context.runtime.snapshot(this.#uid), true);
    await this.#releaseVolumes();
    this.#isOver = true;
  }

  async #releaseVolumes(): Promise<void> {
    const { references, tokens, cgroups, cgroupRoot } = this.#context;
    references.release(this.#uid);
    tokens.forget(this.#uid);
    this.#volumesReady = false;
    await this.#volumes.unmountAll(this.#uid);
    cgroups.remove(podCgroup(cgroupRoot, this.#pod));
  }

  async #terminate(state: RuntimeState): Promise<void> {
    const { runtime, statuses, transport, paths } = this.#context;
    const { deletionGracePeriodSeconds, namespace, name } = this.#pod.metadata;
    const grace = deletionGracePeriodSeconds ?? this.#pod.spec.terminationGracePeriodSeconds ?? GRACE_SECONDS_DEFAULT;
    // Even a forced end leaves a second, so that a process can see its signal.
    this.#graceSeconds = this.#isRemoved
      ? Math.max(1, Math.min(grace, this.#graceSeconds ?? grace))
      : Math.max(grace, 0);
    if (!this.#isRemoved) this.#publish(state);
    await this.#stopAll(state, this.#graceSeconds);
    for (const sandbox of state.sandboxes) await runtime.stopSandbox(sandbox.id);
    await this.#publishPorts();
    const after = await runtime.snapshot(this.#uid);
    if (!this.#isRemoved) {
      this.#publish(after, true);
      await statuses.flushed(this.#uid);
    }
    await this.#releaseVolumes();
    if (!this.#isRemoved) {
      try {
        await transport.delete(
          { of: PODS, namespace: namespace!, name },
          { gracePeriodSeconds: 0, preconditions: { uid: this.#uid } },
        );
      } catch (error) {
        if (!isReason(error, 'NotFound', 'Conflict')) {
          this.#context.log.debug('pod not deleted yet', { pod: this.#name, error: messageOf(error) });
          return this.#wakeAfter(1000);
        }
      }
      // Finalizers may keep the object; its removal, whenever it comes, ends this worker.
      const isGone = await this.#isGone();
      if (!isGone) return this.#wakeAfter(RESYNC_MS);
    }
    for (const sandbox of after.sandboxes) await runtime.removeSandbox(sandbox.id);
    for (const container of (await runtime.snapshot(this.#uid)).containers) await runtime.remove(container.id);
    rmSync(paths.pod(this.#uid), { recursive: true, force: true });
    paths.removeMemory(this.#uid);
    rmSync(paths.logs({ namespace: namespace!, name, uid: this.#uid }), { recursive: true, force: true });
    statuses.forget(this.#uid);
    this.#timer?.timer.cancel();
    this.#isDirty = false;
    this.#finish();
  }
  async #isGone(): Promise<boolean> {
    if (this.#isRemoved) return true;
    try {
      const { namespace, name } = this.#pod.metadata;
      const now = await this.#context.transport.get({ of: PODS, namespace: namespace!, name });
      return now.metadata.uid !== this.#uid;
    } catch (error) {
      return isReason(error, 'NotFound');
    }
  }
}

const OWN_CONDITIONS = new Set([
  'PodReadyToStartContainers',
  'Initialized',
  'Ready',
  'ContainersReady',
  'PodScheduled',
]);

/** Conditions of others, readiness gates among them. */
function foreignConditions(pod: Pod, own: PodStatus): PodCondition[] {
  return (pod.status?.conditions ?? []).filter(
    ({ type }) => !OWN_CONDITIONS.has(type) && !own.conditions?.some(one => one.type === type),
  );
}

/** All of a pod that the kubelet does not write itself. */
function newsOf(pod: Pod): string {
  const { resourceVersion: _, managedFields: __, ...metadata } = pod.metadata;
  const foreign = (pod.status?.conditions ?? []).filter(({ type }) => !OWN_CONDITIONS.has(type));
  return JSON.stringify([metadata, pod.spec, foreign]);
}

function readySandbox(state: RuntimeState): SandboxState | undefined {
  return state.sandboxes.filter(one => one.ready).sort((a, b) => b.attempt - a.attempt)[0];
}

/** Go's way to print whole seconds: 10s, 1m20s, 5m0s. */
export function goDuration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${seconds % 60}s`;
}
