/**
 * What the runtime must remember across a restart of the agent: one small JSON file a sandbox and a container, replaced by
 * rename. Volatile things (pids, sockets, exit codes) are read from the run folder and /proc instead.
 */

import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
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
    const path = join(this.#dir, `${record.id}.json`);
    writeFileSync(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }
  delete(id: string): void {
    rmSync(join(this.#dir, `${id}.json`), { force: true });
  }
  load(): T[] {
    const records: T[] = [];
    for (const name of readdirSync(this.#dir)) {
      if (!name.endsWith('.json')) continue;
      try {
        records.push(JSON.parse(readFileSync(join(this.#dir, name), 'utf8')) as T);
      } catch {
        // A file that the machine lost half of in a crash describes nothing that still runs.
        rmSync(join(this.#dir, name), { force: true });
      }
    }
    return records;
  }
}
