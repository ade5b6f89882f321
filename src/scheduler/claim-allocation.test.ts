import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Node } from '../api/core/v1.gen.ts';
import type { Device, DeviceClass, ResourceClaim, ResourceSlice } from '../api/resource/v1.gen.ts';
import { allocate, type Inventory } from './claim-allocation.ts';

const DRIVER = 'gpu.example.com';
const node = (name: string) => ({ metadata: { name } }) as Node;
const slice = (name: string, nodeName: string, devices: Partial<Device>[], pool: object = {}): ResourceSlice =>
  ({
    metadata: { name },
    spec: {
      driver: DRIVER,
      nodeName,
      pool: { name: nodeName, generation: 1, resourceSliceCount: 1, ...pool },
      devices: devices.map((one, i) => ({ name: `d${i}`, ...one })),
    },
  }) as ResourceSlice;
const claim = (requests: object[], more: object = {}): ResourceClaim =>
  ({ metadata: { name: 'c', namespace: 'n' }, spec: { devices: { requests, ...more } } }) as ResourceClaim;
const exactly = (name: string, more: object = {}) => ({ name, exactly: { deviceClassName: 'gpu', ...more } });
const cel = (expression: string) => ({ selectors: [{ cel: { expression } }] });
const inventory = (slices: ResourceSlice[], taken: string[] = []): Inventory => ({
  deviceClass: name =>
    name === 'gpu'
      ? ({
          metadata: { name },
          spec: { selectors: [{ cel: { expression: `device.driver == "${DRIVER}"` } }] },
        } as DeviceClass)
      : undefined,
  slices: () => slices,
  taken: () => new Set(taken),
});
const chosen = (wanted: ResourceClaim, from: Inventory, name = 'n1') => {
  const decision = allocate(wanted, node(name), from);
  return 'reason' in decision
    ? decision.reason
    : decision.allocation.devices!.results!.map(({ request, device }) => `${request}=${device}`).join(' ');
};

const attributes = (size: number, board: string) => ({
  attributes: { size: { int: size }, board: { string: board }, version: { version: '1.2.3' } },
  capacity: { memory: { value: `${size}Gi` } },
});
const devices = [attributes(1, 'a'), attributes(2, 'b'), attributes(4, 'b'), attributes(8, 'a')];

test('so many as asked for, those that the selectors let through, none twice', () => {
  const all = inventory([slice('s', 'n1', devices)]);
  assert.equal(chosen(claim([exactly('r')]), all), 'r=d0');
  assert.equal(chosen(claim([exactly('r', { count: 3 })]), all), 'r=d0 r=d1 r=d2');
  assert.equal(chosen(claim([exactly('r', { count: 5 })]), all), 'cannot allocate all claims');
  assert.equal(chosen(claim([exactly('r')]), all, 'n2'), 'cannot allocate all claims');
  assert.equal(chosen(claim([exactly('a'), exactly('b')]), all), 'a=d0 b=d1');
  assert.equal(chosen(claim([exactly('r')]), inventory([slice('s', 'n1', devices)], [`${DRIVER}/n1/d0`])), 'r=d1');
  const bySize = `device.attributes["${DRIVER}"].size >= 4`;
  assert.equal(chosen(claim([exactly('r', cel(bySize))]), all), 'r=d2');
  const byMemory = `device.capacity["${DRIVER}"].memory.compareTo(quantity("5Gi")) > 0`;
  assert.equal(chosen(claim([exactly('r', cel(byMemory))]), all), 'r=d3');
  const byVersion = `device.attributes["${DRIVER}"].version.isLessThan(semver("1.2.3"))`;
  assert.equal(chosen(claim([exactly('r', cel(byVersion))]), all), 'cannot allocate all claims');
  assert.equal(
    chosen(claim([exactly('r', cel('"x" in device.attributes["other.example.com"]'))]), all),
    'cannot allocate all claims',
  );
  assert.match(
    chosen(claim([exactly('r', cel(`device.attributes["${DRIVER}"].none == 1`))]), all),
    /no such key: none/,
  );
});

test('constraints make it go back; all means all; alternatives in their order; admin access takes nothing', () => {
  const all = inventory([slice('s', 'n1', devices)]);
  const sameBoard = { constraints: [{ requests: ['a', 'b'], matchAttribute: `${DRIVER}/board` }] };
  assert.equal(chosen(claim([exactly('a'), exactly('b')], sameBoard), all), 'a=d0 b=d3');
  const other = { constraints: [{ distinctAttribute: `${DRIVER}/board` }] };
  assert.equal(chosen(claim([exactly('a'), exactly('b')], other), all), 'a=d0 b=d1');
  assert.equal(chosen(claim([exactly('r', { allocationMode: 'All' })]), all), 'r=d0 r=d1 r=d2 r=d3');
  const some = inventory([slice('s', 'n1', devices)], [`${DRIVER}/n1/d2`]);
  assert.equal(chosen(claim([exactly('r', { allocationMode: 'All' })]), some), 'cannot allocate all claims');
  assert.equal(
    chosen(claim([exactly('r', { allocationMode: 'All', adminAccess: true })]), some),
    'r=d0 r=d1 r=d2 r=d3',
  );
  const alternatives = {
    name: 'r',
    firstAvailable: [
      { name: 'huge', deviceClassName: 'gpu', ...cel(`device.attributes["${DRIVER}"].size > 100`) },
      { name: 'two', deviceClassName: 'gpu', count: 2 },
    ],
  };
  assert.equal(chosen(claim([alternatives]), all), 'r/two=d0 r/two=d1');
  assert.equal(
    chosen(claim([{ name: 'r', exactly: { deviceClassName: 'none' } }]), all),
    'device class none does not exist',
  );
});

test('tainted devices need a toleration; only whole pools of the newest generation count', () => {
  const tainted = inventory([slice('s', 'n1', [{ taints: [{ key: 'ill', effect: 'NoSchedule' }] }])]);
  assert.equal(chosen(claim([exactly('r')]), tainted), 'cannot allocate all claims');
  assert.equal(chosen(claim([exactly('r', { tolerations: [{ key: 'ill', operator: 'Exists' }] })]), tainted), 'r=d0');
  const half = inventory([slice('s', 'n1', devices, { resourceSliceCount: 2 })]);
  assert.equal(chosen(claim([exactly('r')]), half), 'cannot allocate all claims');
  const newer = inventory([slice('old', 'n1', devices), slice('new', 'n1', [{ name: 'fresh' }], { generation: 2 })]);
  assert.equal(chosen(claim([exactly('r')]), newer), 'r=fresh');
});
