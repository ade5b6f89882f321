import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Node } from '../api/core/v1.gen.ts';
import type {
  Device,
  DeviceClass,
  DeviceRequestAllocationResult,
  ResourceClaim,
  ResourceSlice,
} from '../api/resource/v1.gen.ts';
import { allocate, type Inventory } from './claim-allocation.ts';
import { DeviceUsage } from './device-usage.ts';

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
const has = (device: string, more: object = {}) => ({ request: 'r', driver: DRIVER, pool: 'n1', device, ...more });
const inventory = (slices: ResourceSlice[], taken: DeviceRequestAllocationResult[] = []): Inventory => ({
  deviceClass: name =>
    name === 'gpu'
      ? ({
          metadata: { name },
          spec: { selectors: [{ cel: { expression: `device.driver == "${DRIVER}"` } }] },
        } as DeviceClass)
      : undefined,
  slices: () => slices,
  usage: () => new DeviceUsage([...taken]),
  newShareId: () => 'share',
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
  assert.equal(chosen(claim([exactly('r')]), inventory([slice('s', 'n1', devices)], [has('d0')])), 'r=d1');
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
  const some = inventory([slice('s', 'n1', devices)], [has('d2')]);
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

test('partitions of a device draw from the same counters, whoever has them', () => {
  const draws = (memory: string) => ({
    consumesCounters: [{ counterSet: 'card', counters: { memory: { value: memory } } }],
  });
  const pool = { resourceSliceCount: 2 };
  const counters = slice('a', 'n1', [], pool);
  const slices = [
    {
      ...counters,
      spec: {
        ...counters.spec,
        devices: undefined,
        sharedCounters: [{ name: 'card', counters: { memory: { value: '40Gi' } } }],
      },
    } as ResourceSlice,
    slice('b', 'n1', [draws('40Gi'), draws('20Gi'), draws('10Gi'), draws('20Gi'), draws('1Mi')], pool),
  ];
  assert.equal(chosen(claim([exactly('r')]), inventory(slices)), 'r=d0');
  assert.equal(chosen(claim([exactly('r')]), inventory(slices, [has('d0')])), 'cannot allocate all claims');
  assert.equal(chosen(claim([exactly('r')]), inventory(slices, [has('d1')])), 'r=d2');
  // It goes back: not the whole card first.
  assert.equal(chosen(claim([exactly('a'), exactly('b')]), inventory(slices)), 'a=d1 b=d2');
  assert.equal(chosen(claim([exactly('r', { count: 4 })]), inventory(slices)), 'cannot allocate all claims');
  assert.equal(chosen(claim([exactly('r')]), inventory(slices, [has('d1'), has('d3')])), 'cannot allocate all claims');
  assert.equal(chosen(claim([exactly('r')]), inventory(slices, [has('d0', { adminAccess: true })])), 'r=d0');
});

test('a device that is shared gives parts of its capacity, rounded as it says', () => {
  const shared = (requestPolicy?: object) =>
    slice('s', 'n1', [
      {
        allowMultipleAllocations: true,
        capacity: { memory: { value: '10Gi', ...(requestPolicy ? { requestPolicy } : {}) } },
      } as Partial<Device>,
    ]);
  const asks = (memory: string) => ({ capacity: { requests: { memory } } });
  const given = (wanted: ResourceClaim, from: Inventory) => {
    const decision = allocate(wanted, node('n1'), from);
    return 'reason' in decision
      ? decision.reason
      : decision.allocation
          .devices!.results!.map(one => `${one.shareID} ${one.consumedCapacity?.['memory']}`)
          .join(' ');
  };
  const none = 'cannot allocate all claims';
  const part = (memory: string) => has('d0', { shareID: 'x', consumedCapacity: { memory } });
  assert.equal(given(claim([exactly('r', asks('4Gi'))]), inventory([shared()])), 'share 4Gi');
  assert.equal(given(claim([exactly('r')]), inventory([shared()])), 'share 10Gi');
  assert.equal(
    given(claim([exactly('r', { ...asks('4Gi'), count: 2 })]), inventory([shared()])),
    'share 4Gi share 4Gi',
  );
  assert.equal(given(claim([exactly('r', { ...asks('4Gi'), count: 3 })]), inventory([shared()])), none);
  assert.equal(given(claim([exactly('r', asks('4Gi'))]), inventory([shared()], [part('6Gi')])), 'share 4Gi');
  assert.equal(given(claim([exactly('r', asks('5Gi'))]), inventory([shared()], [part('6Gi')])), none);
  assert.equal(given(claim([exactly('r', { capacity: { requests: { cores: '1' } } })]), inventory([shared()])), none);
  const range = { default: '1Gi', validRange: { min: '1Gi', step: '2Gi', max: '8Gi' } };
  assert.equal(given(claim([exactly('r')]), inventory([shared(range)])), 'share 1Gi');
  assert.equal(given(claim([exactly('r', asks('500Mi'))]), inventory([shared(range)])), 'share 1Gi');
  assert.equal(given(claim([exactly('r', asks('1500Mi'))]), inventory([shared(range)])), 'share 3Gi');
  assert.equal(given(claim([exactly('r', asks('8Gi'))]), inventory([shared(range)])), none);
  const values = { default: '2Gi', validValues: ['8Gi', '2Gi'] };
  assert.equal(given(claim([exactly('r', asks('3Gi'))]), inventory([shared(values)])), 'share 8Gi');
  assert.equal(given(claim([exactly('r', asks('9Gi'))]), inventory([shared(values)])), none);
  // A device of one's own gives no parts, but must have as much as is asked for.
  const own = inventory([slice('s', 'n1', devices)]);
  assert.equal(chosen(claim([exactly('r', asks('3Gi'))]), own), 'r=d2');
});

test('a claim holds where its devices are reached: on one node, where the selectors hold, or everywhere', () => {
  const zone = { key: 'zone', operator: 'In', values: ['a'] };
  const rack = { key: 'rack', operator: 'Exists' };
  const at = (...matchExpressions: object[]) => ({ nodeSelector: { nodeSelectorTerms: [{ matchExpressions }] } });
  const pool = (name: string, spec: object, devices: Partial<Device>[] = [{}]): ResourceSlice => {
    const { nodeName: _, ...rest } = slice(name, name, devices).spec;
    return { metadata: { name }, spec: { ...rest, ...spec } } as ResourceSlice;
  };
  const host = { metadata: { name: 'n1', labels: { zone: 'a', rack: '7' } } } as unknown as Node;
  const selected = (...slices: ResourceSlice[]) => {
    const decision = allocate(claim([exactly('r', { count: slices.length })]), host, inventory(slices));
    return 'reason' in decision ? decision.reason : decision.allocation.nodeSelector?.nodeSelectorTerms;
  };
  const here = [{ matchFields: [{ key: 'metadata.name', operator: 'In', values: ['n1'] }] }];
  assert.deepEqual(selected(pool('p', { allNodes: true })), undefined);
  assert.deepEqual(selected(pool('p', at(zone))), [{ matchExpressions: [zone] }]);
  assert.deepEqual(selected(pool('p', at(zone)), pool('q', at(zone, rack)), pool('r', { allNodes: true })), [
    { matchExpressions: [zone, rack] },
  ]);
  assert.deepEqual(selected(pool('p', at(zone)), slice('s', 'n1', [{}])), here);
  assert.deepEqual(selected(pool('p', at(zone), [{ bindsToNode: true }])), here);
  const each = { perDeviceNodeSelection: true };
  assert.deepEqual(selected(pool('p', each, [{ allNodes: true }])), undefined);
  assert.deepEqual(selected(pool('p', each, [{ nodeName: 'n1' }])), here);
  assert.equal(selected(pool('p', at({ ...zone, values: ['b'] }))), 'cannot allocate all claims');
});

test('devices that must be made ready come last, and their allocation says what for', () => {
  const conditional = { bindingConditions: ['ready'], bindingFailureConditions: ['broken'] };
  const all = inventory([slice('s', 'n1', [conditional, {}])]);
  assert.equal(chosen(claim([exactly('r')]), all), 'r=d1');
  const decision = allocate(claim([exactly('r', { count: 2 })]), node('n1'), all);
  assert.ok('allocation' in decision);
  assert.deepEqual(decision.allocation.devices!.results, [has('d1'), has('d0', conditional)]);
});
