import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod, SecurityContext } from '../api/core/v1.gen.ts';
import { seededRandom } from '../base/random.ts';
import { defaultLabels, freeLevel, labelOfVolume, labelsFor, optionsOf } from './selinux.ts';

const DEFAULTS = {
  process: 'system_u:system_r:container_t:s0',
  file: 'system_u:object_r:container_file_t:s0',
  layer: 'system_u:object_r:container_ro_file_t:s0',
};

test('defaults come from the files of other container tools, first of all from their own', () => {
  assert.deepEqual(
    defaultLabels(() => undefined),
    DEFAULTS,
  );
  const files: Record<string, string> = {
    '/etc/selinux/config': '# a comment\nSELINUX=enforcing\nSELINUXTYPE=default\n',
    '/etc/selinux/default/contexts/lxc_contexts':
      'process = "system_u:system_r:svirt_lxc_net_t:s0"\ncontent = "system_u:object_r:virt_var_lib_t:s0"\nfile = "system_u:object_r:svirt_sandbox_file_t:s0"\n',
  };
  assert.deepEqual(
    defaultLabels(path => files[path]),
    {
      process: 'system_u:system_r:svirt_lxc_net_t:s0',
      file: 'system_u:object_r:svirt_sandbox_file_t:s0',
      layer: 'system_u:object_r:svirt_sandbox_file_t:s0',
    },
  );
  files['/usr/share/containers/selinux/contexts'] = 'process=system_u:system_r:own_t:s0\nro_file = "x"\n';
  assert.deepEqual(
    defaultLabels(path => files[path]),
    { process: 'system_u:system_r:own_t:s0', file: DEFAULTS.file, layer: 'x' },
  );
});

test('options change the process; user and level its files too', () => {
  assert.deepEqual(labelsFor(undefined, 's0:c1,c2', DEFAULTS), {
    process: 'system_u:system_r:container_t:s0:c1,c2',
    file: 'system_u:object_r:container_file_t:s0:c1,c2',
  });
  const options = { user: 'staff_u', role: 'staff_r', type: 'spc_t', level: 's0-s0:c0.c1023' };
  assert.deepEqual(labelsFor(options, 's0:c1,c2', DEFAULTS), {
    process: 'staff_u:staff_r:spc_t:s0-s0:c0.c1023',
    file: 'staff_u:object_r:container_file_t:s0-s0:c0.c1023',
  });
  assert.equal(
    labelsFor({}, 's0:c1,c2', { process: 'u:r:t', file: 'u:o:f', layer: '' }).process,
    'u:r:t',
    'no levels, no level',
  );
});

test('every pod has two categories of its own, the smaller first', () => {
  const random = seededRandom(1);
  const taken = new Set<string>();
  for (let i = 0; i < 2000; i++) {
    const level = freeLevel(taken, random);
    const [, a, b] = /^s0:c(\d+),c(\d+)$/.exec(level)!;
    assert.ok(Number(a) < Number(b) && Number(b) < 1024, level);
    assert.ok(!taken.has(level));
    taken.add(level);
  }
});

const container = (name: string, securityContext: SecurityContext, volume = 'v') => ({
  name,
  image: 'i',
  securityContext,
  volumeMounts: [{ name: volume, mountPath: '/v' }],
});
const podOf = (containers: ReturnType<typeof container>[], level?: string) =>
  ({
    metadata: { name: 'p' },
    spec: { containers, ...(level ? { securityContext: { seLinuxOptions: { level } } } : {}) },
  }) as Pod;

test("a container's options take the place of the pod's as a whole", () => {
  const [plain, own, empty] = [
    container('a', {}),
    container('b', { seLinuxOptions: { type: 't' } }),
    container('c', { seLinuxOptions: {} }),
  ];
  const pod = podOf([plain, own, empty], 's0:c1,c2');
  assert.deepEqual(optionsOf(pod, plain), { level: 's0:c1,c2' });
  assert.deepEqual(optionsOf(pod, own), { type: 't' });
  assert.equal(optionsOf(pod, empty), undefined);
});

test('a volume has the label of all containers that use it, or there is none', () => {
  const label = 'system_u:object_r:container_file_t:s0:c1,c2';
  const other = container('o', { seLinuxOptions: { level: 's0:c3,c4' } }, 'another');
  assert.equal(labelOfVolume(podOf([container('a', {}), other], 's0:c1,c2'), 'v', DEFAULTS), label);
  assert.equal(labelOfVolume(podOf([container('a', {})]), 'v', DEFAULTS), '', 'the runtime chooses later');
  assert.throws(
    () =>
      labelOfVolume(
        podOf([container('a', {}), { ...other, volumeMounts: [{ name: 'v', mountPath: '/v' }] }], 's0:c1,c2'),
        'v',
        DEFAULTS,
      ),
    /multiple SELinux labels found: system_u:object_r:container_file_t:s0:c1,c2,system_u:object_r:container_file_t:s0:c3,c4/,
  );
  assert.throws(
    () => labelOfVolume(podOf([container('a', {}), container('b', { privileged: true })], 's0:c1,c2'), 'v', DEFAULTS),
    /multiple SELinux labels/,
  );
});
