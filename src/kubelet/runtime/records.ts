/**
 * What the runtime must remember across a restart of the agent: one small file a sandbox and a container, a line of JSON for
 * each state it went through. Invariant: the last whole line is the truth, so a kill at any point costs at most the state being
 * written; appending is six times cheaper than replacing a file, which ext4 flushes to the disk. Volatile things (pids, sockets, exit codes) are read from the run folder and /proc instead.
 */

import { appendFileSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessIdentity } from '../../sys/process.ts';
import type { ContainerConfig, SandboxConfig } from '../runtime.ts';
import type { ProcessUser } from './users.ts';

export interface SandboxRecord {
  readonly id: string;
  readonly config: SandboxConfig;
  readonly createdMs: number;
  /** See `bootIdentity`: under another one its namespaces are gone. */
  readonly boot: string;
  stopped: boolean;
  ips: readonly string[];
}

export interface ContainerRecord {
  readonly id: string;
  readonly sandboxId: string;
  readonly podUid: string;
  readonly config: ContainerConfig;
  readonly createdMs: number;
  readonly boot: string;
  readonly cgroup: string;
  readonly stopSignal: string;
  user?: ProcessUser;
  process?: ProcessIdentity;
  startedMs?: number;
  finishedMs?: number;
  exitCode?: number;
  oomKilled?: boolean;
  reason?: string;
  message?: string;
}

export class RecordFolder<T extends { readonly id: string }> {
  readonly #dir: string;
  constructor(dir: string) {
    this.#dir = dir;
    mkdirSync(dir, { recursive: true, mode: 0o700 });
  }
  save(record: T): void {
    // A line break before as well: the line before may have been cut short.
    appendFileSync(join(this.#dir, `${record.id}.json`), `\n${JSON.stringify(record)}\n`, { mode: 0o600 });
  }
  delete(id: string): void {
    rmSync(join(this.#dir, `${id}.json`), { force: true });
  }
  load(): T[] {
    const records: T[] = [];
    for (const name of readdirSync(this.#dir)) {
      if (!name.endsWith('.json')) continue;
      const record = lastWhole<T>(readFileSync(join(this.#dir, name), 'utf8'));
      // A file that the machine lost in a crash describes nothing that still runs.
      if (record) records.push(record);
      else rmSync(join(this.#dir, name), { force: true });
    }
    return records;
  }
}

function lastWhole<T>(text: string): T | undefined {
  for (const line of text.split('\n').reverse()) {
    if (!line) continue;
    try {
      return JSON.parse(line) as T;
    } catch {
      // Cut short.
    }
  }
  return undefined;
}
