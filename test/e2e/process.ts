/** Programs that tests run: always with a deadline, always with their output in the error when they fail. */

import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

export interface RunOptions {
  readonly input?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** Default 60 000. */
  readonly timeoutMs?: number;
}

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs to the end, whatever the exit code. Rejects only when it cannot be started or takes too long. */
export function outcomeOf(program: string, args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const { timeoutMs = 60_000 } = options;
    const child = spawn(program, args, {
      env: { ...process.env, ...options.env },
      cwd: options.cwd,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const output = { stdout: '', stderr: '' };
    child.stdout.setEncoding('utf8').on('data', text => (output.stdout += text));
    child.stderr.setEncoding('utf8').on('data', text => (output.stderr += text));
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`${describe(program, args)} took over ${timeoutMs} ms\n${output.stdout}${output.stderr}`));
    }, timeoutMs);
    child.on('error', reject);
    child.on('close', code => {
      clearTimeout(timer);
      resolve({ code, ...output });
    });
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
  });
}

/** Standard output; rejects when the exit code is not 0. */
export async function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const outcome = await outcomeOf(program, args, options);
  if (outcome.code !== 0)
    throw new Error(`${describe(program, args)} exited with ${outcome.code}\n${outcome.stdout}${outcome.stderr}`);
  return outcome.stdout;
}

function describe(program: string, args: readonly string[]): string {
  return [program.split('/').at(-1), ...args].join(' ').slice(0, 300);
}

/** A program that goes on beside the test; `stop` ends it. */
export class Background {
  readonly child: ChildProcess;
  output = '';
  readonly exited: Promise<number | null>;

  constructor(
    program: string,
    args: readonly string[],
    options: { env?: Readonly<Record<string, string | undefined>>; input?: string; cwd?: string } = {},
  ) {
    this.child = spawn(program, args, {
      env: { ...process.env, ...options.env },
      cwd: options.cwd,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    for (const stream of [this.child.stdout!, this.child.stderr!])
      stream.setEncoding('utf8').on('data', text => (this.output += text));
    this.exited = new Promise(resolve => this.child.on('close', resolve).on('error', () => resolve(null)));
    this.child.stdin!.on('error', () => {});
    if (options.input !== undefined) this.child.stdin!.write(options.input);
  }
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.child.stdin!.end();
    this.child.kill(signal);
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 5000);
    await this.exited;
    clearTimeout(timer);
  }
}

export interface WaitOptions {
  /** Default 30 000. */
  readonly timeoutMs?: number;
  /** Default 150. */
  readonly everyMs?: number;
}

/**
 * Tries until `attempt` returns something that is neither undefined nor false; an error counts as not yet. Rejects after
 * the deadline with the last error or value.
 */
export async function eventually<T>(
  what: string,
  attempt: () => Promise<T | undefined | false> | T | undefined | false,
  options: WaitOptions = {},
): Promise<T> {
  const { timeoutMs = 30_000, everyMs = 150 } = options;
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const result = await attempt();
      if (result !== undefined && result !== false) return result;
      last = result;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline)
      throw new Error(
        `not within ${timeoutMs} ms: ${what}; last: ${last instanceof Error ? last.message : JSON.stringify(last)}`,
      );
    await new Promise(resolve => setTimeout(resolve, everyMs));
  }
}

export const pause = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms));

/** Processes whose command line satisfies the condition, read from /proc so that no tool is needed. */
export function pidsOf(condition: (commandLine: string) => boolean): number[] {
  return readdirSync('/proc')
    .filter(entry => /^\d+$/.test(entry))
    .filter(pid => {
      try {
        return condition(readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' '));
      } catch {
        return false;
      }
    })
    .map(Number);
}
