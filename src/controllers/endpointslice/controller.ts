/** EndpointSlices of Services with a selector, of each of the Service's families. Slices of others it leaves alone. */

import type { Node, Pod, Service } from '../../api/core/v1.gen.ts';
import type { EndpointSlice } from '../../api/discovery/v1.gen.ts';
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
import { type AddressType, addressTypes, type DesiredGroup, desiredGroups } from './desired.ts';
import { countRemoved, SliceMetrics } from './metrics.ts';
import { planSlices } from './plan.ts';
import { MANAGED_BY, SERVICE_NAME, SliceWriter } from './slice-writer.ts';
import { isAuto, withZoneHints, zoneShares } from './topology-mode.ts';

const MANAGER = 'endpointslice-controller.k8s.io';
const NODE_RETRY_MS = 1000;

// What of a node decides on hints; nodes change every few seconds by their heartbeats.
function zoneFacts({ metadata, status }: Node): string {
  const ready = status?.conditions?.find(({ type }) => type === 'Ready')?.status;
  return JSON.stringify([metadata.labels, ready, status?.allocatable?.['cpu']]);
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

function create(ctx: ReconcileContext): Controller {
  const selection = new ServiceSelection(ctx);
  const nodes = ctx.informers.get<Node>(NODES);
  const slices = new SliceWriter(ctx, MANAGER);
  const triggerTimes = new TriggerTimes();
  const hintsTold = new Map<string, string>();
  const told = new SliceMetrics(function* () {
    for (const service of selection.services.values())
      if (selectorPairs(service).length > 0) yield service.spec?.trafficDistribution;
  });

  // Told once for each Service and outcome.
  function hinted(
    service: Service,
    desired: readonly DesiredGroup[],
    addressType: AddressType,
  ): readonly DesiredGroup[] {
    const { groups, reason } = withZoneHints(desired, zoneShares(nodes.values()));
    const key = `${keyOf(service)} ${addressType}`;
    const outcome = reason ?? '';
    if (hintsTold.get(key) !== outcome) {
      hintsTold.set(key, outcome);
      if (reason !== undefined)
        ctx.events.event(service, 'Warning', 'TopologyAwareHintsDisabled', `${reason}, addressType: ${addressType}`);
      else
        ctx.events.event(
          service,
          'Normal',
          'TopologyAwareHintsEnabled',
          `Topology Aware Hints has been enabled, addressType: ${addressType}`,
        );
    }
    return groups;
  }

  async function reconcileFamily(
    service: Service,
    pods: readonly Pod[],
    options: { addressType: AddressType; existing: readonly EndpointSlice[]; triggerTime: string | undefined },
  ): Promise<boolean> {
    const { addressType, triggerTime } = options;
    const desired = desiredGroups(service, pods, { addressType, nodeOf: name => nodes.get(name) });
    const labels = labelsFor(service);
    const groups = isAuto(service) ? hinted(service, desired.groups, addressType) : desired.groups;
    const plan = planSlices(options.existing, groups, {
      metadataDiffers: slice => !semanticEqual(slice.metadata.labels, labels),
    });
    told.synced(`${keyOf(service)} ${addressType}`, { existing: options.existing, desired: groups, plan });
    await slices.apply(plan, {
      namespace: service.metadata.namespace!,
      generateName: `${service.metadata.name}-`,
      labels,
      annotations: ({ [LAST_CHANGE_TRIGGER_TIME]: _before, ...others }) => ({
        ...others,
        ...(triggerTime ? { [LAST_CHANGE_TRIGGER_TIME]: triggerTime } : {}),
      }),
      owner: controllerReference({ ...service, apiVersion: 'v1', kind: 'Service' }),
      addressType,
    });
    return desired.nodesMissing;
  }

  async function reconcile(key: string): Promise<Result | void> {
    const service = selection.services.get(key);
    if (!service) {
      for (const type of ['IPv4', 'IPv6']) hintsTold.delete(`${key} ${type}`);
      told.keep(key, []);
      return triggerTimes.forget(key);
    }
    if (service.metadata.deletionTimestamp || selectorPairs(service).length === 0) return told.keep(key, []);
    const pods = selection.podsOf(service);
    const existing = slices.existing(key);
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
      const others = existing.filter(slice => !families.includes(slice.addressType as AddressType));
      await slices.remove(others);
      countRemoved(others.length);
      told.keep(key, families);
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
      watch<EndpointSlice>(ENDPOINT_SLICES, change => slices.keysFor(change)),
      watch<Node>(NODES, change =>
        change.old && change.object && zoneFacts(change.old) === zoneFacts(change.object)
          ? []
          : [...selection.services.values()].filter(isAuto).map(keyOf),
      ),
    ],
    reconcile: ({ namespace, name }) => reconcile(`${namespace}/${name}`),
  };
}

export const endpointSlice: ControllerDefinition = {
  folder: 'endpointslice',
  component: 'endpoint-slice-controller',
  create,
};
