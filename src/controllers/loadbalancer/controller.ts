/**
 * Gives LoadBalancer Services addresses from IPAddressPools, as MetalLB's controller does, and takes them back when they
 * no longer fit. Invariant: one worker, and addresses written but not yet seen by the informer count as taken, so no address
 * is given out twice. It does not announce: each node's agent does (`src/loadbalancer`).
 */

import type { Namespace, Service } from '../../api/core/v1.gen.ts';
import { cloudPartsOf, type IPAddressPool, type LoadBalancerProvider } from '../../api/loadbalancer/v1beta1.ts';
import type { ObjectKey } from '../../api/meta.ts';
import { messageOf } from '../../base/errors.ts';
import type { Informer } from '../../client/informer.ts';
import { IP_ADDRESS_POOLS, LOAD_BALANCER_PROVIDERS, NAMESPACES, SERVICES } from '../../client/resources.ts';
import {
  type Change,
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  watch,
} from '../runtime/controller.ts';
import { addressesIn, allocate, type Claim, claimOf, isOurs } from './allocation.ts';
import { ensureDefinitions } from './definitions.ts';
import { capacityOf, type Pool, poolHolds, readPools } from './pool.ts';

/** Key of the one reconcile that looks at the pools themselves; no Service's key lacks a slash. */
const POOLS_KEY = 'pools';
/** Many Services come at once: their pools are counted afterwards. */
const REPORT_AFTER_MS = 300;
const BY_ADDRESS = 'load-balancer-address';

class LoadBalancerAddresses implements Controller {
  readonly name = 'loadbalancer';
  readonly workers = 1;
  readonly watches;
  readonly #ctx: ReconcileContext;
  readonly #services;
  readonly #namespaces;
  /** Service → addresses of it that are on their way into the informer. */
  readonly #written = new Map<string, { readonly addresses: readonly string[]; readonly service: Service }>();
  /** Once its kind is served. */
  readonly #pools = Promise.withResolvers<Informer<IPAddressPool>>();
  #elsewhere: ReadonlySet<string> = new Set();
  #read: readonly Pool[] | undefined;

  constructor(ctx: ReconcileContext) {
    this.#ctx = ctx;
    this.#services = ctx.informers.get<Service>(SERVICES);
    this.#namespaces = ctx.informers.get<Namespace>(NAMESPACES);
    this.#services.addIndex(BY_ADDRESS, service => (service.spec?.type === 'LoadBalancer' ? addressesIn(service) : []));
    this.watches = [
      watch<Service>(SERVICES, change => {
        const { metadata, spec } = latest(change);
        const key = `${metadata.namespace}/${metadata.name}`;
        this.#written.delete(key);
        const held = change.old ? addressesIn(change.old) : [];
        const own = change.deleted || spec.type !== 'LoadBalancer' ? [] : [key];
        if (held.length === 0 && own.length === 0) return [];
        ctx.enqueue(POOLS_KEY, REPORT_AFTER_MS);
        // What one gives back, or no longer insists on, another may have been waiting for.
        return held.length > 0 && (own.length === 0 || hasOtherClaim(change)) ? [...own, ...this.#waiting()] : own;
      }),
      watch<Namespace>(NAMESPACES, change => {
        if (!change.old || change.deleted || change.old.metadata.labels === change.object.metadata.labels) return [];
        const { name } = change.object.metadata;
        return [...this.#ours()].filter(key => key.startsWith(`${name}/`));
      }),
    ];
  }

  started(): void {
    const { informers, log, signal, clock } = this.#ctx;
    const prepare = async () => {
      await ensureDefinitions(this.#ctx);
      const pools = informers.get<IPAddressPool>(IP_ADDRESS_POOLS);
      pools.onChange(change => {
        if (change.old && !change.deleted && change.old.metadata.generation === change.object.metadata.generation)
          return;
        this.#read = undefined;
        for (const key of [POOLS_KEY, ...this.#ours()]) this.#ctx.enqueue(key);
      });
      const providers = informers.get<LoadBalancerProvider>(LOAD_BALANCER_PROVIDERS);
      await Promise.all([pools.synced, providers.synced]);
      providers.onChange(() => {
        const balancing = [...providers.values()].filter(one => cloudPartsOf(one).includes('LoadBalancer'));
        this.#elsewhere = new Set(balancing.map(({ spec }) => spec.loadBalancerClass ?? ''));
        for (const key of this.#ours()) this.#ctx.enqueue(key);
      });
      this.#pools.resolve(pools);
    };
    void retrying(prepare, { log, signal, clock });
  }

  async reconcile({ namespace, name }: ObjectKey): Promise<void> {
    const objects = await this.#pools.promise;
    const pools = (this.#read ??= readPools(objects.values()));
    if (!namespace) return this.#reportPools(objects, pools);
    const key = `${namespace}/${name}`;
    const service = this.#services.get(key);
    if (!service || service.metadata.deletionTimestamp || !isOurs(service, pools, this.#elsewhere)) return;
    const result = allocate({
      service,
      namespace: this.#namespaces.get(namespace),
      pools,
      claimsOn: address => this.#claimsOn(address),
    });
    const before = addressesIn(service);
    if (!('addresses' in result)) {
      this.#ctx.events.event(service, 'Warning', result.reason, result.message);
      if (before.length > 0) await this.#write(service, []);
      return;
    }
    const { addresses } = result;
    if (addresses.length === before.length && addresses.every((address, at) => address === before[at])) return;
    await this.#write(service, addresses);
    const list = addresses.map(address => `"${address}"`).join(' ');
    this.#ctx.events.event(service, 'Normal', 'IPAllocated', `Assigned IP [${list}]`);
  }

  *#ours(): Iterable<string> {
    for (const { metadata, spec } of this.#services.values())
      if (spec.type === 'LoadBalancer') yield `${metadata.namespace}/${metadata.name}`;
  }

  *#waiting(): Iterable<string> {
    for (const service of this.#services.values())
      if (service.spec.type === 'LoadBalancer' && addressesIn(service).length === 0)
        yield `${service.metadata.namespace}/${service.metadata.name}`;
  }

  #claimsOn(address: string): Claim[] {
    const claims = this.#services
      .byIndex(BY_ADDRESS, address)
      .filter(service => !this.#written.has(`${service.metadata.namespace}/${service.metadata.name}`))
      .map(claimOf);
    for (const { addresses, service } of this.#written.values())
      if (addresses.includes(address)) claims.push(claimOf(service));
    return claims;
  }

  async #write(service: Service, addresses: readonly string[]): Promise<void> {
    const key = `${service.metadata.namespace}/${service.metadata.name}`;
    const ingress = addresses.map(ip => ({ ip, ipMode: 'VIP' }));
    this.#written.set(key, { addresses, service });
    try {
      await this.#ctx.client.of<Service>(SERVICES).patchStatus(service.metadata.namespace!, service.metadata.name, {
        metadata: { uid: service.metadata.uid },
        status: { loadBalancer: { ingress: ingress.length > 0 ? ingress : null } },
      });
    } catch (error) {
      this.#written.delete(key);
      throw error;
    }
  }

  /** Says on each pool how much of it is used, and on a bad one what is wrong with it. */
  async #reportPools(objects: Informer<IPAddressPool>, pools: readonly Pool[]): Promise<void> {
    const used = new Set<string>();
    for (const service of this.#services.values())
      if (service.spec.type === 'LoadBalancer') for (const address of addressesIn(service)) used.add(address);
    for (const pool of pools) {
      const object = objects.get(pool.name);
      if (!object) continue;
      if (pool.problem) {
        this.#ctx.events.event(object, 'Warning', 'InvalidPool', pool.problem);
        continue;
      }
      const own = [...used].filter(address => poolHolds(pool, address));
      const assignedIPv6 = own.filter(address => address.includes(':')).length;
      const assignedIPv4 = own.length - assignedIPv6;
      const status = {
        assignedIPv4,
        assignedIPv6,
        availableIPv4: capacityOf(pool, 4) - assignedIPv4,
        availableIPv6: capacityOf(pool, 6) - assignedIPv6,
      };
      const known = object.status;
      if (known && Object.entries(status).every(([field, value]) => known[field as keyof typeof status] === value))
        continue;
      await this.#ctx.client.of<IPAddressPool>(IP_ADDRESS_POOLS).patchStatus('', pool.name, { status });
    }
  }
}

const RETRY_MS = 1000;

async function retrying(
  work: () => Promise<void>,
  { log, signal, clock }: Pick<ReconcileContext, 'log' | 'signal' | 'clock'>,
): Promise<void> {
  while (!signal.aborted) {
    try {
      return await work();
    } catch (error) {
      log.warn('address pools cannot be served yet, trying again', { error: messageOf(error) });
      await clock.sleep(RETRY_MS, signal);
    }
  }
}

function hasOtherClaim({ old, object }: Change<Service>): boolean {
  return (
    old !== undefined &&
    object !== undefined &&
    (JSON.stringify(claimOf(old)) !== JSON.stringify(claimOf(object)) ||
      addressesIn(old).some(address => !addressesIn(object).includes(address)))
  );
}

export const loadBalancer: ControllerDefinition = {
  folder: 'loadbalancer',
  component: 'coxswain-loadbalancer-controller',
  create: ctx => new LoadBalancerAddresses(ctx),
};
