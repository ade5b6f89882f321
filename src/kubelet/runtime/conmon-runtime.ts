/**
 * Containers by crun or runc, each under a conmon of its own that outlives this process; namespaces, mounts and cgroups are made
 * in process. Here the parts meet: `sandboxes`, `containers` (their records and state), `bundle`, `monitor`, `folders`.
 * Invariants: a record is on disk before the thing it describes exists, so nothing leaks in a crash; every method may be
 * repeated. A container counts as running only while the very process it started lives. It refuses to decide: what runs when,
 * and what runs again, is the kubelet's.
 */

import { randomBytes } from 'node:crypto';
import { existsSync, rmSync, symlinkSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { type Clock, systemClock } from '../../base/clock.ts';
import { COXSWAIN_VERSION } from '../../base/cluster-defaults.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import type { CgroupTree } from '../../sys/cgroup.ts';
import { runCommand } from '../../sys/command.ts';
import { bootIdentity, clampOomScoreAdj, identify, isAlive } from '../../sys/process.ts';
import { checkLabel, hasSelinux, labelOf, relabel } from '../../sys/selinux.ts';
import { hasUserNamespaces } from '../../sys/user-namespace.ts';
import type { Image, ImageStore } from '../images/image-store.ts';
import type {
  ContainerConfig,
  ContainerState,
  ExecOptions,
  ExecResult,
  HandlerFeatures,
  PodNetwork,
  Runtime,
  RuntimeEvent,
  RuntimeState,
  SandboxConfig,
  SandboxState,
} from '../runtime.ts';
import { type DefaultLabels, defaultLabels, type Labels } from '../selinux.ts';
import { hasRecursiveReadOnly } from '../volumes/recursive-read-only.ts';
import { makeBundle } from './bundle.ts';
import { ownCapabilities } from './capabilities.ts';
import { Containers } from './containers.ts';
import { RuntimeFolders, removeLogs } from './folders.ts';
import { Gate } from './gate.ts';
import { Monitor } from './monitor.ts';
import { MountPoints } from './mount-points.ts';
import { type OciRuntime, OciRuntimes } from './oci-runtime.ts';
import type { ContainerRecord, SandboxRecord } from './records.ts';
import { Sandboxes } from './sandboxes.ts';
import { runAttach, runExec } from './session.ts';
import { joiningProcess } from './spec.ts';

export interface ConmonRuntimeOptions {
  readonly rootDir: string;
  readonly runDir: string;
  readonly images: ImageStore;
  readonly cgroups: CgroupTree;
  readonly network: PodNetwork;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly conmon?: string;
  /** What it is called in RuntimeClasses; `''` where it is the node's default. */
  readonly handlers?: readonly string[];
}

const EXIT_CODE_START_ERROR = 128;

export class ConmonRuntime implements Runtime {
  readonly name = 'cox';
  readonly version = COXSWAIN_VERSION;
  readonly handlers: readonly string[];
  /** Labels are given to what is there. */
  readonly needsMounts = hasSelinux();
  /** Absent where the kernel has no SELinux. */
  readonly #selinux: DefaultLabels | undefined = this.needsMounts ? defaultLabels() : undefined;
  readonly #images: ImageStore;
  readonly #cgroups: CgroupTree;
  readonly #clock: Clock;
  readonly #programs: OciRuntimes;
  readonly #boot = bootIdentity();
  readonly #folders: RuntimeFolders;
  readonly #monitor: Monitor;
  readonly #sandboxes: Sandboxes;
  readonly #containers: Containers;
  readonly #capabilities = ownCapabilities();
  readonly #mountPoints: MountPoints;
  // Starting a container uses the processor only; more at a time than there are processors just makes all of them late.
  readonly #log: Logger;
  /** Hooks after the end, under way. */
  readonly #afterwardsOf = new Map<string, Promise<void>>();
  readonly #starts = new Gate(Math.max(2, availableParallelism() + 1));
  #execCount = 0;

  constructor(options: ConmonRuntimeOptions) {
    const { images, cgroups, network, log, clock = systemClock } = options;
    this.#log = log;
    this.#images = images;
    this.#cgroups = cgroups;
    this.#clock = clock;
    const folders = new RuntimeFolders(options.rootDir, options.runDir);
    this.#folders = folders;
    this.#programs = new OciRuntimes(folders.oci);
    this.handlers = options.handlers ?? ['', ...this.#programs.names, 'cox'];
    this.#mountPoints = new MountPoints(folders.mountPoints);
    const conmon = options.conmon ?? '/usr/bin/conmon';
    this.#monitor = new Monitor({ folders, clock, log, conmon });
    this.#sandboxes = new Sandboxes({
      ...{ folders, network, clock, programs: this.#programs, boot: this.#boot },
      random: systemRandom,
      selinux: this.#selinux,
    });
    this.#containers = new Containers({
      folders,
      monitor: this.#monitor,
      cgroups,
      clock,
      boot: this.#boot,
      ended: record => void this.#afterwards(record),
    });
    folders.clearLeftovers({ sandboxes: this.#sandboxes.ids(), containers: this.#containers.ids() });
    for (const record of this.#containers.all())
      if (this.#containers.refresh(record) === 'running' && folders.isWaiting(record.id))
        void this.#release(record).catch(error => log.debug('a container did not wait', { error: messageOf(error) }));
  }

  featuresOf(handler: string): HandlerFeatures | undefined {
    if (!this.handlers.includes(handler)) return undefined;
    return {
      recursiveReadOnlyMounts: hasRecursiveReadOnly,
      userNamespaces: hasUserNamespaces,
      supplementalGroupsPolicy: true,
    };
  }

  async runSandbox(config: SandboxConfig): Promise<SandboxState> {
    const present = this.#sandboxes.like(config);
    if (present && (config.hostNetwork || present.ips.length > 0)) return this.#sandboxes.state(present);
    const record = this.#sandboxes.begin(config);
    try {
      await this.#sandboxes.make(record, config);
      return this.#sandboxes.state(record);
    } catch (error) {
      await this.removeSandbox(record.id).catch(() => {});
      throw error;
    }
  }

  async stopSandbox(id: string, options: { readonly keepsAddress?: boolean } = {}): Promise<void> {
    const record = this.#sandboxes.find(id);
    if (!record) return;
    for (const container of this.#containers.all())
      if (container.sandboxId === id && this.#containers.refresh(container) === 'running')
        await this.stop(container.id, 0);
    await this.#sandboxes.stop(record, options);
  }

  async removeSandbox(id: string): Promise<void> {
    if (!this.#sandboxes.find(id)) return;
    await this.stopSandbox(id);
    for (const container of this.#containers.inSandbox(id)) await this.remove(container.id);
    this.#sandboxes.delete(id);
  }

  async createContainer(sandboxId: string, config: ContainerConfig): Promise<string> {
    const sandbox = this.#sandboxes.get(sandboxId);
    const present = this.#containers
      .inSandbox(sandboxId)
      .find(one => one.config.name === config.name && one.config.attempt === config.attempt);
    if (present) return present.id;
    const image = this.#images.find(config.imageId);
    if (!image) throw new Error(`image ${config.imageRef} (${config.imageId}) is not present`);
    const id = randomBytes(32).toString('hex');
    const labels = this.#labels(config, sandbox);
    const record: ContainerRecord = {
      id,
      sandboxId,
      podUid: sandbox.config.podUid,
      config,
      createdMs: this.#clock.now(),
      boot: this.#boot,
      cgroup: `${sandbox.config.cgroupParent}/${id}`,
      stopSignal: config.stopSignal ?? image.config.StopSignal ?? 'SIGTERM',
      ...(labels ? { selinux: labels } : {}),
    };
    this.#containers.add(record);
    try {
      this.#images.hold(image.id, id);
      if (labels) {
        await labelMounts(config, labels.file);
        await this.#labelLayers(image);
      }
      record.user = makeBundle({
        record,
        sandbox: sandbox.config,
        image,
        folders: this.#folders,
        mountPoints: this.#mountPoints,
        layersDir: this.#images.layersDir,
        unified: this.#cgroups.unified,
        available: this.#capabilities,
        processNamespace: () => this.#processNamespace(config, sandbox),
      });
      return id;
    } catch (error) {
      await this.remove(id).catch(() => {});
      throw error;
    }
  }

  #labels({ privileged, selinux }: ContainerConfig, sandbox: SandboxRecord): Labels | undefined {
    const labels = this.#sandboxes.labels(sandbox, selinux);
    if (!labels) return undefined;
    checkLabel(labels.process);
    return privileged ? { file: labels.file } : labels;
  }

  // Through an overlay the kernel looks at the label of the layer's own file, where a program changes the protection of its memory.
  async #labelLayers({ layers }: Image): Promise<void> {
    const { layer } = this.#selinux!;
    for (const name of layers) {
      const folder = join(this.#images.layersDir, name);
      if (labelOf(folder) !== layer) await relabel(folder, layer);
    }
  }

  #oci({ sandboxId }: ContainerRecord): OciRuntime {
    return this.#programs.get(this.#sandboxes.get(sandboxId).oci);
  }

  /** The OCI runtime runs what is to run after the container's end; it knows of the container until then. Repeating it is harmless. */
  #afterwards(record: ContainerRecord): Promise<void> {
    const { id, config } = record;
    if (!config.hooks?.some(({ moment }) => moment === 'poststop')) return Promise.resolve();
    let running = this.#afterwardsOf.get(id);
    if (!running && existsSync(join(this.#folders.oci, id))) {
      const { program, root } = this.#oci(record);
      running = runCommand(program, ['--root', root, 'delete', '--force', id])
        .then(
          () => undefined,
          error =>
            this.#log.warn('hooks after the end of a container failed', {
              container: config.name,
              error: messageOf(error),
            }),
        )
        .finally(() => this.#afterwardsOf.delete(id));
      this.#afterwardsOf.set(id, running);
    }
    return running ?? Promise.resolve();
  }

  /** Its program begins. An agent that was killed before that comes here again. */
  #release(record: ContainerRecord): Promise<void> {
    const { id, process } = record;
    return this.#oci(record).release({ id, isAlive: () => !process || isAlive(process) }, this.#clock);
  }

  #processNamespace({ processesOf }: ContainerConfig, { holder }: SandboxRecord): string | undefined {
    if (holder) {
      if (!isAlive(holder)) throw new Error('the process that holds the shared PID namespace has ended');
      return `/proc/${holder.pid}/ns/pid`;
    }
    if (processesOf === undefined) return undefined;
    const { process } = this.#containers.get(processesOf);
    if (!process || !isAlive(process)) throw new Error(`container ${processesOf} is not running`);
    return `/proc/${process.pid}/ns/pid`;
  }

  async start(id: string): Promise<void> {
    const record = this.#containers.get(id);
    if (record.startedMs !== undefined || record.finishedMs !== undefined) return;
    try {
      await this.#starts.run(
        async () => {
          const pid = await this.#monitor.spawn(record, this.#oci(record));
          const process = identify(pid);
          if (process) record.process = process;
          record.startedMs = this.#clock.now();
          // Saved before the process runs its program: from here on a restarted agent can find it.
          this.#containers.save(record);
          await this.#release(record);
        },
        { isFirst: record.config.attempt === 0 },
      );
    } catch (error) {
      record.exitCode = EXIT_CODE_START_ERROR;
      record.reason = 'StartError';
      record.message = messageOf(error);
      record.finishedMs = this.#clock.now();
      delete record.startedMs;
      this.#containers.kill(record);
      this.#containers.save(record);
      throw error;
    }
    this.#containers.emit({ podUid: record.podUid, containerId: id, started: true });
  }

  async stop(id: string, graceSeconds: number): Promise<void> {
    return this.#containers.stop(id, graceSeconds);
  }

  async remove(id: string): Promise<void> {
    const record = this.#containers.find(id);
    if (!record) return;
    await this.stop(id, 0);
    await this.#afterwards(record);
    this.#folders.removeContainer(id);
    removeLogs(record.config.logPath);
    this.#cgroups.remove(record.cgroup);
    this.#images.release(record.config.imageId, id);
    this.#containers.delete(id);
  }

  async update(id: string, resources: ContainerConfig['resources']): Promise<void> {
    const record = this.#containers.running(id);
    this.#cgroups.set(record.cgroup, { cpuQuotaMicros: -1, memoryBytesMax: -1, ...resources });
    record.config = { ...record.config, resources };
    this.#containers.save(record);
  }

  async exec(id: string, options: ExecOptions): Promise<ExecResult> {
    const record = this.#containers.running(id);
    const { config, user, selinux } = record;
    return runExec({
      oci: this.#oci(record),
      id,
      process: joiningProcess({
        config,
        image: this.#images.find(config.imageId),
        user,
        available: this.#capabilities,
        oomScoreAdj: clampOomScoreAdj(config.oomScoreAdj),
        command: options.command,
        tty: options.tty,
        selinux,
      }),
      options,
      scratch: this.#folders.scratch,
      name: this.#scratchName(),
    });
  }

  async attach(id: string, options: Parameters<Runtime['attach']>[1]): Promise<void> {
    const record = this.#containers.running(id);
    // A socket's address holds 107 bytes: a short link stands in for the long path.
    const link = join(this.#folders.scratch, this.#scratchName());
    symlinkSync(this.#folders.bundle(id), link);
    try {
      await runAttach({
        socketPath: join(link, 'attach'),
        stdinOnce: record.config.stdinOnce,
        options,
        clock: this.#clock,
        resize: size => this.#monitor.control(id, `1 ${size.height} ${size.width}\n`),
      });
    } finally {
      rmSync(link, { force: true });
    }
  }

  #scratchName(): string {
    return `${process.pid}-${this.#execCount++}`;
  }

  async reopenLog(id: string): Promise<void> {
    this.#monitor.control(id, '2 0 0\n');
  }

  async portForward(sandboxId: string, port: number): Promise<Duplex> {
    return this.#sandboxes.dial(sandboxId, port);
  }

  async snapshot(podUid?: string): Promise<RuntimeState> {
    const sandboxes: SandboxState[] = [];
    const containers: ContainerState[] = [];
    for (const record of this.#sandboxes.all())
      if (podUid === undefined || record.config.podUid === podUid) sandboxes.push(this.#sandboxes.state(record));
    for (const record of this.#containers.all())
      if (podUid === undefined || record.podUid === podUid) containers.push(this.#containers.state(record));
    return { sandboxes, containers };
  }

  events(signal: AbortSignal): AsyncIterable<RuntimeEvent> {
    return this.#containers.events(signal);
  }

  /** Takes everything down: for tests, and for leaving a machine. */
  async removeAll(): Promise<void> {
    await Promise.all([...this.#containers.ids()].map(id => this.remove(id)));
    for (const id of this.#sandboxes.ids()) await this.removeSandbox(id);
    this.#folders.unmountAll();
  }
}

async function labelMounts({ mounts, terminationMessagePath }: ContainerConfig, label: string): Promise<void> {
  for (const mount of mounts) if (mount.relabel) await relabel(mount.hostPath, label);
  if (terminationMessagePath) await relabel(terminationMessagePath.hostPath, label);
}
