/**
 * What the runtime must remember across a restart of the agent: a log of all states that its sandboxes and containers went
 * through, a line of JSON each. Invariant: the last whole line of a record is the truth, so a kill at any point costs at most
 * the state being written. One file, because a new file or a replaced one costs the disk much more than a line. Volatile
 * things (pids, sockets, exit codes) are read from the run folder and /proc instead.
 */

import { appendFileSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import type { ProcessIdentity } from '../../sys/process.ts';
import type { ContainerConfig, SandboxConfig } from '../runtime.ts';
import type { Labels } from '../selinux.ts';
import type { OciName } from './oci-runtime.ts';
import type { ProcessUser } from './users.ts';

export interface SandboxRecord {
  readonly id: string;
  readonly config: SandboxConfig;
  readonly createdMs: number;
  /** See `bootIdentity`: under another one its namespaces are gone. */
  readonly boot: string;
  /** Makes its containers, and is asked what concerns them. */
  readonly oci: OciName;
  /** Where the kernel has SELinux: the level that no other pod here has. */
  readonly selinuxLevel?: string;
  stopped: boolean;
  ips: readonly string[];
  /** Holds the PID namespace that the pod's containers share. */
  holder?: ProcessIdentity;
}

export interface ContainerRecord {
  readonly id: string;
  readonly sandboxId: string;
  readonly podUid: string;
  /** As last updated. */
  config: ContainerConfig;
  readonly createdMs: number;
  readonly boot: string;
  readonly cgroup: string;
  readonly stopSignal: string;
  readonly selinux?: Labels;
  user?: ProcessUser;
  process?: ProcessIdentity;
  startedMs?: number;
  finishedMs?: number;
  exitCode?: number;
  oomKilled?: boolean;
  reason?: string;
  message?: string;
}

const LINES_MAX = 4000;
const LINES_PER_RECORD_MAX = 8;

export class RecordLog<T extends { readonly id: string }> {
  readonly #path: string;
  #lines = 0;
  /** What the log says is not all: the disk was full. */
  #isBehind = false;
  readonly #live = new Map<string, T>();
  constructor(path: string) {
    this.#path = path;
  }
  /** On a full disk it throws for a record that is new; of one that is known the news is written as soon as there is room. */
  save(record: T): void {
    const isKnown = this.#live.has(record.id);
    this.#live.set(record.id, record);
    const failure = this.#append(record);
    if (failure === undefined || isKnown) return;
    this.#live.delete(record.id);
    throw failure;
  }
  delete(id: string): void {
    if (this.#live.delete(id)) this.#append({ id, gone: true });
  }
  // A line break before as well: the line before may have been cut short.
  #append(line: object): unknown {
    const failure = unlessFull(() => appendFileSync(this.#path, `\n${JSON.stringify(line)}\n`, { mode: 0o600 }));
    if (failure !== undefined) {
      this.#isBehind = true;
      return failure;
    }
    if (this.#isBehind || (++this.#lines > LINES_MAX && this.#lines > this.#live.size * LINES_PER_RECORD_MAX))
      this.#compact();
    return undefined;
  }
  // Where there is no room for it the log stays as it is, which says the same.
  #compact(): void {
    const text = [...this.#live.values()].map(record => `${JSON.stringify(record)}\n`).join('');
    const fresh = `${this.#path}.new`;
    const failure = unlessFull(() => {
      writeFileSync(fresh, text, { mode: 0o600 });
      renameSync(fresh, this.#path);
    });
    if (failure !== undefined) return rmSync(fresh, { force: true });
    this.#isBehind = false;
    this.#lines = this.#live.size;
  }
  /** Once, before the first `save`. */
  load(): T[] {
    this.#live.clear();
    for (const line of existsSync(this.#path) ? readFileSync(this.#path, 'utf8').split('\n') : []) {
      if (!line) continue;
      try {
        const record = JSON.parse(line) as T & { gone?: true };
        if (record.gone) this.#live.delete(record.id);
        else this.#live.set(record.id, record);
      } catch {
        // Cut short. What the machine lost in a crash describes nothing that still runs.
      }
    }
    this.#compact();
    return [...this.#live.values()];
  }
}

/** The error of a full disk, if that is what stopped it. */
function unlessFull(write: () => void): unknown {
  try {
    write();
    return undefined;
  } catch (error) {
    if (!['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    return error;
  }
}
