/**
 * EndpointSlices from whatever API server there is: of discovery.k8s.io/v1, or, before Kubernetes 1.21, of v1beta1, read as if they were v1.
 * Nothing else is changed, and nothing is written.
 */

import type { Endpoint, EndpointSlice } from '../api/discovery/v1.gen.ts';
import type { KubeObject, WatchEvent } from '../api/meta.ts';
import { failure, isReason } from '../base/errors.ts';
import { ENDPOINT_SLICES } from './resources.ts';
import type { ResourceId, Target, Transport } from './transport.ts';

const OLDER: ResourceId = { ...ENDPOINT_SLICES, version: 'v1beta1' };
const HOST = 'kubernetes.io/hostname';
const ZONE = 'topology.kubernetes.io/zone';

/** Of v1beta1: places in one map. */
interface OlderEndpoint extends Endpoint {
  readonly topology?: Readonly<Record<string, string>>;
}

/**
 * The transport by which slices can be read. Throws BadRequest where the server is known to have none; one that cannot be asked is taken
 * to have those of v1.
 */
export async function transportOfSlices(transport: Transport): Promise<Transport> {
  if (await serves(transport, ENDPOINT_SLICES)) return transport;
  if (await serves(transport, OLDER)) return new OlderSlices(transport);
  throw failure(
    400,
    'BadRequest',
    'this API server does not serve EndpointSlices (discovery.k8s.io/v1 or v1beta1); that takes Kubernetes 1.17 or newer',
  );
}

async function serves(transport: Transport, of: ResourceId): Promise<boolean> {
  try {
    await transport.list({ of }, { limit: 1 });
    return true;
  } catch (error) {
    return !isReason(error, 'NotFound');
  }
}

class OlderSlices implements Transport {
  readonly #transport: Transport;
  readonly create: Transport['create'];
  readonly update: Transport['update'];
  readonly patch: Transport['patch'];
  readonly delete: Transport['delete'];
  readonly deleteCollection: Transport['deleteCollection'];

  constructor(transport: Transport) {
    this.#transport = transport;
    this.create = (...call) => transport.create(...call);
    this.update = (...call) => transport.update(...call);
    this.patch = (...call) => transport.patch(...call);
    this.delete = (...call) => transport.delete(...call);
    this.deleteCollection = (...call) => transport.deleteCollection(...call);
  }

  async get(target: Target): Promise<KubeObject> {
    const object = await this.#transport.get(older(target));
    return isSlices(target) ? asV1(object) : object;
  }
  async list(target: Target, options?: Parameters<Transport['list']>[1]) {
    const list = await this.#transport.list(older(target), options);
    return isSlices(target) ? { ...list, items: list.items.map(asV1) } : list;
  }
  async *watch(
    target: Target,
    ...rest: [Parameters<Transport['watch']>[1], AbortSignal]
  ): AsyncIterable<readonly WatchEvent[]> {
    for await (const batch of this.#transport.watch(older(target), ...rest))
      yield isSlices(target) ? batch.map(eventAsV1) : batch;
  }
}

const eventAsV1 = (event: WatchEvent): WatchEvent =>
  event.type === 'ADDED' || event.type === 'MODIFIED' || event.type === 'DELETED'
    ? { ...event, object: asV1(event.object) }
    : event;
const isSlices = ({ of }: Target): boolean => of === ENDPOINT_SLICES;
const older = (target: Target): Target => (isSlices(target) ? { ...target, of: OLDER } : target);

export function asV1(object: KubeObject): EndpointSlice {
  const { endpoints, ...slice } = object as EndpointSlice;
  return Object.freeze({
    ...slice,
    apiVersion: 'discovery.k8s.io/v1',
    endpoints: (endpoints ?? []).map(({ topology, ...endpoint }: OlderEndpoint): Endpoint => {
      const { [HOST]: host, [ZONE]: zone, ...rest } = topology ?? {};
      const nodeName = endpoint.nodeName ?? host;
      return {
        ...endpoint,
        ...(nodeName === undefined ? {} : { nodeName }),
        ...(zone === undefined ? {} : { zone }),
        ...(Object.keys(rest).length > 0 ? { deprecatedTopology: rest } : {}),
      };
    }),
  });
}
