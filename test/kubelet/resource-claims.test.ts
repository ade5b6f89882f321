/** Dynamic resource allocation, with a real scheduler, controller, kubelet and containers, and a sample driver. */

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Pod } from '../../src/api/core/v1.gen.ts';
import type { ResourceClaim } from '../../src/api/resource/v1.gen.ts';
import { systemClock } from '../../src/base/clock.ts';
import { createLogger } from '../../src/base/log.ts';
import { metrics } from '../../src/base/metrics.ts';
import { seededRandom } from '../../src/base/random.ts';
import { InformerFactory } from '../../src/client/informer.ts';
import {
  DEVICE_CLASSES,
  PODS,
  RESOURCE_CLAIM_TEMPLATES,
  RESOURCE_CLAIMS,
  RESOURCE_SLICES,
} from '../../src/client/resources.ts';
import { garbageCollector } from '../../src/controllers/garbagecollector/controller.ts';
import { resourceClaim } from '../../src/controllers/resourceclaim/controller.ts';
import { startControllers } from '../../src/controllers/start.ts';
import { startScheduler } from '../../src/scheduler/scheduler.ts';
import { MS_BIND, mount } from '../../src/sys/libc.ts';
import { isReady, TestNode } from './node.ts';
import { SampleClaimDriver } from './sample-claim-driver.ts';

const DRIVER = 'gpu.example.com';
const WAIT_MS = 30_000;
const node = new TestNode({ isolated: true });
/** What hooks of devices wrote. */
const told = () => join(node.root, 'told');
const stop = new AbortController();
let driver: SampleClaimDriver;

before(async () => {
  await node.start();
  // Descriptions of devices of this mount namespace only.
  const cdiFolder = '/var/run/cdi';
  mkdirSync(cdiFolder, { recursive: true });
  mkdirSync(join(node.root, 'cdi'));
  mount(join(node.root, 'cdi'), cdiFolder, null, MS_BIND, null);
  const options = {
    transport: node.api,
    log: createLogger('test', { level: 'warn' }),
    clock: systemClock,
    random: seededRandom(1),
    signal: stop.signal,
  };
  const informers = new InformerFactory(options);
  const host = startControllers({
    ...options,
    informers,
    caPem: 'CA',
    definitions: [resourceClaim, garbageCollector],
  });
  const scheduler = startScheduler({ ...options, informers });
  await Promise.all([host.ready, scheduler.ready]);
  driver = new SampleClaimDriver({
    name: DRIVER,
    node: 'node-1',
    rootDir: join(node.root, 'lib'),
    cdiFolder,
    api: node.api,
    hooks: ['createRuntime', 'createContainer', 'startContainer', 'poststop'].map(hookName => ({
      hookName,
      path: '/bin/sh',
      // A hook reads what it is told on its standard input: a runtime that cannot write it does not start the container.
      // That of startContainer runs in the container, the others where the machine's files are.
      args: [
        'sh',
        '-c',
        hookName === 'startContainer'
          ? 'cat > /dev/null; echo "$WORD" > /hooked'
          : `cat > /dev/null; echo $WORD ${hookName} >> ${told()}`,
      ],
      env: ['WORD=hook', 'PATH=/bin:/usr/bin'],
      timeout: 20,
    })),
    devices: [
      ...['small', 'large'].map((name, i) => ({ name, attributes: { size: { int: (i + 1) * 10 } } })),
      {
        name: 'cabled',
        attributes: { size: { int: 5 } },
        bindsToNode: true,
        bindingConditions: ['example.com/attached'],
        bindingFailureConditions: ['example.com/broken'],
      },
      {
        name: 'common',
        attributes: { size: { int: 1 } },
        allowMultipleAllocations: true,
        capacity: {
          memory: { value: '10Gi', requestPolicy: { default: '1Gi', validRange: { min: '1Gi', step: '1Gi' } } },
        },
      },
    ],
  });
  await driver.publish();
  await driver.start();
  await node.put(DEVICE_CLASSES, {
    apiVersion: 'resource.k8s.io/v1',
    kind: 'DeviceClass',
    metadata: { name: 'gpu' },
    spec: { selectors: [{ cel: { expression: `device.driver == "${DRIVER}"` } }] },
  });
  await node.put(RESOURCE_CLAIM_TEMPLATES, {
    apiVersion: 'resource.k8s.io/v1',
    kind: 'ResourceClaimTemplate',
    metadata: { name: 'large', namespace: 'default' },
    spec: { spec: { devices: { requests: [large] } } },
  });
});
after(async () => {
  stop.abort();
  await driver.stop();
  await node.close();
});

const large = {
  name: 'gpu',
  exactly: {
    deviceClassName: 'gpu',
    selectors: [{ cel: { expression: `device.attributes["${DRIVER}"].size >= 20` } }],
  },
};
const withClaim = (claim: object, command = 'sleep 1000') => ({
  nodeName: undefined,
  restartPolicy: 'Never',
  resourceClaims: [{ name: 'device', ...claim }],
  containers: [
    {
      name: 'c',
      image: 'busybox:1',
      command: ['sh', '-c', command],
      resources: { claims: [{ name: 'device' }] },
    },
  ],
});
const claims = async () =>
  (await node.api.list({ of: RESOURCE_CLAIMS, namespace: 'default' })).items as ResourceClaim[];
async function eventually(what: string, check: () => Promise<unknown>): Promise<void> {
  const end = Date.now() + WAIT_MS;
  while (!(await check())) {
    assert.ok(Date.now() < end, `${what}; claims ${JSON.stringify(await claims())}`);
    await sleep(20);
  }
}
const remove = async (name: string) => {
  await node.api.delete({ of: PODS, namespace: 'default', name });
  await node.untilGone(name, WAIT_MS);
};

test('a claim from a template: made, allocated by its rule, prepared, in the container, and gone with the pod', async () => {
  // As the kubelet asks for what absent drivers have left.
  for (const [fieldSelector, count] of Object.entries({ 'spec.nodeName=node-1': 1, 'spec.nodeName=node-2': 0 }))
    assert.equal((await node.api.list({ of: RESOURCE_SLICES }, { fieldSelector })).items.length, count, fieldSelector);
  const show =
    'grep hook /hooked || exit; (env | grep DEVICE_; stat -c "%n %F" /dev/large; ls /dev/small) > /dev/termination-log 2>&1; sleep 1000';
  await node.create('one', withClaim({ resourceClaimTemplateName: 'large' }, show));
  const one = await node.until('one', isReady, WAIT_MS);
  const [claim] = await claims();
  assert.equal(one.status!.resourceClaimStatuses![0]!.resourceClaimName, claim!.metadata.name);
  assert.match(claim!.metadata.name, /^one-device-/);
  assert.deepEqual(
    claim!.status!.allocation!.devices!.results!.map(({ request, device, pool }) => [request, device, pool]),
    [['gpu', 'large', 'node-1']],
  );
  assert.deepEqual(
    claim!.status!.reservedFor!.map(({ uid }) => uid),
    [one.metadata.uid],
  );
  assert.deepEqual([...driver.prepared], [claim!.metadata.uid]);
  const inUse = () =>
    metrics
      .render()
      .match(/^dra_resource_claims_in_use\{.*/gm)
      ?.map(line => line.slice(line.lastIndexOf(' ') + 1));
  assert.deepEqual(inUse(), ['1', '1'], 'of any driver and of this one');
  assert.equal(readFileSync(told(), 'utf8'), 'hook createRuntime\nhook createContainer\n');

  await node.create('two', withClaim({ resourceClaimTemplateName: 'large' }));
  await node.untilEvents('two', events => events.some(text => /cannot allocate all claims/.test(text)), WAIT_MS);
  await remove('one');
  assert.equal(driver.prepared.has(claim!.metadata.uid!), false, 'cleaned up before the pod is gone');
  await eventually('the hook after the end', async () =>
    /hook createContainer\nhook poststop\n/.test(readFileSync(told(), 'utf8')),
  );
  await node.until('two', isReady, WAIT_MS);
  await remove('two');
  await eventually('claims go with their pods', async () => (await claims()).length === 0);
  assert.deepEqual(inUse(), ['0']);
});

test('a device that must be made ready first: the pod waits for it, and gets another try when it cannot be', async () => {
  const exactly = {
    deviceClassName: 'gpu',
    selectors: [{ cel: { expression: `device.attributes["${DRIVER}"].size == 5` } }],
  };
  await node.put(RESOURCE_CLAIMS, {
    apiVersion: 'resource.k8s.io/v1',
    kind: 'ResourceClaim',
    metadata: { name: 'cabled', namespace: 'default' },
    spec: { devices: { requests: [{ name: 'gpu', exactly }] } },
  });
  const target = { of: RESOURCE_CLAIMS, namespace: 'default', name: 'cabled' };
  const status = async () => ((await node.api.get(target)) as ResourceClaim).status;
  const say = async (type: string) => {
    const condition = {
      type,
      status: 'True',
      reason: 'Said',
      message: 'so it is',
      lastTransitionTime: '2026-01-01T00:00:00Z',
    };
    await node.api.patch(
      { ...target, subresource: 'status' },
      { status: { devices: [{ driver: DRIVER, pool: 'node-1', device: 'cabled', conditions: [condition] }] } },
      'application/merge-patch+json',
    );
  };
  await node.create('cabled', withClaim({ resourceClaimName: 'cabled' }));
  await node.untilEvents(
    'cabled',
    events =>
      events.some(text =>
        /BindingConditionsPending.*waiting for binding conditions for device on node node-1/.test(text),
      ),
    WAIT_MS,
  );
  const { allocation } = (await status())!;
  assert.ok(allocation!.allocationTimestamp);
  assert.deepEqual(allocation!.devices!.results![0]!.bindingConditions, ['example.com/attached']);
  assert.deepEqual(allocation!.devices!.results![0]!.bindingFailureConditions, ['example.com/broken']);
  assert.equal(
    ((await node.api.get({ of: PODS, namespace: 'default', name: 'cabled' })) as Pod).spec.nodeName,
    undefined,
  );

  await say('example.com/broken');
  await node.untilEvents(
    'cabled',
    events =>
      events.some(text => /FailedScheduling.*claim cabled binding failed.*example.com\/broken: so it is/.test(text)),
    WAIT_MS,
  );
  // It is tried again, without what was said of the last try.
  await eventually('allocated anew', async () => {
    const now = await status();
    return now?.allocation && !now.devices;
  });
  await say('example.com/attached');
  await node.until('cabled', isReady, WAIT_MS);
  await remove('cabled');
  await node.api.delete(target);
});

test('the status of a container tells how its devices are', async () => {
  const healthOf = async () => {
    const { status } = (await node.api.get({ of: PODS, namespace: 'default', name: 'ill' })) as Pod;
    return status?.containerStatuses?.[0]?.allocatedResourcesStatus;
  };
  driver.say('large', 1);
  await node.create('ill', withClaim({ resourceClaimTemplateName: 'large' }));
  await node.until('ill', isReady, WAIT_MS);
  const [claim] = await claims();
  const resourceID = `${DRIVER}/device=${claim!.metadata.uid}-large`;
  const becomes = (health: object) =>
    eventually(`health becomes ${JSON.stringify(health)}`, async () =>
      isDeepStrictEqual(await healthOf(), [{ name: 'claim:device', resources: [{ resourceID, ...health }] }]),
    );
  await becomes({ health: 'Healthy' });
  driver.say('large', 2, 'it burns');
  await becomes({ health: 'Unhealthy', message: 'it burns' });
  await driver.stop();
  await becomes({ health: 'Unknown' });
  await driver.start();
  await becomes({ health: 'Unhealthy', message: 'it burns' });
  await remove('ill');
});

test('a claim that pods share, a driver that fails at first, and a kubelet that comes back', async () => {
  const selectors = [{ cel: { expression: `device.attributes["${DRIVER}"].size != 5` } }];
  await node.put(RESOURCE_CLAIMS, {
    apiVersion: 'resource.k8s.io/v1',
    kind: 'ResourceClaim',
    metadata: { name: 'shared', namespace: 'default' },
    spec: {
      devices: { requests: [{ name: 'any', exactly: { deviceClassName: 'gpu', allocationMode: 'All', selectors } }] },
    },
  });
  driver.failure = 'the cable is loose';
  await node.create('first', withClaim({ resourceClaimName: 'shared' }));
  await node.untilEvents(
    'first',
    events => events.some(text => /FailedPrepareDynamicResources.*the cable is loose/.test(text)),
    WAIT_MS,
  );
  driver.failure = undefined;
  await node.until('first', isReady, WAIT_MS);
  await node.create('second', {
    ...withClaim(
      { resourceClaimName: 'shared' },
      '(ls /dev/small /dev/large; stat -c "%F %a %u:%g %t,%T" /dev/large-*; head -c 3 /dev/large-own | wc -c; id -G) > /dev/termination-log 2>&1',
    ),
  });
  const second = await node.until('second', pod => pod.status?.phase === 'Succeeded', WAIT_MS);
  assert.deepEqual(second.status!.containerStatuses![0]!.state!.terminated!.message!.split('\n'), [
    ...['/dev/large', '/dev/small', 'character special file 640 5:6 1,5', 'fifo 622 0:0 0,0', '3', '0 4242', ''],
  ]);
  await node.restartKubelet();
  await eventually('only the pod that runs holds it', async () => {
    const [claim] = await claims();
    return claim?.status?.reservedFor?.map(({ name }) => name).join() === 'first';
  });
  assert.equal(driver.prepared.size, 1, 'still used');
  await remove('first');
  assert.equal(driver.prepared.size, 0);
  await eventually('its devices are free again', async () => (await claims())[0]!.status?.allocation === undefined);
});

test('pods share a device by its capacity, each with a claim of its own', async () => {
  await node.put(RESOURCE_CLAIM_TEMPLATES, {
    apiVersion: 'resource.k8s.io/v1',
    kind: 'ResourceClaimTemplate',
    metadata: { name: 'part', namespace: 'default' },
    spec: {
      spec: {
        devices: {
          requests: [
            {
              name: 'gpu',
              exactly: {
                deviceClassName: 'gpu',
                selectors: [{ cel: { expression: 'device.allowMultipleAllocations' } }],
                capacity: { requests: { memory: '3500Mi' } },
              },
            },
          ],
        },
      },
    },
  });
  const wish = withClaim({ resourceClaimTemplateName: 'part' });
  await node.create('first-part', wish);
  await node.create('second-part', wish);
  await node.until('first-part', isReady, WAIT_MS);
  await node.until('second-part', isReady, WAIT_MS);
  const parts = (await claims()).flatMap(({ status }) => status?.allocation?.devices?.results ?? []);
  assert.deepEqual(
    parts.map(({ device, consumedCapacity }) => [device, consumedCapacity]),
    [
      ['common', { memory: '4Gi' }],
      ['common', { memory: '4Gi' }],
    ],
  );
  assert.equal(new Set(parts.map(({ shareID }) => shareID)).size, 2);
  await node.create('third-part', wish);
  await node.untilEvents('third-part', events => events.some(text => /cannot allocate all claims/.test(text)), WAIT_MS);
  await remove('first-part');
  await node.until('third-part', isReady, WAIT_MS);
  for (const name of ['second-part', 'third-part']) await remove(name);
});

test('extended resources that a device class serves: a claim made by the scheduler, gone with the pod', async () => {
  await node.put(DEVICE_CLASSES, {
    apiVersion: 'resource.k8s.io/v1',
    kind: 'DeviceClass',
    metadata: { name: 'plain' },
    spec: {
      extendedResourceName: 'example.com/plain',
      selectors: [
        { cel: { expression: `device.driver == "${DRIVER}" && device.attributes["${DRIVER}"].size in [10, 20]` } },
      ],
    },
  });
  const asking = (name: string, resource: string, amount: string) => ({
    name,
    image: 'busybox:1',
    command: ['sh', '-c', '(cd /dev; echo small large | xargs ls -d 2> /dev/null) > /dev/termination-log; sleep 1'],
    resources: { requests: { [resource]: amount }, limits: { [resource]: amount } },
  });
  const lastingPod = {
    nodeName: undefined,
    restartPolicy: 'Never',
    containers: [{ ...asking('c', 'example.com/plain', '2'), command: ['sleep', '1000'] }],
  };
  await node.create('lasting', lastingPod);
  const lasting = await node.until('lasting', isReady, WAIT_MS);
  const { resourceClaimName, requestMappings } = lasting.status!.extendedResourceClaimStatus!;
  assert.match(resourceClaimName, /^lasting-extended-resources-/);
  assert.deepEqual(requestMappings, [
    { containerName: 'c', resourceName: 'example.com/plain', requestName: 'container-0-request-0' },
  ]);
  const [claim] = await claims();
  assert.equal(claim!.metadata.name, resourceClaimName);
  assert.equal(claim!.metadata.annotations?.['resource.kubernetes.io/extended-resource-claim'], 'true');
  assert.equal(claim!.metadata.ownerReferences?.[0]?.uid, lasting.metadata.uid);
  assert.deepEqual(
    claim!.status!.reservedFor!.map(({ uid }) => uid),
    [lasting.metadata.uid],
  );
  assert.deepEqual([...driver.prepared], [claim!.metadata.uid]);

  // The class by its own name; each container gets what it asked for.
  const implicit = 'deviceclass.resource.kubernetes.io/plain';
  await node.create('implicit', {
    nodeName: undefined,
    restartPolicy: 'Never',
    initContainers: [asking('init', implicit, '2')],
    containers: [asking('one', implicit, '1'), { ...asking('none', 'cpu', '1m') }],
  });
  await node.untilEvents('implicit', events => events.some(text => /cannot allocate all claims/.test(text)), WAIT_MS);
  // What an attempt has left behind that was broken off is in the way of the next, and goes.
  const { uid } = ((await node.api.get({ of: PODS, namespace: 'default', name: 'implicit' })) as Pod).metadata;
  await node.put(RESOURCE_CLAIMS, {
    ...{ apiVersion: 'resource.k8s.io/v1', kind: 'ResourceClaim' },
    metadata: {
      name: 'leftover',
      namespace: 'default',
      annotations: { 'resource.kubernetes.io/extended-resource-claim': 'true' },
      ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name: 'implicit', uid, controller: true }],
      finalizers: ['resource.kubernetes.io/delete-protection'],
    },
    spec: { devices: { requests: [large] } },
  });
  await eventually('the leftover goes', async () => (await claims()).every(one => one.metadata.name !== 'leftover'));
  await remove('lasting');
  const implied = await node.until('implicit', pod => pod.status?.phase === 'Succeeded', WAIT_MS);
  const said = [...implied.status!.initContainerStatuses!, ...implied.status!.containerStatuses!].map(
    ({ name, state }) => [name, state?.terminated?.message?.trim().split('\n').filter(Boolean).length ?? 0],
  );
  assert.deepEqual(Object.fromEntries(said), { init: 2, one: 1, none: 0 });
  await eventually('the claim of a pod that is over goes', async () =>
    (await claims()).every(one => one.metadata.name === 'shared'),
  );
  await remove('implicit');
});
