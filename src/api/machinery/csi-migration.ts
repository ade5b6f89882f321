/**
 * In-tree cloud disks, which CSI drivers serve now: volumes, inline volumes and classes as those drivers are to see them, and back, as
 * upstream's csi-translation-lib has it (volume ids, topology keys, access modes, attributes, parameters). Pure: nothing given is changed.
 */

import type {
  CSIPersistentVolumeSource,
  NodeSelectorTerm,
  PersistentVolume,
  PersistentVolumeSpec,
  Volume,
} from '../core/v1.gen.ts';
import type { StorageClass } from '../storage/v1.gen.ts';

const ZONE = 'topology.kubernetes.io/zone';
const REGION = 'topology.kubernetes.io/region';
const BETA_ZONE = 'failure-domain.beta.kubernetes.io/zone';
const BETA_REGION = 'failure-domain.beta.kubernetes.io/region';
/** Between the zones of a regional disk's label. */
const ZONE_SEPARATOR = '__';
const FS_TYPE = 'csi.storage.k8s.io/fstype';

type Csi = CSIPersistentVolumeSource;
/** Fields that a source has in some kind; all of them optional here. */
type Source = Record<string, never> & {
  readonly volumeID?: string;
  readonly fsType?: string;
  readonly readOnly?: boolean;
  readonly partition?: number;
  readonly pdName?: string;
  readonly diskName?: string;
  readonly diskURI?: string;
  readonly cachingMode?: string;
  readonly kind?: string;
  readonly shareName?: string;
  readonly secretName?: string;
  readonly secretNamespace?: string;
  readonly volumePath?: string;
  readonly storagePolicyName?: string;
};

interface Migration {
  readonly plugin: string;
  readonly driver: string;
  /** Field of volumes. */
  readonly source: keyof Volume & keyof PersistentVolumeSpec;
  readonly topologyKey?: string;
  /** The unique part of an inline volume's staging path. */
  readonly diskName: (source: Source) => string;
  readonly toCsi: (
    source: Source,
    of: { readonly volume?: PersistentVolume; readonly name: string; readonly namespace?: string },
  ) => Omit<Csi, 'driver'>;
  readonly toInTree: (csi: Csi) => object;
  readonly inlineMode?: (source: Source) => string;
  readonly modes?: (modes: readonly string[]) => string[];
  /** Parameters of classes; undefined drops one. */
  readonly parameter?: (name: string, value: string) => readonly [string, string] | undefined;
  readonly added?: Readonly<Record<string, string>>;
  /** Classes name zones in parameters. */
  readonly hasZoneParameters?: boolean;
  readonly regionOf?: (zones: readonly string[]) => string;
}

const optional = <T>(name: string, value: T | undefined): Record<string, T> =>
  value === undefined || value === '' ? {} : { [name]: value };
const fsTypeOnly = (name: string, value: string): readonly [string, string] =>
  name.toLowerCase() === 'fstype' ? [FS_TYPE, value] : [name, value];

function ebsVolumeId(id: string): string {
  if (!id.startsWith('aws://')) return id;
  const name = id
    .slice('aws://'.length)
    .replace(/^[^/]*/, '')
    .replace(/^\/+|\/+$/g, '');
  if (!/^vol-[^/]*$/.test(name)) throw new Error(`Invalid format for AWS volume (${id})`);
  return name;
}
function awsRegion(zones: readonly string[]): string {
  return onlyRegion(zones, zone => {
    const parts = zone.split('-');
    if ((parts.length === 3 || parts.length === 4) && parts.at(-1)!.length === 2)
      return [...parts.slice(0, -1), parts.at(-1)![0]!].join('-');
    if (parts.length === 5 || parts.length === 7) return parts.slice(0, 3).join('-');
    throw new Error(`Unexpected zone format: ${zone} is not a valid AWS zone`);
  });
}
function gceRegion(zones: readonly string[]): string {
  return onlyRegion(zones, zone => {
    const parts = zone.split('-');
    if (parts.length !== 3)
      throw new Error(`zone in unexpected format, expected: {locale}-{region}-{zone}, got: ${zone}`);
    return parts.slice(0, 2).join('-');
  });
}
function onlyRegion(zones: readonly string[], regionOf: (zone: string) => string): string {
  const regions = new Set(zones.map(regionOf));
  if (regions.size !== 1) throw new Error(`multiple or no regions gotten from zones, got: ${[...regions].join(', ')}`);
  return [...regions][0]!;
}

/** ReadWriteMany was never checked in-tree and meant ReadWriteOnce. */
function gceModes(modes: readonly string[]): string[] {
  const isWritten = modes.some(mode => mode === 'ReadWriteOnce' || mode === 'ReadWriteMany');
  return [!isWritten && modes.includes('ReadOnlyMany') ? 'ReadOnlyMany' : 'ReadWriteOnce'];
}
function azureDiskAttributes({ cachingMode, fsType, kind }: Source): Record<string, string> {
  return {
    kind: kind ?? 'Managed',
    'csi-migration': 'true',
    ...optional('cachingMode', cachingMode),
    ...(fsType === undefined ? {} : { fsType }),
  };
}
function azureDiskName(uri: string): string {
  const pattern = uri.toLowerCase().startsWith('http')
    ? /http.*:\/\/.*\/vhds\/(.+)/
    : /.*\/subscriptions\/.*\/resourceGroups\/.*\/providers\/Microsoft\.Compute\/disks\/(.+)/;
  const name = pattern.exec(uri)?.[1];
  if (!name) throw new Error(`could not get disk name from ${uri}, correct format: ${pattern.source}`);
  return name;
}
const azureAccount = (secret: string): string => /azure-storage-account-(.+)-secret/.exec(secret)?.[1] ?? secret;

const VSPHERE_PARAMETERS = new Set([
  'datastore',
  'diskformat',
  'hostfailurestotolerate',
  'forceprovisioning',
  'cachereservation',
  'diskstripes',
  'objectspacereservation',
  'iopslimit',
]);

const MIGRATIONS: readonly Migration[] = [
  {
    plugin: 'kubernetes.io/aws-ebs',
    driver: 'ebs.csi.aws.com',
    source: 'awsElasticBlockStore',
    topologyKey: 'topology.ebs.csi.aws.com/zone',
    diskName: ({ volumeID = '' }) => ebsVolumeId(volumeID),
    toCsi: ({ volumeID = '', fsType, readOnly, partition = 0 }) => ({
      volumeHandle: ebsVolumeId(volumeID),
      ...optional('readOnly', readOnly || undefined),
      ...optional('fsType', fsType),
      volumeAttributes: { partition: String(partition) },
    }),
    toInTree: ({ volumeHandle, fsType, readOnly, volumeAttributes }) => ({
      volumeID: volumeHandle,
      ...optional('fsType', fsType),
      ...optional('readOnly', readOnly || undefined),
      ...optional('partition', Number(volumeAttributes?.['partition'] ?? 0) || undefined),
    }),
    parameter: fsTypeOnly,
    hasZoneParameters: true,
    regionOf: awsRegion,
  },
  {
    plugin: 'kubernetes.io/gce-pd',
    driver: 'pd.csi.storage.gke.io',
    source: 'gcePersistentDisk',
    topologyKey: 'topology.gke.io/zone',
    diskName: ({ pdName = '' }) => pdName,
    toCsi: ({ pdName = '', fsType, readOnly, partition }, { volume }) => {
      const label = volume?.metadata.labels?.[BETA_ZONE] || volume?.metadata.labels?.[ZONE] || '';
      const zones = label.split(ZONE_SEPARATOR);
      const place = zones.length > 1 ? `regions/${gceRegion(zones)}` : `zones/${zones[0] || 'UNSPECIFIED'}`;
      return {
        volumeHandle: `projects/UNSPECIFIED/${place}/disks/${pdName}`,
        ...optional('readOnly', readOnly || undefined),
        ...optional('fsType', fsType),
        volumeAttributes: { partition: partition ? String(partition) : '' },
      };
    },
    toInTree: ({ volumeHandle, fsType, readOnly, volumeAttributes }) => {
      const parts = volumeHandle.split('/');
      if (parts.length < 6)
        throw new Error(`failed to get id components. Got: ${volumeHandle}, wanted 6 components or more.`);
      return {
        pdName: parts[5],
        ...optional('fsType', fsType),
        ...optional('readOnly', readOnly || undefined),
        ...optional('partition', Number(volumeAttributes?.['partition'] || 0) || undefined),
      };
    },
    inlineMode: ({ readOnly }) => (readOnly ? 'ReadOnlyMany' : 'ReadWriteOnce'),
    modes: gceModes,
    parameter: fsTypeOnly,
    hasZoneParameters: true,
    regionOf: gceRegion,
  },
  {
    plugin: 'kubernetes.io/azure-disk',
    driver: 'disk.csi.azure.com',
    source: 'azureDisk',
    topologyKey: 'topology.disk.csi.azure.com/zone',
    diskName: ({ diskName = '' }) => diskName,
    toCsi: source => ({
      volumeHandle: source.diskURI ?? '',
      ...optional('readOnly', source.readOnly || undefined),
      ...optional('fsType', source.fsType),
      volumeAttributes: azureDiskAttributes(source),
    }),
    toInTree: ({ volumeHandle, fsType = '', readOnly = false, volumeAttributes: attributes = {} }) => ({
      diskName: azureDiskName(volumeHandle),
      diskURI: volumeHandle,
      fsType: attributes['fsType'] || fsType,
      readOnly,
      kind: attributes['kind'] || 'Managed',
      ...optional('cachingMode', attributes['cachingMode']),
    }),
    added: { 'csi-migration': 'true' },
    hasZoneParameters: true,
  },
  {
    plugin: 'kubernetes.io/azure-file',
    driver: 'file.csi.azure.com',
    source: 'azureFile',
    diskName: ({ shareName = '' }) => shareName,
    toCsi: ({ shareName = '', secretName = '', secretNamespace, readOnly }, { volume, name, namespace }) => {
      // A pod's own is in its namespace, a volume's in that of its claim.
      const from = secretNamespace ?? namespace ?? volume?.spec?.claimRef?.namespace ?? (volume ? '' : 'default');
      if (!from) throw new Error('could not find a secret namespace in PersistentVolumeSource or ClaimRef');
      const group = volume?.metadata.annotations?.['kubernetes.io/azure-file-resource-group'] ?? '';
      return {
        volumeHandle: [group, azureAccount(secretName), shareName, name, from].join('#'),
        ...optional('readOnly', readOnly || undefined),
        volumeAttributes: { sharename: shareName },
        nodeStageSecretRef: { name: secretName, namespace: from },
      };
    },
    toInTree: ({ volumeHandle, readOnly, volumeAttributes: attributes = {}, nodeStageSecretRef: secret }) => {
      const [, account = '', share = ''] = volumeHandle.split('#');
      const named = (name: string) => Object.entries(attributes).find(([key]) => key.toLowerCase() === name)?.[1];
      return {
        shareName: named('sharename') || share,
        secretName: secret?.name || named('secretname') || `azure-storage-account-${account}-secret`,
        secretNamespace: secret?.namespace || named('secretnamespace') || 'default',
        ...optional('readOnly', readOnly || undefined),
      };
    },
    inlineMode: () => 'ReadWriteMany',
  },
  {
    plugin: 'kubernetes.io/cinder',
    driver: 'cinder.csi.openstack.org',
    source: 'cinder',
    topologyKey: 'topology.cinder.csi.openstack.org/zone',
    diskName: ({ volumeID = '' }) => volumeID,
    toCsi: ({ volumeID = '', fsType, readOnly }) => ({
      volumeHandle: volumeID,
      ...optional('readOnly', readOnly || undefined),
      ...optional('fsType', fsType),
      volumeAttributes: {},
    }),
    toInTree: ({ volumeHandle, fsType, readOnly }) => ({
      volumeID: volumeHandle,
      ...optional('fsType', fsType),
      ...optional('readOnly', readOnly || undefined),
    }),
    parameter: fsTypeOnly,
  },
  {
    plugin: 'kubernetes.io/vsphere-volume',
    driver: 'csi.vsphere.vmware.com',
    source: 'vsphereVolume',
    diskName: ({ volumePath = '' }) => volumePath,
    toCsi: ({ volumePath = '', fsType, storagePolicyName }) => ({
      volumeHandle: volumePath,
      ...optional('fsType', fsType),
      volumeAttributes: optional('storagepolicyname', storagePolicyName),
    }),
    toInTree: ({ fsType, volumeAttributes }) => ({
      volumePath: volumeAttributes?.['initialvolumefilepath'] ?? '',
      ...optional('fsType', fsType),
    }),
    parameter: (name, value) => {
      const key = name.toLowerCase();
      if (key === 'fstype') return [FS_TYPE, value];
      if (key === 'storagepolicyname') return [key, value];
      return VSPHERE_PARAMETERS.has(key) ? [`${key}-migrationparam`, value] : undefined;
    },
    added: { csimigration: 'true' },
  },
  {
    plugin: 'kubernetes.io/portworx-volume',
    driver: 'pxd.portworx.com',
    source: 'portworxVolume',
    diskName: ({ volumeID = '' }) => volumeID,
    // As upstream: whether it is read-only is not handed on.
    toCsi: ({ volumeID = '', fsType }) => ({
      volumeHandle: volumeID,
      ...optional('fsType', fsType),
      volumeAttributes: {},
    }),
    toInTree: ({ volumeHandle, fsType, readOnly }) => ({
      volumeID: volumeHandle,
      ...optional('fsType', fsType),
      ...optional('readOnly', readOnly || undefined),
    }),
    inlineMode: ({ readOnly }) => (readOnly ? 'ReadOnlyMany' : 'ReadWriteOnce'),
  },
];

/** Name of the in-tree plugin (also of its provisioner) → its CSI driver. */
export const MIGRATED_DRIVERS: Readonly<Record<string, string>> = Object.fromEntries(
  MIGRATIONS.map(({ plugin, driver }) => [plugin, driver]),
);

/** The CSI driver in whose place the provisioner stands; undefined for any other. */
export function migratedDriver(provisioner: string): string | undefined {
  return MIGRATED_DRIVERS[provisioner];
}

const ofVolume = (spec: object | undefined): Migration | undefined =>
  spec && MIGRATIONS.find(({ source }) => (spec as Record<string, unknown>)[source] !== undefined);

/** The CSI volume in the place of an in-tree one; undefined for any other. Throws for ids that make no sense. */
export function translateVolume(volume: PersistentVolume): PersistentVolume | undefined {
  const migration = ofVolume(volume.spec);
  if (!migration) return undefined;
  const { [migration.source]: source, ...spec } = volume.spec as PersistentVolumeSpec;
  const csi = migration.toCsi(source as Source, { volume, name: volume.metadata.name });
  const topology = migration.topologyKey ? topologyTerms(volume, migration.topologyKey) : undefined;
  return {
    ...volume,
    spec: {
      ...spec,
      ...(migration.modes && spec.accessModes ? { accessModes: migration.modes(spec.accessModes) } : {}),
      ...(topology ? { nodeAffinity: { required: { nodeSelectorTerms: topology } } } : {}),
      csi: { driver: migration.driver, ...csi },
    },
  };
}

/** The persistent CSI volume in the place of a pod's own in-tree one; undefined for any other. */
export function translateInline(volume: Volume, namespace: string): PersistentVolume | undefined {
  const migration = ofVolume(volume);
  if (!migration) return undefined;
  const source = volume[migration.source] as Source;
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name: `${migration.driver}-${migration.diskName(source)}` },
    spec: {
      csi: { driver: migration.driver, ...migration.toCsi(source, { name: volume.name, namespace }) },
      accessModes: [migration.inlineMode?.(source) ?? 'ReadWriteOnce'],
      volumeMode: 'Filesystem',
    },
  };
}

/** The in-tree volume that a class of an in-tree provisioner promises, from what its CSI driver made. */
export function untranslateVolume(volume: PersistentVolume, provisioner: string): PersistentVolume {
  const migration = MIGRATIONS.find(({ plugin }) => plugin === provisioner);
  const { csi, ...spec } = volume.spec ?? {};
  if (!migration || !csi) return volume;
  const key = migration.topologyKey;
  const terms = (spec.nodeAffinity?.required?.nodeSelectorTerms ?? []).map(term => inTreeTerm(term, migration));
  const values = (name: string) =>
    [
      ...new Set(
        terms.flatMap(({ matchExpressions = [] }) =>
          matchExpressions.filter(one => one.key === name).flatMap(one => one.values ?? []),
        ),
      ),
    ].sort();
  const labels = {
    ...(key && values(ZONE).length ? { [ZONE]: values(ZONE).join(ZONE_SEPARATOR) } : {}),
    ...(key && values(REGION).length === 1 ? { [REGION]: values(REGION)[0]! } : {}),
    ...volume.metadata.labels,
  };
  return {
    ...volume,
    metadata: { ...volume.metadata, ...(Object.keys(labels).length ? { labels } : {}) },
    spec: {
      ...spec,
      ...(key && terms.length ? { nodeAffinity: { required: { nodeSelectorTerms: terms } } } : {}),
      [migration.source]: migration.toInTree(csi),
    },
  };
}

function inTreeTerm(term: NodeSelectorTerm, { topologyKey, regionOf }: Migration): NodeSelectorTerm {
  const expressions = (term.matchExpressions ?? []).map(one => (one.key === topologyKey ? { ...one, key: ZONE } : one));
  const zones = expressions.filter(({ key }) => key === ZONE).flatMap(({ values = [] }) => values);
  if (!regionOf || zones.length === 0 || expressions.some(({ key }) => key === REGION))
    return { ...term, matchExpressions: expressions };
  return {
    ...term,
    matchExpressions: [...expressions, { key: REGION, operator: 'In', values: [regionOf(zones)] }],
  };
}

/** Zones of the affinity, or else of the labels, under the driver's own key. Undefined when there is nothing to say. */
function topologyTerms({ metadata, spec }: PersistentVolume, topologyKey: string): NodeSelectorTerm[] | undefined {
  const terms = spec?.nodeAffinity?.required?.nodeSelectorTerms ?? [];
  const has = (key: string) => terms.some(({ matchExpressions = [] }) => matchExpressions.some(one => one.key === key));
  const isBeta = has(ZONE)
    ? false
    : has(BETA_ZONE)
      ? true
      : metadata.labels?.[ZONE] === undefined && metadata.labels?.[BETA_ZONE] !== undefined;
  const [zoneKey, regionKey] = isBeta ? [BETA_ZONE, BETA_REGION] : [ZONE, REGION];
  const renamed = terms.map(term => ({
    ...term,
    matchExpressions: (term.matchExpressions ?? []).map(one =>
      one.key === zoneKey
        ? { ...one, key: topologyKey }
        : one.key === regionKey && isBeta
          ? { ...one, key: REGION }
          : one,
    ),
  }));
  if (has(zoneKey)) return renamed;
  const zones = (metadata.labels?.[zoneKey] ?? '')
    .split(ZONE_SEPARATOR)
    .map(zone => zone.trim())
    .filter(Boolean)
    .sort();
  if (zones.length === 0) return terms.length ? renamed : undefined;
  const added = { key: topologyKey, operator: 'In', values: [...new Set(zones)] };
  return (
    renamed.length ? renamed : [{ matchExpressions: [] as NonNullable<NodeSelectorTerm['matchExpressions']> }]
  ).map(term => ({
    ...term,
    matchExpressions: [...(term.matchExpressions ?? []), added],
  }));
}

/** The class as the CSI driver is to see it; any other stays as it is. */
export function migratedParameters(storageClass: StorageClass): StorageClass {
  const migration = MIGRATIONS.find(({ plugin }) => plugin === storageClass.provisioner);
  if (!migration) return storageClass;
  const { topologyKey, parameter = (name, value) => [name, value] } = migration;
  const parameters: Record<string, string> = {};
  let zones: string[] | undefined;
  for (const [name, value] of Object.entries(storageClass.parameters ?? {})) {
    if (migration.hasZoneParameters && name.toLowerCase() === 'zone') zones = [value];
    else if (migration.hasZoneParameters && name.toLowerCase() === 'zones') zones = value.split(',');
    else {
      const renamed = parameter(name, value);
      if (renamed) parameters[renamed[0]] = renamed[1];
    }
  }
  const allowed = storageClass.allowedTopologies ?? [];
  if (zones && allowed.length)
    throw new Error('cannot simultaneously set allowed topologies and zone/zones parameters');
  const topologies = zones
    ? [{ matchLabelExpressions: [{ key: topologyKey!, values: zones }] }]
    : allowed.map(term => ({
        matchLabelExpressions: (term.matchLabelExpressions ?? []).map(one =>
          topologyKey && (one.key === ZONE || one.key === BETA_ZONE) ? { ...one, key: topologyKey } : one,
        ),
      }));
  return {
    ...storageClass,
    parameters: { ...parameters, ...migration.added },
    ...(topologies.length ? { allowedTopologies: topologies } : {}),
  };
}
