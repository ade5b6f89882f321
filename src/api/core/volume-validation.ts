/**
 * Validation of volumes: the volumes of a pod and the sources they share with persistent volumes. One entry of the table
 * for each source; its order is the order of upstream's findings.
 */

import { fieldErrors } from '../../base/errors.ts';
import { checkSignerName, trustBundleNameProblems } from '../certificates/signer-name.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import { validateTemplateMeta } from '../machinery/metadata.ts';
import { dnsLabelProblems, dnsSubdomainProblems, rangeProblem } from '../machinery/names.ts';
import { modernFieldPath } from '../machinery/pod.ts';
import { canonicalQuantity, parseNano } from '../machinery/quantity.ts';
import {
  addDuplicate,
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkLabelSelector,
  type Errors,
  eachAt,
  requireText,
} from '../machinery/validation.ts';
import type { ObjectMeta } from '../meta.ts';
import { certificateFiles, checkPodCertificate } from './certificate-projection.ts';
import { checkClaimSpec } from './claim-validation.ts';
import type {
  AzureDiskVolumeSource,
  CSIVolumeSource,
  DownwardAPIVolumeFile,
  EphemeralVolumeSource,
  FCVolumeSource,
  FlexVolumeSource,
  ISCSIVolumeSource,
  KeyToPath,
  NFSVolumeSource,
  ObjectFieldSelector,
  ProjectedVolumeSource,
  ResourceFieldSelector,
  Volume,
  VolumeProjection,
} from './v1.gen.ts';

const FILE_MODE_PROBLEM = 'must be a number between 0 and 0777 (octal), both inclusive';
const HOST_PATH_TYPES = [
  '',
  'BlockDevice',
  'CharDevice',
  'Directory',
  'DirectoryOrCreate',
  'File',
  'FileOrCreate',
  'Socket',
];
const DRIVER_NAME_BYTES_MAX = 63;
const TOKEN_SECONDS_MIN = 600;
const TOKEN_SECONDS_MAX = 2 ** 32;

export function hasBackstep(path: string): boolean {
  return path.includes('..') && path.split('/').includes('..');
}

export function checkNoBackstep(errors: Errors, at: string, path: string): void {
  if (hasBackstep(path)) addInvalid(errors, at, path, "must not contain '..'");
}

/** Relative, without `..` elements. */
export function checkRelativePath(errors: Errors, at: string, path: string): void {
  if (path.startsWith('/')) addInvalid(errors, at, path, 'must be a relative path');
  checkNoBackstep(errors, at, path);
}

/** Relative, and nothing that begins with `..`, which the atomic writer keeps for itself. */
export function checkLocalPath(errors: Errors, at: string, path: string): void {
  checkRelativePath(errors, at, path);
  if (path.startsWith('..') && !path.startsWith('../')) addInvalid(errors, at, path, "must not start with '..'");
}

function checkMode(errors: Errors, at: string, mode: number | undefined): void {
  if (mode !== undefined && (mode < 0 || mode > 0o777)) addInvalid(errors, at, mode, FILE_MODE_PROBLEM);
}

const FIELD_PATHS = {
  volume: ['metadata.annotations', 'metadata.labels', 'metadata.name', 'metadata.namespace', 'metadata.uid'],
  environment: [
    'metadata.name',
    'metadata.namespace',
    'metadata.uid',
    'spec.nodeName',
    'spec.serviceAccountName',
    'status.hostIP',
    'status.hostIPs',
    'status.podIP',
    'status.podIPs',
  ],
};
const CONVERTIBLE_FIELD_PATHS = [
  ...FIELD_PATHS.volume,
  ...FIELD_PATHS.environment,
  'spec.restartPolicy',
  'spec.schedulerName',
  'status.phase',
];

/** The downward API's `fieldRef`. */
export function checkFieldRef(
  errors: Errors,
  path: string,
  reference: ObjectFieldSelector,
  use: keyof typeof FIELD_PATHS,
): void {
  if (!requireText(errors, `${path}.apiVersion`, reference.apiVersion)) return;
  if (!requireText(errors, `${path}.fieldPath`, reference.fieldPath)) return;
  if (reference.apiVersion !== 'v1') {
    addInvalid(
      errors,
      `${path}.fieldPath`,
      reference.fieldPath,
      `error converting fieldPath: unsupported pod version: ${reference.apiVersion}`,
    );
    return;
  }
  const field = modernFieldPath(reference.fieldPath);
  const subscript = /^([^[]+)\['([^']*)'\]$/.exec(field);
  if (subscript) {
    const [, map, key] = subscript;
    if (map === 'metadata.annotations')
      addProblems(errors, path, key!.toLowerCase(), qualifiedNameProblems(key!.toLowerCase()));
    else if (map === 'metadata.labels') addProblems(errors, path, key, qualifiedNameProblems(key!));
    else
      addInvalid(
        errors,
        `${path}.fieldPath`,
        reference.fieldPath,
        `error converting fieldPath: field label does not support subscript: ${reference.fieldPath}`,
      );
  } else if (!CONVERTIBLE_FIELD_PATHS.includes(field))
    addInvalid(
      errors,
      `${path}.fieldPath`,
      reference.fieldPath,
      `error converting fieldPath: field label not supported: ${reference.fieldPath}`,
    );
  else if (!FIELD_PATHS[use].includes(field))
    errors.push(fieldErrors.notSupported(`${path}.fieldPath`, field, FIELD_PATHS[use]));
}

const CONTAINER_RESOURCE_PATHS = [
  'limits.cpu',
  'limits.ephemeral-storage',
  'limits.memory',
  'requests.cpu',
  'requests.ephemeral-storage',
  'requests.memory',
];
const BYTE_DIVISORS = ['1', '1k', '1M', '1G', '1T', '1P', '1E', '1Ki', '1Mi', '1Gi', '1Ti', '1Pi', '1Ei'];

/** The downward API's `resourceFieldRef`; in volumes it must name the container. */
export function checkResourceFieldRef(
  errors: Errors,
  path: string,
  reference: ResourceFieldSelector,
  inVolume: boolean,
): void {
  const resource = reference.resource ?? '';
  const hugePages = resource.startsWith('requests.hugepages-') || resource.startsWith('limits.hugepages-');
  if (inVolume && !reference.containerName) addRequired(errors, `${path}.containerName`);
  else if (!resource) addRequired(errors, `${path}.resource`);
  else if (!CONTAINER_RESOURCE_PATHS.includes(resource) && !hugePages)
    errors.push(fieldErrors.notSupported(`${path}.resource`, resource, CONTAINER_RESOURCE_PATHS));
  if (reference.divisor === undefined || (parseNano(reference.divisor) ?? 0n) === 0n) return;
  const divisor = canonicalQuantity(reference.divisor);
  const kind = resource.slice(resource.indexOf('.') + 1);
  if (kind === 'cpu') {
    if (divisor !== '1m' && divisor !== '1')
      addInvalid(
        errors,
        `${path}.divisor`,
        resource,
        "only divisor's values 1m and 1 are supported with the cpu resource",
      );
    return;
  }
  const title =
    kind === 'memory'
      ? 'memory'
      : kind === 'ephemeral-storage'
        ? 'local ephemeral storage'
        : hugePages
          ? 'hugepages'
          : undefined;
  if (title && !BYTE_DIVISORS.includes(divisor))
    addInvalid(
      errors,
      `${path}.divisor`,
      resource,
      `only divisor's values ${BYTE_DIVISORS.join(', ')} are supported with the ${title} resource`,
    );
}

function checkKeys(errors: Errors, path: string, items: readonly KeyToPath[] | undefined): void {
  eachAt(items, path, (item, at) => {
    requireText(errors, `${at}.key`, item.key);
    requireText(errors, `${at}.path`, item.path);
    checkLocalPath(errors, `${at}.path`, item.path ?? '');
    checkMode(errors, `${at}.mode`, item.mode);
  });
}

function checkDownwardFile(errors: Errors, path: string, file: DownwardAPIVolumeFile): void {
  requireText(errors, `${path}.path`, file.path);
  checkLocalPath(errors, `${path}.path`, file.path ?? '');
  if (file.fieldRef) {
    checkFieldRef(errors, `${path}.fieldRef`, file.fieldRef, 'volume');
    if (file.resourceFieldRef)
      addInvalid(errors, path, 'resource', 'fieldRef and resourceFieldRef can not be specified simultaneously');
  } else if (file.resourceFieldRef)
    checkResourceFieldRef(errors, `${path}.resourceFieldRef`, file.resourceFieldRef, true);
  else addRequired(errors, path, 'one of fieldRef and resourceFieldRef is required');
  checkMode(errors, `${path}.mode`, file.mode);
}

function checkProjected(errors: Errors, path: string, projected: ProjectedVolumeSource): void {
  checkMode(errors, `${path}.defaultMode`, projected.defaultMode);
  const paths = new Set<string>();
  const claim = (file: string | undefined, shown: string): void => {
    if (!file) return;
    if (paths.has(file)) addInvalid(errors, path, shown, 'conflicting duplicate paths');
    paths.add(file);
  };
  eachAt(projected.sources, `${path}.sources`, (source, at) => {
    const count = Object.values(source).filter(value => value !== undefined && value !== null).length;
    for (const kind of ['secret', 'configMap'] as const) {
      const part = source[kind];
      if (!part) continue;
      requireText(errors, `${at}.${kind}.name`, part.name);
      checkKeys(errors, `${at}.${kind}.items`, part.items);
      for (const item of part.items ?? []) claim(item.path, part.name ?? '');
    }
    for (const file of source.downwardAPI?.items ?? []) {
      checkDownwardFile(errors, `${at}.downwardAPI`, file);
      claim(file.path, file.path);
    }
    const token = source.serviceAccountToken;
    if (token) {
      const seconds = token.expirationSeconds ?? 0;
      if (seconds < TOKEN_SECONDS_MIN)
        addInvalid(
          errors,
          `${at}.serviceAccountToken.expirationSeconds`,
          seconds,
          'may not specify a duration less than 10 minutes',
        );
      if (seconds > TOKEN_SECONDS_MAX)
        addInvalid(
          errors,
          `${at}.serviceAccountToken.expirationSeconds`,
          seconds,
          'may not specify a duration larger than 2^32 seconds',
        );
      if (requireText(errors, `${path}.path`, token.path)) checkLocalPath(errors, `${path}.path`, token.path);
    }
    checkTrustBundle(errors, `${at}.clusterTrustBundle`, source);
    if (source.clusterTrustBundle) claim(source.clusterTrustBundle.path, source.clusterTrustBundle.path);
    if (source.podCertificate) {
      checkPodCertificate(errors, `${at}.podCertificate`, source.podCertificate);
      for (const file of certificateFiles(source.podCertificate)) {
        checkLocalPath(errors, `${at}.podCertificate.${file.field}`, file.path);
        claim(file.path, file.path);
      }
    }
    if (count > 1) addForbidden(errors, at, 'may not specify more than 1 volume type per source');
  });
}

function checkTrustBundle(errors: Errors, path: string, source: VolumeProjection): void {
  const bundle = source.clusterTrustBundle;
  if (!bundle) return;
  const { name, signerName } = bundle;
  if (name !== undefined && signerName !== undefined)
    addInvalid(errors, path, bundle, 'only one of name and signerName may be used');
  else if (name !== undefined) {
    requireText(errors, `${path}.name`, name, 'must be a valid object name');
    const signer = name.slice(0, Math.max(0, name.lastIndexOf(':'))).replaceAll(':', '/');
    for (const problem of trustBundleNameProblems(name, signer))
      addInvalid(errors, `${path}.name`, name, `not a valid clustertrustbundlename: ${problem}`);
    if (bundle.labelSelector)
      addInvalid(
        errors,
        `${path}.labelSelector`,
        bundle.labelSelector,
        'labelSelector must be unset if name is specified',
      );
  } else if (signerName !== undefined) {
    requireText(errors, `${path}.signerName`, signerName, 'must be a valid signer name');
    checkSignerName(errors, `${path}.signerName`, signerName);
    checkLabelSelector(errors, `${path}.labelSelector`, bundle.labelSelector);
  } else addRequired(errors, path, 'either name or signerName must be specified');
  requireText(errors, `${path}.path`, bundle.path);
  checkLocalPath(errors, `${path}.path`, bundle.path ?? '');
}

const ISCSI_FORMATS: Readonly<Record<string, RegExp>> = {
  iqn: /iqn\.\d{4}-\d{2}\.([A-Za-z0-9\-.]+)(:[^,;*&$|\s]+)$/,
  eui: /^eui.[A-Za-z0-9]{16}$/,
  naa: /^naa.[A-Za-z0-9]{32}$/,
};

function checkIscsiName(errors: Errors, at: string, name: string, isInPod: boolean): void {
  const format = ISCSI_FORMATS[name.slice(0, 3)];
  if (!format && isInPod) addInvalid(errors, at, name, 'must be valid format starting with iqn, eui, or naa');
  else if (!format) addInvalid(errors, at, name, 'must be valid format');
  else if (!format.test(name)) addInvalid(errors, at, name, 'must be valid format');
}

export function checkIscsi(errors: Errors, at: string, iscsi: ISCSIVolumeSource, isInPod = true): void {
  requireText(errors, `${at}.targetPortal`, iscsi.targetPortal);
  if (requireText(errors, `${at}.iqn`, iscsi.iqn)) checkIscsiName(errors, `${at}.iqn`, iscsi.iqn, isInPod);
  const lun = iscsi.lun ?? 0;
  if (lun < 0 || lun > 255) addInvalid(errors, `${at}.lun`, lun, rangeProblem(0, 255));
  if ((iscsi.chapAuthDiscovery || iscsi.chapAuthSession) && !iscsi.secretRef) addRequired(errors, `${at}.secretRef`);
  if (iscsi.initiatorName !== undefined) checkIscsiName(errors, `${at}.initiatorname`, iscsi.initiatorName, isInPod);
}

function checkNfs(errors: Errors, at: string, nfs: NFSVolumeSource): void {
  requireText(errors, `${at}.server`, nfs.server);
  requireText(errors, `${at}.path`, nfs.path);
  if (!nfs.path?.startsWith('/')) addInvalid(errors, `${at}.path`, nfs.path ?? '', 'must be an absolute path');
}

function checkFibreChannel(errors: Errors, at: string, fc: FCVolumeSource): void {
  const targets = fc.targetWWNs?.length ?? 0;
  const ids = fc.wwids?.length ?? 0;
  if (targets === 0 && ids === 0)
    addRequired(errors, `${at}.targetWWNs`, 'must specify either targetWWNs or wwids, but not both');
  if (targets > 0 && ids > 0)
    addInvalid(errors, `${at}.targetWWNs`, fc.targetWWNs, 'targetWWNs and wwids can not be specified simultaneously');
  if (targets === 0) return;
  if (fc.lun === undefined) addRequired(errors, `${at}.lun`, 'lun is required if targetWWNs is specified');
  else if (fc.lun < 0 || fc.lun > 255) addInvalid(errors, `${at}.lun`, fc.lun, rangeProblem(0, 255));
}

function checkFlex(errors: Errors, at: string, flex: FlexVolumeSource): void {
  requireText(errors, `${at}.driver`, flex.driver);
  for (const key in flex.options) {
    const namespace = `.${key.split('/', 1)[0]!.toLowerCase()}`;
    if (namespace.endsWith('.kubernetes.io') || namespace.endsWith('.k8s.io'))
      addInvalid(errors, `${at}.options[${key}]`, key, 'kubernetes.io and k8s.io namespaces are reserved');
  }
}

function checkAzureDisk(errors: Errors, at: string, disk: AzureDiskVolumeSource): void {
  requireText(errors, `${at}.diskName`, disk.diskName);
  requireText(errors, `${at}.diskURI`, disk.diskURI);
  allowOneOf(errors, `${at}.cachingMode`, disk.cachingMode, ['None', 'ReadOnly', 'ReadWrite']);
  allowOneOf(errors, `${at}.kind`, disk.kind, ['Dedicated', 'Managed', 'Shared']);
  const uri = disk.diskURI ?? '';
  if (disk.kind === 'Managed' && !uri.startsWith('/subscriptions/'))
    errors.push(
      fieldErrors.notSupported(`${at}.diskURI`, uri, [
        '/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}',
      ]),
    );
  if (disk.kind !== undefined && disk.kind !== 'Managed' && !uri.startsWith('https://'))
    errors.push(
      fieldErrors.notSupported(`${at}.diskURI`, uri, [
        'https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd',
      ]),
    );
}

/** The name of a CSI driver. */
export function checkDriverName(errors: Errors, at: string, driver: string | undefined): void {
  if (!requireText(errors, at, driver)) {
    addProblems(errors, at, '', dnsSubdomainProblems(''));
    return;
  }
  if (driver.length > DRIVER_NAME_BYTES_MAX) errors.push(fieldErrors.tooLong(at, DRIVER_NAME_BYTES_MAX));
  addProblems(errors, at, driver, dnsSubdomainProblems(driver.toLowerCase()));
}

function checkCsi(errors: Errors, at: string, csi: CSIVolumeSource): void {
  checkDriverName(errors, `${at}.driver`, csi.driver);
  const secret = csi.nodePublishSecretRef;
  if (secret && requireText(errors, `${at}.nodePublishSecretRef.name`, secret.name))
    addProblems(errors, `${at}.name`, secret.name, dnsSubdomainProblems(secret.name));
}

function checkEphemeral(errors: Errors, at: string, ephemeral: EphemeralVolumeSource): void {
  const template = ephemeral.volumeClaimTemplate;
  if (!template) {
    addRequired(errors, `${at}.volumeClaimTemplate`);
    return;
  }
  errors.push(...validateTemplateMeta(template.metadata, `${at}.volumeClaimTemplate.metadata`));
  checkClaimSpec(errors, `${at}.volumeClaimTemplate.spec`, template.spec ?? {});
}

const partitionOf = (errors: Errors, at: string, partition = 0): void => {
  if (partition < 0 || partition > 255) addInvalid(errors, `${at}.partition`, partition, rangeProblem(1, 255));
};

function requireList(errors: Errors, at: string, list: readonly unknown[] | undefined): void {
  if (!list?.length) addRequired(errors, at);
}

type SourceChecks = {
  readonly [K in Exclude<keyof Volume, 'name'>]?: (errors: Errors, at: string, source: NonNullable<Volume[K]>) => void;
};

/** One check for each kind of source; persistent volumes use those that they share. */
export const SOURCE_CHECKS: SourceChecks = {
  emptyDir: (errors, at, source) => {
    if (source.sizeLimit !== undefined && (parseNano(source.sizeLimit) ?? 0n) < 0n)
      addForbidden(errors, `${at}.sizeLimit`, 'SizeLimit field must be a valid resource quantity');
  },
  hostPath: (errors, at, source) => {
    if (!requireText(errors, `${at}.path`, source.path)) return;
    checkNoBackstep(errors, `${at}.path`, source.path);
    allowOneOf(errors, `${at}.type`, source.type, HOST_PATH_TYPES);
  },
  gitRepo: (errors, at, source) => {
    requireText(errors, `${at}.repository`, source.repository);
    checkRelativePath(errors, `${at}.directory`, source.directory ?? '');
  },
  gcePersistentDisk: (errors, at, source) => {
    requireText(errors, `${at}.pdName`, source.pdName);
    partitionOf(errors, at, source.partition);
  },
  awsElasticBlockStore: (errors, at, source) => {
    requireText(errors, `${at}.volumeID`, source.volumeID);
    partitionOf(errors, at, source.partition);
  },
  secret: (errors, at, source) => {
    requireText(errors, `${at}.secretName`, source.secretName);
    checkMode(errors, `${at}.defaultMode`, source.defaultMode);
    checkKeys(errors, `${at}.items`, source.items);
  },
  nfs: checkNfs,
  iscsi: (errors, at, source) => checkIscsi(errors, at, source),
  glusterfs: (errors, at, source) => {
    requireText(errors, `${at}.endpoints`, source.endpoints);
    requireText(errors, `${at}.path`, source.path);
  },
  flocker: (errors, at, source) => {
    if (!source.datasetName && !source.datasetUUID)
      addRequired(errors, at, 'one of datasetName and datasetUUID is required');
    if (source.datasetName && source.datasetUUID)
      addInvalid(errors, at, 'resource', 'datasetName and datasetUUID can not be specified simultaneously');
    if (source.datasetName?.includes('/'))
      addInvalid(errors, `${at}.datasetName`, source.datasetName, "must not contain '/'");
  },
  persistentVolumeClaim: (errors, at, source) => void requireText(errors, `${at}.claimName`, source.claimName),
  rbd: (errors, at, source) => {
    requireList(errors, `${at}.monitors`, source.monitors);
    requireText(errors, `${at}.image`, source.image);
  },
  cinder: (errors, at, source) => {
    requireText(errors, `${at}.volumeID`, source.volumeID);
    if (source.secretRef) requireText(errors, `${at}.secretRef.name`, source.secretRef.name);
  },
  cephfs: (errors, at, source) => requireList(errors, `${at}.monitors`, source.monitors),
  quobyte: (errors, at, source) => {
    const wanted = 'must be a host:port pair or multiple pairs separated by commas';
    if (!source.registry) addRequired(errors, `${at}.registry`, wanted);
    else if ((source.tenant?.length ?? 0) >= 65)
      addRequired(errors, `${at}.tenant`, 'must be a UUID and may not exceed a length of 64 characters');
    else
      for (const pair of source.registry.split(','))
        if (!/^(\[[^\]]*\]|[^:]*):[^:]*$/.test(pair)) addInvalid(errors, `${at}.registry`, source.registry, wanted);
    requireText(errors, `${at}.volume`, source.volume);
  },
  downwardAPI: (errors, at, source) => {
    checkMode(errors, `${at}.defaultMode`, source.defaultMode);
    for (const file of source.items ?? []) checkDownwardFile(errors, at, file);
  },
  fc: checkFibreChannel,
  flexVolume: checkFlex,
  configMap: (errors, at, source) => {
    requireText(errors, `${at}.name`, source.name);
    checkMode(errors, `${at}.defaultMode`, source.defaultMode);
    checkKeys(errors, `${at}.items`, source.items);
  },
  azureFile: (errors, at, source) => {
    requireText(errors, `${at}.secretName`, source.secretName);
    requireText(errors, `${at}.shareName`, source.shareName);
  },
  vsphereVolume: (errors, at, source) => void requireText(errors, `${at}.volumePath`, source.volumePath),
  photonPersistentDisk: (errors, at, source) => void requireText(errors, `${at}.pdID`, source.pdID),
  portworxVolume: (errors, at, source) => void requireText(errors, `${at}.volumeID`, source.volumeID),
  azureDisk: checkAzureDisk,
  storageos: (errors, at, source) => {
    if (requireText(errors, `${at}.volumeName`, source.volumeName))
      addProblems(errors, `${at}.volumeName`, source.volumeName, dnsLabelProblems(source.volumeName));
    if (source.volumeNamespace)
      addProblems(errors, `${at}.volumeNamespace`, source.volumeNamespace, dnsLabelProblems(source.volumeNamespace));
    if (source.secretRef) requireText(errors, `${at}.secretRef.name`, source.secretRef.name);
  },
  projected: checkProjected,
  scaleIO: (errors, at, source) => {
    requireText(errors, `${at}.gateway`, source.gateway);
    requireText(errors, `${at}.system`, source.system);
    requireText(errors, `${at}.volumeName`, source.volumeName);
  },
  csi: checkCsi,
  ephemeral: checkEphemeral,
  image: (errors, at, source) => {
    requireText(errors, `${at}.reference`, source.reference);
    allowOneOf(errors, `${at}.pullPolicy`, source.pullPolicy, ['Always', 'IfNotPresent', 'Never']);
  },
};

type SourceCheck = (errors: Errors, at: string, source: unknown) => void;

/** Names that upstream gives some sources in its findings. */
const CHECKED_AS: Readonly<Record<string, string>> = { gcePersistentDisk: 'persistentDisk' };
const REFUSED_AS: Readonly<Record<string, string>> = { cephfs: 'cephFS', downwardAPI: 'downwarAPI' };

/** Checks the first source of a volume in the table's order, and refuses the others. */
export function checkOneSource(
  errors: Errors,
  path: string,
  holder: object,
  checks: Readonly<Record<string, SourceCheck>>,
): void {
  let count = 0;
  for (const kind in checks) {
    const source = (holder as Record<string, unknown>)[kind];
    if (source === undefined || source === null) continue;
    if (count++ > 0)
      addForbidden(errors, `${path}.${REFUSED_AS[kind] ?? kind}`, 'may not specify more than 1 volume type');
    else checks[kind]!(errors, `${path}.${CHECKED_AS[kind] ?? kind}`, source);
  }
  if (count === 0) addRequired(errors, path, 'must specify a volume type');
}

/** The volumes of a pod by name. `meta` is that of a pod; templates have none. */
export function checkVolumes(
  errors: Errors,
  path: string,
  volumes: readonly Volume[] | undefined,
  meta: ObjectMeta | undefined,
): ReadonlyMap<string, Volume> {
  const byName = new Map<string, Volume>();
  const created = new Set<string>();
  for (const volume of volumes ?? []) if (volume.ephemeral && meta?.name) created.add(`${meta.name}-${volume.name}`);
  eachAt(volumes, path, (volume, at) => {
    const before = errors.length;
    checkOneSource(errors, at, volume, SOURCE_CHECKS as Readonly<Record<string, SourceCheck>>);
    if (volume.ephemeral && meta?.name && volume.name) {
      const claim = `${meta.name}-${volume.name}`;
      for (const problem of dnsSubdomainProblems(claim))
        addInvalid(errors, `${at}.name`, volume.name, `PVC name ${JSON.stringify(claim)}: ${problem}`);
    }
    if (volume.iscsi?.initiatorName !== undefined && `${volume.name}:${volume.iscsi.targetPortal}`.length > 64)
      addInvalid(
        errors,
        `${at}.name`,
        volume.name,
        'Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.',
      );
    if (!volume.name) addRequired(errors, `${at}.name`);
    else {
      addProblems(errors, `${at}.name`, volume.name, dnsLabelProblems(volume.name));
      if (byName.has(volume.name)) addDuplicate(errors, `${at}.name`, volume.name);
    }
    if (errors.length === before) byName.set(volume.name, volume);
    const claim = volume.persistentVolumeClaim?.claimName;
    if (claim !== undefined && created.has(claim))
      addInvalid(
        errors,
        `${at}.persistentVolumeClaim.claimName`,
        claim,
        'must not reference a PVC that gets created for an ephemeral volume',
      );
  });
  return byName;
}
