/**
 * Makes the volumes that claims ask a driver for, and deletes them when they are released: external-provisioner's part. Invariants:
 * the disk's name comes from the claim's uid, so trying again never makes a second one; a persistent volume is gone only after its
 * disk is.
 */

import type { PersistentVolume, PersistentVolumeClaim } from '../api/core/v1.gen.ts';
import {
  migratedDriver,
  migratedParameters,
  translateVolume,
  untranslateVolume,
} from '../api/machinery/csi-migration.ts';
import { formatNano, quantityValue } from '../api/machinery/quantity.ts';
import {
  BETA_STORAGE_PROVISIONER,
  claimClass,
  isDelayed,
  MIGRATED_TO,
  PROVISIONED_BY,
  SELECTED_NODE,
  STORAGE_PROVISIONER,
} from '../api/machinery/volume.ts';
import { keyOf } from '../api/meta.ts';
import type { CSINode, StorageClass, VolumeAttributesClass } from '../api/storage/v1.gen.ts';
import { isReason, messageOf } from '../base/errors.ts';
import {
  CSI_NODES,
  NODES,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  STORAGE_CLASSES,
  VOLUME_ATTRIBUTES_CLASSES,
} from '../client/resources.ts';
import { GRPC, GrpcError, isUncertain } from '../csi/grpc.ts';
import { capabilityOf } from '../csi/names.ts';
import { type ContentSource, contentSource, needsPopulator } from './content-source.ts';
import type { Sidecar, SidecarContext } from './work.ts';

export const FINALIZER = 'external-provisioner.volume.kubernetes.io/finalizer';
const PARAMETER_PREFIX = 'csi.storage.k8s.io/';
const IDENTITY = 'storage.kubernetes.io/csiProvisionerIdentity';

export function provisioner(context: SidecarContext): Sidecar {
  const { driver, csi, client, informers, events, nodeName } = context;
  const claims = informers.get<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS);
  const volumes = informers.get<PersistentVolume>(PERSISTENT_VOLUMES);
  const classes = informers.get<StorageClass>(STORAGE_CLASSES);
  const csiNodes = informers.get<CSINode>(CSI_NODES);
  const nodes = informers.get(NODES);

  const asks = ({ metadata, spec }: PersistentVolumeClaim): boolean =>
    !spec?.volumeName &&
    !metadata.deletionTimestamp &&
    (metadata.annotations?.[STORAGE_PROVISIONER] ?? metadata.annotations?.[BETA_STORAGE_PROVISIONER]) === driver;
  const isOurs = (volume: PersistentVolume): boolean =>
    (volume.metadata.annotations?.[MIGRATED_TO] ?? volume.metadata.annotations?.[PROVISIONED_BY]) === driver &&
    (translateVolume(volume) ?? volume).spec?.csi?.driver === driver &&
    (context.isOurs?.(volume) ?? true);

  function topologyOf(name: string | undefined): Record<string, string> | undefined {
    const keys = name ? csiNodes.get(name)?.spec.drivers.find(one => one.name === driver)?.topologyKeys : undefined;
    const labels = name ? nodes.get(name)?.metadata.labels : undefined;
    if (!keys || !labels) return undefined;
    return Object.fromEntries(keys.flatMap(key => (labels[key] === undefined ? [] : [[key, labels[key]!]])));
  }
  function requirementFor(storageClass: StorageClass, selected: string | undefined) {
    const own = topologyOf(selected);
    if (own) return { requisite: [{ segments: own }], preferred: [{ segments: own }] };
    const allowed = (storageClass.allowedTopologies ?? []).flatMap(({ matchLabelExpressions = [] }) =>
      matchLabelExpressions.length === 1
        ? matchLabelExpressions[0]!.values.map(value => ({ segments: { [matchLabelExpressions[0]!.key]: value } }))
        : [{ segments: Object.fromEntries(matchLabelExpressions.map(({ key, values }) => [key, values[0]!])) }],
    );
    const all = allowed.length
      ? allowed
      : [...csiNodes.values()].flatMap(({ metadata }) => {
          const segments = topologyOf(metadata.name);
          return segments && Object.keys(segments).length ? [{ segments }] : [];
        });
    return all.length ? { requisite: all, preferred: all } : undefined;
  }

  async function provision(claim: PersistentVolumeClaim, signal: AbortSignal): Promise<void> {
    const found = classes.get(claimClass(claim));
    if (!found || (migratedDriver(found.provisioner) ?? found.provisioner) !== driver) return;
    const storageClass = migratedParameters(found);
    let selected = claim.metadata.annotations?.[SELECTED_NODE];
    if (isDelayed(storageClass) && !selected) return;
    if (nodeName !== undefined) {
      if (!selected) selected = await compete(claim);
      if (selected !== nodeName) return;
    }
    if (needsPopulator(claim)) {
      events.event(claim, 'Normal', 'Provisioning', 'Assuming an external populator will provision the volume');
      return;
    }
    const name = `pvc-${claim.metadata.uid}`;
    if (volumes.get(name)) return;
    events.event(
      claim,
      'Normal',
      'Provisioning',
      `External provisioner is provisioning volume for claim "${keyOf(claim)}"`,
    );
    try {
      const source = await contentSource(context, claim);
      // The scheduler cannot know where the source lies: it is told, and the pod comes to it.
      if (source?.node !== undefined && nodeName !== undefined && source.node !== nodeName)
        return await select(claim, source.node);
      const volume = await make(claim, { name, storageClass, selected, source, signal });
      await client.of<PersistentVolume>(PERSISTENT_VOLUMES).create(untranslateVolume(volume, storageClass.provisioner));
      events.event(claim, 'Normal', 'ProvisioningSucceeded', `Successfully provisioned volume ${name}`);
    } catch (error) {
      if (isReason(error, 'AlreadyExists')) return;
      events.event(
        claim,
        'Warning',
        'ProvisioningFailed',
        `failed to provision volume with StorageClass "${storageClass.metadata.name}": ${messageOf(error)}`,
      );
      // Another node may have room; where it is not known whether the disk was made, this one is asked again.
      const isFull = error instanceof GrpcError && error.code === GRPC.RESOURCE_EXHAUSTED;
      if (isDelayed(storageClass) && (isFull || !isUncertain(error))) await select(claim, null);
      else throw error;
    }
  }
  /** Another node, or any. */
  async function select(claim: PersistentVolumeClaim, node: string | null): Promise<void> {
    const { namespace = '', name, resourceVersion } = claim.metadata;
    await client
      .of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS)
      .patch(namespace, name, { metadata: { resourceVersion, annotations: { [SELECTED_NODE]: node } } });
  }
  /** Immediate binding with a driver a node: the first to write its name has the claim. */
  async function compete(claim: PersistentVolumeClaim): Promise<string | undefined> {
    const { availableCapacity } = await csi.call('getCapacity', {});
    if (availableCapacity < quantityValue(claim.spec?.resources?.requests?.['storage'])) return undefined;
    const written = await client
      .of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS)
      .patch(claim.metadata.namespace!, claim.metadata.name, {
        metadata: { resourceVersion: claim.metadata.resourceVersion, annotations: { [SELECTED_NODE]: nodeName } },
      });
    return written.metadata.annotations?.[SELECTED_NODE];
  }

  async function make(
    claim: PersistentVolumeClaim,
    {
      name,
      storageClass,
      selected,
      source,
      signal,
    }: {
      readonly name: string;
      readonly storageClass: StorageClass;
      readonly selected: string | undefined;
      readonly source: ContentSource | undefined;
      readonly signal: AbortSignal;
    },
  ): Promise<PersistentVolume> {
    const { parameters = {} } = storageClass;
    const fsType = parameters[`${PARAMETER_PREFIX}fstype`] ?? parameters['fstype'] ?? 'ext4';
    const volumeMode = claim.spec?.volumeMode ?? 'Filesystem';
    const spec = {
      volumeMode,
      accessModes: [...(claim.spec?.accessModes ?? [])],
      ...(storageClass.mountOptions ? { mountOptions: [...storageClass.mountOptions] } : {}),
      csi: { driver, volumeHandle: '', ...(volumeMode === 'Block' ? {} : { fsType }) },
    };
    const requirement = requirementFor(storageClass, selected);
    const attributes = claim.spec?.volumeAttributesClassName;
    const { volume } = await csi.call(
      'createVolume',
      {
        name,
        capacityRange: {
          requiredBytes: quantityValue(claim.spec?.resources?.requests?.['storage']),
          limitBytes: quantityValue(claim.spec?.resources?.limits?.['storage']),
        },
        volumeCapabilities: [capabilityOf({ spec }, { knowsPods: true })],
        parameters: Object.fromEntries(
          Object.entries(parameters).filter(([key]) => !key.startsWith(PARAMETER_PREFIX) && key !== 'fstype'),
        ),
        mutableParameters: attributes ? await attributesOf(attributes) : {},
        ...(requirement ? { accessibilityRequirements: requirement } : {}),
        ...(source ? { volumeContentSource: source.request } : {}),
      },
      { signal },
    );
    if (!volume?.volumeId) throw new Error(`driver ${driver} returned no volume`);
    const terms = (volume.accessibleTopology ?? []).map(({ segments = {} }) => ({
      matchExpressions: Object.entries(segments).map(([key, value]) => ({ key, operator: 'In', values: [value] })),
    }));
    return {
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: {
        name,
        annotations: {
          [PROVISIONED_BY]: storageClass.provisioner,
          ...(storageClass.provisioner === driver ? {} : { [MIGRATED_TO]: driver }),
          'volume.kubernetes.io/provisioner-deletion-secret-name': '',
          'volume.kubernetes.io/provisioner-deletion-secret-namespace': '',
        },
        finalizers: [FINALIZER],
      },
      spec: {
        ...spec,
        capacity: { storage: formatNano(BigInt(volume.capacityBytes ?? 0) * 10n ** 9n, 'binary') },
        claimRef: {
          apiVersion: 'v1',
          kind: 'PersistentVolumeClaim',
          namespace: claim.metadata.namespace!,
          name: claim.metadata.name,
          uid: claim.metadata.uid!,
          resourceVersion: claim.metadata.resourceVersion!,
        },
        persistentVolumeReclaimPolicy: storageClass.reclaimPolicy ?? 'Delete',
        storageClassName: storageClass.metadata.name,
        ...(attributes ? { volumeAttributesClassName: attributes } : {}),
        csi: {
          ...spec.csi,
          volumeHandle: volume.volumeId,
          volumeAttributes: { ...volume.volumeContext, [IDENTITY]: nodeName ? `${driver}-${nodeName}` : driver },
        },
        ...(terms.length && terms[0]!.matchExpressions.length
          ? { nodeAffinity: { required: { nodeSelectorTerms: terms } } }
          : {}),
      },
    };
  }
  async function attributesOf(name: string): Promise<Record<string, string>> {
    const found = await client.of<VolumeAttributesClass>(VOLUME_ATTRIBUTES_CLASSES).get('', name);
    if (found.driverName !== driver)
      throw new Error(`VolumeAttributesClass ${name} is for driver ${found.driverName}, not ${driver}`);
    return { ...found.parameters };
  }

  async function remove(volume: PersistentVolume, signal: AbortSignal): Promise<void> {
    const { metadata, spec, status } = volume;
    if (spec?.persistentVolumeReclaimPolicy !== 'Delete') {
      if (metadata.deletionTimestamp && metadata.finalizers?.includes(FINALIZER)) await release(volume);
      return;
    }
    if (status?.phase !== 'Released' && status?.phase !== 'Failed') return;
    if (!metadata.finalizers?.includes(FINALIZER)) return;
    try {
      const { csi: source } = (translateVolume(volume) ?? volume).spec!;
      await csi.call('deleteVolume', { volumeId: source!.volumeHandle }, { signal });
    } catch (error) {
      events.event(volume, 'Warning', 'VolumeFailedDelete', messageOf(error));
      throw error;
    }
    const target = client.of<PersistentVolume>(PERSISTENT_VOLUMES);
    if (!metadata.deletionTimestamp) await target.delete('', metadata.name, { preconditions: { uid: metadata.uid! } });
    await release(await target.get('', metadata.name));
  }
  async function release(volume: PersistentVolume): Promise<void> {
    const finalizers = (volume.metadata.finalizers ?? []).filter(one => one !== FINALIZER);
    await client
      .of<PersistentVolume>(PERSISTENT_VOLUMES)
      .update({ ...volume, metadata: { ...volume.metadata, finalizers } });
  }

  return {
    watches: [
      { of: PERSISTENT_VOLUME_CLAIMS, keys: object => (asks(object as PersistentVolumeClaim) ? [keyOf(object)] : []) },
      {
        of: PERSISTENT_VOLUMES,
        keys: (object, isDeleted) => (!isDeleted && isOurs(object as PersistentVolume) ? [object.metadata.name] : []),
      },
      { of: STORAGE_CLASSES, keys: () => [] },
      { of: CSI_NODES, keys: () => [] },
      { of: NODES, keys: () => [] },
    ],
    async reconcile(key, signal) {
      if (key.includes('/')) {
        const claim = claims.get(key);
        if (claim && asks(claim)) await provision(claim, signal);
        return;
      }
      const volume = volumes.get(key);
      if (volume && isOurs(volume)) await remove(volume, signal);
    },
  };
}
