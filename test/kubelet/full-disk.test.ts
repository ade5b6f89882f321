/**
 * A node whose disk is full to the last byte: what runs goes on, what cannot start says why, a kubelet that comes back then knows
 * its pods, and all goes on by itself once there is room again. A real small file system.
 */

import assert from 'node:assert/strict';
import { closeSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Node, Pod } from '../../src/api/core/v1.gen.ts';
import { NODES, PODS } from '../../src/client/resources.ts';
import { isReady, TestNode } from './node.ts';

const DISK_BYTES = 64 * 1024 * 1024;
let node: TestNode;
before(async () => {
  node = new TestNode({
    diskBytes: DISK_BYTES,
    // Nobody is evicted: the disk stays as full as it is.
    configuration: { evictionHard: {}, evictionSoft: {} },
  });
  await node.start();
});
after(() => node.close());

const sh = (script: string, extra: object = {}) => ({
  name: 'c',
  image: 'busybox:1',
  imagePullPolicy: 'IfNotPresent',
  command: ['sh', '-c', script],
  ...extra,
});
const filler = () => join(node.root, 'lib', 'filler');
function fill(): void {
  const fd = openSync(filler(), 'a');
  try {
    for (let bytes = 1024 * 1024; bytes >= 1; ) {
      try {
        writeSync(fd, Buffer.alloc(bytes));
      } catch {
        bytes = Math.floor(bytes / 2);
      }
    }
  } finally {
    closeSync(fd);
  }
  assert.equal(statfsSync(join(node.root, 'lib')).bavail, 0);
}
const id = (pod: Pod) => pod.status!.containerStatuses![0]!.containerID;

test('what runs goes on, what cannot start says why, nothing is lost, and all goes on once there is room', async () => {
  const probe = { exec: { command: ['sh', '-c', 'exit 0'] }, periodSeconds: 1 };
  await node.create('runs', { containers: [sh('while :; do echo line; sleep 0.1; done', { readinessProbe: probe })] });
  const first = await node.until('runs', isReady);
  fill();
  // What is written of it is larger than what is left of any file's last page.
  await node.create('late', { containers: [sh(`exec sleep 1000 # ${'x'.repeat(16_384)}`)] });
  await node.untilEvents('late', events => events.some(text => /no space left|ENOSPC/i.test(text)));
  assert.ok(!isReady((await node.pod('late'))!));
  await node.restartKubelet();
  const kept = await node.until('runs', isReady);
  assert.deepEqual([id(kept), kept.status!.containerStatuses![0]!.restartCount], [id(first), 0]);
  const found = (await node.api.get({ of: NODES, name: 'node-1' })) as Node;
  assert.equal(found.status!.conditions!.find(one => one.type === 'Ready')!.status, 'True');
  // Pods go from a full disk too.
  await node.api.delete({ of: PODS, namespace: 'default', name: 'runs' });
  await node.untilGone('runs');
  rmSync(filler());
  await node.until('late', isReady);
  await node.create('next', { containers: [sh('exec sleep 1000')] });
  await node.until('next', isReady);
});
