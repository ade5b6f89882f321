import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Node, Pod } from '../api/core/v1.gen.ts';
import { classesByResource } from '../api/machinery/extended-resources.ts';
import type { DeviceClass } from '../api/resource/v1.gen.ts';
import { extendedClaimOn, servingClasses } from './extended-resources.ts';
import { NodeInfo, podInfo } from './node-info.ts';
import type { Lookup } from './plugin.ts';

const deviceClass = (name: string, extendedResourceName?: string, creationTimestamp = '2026-01-01T00:00:00Z') =>
  ({
    metadata: { name, creationTimestamp },
    spec: extendedResourceName ? { extendedResourceName } : {},
  }) as DeviceClass;
const GPU = 'example.com/gpu';
const NIC = 'deviceclass.resource.kubernetes.io/nic';
const classes = classesByResource([deviceClass('gpu', GPU), deviceClass('nic')]);
const lookup = { deviceClassFor: (resource: string) => classes.get(resource) } as Lookup;

const container = (name: string, requests: Record<string, string>, more: object = {}) => ({
  name,
  image: 'x',
  resources: { requests, limits: requests },
  ...more,
});
const claimOf = (spec: object, allocatable: Record<string, string> = {}) => {
  const pod = { metadata: { name: 'p', namespace: 'n', uid: 'u' }, spec } as Pod;
  const node = new NodeInfo({ metadata: { name: 'node-1' }, status: { allocatable } } as unknown as Node);
  const info = podInfo(pod);
  return extendedClaimOn(node, info, servingClasses(info, lookup));
};
const told = (found: ReturnType<typeof claimOf>) => ({
  requests: found?.claim.spec.devices?.requests?.map(
    ({ name, exactly }) => `${name}: ${exactly!.count} ${exactly!.deviceClassName}`,
  ),
  mappings: found?.requestMappings.map(one => `${one.containerName} ${one.resourceName} ${one.requestName}`),
});

test('a class serves the resource that it names and one by its own name; of several the youngest, then the first by name', () => {
  const found = classesByResource([
    deviceClass('old', GPU),
    deviceClass('b', GPU, '2026-02-01T00:00:00Z'),
    deviceClass('a', GPU, '2026-02-01T00:00:00Z'),
  ]);
  assert.equal(found.get(GPU)?.metadata.name, 'a');
  assert.equal(found.get('deviceclass.resource.kubernetes.io/old')?.metadata.name, 'old');
  assert.equal(found.get('deviceclass.resource.kubernetes.io/none'), undefined);
});

test('a request for each container and resource, named by their places; nothing of what a device plugin of the node has', () => {
  const spec = { containers: [container('a', { cpu: '1', [NIC]: '1', [GPU]: '2' }), container('b', { [GPU]: '1' })] };
  const claim = claimOf(spec);
  assert.deepEqual(told(claim), {
    requests: ['container-0-request-1: 1 nic', 'container-0-request-2: 2 gpu', 'container-1-request-0: 1 gpu'],
    mappings: [`a ${NIC} container-0-request-1`, `a ${GPU} container-0-request-2`, `b ${GPU} container-1-request-0`],
  });
  assert.equal(claim!.claim.metadata.generateName, 'p-extended-resources-');
  assert.deepEqual(told(claimOf(spec, { [GPU]: '4' })).requests, ['container-0-request-1: 1 nic']);
  assert.equal(claimOf(spec, { [GPU]: '4', [NIC]: '4' }), undefined);
  assert.equal(claimOf({ containers: [container('a', { 'example.com/other': '1', cpu: '1' })] }), undefined);
});

test('init containers use what those after them will have, and one request beside it', () => {
  const spec = {
    initContainers: [
      container('sidecar', { [GPU]: '1' }, { restartPolicy: 'Always' }),
      container('first', { [GPU]: '3' }),
      container('second', { [GPU]: '5' }),
      container('third', { [GPU]: '1' }),
    ],
    containers: [container('main', { [GPU]: '2' })],
  };
  assert.deepEqual(told(claimOf(spec)), {
    requests: ['container-0-request-0: 1 gpu', 'container-2-request-0: 3 gpu', 'container-4-request-0: 2 gpu'],
    mappings: [
      `sidecar ${GPU} container-0-request-0`,
      `main ${GPU} container-4-request-0`,
      `first ${GPU} container-4-request-0`,
      `first ${GPU} container-2-request-0`,
      `second ${GPU} container-4-request-0`,
      `second ${GPU} container-2-request-0`,
      `third ${GPU} container-4-request-0`,
    ],
  });
});
