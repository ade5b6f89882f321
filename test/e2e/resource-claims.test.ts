/** Dynamic resource allocation by stock kubectl, with the sample driver on one of the nodes. */

import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { after } from 'node:test';
import { before, it, type Json, pod, root, useCluster, useNamespace } from './cluster.ts';
import { accessFrom, startOnNode } from './node-program.ts';
import { eventually } from './process.ts';

const DRIVER = 'e2e.example.com';
const NODE = 'node-1';
const BUSYBOX = 'busybox:1.35';
const cluster = useCluster();
const namespace = useNamespace(cluster, 'resource-claims');
let driver: ChildProcess;

const deviceClass = (name: string, kind: string, spec: object = {}) => ({
  apiVersion: 'resource.k8s.io/v1',
  kind: 'DeviceClass',
  metadata: { name: `e2e-${name}` },
  spec: {
    selectors: [
      { cel: { expression: `device.driver == "${DRIVER}" && device.attributes["${DRIVER}"].kind == "${kind}"` } },
    ],
    ...spec,
  },
});
const claimTemplate = (name: string) => ({
  apiVersion: 'resource.k8s.io/v1',
  kind: 'ResourceClaimTemplate',
  metadata: { name },
  spec: { spec: { devices: { requests: [{ name: 'device', exactly: { deviceClassName: `e2e-${name}` } }] } } },
});
const withClaim = (name: string, resourceClaimTemplateName: string) =>
  pod(name, BUSYBOX, {
    command: ['sleep', '1000'],
    container: { resources: { claims: [{ name: 'mine' }] } },
    spec: { resourceClaims: [{ name: 'mine', resourceClaimTemplateName }] },
  });
const claims = async (): Promise<Json[]> => (await cluster.json('-n', namespace, 'get', 'resourceclaims')).items;
const remove = async (name: string) => {
  await cluster.kubectl('-n', namespace, 'delete', 'pod', name);
  await eventually('the claim goes with its pod', async () => (await claims()).length === 0);
};

before(
  async () => {
    const device = (name: string, kind: string, more: object = {}) => ({
      name,
      attributes: { kind: { string: kind } },
      ...more,
    });
    driver = await startOnNode(cluster, NODE, join(root, 'test', 'e2e', 'claim-driver.ts'), {
      name: DRIVER,
      node: NODE,
      devices: [
        device('first', 'plain'),
        device('second', 'plain'),
        device('cabled', 'cabled', {
          bindsToNode: true,
          bindingConditions: ['example.com/attached'],
          bindingFailureConditions: ['example.com/broken'],
        }),
      ],
      ...accessFrom(cluster, NODE),
    });
    let output = '';
    driver.stdout!.on('data', text => {
      output += text;
    });
    await eventually('the driver serves', async () => output.includes('serving'), { timeoutMs: 60_000 });
    await cluster.apply(namespace, [
      deviceClass('plain', 'plain', { extendedResourceName: 'example.com/plain' }),
      deviceClass('cabled', 'cabled'),
      claimTemplate('plain'),
      claimTemplate('cabled'),
    ]);
  },
  { timeout: 100_000 },
);
after(
  async () => {
    await cluster.tryKubectl('delete', 'deviceclass', 'e2e-plain', 'e2e-cabled');
    await cluster.tryKubectl('delete', 'resourceslices', `--field-selector=spec.driver=${DRIVER}`);
    const ended = new Promise(resolve => driver.once('exit', resolve));
    driver.stdin!.end();
    await ended;
  },
  { timeout: 60_000 },
);

it('a pod with a claim comes to the node that has the device, and its status tells how that is', cluster, async () => {
  await cluster.apply(namespace, [withClaim('claims', 'plain')]);
  const claiming = await cluster.readyPod(namespace, 'claims');
  assert.equal(claiming.spec.nodeName, NODE);
  const [claim] = await claims();
  assert.equal(claiming.status.resourceClaimStatuses[0].resourceClaimName, claim.metadata.name);
  assert.match(await cluster.kubectl('-n', namespace, 'get', 'resourceclaims'), /claims-mine-\w+ +allocated,reserved /);
  const { device } = claim.status.allocation.devices.results[0];
  assert.match(
    await cluster.exec(namespace, 'claims', 'env'),
    new RegExp(`^DEVICE_${device.toUpperCase()}=given$`, 'm'),
  );
  driver.stdin!.write(`${JSON.stringify({ device, health: 2, message: 'it burns' })}\n`);
  await eventually('the device is told to be unhealthy', async () => {
    const { status } = await cluster.json('-n', namespace, 'get', 'pod', 'claims');
    const [told] = status.containerStatuses[0].allocatedResourcesStatus ?? [];
    return (
      told?.name === 'claim:mine' &&
      told.resources[0].health === 'Unhealthy' &&
      told.resources[0].message === 'it burns'
    );
  });
  await remove('claims');
});

it('an extended resource that no device plugin has but a device class serves', cluster, async () => {
  const resources = { limits: { 'example.com/plain': '2' } };
  await cluster.apply(namespace, [pod('extended', BUSYBOX, { command: ['sleep', '1000'], container: { resources } })]);
  const extended = await cluster.readyPod(namespace, 'extended');
  const [claim] = await claims();
  assert.equal(extended.status.extendedResourceClaimStatus.resourceClaimName, claim.metadata.name);
  const env = await cluster.exec(namespace, 'extended', 'env');
  for (const name of ['FIRST', 'SECOND']) assert.match(env, new RegExp(`^DEVICE_${name}=given$`, 'm'));
  await remove('extended');
});

it('a pod waits for a device that has to be made ready, which a driver says by kubectl', cluster, async () => {
  await cluster.apply(namespace, [withClaim('waits', 'cabled')]);
  await eventually('the pod waits for its device', async () =>
    (await cluster.kubectl('-n', namespace, 'events', '--for', 'pod/waits')).includes('BindingConditionsPending'),
  );
  const waiting = await cluster.json('-n', namespace, 'get', 'pod', 'waits');
  assert.equal(waiting.spec.nodeName, undefined);
  const [claim] = await claims();
  const condition = { type: 'example.com/attached', status: 'True', reason: 'Said', message: '' };
  const lastTransitionTime = claim.status.allocation.allocationTimestamp;
  const device = {
    driver: DRIVER,
    pool: NODE,
    device: 'cabled',
    conditions: [{ ...condition, lastTransitionTime }],
  };
  await cluster.kubectl(
    ...['-n', namespace, 'patch', 'resourceclaim', claim.metadata.name, '--subresource=status', '--type=merge'],
    ...['-p', JSON.stringify({ status: { devices: [device] } })],
  );
  await cluster.readyPod(namespace, 'waits');
  await remove('waits');
});
