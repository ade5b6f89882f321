/**
 * Pods on a machine whose kernel enforces SELinux: labels of processes and of volumes' files, what a label keeps apart, and volumes that are
 * mounted with a label.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Pod } from '../../src/api/core/v1.gen.ts';
import type { KubeObject } from '../../src/api/meta.ts';
import { systemClock } from '../../src/base/clock.ts';
import { CSI_DRIVERS, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS } from '../../src/client/resources.ts';
import { GrpcClient, type GrpcServer, serveGrpc } from '../../src/csi/grpc.ts';
import { createDriver } from '../../src/localdriver/driver.ts';
import { mountTable } from '../../src/sys/mount.ts';
import { labelOf } from '../../src/sys/selinux.ts';
import { isReady, TestNode } from '../kubelet/node.ts';
import { buildPolicy, selinuxFolder } from './selinux-policy.ts';
import { isInside, runTestsInVirtualMachine } from './virtual-machine.ts';

/** Without hardware help everything there takes its time. */
const WAIT_MS = 90_000;

if (process.getuid?.() !== 0) test('SELinux', { skip: 'needs root' });
else if (isInside) tests();
else
  test('SELinux, on a machine with Debian’s kernel', { timeout: 400_000 }, async () => {
    buildPolicy();
    const { code, output } = await runTestsInVirtualMachine(import.meta.filename, {
      timeoutMs: 380_000,
      kernelArguments: 'security=selinux selinux=1',
    });
    process.stdout.write(output);
    assert.equal(code, 0, output || 'the machine printed nothing');
  });

function enforce(): void {
  execFileSync('mount', ['-t', 'selinuxfs', 'selinuxfs', '/sys/fs/selinux']);
  mkdirSync('/etc/selinux', { recursive: true });
  cpSync(join(selinuxFolder, 'default', 'contexts'), '/etc/selinux/default/contexts', { recursive: true });
  writeFileSync('/etc/selinux/config', 'SELINUX=enforcing\nSELINUXTYPE=default\n');
  // One write: the kernel takes a policy whole or not at all.
  writeFileSync('/sys/fs/selinux/load', readFileSync(buildPolicy()));
  writeFileSync('/sys/fs/selinux/enforce', '1');
}

function tests(): void {
  test('labels of processes and files, and volumes mounted with a label', { timeout: 360_000 }, async t => {
    // A container's layers cannot lie on the overlay that is the machine's root.
    execFileSync('mount', ['-t', 'tmpfs', 'scratch', '/var/tmp']);
    mkdirSync('/var/tmp/of-the-machine');
    writeFileSync('/var/tmp/of-the-machine/file', 'secret');
    for (const module of ['loop', 'ext4']) execFileSync('modprobe', [module]);
    enforce();
    const node = new TestNode({ isolated: true });
    const open: GrpcServer[] = [];
    // What failed is told at once: the machine may not live to the end of the report.
    const step = (name: string, run: () => Promise<void>) =>
      t.test(name, () =>
        run().catch(error => {
          console.log(error);
          console.log(
            execFileSync(
              'sh',
              [
                '-c',
                `dmesg | grep denied | grep container_t | tail -40; dmesg | grep -c denied; find ${node.root} /var/log/pods -name '*.log' -size -20k | xargs tail -n 20; head -c 600 /sys/fs/selinux/status`,
              ],
              { encoding: 'latin1' },
            ),
          );
          throw error;
        }),
      );
    const folderOf = (pod: Pod, kind: string, volume: string) =>
      join(node.root, 'lib/pods', pod.metadata.uid!, 'volumes', kind, volume);
    const textOf = (folder: string, file: string) => readFileSync(join(folder, file), 'latin1').replace(/[\0\n]+$/, '');
    const running = { image: 'busybox:1', command: ['sleep', '100000'] };
    const remove = async (name: string) => {
      await node.api.delete({ of: PODS, namespace: 'default', name });
      await node.untilGone(name, WAIT_MS);
    };
    try {
      await node.start();
      await step('processes and files', async () => {
        const look = (name: string, level?: string) => ({
          ...running,
          name,
          ...(level ? { securityContext: { seLinuxOptions: { level } } } : {}),
          volumeMounts: [
            { name: 'shared', mountPath: '/shared' },
            { name: 'facts', mountPath: '/facts' },
            { name: 'machine', mountPath: '/machine' },
          ],
          command: [
            'sh',
            '-c',
            `cat /proc/self/attr/current >/shared/label-${name}
{ cat /machine/file; cat /facts/name; echo; touch /dev/shm/${name} /etc/hosts && echo wrote; } >/shared/says-${name} 2>&1
exec sleep 100000`,
          ],
          // A process that joins the container has its label too.
          readinessProbe: {
            exec: { command: ['sh', '-c', `[ "$(cat /proc/self/attr/current)" = "$(cat /shared/label-${name})" ]`] },
            timeoutSeconds: 30,
            periodSeconds: 1,
          },
        });
        const volumes = [
          { name: 'shared', emptyDir: {} },
          { name: 'facts', downwardAPI: { items: [{ path: 'name', fieldRef: { fieldPath: 'metadata.name' } }] } },
          { name: 'machine', hostPath: { path: '/var/tmp/of-the-machine' } },
        ];
        await node.create('any', { volumes, containers: [look('a'), look('b')] });
        const any = await node.until('any', isReady, WAIT_MS);
        const folder = folderOf(any, 'kubernetes.io~empty-dir', 'shared');
        const label = textOf(folder, 'label-a');
        assert.match(label, /^system_u:system_r:container_t:s0:c\d+,c\d+$/);
        assert.equal(textOf(folder, 'label-b'), label, 'containers of a pod share their categories');
        const level = label.split(':').slice(3).join(':');
        assert.equal(labelOf(folder), `system_u:object_r:container_file_t:${level}`);
        assert.match(textOf(folder, 'says-a'), /\/machine\/file.*: Permission denied\nany\nwrote$/);
        assert.notEqual(labelOf('/var/tmp/of-the-machine/file')?.split(':')[2], 'container_file_t');

        // What another pod may not see, although it has the folder.
        await node.create('chosen', {
          securityContext: { seLinuxOptions: { level: 's0:c5,c6' } },
          volumes: [
            { name: 'others', hostPath: { path: folder } },
            { name: 'own', emptyDir: {} },
          ],
          containers: [
            {
              ...running,
              name: 'c',
              volumeMounts: [
                { name: 'others', mountPath: '/others' },
                { name: 'own', mountPath: '/own' },
              ],
              command: [
                'sh',
                '-c',
                'cat /proc/self/attr/current >/own/label; cat /others/says-a >/own/says 2>&1; sleep 100000',
              ],
              readinessProbe: { exec: { command: ['test', '-e', '/own/says'] }, timeoutSeconds: 30, periodSeconds: 1 },
            },
            { ...running, name: 'other', securityContext: { seLinuxOptions: { level: 's0:c7,c8' } } },
            { ...running, name: 'free', securityContext: { privileged: true } },
          ],
        });
        const chosen = await node.until('chosen', isReady, WAIT_MS);
        const own = folderOf(chosen, 'kubernetes.io~empty-dir', 'own');
        assert.equal(textOf(own, 'label'), 'system_u:system_r:container_t:s0:c5,c6');
        assert.match(textOf(own, 'says'), /Permission denied/);
        const labels = new Set(processLabels());
        assert.ok(labels.has('system_u:system_r:container_t:s0:c7,c8'), [...labels].join());
        await remove('any');
        await remove('chosen');

        await node.create('unknown', {
          containers: [{ ...running, name: 'c', securityContext: { seLinuxOptions: { type: 'no_such_t' } } }],
        });
        await node.untilEvents(
          'unknown',
          events => events.some(event => /does not know the label.*no_such_t/.test(event)),
          WAIT_MS,
        );
        await remove('unknown');
      });

      await step('a CSI volume is mounted with the label, one pod after the other', async () => {
        const driver = 'disks.test';
        await node.put(CSI_DRIVERS, {
          apiVersion: 'storage.k8s.io/v1',
          kind: 'CSIDriver',
          metadata: { name: driver },
          spec: { attachRequired: false, seLinuxMount: true, fsGroupPolicy: 'File' },
        });
        const { disk, servers } = await serveDisks(driver, node.root);
        open.push(...servers);
        const claim = await boundClaim(node, driver, disk);
        const pod = (level: string, policy?: string) => ({
          securityContext: { seLinuxOptions: { level }, ...(policy ? { seLinuxChangePolicy: policy } : {}) },
          volumes: [{ name: 'disk', persistentVolumeClaim: { claimName: claim } }],
          containers: [
            {
              ...running,
              name: 'c',
              volumeMounts: [{ name: 'disk', mountPath: '/disk' }],
              command: ['sh', '-c', 'echo x >>/disk/file && sleep 100000'],
              readinessProbe: { exec: { command: ['test', '-s', '/disk/file'] }, timeoutSeconds: 30, periodSeconds: 1 },
            },
          ],
        });
        const mountOf = (of: Pod) => {
          const path = join(folderOf(of, 'kubernetes.io~csi', claim), 'mount');
          return { path, options: mountTable().find(({ mountPoint }) => mountPoint === path)!.superOptions };
        };
        await node.create('first', pod('s0:c10,c20'));
        const first = mountOf(await node.until('first', isReady, WAIT_MS));
        assert.match(first.options, /context="?system_u:object_r:container_file_t:s0:c10,c20/);
        assert.equal(labelOf(`${first.path}/file`), 'system_u:object_r:container_file_t:s0:c10,c20');

        await node.create('second', pod('s0:c30,c40'));
        await node.untilEvents(
          'second',
          events =>
            events.some(event =>
              event.includes(
                `waiting for unmount of volume "${claim}", because it is already mounted to a different pod with a different SELinux label`,
              ),
            ),
          WAIT_MS,
        );
        await remove('first');
        const second = mountOf(await node.until('second', isReady, WAIT_MS));
        assert.equal(labelOf(`${second.path}/file`), 'system_u:object_r:container_file_t:s0:c30,c40');
        await remove('second');

        await node.create('third', pod('s0:c50,c60', 'Recursive'));
        const third = mountOf(await node.until('third', isReady, WAIT_MS));
        assert.doesNotMatch(third.options, /[^s]context=/);
        assert.equal(labelOf(`${third.path}/file`), 'system_u:object_r:container_file_t:s0:c50,c60', 'file by file');
        await remove('third');
      });
    } catch (error) {
      process.stdout.write(
        execFileSync('sh', ['-c', 'dmesg | grep denied | grep -v scontext=system_u:system_r:kernel_t | tail -40'], {
          encoding: 'utf8',
        }),
      );
      throw error;
    } finally {
      for (const server of open) await server.close();
      await node.close();
    }
  });
}

function processLabels(): string[] {
  return readdirSync('/proc').flatMap(pid => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      return [readFileSync(`/proc/${pid}/attr/current`, 'latin1').replace(/[\0\n]+$/, '')];
    } catch {
      return [];
    }
  });
}

/** A driver on the node, and a disk of its own; the disk's handle. */
async function serveDisks(name: string, root: string): Promise<{ disk: string; servers: readonly GrpcServer[] }> {
  const rootDir = join(root, 'lib');
  const socket = join(rootDir, 'plugins', name, 'csi.sock');
  for (const folder of [join(socket, '..'), join(rootDir, 'plugins_registry')]) mkdirSync(folder, { recursive: true });
  const ofNode = { nodeName: 'node-1', nodeId: 'node-1', topology: {} };
  const driver = await serveGrpc(
    socket,
    createDriver({ ...ofNode, name, version: '1', folder: join(root, 'disks'), attaches: false, clock: systemClock }),
  );
  const registration = await serveGrpc(join(rootDir, 'plugins_registry', `${name}-reg.sock`), {
    registrationInfo: () => ({ type: 'CSIPlugin', name, endpoint: socket, supportedVersions: ['1.0.0'] }),
    registrationStatus: () => ({}),
  });
  const client = new GrpcClient(socket);
  const capability = { mount: { fsType: 'ext4', mountFlags: [], volumeMountGroup: '' }, accessMode: { mode: 1 } };
  const { volume } = await client.call('createVolume', {
    name: 'disk',
    capacityRange: { requiredBytes: 32 << 20, limitBytes: 0 },
    volumeCapabilities: [capability],
    parameters: {},
    mutableParameters: {},
    secrets: {},
  });
  client.close();
  return { disk: volume!.volumeId!, servers: [driver, registration] };
}

/** A claim and its volume, bound as the controller would; their name. */
async function boundClaim(node: TestNode, driver: string, volumeHandle: string): Promise<string> {
  const name = 'labelled';
  const spec = { accessModes: ['ReadWriteOncePod'], storageClassName: '', volumeName: name };
  const claim = await node.api.create({ of: PERSISTENT_VOLUME_CLAIMS, namespace: 'default' }, {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: { name, namespace: 'default' },
    spec: { ...spec, resources: { requests: { storage: '32Mi' } } },
  } as KubeObject);
  await node.put(PERSISTENT_VOLUMES, {
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name },
    spec: {
      accessModes: spec.accessModes,
      capacity: { storage: '32Mi' },
      csi: { driver, volumeHandle, fsType: 'ext4' },
      claimRef: {
        apiVersion: 'v1',
        kind: 'PersistentVolumeClaim',
        name,
        namespace: 'default',
        uid: claim.metadata.uid,
      },
    },
  });
  const status = { phase: 'Bound', accessModes: spec.accessModes, capacity: { storage: '32Mi' } };
  const target = { of: PERSISTENT_VOLUME_CLAIMS, namespace: 'default', name, subresource: 'status' };
  await node.api.update(target, { ...claim, status } as KubeObject);
  return name;
}
