/**
 * Writes the slices of one manager (`endpointslice.kubernetes.io/managed-by`) and no others. Invariant: while the informer lags
 * behind its own writes it works on what it wrote, so no slice is made twice and none is written over with an older one.
 */

import type { Endpoint, EndpointSlice } from '../../api/discovery/v1.gen.ts';
import type { OwnerReference } from '../../api/meta.ts';
import { isReason } from '../../base/errors.ts';
import type { ResourceClient } from '../../client/client.ts';
import type { Informer } from '../../client/informer.ts';
import { ENDPOINT_SLICES } from '../../client/resources.ts';
import type { Change, ReconcileContext } from '../runtime/controller.ts';
import type { AddressType } from './desired.ts';
import type { Content, SlicePlan } from './plan.ts';

export const SERVICE_NAME = 'kubernetes.io/service-name';
export const MANAGED_BY = 'endpointslice.kubernetes.io/managed-by';

/** What slices have beside endpoints and ports. */
export interface SliceTemplate {
  readonly namespace: string;
  readonly generateName: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Those of the slice that is there, or none, in; those to write out. */
  readonly annotations: (current: Readonly<Record<string, string>>) => Record<string, string>;
  readonly owner: OwnerReference;
  readonly addressType: AddressType;
}

export class SliceWriter {
  readonly #manager: string;
  readonly #index: string;
  readonly #slices: Informer<EndpointSlice>;
  readonly #client: ResourceClient<EndpointSlice>;
  /** Slices as last written, for as long as the informer shows something older. */
  readonly #written = new Map<string, { readonly slice: EndpointSlice; readonly deleted: boolean }>();

  constructor(ctx: ReconcileContext, manager: string) {
    this.#manager = manager;
    this.#index = `slices of ${manager}`;
    this.#slices = ctx.informers.get<EndpointSlice>(ENDPOINT_SLICES);
    this.#slices.addIndex(this.#index, slice => [this.#keyOf(slice) ?? '']);
    this.#client = ctx.client.of<EndpointSlice>(ENDPOINT_SLICES);
  }

  /** Keys of the Services whose slices the change is about. To be told of every change. */
  keysFor(change: Change<EndpointSlice>): string[] {
    const slice = (change.object ?? change.old)!;
    const uid = slice.metadata.uid!;
    const written = this.#written.get(uid);
    if (written && (change.deleted || (!written.deleted && !isNewer(written.slice, slice)))) this.#written.delete(uid);
    const key = this.#keyOf(slice) ?? (change.old && this.#keyOf(change.old));
    return key ? [key] : [];
  }

  /** Of the Service, without those that are being deleted. */
  existing(key: string): EndpointSlice[] {
    const current = new Map(this.#slices.byIndex(this.#index, key).map(slice => [slice.metadata.uid!, slice]));
    for (const [uid, { slice, deleted }] of this.#written) {
      if (this.#keyOf(slice) !== key) continue;
      if (deleted) current.delete(uid);
      else current.set(uid, slice);
    }
    return [...current.values()].filter(slice => !slice.metadata.deletionTimestamp);
  }

  async apply(plan: SlicePlan, template: SliceTemplate): Promise<void> {
    await Promise.all([
      ...plan.create.map(content => this.#create(content, template)),
      ...plan.update.map(({ slice, endpoints }) => this.#update(slice, endpoints, template)),
    ]);
    // Only after the new slices are there, so that no endpoint is missing in between.
    await this.remove(plan.delete);
  }

  async remove(slices: readonly EndpointSlice[]): Promise<void> {
    await Promise.all(
      slices.map(async slice => {
        const { name, namespace, uid } = slice.metadata;
        this.#written.set(uid!, { slice, deleted: true });
        try {
          await this.#client.delete(namespace!, name, { preconditions: { uid: uid! } });
        } catch (error) {
          this.#written.delete(uid!);
          if (!isReason(error, 'NotFound')) throw error;
        }
      }),
    );
  }

  async #create({ ports, endpoints }: Content, template: SliceTemplate): Promise<void> {
    const { namespace, generateName, labels, owner, addressType } = template;
    const annotations = template.annotations({});
    this.#note(
      await this.#client.create({
        apiVersion: 'discovery.k8s.io/v1',
        kind: 'EndpointSlice',
        metadata: {
          generateName,
          namespace,
          labels,
          ...(Object.keys(annotations).length > 0 ? { annotations } : {}),
          ownerReferences: [owner],
        } as EndpointSlice['metadata'],
        addressType,
        endpoints: [...endpoints],
        ports: [...ports],
      }),
    );
  }

  async #update(slice: EndpointSlice, endpoints: readonly Endpoint[], template: SliceTemplate): Promise<void> {
    const { labels, owner } = template;
    const annotations = template.annotations(slice.metadata.annotations ?? {});
    this.#note(
      await this.#client.update({
        ...slice,
        metadata: { ...slice.metadata, labels: { ...labels }, annotations, ownerReferences: [owner] },
        endpoints: [...endpoints],
      }),
    );
  }

  #note(slice: EndpointSlice): void {
    this.#written.set(slice.metadata.uid!, { slice, deleted: false });
  }

  #keyOf({ metadata: { labels, namespace } }: EndpointSlice): string | undefined {
    return labels?.[MANAGED_BY] === this.#manager && labels[SERVICE_NAME]
      ? `${namespace}/${labels[SERVICE_NAME]}`
      : undefined;
  }
}

const isNewer = (a: EndpointSlice, b: EndpointSlice): boolean =>
  Number(a.metadata.resourceVersion) > Number(b.metadata.resourceVersion);
