/** Pods from a folder of manifests: they run without being asked for, and mirrors in the API show them. */

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PODS } from '../../src/client/resources.ts';
import { CgroupTree } from '../../src/sys/cgroup.ts';
import { isReady, TestNode } from './node.ts';
import { sh } from './pods.ts';

let node: TestNode;
before(async () => {
  node = new TestNode();
  await node.start();
});
after(() => node.close());

const file = (name: string) => join(node.root, 'lib', 'manifests', name);
const manifest = (word: string) => `
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:1
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "echo ${word}; exec sleep 1000"]
`;

test('a pod of the node itself starts, and starts again, before the API server was ever reached; others keep their ports', async () => {
  await node.create('other', {
    containers: [sh('exec sleep 1000', { ports: [{ containerPort: 80, hostPort: 8088 }] })],
  });
  await node.until('other', isReady);
  assert.deepEqual(node.hostPorts, [8088]);
  // A runtime whose own network the pods are on would be told so.
  const sandboxes = readFileSync(join(node.root, 'lib/runtime/sandboxes.log'), 'utf8');
  assert.match(sandboxes, /"ports":\[\{"hostPort":8088,"port":80,"protocol":"TCP"\}\]/);
  await node.stopKubelet();
  node.isReachable = false;
  mkdirSync(join(node.root, 'out'));
  const early = manifest('early')
    .replace('name: web', 'name: early')
    .replace('echo early; exec sleep 1000', 'echo x >> /out/starts')
    .replace('imagePullPolicy', 'ports: [{containerPort: 80, hostPort: 8089}]\n    imagePullPolicy');
  const mounts = '    volumeMounts: [{name: out, mountPath: /out}]\n  volumes: [{name: out, hostPath: {path: OUT}}]\n';
  writeFileSync(file('early.yaml'), early + mounts.replace('OUT', join(node.root, 'out')));
  node.startKubelet();
  const starts = () => {
    try {
      return readFileSync(join(node.root, 'out/starts'), 'utf8').length / 2;
    } catch {
      return 0;
    }
  };
  const end = Date.now() + 30_000;
  while (starts() < 2) {
    assert.ok(Date.now() < end, `started ${starts()} times`);
    await sleep(20);
  }
  assert.equal(await node.pod('early-node-1'), undefined);
  assert.ok(node.hostPorts.includes(8088), String(node.hostPorts));
  node.isReachable = true;
  const mirror = await node.until('early-node-1', pod => (pod.status?.containerStatuses?.[0]?.restartCount ?? 0) > 0);
  assert.match(mirror.status!.containerStatuses![0]!.state!.waiting?.reason ?? 'CrashLoopBackOff', /CrashLoopBackOff/);
  // In the API's turn both are open.
  for (const end = Date.now() + 10_000; node.hostPorts.join() !== '8088,8089'; await sleep(10))
    assert.ok(Date.now() < end, String(node.hostPorts));
  rmSync(file('early.yaml'));
  await node.untilGone('early-node-1');
  await node.api.delete({ of: PODS, namespace: 'default', name: 'other' }, { gracePeriodSeconds: 0 });
  await node.untilGone('other');
});

test('a manifest becomes a pod with a mirror; the file decides, and a restarted kubelet carries on', async () => {
  for (
    let i = 0;
    i < 500 &&
    !(await node.api
      .get({ of: { group: '', version: 'v1', resource: 'nodes' }, name: 'node-1' })
      .catch(() => undefined));
    i++
  )
    await sleep(10);
  writeFileSync(file('web.yaml'), manifest('one'));
  writeFileSync(file('broken.yaml'), 'kind: Deployment\n');
  const first = await node.until('web-node-1', isReady);
  const { annotations, ownerReferences, labels } = first.metadata;
  assert.equal(annotations!['kubernetes.io/config.source'], 'file');
  assert.equal(annotations!['kubernetes.io/config.mirror'], annotations!['kubernetes.io/config.hash']);
  assert.deepEqual([ownerReferences![0]!.kind, ownerReferences![0]!.name, labels!['app']], ['Node', 'node-1', 'web']);
  const id = first.status!.containerStatuses![0]!.containerID;
  // Its mirror comes back; the pod has not noticed.
  await node.api.delete({ of: PODS, namespace: 'default', name: 'web-node-1' });
  const again = await node.until('web-node-1', pod => pod.metadata.uid !== first.metadata.uid && isReady(pod), 20_000);
  assert.equal(again.status!.containerStatuses![0]!.containerID, id);
  await node.restartKubelet();
  await sleep(500);
  const kept = await node.until('web-node-1', isReady);
  assert.equal(kept.status!.containerStatuses![0]!.containerID, id);
  writeFileSync(file('web.yaml'), manifest('two'));
  const changed = await node.until(
    'web-node-1',
    pod =>
      pod.metadata.annotations!['kubernetes.io/config.hash'] !== annotations!['kubernetes.io/config.hash'] &&
      isReady(pod),
    20_000,
  );
  assert.notEqual(changed.status!.containerStatuses![0]!.containerID, id);
  rmSync(file('web.yaml'));
  await node.untilGone('web-node-1', 20_000);
  const groups = () => new CgroupTree().children(`${node.cgroupRoot}/kubepods/besteffort`);
  for (let i = 0; i < 1000 && groups().length > 0; i++) await sleep(10);
  assert.deepEqual(groups(), []);
});
