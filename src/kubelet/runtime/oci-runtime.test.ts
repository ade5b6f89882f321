import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { systemClock } from '../../base/clock.ts';
import { identify, isAlive } from '../../sys/process.ts';
import { type OciName, ociRuntime, type Waiting } from './oci-runtime.ts';

const root = mkdtempSync(join(tmpdir(), 'cox-oci-'));
after(() => rmSync(root, { recursive: true, force: true }));

/** Stands in for a container's init: once `go` is there it does what the script says with its fifo, and is over. */
function init(id: string, script: string) {
  const folder = join(root, id);
  mkdirSync(folder, { recursive: true });
  const fifo = join(folder, 'exec.fifo');
  execFileSync('mkfifo', [fifo]);
  const child = spawn('sh', ['-c', `until [ -e go ]; do sleep 0.01; done; ${script}`], {
    cwd: folder,
    stdio: 'ignore',
  });
  const process = identify(child.pid!)!;
  const container: Waiting = { id, isAlive: () => isAlive(process) };
  const ended = new Promise<number | null>(resolve => child.once('exit', resolve));
  return { container, fifo, ended, go: () => writeFileSync(join(folder, 'go'), '') };
}
const release = (name: OciName, container: Waiting, sleep = systemClock.sleep.bind(systemClock)) =>
  ociRuntime(name, root).release(container, { ...systemClock, monotonic: () => systemClock.monotonic(), sleep });

test('runc: a program that is over before its release is noticed was started all the same', async () => {
  const { container, go, fifo } = init('short', 'printf 0 > exec.fifo');
  // The read after this is under way, and finds nothing, when the program runs to its end; its answer is seen afterwards.
  const sleep = async () =>
    soon(() => {
      go();
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
    });
  await release('runc', container, sleep);
  assert.equal(existsSync(fifo), false);
});

test('runc: one that ends without having been started is told', async () => {
  const { container, go } = init('failed', 'exit 1');
  const released = release('runc', container);
  go();
  await assert.rejects(released, /ended before it could be started/);
});

test('crun: an init that holds the fifo gets a byte', async () => {
  const { container, go, ended, fifo } = init('waits', 'exec 3<>exec.fifo; : > open; head -c 1 <&3 | grep -q .');
  go();
  while (!existsSync(join(root, 'waits/open'))) await systemClock.sleep(5);
  await release('crun', container);
  assert.equal(await ended, 0);
  assert.equal(existsSync(fifo), false);
});

test('crun: one that ended without having been started is told', async () => {
  const { container, go, ended } = init('gone', 'exit 1');
  go();
  await ended;
  await assert.rejects(release('crun', container), /ended before it could be started/);
});

/** Runs `work` some microtasks from now, before the loop looks at any answer of the kernel. */
function soon(work: () => void, ticks = 20): void {
  queueMicrotask(() => (ticks > 0 ? soon(work, ticks - 1) : work()));
}
