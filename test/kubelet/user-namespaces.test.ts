/** Pods with `hostUsers: false`: who they are inside and outside, and whose files they see, with real containers. */

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Pod } from '../../src/api/core/v1.gen.ts';
import { metrics } from '../../src/base/metrics.ts';
import { PODS } from '../../src/client/resources.ts';
import { isReady, TestNode } from './node.ts';
import { done, sh } from './pods.ts';

let node: TestNode;
before(async () => {
  node = new TestNode();
  await node.start();
});
after(() => node.close());

const log = ({ metadata: { name, uid } }: Pod, container = 'c') =>
  readFileSync(join(node.root, `lib/logs/pods/default_${name}_${uid}/${container}/0.log`), 'utf8')
    .split('\n')
    .map(line => line.split(' ').slice(3).join(' '))
    .filter(Boolean);
const pidOf = (pod: Pod) =>
  Number(
    readFileSync(
      join(node.root, 'run/c', pod.status!.containerStatuses![0]!.containerID!.slice('cox://'.length), 'pid'),
      'utf8',
    ),
  );
const hostUid = (pod: Pod) => Number(/^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pidOf(pod)}/status`, 'utf8'))![1]);

test('root inside is nobody outside; files, volumes and system folders look as without', async () => {
  mkdirSync(join(node.root, 'host'));
  writeFileSync(join(node.root, 'host/of-root'), 'x', { mode: 0o600 });
  await node.configMap('settings', { key: 'value' });
  const script = [
    'id -u; cat /proc/self/uid_map | tr -s " "',
    'stat -Lc "%u:%g %n" / /bin/busybox /data /cfg/key /host/of-root /etc/hosts /dev/shm',
    'touch /mine /data/mine /host/mine /dev/shm/mine && stat -c "%u:%g %n" /mine /data/mine /host/mine /dev/shm/mine',
    'chown 1000:1000 /data/mine && hostname && cat /cfg/key; echo; cat /host/of-root; echo',
    'ip addr add 10.1.1.1/32 dev lo && echo net-admin',
    'test -d /sys/class/net/eth0 && echo sysfs; echo done > /dev/termination-log',
  ].join('; ');
  await node.create('mapped', {
    hostUsers: false,
    restartPolicy: 'Never',
    securityContext: { fsGroup: 2000 },
    containers: [
      sh(script, {
        securityContext: { capabilities: { add: ['NET_ADMIN'] } },
        volumeMounts: [
          { name: 'data', mountPath: '/data' },
          { name: 'cfg', mountPath: '/cfg' },
          { name: 'host', mountPath: '/host' },
        ],
      }),
    ],
    volumes: [
      { name: 'data', emptyDir: {} },
      { name: 'cfg', configMap: { name: 'settings' } },
      { name: 'host', hostPath: { path: join(node.root, 'host') } },
    ],
  });
  const pod = await node.until('mapped', done, 20_000);
  assert.deepEqual(log(pod), [
    '0',
    ' 0 65536 65536',
    '0:0 /',
    '0:0 /bin/busybox',
    '0:2000 /data',
    '0:2000 /cfg/key',
    '0:0 /host/of-root',
    '0:0 /etc/hosts',
    '0:0 /dev/shm',
    '0:0 /mine',
    '0:2000 /data/mine',
    '0:0 /host/mine',
    '0:0 /dev/shm/mine',
    'mapped',
    'value',
    'x',
    'net-admin',
    'sysfs',
  ]);
  assert.equal(pod.status!.containerStatuses![0]!.state!.terminated!.message, 'done\n');
  // On the disk they belong to whom the container named, as if there were no namespace.
  assert.equal(statSync(join(node.root, 'host/mine')).uid, 0);
});

test('image volumes: their files are the pod’s own users’, a part of one, one that is not there', async () => {
  const volumes = [{ name: 'image', image: { reference: 'busybox:1', pullPolicy: 'Never' } }];
  const script =
    'stat -c "%u:%g %n" /image /image/bin/busybox /www/index.html; cat /www/index.html; touch /image/x || echo refused; /image/bin/busybox true || echo no program';
  await node.create('imaged', {
    hostUsers: false,
    initContainers: [
      sh(`(${script}) 2>/dev/null`, {
        name: 'looks',
        env: [{ name: 'PART', value: 'www' }],
        volumeMounts: [
          { name: 'image', mountPath: '/image' },
          { name: 'image', mountPath: '/www', subPathExpr: 'var/$(PART)' },
        ],
      }),
    ],
    containers: [sh('exec sleep 1000')],
    volumes,
  });
  const pod = await node.until('imaged', isReady, 20_000);
  assert.deepEqual(log(pod, 'looks'), [
    ...['0:0 /image', '0:0 /image/bin/busybox', '0:0 /www/index.html', 'hello', 'refused', 'no program'],
  ]);
  const folder = join(node.root, 'lib/pods', pod.metadata.uid!, 'volumes/kubernetes.io~image');
  assert.deepEqual(readdirSync(folder), ['image']);
  assert.match(metrics.render(), /^kubelet_image_volume_mounted_succeed_total [1-9]/m);
  // Not the machine's root.
  assert.ok(statSync(join(folder, 'image/bin/busybox')).uid >= 65536);
  for (const hostUsers of [true, false]) {
    const name = `part-missing-${hostUsers}`;
    const volumeMounts = [{ name: 'image', mountPath: '/image', subPath: 'var/nothing' }];
    await node.create(name, { hostUsers, containers: [sh('exec sleep 1000', { volumeMounts })], volumes });
    const { status } = await node.until(
      name,
      one => one.status?.containerStatuses?.[0]?.state?.waiting?.message && one,
    );
    assert.deepEqual(status!.containerStatuses![0]!.state!.waiting, {
      reason: 'CreateContainerError',
      message: 'ImageVolumeMountFailed: subPath "var/nothing" does not exist',
    });
    await node.api.delete({ of: PODS, namespace: 'default', name });
    await node.untilGone(name);
  }
  await node.api.delete({ of: PODS, namespace: 'default', name: 'imaged' });
  await node.untilGone('imaged');
  assert.equal(existsSync(folder), false);
});

test('nobody is given the machine’s /dev/null, whoever he is inside, nor may he close it', async () => {
  const before = statSync('/dev/null');
  // The mode that it has: harmless where it succeeds.
  const script = 'chmod 666 /proc/self/fd/0 2>/dev/null && echo changed; echo tried; exec sleep 1000';
  const readinessProbe = { exec: { command: ['grep', '-q', 'sleep', '/proc/1/cmdline'] }, periodSeconds: 1 };
  for (const [name, spec] of Object.entries({
    user: { securityContext: { runAsUser: 1000 } },
    'mapped-root': { hostUsers: false },
    'mapped-user': { hostUsers: false, securityContext: { runAsUser: 1000 } },
  })) {
    await node.create(name, { ...spec, containers: [sh(script, { readinessProbe })] });
    const pod = await node.until(name, isReady, 20_000);
    // One without a user namespace has a device of its own.
    if (pod.spec.hostUsers === false) assert.deepEqual(log(pod), ['tried'], name);
    const after = statSync('/dev/null');
    assert.deepEqual([after.uid, after.gid], [before.uid, before.gid], name);
    await node.api.delete({ of: PODS, namespace: 'default', name }, { gracePeriodSeconds: 0 });
    await node.untilGone(name);
  }
});

test('two pods share no id, containers of one pod a namespace; ids outlive the kubelet and go with the pod', async () => {
  const script = 'exec sleep 1000';
  const spec = {
    hostUsers: false,
    shareProcessNamespace: true,
    securityContext: { runAsUser: 1000 },
    containers: [
      sh(script, {
        readinessProbe: {
          exec: { command: ['sh', '-c', '[ "$(id -u)" = 1000 ] && [ -d /proc/1/ns ]'] },
          periodSeconds: 1,
        },
      }),
      sh(script, { name: 'other' }),
    ],
  };
  await node.create('one', spec);
  await node.create('two', spec);
  const [one, two] = [await node.until('one', isReady, 20_000), await node.until('two', isReady, 20_000)];
  const uids = [hostUid(one), hostUid(two)];
  assert.notEqual(uids[0], uids[1]);
  for (const uid of uids) assert.equal(uid % 65536, 1000);
  for (const uid of uids) assert.ok(uid > 65536);
  await node.restartKubelet();
  await node.create('three', spec);
  const three = await node.until('three', isReady, 20_000);
  assert.deepEqual([hostUid(one), hostUid(two)], uids);
  assert.ok(!uids.includes(hostUid(three)));
  const file = join(node.root, 'lib/pods', one.metadata.uid!, 'userns');
  assert.equal(JSON.parse(readFileSync(file, 'utf8')).uidMappings[0].hostId + 1000, uids[0]);
  for (const name of ['one', 'two', 'three']) await node.api.delete({ of: PODS, namespace: 'default', name });
  for (const name of ['one', 'two', 'three']) await node.untilGone(name);
  assert.equal(existsSync(file), false);
});
