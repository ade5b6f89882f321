/** The runtime against a real containerd, started as a node starts its own. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { CONTAINERD_SOCKET, Containerd, ociHandlers } from '../../src/kubelet/runtime/cri/containerd.ts';
import { CriRuntime } from '../../src/kubelet/runtime/cri/cri-runtime.ts';
import { unmountBelow } from '../../src/sys/mount.ts';
import { container, run, runtimeSuite, sandbox, until } from './runtime-suite.ts';

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

test('on a network of the runtime’s own, its plugin opens the ports of the node that a pod asks for', async () => {
  const runtime = current!;
  const { plugins, configurations } = containerd.cni;
  for (const name of ['bridge', 'host-local', 'portmap']) symlinkSync(join('/usr/lib/cni', name), join(plugins, name));
  const network = {
    cniVersion: '1.0.0',
    name: 'other',
    plugins: [
      {
        type: 'bridge',
        bridge: 'other0',
        isDefaultGateway: true,
        ipam: {
          type: 'host-local',
          dataDir: '/run/containerd/cni/addresses',
          ranges: [[{ subnet: '10.99.0.0/24' }]],
        },
      },
      { type: 'portmap', capabilities: { portMappings: true } },
    ],
  };
  // The first of the folder is the one that is used, as soon as containerd has seen it.
  writeFileSync(join(configurations, '05-other.conflist'), JSON.stringify(network));
  let uid = 0;
  const made = await until(async () => {
    const one = await runtime.runSandbox({
      ...sandbox(`ports-${++uid}`),
      ports: [
        { protocol: 'TCP', hostPort: 8081, port: 80 },
        { protocol: 'TCP', hostPort: 8082, port: 80, hostIp: '192.0.2.2' },
      ],
    });
    if (one.ips[0]?.startsWith('10.99.0.')) return one;
    await runtime.removeSandbox(one.id);
    return undefined;
  }, 20_000);
  const id = await runtime.createContainer(made.id, container('web', ['httpd', '-f', '-p', '80', '-h', '/var/www']));
  await runtime.start(id);
  for (const ip of ['192.0.2.1', '192.0.2.2']) execFileSync('ip', ['addr', 'add', `${ip}/32`, 'dev', 'lo']);
  const ask = (at: string) =>
    fetch(`http://${at}/index.html`, { signal: AbortSignal.timeout(3000) }).then(
      reply => reply.text(),
      () => undefined,
    );
  assert.match(await until(() => ask('192.0.2.1:8081')), /hello/);
  assert.match((await ask('192.0.2.2:8082')) ?? 'closed', /hello/);
  assert.equal(await ask('192.0.2.1:8082'), undefined);
  await runtime.removeSandbox(made.id);
  assert.equal(await ask('192.0.2.1:8081'), undefined);
  rmSync(join(configurations, '05-other.conflist'));
});
