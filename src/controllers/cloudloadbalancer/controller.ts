/**
 * The service controller of a cloud: has a provider (LoadBalancerProvider, `provider.ts`) make, change and take down a load balancer
 * for each Service that is its to serve. Invariant: a Service carries the cleanup finalizer from before its load balancer is asked for
 * until it is known to be gone. Events and order are upstream's; failures come back after 5 s to 5 min.
 */

import type { Node, Service } from '../../api/core/v1.gen.ts';
import { cloudPartsOf, type LoadBalancerProvider } from '../../api/loadbalancer/v1beta1.ts';
import type { ObjectKey } from '../../api/meta.ts';
import { Backoff } from '../../base/backoff.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import type { Informer } from '../../client/informer.ts';
import { LOAD_BALANCER_PROVIDERS, NODES, SERVICES } from '../../client/resources.ts';
import { CLOUD_CLUSTER, isElsewhere } from '../runtime/cloud-clients.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';
import { changesHosts, changesTold, demandOf, FINALIZER, hasFinalizer, takesTraffic } from './change.ts';
import { Provider } from './provider.ts';

const RETRY_MS_MIN = 5_000;
const RETRY_MS_MAX = 300_000;

/** What a load balancer was last made of. */
interface Made {
  readonly demand: string;
  readonly hosts: string;
}

class CloudLoadBalancers implements Controller {
  readonly name = 'service-lb';
  // As upstream's concurrent-service-syncs.
  readonly workers = 1;
  readonly watches;
  readonly #ctx: ReconcileContext;
  readonly #services;
  readonly #nodes;
  readonly #made = new Map<string, Made>();
  readonly #backoff;
  /** By class; '' serves Services without one. */
  readonly #providers = new Map<string, Provider>();
  readonly #ready = Promise.withResolvers<void>();

  constructor(ctx: ReconcileContext) {
    this.#ctx = ctx;
    this.#backoff = new Backoff({ initialMs: RETRY_MS_MIN, maxMs: RETRY_MS_MAX, clock: ctx.clock });
    this.#services = ctx.informers.get<Service>(SERVICES);
    this.#nodes = ctx.informers.get<Node>(NODES);
    this.watches = [
      watch<Service>(SERVICES, change => {
        const service = latest(change);
        const key = keyOf(service);
        if (change.deleted) this.#made.delete(key);
        if (!this.#concerns(service) && !(change.old && this.#concerns(change.old))) return [];
        if (change.old && !change.deleted)
          for (const [reason, message] of changesTold(change.old, change.object))
            ctx.events.event(change.object, 'Normal', reason, message);
        return [key];
      }),
      watch<Node>(NODES, change => (changesHosts(change.old, change.object) ? this.#all() : [])),
    ];
  }

  started(): void {
    const { informers } = this.#ctx;
    const providers = informers.get<LoadBalancerProvider>(LOAD_BALANCER_PROVIDERS);
    const read = () => {
      this.#read(providers);
      for (const key of this.#all()) this.#ctx.enqueue(key);
    };
    void providers.synced.then(() => {
      read();
      providers.onChange(read);
      this.#ready.resolve();
    });
  }

  async reconcile({ namespace, name }: ObjectKey): Promise<Result | void> {
    await this.#ready.promise;
    const key = `${namespace}/${name}`;
    const service = this.#services.get(key);
    if (!service) return;
    try {
      const isWanted = service.spec.type === 'LoadBalancer' && !service.metadata.deletionTimestamp;
      const provider = this.#providers.get(service.spec.loadBalancerClass ?? '');
      if (isWanted && provider) await this.#ensure(service, provider);
      else if (!isWanted && hasFinalizer(service)) await this.#cleanUp(service);
      this.#backoff.reset(key);
    } catch (error) {
      if (isReason(error, 'Conflict')) throw error;
      this.#ctx.events.event(
        service,
        'Warning',
        'SyncLoadBalancerFailed',
        `Error syncing load balancer: ${messageOf(error)}`,
      );
      return { requeueAfterMs: this.#backoff.next(key) };
    }
  }

  async #ensure(service: Service, provider: Provider): Promise<void> {
    const { events } = this.#ctx;
    const key = keyOf(service);
    const nodes = [...this.#nodes.values()].filter(takesTraffic);
    const wanted: Made = { demand: `${provider.socket} ${demandOf(service)}`, hosts: hostsOf(nodes) };
    const made = this.#made.get(key);
    if (made?.demand === wanted.demand) {
      if (made.hosts !== wanted.hosts) await this.#update(service, provider, nodes);
      this.#made.set(key, wanted);
      return;
    }
    events.event(service, 'Normal', 'EnsuringLoadBalancer', 'Ensuring load balancer');
    await because('failed to add load balancer cleanup finalizer', this.#setFinalizer(service, true));
    if (nodes.length === 0) this.#tellNoNodes(service);
    let ingress: Awaited<ReturnType<Provider['ensure']>>;
    try {
      ingress = await because('failed to ensure load balancer', provider.ensure(service, nodes));
    } catch (error) {
      if (!isElsewhere((error as Error).cause)) throw error;
      this.#made.set(key, wanted);
      return;
    }
    await because('failed to update load balancer status', this.#setStatus(service, ingress));
    this.#made.set(key, wanted);
    events.event(service, 'Normal', 'EnsuredLoadBalancer', 'Ensured load balancer');
  }

  async #update(service: Service, provider: Provider, nodes: readonly Node[]): Promise<void> {
    const { events } = this.#ctx;
    try {
      await provider.update(service, nodes);
    } catch (error) {
      if (isElsewhere(error)) return;
      // One that is gone is made anew by whatever wants it.
      if (!(await provider.exists(service).catch(() => true))) return;
      const names = nodes.map(({ metadata }) => metadata.name).join(' ');
      events.event(
        service,
        'Warning',
        'UpdateLoadBalancerFailed',
        `Error updating load balancer with new hosts [${names}]: ${messageOf(error)}`,
      );
      throw error;
    }
    if (nodes.length === 0) this.#tellNoNodes(service);
    else events.event(service, 'Normal', 'UpdatedLoadBalancer', 'Updated load balancer with new hosts');
  }

  async #cleanUp(service: Service): Promise<void> {
    const { events } = this.#ctx;
    const of = service.spec.loadBalancerClass;
    // The class goes with the type: then whoever has its load balancer takes it down.
    const known = [...this.#providers].filter(([name]) => service.spec.type !== 'LoadBalancer' || name === (of ?? ''));
    if (known.length === 0)
      throw new Error(
        `no LoadBalancerProvider serves ${of ? `class ${of}` : 'it'} any more; remove the finalizer ${FINALIZER} once its load balancer is gone`,
      );
    for (const [, provider] of known) {
      const exists = await because(
        'failed to check if load balancer exists before cleanup',
        provider.exists(service).catch(error => {
          if (isElsewhere(error)) return false;
          throw error;
        }),
      );
      if (!exists) continue;
      events.event(service, 'Normal', 'DeletingLoadBalancer', 'Deleting load balancer');
      await because('failed to delete load balancer', provider.ensureDeleted(service));
    }
    this.#made.delete(keyOf(service));
    if (!service.metadata.deletionTimestamp)
      await because('failed to update load balancer status', this.#setStatus(service, []));
    await because('failed to remove load balancer cleanup finalizer', this.#setFinalizer(service, false));
    events.event(service, 'Normal', 'DeletedLoadBalancer', 'Deleted load balancer');
  }

  #tellNoNodes(service: Service): void {
    this.#ctx.events.event(
      service,
      'Warning',
      'UnAvailableLoadBalancer',
      'There are no available nodes for LoadBalancer',
    );
  }

  #concerns(service: Service): boolean {
    if (hasFinalizer(service)) return true;
    return service.spec.type === 'LoadBalancer' && this.#providers.has(service.spec.loadBalancerClass ?? '');
  }

  *#all(): Iterable<string> {
    for (const service of this.#services.values()) if (this.#concerns(service)) yield keyOf(service);
  }

  #read(objects: Informer<LoadBalancerProvider>): void {
    const { signal } = this.#ctx;
    const wanted = new Map<string, string>();
    const byName = [...objects.values()]
      .filter(object => cloudPartsOf(object).includes('LoadBalancer'))
      .sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
    for (const object of byName) {
      const { loadBalancerClass = '', socket } = object.spec;
      if (!wanted.has(loadBalancerClass)) wanted.set(loadBalancerClass, socket);
      else
        this.#ctx.events.event(
          object,
          'Warning',
          'NotUsed',
          `another LoadBalancerProvider serves ${loadBalancerClass ? `class ${loadBalancerClass}` : 'Services without a class'}`,
        );
    }
    for (const [name, provider] of this.#providers)
      if (wanted.get(name) !== provider.socket) {
        provider.close();
        this.#providers.delete(name);
      }
    for (const [name, socket] of wanted)
      if (!this.#providers.has(name))
        this.#providers.set(name, new Provider({ socket, cluster: CLOUD_CLUSTER, signal }));
  }

  async #setFinalizer({ metadata }: Service, wanted: boolean): Promise<void> {
    const finalizers = metadata.finalizers ?? [];
    if (finalizers.includes(FINALIZER) === wanted) return;
    await this.#ctx.client.of<Service>(SERVICES).patch(metadata.namespace!, metadata.name, {
      metadata: {
        uid: metadata.uid,
        resourceVersion: metadata.resourceVersion,
        finalizers: wanted ? [...finalizers, FINALIZER] : finalizers.filter(one => one !== FINALIZER),
      },
    });
  }

  async #setStatus({ metadata, status }: Service, ingress: readonly object[]): Promise<void> {
    if (JSON.stringify(status?.loadBalancer?.ingress ?? []) === JSON.stringify(ingress)) return;
    await this.#ctx.client.of<Service>(SERVICES).patchStatus(metadata.namespace!, metadata.name, {
      metadata: { uid: metadata.uid },
      status: { loadBalancer: { ingress: ingress.length > 0 ? ingress : null } },
    });
  }
}

const keyOf = ({ metadata }: Service): string => `${metadata.namespace}/${metadata.name}`;

function hostsOf(nodes: readonly Node[]): string {
  return nodes
    .map(({ metadata, spec }) => `${metadata.name} ${spec?.providerID ?? ''}`)
    .sort()
    .join();
}

async function because<T>(what: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (isReason(error, 'Conflict')) throw error;
    throw new Error(`${what}: ${messageOf(error)}`, { cause: error });
  }
}

export const cloudLoadBalancer: ControllerDefinition = {
  folder: 'cloudloadbalancer',
  component: 'service-controller',
  create: ctx => new CloudLoadBalancers(ctx),
};
