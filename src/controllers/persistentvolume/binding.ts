/**
 * The four writes of a binding, in this order: the volume names the claim, the volume's phase, the claim names the volume, the
 * claim's status. Invariant: each is conditional on the object's version and repeatable, so a crash after any of them is
 * completed by the next pass, and two claims never get one volume.
 */

import type { PersistentVolume, PersistentVolumeClaim } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { BIND_COMPLETED, BOUND_BY_CONTROLLER, isBoundTo } from '../../api/machinery/volume.ts';
import { PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES } from '../../client/resources.ts';
import type { ReconcileContext } from '../runtime/controller.ts';
import { FreshView } from '../runtime/fresh-view.ts';

export type VolumePhase = 'Available' | 'Bound' | 'Released' | 'Failed';

export class Bindings {
  readonly #ctx: ReconcileContext;
  readonly claims: FreshView<PersistentVolumeClaim>;
  readonly volumes: FreshView<PersistentVolume>;
  /** Volumes whose first write is under way. */
  readonly #reserved = new Set<string>();

  constructor(ctx: ReconcileContext) {
    this.#ctx = ctx;
    this.claims = new FreshView(ctx.informers.get<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS));
    this.volumes = new FreshView(ctx.informers.get<PersistentVolume>(PERSISTENT_VOLUMES));
  }
  get reserved(): ReadonlySet<string> {
    return this.#reserved;
  }

  async bind(volume: PersistentVolume, claim: PersistentVolumeClaim): Promise<void> {
    const { name } = volume.metadata;
    this.#reserved.add(name);
    try {
      volume = await this.#nameClaim(volume, claim);
    } finally {
      this.#reserved.delete(name);
    }
    volume = await this.setPhase(volume, 'Bound');
    await this.setStatus(await this.#nameVolume(claim, volume), volume);
  }

  async #nameClaim(volume: PersistentVolume, claim: PersistentVolumeClaim): Promise<PersistentVolume> {
    const before = volume.spec?.claimRef;
    if (before && isBoundTo(volume, claim) && before.uid) return volume;
    const { metadata } = claim;
    return this.updateVolume({
      ...volume,
      metadata: {
        ...volume.metadata,
        annotations: {
          ...volume.metadata.annotations,
          // Whoever named the claim beforehand is not the controller.
          ...(isBoundTo(volume, claim) ? {} : { [BOUND_BY_CONTROLLER]: 'yes' }),
        },
      },
      spec: {
        ...volume.spec,
        claimRef: {
          kind: 'PersistentVolumeClaim',
          apiVersion: 'v1',
          namespace: metadata.namespace!,
          name: metadata.name,
          uid: metadata.uid!,
          ...(metadata.resourceVersion ? { resourceVersion: metadata.resourceVersion } : {}),
        },
      },
    });
  }

  async #nameVolume(claim: PersistentVolumeClaim, volume: PersistentVolume): Promise<PersistentVolumeClaim> {
    const annotations = { ...claim.metadata.annotations };
    const isNamed = claim.spec?.volumeName === volume.metadata.name;
    if (!isNamed) annotations[BOUND_BY_CONTROLLER] = 'yes';
    annotations[BIND_COMPLETED] = 'yes';
    if (isNamed && semanticEqual(annotations, claim.metadata.annotations)) return claim;
    return this.updateClaim({
      ...claim,
      metadata: { ...claim.metadata, annotations },
      spec: { ...claim.spec, volumeName: volume.metadata.name },
    });
  }

  /** Phase Bound, modes and size as the volume's. A size that an expansion has already reported stays. */
  async setStatus(claim: PersistentVolumeClaim, volume: PersistentVolume): Promise<void> {
    const before = claim.status ?? {};
    const wasBound = before.phase === 'Bound';
    const storage = volume.spec?.capacity?.['storage'];
    // A volume grows before its file system; the claim's size follows when that has grown too.
    const isKnown = wasBound && before.capacity?.['storage'] !== undefined;
    const attributes = volume.spec?.volumeAttributesClassName;
    const status = {
      ...before,
      phase: 'Bound',
      accessModes: [...(volume.spec?.accessModes ?? [])],
      ...(isKnown ? {} : storage === undefined ? {} : { capacity: { ...before.capacity, storage } }),
      ...(attributes && !wasBound ? { currentVolumeAttributesClassName: attributes } : {}),
    };
    if (semanticEqual(status, before)) return;
    this.claims.wrote(
      await this.#ctx.client.of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS).updateStatus({ ...claim, status }),
    );
  }
  async setClaimPhase(claim: PersistentVolumeClaim, phase: 'Pending' | 'Lost'): Promise<void> {
    if (claim.status?.phase === phase) return;
    const { accessModes: _, capacity: __, ...rest } = claim.status ?? {};
    this.claims.wrote(
      await this.#ctx.client
        .of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS)
        .updateStatus({ ...claim, status: { ...rest, phase } }),
    );
  }

  async setPhase(volume: PersistentVolume, phase: VolumePhase, message = ''): Promise<PersistentVolume> {
    if (volume.status?.phase === phase && (volume.status.message ?? '') === message) return volume;
    const written = await this.#ctx.client.of<PersistentVolume>(PERSISTENT_VOLUMES).updateStatus({
      ...volume,
      // When the phase changed last is the API server's to say.
      status: { phase, ...(message ? { message } : {}) },
    });
    return this.volumes.wrote(written);
  }

  /** The volume is free again: what the controller set goes; a claim that an administrator named stays, without its uid. */
  async unbind(volume: PersistentVolume): Promise<void> {
    const { [BOUND_BY_CONTROLLER]: byController, ...annotations } = volume.metadata.annotations ?? {};
    const { claimRef, ...spec } = volume.spec ?? {};
    const { uid: _, resourceVersion: __, ...named } = claimRef ?? {};
    const written = await this.updateVolume({
      ...volume,
      metadata: { ...volume.metadata, annotations },
      spec: byController === undefined ? { ...spec, claimRef: named } : spec,
    });
    await this.setPhase(written, 'Available');
  }

  async updateVolume(volume: PersistentVolume): Promise<PersistentVolume> {
    return this.volumes.wrote(await this.#ctx.client.of<PersistentVolume>(PERSISTENT_VOLUMES).update(volume));
  }
  async updateClaim(claim: PersistentVolumeClaim): Promise<PersistentVolumeClaim> {
    return this.claims.wrote(await this.#ctx.client.of<PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIMS).update(claim));
  }
}
