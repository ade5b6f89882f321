/** A Runtime whose containers are processes of this machine: enough of one to drive the kubelet's server for real. */

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { connect } from 'node:net';
import type { Duplex, Readable, Writable } from 'node:stream';
import { ReadStream } from 'node:tty';
import type { ContainerState, ExecOptions, Runtime } from '../../src/kubelet/runtime.ts';
import { openTerminal, resizeTerminal } from '../../src/sys/terminal.ts';

export interface LocalRuntime extends Runtime {
  readonly containers: ContainerState[];
  /** Processes of exec that run now. */
  readonly running: Set<ChildProcess>;
  /** What attach talks to. */
  attached: ChildProcess | undefined;
  emit(): void;
}

export function localRuntime(): LocalRuntime {
  const listeners = new Set<() => void>();
  const running = new Set<ChildProcess>();
  const missing = () => {
    throw new Error('not part of this test');
  };
  return {
    name: 'local',
    version: '0',
    handlers: [''],
    containers: [],
    running,
    attached: undefined,
    emit() {
      for (const wake of listeners) wake();
    },
    runSandbox: missing,
    stopSandbox: missing,
    removeSandbox: missing,
    createContainer: missing,
    start: missing,
    stop: missing,
    remove: missing,
    update: missing,
    reopenLog: missing,
    async exec(_id, options) {
      const child = options.tty ? inTerminal(options) : withPipes(options);
      running.add(child);
      const kill = () => child.kill('SIGKILL');
      options.signal?.addEventListener('abort', kill, { once: true });
      child.once('error', () => running.delete(child));
      const exitCode = await new Promise<number>((resolve, reject) => {
        child.once('error', reject);
        child.once('close', code => resolve(code ?? 137));
      });
      running.delete(child);
      return { exitCode };
    },
    async attach(_id, { stdin, stdout, stderr, signal }) {
      const child = this.attached!;
      const forward = (to: Writable | undefined) => (chunk: Buffer) => void to?.write(chunk);
      const [toOut, toErr] = [forward(stdout), forward(stderr)];
      child.stdout!.on('data', toOut);
      child.stderr!.on('data', toErr);
      stdin?.pipe(child.stdin!);
      await new Promise<void>(resolve => {
        child.once('close', () => resolve());
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
      stdin?.unpipe();
      child.stdout!.off('data', toOut);
      child.stderr!.off('data', toErr);
    },
    portForward: (_id, port) =>
      new Promise<Duplex>((resolve, reject) => {
        const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true }, () => resolve(socket));
        socket.once('error', reject);
      }),
    async snapshot() {
      return { sandboxes: [], containers: this.containers };
    },
    async *events(signal) {
      while (!signal.aborted) {
        await new Promise<void>(resolve => {
          listeners.add(resolve);
          signal.addEventListener('abort', () => resolve(), { once: true });
        });
        if (!signal.aborted) yield { podUid: 'uid-1', containerId: 'c1' };
      }
    },
  };
}

function withPipes({ command, stdin, stdout, stderr }: ExecOptions): ChildProcess {
  const stdio = [stdin, stdout, stderr].map(stream => (stream ? 'pipe' : 'ignore')) as ('pipe' | 'ignore')[];
  const child = spawn(command[0]!, command.slice(1), { stdio, cwd: '/' });
  child.stdin?.on('error', () => {});
  if (stdin && child.stdin) {
    stdin.pipe(child.stdin);
    stdin.on('error', () => child.stdin?.end());
  }
  const copy = (from: Readable | null, to: Writable | undefined) => {
    if (!from || !to) return;
    to.on('close', () => {
      from.unpipe(to);
      from.resume();
    });
    from.pipe(to, { end: false });
  };
  copy(child.stdout, stdout);
  copy(child.stderr, stderr);
  return child;
}

function inTerminal({ command, stdin, stdout, resize }: ExecOptions): ChildProcess {
  const { master, peer } = openTerminal();
  const child = spawn('setsid', ['--ctty', '--wait', ...command], { stdio: [peer, peer, peer], cwd: '/' });
  closeSync(peer);
  const stream = new ReadStream(master);
  stream.on('error', () => stream.destroy());
  stream.on('data', chunk => stdout?.write(chunk));
  stdin?.on('data', chunk => (stream as unknown as Writable).write(chunk));
  void (async () => {
    for await (const size of resize ?? []) if (!stream.destroyed) resizeTerminal(master, size);
  })();
  child.once('close', () => stream.destroy());
  return child;
}
