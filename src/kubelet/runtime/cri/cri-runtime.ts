/**
 * Containers by a container runtime of its own (containerd, CRI-O) over the Container Runtime Interface, version 1, on a unix socket.
 * Here the parts meet: `translation` (what is asked), `states` (what there is), `image-supply`, `network-door`, `streaming`. Invariants:
 * the runtime's lists are the truth, nothing about a container is kept here that a restarted agent would miss; whatever the
 * runtime made for the kubelet carries its annotation. It refuses what the interface cannot say.
 */

import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { type Clock, systemClock } from '../../../base/clock.ts';
import { failure, messageOf } from '../../../base/errors.ts';
import type { Logger } from '../../../base/log.ts';
import { BoundedQueue } from '../../../base/queue.ts';
import type { Tracer } from '../../../base/tracing/span.ts';
import { GrpcClient } from '../../../csi/grpc.ts';
import type { ImageStore } from '../../images/image-store.ts';
import type {
  ContainerConfig,
  ExecOptions,
  PodNetwork,
  Runtime,
  RuntimeEvent,
  RuntimeState,
  SandboxConfig,
  SandboxState,
} from '../../runtime.ts';
import { removeLogs } from '../folders.ts';
import { ImageSupply } from './image-supply.ts';
import { CRI_CALLS } from './messages.ts';
import { openDoor } from './network-door.ts';
import { CriStates, gone } from './states.ts';
import { openForward, runSession } from './streaming.ts';
import { containerMessage, logFolder, resourcesMessage, sandboxMessage } from './translation.ts';

export interface CriRuntimeOptions {
  /** Path of the runtime's socket. */
  readonly socket: string;
  /** For what the runtime must find in files: images on their way, seccomp profiles. */
  readonly folder: string;
  readonly images: ImageStore;
  /** The runtime's CNI plugin asks for the node's pod network in this folder; absent, the runtime's own network is the pods'. */
  readonly door?: { readonly requests: string; readonly network: PodNetwork };
  /** Names of the runtime's handlers, its default one `''`; absent: it is asked for whatever a RuntimeClass names. */
  readonly handlers?: readonly string[];
  /** Each call is a span of it, where there is one. */
  readonly tracer?: Tracer | undefined;
  readonly log: Logger;
  readonly clock?: Clock;
}

const START_MS_MAX = 30_000;
const START_POLL_MS = 50;
/** Until the kubelet sees what it has not done itself; upstream looks every second. */
const RELIST_MS = 500;
const EVENTS_MAX = 1000;
const SWEEP_MS = 60_000;
/** Beyond the grace: SIGKILL, and a runtime that is busy. */
const STOP_MS_EXTRA = 60_000;
/** gRPC's longest, eight digits. */
const NO_DEADLINE_MS = 99_999_999;
const START_MS = 240_000;

export class CriRuntime implements Runtime {
  readonly name: string;
  readonly version: string;
  readonly handlers?: readonly string[];
  /** The runtime looks at what is to be mounted when it makes a container, and makes folders of what is not there. */
  readonly needsMounts = true;
  readonly #client: GrpcClient<typeof CRI_CALLS>;
  readonly #options: CriRuntimeOptions;
  readonly #clock: Clock;
  readonly #states: CriStates;
  readonly #supply: ImageSupply;
  readonly #listeners = new Set<BoundedQueue<RuntimeEvent>>();

  /** Waits until the runtime answers; serves it images and the network until the signal aborts. */
  static async open(options: CriRuntimeOptions, signal: AbortSignal): Promise<CriRuntime> {
    const { socket, folder, images, door, log, clock = systemClock } = options;
    const client = new GrpcClient(socket, CRI_CALLS, options.tracer);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (door) openDoor({ ...door, log }, signal);
    const supply = new ImageSupply({ client, images, folder: join(folder, 'images'), log });
    await supply.serve(signal);
    const endMs = clock.monotonic() + START_MS_MAX;
    for (;;) {
      signal.throwIfAborted();
      try {
        const { runtimeName, runtimeVersion } = await client.call('version', {});
        return new CriRuntime(options, { client, supply, name: runtimeName, version: runtimeVersion }, signal);
      } catch (error) {
        if (clock.monotonic() > endMs)
          throw failure(
            500,
            'InternalError',
            `the container runtime at ${socket} does not answer: ${messageOf(error)}`,
          );
        await clock.sleep(START_POLL_MS, signal);
      }
    }
  }

  private constructor(
    options: CriRuntimeOptions,
    found: { client: GrpcClient<typeof CRI_CALLS>; supply: ImageSupply; name: string; version: string },
    signal: AbortSignal,
  ) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#client = found.client;
    this.#supply = found.supply;
    this.#states = new CriStates(found.client, found.name);
    this.name = found.name;
    this.version = found.version;
    if (options.handlers) this.handlers = options.handlers;
    void this.#watch(signal);
    signal.addEventListener('abort', () => found.client.close(), { once: true });
  }

  async runSandbox(config: SandboxConfig): Promise<SandboxState> {
    const { sandboxes } = await this.#states.snapshot(config.podUid);
    const present = sandboxes.find(one => one.attempt === config.attempt);
    if (present?.ready) return present;
    if (present) await this.removeSandbox(present.id);
    const { handler = '' } = config;
    if (this.handlers && !this.handlers.includes(handler))
      throw new Error(`no runtime for ${JSON.stringify(handler)} is configured`);
    const { podSandboxId } = await this.#client.call(
      'runPodSandbox',
      { config: sandboxMessage(config), runtimeHandler: handler },
      { deadlineMs: START_MS },
    );
    const made = (await this.#states.snapshot(config.podUid)).sandboxes.find(({ id }) => id === podSandboxId);
    if (!made) throw new Error(`the container runtime has lost the sandbox that it made, ${podSandboxId}`);
    return made;
  }

  async stopSandbox(id: string, options: { readonly keepsAddress?: boolean } = {}): Promise<void> {
    const config = await this.#states.sandboxConfig(id);
    await gone(this.#client.call('stopPodSandbox', { podSandboxId: id }, { deadlineMs: START_MS }));
    if (config && !config.hostNetwork && !options.keepsAddress) await this.#options.door?.network.detach(config.podUid);
  }

  async removeSandbox(id: string): Promise<void> {
    await this.stopSandbox(id);
    for (const one of (await this.#states.snapshot()).containers) if (one.sandboxId === id) await this.remove(one.id);
    await gone(this.#client.call('removePodSandbox', { podSandboxId: id }));
  }

  async createContainer(sandboxId: string, config: ContainerConfig): Promise<string> {
    const sandbox = await this.#states.sandboxConfig(sandboxId);
    if (!sandbox) throw failure(404, 'NotFound', `sandbox ${sandboxId} not found`);
    const { containers } = await this.#states.snapshot(sandbox.podUid);
    const present = containers.find(
      one => one.sandboxId === sandboxId && one.name === config.name && one.attempt === config.attempt,
    );
    if (present) return present.id;
    const { images } = this.#options;
    const image = images.find(config.imageId);
    if (!image) throw new Error(`image ${config.imageRef} (${config.imageId}) is not present`);
    const reference = await this.#supply.bring(image);
    mkdirSync(logFolder(config), { recursive: true, mode: 0o755 });
    const seccompFile = this.#seccompFile(sandbox, config);
    try {
      const { containerId } = await this.#client.call('createContainer', {
        podSandboxId: sandboxId,
        config: containerMessage({ config, sandbox, image: reference, seccompFile }),
        sandboxConfig: sandboxMessage(sandbox),
      });
      images.hold(image.id, containerId);
      return containerId;
    } finally {
      if (seccompFile) rmSync(seccompFile, { force: true });
    }
  }

  /** The runtime reads it while it makes the container. */
  #seccompFile(sandbox: SandboxConfig, { name, attempt, seccomp, privileged }: ContainerConfig): string | undefined {
    if (!seccomp || privileged) return undefined;
    const file = join(this.#options.folder, `seccomp-${sandbox.podUid}-${name}-${attempt}.json`);
    writeFileSync(file, JSON.stringify(seccomp), { mode: 0o600 });
    return file;
  }

  async start(id: string): Promise<void> {
    try {
      await this.#client.call('startContainer', { containerId: id }, { deadlineMs: START_MS });
    } catch (error) {
      if ((await this.#states.container(id))?.state !== 'running') throw error;
    }
    const started = await this.#states.container(id);
    if (started) this.#emit({ podUid: started.podUid, containerId: id, started: true });
  }

  async stop(id: string, graceSeconds: number): Promise<void> {
    const timeout = Math.ceil(Math.max(0, graceSeconds));
    const deadlineMs = Math.min(timeout * 1000 + STOP_MS_EXTRA, NO_DEADLINE_MS);
    await gone(this.#client.call('stopContainer', { containerId: id, timeout }, { deadlineMs }));
  }

  async remove(id: string): Promise<void> {
    const container = await this.#states.container(id);
    if (!container) return;
    await this.stop(id, 0);
    await gone(this.#client.call('removeContainer', { containerId: id }));
    removeLogs(container.logPath);
    this.#options.images.release(container.imageId, id);
  }

  async update(id: string, resources: ContainerConfig['resources']): Promise<void> {
    await this.#client.call('updateContainerResources', { containerId: id, linux: resourcesMessage(resources) });
  }

  async exec(id: string, options: ExecOptions): Promise<{ readonly exitCode: number }> {
    return options.isBrief ? this.#execBriefly(id, options) : this.#execStreaming(id, options);
  }

  async #execBriefly(id: string, { command, stdout, stderr, signal }: ExecOptions): Promise<{ exitCode: number }> {
    try {
      const reply = await this.#client.call(
        'execSync',
        { containerId: id, cmd: command, timeout: 0 },
        { deadlineMs: NO_DEADLINE_MS, ...(signal ? { signal } : {}) },
      );
      stdout?.write(reply.stdout);
      stderr?.write(reply.stderr);
      return { exitCode: reply.exitCode };
    } catch (error) {
      if (signal?.aborted) return { exitCode: 137 };
      throw error;
    }
  }

  async #execStreaming(id: string, options: ExecOptions): Promise<{ exitCode: number }> {
    const { command, tty, stdin, stdout, stderr } = options;
    const { url } = await this.#client.call('exec', {
      containerId: id,
      cmd: command,
      tty,
      stdin: stdin !== undefined,
      stdout: stdout !== undefined,
      stderr: stderr !== undefined && !tty,
    });
    return runSession(url, options, this.#clock);
  }

  async attach(id: string, options: Parameters<Runtime['attach']>[1]): Promise<void> {
    const { tty, stdin, stdout, stderr } = options;
    const { url } = await this.#client.call('attach', {
      containerId: id,
      tty,
      stdin: stdin !== undefined,
      stdout: stdout !== undefined,
      stderr: stderr !== undefined && !tty,
    });
    await runSession(url, options, this.#clock);
  }

  async portForward(sandboxId: string, port: number): Promise<Duplex> {
    const { url } = await this.#client.call('portForward', { podSandboxId: sandboxId, port: [port] });
    return openForward(url, port, this.#clock);
  }

  async reopenLog(id: string): Promise<void> {
    await this.#client.call('reopenContainerLog', { containerId: id });
  }

  snapshot(podUid?: string): Promise<RuntimeState> {
    return this.#states.snapshot(podUid);
  }

  async *events(signal: AbortSignal): AsyncIterable<RuntimeEvent> {
    const queue = new BoundedQueue<RuntimeEvent>(EVENTS_MAX);
    const stop = () => queue.close();
    signal.addEventListener('abort', stop, { once: true });
    this.#listeners.add(queue);
    try {
      if (!signal.aborted) yield* queue;
    } finally {
      this.#listeners.delete(queue);
      signal.removeEventListener('abort', stop);
    }
  }
  #emit(event: RuntimeEvent): void {
    // A full queue already says "look again" many times over.
    for (const queue of this.#listeners) queue.push(event);
  }

  /** The runtime is looked at again and again; what differs from the last look is an event. */
  async #watch(signal: AbortSignal): Promise<void> {
    let before = new Map<string, string>();
    let sweptMs = Number.NEGATIVE_INFINITY;
    while (!signal.aborted) {
      try {
        const { sandboxes, containers } = await this.#states.snapshot();
        const now = new Map([
          ...sandboxes.map(one => [one.id, `${one.podUid} ${one.ready}`] as const),
          ...containers.map(one => [one.id, `${one.podUid} ${one.state}`] as const),
        ]);
        for (const [id, text] of [...now, ...before])
          if (now.get(id) !== before.get(id)) this.#emit({ podUid: text.split(' ')[0]!, containerId: id });
        before = now;
        if (this.#clock.monotonic() - sweptMs > SWEEP_MS) {
          sweptMs = this.#clock.monotonic();
          await this.#supply.sweep();
        }
      } catch (error) {
        // It may be starting again: the next look tells what it has lost.
        if (!signal.aborted)
          this.#options.log.debug('the container runtime cannot be asked', { error: messageOf(error) });
      }
      await this.#clock.sleep(RELIST_MS, signal).catch(() => {});
    }
  }
}
