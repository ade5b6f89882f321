import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { CgroupTree } from './cgroup.ts';
import type { MountEntry } from './mount.ts';

const folder = mkdtempSync(join(tmpdir(), 'cox-cgroup-'));
after(() => rmSync(folder, { recursive: true }));

const mounted = (name: string, fsType: string, superOptions = ''): MountEntry => {
  mkdirSync(join(folder, name));
  return { device: '0:1', source: 'cgroup', mountPoint: join(folder, name), fsType, root: '/', superOptions };
};
const limit = { hugePageBytesMax: { '1GB': 0, '2MB': 4 << 20 } };

test('huge pages are limited under either version, where the kernel has that controller', () => {
  const old = new CgroupTree([mounted('memory', 'cgroup', 'rw,memory'), mounted('huge', 'cgroup', 'rw,hugetlb')]);
  assert.equal(old.limitsHugePages, true);
  old.create('/pod', limit);
  const read = (path: string) => readFileSync(join(folder, path), 'utf8');
  assert.equal(read('huge/pod/hugetlb.2MB.limit_in_bytes'), String(4 << 20));
  assert.equal(read('huge/pod/hugetlb.1GB.limit_in_bytes'), '0');

  const without = new CgroupTree([mounted('memory2', 'cgroup', 'rw,memory')]);
  assert.equal(without.limitsHugePages, false);
  without.create('/pod', limit);

  const unified = new CgroupTree([mounted('unified', 'cgroup2')]);
  writeFileSync(join(folder, 'unified/cgroup.controllers'), 'cpu memory pids');
  assert.equal(unified.limitsHugePages, false);
  writeFileSync(join(folder, 'unified/cgroup.controllers'), 'cpu memory hugetlb pids');
  assert.equal(unified.limitsHugePages, true);
  unified.create('/pod', limit);
  assert.equal(read('unified/pod/hugetlb.2MB.max'), String(4 << 20));
});

test('pressure is what version 2 tells, where the kernel does', () => {
  const tree = new CgroupTree([mounted('pressed', 'cgroup2')]);
  mkdirSync(join(folder, 'pressed/pod'));
  assert.equal(tree.pressure('/pod'), undefined);
  const line = (avg10: string, total: number) => `avg10=${avg10} avg60=1.50 avg300=0.25 total=${total}`;
  writeFileSync(join(folder, 'pressed/pod/memory.pressure'), `some ${line('2.00', 70)}\nfull ${line('1.00', 40)}\n`);
  assert.deepEqual(tree.pressure('/pod'), {
    memory: {
      some: { avg10: 2, avg60: 1.5, avg300: 0.25, totalMicros: 70 },
      full: { avg10: 1, avg60: 1.5, avg300: 0.25, totalMicros: 40 },
    },
  });
});
