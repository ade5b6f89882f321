import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import { identify } from '../../sys/process.ts';
import type { RuntimeFolders } from './folders.ts';
import { Monitor } from './monitor.ts';
import type { ContainerRecord } from './records.ts';

const root = mkdtempSync(join(tmpdir(), 'cox-monitor-'));
after(() => rmSync(root, { recursive: true, force: true }));
const folders = { runc: root } as RuntimeFolders;

/** Stands in for a container's init: once `go` is there it writes to its fifo, as runc's does, and is over. */
function init(id: string, script: string): { record: ContainerRecord; go: () => void } {
  const folder = join(root, id);
  mkdirSync(folder, { recursive: true });
  execFileSync('mkfifo', [join(folder, 'exec.fifo')]);
  const go = join(folder, 'go');
  const child = spawn('sh', ['-c', `until [ -e go ]; do sleep 0.01; done; ${script}`], {
    cwd: folder,
    stdio: 'ignore',
  });
  const record = { id, process: identify(child.pid!) } as ContainerRecord;
  return { record, go: () => writeFileSync(go, '') };
}

function monitor(sleep = systemClock.sleep.bind(systemClock)): Monitor {
  const clock = { ...systemClock, monotonic: () => systemClock.monotonic(), sleep };
  return new Monitor({ folders, clock, log: silentLogger, runc: '', conmon: '' });
}

test('a program that is over before its release is noticed was started all the same', async () => {
  const { record, go } = init('short', 'printf 0 > exec.fifo');
  // The read after this is under way, and finds nothing, when the program runs to its end; its answer is seen afterwards.
  const sleep = async () =>
    soon(() => {
      go();
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
    });
  await monitor(sleep).release(record);
});

test('one that ends without having been started is told', async () => {
  const { record, go } = init('failed', 'exit 1');
  const released = monitor().release(record);
  go();
  await assert.rejects(released, /ended before it could be started/);
});

/** Runs `work` some microtasks from now, before the loop looks at any answer of the kernel. */
function soon(work: () => void, ticks = 20): void {
  queueMicrotask(() => (ticks > 0 ? soon(work, ticks - 1) : work()));
}
