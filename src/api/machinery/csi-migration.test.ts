import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PersistentVolume } from '../core/v1.gen.ts';
import type { StorageClass } from '../storage/v1.gen.ts';
import { migratedParameters, translateInline, translateVolume, untranslateVolume } from './csi-migration.ts';

const volume = (spec: object, metadata: object = {}): PersistentVolume => ({
  apiVersion: 'v1',
  kind: 'PersistentVolume',
  metadata: { name: 'pv', ...metadata },
  spec: { accessModes: ['ReadWriteOnce'], ...spec },
});
const csi = (spec: object, metadata?: object) => translateVolume(volume(spec, metadata))?.spec?.csi;
const storageClass = (provisioner: string, parameters: Record<string, string>, extra: object = {}): StorageClass => ({
  apiVersion: 'storage.k8s.io/v1',
  kind: 'StorageClass',
  metadata: { name: 'c' },
  provisioner,
  parameters,
  ...extra,
});
const zones = (key: string, ...values: string[]) => ({
  nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions: [{ key, operator: 'In', values }] }] } },
});

test('volume ids and attributes', () => {
  assert.deepEqual(
    csi({ awsElasticBlockStore: { volumeID: 'aws://us-east-1a/vol-0a', fsType: 'xfs', partition: 1 } }),
    {
      driver: 'ebs.csi.aws.com',
      volumeHandle: 'vol-0a',
      fsType: 'xfs',
      volumeAttributes: { partition: '1' },
    },
  );
  assert.equal(csi({ awsElasticBlockStore: { volumeID: 'aws:///vol-0b' } })?.volumeHandle, 'vol-0b');
  assert.throws(() => csi({ awsElasticBlockStore: { volumeID: 'aws://zone/other' } }), /Invalid format for AWS volume/);
  assert.equal(
    csi({ gcePersistentDisk: { pdName: 'd' } })?.volumeHandle,
    'projects/UNSPECIFIED/zones/UNSPECIFIED/disks/d',
  );
  assert.equal(
    csi({ gcePersistentDisk: { pdName: 'd' } }, { labels: { 'topology.kubernetes.io/zone': 'us-central1-a' } })
      ?.volumeHandle,
    'projects/UNSPECIFIED/zones/us-central1-a/disks/d',
  );
  assert.equal(
    csi(
      { gcePersistentDisk: { pdName: 'd' } },
      { labels: { 'failure-domain.beta.kubernetes.io/zone': 'us-central1-a__us-central1-b' } },
    )?.volumeHandle,
    'projects/UNSPECIFIED/regions/us-central1/disks/d',
  );
  assert.deepEqual(
    csi({
      azureDisk: {
        diskName: 'n',
        diskURI: '/subscriptions/s',
        cachingMode: 'None',
        fsType: 'ext4',
        kind: 'Managed',
        readOnly: false,
      },
    }),
    {
      driver: 'disk.csi.azure.com',
      volumeHandle: '/subscriptions/s',
      fsType: 'ext4',
      volumeAttributes: { kind: 'Managed', 'csi-migration': 'true', cachingMode: 'None', fsType: 'ext4' },
    },
  );
  assert.deepEqual(
    csi({ azureFile: { shareName: 'sh', secretName: 'azure-storage-account-acc-secret', secretNamespace: 'ns' } }),
    {
      driver: 'file.csi.azure.com',
      volumeHandle: '#acc#sh#pv#ns',
      volumeAttributes: { sharename: 'sh' },
      nodeStageSecretRef: { name: 'azure-storage-account-acc-secret', namespace: 'ns' },
    },
  );
  // Without a namespace of its own the secret is the claim's.
  const share = { shareName: 'sh', secretName: 'azure-storage-account-acc-secret' };
  const ofClaim = csi({ azureFile: share, claimRef: { namespace: 'of-claim', name: 'c' } });
  assert.equal(ofClaim?.volumeHandle, '#acc#sh#pv#of-claim');
  assert.equal(ofClaim?.nodeStageSecretRef?.namespace, 'of-claim');
  assert.throws(() => csi({ azureFile: share }), /could not find a secret namespace/);
  assert.equal(csi({ cinder: { volumeID: 'c' } })?.volumeHandle, 'c');
  assert.deepEqual(csi({ vsphereVolume: { volumePath: '[ds] a/b.vmdk', storagePolicyName: 'gold' } }), {
    driver: 'csi.vsphere.vmware.com',
    volumeHandle: '[ds] a/b.vmdk',
    volumeAttributes: { storagepolicyname: 'gold' },
  });
  assert.deepEqual(csi({ portworxVolume: { volumeID: 'p', fsType: 'xfs', readOnly: true } }), {
    driver: 'pxd.portworx.com',
    volumeHandle: 'p',
    fsType: 'xfs',
    volumeAttributes: {},
  });
  assert.equal(translateVolume(volume({ hostPath: { path: '/x' } })), undefined);
});

test('access modes of Google’s disks', () => {
  const modes = (...accessModes: string[]) =>
    translateVolume(volume({ gcePersistentDisk: { pdName: 'd' }, accessModes }))?.spec?.accessModes;
  assert.deepEqual(modes('ReadWriteMany'), ['ReadWriteOnce']);
  assert.deepEqual(modes('ReadOnlyMany', 'ReadWriteOnce'), ['ReadWriteOnce']);
  assert.deepEqual(modes('ReadOnlyMany'), ['ReadOnlyMany']);
});

test('topology there and back', () => {
  const key = 'topology.ebs.csi.aws.com/zone';
  const source = { awsElasticBlockStore: { volumeID: 'vol-1' } };
  const terms = (one: PersistentVolume | undefined) => one?.spec?.nodeAffinity?.required?.nodeSelectorTerms;
  const fromLabel = translateVolume(
    volume(source, { labels: { 'topology.kubernetes.io/zone': 'us-west-2b__us-west-2a' } }),
  );
  assert.deepEqual(terms(fromLabel), [
    { matchExpressions: [{ key, operator: 'In', values: ['us-west-2a', 'us-west-2b'] }] },
  ]);
  const fromAffinity = translateVolume(
    volume({ ...source, ...zones('failure-domain.beta.kubernetes.io/zone', 'us-west-2a') }),
  );
  assert.deepEqual(terms(fromAffinity), [{ matchExpressions: [{ key, operator: 'In', values: ['us-west-2a'] }] }]);
  const made = volume({
    csi: { driver: 'ebs.csi.aws.com', volumeHandle: 'vol-1', fsType: 'ext4' },
    ...zones(key, 'us-west-2a'),
  });
  const back = untranslateVolume(made, 'kubernetes.io/aws-ebs');
  assert.deepEqual(back.spec?.awsElasticBlockStore, { volumeID: 'vol-1', fsType: 'ext4' });
  assert.equal(back.spec?.csi, undefined);
  assert.deepEqual(back.metadata.labels, {
    'topology.kubernetes.io/zone': 'us-west-2a',
    'topology.kubernetes.io/region': 'us-west-2',
  });
  assert.deepEqual(terms(back), [
    {
      matchExpressions: [
        { key: 'topology.kubernetes.io/zone', operator: 'In', values: ['us-west-2a'] },
        { key: 'topology.kubernetes.io/region', operator: 'In', values: ['us-west-2'] },
      ],
    },
  ]);
});

test('classes', () => {
  const ebs = migratedParameters(storageClass('kubernetes.io/aws-ebs', { fsType: 'xfs', zones: 'a,b', type: 'gp3' }));
  assert.deepEqual(ebs.parameters, { 'csi.storage.k8s.io/fstype': 'xfs', type: 'gp3' });
  assert.deepEqual(ebs.allowedTopologies, [
    { matchLabelExpressions: [{ key: 'topology.ebs.csi.aws.com/zone', values: ['a', 'b'] }] },
  ]);
  assert.throws(
    () =>
      migratedParameters(
        storageClass('kubernetes.io/gce-pd', { zone: 'a' }, { allowedTopologies: [{ matchLabelExpressions: [] }] }),
      ),
    /cannot simultaneously set/,
  );
  assert.deepEqual(
    migratedParameters(storageClass('kubernetes.io/azure-disk', { skuname: 'x', fsType: 'xfs' })).parameters,
    {
      skuname: 'x',
      fsType: 'xfs',
      'csi-migration': 'true',
    },
  );
  assert.deepEqual(
    migratedParameters(
      storageClass('kubernetes.io/vsphere-volume', { diskformat: 'thin', storagePolicyName: 'p', unknown: 'x' }),
    ).parameters,
    { 'diskformat-migrationparam': 'thin', storagepolicyname: 'p', csimigration: 'true' },
  );
  const other = storageClass('example.com/x', { fsType: 'a' });
  assert.equal(migratedParameters(other), other);
});

test('disks in pods', () => {
  const inline = translateInline({ name: 'v', gcePersistentDisk: { pdName: 'd', readOnly: true } }, 'ns');
  assert.equal(inline?.metadata.name, 'pd.csi.storage.gke.io-d');
  assert.deepEqual(inline?.spec?.accessModes, ['ReadOnlyMany']);
  assert.equal(
    translateInline({ name: 'v', azureFile: { secretName: 's', shareName: 'sh' } }, 'ns')?.spec?.csi?.nodeStageSecretRef
      ?.namespace,
    'ns',
  );
  const portworx = translateInline({ name: 'v', portworxVolume: { volumeID: 'p', readOnly: true } }, 'ns');
  assert.equal(portworx?.metadata.name, 'pxd.portworx.com-p');
  assert.deepEqual(portworx?.spec?.accessModes, ['ReadOnlyMany']);
  assert.equal(translateInline({ name: 'v', emptyDir: {} }, 'ns'), undefined);
});
