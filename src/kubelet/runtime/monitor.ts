/**
 * A container's conmon: launches it and hands it commands. Invariant: a conmon outlives
 * this process, so nothing of it is remembered here; what it knows stands in the container's folders. When to start, how many
 * at a time and what an exit code means, others decide.
 */

import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { identify } from '../../sys/process.ts';
import { spawnReplying } from '../../sys/spawn.ts';
import type { RuntimeFolders } from './folders.ts';
import type { OciRuntime } from './oci-runtime.ts';
import type { ContainerRecord } from './records.ts';

const START_WAIT_MS_MAX = 120_000;
const REAP_MS = 100;

export class Monitor {
  readonly #folders: RuntimeFolders;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #conmon: string;

  constructor(options: {
    readonly folders: RuntimeFolders;
    readonly clock: Clock;
    readonly log: Logger;
    readonly conmon: string;
  }) {
    this.#folders = options.folders;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#conmon = options.conmon;
  }

  /** Resolves with the container's pid once it is made and waits to run its program. */
  spawn(record: ContainerRecord, oci: OciRuntime): Promise<number> {
    const { id, config } = record;
    const bundle = this.#folders.bundle(id);
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
      oci.program,
      '-b',
      bundle,
      '-p',
      join(bundle, 'pid'),
      '-P',
      join(bundle, 'conmon.pid'),
      '-l',
      `k8s-file:${config.logPath}`,
      '--exit-dir',
      this.#folders.exits,
      '--persist-dir',
      bundle,
      '--full-attach',
      '--no-sync-log',
      '--log-level',
      'error',
      '--runtime-arg',
      '--root',
      '--runtime-arg',
      oci.root,
      ...(config.tty ? ['-t'] : []),
      ...(config.stdin ? ['-i', ...(config.stdinOnce ? [] : ['--leave-stdin-open'])] : []),
    ];
    return new Promise((resolve, reject) => {
      const { reply: sync, reap } = spawnReplying(this.#conmon, args, {
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

  control(id: string, command: string): void {
    try {
      const fd = openSync(join(this.#folders.bundle(id), 'ctl'), constants.O_WRONLY | constants.O_NONBLOCK);
      try {
        writeSync(fd, command);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      this.#log.debug('container monitor does not listen', { id, error: messageOf(error) });
    }
  }

  /** Whether the container's conmon lives, and so may still write an exit code. */
  isAlive(id: string): boolean {
    const pid = Number(readText(join(this.#folders.bundle(id), 'conmon.pid')));
    return pid > 0 && Boolean(identify(pid));
  }
}

// runc logs `runc create failed: …` as one line of its log format, crun a sentence alone; users need the sentence only.
function runtimeMessage(text: string): string {
  const message = /msg="((?:[^"\\]|\\.)*)"/.exec(text)?.[1]?.replaceAll('\\"', '"') ?? text.trim();
  return `OCI runtime create failed: ${message}`;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
