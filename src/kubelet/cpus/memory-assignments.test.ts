import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Pod } from '../../api/core/v1.gen.ts';
import { CONFIGURATION_DEFAULT } from '../configuration.ts';
import { MemoryAssignments } from './memory-assignments.ts';

const folder = mkdtempSync(join(tmpdir(), 'cox-memory-'));
after(() => rmSync(folder, { recursive: true }));
const path = join(folder, 'memory_manager_state');
const configuration = {
  ...CONFIGURATION_DEFAULT,
  memoryManagerPolicy: 'Static' as const,
  reservedMemory: [{ numaNode: 0, limits: { memory: '100Mi' } }],
};
const options = { path, numaNodes: 1, capacityBytes: 1100 << 20, hugePages: {}, configuration };
const container = (name: string, memory: string) => ({
  name,
  resources: { requests: { cpu: '1', memory }, limits: { cpu: '1', memory } },
});
const pod = (uid: string, memory: string, init: string[] = []) =>
  ({
    metadata: { name: uid, uid },
    spec: {
      containers: [container('c', memory)],
      initContainers: init.map((of, i) => container(`i${i}`, of)),
    },
  }) as unknown as Pod;
const free = () => JSON.parse(readFileSync(path, 'utf8')).machineState[0].memoryMap.memory.free / (1 << 20);

test('guaranteed pods are counted, init containers give on theirs, a kubelet that comes back knows them', () => {
  const memory = new MemoryAssignments(options);
  assert.equal(memory.admit(pod('a', '300Mi', ['400Mi', '200Mi'])), undefined);
  assert.equal(free(), 600);
  assert.equal(memory.admit(pod('b', '700Mi'))?.reason, 'UnexpectedAdmissionError');
  assert.deepEqual(memory.limits({}, { podUid: 'a', container: 'c' }), { memoryNodes: '0' });
  assert.deepEqual(memory.limits({}, { podUid: 'b', container: 'c' }), {});
  const again = new MemoryAssignments(options);
  assert.deepEqual(again.ofContainer('a', 'c'), [{ type: 'memory', bytes: 300 << 20, node: 0 }]);
  again.retain(uid => uid !== 'a');
  assert.equal(free(), 1000);
});

test('huge pages are counted by size, and are no plain memory', () => {
  const other = join(folder, 'huge');
  const memory = new MemoryAssignments({ ...options, path: other, hugePages: { 'hugepages-2Mi': 16 << 20 } });
  const huge = (uid: string, pages: string) => {
    const plain = pod(uid, '300Mi');
    const [one] = plain.spec.containers;
    const amounts = { ...one!.resources!.limits, 'hugepages-2Mi': pages };
    return { ...plain, spec: { containers: [{ ...one!, resources: { requests: amounts, limits: amounts } }] } };
  };
  assert.equal(memory.admit(huge('a', '12Mi')), undefined);
  assert.equal(memory.admit(huge('b', '6Mi'))?.reason, 'UnexpectedAdmissionError');
  assert.deepEqual(memory.ofContainer('a', 'c'), [
    { type: 'memory', bytes: 300 << 20, node: 0 },
    { type: 'hugepages-2Mi', bytes: 12 << 20, node: 0 },
  ]);
  const { memoryMap, numberOfAssignments } = JSON.parse(readFileSync(other, 'utf8')).machineState[0];
  assert.deepEqual([memoryMap.memory.allocatable, memoryMap['hugepages-2Mi'].free], [984 << 20, 4 << 20]);
  assert.equal(numberOfAssignments, 2);
});

test('what does not fit the machine is refused', () => {
  const make = (other: object) => () => new MemoryAssignments({ ...options, ...other });
  assert.throws(make({ numaNodes: 2 }), /one NUMA node only; this one has 2/);
  const reservedMemory = [{ numaNode: 0, limits: { memory: '1Mi' } }];
  assert.throws(
    make({ configuration: { ...configuration, reservedMemory } }),
    /"1048576" of type "memory" is not equal to the value "104857600" determined by Node Allocatable feature/,
  );
  assert.throws(
    make({ configuration: { ...configuration, reservedMemory: [{ numaNode: 1, limits: {} }] } }),
    /NUMA node 1 that does not exist/,
  );
});
