/** Legacy Endpoints of Services with a selector; one object a Service, of its name. EndpointSlices are what proxies read. */

import type { Endpoints, Pod, Service } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { keyOf } from '../../api/meta.ts';
import { isReason } from '../../base/errors.ts';
import { ENDPOINTS, PODS, SERVICES } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  watch,
} from '../runtime/controller.ts';
import { isNamespaceTerminating } from '../runtime/pod-control.ts';
import {
  HEADLESS,
  isHeadless,
  LAST_CHANGE_TRIGGER_TIME,
  ServiceSelection,
  selectorPairs,
  TriggerTimes,
} from '../runtime/service-selection.ts';
import { endpointSubsets } from './subsets.ts';

const OVER_CAPACITY = 'endpoints.kubernetes.io/over-capacity';
const MANAGED_BY = 'endpoints.kubernetes.io/managed-by';

function create(ctx: ReconcileContext): Controller {
  const selection = new ServiceSelection(ctx);
  const endpoints = ctx.informers.get<Endpoints>(ENDPOINTS);
  const client = ctx.client.of<Endpoints>(ENDPOINTS);
  const triggerTimes = new TriggerTimes();

  async function remove(namespace: string, name: string): Promise<void> {
    triggerTimes.forget(`${namespace}/${name}`);
    if (!endpoints.get(`${namespace}/${name}`)) return;
    try {
      await client.delete(namespace, name);
    } catch (error) {
      if (!isReason(error, 'NotFound')) throw error;
    }
  }

  async function write(service: Service): Promise<void> {
    const { name, namespace = '' } = service.metadata;
    const pods = selection.podsOf(service);
    const { subsets, truncated } = endpointSubsets(service, pods);
    const current = endpoints.get(keyOf(service));
    const { [HEADLESS]: _headless, ...serviceLabels } = service.metadata.labels ?? {};
    const labels = {
      ...serviceLabels,
      ...(isHeadless(service) ? { [HEADLESS]: '' } : {}),
      [MANAGED_BY]: 'endpoint-controller',
    };
    const overCapacity = current?.metadata.annotations?.[OVER_CAPACITY];
    const same =
      current &&
      semanticEqual(current.subsets, subsets) &&
      semanticEqual(current.metadata.labels, labels) &&
      (overCapacity === 'truncated') === truncated;
    const triggerTime = triggerTimes.next(service, pods);
    if (same) return;
    const {
      [LAST_CHANGE_TRIGGER_TIME]: _time,
      [OVER_CAPACITY]: _capacity,
      ...kept
    } = current?.metadata.annotations ?? {};
    const annotations = {
      ...kept,
      ...(triggerTime ? { [LAST_CHANGE_TRIGGER_TIME]: triggerTime } : {}),
      ...(truncated ? { [OVER_CAPACITY]: 'truncated' } : {}),
    };
    if (current)
      return void (await client.update({
        ...current,
        metadata: { ...current.metadata, labels, annotations },
        subsets,
      }));
    await client.create({
      apiVersion: 'v1',
      kind: 'Endpoints',
      metadata: { name, namespace, labels, annotations },
      subsets,
    });
  }

  return {
    name: 'endpoints',
    watches: [
      watch<Service>(SERVICES, change => [keyOf(latest(change))]),
      watch<Pod>(PODS, change => selection.keysFor(change)),
      watch<Endpoints>(ENDPOINTS, change => (change.deleted ? [keyOf(change.old)] : [])),
    ],
    async reconcile({ namespace, name }) {
      const service = selection.services.get(`${namespace}/${name}`);
      if (!service) return remove(namespace, name);
      if (selectorPairs(service).length === 0 || service.metadata.deletionTimestamp) return;
      try {
        await write(service);
      } catch (error) {
        if (isNamespaceTerminating(error)) return;
        throw error;
      }
    },
  };
}

export const endpoints: ControllerDefinition = { folder: 'endpoints', component: 'endpoint-controller', create };
