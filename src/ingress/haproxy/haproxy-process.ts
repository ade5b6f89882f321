/**
 * The HAProxy process of a node: a master and its worker, without any privilege, living in one folder that is theirs. It outlives the
 * agent, which finds it again by the record in that folder. A reload hands the listening sockets from the old worker to the new one.
 */

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { chownSync, closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { failure } from '../../base/errors.ts';
import { identify, isAlive, type ProcessIdentity, sendSignal } from '../../sys/process.ts';
import { CONFIGURATION, MASTER_SOCKET, RUNTIME_SOCKET } from './process-files.ts';
import { REACH_GROUP } from './reach-guard.ts';
import { ask } from './runtime-api.ts';

export const HAPROXY = '/usr/sbin/haproxy';
const NOBODY = 65_534;
const RECORD = 'process.json';
const READY_MS_MAX = 15_000;
const POLL_MS = 5;
/** Replaced workers that may serve what they had accepted, 10 MB each and more with many routes; the oldest is ended for one more. */
const DRAINING_MAX = 32;
// What lies above the folder is closed to HAProxy's user, and HAProxy wants to come back to where it started: so it sees the folder, in
// a mount namespace of its own, at a place that is open.
const START = `
mount --bind . /var/lib/haproxy && cd /var/lib/haproxy &&
exec setpriv --reuid "$1" --regid "$2" --clear-groups --no-new-privs --inh-caps=-all \\
  ${HAPROXY} -W -f ${CONFIGURATION} -S unix@${MASTER_SOCKET},mode,600
`;

export interface HaproxyProcessOptions {
  /** Is made, and handed to the user. */
  readonly folder: string;
  /** Where its standard output goes: a line a request. */
  readonly accessLog: string;
  readonly user: { readonly uid: number; readonly gid: number };
  readonly clock: Clock;
  /** It ended; of one that an earlier agent started nobody hears. */
  readonly onExit?: () => void;
}

/** The user that HAProxy's package makes, or nobody; the group by which the kernel knows what it may reach. */
export function haproxyUser(): { readonly uid: number; readonly gid: number } {
  const fields = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map(line => line.split(':'))
    .find(([name]) => name === 'haproxy');
  return { uid: fields ? Number(fields[2]) : NOBODY, gid: REACH_GROUP };
}

function groupOf(pid: number): number | undefined {
  try {
    return Number(/^Gid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
  } catch {
    return undefined;
  }
}

/** HAProxy does not take the configuration, because of that line of it if it said which. */
export class ConfigurationRefused extends Error {
  readonly line: number | undefined;
  constructor(messages: string) {
    super(`HAProxy refuses its configuration: ${messages.slice(0, 2000)}`);
    const line = new RegExp(`${CONFIGURATION}:(\\d+)\\]`).exec(messages)?.[1];
    this.line = line === undefined ? undefined : Number(line);
  }
}

export class HaproxyProcess {
  readonly #options: HaproxyProcessOptions;
  #identity: ProcessIdentity | undefined;

  constructor(options: HaproxyProcessOptions) {
    this.#options = options;
    const { folder, user } = options;
    mkdirSync(join(folder, 'certificates'), { recursive: true, mode: 0o700 });
    for (const path of [folder, join(folder, 'certificates')]) chownSync(path, user.uid, user.gid);
    if (existsSync(this.path(RECORD))) {
      const known = JSON.parse(readFileSync(this.path(RECORD), 'utf8')) as ProcessIdentity;
      // One that an earlier version started has another group, by which the kernel would let it go anywhere.
      if (isAlive(known) && groupOf(known.pid) === user.gid) this.#identity = known;
      else sendSignal(known, 'SIGUSR1');
    }
  }
  static isInstalled(): boolean {
    return existsSync(HAPROXY);
  }
  get isRunning(): boolean {
    return this.#identity !== undefined && isAlive(this.#identity);
  }
  /** Of the master; undefined when it does not run. */
  get pid(): number | undefined {
    return this.isRunning ? this.#identity!.pid : undefined;
  }
  path(file: string): string {
    return join(this.#options.folder, file);
  }

  /** Readable by HAProxy's user alone. */
  write(file: string, text: string): void {
    writeFileSync(this.path(file), text, { mode: 0o600 });
    chownSync(this.path(file), this.#options.user.uid, this.#options.user.gid);
  }

  configure(text: string): void {
    this.write(CONFIGURATION, text);
  }

  /** Starts the process, or makes the running one take the configuration that was written. Resolves once a worker serves it. */
  async apply(): Promise<void> {
    await this.#check();
    const before = await this.#workerPid();
    if (this.isRunning) await ask(this.path(MASTER_SOCKET), 'reload').catch(() => {});
    else this.#start();
    const { clock } = this.#options;
    const deadline = clock.monotonic() + READY_MS_MAX;
    for (;;) {
      const pid = await this.#workerPid();
      if (pid !== undefined && pid !== before && (await isSettled(this.path(MASTER_SOCKET)))) return this.#endOldest();
      if (!this.isRunning) throw failure(500, 'InternalError', `HAProxy ended; its messages: ${this.#messages()}`);
      if (clock.monotonic() > deadline)
        throw failure(
          500,
          'InternalError',
          `HAProxy did not take its configuration; its messages: ${this.#messages()}`,
        );
      await clock.sleep(POLL_MS);
    }
  }

  /** Connections that are open may finish. */
  stop(): void {
    if (this.#identity) sendSignal(this.#identity, 'SIGUSR1');
    this.#identity = undefined;
    rmSync(this.path(RECORD), { force: true });
  }

  #start(): void {
    for (const socket of [RUNTIME_SOCKET, MASTER_SOCKET]) rmSync(this.path(socket), { force: true });
    const access = openSync(this.#options.accessLog, 'a', 0o600);
    const messages = openSync(this.path('haproxy.log'), 'w', 0o600);
    const { uid, gid } = this.#options.user;
    const child: ChildProcess = spawn(
      '/usr/bin/unshare',
      ['--mount', '--propagation', 'private', '/bin/sh', '-c', START, 'haproxy', String(uid), String(gid)],
      {
        cwd: this.#options.folder,
        detached: true,
        stdio: ['ignore', access, messages],
        env: { PATH: '/usr/sbin:/usr/bin', LANG: 'C.UTF-8' },
      },
    );
    closeSync(access);
    closeSync(messages);
    child.on('error', () => {});
    child.on('exit', () => this.#options.onExit?.());
    child.unref();
    this.#identity = child.pid === undefined ? undefined : identify(child.pid);
    if (this.#identity) writeFileSync(this.path(RECORD), JSON.stringify(this.#identity), { mode: 0o600 });
  }

  /** A master given a broken configuration would go on without a new worker: better not to give it one. */
  #check(): Promise<void> {
    return new Promise((resolve, reject) => {
      execFile(
        HAPROXY,
        ['-c', '-f', CONFIGURATION],
        { cwd: this.#options.folder, timeout: READY_MS_MAX },
        (error, _out, messages) => (error ? reject(new ConfigurationRefused(messages)) : resolve()),
      );
    });
  }

  async #workerPid(): Promise<number | undefined> {
    if (!this.isRunning) return undefined;
    try {
      const pid = /^Pid: (\d+)$/m.exec(await ask(this.path(RUNTIME_SOCKET), 'show info'))?.[1];
      return pid === undefined ? undefined : Number(pid);
    } catch {
      return undefined;
    }
  }

  async #endOldest(): Promise<void> {
    const old = await oldWorkers(this.path(MASTER_SOCKET)).catch(() => []);
    for (const pid of old.slice(DRAINING_MAX)) {
      const worker = identify(pid);
      if (worker) sendSignal(worker, 'SIGTERM');
    }
  }

  #messages(): string {
    try {
      return readFileSync(this.path('haproxy.log'), 'utf8').slice(-1500);
    } catch {
      return 'none';
    }
  }
}

/** PIDs of workers that a reload replaced and whose connections are not over; the youngest first. */
export async function oldWorkers(masterSocket: string): Promise<number[]> {
  const [, old = ''] = (await ask(masterSocket, 'show proc')).split('# old workers');
  return [...old.split('# ')[0]!.matchAll(/^(\d+)\s+worker\s+(\d+)/gm)]
    .sort(([, , a], [, , b]) => Number(a) - Number(b))
    .map(([, pid]) => Number(pid));
}

/**
 * Whether new connections go to the newest worker alone: for a moment after a reload those before it accept some too, by the old
 * configuration.
 */
export async function isSettled(masterSocket: string): Promise<boolean> {
  try {
    for (const pid of await oldWorkers(masterSocket)) {
      const info = await ask(masterSocket, `@!${pid} show info`).catch(() => '');
      if (/^Stopping: 0/m.test(info)) return false;
      if (/^Stopping: 1/m.test(info)) return true;
    }
    return true;
  } catch {
    return false;
  }
}
