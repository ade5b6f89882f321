/** One `up` or `down` of a cluster at a time. A lock left by a dead process is taken over. */

import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { failure } from '../base/errors.ts';
import { isAlive, type ProcessIdentity, RUN_ROOT, startTicksOf } from './cluster-record.ts';

/** Runs `work` under the cluster's lock. Throws Conflict naming the holder. */
export async function withLock<T>(name: string, work: () => Promise<T>): Promise<T> {
  const folder = join(RUN_ROOT, '.locks');
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, name);
  for (let attempt = 0; ; attempt++) {
    try {
      const fd = openSync(path, 'wx', 0o600);
      writeFileSync(fd, JSON.stringify({ pid: process.pid, startTicks: startTicksOf(process.pid) }));
      closeSync(fd);
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      const holder = readLock(path);
      if (holder && isAlive(holder))
        throw failure(
          409,
          'Conflict',
          `another cox command (pid ${holder.pid}) is working on cluster "${name}"; wait for it to end`,
        );
      if (attempt > 3) throw failure(409, 'Conflict', `cannot take the lock ${path}; remove it if no cox command runs`);
      rmSync(path, { force: true });
    }
  }
  try {
    return await work();
  } finally {
    rmSync(path, { force: true });
  }
}

function readLock(path: string): ProcessIdentity | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ProcessIdentity;
  } catch {
    return undefined;
  }
}
