import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Pod } from '../../api/core/v1.gen.ts';
import { CONFIGURATION_DEFAULT } from '../configuration.ts';
import { CpuAssignments } from './cpu-assignments.ts';
import { formatCpuSet, parseCpuSet } from './cpu-set.ts';
import { type CpuTopology, takeTogether } from './cpu-topology.ts';

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'cox-cpus-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

/** Two sockets of two cores of two threads: 0-1 and 2-3, 4-5 and 6-7. */
const topology: CpuTopology = {
  numaNodes: 1,
  cpus: [0, 1, 2, 3, 4, 5, 6, 7].map(id => ({ id, socket: id >> 2, core: `${id >> 2}/${(id >> 1) & 1}` })),
};
const pod = (uid: string, counts: readonly string[], init: readonly string[] = []): Pod => {
  const containers = (list: readonly string[], prefix: string) =>
    list.map((cpu, i) => ({
      name: `${prefix}${i}`,
      resources: { requests: { cpu, memory: '1Mi' }, limits: { cpu, memory: '1Mi' } },
    }));
  return {
    metadata: { uid },
    spec: { containers: containers(counts, 'c'), initContainers: containers(init, 'i') },
  } as unknown as Pod;
};
const open = (name: string, changed: Partial<typeof CONFIGURATION_DEFAULT> = {}, machine = topology) =>
  new CpuAssignments({
    path: join(folder, name),
    topology: machine,
    configuration: { ...CONFIGURATION_DEFAULT, cpuManagerPolicy: 'static', reservedSystemCPUs: '0', ...changed },
  });

test('lists of processors', () => {
  assert.deepEqual([...parseCpuSet('0-2,7\n')], [0, 1, 2, 7]);
  assert.equal(formatCpuSet([7, 1, 0, 2, 5]), '0-2,5,7');
  assert.equal(formatCpuSet(parseCpuSet('')), '');
  for (const wrong of ['a', '3-1', '1-', '99999999']) assert.throws(() => parseCpuSet(wrong), /is no list of CPUs/);
});

test('sockets, cores and threads are taken whole where that is possible', () => {
  const take = (count: number, free: string) => {
    const taken = takeTogether(topology, { free: parseCpuSet(free), count });
    return taken && formatCpuSet(taken);
  };
  assert.equal(take(4, '0-7'), '0-3');
  assert.equal(take(4, '1-7'), '4-7');
  assert.equal(take(2, '1-7'), '2-3');
  assert.equal(take(1, '1-7'), '1');
  assert.equal(take(3, '1-3,6'), '1-3');
  assert.equal(take(5, '0-3'), undefined);
});

test('who asks for whole processors has them alone; they are known after a restart and shared again afterwards', () => {
  const cpus = open('a');
  assert.equal(cpus.shared, '0-7');
  assert.equal(cpus.admit(pod('one', ['2', '1500m', '1'], ['3'])), undefined);
  assert.deepEqual(cpus.exclusive('one', 'i0'), [1, 2, 3]);
  assert.deepEqual(cpus.exclusive('one', 'c0'), [2, 3]);
  assert.deepEqual(cpus.exclusive('one', 'c1'), []);
  assert.deepEqual(cpus.exclusive('one', 'c2'), [1]);
  const quota = { cpuShares: 2, cpuQuotaMicros: 5, cpuPeriodMicros: 7 };
  assert.deepEqual(cpus.limits(quota, { podUid: 'one', container: 'c0' }), { cpuShares: 2, cpus: '2-3' });
  assert.deepEqual(cpus.limits(quota, { podUid: 'one', container: 'c1' }), { ...quota, cpus: '0,4-7' });
  const later = open('a');
  assert.deepEqual(later.exclusive('one', 'c0'), [2, 3]);
  assert.equal(later.shared, '0,4-7');
  assert.deepEqual(later.admit(pod('two', ['5'])), {
    reason: 'UnexpectedAdmissionError',
    message:
      'Allocate failed due to not enough cpus available to satisfy request: requested=5, available=4, which is unexpected',
  });
  assert.equal(later.release('one'), true);
  assert.equal(later.release('one'), false);
  assert.equal(later.shared, '0-7');
  assert.deepEqual(later.allocatable, [1, 2, 3, 4, 5, 6, 7]);
});

test('whole cores only, if wished', () => {
  const cpus = open('b', {
    reservedSystemCPUs: '',
    kubeReserved: { cpu: '1500m' },
    cpuManagerPolicyOptions: { 'full-pcpus-only': 'true' },
  });
  assert.deepEqual(cpus.allocatable, [2, 3, 4, 5, 6, 7]);
  assert.equal(cpus.admit(pod('odd', ['3']))?.reason, 'SMTAlignmentError');
  assert.equal(cpus.admit(pod('even', ['2'])), undefined);
  assert.deepEqual(cpus.exclusive('even', 'c0'), [2, 3]);
});

test('what cannot be is refused at the start; without the policy everybody has all', () => {
  assert.throws(() => open('c', { reservedSystemCPUs: '' }), /requires systemReserved.cpu/);
  assert.throws(() => open('c', { reservedSystemCPUs: '9' }), /there is no CPU 9/);
  assert.throws(
    () => open('c', { topologyManagerPolicy: 'restricted' }, { ...topology, numaNodes: 2 }),
    /one NUMA node/,
  );
  open('d').admit(pod('one', ['2']));
  assert.equal(JSON.parse(readFileSync(join(folder, 'd'), 'utf8')).defaultCpuSet, '0-1,4-7');
  const none = open('d', { cpuManagerPolicy: 'none' });
  assert.equal(none.isLeaving, true);
  assert.equal(none.shared, '0-7');
  assert.equal(none.admit(pod('one', ['2'])), undefined);
  assert.equal(existsSync(join(folder, 'd')), false);
  assert.equal(open('d', { cpuManagerPolicy: 'none' }).shared, undefined);
});
