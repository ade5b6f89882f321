/**
 * EndpointSlices of Services with a selector. Invariant: it writes only slices that carry its managed-by label; while the
 * informer lags behind its own writes it works on what it wrote, so no slice is made twice.
 */

import type { Node, Pod, Service } from '../../api/core/v1.gen.ts';
import type { Endpoint, EndpointSlice } from '../../api/discovery/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { keyOf } from '../../api/meta.ts';
import { isReason } from '../../base/errors.ts';
import { ENDPOINT_SLICES, NODES, PODS, SERVICES } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';
import { controllerReference } from '../runtime/ownership.ts';
import { isNamespaceTerminating } from '../runtime/pod-control.ts';
import {
  HEADLESS,
  isHeadless,
  LAST_CHANGE_TRIGGER_TIME,
  ServiceSelection,
  selectorPairs,
  TriggerTimes,
} from '../runtime/service-selection.ts';
import { type AddressType, addressTypes, desiredGroups } from './desired.ts';
import { type Content, planSlices } from './plan.ts';

const SERVICE_NAME = 'kubernetes.io/service-name';
const MANAGED_BY = 'endpointslice.kubernetes.io/managed-by';
const MANAGER = 'endpointslice-controller.k8s.io';
const SERVICE_INDEX = 'service';
const NODE_RETRY_MS = 1000;

function slicesKey(slice: EndpointSlice): string | undefined {
  const { labels, namespace } = slice.metadata;
  return labels?.[MANAGED_BY] === MANAGER && labels[SERVICE_NAME] ? `${namespace}/${labels[SERVICE_NAME]}` : undefined;
}

function labelsFor(service: Service): Record<string, string> {
  const labels = { ...service.metadata.labels };
  delete labels[HEADLESS];
  return {
    ...labels,
    ...(isHeadless(service) ? { [HEADLESS]: '' } : {}),
    [SERVICE_NAME]: service.metadata.name,
    [MANAGED_BY]: MANAGER,
  };
}

const isNewer = (a: EndpointSlice, b: EndpointSlice): boolean =>
  Number(a.metadata.resourceVersion) > Number(b.metadata.resourceVersion);

/** Slices as the controller last wrote them, for as long as the informer shows something older. */
class Written {
  readonly #byUid = new Map<string, { slice: EndpointSlice; deleted: boolean }>();

  note(slice: EndpointSlice, options: { deleted: boolean }): void {
    this.#byUid.set(slice.metadata.uid!, { slice, deleted: options.deleted });
  }
  /** The informer has shown this state, or the deletion. */
  seen(slice: EndpointSlice, options: { deleted: boolean }): void {
    const written = this.#byUid.get(slice.metadata.uid!);
    if (written && (options.deleted || (!written.deleted && !isNewer(written.slice, slice))))
      this.#byUid.delete(slice.metadata.uid!);
  }
  /** The informer's slices of a Service, brought up to date. */
  over(key: string, slices: readonly EndpointSlice[]): EndpointSlice[] {
    const current = new Map(slices.map(slice => [slice.metadata.uid!, slice]));
    for (const [uid, { slice, deleted }] of this.#byUid) {
      if (slicesKey(slice) !== key) continue;
      if (deleted) current.delete(uid);
      else current.set(uid, slice);
    }
    return [...current.values()];
  }
}

function create(ctx: ReconcileContext): Controller {
  const selection = new ServiceSelection(ctx);
  const nodes = ctx.informers.get<Node>(NODES);
  const slices = ctx.informers.get<EndpointSlice>(ENDPOINT_SLICES);
  slices.addIndex(SERVICE_INDEX, slice => [slicesKey(slice) ?? '']);
  const client = ctx.client.of<EndpointSlice>(ENDPOINT_SLICES);
  const triggerTimes = new TriggerTimes();
  const written = new Written();

  function draft(
    service: Service,
    addressType: AddressType,
    content: Content,
    triggerTime: string | undefined,
  ): EndpointSlice {
    return {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: {
        generateName: `${service.metadata.name}-`,
        namespace: service.metadata.namespace!,
        labels: labelsFor(service),
        ...(triggerTime ? { annotations: { [LAST_CHANGE_TRIGGER_TIME]: triggerTime } } : {}),
        ownerReferences: [controllerReference({ ...service, apiVersion: 'v1', kind: 'Service' })],
      } as EndpointSlice['metadata'],
      addressType,
      endpoints: [...content.endpoints],
      ports: [...content.ports],
    };
  }

  async function update(
    service: Service,
    slice: EndpointSlice,
    endpoints: readonly Endpoint[],
    triggerTime: string | undefined,
  ): Promise<void> {
    const { [LAST_CHANGE_TRIGGER_TIME]: _before, ...annotations } = slice.metadata.annotations ?? {};
    if (triggerTime) annotations[LAST_CHANGE_TRIGGER_TIME] = triggerTime;
    written.note(
      await client.update({
        ...slice,
        metadata: { ...slice.metadata, labels: labelsFor(service), annotations },
        endpoints: [...endpoints],
      }),
      { deleted: false },
    );
  }

  async function remove(slice: EndpointSlice): Promise<void> {
    written.note(slice, { deleted: true });
    try {
      await client.delete(slice.metadata.namespace!, slice.metadata.name, {
        preconditions: { uid: slice.metadata.uid! },
      });
    } catch (error) {
      written.seen(slice, { deleted: true });
      if (!isReason(error, 'NotFound')) throw error;
    }
  }

  async function reconcileFamily(
    service: Service,
    pods: readonly Pod[],
    options: { addressType: AddressType; existing: readonly EndpointSlice[]; triggerTime: string | undefined },
  ): Promise<boolean> {
    const { addressType, triggerTime } = options;
    const { groups, nodesMissing } = desiredGroups(service, pods, { addressType, nodeOf: name => nodes.get(name) });
    const labels = labelsFor(service);
    const plan = planSlices(options.existing, groups, {
      addressType,
      labelsDiffer: slice => !semanticEqual(slice.metadata.labels, labels),
    });
    await Promise.all([
      ...plan.create.map(async content =>
        written.note(await client.create(draft(service, addressType, content, triggerTime)), { deleted: false }),
      ),
      ...plan.update.map(({ slice, endpoints }) => update(service, slice, endpoints, triggerTime)),
    ]);
    // Only after the new slices are there, so that no endpoint is missing in between.
    await Promise.all(plan.delete.map(remove));
    return nodesMissing;
  }

  async function reconcile(key: string): Promise<Result | void> {
    const service = selection.services.get(key);
    if (!service) return triggerTimes.forget(key);
    if (service.metadata.deletionTimestamp || selectorPairs(service).length === 0) return;
    const pods = selection.podsOf(service);
    const existing = written
      .over(key, slices.byIndex(SERVICE_INDEX, key))
      .filter(slice => !slice.metadata.deletionTimestamp);
    const triggerTime = triggerTimes.next(service, pods);
    const families = addressTypes(service);
    let nodesMissing = false;
    try {
      for (const addressType of families) {
        nodesMissing =
          (await reconcileFamily(service, pods, {
            addressType,
            existing: existing.filter(slice => slice.addressType === addressType),
            triggerTime,
          })) || nodesMissing;
      }
      await Promise.all(existing.filter(slice => !families.includes(slice.addressType as AddressType)).map(remove));
    } catch (error) {
      if (isNamespaceTerminating(error)) return;
      if (!isReason(error, 'Conflict', 'NotFound'))
        ctx.events.event(
          service,
          'Warning',
          'FailedToUpdateEndpointSlices',
          `Error updating Endpoint Slices for Service ${key}: ${(error as Error).message}`,
        );
      throw error;
    }
    if (nodesMissing) return { requeueAfterMs: NODE_RETRY_MS };
  }

  return {
    name: 'endpointslice',
    watches: [
      watch<Service>(SERVICES, change => [keyOf(latest(change))]),
      watch<Pod>(PODS, change => selection.keysFor(change)),
      watch<EndpointSlice>(ENDPOINT_SLICES, change => {
        written.seen(latest(change), { deleted: change.deleted });
        const key = slicesKey(latest(change)) ?? (change.old && slicesKey(change.old));
        return key ? [key] : [];
      }),
      watch<Node>(NODES, () => []),
    ],
    reconcile: ({ namespace, name }) => reconcile(`${namespace}/${name}`),
  };
}

export const endpointSlice: ControllerDefinition = {
  folder: 'endpointslice',
  component: 'endpoint-slice-controller',
  create,
};
