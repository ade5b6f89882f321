/**
 * EndpointSlices for Endpoints that somebody wrote by hand: of Services without a selector, unless their author says
 * `endpointslice.kubernetes.io/skip-mirror`. What is not to be mirrored any more has its slices removed.
 */

import type { Endpoints, Service } from '../../api/core/v1.gen.ts';
import type { EndpointSlice } from '../../api/discovery/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { keyOf } from '../../api/meta.ts';
import { isReason } from '../../base/errors.ts';
import { ENDPOINT_SLICES, ENDPOINTS, SERVICES } from '../../client/resources.ts';
import type { AddressType } from '../endpointslice/desired.ts';
import { planSlices } from '../endpointslice/plan.ts';
import { MANAGED_BY, SERVICE_NAME, SliceWriter } from '../endpointslice/slice-writer.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  watch,
} from '../runtime/controller.ts';
import { controllerReference } from '../runtime/ownership.ts';
import { isNamespaceTerminating } from '../runtime/pod-control.ts';
import { ADDRESSES_PER_SUBSET_MAX, copiedAnnotations, isMirrored, mirrorOf } from './mirror.ts';

const MANAGER = 'endpointslicemirroring-controller.k8s.io';

function create(ctx: ReconcileContext): Controller {
  const services = ctx.informers.get<Service>(SERVICES);
  const endpoints = ctx.informers.get<Endpoints>(ENDPOINTS);
  const slices = new SliceWriter(ctx, MANAGER);

  async function write(source: Endpoints, existing: readonly EndpointSlice[]): Promise<void> {
    const { name, namespace = '', labels: own = {} } = source.metadata;
    const { groups, invalid, skipped } = mirrorOf(source);
    const labels = { ...own, [SERVICE_NAME]: name, [MANAGED_BY]: MANAGER };
    const annotations = copiedAnnotations(source);
    let changes = 0;
    for (const addressType of ['IPv4', 'IPv6'] satisfies AddressType[]) {
      const plan = planSlices(
        existing.filter(slice => slice.addressType === addressType),
        groups[addressType],
        {
          metadataDiffers: slice =>
            !semanticEqual(slice.metadata.labels, labels) ||
            !semanticEqual(slice.metadata.annotations ?? {}, annotations),
          endpointsMax: ADDRESSES_PER_SUBSET_MAX,
          placeholder: false,
        },
      );
      changes += plan.create.length + plan.update.length;
      await slices.apply(plan, {
        namespace,
        generateName: `${name}-`,
        labels,
        annotations: () => annotations,
        owner: controllerReference({ ...source, apiVersion: 'v1', kind: 'Endpoints' }),
        addressType,
      });
    }
    if (changes === 0) return;
    if (invalid > 0)
      warn(source, 'InvalidIPAddress', `Skipped ${invalid} invalid IP addresses when mirroring to EndpointSlices`);
    if (skipped > 0)
      warn(
        source,
        'TooManyAddressesToMirror',
        `A max of ${ADDRESSES_PER_SUBSET_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. ${skipped} addresses were skipped`,
      );
  }

  function warn(source: Endpoints, reason: string, message: string): void {
    ctx.events.event({ ...source, apiVersion: 'v1', kind: 'Endpoints' }, 'Warning', reason, message);
  }

  async function reconcile(key: string): Promise<void> {
    const service = services.get(key);
    const source = endpoints.get(key);
    const existing = slices.existing(key);
    const selects = Object.keys(service?.spec.selector ?? {}).length > 0;
    if (!service || !source || selects || !isMirrored(source)) return slices.remove(existing);
    if (source.metadata.deletionTimestamp) return;
    try {
      await write(source, existing);
    } catch (error) {
      if (isNamespaceTerminating(error)) return;
      if (!isReason(error, 'Conflict', 'NotFound'))
        warn(
          source,
          'FailedToUpdateEndpointSlices',
          `Error updating Endpoint Slices for Endpoints ${key}: ${(error as Error).message}`,
        );
      throw error;
    }
  }

  return {
    name: 'endpointslicemirroring',
    watches: [
      watch<Service>(SERVICES, change => [keyOf(latest(change))]),
      watch<Endpoints>(ENDPOINTS, change => [keyOf(latest(change))]),
      watch<EndpointSlice>(ENDPOINT_SLICES, change => slices.keysFor(change)),
    ],
    reconcile: ({ namespace, name }) => reconcile(`${namespace}/${name}`),
  };
}

export const endpointSliceMirroring: ControllerDefinition = {
  folder: 'endpointslicemirroring',
  component: 'endpoint-slice-mirroring-controller',
  create,
};
