/**
 * A node's own containerd: its folders at the places where everybody expects them, its configuration, its process. Invariants: the node has
 * a mount namespace of its own, so these places are its own; the process outlives the agent and is started again when it ends;
 * containers outlive it (each has a shim). It installs nothing.
 */

import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../../base/clock.ts';
import type { Logger } from '../../../base/log.ts';
import { bindMount, isMountPoint } from '../../../sys/mount.ts';
import { identify, isAlive, type ProcessIdentity, sendSignal } from '../../../sys/process.ts';
import { PAUSE_IMAGE } from './image-supply.ts';
import { type CniFolders, writePlugin } from './network-door.ts';

const ROOT = '/var/lib/containerd';
/** Shims keep their sockets here whatever the configuration says. */
const STATE = '/run/containerd';
export const CONTAINERD_SOCKET = `${STATE}/containerd.sock`;
const LOOK_MS = 200;
/** Between two starts of one that keeps ending. */
const RESTART_MS = 1000;

export interface OciHandler {
  readonly name: string;
  readonly program: string;
}

export interface ContainerdOptions {
  /** Survives a restart of the machine. */
  readonly rootDir: string;
  /** Empty after a restart of the machine. */
  readonly runDir: string;
  readonly logFile: string;
  /** The first is the default one. */
  readonly handlers: readonly OciHandler[];
  readonly program?: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/** crun (1.8) refuses hierarchies of version 1 beside one of version 2. */
export function ociHandlers(): OciHandler[] {
  const isUnified = existsSync('/sys/fs/cgroup/cgroup.controllers');
  const crun = '/usr/bin/crun';
  return [
    { name: 'runc', program: existsSync('/usr/sbin/runc') ? '/usr/sbin/runc' : '/usr/bin/runc' },
    ...(isUnified && existsSync(crun) ? [{ name: 'crun', program: crun }] : []),
  ];
}

export class Containerd {
  readonly #options: ContainerdOptions;
  readonly cni: CniFolders;

  constructor(options: ContainerdOptions) {
    this.#options = options;
    const cni = join(STATE, 'cni');
    this.cni = { plugins: join(cni, 'plugins'), configurations: join(cni, 'net.d'), requests: join(cni, 'requests') };
  }

  /** Folders and files, once in the life of the mount namespace; may be repeated. */
  prepare(): void {
    const { rootDir, runDir, handlers } = this.#options;
    for (const [folder, place] of [
      [rootDir, ROOT],
      [runDir, STATE],
    ] as const) {
      mkdirSync(folder, { recursive: true, mode: 0o711 });
      mkdirSync(place, { recursive: true, mode: 0o711 });
      if (!isMountPoint(place)) bindMount(folder, place, { recursive: true, shared: true });
    }
    writePlugin(this.cni);
    writeFileSync(join(STATE, 'config.toml'), configuration(this.cni, handlers));
  }

  /** Keeps it running until the signal aborts, which leaves it running. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    while (!signal.aborted) {
      const process = this.#recorded() ?? this.#start();
      while (!signal.aborted && isAlive(process)) await clock.sleep(LOOK_MS, signal);
      if (signal.aborted) return;
      log.warn('containerd has ended, starting it again', { pid: process.pid });
      await clock.sleep(Math.max(0, this.#startedMs + RESTART_MS - clock.monotonic()), signal);
    }
  }
  #startedMs = Number.NEGATIVE_INFINITY;

  get #record(): string {
    return join(STATE, 'process.json');
  }
  #recorded(): ProcessIdentity | undefined {
    try {
      const process = JSON.parse(readFileSync(this.#record, 'utf8')) as ProcessIdentity;
      return isAlive(process) ? process : undefined;
    } catch {
      return undefined;
    }
  }
  #start(): ProcessIdentity {
    const { program = '/usr/bin/containerd', logFile, clock } = this.#options;
    this.#startedMs = clock.monotonic();
    const output = openSync(logFile, 'a', 0o600);
    const child = spawn(program, ['--config', join(STATE, 'config.toml')], {
      detached: true,
      stdio: ['ignore', output, output],
      cwd: '/',
    });
    closeSync(output);
    // One that cannot be started is one that has ended.
    child.on('error', () => {});
    child.unref();
    const process = child.pid === undefined ? undefined : identify(child.pid);
    if (process) writeFileSync(this.#record, JSON.stringify(process), { mode: 0o600 });
    return process ?? { pid: 0, startTicks: 0 };
  }

  /** For tests: as if it had crashed. */
  kill(): void {
    const found = this.#recorded();
    if (found) sendSignal(found, 'SIGKILL');
  }
}

function configuration(cni: CniFolders, handlers: readonly OciHandler[]): string {
  const cri = 'plugins."io.containerd.grpc.v1.cri"';
  const runtimes = handlers.map(
    ({ name, program }) => `
[${cri}.containerd.runtimes.${name}]
runtime_type = "io.containerd.runc.v2"
[${cri}.containerd.runtimes.${name}.options]
BinaryName = "${program}"
`,
  );
  return `version = 2
root = "${ROOT}"
state = "${STATE}"
# What this machine cannot have, or nobody here asks for.
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
address = "${CONTAINERD_SOCKET}"
[${cri}]
sandbox_image = "${PAUSE_IMAGE}"
stream_server_address = "127.0.0.1"
stream_server_port = "0"
# A machine's administrator need not be allowed to lower it.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[${cri}.containerd]
default_runtime_name = "${handlers[0]!.name}"
# The node's image store has them.
discard_unpacked_layers = true
[${cri}.cni]
bin_dir = "${cni.plugins}"
conf_dir = "${cni.configurations}"
ip_pref = "cni"
${runtimes.join('')}`;
}
