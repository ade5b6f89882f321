/**
 * Runs a system program to its end without blocking the thread, for what only programs can do (mkfs, mount helpers) and for what
 * may hang. Invariant: at the time limit or an abort the program and all it started are killed; a program that cannot be killed
 * (stuck in the kernel) is left behind, not waited for.
 */

import { spawn } from 'node:child_process';

export class CommandError extends Error {
  override name = 'CommandError';
  /** Absent when it did not run, was killed or took too long. */
  readonly code: number | undefined;
  readonly stderr: string;
  readonly stdout: string;
  constructor(message: string, code: number | undefined, stderr: string, stdout = '') {
    super(message);
    this.code = code;
    this.stderr = stderr;
    this.stdout = stdout;
  }
}

const OUTPUT_BYTES_MAX = 64 * 1024;
const SECONDS_MAX = 120;
/** Between the kill and giving up on a program that the kernel does not let go. */
const STUCK_MS = 1000;

export interface CommandOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly input?: string;
  /** Further descriptors, from 3 on. */
  readonly descriptors?: readonly number[];
}

/** Standard output. Rejects with CommandError, whose message ends with what the program said. */
export function runCommand(program: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  const { timeoutMs = SECONDS_MAX * 1000, signal, env, cwd, input, descriptors = [] } = options;
  return new Promise((resolve, reject) => {
    const line = [program, ...args].join(' ');
    if (signal?.aborted) {
      reject(new CommandError(`${line}: aborted`, undefined, ''));
      return;
    }
    const child = spawn(program, args, {
      stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe', ...descriptors],
      // A group of its own, so that its children end with it.
      detached: true,
      env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', ...env },
      ...(cwd === undefined ? {} : { cwd }),
    });
    let stdout = '';
    let stderr = '';
    let isOver = false;
    let stuck: NodeJS.Timeout | undefined;
    const end = (error: CommandError | undefined) => {
      if (isOver) return;
      isOver = true;
      clearTimeout(timer);
      clearTimeout(stuck);
      signal?.removeEventListener('abort', aborted);
      if (error) reject(error);
      else resolve(stdout);
    };
    const kill = (why: string) => {
      try {
        process.kill(-child.pid!, 'SIGKILL');
      } catch {
        // Gone meanwhile.
      }
      stuck = setTimeout(() => {
        child.unref();
        end(new CommandError(`${line}: ${why}`, undefined, stderr));
      }, STUCK_MS);
      reason = why;
    };
    let reason: string | undefined;
    const aborted = () => kill('aborted');
    const timer = setTimeout(() => kill(`took longer than ${timeoutMs / 1000} s`), timeoutMs);
    signal?.addEventListener('abort', aborted, { once: true });
    child.stdout!.on('data', chunk => {
      if (stdout.length < OUTPUT_BYTES_MAX) stdout += chunk;
    });
    child.stderr!.on('data', chunk => {
      if (stderr.length < OUTPUT_BYTES_MAX) stderr += chunk;
    });
    child.on('error', error => {
      const hint = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'is not installed on this node' : error.message;
      end(new CommandError(`${program}: ${hint}`, undefined, ''));
    });
    child.on('close', (code, ended) => {
      if (reason !== undefined) return end(new CommandError(`${line}: ${reason}`, undefined, stderr));
      if (code === 0) return end(undefined);
      const said = (stderr || stdout).trim();
      end(new CommandError(`${line}: ${said || (ended ?? `exit status ${code}`)}`, code ?? undefined, stderr, stdout));
    });
    if (input !== undefined) child.stdin!.end(input);
  });
}
