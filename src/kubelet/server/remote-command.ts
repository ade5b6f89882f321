/**
 * Exec and attach: checks the request, opens the client's streams, runs the session in the runtime and reports how it
 * ended, word for word as the kubelet and containerd do, since kubectl takes its exit code from it. A client that goes
 * away ends its exec process, never the container.
 */

import type { Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { Clock } from '../../base/clock.ts';
import { ApiError, badRequest, messageOf } from '../../base/errors.ts';
import type { ExecOptions } from '../runtime.ts';
import type { ContainerTarget, KubeletBackend } from './backend.ts';
import { flag } from './query.ts';
import { openRemoteStreams, type RemoteOptions } from './remote-streams.ts';
import { terminalSizes } from './terminal-size.ts';
import { refuse, type Upgrade } from './upgrade.ts';

/** What goes to the error stream; upstream leaves kind and apiVersion out. */
interface Outcome {
  readonly metadata: Record<string, never>;
  readonly status: 'Success' | 'Failure';
  readonly message?: string;
  readonly reason?: string;
  readonly details?: { readonly causes: readonly { readonly reason?: string; readonly message: string }[] };
  readonly code?: number;
}

export interface CommandPath {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string | undefined;
}

export interface CommandContext {
  readonly backend: KubeletBackend;
  readonly clock: Clock;
}

/** Resolves when the session is over; never rejects for what a client or a container did. */
export async function serveExec(upgrade: Upgrade, path: CommandPath, context: CommandContext): Promise<void> {
  const command = upgrade.url.searchParams.getAll('command');
  const session = await begin(upgrade, path, context, 'exec');
  if (!session) return;
  if (command.length === 0) return refuse(upgrade, 400, 'you must specify at least 1 command');
  const { target, options } = session;
  const { runtime } = context.backend;
  await serve(upgrade, options, context.clock, async io => {
    try {
      const { exitCode } = await runtime.exec(target.id!, { command, ...io });
      return exitCode === 0 ? SUCCESS : nonZeroExit(command, exitCode);
    } catch (error) {
      return internal(`error executing command in container: ${messageOf(error)}`);
    }
  });
}

/** As {@link serveExec}, to the container's own process. */
export async function serveAttach(upgrade: Upgrade, path: CommandPath, context: CommandContext): Promise<void> {
  const session = await begin(upgrade, path, context, 'attach');
  if (!session) return;
  const { target } = session;
  // Whether there is a terminal was settled when the container was made.
  const options = { ...session.options, tty: target.tty, stderr: session.options.stderr && !target.tty };
  const { runtime } = context.backend;
  await serve(upgrade, options, context.clock, async io => {
    try {
      await runtime.attach(target.id!, io);
      return SUCCESS;
    } catch (error) {
      return internal(`error attaching to container: ${messageOf(error)}`);
    }
  });
}

async function begin(
  upgrade: Upgrade,
  path: CommandPath,
  { backend }: CommandContext,
  purpose: 'exec' | 'attach',
): Promise<{ readonly target: ContainerTarget; readonly options: RemoteOptions } | undefined> {
  try {
    const options = remoteOptions(upgrade.url.searchParams);
    const container = path.container ?? upgrade.url.searchParams.get('container') ?? undefined;
    const target = await backend.resolveContainer(path.namespace, path.pod, container, purpose);
    if (target.id !== undefined && target.state === 'running') return { target, options };
    const name = target.containerName;
    refuse(
      upgrade,
      500,
      purpose === 'exec'
        ? `container not found ("${name}")`
        : `container ${name} not found in pod ${path.pod}_${path.namespace}`,
    );
  } catch (error) {
    refuse(upgrade, error instanceof ApiError ? error.code : 500, messageOf(error));
  }
  return undefined;
}

function remoteOptions(query: URLSearchParams): RemoteOptions {
  const asked = (kubelet: string, api: string) => flag(query, kubelet) || flag(query, api);
  const tty = flag(query, 'tty');
  const stdin = asked('input', 'stdin');
  const stdout = asked('output', 'stdout');
  // A terminal has no second output.
  const stderr = asked('error', 'stderr') && !tty;
  if (!stdin && !stdout && !stderr) throw badRequest('you must specify at least 1 of stdin, stdout, stderr');
  return { tty, stdin, stdout, stderr };
}

type SessionIo = Omit<ExecOptions, 'command' | 'signal'> & { readonly signal: AbortSignal };

async function serve(
  upgrade: Upgrade,
  options: RemoteOptions,
  clock: Clock,
  run: (io: SessionIo) => Promise<Outcome>,
): Promise<void> {
  const streams = await openRemoteStreams(upgrade, options, clock);
  if (!streams) return;
  const { stdin, stdout, stderr } = streams;
  const gone = new AbortController();
  void streams.closed.then(() => gone.abort());
  const resize = streams.resize && terminalSizes(streams.resize);
  const outcome = await run({
    tty: options.tty,
    signal: gone.signal,
    ...(stdin ? { stdin } : {}),
    ...(stdout ? { stdout } : {}),
    ...(stderr ? { stderr } : {}),
    ...(resize ? { resize } : {}),
  });
  resize?.close();
  // Input that nobody reads any more must not hold up the goodbye.
  stdin?.unpipe();
  stdin?.resume();
  await Promise.all([ended(stdout), ended(stderr)]);
  if (streams.outcomeForm === 'status') streams.error.write(JSON.stringify(outcome));
  else if (outcome.status === 'Failure') streams.error.write(outcome.message ?? '');
  await ended(streams.error);
  streams.close();
}

// Flushed, or its client is gone.
async function ended(stream: Writable | undefined): Promise<void> {
  if (!stream || stream.destroyed) return;
  stream.end();
  await finished(stream, { readable: false }).catch(() => {});
}

const SUCCESS: Outcome = { metadata: {}, status: 'Success' };

function nonZeroExit(command: readonly string[], exitCode: number): Outcome {
  return {
    metadata: {},
    status: 'Failure',
    message: `command terminated with non-zero exit code: error executing command [${command.join(' ')}], exit code ${exitCode}`,
    reason: 'NonZeroExitCode',
    details: { causes: [{ reason: 'ExitCode', message: String(exitCode) }] },
  };
}

function internal(message: string): Outcome {
  return {
    metadata: {},
    status: 'Failure',
    message: `Internal error occurred: ${message}`,
    reason: 'InternalError',
    details: { causes: [{ message }] },
    code: 500,
  };
}
