/** Devices of plugins, with a real kubelet and real containers: registration, node status, allocation, restarts of both sides. */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Node, Pod } from '../../src/api/core/v1.gen.ts';
import { NODES } from '../../src/client/resources.ts';
import { isReady, TestNode } from './node.ts';
import { SampleDevicePlugin } from './sample-device-plugin.ts';

const RESOURCE = 'example.com/widget';
const WAIT_MS = 30_000;
const node = new TestNode({ isolated: true });
let plugin: SampleDevicePlugin;

const amounts = async (resource: string) => {
  const { status } = (await node.api.get({ of: NODES, name: 'node-1' })) as Node;
  return [status?.capacity?.[resource], status?.allocatable?.[resource]];
};
async function untilAmounts(capacity?: string, allocatable?: string, resource = RESOURCE): Promise<void> {
  const end = Date.now() + WAIT_MS;
  for (
    let now = await amounts(resource);
    now[0] !== capacity || now[1] !== allocatable;
    now = await amounts(resource)
  ) {
    assert.ok(Date.now() < end, `capacity and allocatable ${now}, wanted ${capacity} and ${allocatable}`);
    await sleep(10);
  }
}
const withWidgets = (count: number, command = 'sleep 1000') => ({
  restartPolicy: 'Never',
  containers: [
    {
      name: 'c',
      image: 'busybox:1',
      command: ['sh', '-c', command],
      resources: { limits: { [RESOURCE]: String(count) }, requests: { [RESOURCE]: String(count) } },
    },
  ],
});
const SHOW =
  'echo "$WIDGETS"; for d in /dev/w*; do echo "$d $(stat -c %F $d)"; done; test -s /etc/widgets && echo mounted';

before(async () => {
  await node.start();
  plugin = new SampleDevicePlugin(join(node.root, 'lib/device-plugins'), RESOURCE, ['w1', 'w2', 'w3']);
  const end = Date.now() + WAIT_MS;
  // The kubelet's socket comes a moment after it.
  for (;;) {
    try {
      await plugin.start();
      break;
    } catch (error) {
      if (Date.now() > end) throw error;
      await sleep(20);
    }
  }
});
after(async () => {
  await plugin.stop();
  await node.close();
});

test('devices are counted, given by preference, told before the start, and free again afterwards', async () => {
  await untilAmounts('3', '3');
  await node.create('one', withWidgets(1, `(${SHOW}) > /dev/termination-log`));
  const one = await node.until('one', pod => pod.status?.phase === 'Succeeded', WAIT_MS);
  assert.equal(
    one.status!.containerStatuses![0]!.state!.terminated!.message,
    'w3\n/dev/w3 character special file\nmounted\n',
  );
  assert.deepEqual(plugin.allocated, [['w3']]);
  assert.deepEqual(plugin.preStarted, [['w3']]);
  await node.create('three', withWidgets(3));
  await node.until('three', isReady, WAIT_MS);
  await node.create('late', withWidgets(1));
  const late = await node.until('late', pod => pod.status?.phase === 'Failed', WAIT_MS);
  assert.equal(late.status!.reason, 'UnexpectedAdmissionError');
  assert.match(late.status!.message!, /Requested: 1, Available: 0, which is unexpected/);
});

test('a kubelet that comes back knows who has what; its plugin registers again', async () => {
  await node.restartKubelet();
  // Until the plugin has registered again there are no devices at all.
  let message = '';
  for (let i = 0; !/Requested: 1, Available: 0/.test(message); i++) {
    assert.ok(i < 1000 && !message.includes('Requested'), message);
    await node.create(`again-${i}`, withWidgets(1));
    const refused = await node.until(`again-${i}`, pod => pod.status?.phase === 'Failed', WAIT_MS);
    message = refused.status!.message!;
  }
  await untilAmounts('3', '3');
  assert.equal((await node.pod('three'))!.status!.containerStatuses![0]!.restartCount, 0);
});

test('what somebody else advertises on the node can be allocated for as long as it is there', async () => {
  const advertise = (amount: string | null) =>
    node.api.patch(
      { of: NODES, name: 'node-1', subresource: 'status' },
      { status: { capacity: { 'example.com/foreign': amount } } },
      'application/merge-patch+json',
    );
  await advertise('3');
  await untilAmounts('3', '3', 'example.com/foreign');
  await advertise(null);
  await untilAmounts(undefined, undefined, 'example.com/foreign');
  await untilAmounts('3', '3');
});

test('devices that are ill or whose plugin is gone are not given, and are when it is back', async () => {
  await node.api.delete({
    of: { group: '', version: 'v1', resource: 'pods' },
    namespace: 'default',
    name: 'three',
  } as never);
  await node.untilGone('three', WAIT_MS);
  plugin.setHealth('w2', false);
  await untilAmounts('3', '2');
  await node.create('ill', withWidgets(3));
  const ill = await node.until('ill', pod => pod.status?.phase === 'Failed', WAIT_MS);
  assert.match(ill.status!.message!, /Requested: 3, Available: 2/);
  await plugin.stop();
  await untilAmounts('3', '0');
  await node.create('gone', withWidgets(1));
  const gone = await node.until('gone', pod => pod.status?.phase === 'Failed', WAIT_MS);
  assert.match(
    gone.status!.message!,
    /no healthy devices present; cannot allocate unhealthy devices example.com\/widget/,
  );
  plugin = new SampleDevicePlugin(join(node.root, 'lib/device-plugins'), RESOURCE, ['w1', 'w2']);
  await plugin.start();
  await untilAmounts('2', '2');
  await node.create('back', withWidgets(2));
  await node.until('back', isReady, WAIT_MS);
  const health = (pod: Pod) =>
    JSON.stringify(
      pod.status!.containerStatuses![0]!.allocatedResourcesStatus?.map(({ name, resources = [] }) => [
        name,
        ...resources.map(one => `${one.resourceID} ${one.health}`).sort(),
      ]),
    );
  await node.until('back', pod => health(pod) === '[["example.com/widget","w1 Healthy","w2 Healthy"]]');
  plugin.setHealth('w1', false);
  await node.until('back', pod => health(pod) === '[["example.com/widget","w1 Unhealthy","w2 Healthy"]]');
  assert.equal(plugin.preStarted.length, 1);
});
