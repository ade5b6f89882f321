/** The runtime against real crun and conmon. */

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { ConmonRuntime } from '../../src/kubelet/runtime/conmon-runtime.ts';
import { RuntimeFolders } from '../../src/kubelet/runtime/folders.ts';
import { Monitor } from '../../src/kubelet/runtime/monitor.ts';
import { OciRuntimes } from '../../src/kubelet/runtime/oci-runtime.ts';
import { type ContainerRecord, RecordLog } from '../../src/kubelet/runtime/records.ts';
import { identify } from '../../src/sys/process.ts';
import { cgroups, container, runtimeSuite, type Surroundings, sandbox, until } from './runtime-suite.ts';

const open = ({ root, images, network }: Surroundings) =>
  new ConmonRuntime({
    rootDir: join(root, 'lib'),
    runDir: join(root, 'run'),
    images,
    cgroups,
    network,
    log: silentLogger,
  });

const suite = runtimeSuite({
  open,
  close: runtime => (runtime as ConmonRuntime).removeAll(),
  checkRemoved({ root }, { sandbox, container }) {
    assert.equal(existsSync(join(root, 'run/c', container)), false);
    assert.equal(existsSync(join(root, 'run/s', sandbox)), false);
  },
});

test('each program that is installed runs containers, under its name', async () => {
  const runtime = open(suite());
  const names = runtime.handlers.filter(name => name !== '' && name !== 'cox');
  assert.ok(names.includes('crun'), 'crun is installed');
  for (const name of names) {
    const pod = await runtime.runSandbox({ ...sandbox(`by-${name}`), handler: name });
    const config = container(`by-${name}`, ['sh', '-c', 'echo begun; exec sleep 1000']);
    const id = await runtime.createContainer(pod.id, config);
    await runtime.start(id);
    await until(() => readFileSync(config.logPath, 'utf8').includes('begun'));
    assert.ok(existsSync(join(suite().root, 'run/oci', id, name === 'crun' ? 'status' : 'state.json')), name);
    assert.equal((await runtime.exec(id, { command: ['sh', '-c', 'exit 3'], tty: false })).exitCode, 3);
    await runtime.removeSandbox(pod.id);
  }
});

test('an agent killed before a container was released releases it when it is back', async () => {
  const { root } = suite();
  for (const handler of ['crun', 'runc']) {
    const runtime = open(suite());
    if (!runtime.handlers.includes(handler)) continue;
    const pod = await runtime.runSandbox({ ...sandbox(`late-${handler}`), handler });
    const config = container(`late-${handler}`, ['sh', '-c', 'echo begun; exec sleep 1000']);
    const id = await runtime.createContainer(pod.id, config);
    // What `start` does up to the kill.
    const folders = new RuntimeFolders(join(root, 'lib'), join(root, 'run'));
    const records = new RecordLog<ContainerRecord>(folders.containerLog);
    const record = records.load().find(one => one.id === id)!;
    const monitor = new Monitor({ folders, clock: systemClock, log: silentLogger, conmon: '/usr/bin/conmon' });
    const pid = await monitor.spawn(record, new OciRuntimes(folders.oci).get(handler as 'crun'));
    records.save({ ...record, process: identify(pid)!, startedMs: Date.now() });
    assert.ok(folders.isWaiting(id));
    const back = open(suite());
    await until(() => existsSync(config.logPath) && readFileSync(config.logPath, 'utf8').includes('begun'));
    await until(() => !folders.isWaiting(id));
    await back.removeSandbox(pod.id);
  }
});
