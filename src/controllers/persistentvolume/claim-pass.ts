/**
 * One look at a claim: find it a volume, ask for one to be made, or say what it waits for. Invariant: a claim that was bound
 * once is never bound to another volume; when its volume is gone it is Lost, and stays so.
 */

import type { PersistentVolume, PersistentVolumeClaim, Pod } from '../../api/core/v1.gen.ts';
import { migratedDriver } from '../../api/machinery/csi-migration.ts';
import { isPodTerminal } from '../../api/machinery/pod.ts';
import {
  BETA_STORAGE_PROVISIONER,
  BIND_COMPLETED,
  BOUND_BY_CONTROLLER,
  claimClass,
  findVolume,
  isBoundTo,
  isDelayed,
  NO_PROVISIONER,
  SELECTED_NODE,
  STORAGE_PROVISIONER,
  volumeMismatch,
} from '../../api/machinery/volume.ts';
import { type KubeObject, keyOf } from '../../api/meta.ts';
import type { StorageClass } from '../../api/storage/v1.gen.ts';
import { ApiError } from '../../base/errors.ts';
import { PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES } from '../../client/resources.ts';
import type { ResourceId } from '../../client/transport.ts';
import type { ReconcileContext } from '../runtime/controller.ts';
import type { Bindings } from './binding.ts';

const DEFAULT_CLASS = 'storageclass.kubernetes.io/is-default-class';
/** Claims without a volume, by class. */
export const CLASS_INDEX = 'unbound-of-class';
/** Volumes that name no claim, by class; and the others by the claim. */
export const FREE_INDEX = 'free-of-class';
export const CLAIMED_INDEX = 'claimed-by';
export const CLAIM_INDEX = 'claim';

/** `namespace/name` of the claims a pod's volumes use. */
export function claimsOf(pod: Pod): string[] {
  const { namespace, name } = pod.metadata;
  return (pod.spec?.volumes ?? []).flatMap(volume =>
    volume.persistentVolumeClaim
      ? [`${namespace}/${volume.persistentVolumeClaim.claimName}`]
      : volume.ephemeral
        ? [`${namespace}/${name}-${volume.name}`]
        : [],
  );
}

export async function reconcileClaim(
  ctx: ReconcileContext,
  bindings: Bindings,
  claim: PersistentVolumeClaim,
): Promise<void> {
  if (claim.metadata.annotations?.[BIND_COMPLETED] !== undefined) return checkBound(ctx, bindings, claim);
  if (claim.spec?.volumeName) return bindNamed(ctx, bindings, claim, claim.spec.volumeName);
  const withClass = await assignDefaultClass(ctx, bindings, claim);
  return findOne(ctx, bindings, withClass);
}

const VOLUME_POPULATORS: ResourceId = {
  group: 'populator.storage.k8s.io',
  version: 'v1beta1',
  resource: 'volumepopulators',
};
interface VolumePopulator extends KubeObject {
  sourceKind?: { group?: string; kind?: string };
}
/** Kinds that drivers know themselves. */
const DRIVER_SOURCES = new Set(['/PersistentVolumeClaim', 'snapshot.storage.k8s.io/VolumeSnapshot']);

/** The volume-data-source-validator's part: a claim that nobody will ever fill says so. */
async function checkDataSource({ client, events }: ReconcileContext, claim: PersistentVolumeClaim): Promise<void> {
  const source = claim.spec?.dataSourceRef;
  if (!source || DRIVER_SOURCES.has(`${source.apiGroup ?? ''}/${source.kind}`)) return;
  const populators = await client
    .of<VolumePopulator>(VOLUME_POPULATORS)
    .list()
    .catch(error => {
      if (error instanceof ApiError && error.code === 404) return { items: [] as VolumePopulator[] };
      throw error;
    });
  const isKnown = populators.items.some(
    ({ sourceKind }) => sourceKind?.kind === source.kind && (sourceKind.group ?? '') === (source.apiGroup ?? ''),
  );
  if (!isKnown)
    events.event(
      claim,
      'Warning',
      'UnrecognizedDataSourceKind',
      'The datasource for this PVC does not match any registered VolumePopulator',
    );
}

async function findOne(ctx: ReconcileContext, bindings: Bindings, claim: PersistentVolumeClaim): Promise<void> {
  const { informers, events } = ctx;
  const className = claimClass(claim);
  const storageClass = className ? informers.get<StorageClass>(STORAGE_CLASSES).get(className) : undefined;
  const isWaiting = isDelayed(storageClass) && !claim.metadata.annotations?.[SELECTED_NODE];
  const volume = findVolume(claim, candidates(ctx, bindings, claim), {
    isDelayed: isWaiting,
    excluded: bindings.reserved,
  });
  if (volume) return bindings.bind(volume, claim);
  await checkDataSource(ctx, claim);
  if (isWaiting) {
    const pods = informers
      .get<Pod>(PODS)
      .byIndex(CLAIM_INDEX, keyOf(claim))
      .filter(pod => !pod.spec.nodeName && !isPodTerminal(pod))
      .map(pod => pod.metadata.name)
      .sort();
    if (pods.length === 0)
      events.event(claim, 'Normal', 'WaitForFirstConsumer', 'waiting for first consumer to be created before binding');
    else
      events.event(
        claim,
        'Normal',
        'WaitForPodScheduled',
        pods.length === 1
          ? `waiting for pod ${pods[0]} to be scheduled`
          : `waiting for pods ${pods.join(',')} to be scheduled`,
      );
  } else if (className) await provision(ctx, bindings, claim, storageClass);
  else
    events.event(
      claim,
      'Normal',
      'FailedBinding',
      'no persistent volumes available for this claim and no storage class is set',
    );
  await bindings.setClaimPhase(bindings.claims.fresh(claim), 'Pending');
}

function* candidates(
  ctx: ReconcileContext,
  bindings: Bindings,
  claim: PersistentVolumeClaim,
): Generator<PersistentVolume> {
  const volumes = ctx.informers.get<PersistentVolume>(PERSISTENT_VOLUMES);
  for (const volume of volumes.byIndex(CLAIMED_INDEX, keyOf(claim))) yield bindings.volumes.fresh(volume);
  for (const volume of volumes.byIndex(FREE_INDEX, claimClass(claim))) yield bindings.volumes.fresh(volume);
}

/** Asks the class's provisioner, which watches claims, by annotations. */
async function provision(
  ctx: ReconcileContext,
  bindings: Bindings,
  claim: PersistentVolumeClaim,
  storageClass: StorageClass | undefined,
): Promise<void> {
  const { events } = ctx;
  if (!storageClass) {
    events.event(
      claim,
      'Warning',
      'ProvisioningFailed',
      `storageclass.storage.k8s.io ${JSON.stringify(claimClass(claim))} not found`,
    );
    return;
  }
  const { provisioner } = storageClass;
  if (provisioner === NO_PROVISIONER) {
    events.event(
      claim,
      'Normal',
      'FailedBinding',
      `no persistent volumes available for this claim and no volume plugin matched name: ${NO_PROVISIONER}`,
    );
    return;
  }
  const driver = migratedDriver(provisioner);
  const wanted = {
    [BETA_STORAGE_PROVISIONER]: driver ?? provisioner,
    [STORAGE_PROVISIONER]: driver ?? provisioner,
  };
  const { annotations = {} } = claim.metadata;
  if (Object.entries(wanted).some(([name, value]) => annotations[name] !== value))
    await bindings.updateClaim({
      ...claim,
      metadata: { ...claim.metadata, annotations: { ...annotations, ...wanted } },
    });
  events.event(
    claim,
    'Normal',
    'ExternalProvisioning',
    `Waiting for a volume to be created either by the external provisioner '${driver ?? provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.`,
  );
}

/** The claim names its volume, but the binding is not complete. */
async function bindNamed(
  ctx: ReconcileContext,
  bindings: Bindings,
  claim: PersistentVolumeClaim,
  volumeName: string,
): Promise<void> {
  const volume = bindings.volumes.get(volumeName);
  const wait = () => bindings.setClaimPhase(claim, 'Pending');
  if (!volume) return wait();
  if (!volume.spec?.claimRef) {
    const mismatch = volumeMismatch(volume, claim);
    if (mismatch === undefined) return bindings.bind(volume, claim);
    ctx.events.event(
      claim,
      'Warning',
      'VolumeMismatch',
      `Cannot bind to requested volume ${JSON.stringify(volumeName)}: ${mismatch}`,
    );
    return wait();
  }
  if (isBoundTo(volume, claim)) return bindings.bind(volume, claim);
  if (claim.metadata.annotations?.[BOUND_BY_CONTROLLER] === undefined)
    ctx.events.event(
      claim,
      'Warning',
      'FailedBinding',
      `volume ${JSON.stringify(volumeName)} already bound to a different claim.`,
    );
  return wait();
}

async function checkBound(ctx: ReconcileContext, bindings: Bindings, claim: PersistentVolumeClaim): Promise<void> {
  const lose = async (reason: string, message: string) => {
    if (claim.status?.phase === 'Lost') return;
    await bindings.setClaimPhase(claim, 'Lost');
    ctx.events.event(claim, 'Warning', reason, message);
  };
  const volumeName = claim.spec?.volumeName;
  if (!volumeName)
    return lose('ClaimLost', 'Bound claim has lost reference to PersistentVolume. Data on the volume is lost!');
  const volume = bindings.volumes.get(volumeName);
  if (!volume) return lose('ClaimLost', 'Bound claim has lost its PersistentVolume. Data on the volume is lost!');
  if (!volume.spec?.claimRef || volume.spec.claimRef.uid === claim.metadata.uid) return bindings.bind(volume, claim);
  if (!volume.spec.claimRef.uid && isBoundTo(volume, claim)) return bindings.bind(volume, claim);
  return lose('ClaimMisbound', 'Two claims are bound to the same volume, this one is bound incorrectly');
}

/** A claim that was made when there was no default class gets the one that there is now. */
async function assignDefaultClass(
  ctx: ReconcileContext,
  bindings: Bindings,
  claim: PersistentVolumeClaim,
): Promise<PersistentVolumeClaim> {
  if (claim.spec?.storageClassName !== undefined || claimClass(claim)) return claim;
  const created = (of: StorageClass) => of.metadata.creationTimestamp ?? '';
  const [newest] = [...ctx.informers.get<StorageClass>(STORAGE_CLASSES).values()]
    .filter(({ metadata }) => metadata.annotations?.[DEFAULT_CLASS] === 'true')
    .sort((a, b) => created(b).localeCompare(created(a)) || (a.metadata.name < b.metadata.name ? -1 : 1));
  if (!newest) return claim;
  return bindings.updateClaim({ ...claim, spec: { ...claim.spec, storageClassName: newest.metadata.name } });
}
