/**
 * Pulls images in a process of their own, so that unpacking neither holds up the node's agent nor takes its memory. One process a pull:
 * `cox image-puller` reads a PullerJob as one line from its standard input, writes lines of progress and its outcome, and ends when its
 * input ends. Invariant: a pull that is given up, or whose agent dies, ends with all that it started.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { systemClock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import { PullError, type PulledImage, type PullProgress, type PullRequest } from '../kubelet/images/image-pull.ts';
import { LocalPuller } from '../kubelet/images/local-puller.ts';
import type { ImagePuller } from '../kubelet/images/node-images.ts';
import type { RegistryNetwork } from '../kubelet/images/registry-connection.ts';

export interface PullerJob {
  readonly request: PullRequest;
  readonly imageDir: string;
  readonly network: RegistryNetwork;
}

type Line =
  | { readonly progress: PullProgress }
  | { readonly pulled: PulledImage }
  | { readonly failed: { readonly message: string; readonly isUnreachable: boolean } };

const PROGRESS_MS = 200;
const STDERR_BYTES_MAX = 2000;
/** Buffers lie outside of it; what a manifest of 4 MiB may take lies inside. */
const HEAP_MIB_MAX = 128;

export class ProcessPuller implements ImagePuller {
  readonly #imageDir: string;
  readonly #network: RegistryNetwork;
  constructor(options: { readonly imageDir: string; readonly network: RegistryNetwork }) {
    this.#imageDir = options.imageDir;
    this.#network = options.network;
  }

  async pull(
    request: PullRequest,
    { signal, onProgress }: { readonly signal: AbortSignal; readonly onProgress?: (progress: PullProgress) => void },
  ): Promise<PulledImage> {
    signal.throwIfAborted();
    const child = spawn(process.execPath, [`--max-old-space-size=${HEAP_MIB_MAX}`, process.argv[1]!, 'image-puller'], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const kill = () => child.kill('SIGKILL');
    signal.addEventListener('abort', kill, { once: true });
    try {
      const job: PullerJob = { request, imageDir: this.#imageDir, network: this.#network };
      // A process that could not start says so by its end.
      child.stdin.on('error', () => {});
      child.stdin.write(`${JSON.stringify(job)}\n`);
      const outcome = await outcomeOf(child, onProgress);
      if ('pulled' in outcome) return outcome.pulled;
      signal.throwIfAborted();
      const { message, isUnreachable } = outcome.failed;
      throw new PullError(message, { isUnreachable });
    } finally {
      signal.removeEventListener('abort', kill);
      child.stdin.destroy();
    }
  }
}

function outcomeOf(
  child: ChildProcess,
  onProgress: ((progress: PullProgress) => void) | undefined,
): Promise<Exclude<Line, { progress: PullProgress }>> {
  return new Promise(resolve => {
    let said = '';
    let outcome: Exclude<Line, { progress: PullProgress }> | undefined;
    child.stderr!.on('data', (part: Buffer) => {
      said = (said + part.toString('utf8')).slice(-STDERR_BYTES_MAX);
    });
    createInterface({ input: child.stdout! }).on('line', text => {
      const line = JSON.parse(text) as Line;
      if ('progress' in line) onProgress?.(line.progress);
      else outcome = line;
    });
    const failed = (message: string) => ({ failed: { message, isUnreachable: false } });
    child.once('error', error => resolve(failed(`the image puller did not start: ${messageOf(error)}`)));
    child.once('close', code =>
      resolve(
        outcome ??
          failed(`the image puller ended with code ${code ?? 'none'}: ${said.trim().split('\n').at(-1) ?? ''}`),
      ),
    );
  });
}

/** The other end: what the process itself does. */
export async function runPuller(): Promise<void> {
  const stop = new AbortController();
  const say = (line: Line) =>
    new Promise<void>(resolve => process.stdout.write(`${JSON.stringify(line)}\n`, () => resolve()));
  const lines = createInterface({ input: process.stdin });
  const job = await new Promise<PullerJob | undefined>(resolve => {
    lines.once('line', text => resolve(JSON.parse(text) as PullerJob));
    // Whoever asked is gone.
    lines.once('close', () => {
      stop.abort(new Error('given up'));
      resolve(undefined);
    });
  });
  if (!job) return;
  let toldMs = Number.NEGATIVE_INFINITY;
  try {
    const pulled = await new LocalPuller(job).pull(job.request, {
      signal: stop.signal,
      onProgress: progress => {
        const nowMs = systemClock.monotonic();
        if (nowMs - toldMs < PROGRESS_MS) return;
        toldMs = nowMs;
        void say({ progress });
      },
    });
    await say({ pulled });
  } catch (error) {
    await say({
      failed: { message: messageOf(error), isUnreachable: error instanceof PullError && error.isUnreachable },
    });
  }
  lines.close();
  process.stdin.destroy();
}
