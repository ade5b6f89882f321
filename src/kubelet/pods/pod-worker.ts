/**
 * Brings one pod from what runs to what its object wants, and its status to what runs. One step at a time: `wake` during a
 * step makes one more step follow. Invariant: it decides from the runtime's snapshot alone, so a new worker (after a crash of
 * the agent) carries on where the old one was; what it remembers beside is back-off, probes and reasons to wait. It refuses to
 * do the steps' work: containers start in `container-starts`, end in `container-stops`, volumes come and go in `pod-mounts`.
 */

import { rmSync } from 'node:fs';
import type { Pod } from '../../api/core/v1.gen.ts';
import { allClaimsOf } from '../../api/machinery/resource-claims.ts';
import type { Timer } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import { tracedAnew } from '../../base/tracing/active.ts';
import { SCOPES } from '../../base/tracing/span.ts';
import { PODS } from '../../client/resources.ts';
import { removeUnmounted } from '../../sys/remove-unmounted.ts';
import {
  countRejection,
  podStartDurations,
  podWorkerDurations,
  podWorkerStartDurations,
  startedPodErrors,
  startedPods,
} from '../metrics.ts';
import type { RuntimeState, SandboxState } from '../runtime.ts';
import { optionsOf } from '../selinux.ts';
import { appArmorRefusal } from './app-armor.ts';
import { ContainerStarts, MOUNTED } from './container-starts.ts';
import { ContainerStops, graceSecondsOf } from './container-stops.ts';
import type { PodContext } from './context.ts';
import { diskExcess, hasDiskLimits, podDiskBytes } from './disk-limits.ts';
import { hostnameOf } from './files.ts';
import { PodMounts } from './pod-mounts.ts';
import { PodProbes } from './pod-probes.ts';
import { PodResize } from './pod-resize.ts';
import { newsOf, PodSubject, readySandbox } from './pod-subject.ts';
import { admissionRefusal, type Refusal } from './refusals.ts';
import { everyContainer, hostPorts, hugePageLimits, podCgroup, podLimits } from './resources.ts';
import { isRestartingAll, removeAll } from './restart-all.ts';
import { handlerOf } from './runtime-class.ts';
import { latestOf, podStatus } from './status.ts';
import { terminationMessage } from './termination-message.ts';
import { userIdsOf } from './user-ids.ts';

const RESYNC_MS = 60_000;
const SANDBOX_RETRY_MS = 1000;
/** A pod that asks again and again to restart as a whole does so once a second: upstream has no longer pause either. */
const RESTART_ALL_MS = 1000;
const NETWORK_RETRY_MS = 50;
const NETWORK_PATIENCE_MS = 1000;
/** Who breaks a limit of its own gets no more time. */
const EVICTION_SECONDS = 1;

export class PodWorker {
  readonly #context: PodContext;
  readonly #subject: PodSubject;
  readonly #mounts: PodMounts;
  readonly #probes: PodProbes;
  readonly #stops: ContainerStops;
  readonly #resize: PodResize;
  readonly #starts: ContainerStarts;
  readonly #uid: string;
  #isAdmitted: boolean | undefined;
  #ended: { reason: string; message: string } | undefined;
  #evictionSecondsMax = EVICTION_SECONDS;
  #isOver = false;
  readonly #over = Promise.withResolvers<void>();
  #networkWaitMs = 0;
  #restartedMs: number | undefined;
  #isDirty = false;
  #isRunning = false;
  #isAbandoned = false;
  readonly #seenMs: number;
  #hasBegun = false;
  /** Of a pod that was found running nobody asks how long it took to start. */
  #hasStarted: boolean;
  #timer: { timer: Timer; atMs: number } | undefined;
  readonly done: Promise<void>;
  #finish!: () => void;

  constructor(context: PodContext, pod: Pod) {
    this.#context = context;
    this.#seenMs = context.clock.monotonic();
    this.#hasStarted = pod.status?.phase !== undefined && pod.status.phase !== 'Pending';
    this.#subject = new PodSubject(context, pod, {
      wake: () => this.wake(),
      wakeAfter: delayMs => this.#wakeAfter(delayMs),
    });
    this.#uid = this.#subject.uid;
    this.#mounts = new PodMounts(this.#subject);
    this.#probes = new PodProbes(this.#subject);
    this.#stops = new ContainerStops(this.#subject, this.#probes);
    this.#resize = new PodResize(this.#subject, this.#stops);
    this.#starts = new ContainerStarts(this.#subject, {
      mounts: this.#mounts,
      probes: this.#probes,
      stops: this.#stops,
      resize: this.#resize,
    });
    this.done = new Promise(resolve => {
      this.#finish = resolve;
    });
  }
  /** With the status as last decided here, not as the API server has it. */
  get pod(): Pod {
    return this.#subject.latest;
  }
  /** With the resources that its containers were granted, which a resize may want changed. */
  get granted(): Pod {
    return this.#resize.grantedPod(this.pod);
  }
  get isOver(): boolean {
    return this.#isOver || this.#isAdmitted === false;
  }

  update(pod: Pod): void {
    const former = this.#subject.pod;
    this.#subject.pod = pod;
    // The status written here comes back; only what someone else changed is news.
    if (newsOf(pod) === newsOf(former)) return;
    this.#mounts.changed();
    if (this.#subject.isEnding) this.#giveUp();
    this.#stops.shorten(former.metadata.deletionGracePeriodSeconds, pod.metadata.deletionGracePeriodSeconds);
    this.wake();
  }
  /** The object is gone: end and clean up, write nothing. */
  remove(): void {
    this.#subject.isRemoved = true;
    this.#giveUp();
    this.#context.statuses.forget(this.#uid);
    this.wake();
  }
  /** What is on its way for containers yet to start is not needed any more. */
  #giveUp(): void {
    this.#mounts.abort();
    this.#starts.abort();
  }
  wake(): void {
    this.#isDirty = true;
    if (!this.#isRunning && !this.#isAbandoned) void this.#run();
  }
  /** Leaves everything running and forgets it: the agent stops. */
  abandon(): void {
    this.#isAbandoned = true;
    this.#probes.abandon();
    this.#starts.abort();
    this.#timer?.timer.cancel();
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    while (this.#isDirty && !this.#isAbandoned) {
      this.#isDirty = false;
      const stepMs = this.#context.clock.monotonic();
      const kind = this.#subject.isEnding ? 'kill' : this.#hasBegun ? 'sync' : 'create';
      if (!this.#hasBegun) podWorkerStartDurations.observe((stepMs - this.#seenMs) / 1000);
      this.#hasBegun = true;
      try {
        await (kind === 'kill' ? this.#step() : this.#traced('syncPod', () => this.#step(), kind));
        podWorkerDurations.observe((this.#context.clock.monotonic() - stepMs) / 1000, kind);
      } catch (error) {
        this.#context.log.warn('pod step failed, retrying', { pod: this.#subject.name, error: error as Error });
        this.#wakeAfter(1000);
      }
    }
    this.#isRunning = false;
  }
  /** Upstream's spans of a pod's worker, each a trace of its own. */
  #traced<T>(name: string, work: () => Promise<T>, updateType?: string): Promise<T> {
    const { name: pod, namespace = '' } = this.#subject.pod.metadata;
    const attributes = () => ({
      'k8s.pod.uid': this.#uid,
      'k8s.pod': `${namespace}/${pod}`,
      'k8s.pod.name': pod,
      ...(updateType === undefined ? {} : { 'k8s.pod.update_type': updateType }),
      'k8s.namespace.name': namespace,
    });
    return tracedAnew(this.#context.tracer, name, { scope: SCOPES.kubelet, attributes }, work);
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

  async #step(): Promise<void> {
    const { runtime } = this.#context;
    let state = await runtime.snapshot(this.#uid);
    this.#probes.update(state);
    if (this.#subject.isEnding) return this.#terminate(state);
    this.#checkDeadline();
    this.#checkVolumes();
    const phase = this.#subject.latest.status?.phase;
    if (this.#ended || phase === 'Failed' || phase === 'Succeeded') return this.#conclude(state);
    if (!(await this.#admit(state))) return;
    this.#resize.begin(state);
    if (await this.#resize.step(state)) {
      state = await runtime.snapshot(this.#uid);
      this.#probes.update(state);
    }
    const isOver = this.#publish(state);
    if (isOver) return this.#conclude(state);
    if (isRestartingAll(this.#subject.pod, state.containers)) return this.#restartAll(state);
    await this.#converge(state);
    state = await runtime.snapshot(this.#uid);
    this.#probes.update(state);
    this.#publish(state);
    this.#checkDeadline();
    this.#wakeAfter(RESYNC_MS);
  }

  /** All containers go, and the next step begins as for a new pod, in the sandbox there is. */
  async #restartAll(state: RuntimeState): Promise<void> {
    const { clock, runtime } = this.#context;
    const leftMs = (this.#restartedMs ?? Number.NEGATIVE_INFINITY) + RESTART_ALL_MS - clock.monotonic();
    if (leftMs > 0) return this.#wakeAfter(leftMs);
    await removeAll(this.#subject.pod, state, { runtime, stops: this.#stops });
    this.#restartedMs = clock.monotonic();
    const after = await runtime.snapshot(this.#uid);
    this.#probes.update(after);
    this.#publish(after);
    this.wake();
  }

  /** Writes the status that follows from the state; true when the pod's work is over. */
  #publish(state: RuntimeState, isTerminating = false): boolean {
    const { clock, nodeIps, statuses } = this.#context;
    const sandbox = this.#subject.see(state);
    const status = podStatus({
      pod: this.#subject.latest,
      containers: state.containers,
      isSandboxReady: sandbox !== undefined,
      podIps: this.#subject.podIps,
      hostIps: nodeIps,
      waiting: this.#starts.waiting,
      isReady: container => this.#probes.of(container.id)?.isReady ?? false,
      isStarted: container => this.#probes.of(container.id)?.isStarted ?? false,
      resources: (container, id) => this.#resize.resourcesOf(container, id),
      granted: container => this.#resize.granted(container),
      podResources: this.#resize.podResources,
      deviceHealth: container => [
        ...this.#context.devices.health(this.#uid, container.name),
        ...this.#context.claims.health(this.#uid, container),
      ],
      conditions: this.#resize.conditions,
      terminationMessage: container => terminationMessage(this.#subject, container),
      ...(this.#ended ? { ended: this.#ended, isRefused: this.#isAdmitted === false } : {}),
      isTerminating,
      nowMs: clock.now(),
    });
    statuses.set(this.#subject.pod, status);
    if (!this.#hasStarted && status.phase === 'Running') {
      this.#hasStarted = true;
      podStartDurations.observe((clock.monotonic() - this.#seenMs) / 1000);
    }
    return status.phase === 'Succeeded' || status.phase === 'Failed';
  }

  /** Evicts the pod when it uses more of the disk than it may. */
  async checkDisk(): Promise<void> {
    if (this.#isLeaving || !hasDiskLimits(this.#subject.pod)) return;
    const excess = await diskExcess(this.#subject.pod, await this.#diskUsers());
    if (excess !== undefined) void this.evict(excess);
  }
  get #isLeaving(): boolean {
    return this.isOver || this.#ended !== undefined || this.#subject.isEnding;
  }
  async #diskUsers() {
    const { containers } = await this.#context.runtime.snapshot(this.#uid);
    return {
      containers,
      volumePath: (name: string) => this.#mounts.volumes.locate(this.#subject.pod, name)?.path,
    };
  }
  async diskBytes(): Promise<number> {
    return podDiskBytes(this.#subject.pod, await this.#diskUsers());
  }
  /** Forgets the containers of a pod that is over, with their logs: nothing else of the pod is left on the disk. */
  async removeDead(): Promise<void> {
    if (!this.#isOver) return;
    const { runtime } = this.#context;
    for (const one of (await runtime.snapshot(this.#uid)).containers)
      if (one.state === 'exited') await runtime.remove(one.id);
  }
  /** Fails the pod for what it uses of the node. Resolves when nothing of it runs any more. */
  async evict(message: string, graceSecondsMax = EVICTION_SECONDS): Promise<void> {
    if (!this.#isLeaving) {
      this.#evictionSecondsMax = graceSecondsMax;
      this.#ended = { reason: 'Evicted', message };
      this.#subject.event('Warning', 'Evicted', message);
      this.wake();
    }
    await Promise.race([this.#over.promise, this.done]);
  }

  /** A pod whose volumes this node cannot have ends here, so that another comes elsewhere. */
  #checkVolumes(): void {
    const { refusal } = this.#mounts;
    if (!refusal || this.#isLeaving) return;
    this.#ended = refusal;
    this.#subject.event('Warning', refusal.reason, refusal.message);
  }

  #checkDeadline(): void {
    const { activeDeadlineSeconds } = this.#subject.pod.spec;
    const startTime = this.#subject.latest.status?.startTime;
    if (activeDeadlineSeconds === undefined || !startTime || this.#ended) return;
    const leftMs = Date.parse(startTime) + activeDeadlineSeconds * 1000 - this.#context.clock.now();
    if (leftMs > 0) return this.#wakeAfter(leftMs);
    this.#ended = {
      reason: 'DeadlineExceeded',
      message: 'Pod was active on the node longer than the specified deadline',
    };
    this.#subject.event('Normal', 'DeadlineExceeded', this.#ended.message);
    this.wake();
  }

  /** Decided once, and never against a pod that runs already. */
  async #admit(state: RuntimeState): Promise<boolean> {
    if (this.#isAdmitted === undefined) {
      const refusal =
        state.containers.length || state.sandboxes.length
          ? undefined
          : (this.#context.pressureRefusal(this.#subject.pod) ??
            admissionRefusal(this.#subject.pod, this.#context.otherPods(this.#uid), this.#context.node) ??
            appArmorRefusal(this.#subject.pod) ??
            (await this.#context.devices.admit(this.#subject.pod)) ??
            (await this.#admitCpus()));
      this.#isAdmitted = refusal === undefined;
      if (refusal) {
        this.#ended = { reason: refusal.reason, message: `Pod was rejected: ${refusal.message}` };
        countRejection(refusal.reason);
        this.#subject.event('Warning', refusal.reason, refusal.message);
        this.#publish(state);
      }
    }
    return this.#isAdmitted;
  }

  async #admitCpus(): Promise<Refusal | undefined> {
    const { cpus, memory } = this.#context;
    const refusal = memory.admit(this.#subject.pod) ?? cpus.admit(this.#subject.pod);
    if (cpus.has(this.#uid)) await this.#context.shareCpus();
    return refusal;
  }

  async #converge(state: RuntimeState): Promise<void> {
    const { network } = this.#context;
    const reason = this.#subject.pod.spec.hostNetwork ? undefined : network.notReadyReason();
    if (reason !== undefined && !readySandbox(state)) {
      // Just after the node's start it is a matter of moments.
      this.#networkWaitMs += NETWORK_RETRY_MS;
      if (this.#networkWaitMs > NETWORK_PATIENCE_MS)
        this.#subject.event('Warning', 'NetworkNotReady', `network is not ready: ${reason}`);
      return this.#wakeAfter(NETWORK_RETRY_MS);
    }
    this.#networkWaitMs = 0;
    this.#context.paths.ensureMemory(this.#uid);
    if (readySandbox(state) && !this.#mounts.isReady) {
      // After a restart of the agent: running containers do not wait for their volumes to be looked at again.
      void this.#mounts.mount().then(isMounted => isMounted && this.wake());
      if (!this.#needsStart(state)) return;
    }
    if (this.#mounts.isReady) await this.#mounts.refresh();
    const present = readySandbox(state);
    if (present && !this.#needsStart(state)) return this.#starts.run(present, MOUNTED);
    const mounted = this.#mounts.mount();
    // What may take long (a claim's disk, a server far away) holds no place among the pods that start.
    if (!this.#mounts.isQuick && !(await mounted)) return;
    const leave = await this.#context.starts.enter({ isFirst: !present });
    try {
      // The requests for volumes leave before the work that holds this thread.
      if (!this.#mounts.isReady) await new Promise(setImmediate);
      const sandbox = await this.#ensureSandbox(state);
      if (!present) await this.#publishPorts();
      if (sandbox && !present && network.hasPolicies?.())
        this.#publish(await this.#context.runtime.snapshot(this.#uid));
      if (sandbox) await this.#starts.run(sandbox, { mounted, leave });
      else await mounted;
    } finally {
      leave();
    }
  }
  async #publishPorts(): Promise<void> {
    if (!this.#subject.pod.spec.hostNetwork && hostPorts(this.#subject.pod).length > 0)
      await this.#context.publishPorts();
  }
  #needsStart(state: RuntimeState): boolean {
    const isNew = ({ name }: { readonly name: string }) => latestOf(state.containers, name) === undefined;
    return (
      this.#subject.pod.spec.containers.some(spec => latestOf(state.containers, spec.name)?.state !== 'running') ||
      (this.#subject.pod.spec.ephemeralContainers ?? []).some(isNew)
    );
  }

  async #ensureSandbox(state: RuntimeState): Promise<SandboxState | undefined> {
    const { runtime, cgroups, cgroupRoot, clusterDomain } = this.#context;
    const ready = readySandbox(state);
    if (ready) return ready;
    const pod = this.#subject.pod;
    const attempt = Math.max(-1, ...state.sandboxes.map(one => one.attempt)) + 1;
    if (attempt > 0)
      this.#subject.event('Normal', 'SandboxChanged', 'Pod sandbox changed, it will be killed and re-created.');
    for (const old of state.sandboxes) await runtime.stopSandbox(old.id, { keepsAddress: !pod.spec.hostNetwork });
    if (allClaimsOf(pod).length > 0) {
      try {
        await this.#context.claims.prepare(pod);
      } catch (error) {
        const message = `Failed to prepare dynamic resources: ${messageOf(error)}`;
        this.#subject.event('Warning', 'FailedPrepareDynamicResources', message);
        this.#wakeAfter(SANDBOX_RETRY_MS);
        return undefined;
      }
    }
    const cgroup = podCgroup(cgroupRoot, pod);
    const shared = {
      hostNetwork: pod.spec.hostNetwork ?? false,
      hostPid: pod.spec.hostPID ?? false,
      hostIpc: pod.spec.hostIPC ?? false,
      shareProcesses: pod.spec.shareProcessNamespace ?? false,
    };
    try {
      const { runtimeClassName } = pod.spec;
      const handler = runtimeClassName
        ? await handlerOf(runtimeClassName, { transport: this.#context.transport, handlers: runtime.handlers })
        : undefined;
      const userIds = userIdsOf(pod, { ...this.#context, ...(handler === undefined ? {} : { handler }) });
      const selinux = optionsOf(pod);
      const ports = shared.hostNetwork ? [] : hostPorts(pod);
      const { podPidsLimit } = this.#context.configuration;
      const limits = podLimits(this.#resize.grantedPod(pod), this.#context.cpus.has(this.#uid));
      const huge = hugePageLimits(this.#context.hugePages, { pod });
      cgroups.create(cgroup, { ...limits, ...huge, ...(podPidsLimit > 0 ? { pidsMax: podPidsLimit } : {}) });
      startedPods.add();
      return await runtime.runSandbox({
        podUid: this.#uid,
        namespace: pod.metadata.namespace!,
        name: pod.metadata.name,
        attempt,
        hostname: hostnameOf(pod, clusterDomain).hostname,
        ...shared,
        sysctls: Object.fromEntries((pod.spec.securityContext?.sysctls ?? []).map(({ name, value }) => [name, value])),
        cgroupParent: cgroup,
        ...(selinux ? { selinux } : {}),
        labels: {},
        ...(ports.length ? { ports } : {}),
        ...(handler === undefined ? {} : { handler }),
        ...(everyContainer(pod).some(one => one.securityContext?.privileged) ? { isPrivileged: true } : {}),
        ...(userIds ? { userIds } : {}),
      });
    } catch (error) {
      startedPodErrors.add();
      this.#subject.event('Warning', 'FailedCreatePodSandBox', `Failed to create pod sandbox: ${messageOf(error)}`);
      this.#wakeAfter(SANDBOX_RETRY_MS);
      return undefined;
    }
  }

  /** The pod's work is over or was ended: nothing of it runs on, its object stays. */
  async #conclude(state: RuntimeState): Promise<void> {
    if (this.#isOver) {
      this.#publish(state, true);
      return;
    }
    const grace = graceSecondsOf(this.#subject.pod);
    await this.#stops.stopAll(
      state,
      this.#ended?.reason === 'Evicted' ? Math.min(this.#evictionSecondsMax, grace) : grace,
    );
    for (const sandbox of state.sandboxes) await this.#context.runtime.stopSandbox(sandbox.id);
    await this.#publishPorts();
    this.#publish(await this.#context.runtime.snapshot(this.#uid), true);
    await this.#releaseDevices();
    await this.#releaseVolumes();
    this.#isOver = true;
    this.#over.resolve();
  }

  // A driver that does not answer is asked again by the step that this fails.
  async #releaseDevices(): Promise<void> {
    const { devices, cpus, memory } = this.#context;
    devices.release(this.#uid);
    memory.retain(uid => uid !== this.#uid);
    if (cpus.release(this.#uid)) await this.#context.shareCpus();
    if (allClaimsOf(this.#subject.pod).length > 0) await this.#context.claims.release(this.#uid);
  }
  async #releaseVolumes(): Promise<void> {
    const { cgroups, cgroupRoot } = this.#context;
    await this.#mounts.release();
    this.#context.userIds.release(this.#uid);
    cgroups.remove(podCgroup(cgroupRoot, this.#subject.pod));
  }

  async #terminate(state: RuntimeState): Promise<void> {
    const after = await this.#traced('syncTerminatingPod', () => this.#end(state));
    await this.#traced('syncTerminatedPod', () => this.#forget(after));
  }
  /** Nothing of the pod runs any more, and everybody knows. */
  async #end(state: RuntimeState): Promise<RuntimeState> {
    const { runtime, statuses } = this.#context;
    const { deletionGracePeriodSeconds } = this.#subject.pod.metadata;
    const grace = deletionGracePeriodSeconds ?? graceSecondsOf(this.#subject.pod);
    // Even a forced end leaves a second, so that a process can see its signal.
    const graceSeconds = this.#subject.isRemoved
      ? Math.max(1, Math.min(grace, this.#stops.graceSeconds ?? grace))
      : Math.max(grace, 0);
    this.#stops.limit(graceSeconds);
    if (!this.#subject.isRemoved) this.#publish(state);
    await this.#stops.stopAll(state, graceSeconds);
    for (const sandbox of state.sandboxes) await runtime.stopSandbox(sandbox.id);
    await this.#publishPorts();
    const after = await runtime.snapshot(this.#uid);
    await this.#releaseDevices();
    if (!this.#subject.isRemoved) {
      this.#publish(after, true);
      await statuses.flushed(this.#uid);
    }
    return after;
  }
  /** Nothing of it is left. */
  async #forget(after: RuntimeState): Promise<void> {
    const { runtime, statuses, transport, paths } = this.#context;
    const { namespace, name } = this.#subject.pod.metadata;
    await this.#releaseVolumes();
    if (!this.#subject.isRemoved) {
      try {
        await transport.delete(
          { of: PODS, namespace: namespace!, name },
          { gracePeriodSeconds: 0, preconditions: { uid: this.#uid } },
        );
      } catch (error) {
        if (!isReason(error, 'NotFound', 'Conflict')) {
          this.#context.log.debug('pod not deleted yet', { pod: this.#subject.name, error: messageOf(error) });
          return this.#wakeAfter(1000);
        }
      }
      // Finalizers may keep the object; its removal, whenever it comes, ends this worker.
      const isGone = await this.#isGone();
      if (!isGone) return this.#wakeAfter(RESYNC_MS);
    }
    for (const sandbox of after.sandboxes) await runtime.removeSandbox(sandbox.id);
    for (const container of (await runtime.snapshot(this.#uid)).containers) await runtime.remove(container.id);
    removeUnmounted(paths.pod(this.#uid));
    paths.removeMemory(this.#uid);
    rmSync(paths.logs({ namespace: namespace!, name, uid: this.#uid }), { recursive: true, force: true });
    statuses.forget(this.#uid);
    this.#probes.forget();
    this.#timer?.timer.cancel();
    this.#isDirty = false;
    this.#finish();
  }
  async #isGone(): Promise<boolean> {
    if (this.#subject.isRemoved) return true;
    try {
      const { namespace, name } = this.#subject.pod.metadata;
      const now = await this.#context.transport.get({ of: PODS, namespace: namespace!, name });
      return now.metadata.uid !== this.#uid;
    } catch (error) {
      return isReason(error, 'NotFound');
    }
  }
}
