/** The runtime against a real containerd, started as a node starts its own. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { CONTAINERD_SOCKET, Containerd, ociHandlers } from '../../src/kubelet/runtime/cri/containerd.ts';
import { CriRuntime } from '../../src/kubelet/runtime/cri/cri-runtime.ts';
import { unmountBelow } from '../../src/sys/mount.ts';
import { container, run, runtimeSuite, until } from './runtime-suite.ts';

const log = createLogger('test', { level: (process.env['COX_LOG'] as 'debug') ?? 'error' });
let stop: AbortController | undefined;
let current: CriRuntime | undefined;
let containerd: Containerd;
let running: Promise<void>;

runtimeSuite({
  async open({ root, images, network }) {
    if (!stop) execFileSync('ip', ['link', 'set', 'lo', 'up']);
    stop?.abort();
    await running;
    stop = new AbortController();
    containerd = new Containerd({
      rootDir: join(root, 'containerd'),
      runDir: join(root, 'containerd-run'),
      logFile: join(root, 'containerd.log'),
      handlers: ociHandlers(),
      clock: systemClock,
      log,
    });
    containerd.prepare();
    running = containerd.run(stop.signal);
    current = await CriRuntime.open(
      {
        socket: CONTAINERD_SOCKET,
        folder: join(root, 'cri'),
        images,
        door: { requests: containerd.cni.requests, network },
        handlers: ['', ...ociHandlers().map(({ name }) => name)],
        log,
      },
      stop.signal,
    );
    return current;
  },
  async close(runtime) {
    try {
      for (const { id } of (await runtime.snapshot()).sandboxes) await runtime.removeSandbox(id);
      const { sandboxes, containers } = await runtime.snapshot();
      assert.deepEqual([...sandboxes, ...containers], []);
      assert.deepEqual(shims(), []);
    } finally {
      stop!.abort();
      await running;
      containerd.kill();
      for (const place of ['/run/containerd', '/var/lib/containerd']) unmountBelow(place);
    }
  },
  checkRemoved(_, { sandbox }) {
    assert.equal(shims().includes(sandbox), false);
  },
});

/** Of sandboxes that are there, by the folders of their tasks. */
const shims = (): string[] => {
  const folder = '/run/containerd/io.containerd.runtime.v2.task/k8s.io';
  return existsSync(folder) ? readdirSync(folder) : [];
};

test('containerd killed: containers run on, it comes back, and what ended meanwhile is told', async () => {
  const runtime = current!;
  const { pod, id } = await run('k', container('k', ['sleep', '1000']));
  const { id: ended } = await run(
    'l',
    container('l', ['sh', '-c', 'while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 4']),
  );
  const pidOf = async (one: string) => (await runtime.snapshot()).containers.find(({ id }) => id === one)!.pid!;
  const pid = await pidOf(id);
  const root = `/proc/${await pidOf(ended)}/root/tmp/end`;
  containerd.kill();
  writeFileSync(root, '');
  const after = await until(async () => (await runtime.snapshot('l').catch(() => undefined))?.containers[0], 20_000);
  assert.equal(after.id, ended);
  await until(async () => (await runtime.snapshot('l')).containers[0]?.exitCode === 4, 20_000);
  const kept = (await runtime.snapshot('k')).containers.find(one => one.id === id)!;
  assert.equal(kept.state, 'running');
  assert.equal(kept.pid, pid);
  assert.equal((await runtime.exec(id, { command: ['true'], tty: false, isBrief: true })).exitCode, 0);
  await runtime.removeSandbox(pod.id);
});
