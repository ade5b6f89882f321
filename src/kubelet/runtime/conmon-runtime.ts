/**
 * Containers by runc, each under a conmon of its own that outlives this process; namespaces, mounts and cgroups are made
 * in process. Folders:
 *   <root>/sandboxes.log, <root>/containers.log   records;  <root>/layers/ID, <root>/work/ID   a container's writable layer
 *   <run>/s/ID/{net,ipc,uts,shm}   a sandbox's pins;  <run>/c/ID/   bundle, pid, attach socket;  <run>/exits/ID   exit codes
 * Invariants: a record is on disk before the thing it describes exists, so nothing leaks in a crash; every method may be
 * repeated. A container counts as running only while the very process it started lives.
 */

import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  watch,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { Socket, type SocketConstructorOpts } from 'node:net';
import { availableParallelism } from 'node:os';
import { basename, dirname, join } from 'node:path';
import type { Duplex } from 'node:stream';
import { type Clock, systemClock } from '../../base/clock.ts';
import { messageOf, notFound } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { BoundedQueue } from '../../base/queue.ts';
import type { CgroupTree } from '../../sys/cgroup.ts';
import { isInMemory, mountOverlay, mountShm, mountTmpfs, unmount, unmountBelow } from '../../sys/mount.ts';
import { type PinnedNamespace, pinNamespaces, tcpSocketInside, unpinNamespaces } from '../../sys/namespaces.ts';
import { bootIdentity, clampOomScoreAdj, identify, isAlive, sendSignal } from '../../sys/process.ts';
import { spawnReplying } from '../../sys/spawn.ts';
import type { ImageStore } from '../images/image-store.ts';
import type {
  ContainerConfig,
  ContainerState,
  ExecOptions,
  PodNetwork,
  Runtime,
  RuntimeEvent,
  RuntimeState,
  SandboxConfig,
  SandboxState,
} from '../runtime.ts';
import { MountPoints } from './mount-points.ts';
import { type ContainerRecord, RecordLog, type SandboxRecord } from './records.ts';
import { runAttach, runExec } from './session.ts';
import { ALL_CAPABILITIES, capabilitiesOf, containerSpec } from './spec.ts';
import { resolveUser } from './users.ts';

export interface ConmonRuntimeOptions {
  readonly rootDir: string;
  readonly runDir: string;
  readonly images: ImageStore;
  readonly cgroups: CgroupTree;
  readonly network: PodNetwork;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly runc?: string;
  readonly conmon?: string;
}

const SHM_BYTES_DEFAULT = 64 * 1024 * 1024;
/** Exit code of a container whose monitor could not tell it: the machine or its namespaces went down. */
const EXIT_CODE_UNKNOWN = 255;
const EXIT_CODE_START_ERROR = 128;
const START_WAIT_MS_MAX = 120_000;
const EXIT_POLL_MS = 1000;
const REAP_MS = 100;
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
/** Some 60 KB a container, and a thousand of them. */
const RUN_BYTES_MAX = 64 * 1024 * 1024;

export class ConmonRuntime implements Runtime {
  readonly name = 'cox';
  readonly version = '0.1.0';
  readonly #options: ConmonRuntimeOptions;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #boot = bootIdentity();
  readonly #sandboxFiles: RecordLog<SandboxRecord>;
  readonly #containerFiles: RecordLog<ContainerRecord>;
  readonly #sandboxes = new Map<string, SandboxRecord>();
  readonly #containers = new Map<string, ContainerRecord>();
  readonly #exitWaiters = new Map<string, Set<() => void>>();
  readonly #listeners = new Set<BoundedQueue<RuntimeEvent>>();
  readonly #capabilities = ownCapabilities();
  readonly #mountPoints: MountPoints;
  // runc and conmon use the processor only; more at a time than there are processors just makes all of them late.
  readonly #starts = new Gate(Math.max(2, availableParallelism() + 1));
  #execCount = 0;

  constructor(options: ConmonRuntimeOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#log = options.log;
    const { rootDir, runDir } = options;
    mkdirSync(runDir, { recursive: true, mode: 0o711 });
    // What a start writes here is gone soon; on a disk each of its hundred files would look for a free inode.
    if (!isInMemory(runDir) && readdirSync(runDir).length === 0)
      mountTmpfs(runDir, { mode: 0o711, sizeBytes: RUN_BYTES_MAX });
    for (const folder of ['s', 'c', 'exits', 'runc', 'exec'])
      mkdirSync(join(runDir, folder), { recursive: true, mode: 0o711 });
    for (const folder of ['layers', 'work']) mkdirSync(join(rootDir, folder), { recursive: true, mode: 0o711 });
    this.#mountPoints = new MountPoints(join(rootDir, 'mount-points'));
    this.#sandboxFiles = new RecordLog(join(rootDir, 'sandboxes.log'));
    this.#containerFiles = new RecordLog(join(rootDir, 'containers.log'));
    for (const record of this.#sandboxFiles.load()) this.#sandboxes.set(record.id, record);
    for (const record of this.#containerFiles.load()) this.#containers.set(record.id, record);
    this.#clearLeftovers();
  }

  // Folders whose record is gone: removal or creation was cut short.
  #clearLeftovers(): void {
    const { runDir, rootDir } = this.#options;
    for (const id of readdirSync(join(runDir, 'c'))) if (!this.#containers.has(id)) this.#removeContainerFolders(id);
    for (const folder of ['layers', 'work'])
      for (const id of readdirSync(join(rootDir, folder)))
        if (!this.#containers.has(id)) this.#removeContainerFolders(id);
    for (const id of readdirSync(join(runDir, 's'))) if (!this.#sandboxes.has(id)) this.#removeSandboxFolder(id);
  }

  #sandboxDir(id: string): string {
    return join(this.#options.runDir, 's', id);
  }
  #bundle(id: string): string {
    return join(this.#options.runDir, 'c', id);
  }
  #exitFile(id: string): string {
    return join(this.#options.runDir, 'exits', id);
  }
  #sandbox(id: string): SandboxRecord {
    const record = this.#sandboxes.get(id);
    if (!record) throw notFound({ group: '', resource: 'sandboxes' }, id);
    return record;
  }
  #container(id: string): ContainerRecord {
    const record = this.#containers.get(id);
    if (!record) throw notFound({ group: '', resource: 'containers' }, id);
    return record;
  }

  async runSandbox(config: SandboxConfig): Promise<SandboxState> {
    const present = [...this.#sandboxes.values()].find(
      one => one.config.podUid === config.podUid && one.config.attempt === config.attempt,
    );
    if (
      present &&
      !present.stopped &&
      present.boot === this.#boot &&
      present.ips.length + Number(config.hostNetwork) > 0
    )
      return this.#sandboxState(present);
    const record: SandboxRecord =
      present && !present.stopped && present.boot === this.#boot
        ? present
        : {
            id: randomBytes(32).toString('hex'),
            config,
            createdMs: this.#clock.now(),
            boot: this.#boot,
            stopped: false,
            ips: [],
          };
    this.#sandboxes.set(record.id, record);
    this.#sandboxFiles.save(record);
    try {
      const kinds: PinnedNamespace[] = [
        ...(config.hostNetwork ? [] : (['net', 'uts'] as const)),
        ...(config.hostIpc ? [] : (['ipc'] as const)),
      ];
      const folder = this.#sandboxDir(record.id);
      if (!existsSync(folder)) {
        mkdirSync(folder, { mode: 0o711 });
        // Ports below 1024 and ping need no privilege in a network namespace that is the pod's own.
        const open: Record<string, string> = config.hostNetwork
          ? {}
          : { 'net.ipv4.ip_unprivileged_port_start': '0', 'net.ipv4.ping_group_range': '0 2147483647' };
        if (kinds.length)
          pinNamespaces({ folder, kinds, hostname: config.hostname, sysctls: { ...open, ...config.sysctls } });
        if (!config.hostIpc) mountShm(join(folder, 'shm'), config.shmBytes ?? SHM_BYTES_DEFAULT);
      }
      if (!config.hostNetwork) {
        const { ips } = await this.#options.network.attach({
          uid: config.podUid,
          namespace: config.namespace,
          name: config.name,
          netnsPath: join(folder, 'net'),
        });
        record.ips = ips;
        this.#sandboxFiles.save(record);
      }
      return this.#sandboxState(record);
    } catch (error) {
      await this.removeSandbox(record.id).catch(() => {});
      throw error;
    }
  }

  async stopSandbox(id: string, options: { readonly keepsAddress?: boolean } = {}): Promise<void> {
    const record = this.#sandboxes.get(id);
    if (!record) return;
    for (const container of this.#containers.values())
      if (container.sandboxId === id && this.#refresh(container) === 'running') await this.stop(container.id, 0);
    if (!record.stopped) {
      record.stopped = true;
      this.#sandboxFiles.save(record);
    }
    if (!record.config.hostNetwork && !options.keepsAddress && !this.#hasOtherReadySandbox(record))
      await this.#options.network.detach(record.config.podUid);
    this.#removeSandboxFolder(id);
  }

  #hasOtherReadySandbox(record: SandboxRecord): boolean {
    return [...this.#sandboxes.values()].some(
      one => one !== record && one.config.podUid === record.config.podUid && !one.stopped && one.boot === this.#boot,
    );
  }

  async removeSandbox(id: string): Promise<void> {
    if (!this.#sandboxes.has(id)) return;
    await this.stopSandbox(id);
    for (const container of [...this.#containers.values()])
      if (container.sandboxId === id) await this.remove(container.id);
    this.#sandboxes.delete(id);
    this.#sandboxFiles.delete(id);
  }

  #removeSandboxFolder(id: string): void {
    const folder = this.#sandboxDir(id);
    if (!existsSync(folder)) return;
    unpinNamespaces(folder);
    unmount(join(folder, 'shm'));
    rmSync(folder, { recursive: true, force: true });
  }

  async createContainer(sandboxId: string, config: ContainerConfig): Promise<string> {
    const sandbox = this.#sandbox(sandboxId);
    const present = [...this.#containers.values()].find(
      one => one.sandboxId === sandboxId && one.config.name === config.name && one.config.attempt === config.attempt,
    );
    if (present) return present.id;
    const image = this.#options.images.find(config.imageId);
    if (!image) throw new Error(`image ${config.imageRef} (${config.imageId}) is not present`);
    const id = randomBytes(32).toString('hex');
    const cgroup = `${sandbox.config.cgroupParent}/${id}`;
    const record: ContainerRecord = {
      id,
      sandboxId,
      podUid: sandbox.config.podUid,
      config,
      createdMs: this.#clock.now(),
      boot: this.#boot,
      cgroup,
      stopSignal: config.stopSignal ?? image.config.StopSignal ?? 'SIGTERM',
    };
    this.#containers.set(id, record);
    this.#containerFiles.save(record);
    try {
      this.#options.images.hold(image.id, id);
      const upper = join(this.#options.rootDir, 'layers', id);
      const work = join(this.#options.rootDir, 'work', id);
      const rootfs = join(this.#bundle(id), 'rootfs');
      for (const folder of [this.#bundle(id), rootfs, upper, work]) mkdirSync(folder, { mode: 0o755 });
      const points = ['/proc', '/sys', '/dev', ...config.mounts.map(mount => mount.containerPath)];
      mountOverlay({
        lower: [...[...image.layers].reverse(), this.#mountPoints.layer(points)],
        lowerBase: this.#options.images.layersDir,
        upper,
        work,
        target: rootfs,
      });
      record.user = resolveUser(rootfs, image.config.User ?? '', config.user ?? {});
      const folder = this.#sandboxDir(sandboxId);
      const pin = (kind: PinnedNamespace) => (existsSync(join(folder, kind)) ? { [kind]: join(folder, kind) } : {});
      const spec = containerSpec({
        config,
        sandbox: sandbox.config,
        image,
        user: record.user,
        rootfs,
        cgroupsPath: cgroup,
        unified: this.#options.cgroups.unified,
        available: this.#capabilities,
        oomScoreAdj: clampOomScoreAdj(config.oomScoreAdj),
        namespaces: { ...pin('net'), ...pin('ipc'), ...pin('uts'), ...this.#processNamespace(config) },
        shmPath: sandbox.config.hostIpc ? '/dev/shm' : join(folder, 'shm'),
      });
      writeFileSync(join(this.#bundle(id), 'config.json'), JSON.stringify(spec));
      mkdirSync(join(config.logPath, '..'), { recursive: true, mode: 0o755 });
      return id;
    } catch (error) {
      await this.remove(id).catch(() => {});
      throw error;
    }
  }

  #processNamespace({ processesOf }: ContainerConfig): { pid?: string } {
    if (processesOf === undefined) return {};
    const { process } = this.#container(processesOf);
    if (!process || !isAlive(process)) throw new Error(`container ${processesOf} is not running`);
    return { pid: `/proc/${process.pid}/ns/pid` };
  }

  async start(id: string): Promise<void> {
    const record = this.#container(id);
    if (record.startedMs !== undefined || record.finishedMs !== undefined) return;
    try {
      await this.#starts.run(async () => {
        const pid = await this.#spawnMonitor(record);
        const process = identify(pid);
        if (process) record.process = process;
        record.startedMs = this.#clock.now();
        // Saved before the process runs its program: from here on a restarted agent can find it.
        this.#containerFiles.save(record);
        await this.#release(record);
      });
    } catch (error) {
      record.exitCode = EXIT_CODE_START_ERROR;
      record.reason = 'StartError';
      record.message = messageOf(error);
      record.finishedMs = this.#clock.now();
      delete record.startedMs;
      this.#kill(record);
      this.#containerFiles.save(record);
      throw error;
    }
    this.#emit({ podUid: record.podUid, containerId: id, started: true });
  }

  /** Resolves with the container's pid once runc has made it and it waits to run its program. */
  #spawnMonitor(record: ContainerRecord): Promise<number> {
    const { id, config } = record;
    const bundle = this.#bundle(id);
    const args = [
      '--api-version',
      '1',
      '-c',
      id,
      '-u',
      id,
      '-n',
      config.name,
      '-r',
      this.#options.runc ?? '/usr/sbin/runc',
      '-b',
      bundle,
      '-p',
      join(bundle, 'pid'),
      '-P',
      join(bundle, 'conmon.pid'),
      '-l',
      `k8s-file:${config.logPath}`,
      '--exit-dir',
      join(this.#options.runDir, 'exits'),
      '--persist-dir',
      bundle,
      '--full-attach',
      '--no-sync-log',
      '--log-level',
      'error',
      '--runtime-arg',
      '--root',
      '--runtime-arg',
      join(this.#options.runDir, 'runc'),
      ...(config.tty ? ['-t'] : []),
      ...(config.stdin ? ['-i', ...(config.stdinOnce ? [] : ['--leave-stdin-open'])] : []),
    ];
    return new Promise((resolve, reject) => {
      const { reply: sync, reap } = spawnReplying(this.#options.conmon ?? '/usr/bin/conmon', args, {
        // It leaves a file `oom` where it runs.
        cwd: bundle,
        env: {
          PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
          _OCI_SYNCPIPE: '3',
          // runc's work has one strand; more processors for its runtime cost a tenth more of them.
          GOMAXPROCS: '1',
        },
      });
      const timer = this.#clock.after(START_WAIT_MS_MAX, () => settle('container creation did not answer in time'));
      let text = '';
      let isSettled = false;
      const settle = (error?: string, pid = 0) => {
        if (isSettled) return;
        isSettled = true;
        timer.cancel();
        sync.destroy();
        this.#reapLater(reap);
        if (error === undefined) resolve(pid);
        else reject(new Error(error));
      };
      sync.on('data', chunk => {
        text += String(chunk);
        const line = text.slice(0, text.indexOf('\n') + 1);
        if (!line) return;
        const reply = JSON.parse(line) as { data?: number; pid?: number; message?: string };
        const pid = reply.data ?? reply.pid ?? -1;
        if (pid > 0) settle(undefined, pid);
        else settle(runtimeMessage(reply.message ?? 'container creation failed'));
      });
      sync.on('error', error => settle(messageOf(error)));
      sync.on('close', () => settle('container creation ended without an answer'));
    });
  }

  // conmon's first process ends as soon as it has put itself in the background.
  #reapLater(reap: () => boolean): void {
    if (!reap()) this.#clock.after(REAP_MS, () => this.#reapLater(reap), { background: true });
  }

  // What `runc start` does, without a process: the container's init waits until its fifo is read.
  async #release(record: ContainerRecord): Promise<void> {
    const fifo = join(this.#options.runDir, 'runc', record.id, 'exec.fifo');
    const handle = await open(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const byte = Buffer.alloc(1);
      const endMs = this.#clock.monotonic() + START_WAIT_MS_MAX;
      for (;;) {
        let bytesRead = 0;
        try {
          ({ bytesRead } = await handle.read(byte, 0, 1));
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
        }
        if (bytesRead > 0) break;
        if (record.process && !isAlive(record.process))
          throw new Error('container process ended before it could be started');
        if (this.#clock.monotonic() > endMs) throw new Error('container process did not start in time');
        await this.#clock.sleep(1);
      }
    } finally {
      await handle.close();
    }
    rmSync(fifo, { force: true });
  }

  /** Brings a record up to what the exit files and /proc say. */
  #refresh(record: ContainerRecord): ContainerState['state'] {
    if (record.finishedMs !== undefined) return 'exited';
    if (record.boot !== this.#boot) {
      // When it really ended nobody saw; as containerd, now.
      record.finishedMs = this.#clock.now();
      record.exitCode = EXIT_CODE_UNKNOWN;
      record.reason = 'Unknown';
      this.#containerFiles.save(record);
      return 'exited';
    }
    if (record.startedMs === undefined) return 'created';
    const exit = statSync(this.#exitFile(record.id), { throwIfNoEntry: false });
    const code = exit && readFileSync(this.#exitFile(record.id), 'latin1').trim();
    if (exit && code !== '') {
      record.exitCode = Number(code);
      record.finishedMs = Math.max(Math.round(exit.mtimeMs), record.startedMs);
    } else if (record.process && !isAlive(record.process)) {
      // Give conmon, if it lives, the chance to write the code; without it the code is lost.
      const monitor = Number(readText(join(this.#bundle(record.id), 'conmon.pid')));
      if (monitor > 0 && identify(monitor)) return 'running';
      record.exitCode = EXIT_CODE_UNKNOWN;
      record.reason = 'Unknown';
      record.finishedMs = this.#clock.now();
    } else {
      return 'running';
    }
    record.oomKilled =
      record.exitCode !== 0 &&
      (this.#options.cgroups.oomKills(record.cgroup) > 0 || existsSync(join(this.#bundle(record.id), 'oom')));
    this.#containerFiles.save(record);
    this.#kill(record);
    for (const wake of this.#exitWaiters.get(record.id) ?? []) wake();
    return 'exited';
  }

  // Nothing of an ended container may run on: without a process namespace of its own, children can outlive its first process.
  #kill(record: ContainerRecord): void {
    for (const pid of this.#options.cgroups.processes(record.cgroup)) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // Gone already.
      }
    }
  }

  async stop(id: string, graceSeconds: number): Promise<void> {
    const record = this.#containers.get(id);
    if (!record) return;
    const state = this.#refresh(record);
    if (state === 'exited') return;
    if (state === 'created') {
      record.finishedMs = this.#clock.now();
      record.exitCode = EXIT_CODE_UNKNOWN;
      this.#containerFiles.save(record);
      return;
    }
    if (graceSeconds > 0) {
      if (record.process) sendSignal(record.process, signalNumber(record.stopSignal));
      if (await this.#waitExit(record, graceSeconds * 1000)) return;
    }
    this.#kill(record);
    if (record.process) sendSignal(record.process, 'SIGKILL');
    if (!(await this.#waitExit(record, 30_000))) throw new Error(`container ${id} does not end after SIGKILL`);
  }

  async #waitExit(record: ContainerRecord, timeoutMs: number): Promise<boolean> {
    const endMs = this.#clock.monotonic() + timeoutMs;
    while (this.#refresh(record) !== 'exited') {
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

  async remove(id: string): Promise<void> {
    const record = this.#containers.get(id);
    if (!record) return;
    await this.stop(id, 0);
    this.#removeContainerFolders(id);
    removeLogs(record.config.logPath);
    this.#options.cgroups.remove(record.cgroup);
    this.#options.images.release(record.config.imageId, id);
    this.#containers.delete(id);
    this.#containerFiles.delete(id);
  }

  #removeContainerFolders(id: string): void {
    const { runDir, rootDir } = this.#options;
    unmount(join(this.#bundle(id), 'rootfs'));
    rmSync(this.#bundle(id), { recursive: true, force: true });
    for (const folder of ['layers', 'work']) rmSync(join(rootDir, folder, id), { recursive: true, force: true });
    rmSync(join(runDir, 'runc', id), { recursive: true, force: true });
    rmSync(this.#exitFile(id), { force: true });
  }

  async exec(id: string, options: ExecOptions): Promise<{ readonly exitCode: number }> {
    const record = this.#container(id);
    if (this.#refresh(record) !== 'running') throw new Error(`container ${id} is not running`);
    const { config, user } = record;
    const image = this.#options.images.find(config.imageId);
    const capabilities = capabilitiesOf(config, this.#capabilities);
    const process = {
      terminal: options.tty,
      user: { uid: user?.uid ?? 0, gid: user?.gid ?? 0, additionalGids: user?.additionalGids ?? [] },
      args: options.command,
      env: config.env.map(([name, value]) => `${name}=${value}`).concat(options.tty ? ['TERM=xterm'] : []),
      cwd: config.workingDir || image?.config.WorkingDir || '/',
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      noNewPrivileges: config.noNewPrivileges,
      oomScoreAdj: clampOomScoreAdj(config.oomScoreAdj),
    };
    return runExec({
      runc: this.#options.runc ?? '/usr/sbin/runc',
      runcRoot: join(this.#options.runDir, 'runc'),
      id,
      process,
      options,
      scratch: join(this.#options.runDir, 'exec'),
      name: `${globalThis.process.pid}-${this.#execCount++}`,
    });
  }

  async attach(id: string, options: Parameters<Runtime['attach']>[1]): Promise<void> {
    const record = this.#container(id);
    if (this.#refresh(record) !== 'running') throw new Error(`container ${id} is not running`);
    // A socket's address holds 107 bytes: a short link stands in for the long path.
    const link = join(this.#options.runDir, 'exec', `${process.pid}-${this.#execCount++}`);
    symlinkSync(this.#bundle(id), link);
    try {
      await runAttach({
        socketPath: join(link, 'attach'),
        stdinOnce: record.config.stdinOnce,
        options,
        clock: this.#clock,
        resize: size => this.#control(id, `1 ${size.height} ${size.width}\n`),
      });
    } finally {
      rmSync(link, { force: true });
    }
  }

  #control(id: string, command: string): void {
    try {
      const fd = openSync(join(this.#bundle(id), 'ctl'), constants.O_WRONLY | constants.O_NONBLOCK);
      try {
        writeSync(fd, command);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      this.#log.debug('container monitor does not listen', { id, error: messageOf(error) });
    }
  }

  async reopenLog(id: string): Promise<void> {
    this.#control(id, '2 0 0\n');
  }

  async portForward(sandboxId: string, port: number): Promise<Duplex> {
    const record = this.#sandbox(sandboxId);
    const dial = (host: string) =>
      new Promise<Duplex>((resolve, reject) => {
        const options = { allowHalfOpen: true };
        // Node makes its socket a turn later, in the thread's own namespace; this one is made inside the pod's.
        const socket = record.config.hostNetwork
          ? new Socket(options)
          : new Socket({
              ...options,
              manualStart: true,
              fd: tcpSocketInside(join(this.#sandboxDir(sandboxId), 'net'), host.includes(':') ? 6 : 4),
            } as SocketConstructorOpts);
        socket.once('error', reject);
        socket.connect({ host, port }, () => resolve(socket));
      });
    try {
      return await dial('127.0.0.1');
    } catch (error) {
      return dial('::1').catch(() => {
        throw error;
      });
    }
  }

  async snapshot(podUid?: string): Promise<RuntimeState> {
    return this.look(podUid);
  }
  /** As `snapshot`, at once. */
  look(podUid?: string): RuntimeState {
    const sandboxes: SandboxState[] = [];
    const containers: ContainerState[] = [];
    for (const record of this.#sandboxes.values())
      if (podUid === undefined || record.config.podUid === podUid) sandboxes.push(this.#sandboxState(record));
    for (const record of this.#containers.values())
      if (podUid === undefined || record.podUid === podUid) containers.push(this.#containerState(record));
    return { sandboxes, containers };
  }

  #sandboxState(record: SandboxRecord): SandboxState {
    const { id, config, createdMs, ips } = record;
    const isReady =
      !record.stopped &&
      record.boot === this.#boot &&
      existsSync(this.#sandboxDir(id)) &&
      (config.hostNetwork || ips.length > 0);
    return {
      id,
      podUid: config.podUid,
      namespace: config.namespace,
      name: config.name,
      attempt: config.attempt,
      ready: isReady,
      createdMs,
      ips,
      netnsPath: config.hostNetwork ? undefined : join(this.#sandboxDir(id), 'net'),
    };
  }

  #containerState(record: ContainerRecord): ContainerState {
    const state = this.#refresh(record);
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
      layerPath: join(this.#options.rootDir, 'layers', id),
      ...(record.reason ? { reason: record.reason } : {}),
      ...(record.message ? { message: record.message } : {}),
      ...(record.user ? { user: record.user } : {}),
      labels: config.labels,
    };
  }

  #emit(event: RuntimeEvent): void {
    for (const queue of this.#listeners) {
      // A full queue already says "look again" many times over.
      queue.push(event);
    }
  }

  async *events(signal: AbortSignal): AsyncIterable<RuntimeEvent> {
    const queue = new BoundedQueue<RuntimeEvent>(EVENTS_MAX);
    const watcher = watch(join(this.#options.runDir, 'exits'), (_, name) => {
      const record = name ? this.#containers.get(name) : undefined;
      if (!record || this.#refresh(record) !== 'exited') return;
      this.#emit({ podUid: record.podUid, containerId: record.id });
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

  /** Takes everything down: for tests, and for leaving a machine. */
  async removeAll(): Promise<void> {
    await Promise.all([...this.#containers.keys()].map(id => this.remove(id)));
    for (const id of [...this.#sandboxes.keys()]) await this.removeSandbox(id);
    unmountBelow(this.#options.runDir);
  }
}

/** At most so many tasks at a time, in order of arrival. */
class Gate {
  #free: number;
  readonly #waiting: (() => void)[] = [];
  constructor(size: number) {
    this.#free = size;
  }
  async run<T>(task: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>(resolve => this.#waiting.push(resolve));
    try {
      return await task();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }
}

function ownCapabilities(): ReadonlySet<string> {
  const bounding = BigInt(`0x${/^CapBnd:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'}`);
  // The kernel's numbering of capabilities.
  const order = [
    'CHOWN',
    'DAC_OVERRIDE',
    'DAC_READ_SEARCH',
    'FOWNER',
    'FSETID',
    'KILL',
    'SETGID',
    'SETUID',
    'SETPCAP',
    'LINUX_IMMUTABLE',
    'NET_BIND_SERVICE',
    'NET_BROADCAST',
    'NET_ADMIN',
    'NET_RAW',
    'IPC_LOCK',
    'IPC_OWNER',
    'SYS_MODULE',
    'SYS_RAWIO',
    'SYS_CHROOT',
    'SYS_PTRACE',
    'SYS_PACCT',
    'SYS_ADMIN',
    'SYS_BOOT',
    'SYS_NICE',
    'SYS_RESOURCE',
    'SYS_TIME',
    'SYS_TTY_CONFIG',
    'MKNOD',
    'LEASE',
    'AUDIT_WRITE',
    'AUDIT_CONTROL',
    'SETFCAP',
    'MAC_OVERRIDE',
    'MAC_ADMIN',
    'SYSLOG',
    'WAKE_ALARM',
    'BLOCK_SUSPEND',
    'AUDIT_READ',
    'PERFMON',
    'BPF',
    'CHECKPOINT_RESTORE',
  ];
  return new Set(ALL_CAPABILITIES.filter(name => (bounding >> BigInt(order.indexOf(name))) & 1n));
}

function signalNumber(name: string): number {
  if (/^\d+$/.test(name)) return Number(name);
  const full = name.toUpperCase().startsWith('SIG') ? name.toUpperCase() : `SIG${name.toUpperCase()}`;
  const realtime = /^SIGRTMIN(?:\+(\d+))?$/.exec(full);
  return realtime ? 34 + Number(realtime[1] ?? 0) : (SIGNALS[full] ?? 15);
}

// runc logs `runc create failed: …` as one line of its log format; users need the sentence only.
function runtimeMessage(text: string): string {
  const message = /msg="((?:[^"\\]|\\.)*)"/.exec(text)?.[1]?.replaceAll('\\"', '"') ?? text.trim();
  return `OCI runtime create failed: ${message}`;
}

// With the pieces that rotation made of it.
function removeLogs(path: string): void {
  const folder = dirname(path);
  if (!existsSync(folder)) return;
  for (const name of readdirSync(folder))
    if (name === basename(path) || name.startsWith(`${basename(path)}.`)) rmSync(join(folder, name), { force: true });
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
