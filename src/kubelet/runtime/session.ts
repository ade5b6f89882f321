/**
 * Talking to a process inside a container: a new one (`exec` of the OCI runtime, with or without a terminal) or the container's own,
 * through conmon's attach socket. Data flows with backpressure; nothing is buffered beyond one pipe's worth.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { ReadStream } from 'node:tty';
import { type Clock, systemClock } from '../../base/clock.ts';
import { PacketSocket } from '../../sys/packet-socket.ts';
import { descendants } from '../../sys/process.ts';
import { openTerminal, resizeTerminal } from '../../sys/terminal.ts';
import type { ExecOptions, ExecResult } from '../runtime.ts';
import type { OciRuntime } from './oci-runtime.ts';

export interface ExecRequest {
  readonly oci: Pick<OciRuntime, 'program' | 'root'>;
  readonly id: string;
  /** OCI `process` to run. */
  readonly process: object;
  /** Folder for scratch files, and a name in it that is free. */
  readonly scratch: string;
  readonly name: string;
  readonly options: ExecOptions;
}

/** Runs until the process ends; aborting kills it with all its children. */
export async function runExec(request: ExecRequest): Promise<ExecResult> {
  const { oci, id, options } = request;
  const { tty, signal } = options;
  const base = join(request.scratch, request.name);
  const pidFile = `${base}.pid`;
  writeFileSync(`${base}.json`, JSON.stringify(request.process), { mode: 0o600 });
  const args = [
    '--root',
    oci.root,
    'exec',
    '--process',
    `${base}.json`,
    '--pid-file',
    pidFile,
    ...(tty ? ['--tty'] : []),
    id,
  ];
  const kill = () => {
    const pid = Number(readOptional(pidFile));
    for (const one of pid > 0 ? [pid, ...descendants(pid)] : []) sendKill(one);
    child?.kill('SIGKILL');
  };
  let child: ChildProcess | undefined;
  try {
    if (signal?.aborted) return { exitCode: 137 };
    signal?.addEventListener('abort', kill, { once: true });
    child = tty
      ? await runTerminal(oci.program, args, options, one => (child = one))
      : await runPipes(oci.program, args, options, one => (child = one));
    const { exitCode } = child;
    if (exitCode !== null)
      return { exitCode, ...(exitCode !== 0 && !readOptional(pidFile) ? { isUnstarted: true as const } : {}) };
    return { exitCode: 137 };
  } finally {
    signal?.removeEventListener('abort', kill);
    rmSync(`${base}.json`, { force: true });
    rmSync(pidFile, { force: true });
  }
}

async function runPipes(
  program: string,
  args: readonly string[],
  options: ExecOptions,
  started: (child: ChildProcess) => void,
): Promise<ChildProcess> {
  const { stdin, stdout, stderr } = options;
  const child = spawn(program, args, {
    stdio: [stdin ? 'pipe' : 'ignore', stdout ? 'pipe' : 'ignore', stderr ? 'pipe' : 'ignore'],
    cwd: '/',
  });
  started(child);
  const closed = whenClosed(child);
  if (stdin && child.stdin) {
    // The process may end without reading all of it.
    child.stdin.on('error', () => {});
    stdin.on('error', () => child.stdin?.end());
    stdin.pipe(child.stdin);
  }
  if (stdout && child.stdout) pipeInto(child.stdout, stdout);
  if (stderr && child.stderr) pipeInto(child.stderr, stderr);
  await closed;
  stdin?.unpipe();
  return child;
}

// A reader that went away must not stop the process: its output is then read and dropped.
function pipeInto(from: NodeJS.ReadableStream, to: Writable): void {
  const drop = () => {
    from.unpipe(to);
    from.resume();
  };
  to.on('error', drop);
  to.on('close', drop);
  from.pipe(to, { end: false });
}

/** The runtime hears of sizes by a signal, but not in its first moments, when the first size often comes. */
const RESIZE_TOLD_MS = [0, 20, 100, 500];

// It copies between its own terminal and the container's: it gets the peer of a pair made here, and follows its size.
async function runTerminal(
  program: string,
  args: readonly string[],
  options: ExecOptions,
  started: (child: ChildProcess) => void,
): Promise<ChildProcess> {
  const { stdin, stdout, resize } = options;
  const { master, peer } = openTerminal();
  const iterator = resize?.[Symbol.asyncIterator]();
  const initial = iterator?.next();
  const early = await Promise.race([
    initial,
    new Promise<undefined>(resolve => setImmediate(() => setImmediate(() => resolve(undefined)))),
  ]);
  if (early && !early.done) resizeTerminal(master, early.value);
  const child = spawn(program, args, { stdio: [peer, peer, peer], detached: true, cwd: '/' });
  started(child);
  closeSync(peer);
  const closed = whenClosed(child);
  const stream = new ReadStream(master);
  // Reading the master fails with EIO once the last peer is closed: the end.
  stream.on('error', () => stream.destroy());
  if (stdout) pipeInto(stream, stdout);
  else stream.resume();
  if (stdin) {
    stdin.on('data', chunk => {
      if (!stream.destroyed && !(stream as unknown as Writable).write(chunk)) {
        stdin.pause();
        stream.once('drain', () => stdin.resume());
      }
    });
    // As a terminal does: the end of input is control-D.
    stdin.on('end', () => !stream.destroyed && (stream as unknown as Writable).write('\x04'));
    stdin.on('error', () => {});
  }
  if (iterator && initial) {
    void (async () => {
      for (
        let next = await (early ? iterator.next() : initial);
        !next.done && !stream.destroyed;
        next = await iterator.next()
      ) {
        resizeTerminal(master, next.value);
        for (const ms of RESIZE_TOLD_MS) systemClock.after(ms, () => child.kill('SIGWINCH'), { background: true });
      }
    })().catch(() => {});
  }
  await closed;
  // The last output may still be in the terminal's buffer.
  await Promise.race([finished(stream, { writable: false }).catch(() => {}), systemClock.sleep(LAST_OUTPUT_MS)]);
  stream.destroy();
  void iterator?.return?.();
  return child;
}

function whenClosed(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => resolve());
  });
}

function sendKill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Gone already.
  }
}

function readOptional(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

const LAST_OUTPUT_MS = 200;
const ATTACH_POLL_MS_MIN = 2;
const ATTACH_POLL_MS_MAX = 20;
const STREAM_STDOUT = 2;
const STREAM_STDERR = 3;
const STDIN_BYTES_MAX = 8 * 1024;

export interface AttachRequest {
  readonly socketPath: string;
  readonly stdinOnce: boolean;
  readonly options: Omit<ExecOptions, 'command' | 'signal'> & { readonly signal: AbortSignal };
  readonly clock: Clock;
  resize(size: { readonly width: number; readonly height: number }): void;
}

/** Until the container ends, or the signal aborts. */
export async function runAttach(request: AttachRequest): Promise<void> {
  const { options, clock } = request;
  const { stdin, stdout, stderr, signal, tty } = options;
  const socket = new PacketSocket(request.socketPath);
  try {
    if (stdin) void feed(socket, request).catch(() => {});
    if (options.resize) {
      void (async () => {
        for await (const size of options.resize!) {
          if (signal.aborted) return;
          request.resize(size);
        }
      })().catch(() => {});
    }
    let waitMs = ATTACH_POLL_MS_MIN;
    while (!signal.aborted) {
      const packet = socket.receive();
      if (packet === undefined) return;
      if (packet === 'later') {
        await clock.sleep(waitMs, signal);
        waitMs = Math.min(waitMs * 2, ATTACH_POLL_MS_MAX);
        continue;
      }
      waitMs = ATTACH_POLL_MS_MIN;
      const sink =
        packet[0] === STREAM_STDERR && !tty
          ? stderr
          : packet[0] === STREAM_STDOUT || packet[0] === STREAM_STDERR
            ? stdout
            : undefined;
      if (sink && !sink.write(packet.subarray(1))) await drained(sink, signal);
    }
  } finally {
    socket.close();
  }
}

async function feed(socket: PacketSocket, { options, clock }: AttachRequest): Promise<void> {
  const { stdin, signal } = options;
  for await (const chunk of stdin!) {
    const data = Buffer.from(chunk as Uint8Array);
    for (let at = 0; at < data.length && !signal.aborted; ) {
      const part = data.subarray(at, at + STDIN_BYTES_MAX);
      if (socket.send(part)) at += part.length;
      else await clock.sleep(ATTACH_POLL_MS_MIN, signal);
    }
    if (signal.aborted) return;
  }
  socket.endWriting();
}

function drained(sink: Writable, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const done = () => {
      sink.off('drain', done);
      sink.off('close', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    sink.on('drain', done);
    sink.on('close', done);
    signal.addEventListener('abort', done, { once: true });
  });
}
