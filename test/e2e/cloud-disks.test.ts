/**
 * Disks that clouds had before the cluster came, by the names that the API has had for them since before CSI: each goes to the driver of its
 * cloud, under the id that driver knows. It runs alone: an example shows what is said where there is no such driver.
 */

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after } from 'node:test';
import { Disks } from '../../src/localdriver/disks.ts';
import { claim, user } from './claims.ts';
import { Cloud } from './cloud.ts';
import { it, type Json, useCluster, useNamespace } from './cluster.ts';
import { eventually } from './process.ts';

const cluster = useCluster();
const ns = useNamespace(cluster, 'cloud-disks');
const NODE = 'node-1';
const ZONE = 'us-test-1a';
const URI = '/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/d';

interface Case {
  readonly driver: string;
  readonly topologyKey: string;
  /** In the persistent volume, or in the pod. */
  readonly source: object;
  readonly isInline?: boolean;
  /** The volume says by its zone where the pod has to go. */
  readonly isOfZone?: boolean;
  /** By which the driver knows the disk. */
  readonly id: string;
}
const CASES: Readonly<Record<string, Case>> = {
  aws: {
    driver: 'ebs.csi.aws.com',
    topologyKey: 'topology.ebs.csi.aws.com/zone',
    source: { awsElasticBlockStore: { volumeID: `aws://${ZONE}/vol-1`, fsType: 'ext4' } },
    isOfZone: true,
    id: 'vol-1',
  },
  gce: {
    driver: 'pd.csi.storage.gke.io',
    topologyKey: 'topology.gke.io/zone',
    source: { gcePersistentDisk: { pdName: 'disk', fsType: 'ext4' } },
    isOfZone: true,
    id: `projects/UNSPECIFIED/zones/${ZONE}/disks/disk`,
  },
  'azure-disk': {
    driver: 'disk.csi.azure.com',
    topologyKey: 'topology.disk.csi.azure.com/zone',
    source: { azureDisk: { diskName: 'd', diskURI: URI, fsType: 'ext4', kind: 'Managed' } },
    isInline: true,
    id: URI,
  },
  'azure-file': {
    driver: 'file.csi.azure.com',
    topologyKey: 'topology.file.csi.azure.com/zone',
    source: { azureFile: { shareName: 'share', secretName: 'azure-storage-account-acc-secret', secretNamespace: ns } },
    id: `#acc#share#azure-file#${ns}`,
  },
  cinder: {
    driver: 'cinder.csi.openstack.org',
    topologyKey: 'topology.cinder.csi.openstack.org/zone',
    source: { cinder: { volumeID: 'b4d0e0b4', fsType: 'ext4' } },
    isInline: true,
    id: 'b4d0e0b4',
  },
  vsphere: {
    driver: 'csi.vsphere.vmware.com',
    topologyKey: 'topology.csi.vmware.com/zone',
    source: { vsphereVolume: { volumePath: '[store] folder/disk.vmdk', fsType: 'ext4' } },
    id: '[store] folder/disk.vmdk',
  },
};
const clouds = new Map(Object.entries(CASES).map(([name, one]) => [name, new Cloud(cluster, one)]));
after(() => Promise.all([...clouds.values()].map(cloud => cloud.end())));

const attachments = async (driver: string): Promise<Json[]> =>
  (await cluster.json('get', 'volumeattachment')).items.filter((one: Json) => one.spec.attacher === driver);

it(
  'each goes to its driver: attached, mounted, written, detached',
  cluster,
  async () => {
    await cluster.apply(ns, [
      {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name: 'azure-storage-account-acc-secret' },
        stringData: { a: 'b' },
      },
    ]);
    const [first, ...others] = clouds.values();
    await first!.start(NODE, true, others);
    const ends = await Promise.allSettled(
      Object.entries(CASES).map(async ([name, { driver, source, isInline, isOfZone, id }]) => {
        const cloud = clouds.get(name)!;
        const disks = new Disks(join(cloud.folder, 'volumes'));
        await disks.create({ id, bytes: 16 << 20, isThin: true, fsType: 'ext4', parameters: {} });
        const script = 'echo written > /data/file; sync; cat /data/file';
        if (isInline)
          await cluster.apply(ns, [
            user(name, '', { script, spec: { nodeName: NODE, volumes: [{ name: 'data', ...source }] } }),
          ]);
        else
          await cluster.apply(ns, [
            {
              apiVersion: 'v1',
              kind: 'PersistentVolume',
              metadata: {
                name,
                labels: { 'topology.kubernetes.io/zone': ZONE, 'topology.kubernetes.io/region': 'us-test-1' },
              },
              spec: {
                capacity: { storage: '16Mi' },
                accessModes: ['ReadWriteOnce'],
                persistentVolumeReclaimPolicy: 'Retain',
                storageClassName: 'of-clouds',
                ...source,
              },
            },
            claim(name, '16Mi', { storageClassName: 'of-clouds', volumeName: name }),
            user(name, name, { script, spec: isOfZone ? {} : { nodeName: NODE } }),
          ]);
        const { spec } = await cluster.readyPod(ns, name, 90_000);
        assert.equal(spec.nodeName, NODE, `${name}: where its disk is`);
        await eventually(`${name} wrote`, async () =>
          (await cluster.tryKubectl('-n', ns, 'logs', name)).stdout.includes('written'),
        );
        const attached = await attachments(driver);
        assert.deepEqual(
          attached.map(one => [one.spec.nodeName, one.status.attached]),
          [[NODE, true]],
        );
        assert.deepEqual(disks.must(id).nodes, [`i-${NODE}`]);
        await cluster.kubectl('-n', ns, 'delete', 'pod', name, '--wait=false');
        await eventually(`${name} detached`, async () => (await attachments(driver)).length === 0, {
          timeoutMs: 90_000,
        });
        assert.deepEqual(disks.must(id).nodes ?? [], []);
        if (!isInline) await cluster.kubectl('-n', ns, 'delete', `pvc/${name}`, `pv/${name}`, '--wait=false');
      }),
    );
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  },
  { timeoutMs: 240_000 },
);
