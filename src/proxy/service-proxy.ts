/**
 * kube-proxy of one node: follows Services and EndpointSlices and keeps a backend at the table that they ask for.
 * Invariant: nothing is programmed before both have been listed once, and nothing removed before everything is programmed,
 * so a restart never takes a Service away. The first change after a pause is programmed at once; changes that come while
 * one is being programmed, or within the pause after it, go together. What somebody else does to the rules is repaired at once.
 */

import type { Node, Service } from '../api/core/v1.gen.ts';
import type { EndpointSlice } from '../api/discovery/v1.gen.ts';
import { keyOf } from '../api/meta.ts';
import type { ServiceCIDR } from '../api/networking/v1.gen.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { EventRecorder } from '../client/event-recorder.ts';
import type { Informer, InformerFactory } from '../client/informer.ts';
import { ENDPOINT_SLICES, NODES, SERVICE_CIDRS, SERVICES } from '../client/resources.ts';
import type { ProxyBackend } from './backend.ts';
import { Claims } from './claims.ts';
import { ClusterAddresses } from './cluster-addresses.ts';
import { inOrderOf } from './endpoint-order.ts';
import {
  entryOf,
  type NodeView,
  SERVICE_NAME_LABEL,
  type ServiceEntry,
  type ServiceTable,
  sameEntry,
} from './model.ts';
import {
  endpointChanges,
  type Family,
  lastQueuedSeconds,
  lastSyncSeconds,
  networkProgrammingSeconds,
  repairs,
  serviceChanges,
  syncFailures,
  syncSeconds,
} from './proxy-metrics.ts';

/** Between two programmings: a burst of changes becomes few transactions. */
const PAUSE_MS = 10;
// Damage is signalled; this is for what no signal tells of, such as new addresses of the node.
const CHECK_MS = 5000;
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 10_000;
/** What kube-proxy allows a change to wait before it calls itself unhealthy: twice its sync period. */
const HEALTHY_MS_MAX = 60_000;
// Nodes and ServiceCIDRs say whose addresses are; a server that does not have or give them must not keep Services away.
const RANGES_WAIT_MS_MAX = 1000;
const TRIGGER_TIME_ANNOTATION = 'endpoints.kubernetes.io/last-change-trigger-time';
const ZONE_LABEL = 'topology.kubernetes.io/zone';
const BY_SERVICE = 'by-service';

export interface ServiceProxyOptions {
  readonly informers: InformerFactory;
  readonly nodeName: string;
  readonly backend: ProxyBackend;
  /** Service addresses that the node itself serves, such as the cluster DNS's: they get no rules. */
  readonly localVips?: readonly string[];
  /** Ranges of pods and of Services: their addresses cannot be taken by `externalIPs`. Nodes' and ServiceCIDRs' are learned. */
  readonly podRanges?: readonly string[];
  readonly serviceRanges?: readonly string[];
  /** Ranges that an administrator lets Services take although they are the cluster's. */
  readonly allowedExternalRanges?: readonly string[];
  /** Told on the Service about addresses that it does not get. */
  readonly events?: EventRecorder;
  /** Of the cluster's addresses, for the metrics. */
  readonly families?: readonly Family[];
  readonly log: Logger;
  readonly clock?: Clock;
}

export interface ProxyHealth {
  readonly healthy: boolean;
  /** Wall clock; undefined before the first programming. */
  readonly lastUpdatedMs: number | undefined;
  /** False while the node is being removed: load balancers are to look elsewhere. */
  readonly nodeEligible: boolean;
}

export class ServiceProxy {
  readonly #options: ServiceProxyOptions;
  readonly #backend: ProxyBackend;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #services: Informer<Service>;
  readonly #slices: Informer<EndpointSlice>;
  readonly #nodes: Informer<Node>;
  readonly #serviceCidrs: Informer<ServiceCIDR>;
  readonly #claims = new Claims();
  readonly #families: readonly Family[];
  readonly #startedMs: number;
  /** Services to look at anew, and since when their endpoints had changed (wall clock). */
  readonly #dirty = new Map<string, number | undefined>();
  readonly #listeners: ((table: ServiceTable) => void)[] = [];
  #addresses: ClusterAddresses;
  #zone: string | undefined;
  #table: ServiceTable = new Map();
  /** What the backend was last given with success. */
  #programmed: ServiceTable | undefined;
  #pendingSinceMs: number | undefined;
  #lastUpdatedMs: number | undefined;
  #isDamaged = false;
  #wake: (() => void) | undefined;
  #resolveSynced!: () => void;
  /** Resolves when the first programming and pruning is done. */
  readonly synced: Promise<void>;

  constructor(options: ServiceProxyOptions) {
    this.#families = options.families ?? ['IPv4'];
    this.#options = options;
    this.#backend = options.backend;
    this.#log = options.log.with({ component: 'proxy' });
    this.#clock = options.clock ?? systemClock;
    this.#startedMs = this.#clock.now();
    this.#services = options.informers.get<Service>(SERVICES);
    this.#slices = options.informers.get<EndpointSlice>(ENDPOINT_SLICES);
    this.#nodes = options.informers.get<Node>(NODES);
    this.#serviceCidrs = options.informers.get<ServiceCIDR>(SERVICE_CIDRS);
    this.#slices.addIndex(BY_SERVICE, slice => {
      const key = serviceKeyOf(slice);
      return key === undefined ? [] : [key];
    });
    this.#addresses = this.#readAddresses();
    this.synced = new Promise(resolve => {
      this.#resolveSynced = resolve;
    });
  }

  /** Calls the listener with each table that has been programmed. */
  onProgrammed(listener: (table: ServiceTable) => void): void {
    this.#listeners.push(listener);
    if (this.#programmed) listener(this.#programmed);
  }

  health(): ProxyHealth {
    const waitedMs = this.#pendingSinceMs === undefined ? 0 : this.#clock.monotonic() - this.#pendingSinceMs;
    const node = this.#nodes.get(this.#options.nodeName);
    return {
      healthy: waitedMs < HEALTHY_MS_MAX,
      lastUpdatedMs: this.#lastUpdatedMs,
      nodeEligible:
        node !== undefined &&
        node.metadata.deletionTimestamp === undefined &&
        !node.spec?.taints?.some(({ key }) => key === 'ToBeDeletedByClusterAutoscaler'),
    };
  }

  /** Runs until the signal aborts; what is programmed stays. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#wake?.(), { once: true });
    this.#backend.onDamage(() => {
      this.#isDamaged = true;
      this.#wake?.();
    });
    this.#services.onChange(({ object, old }) => {
      serviceChanges().add();
      this.#mark(keyOf((object ?? old)!), undefined);
    });
    this.#slices.onChange(({ object, old }) => {
      endpointChanges().add();
      const triggered = object?.metadata.annotations?.[TRIGGER_TIME_ANNOTATION];
      for (const slice of [old, object]) {
        const key = slice && serviceKeyOf(slice);
        if (key !== undefined) this.#mark(key, triggered === undefined ? undefined : Date.parse(triggered));
      }
    });
    this.#nodes.onChange(({ object, old }) => {
      if (!object || !old || addressFacts(object) !== addressFacts(old)) this.#review();
    });
    this.#serviceCidrs.onChange(() => this.#review());
    const aside = Promise.all([this.#nodes.synced, this.#serviceCidrs.synced]);
    await Promise.race([Promise.all([this.#services.synced, this.#slices.synced]), aborted(signal)]);
    await Promise.race([aside, this.#clock.sleep(RANGES_WAIT_MS_MAX, signal)]);
    let retryMs = RETRY_MS_MIN;
    while (!signal.aborted) {
      try {
        await this.#sync();
        retryMs = RETRY_MS_MIN;
        await this.#clock.sleep(PAUSE_MS, signal);
        if (this.#dirty.size === 0) await this.#idle(signal);
      } catch (error) {
        this.#log.warn('services not programmed, retrying', { error: messageOf(error), retryMs });
        for (const family of this.#families) syncFailures().add(1, family);
        await this.#clock.sleep(retryMs, signal);
        retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
      }
    }
    this.#backend.close();
  }

  // Until there is something to do: a change, damage by somebody else, or the end.
  async #idle(signal: AbortSignal): Promise<void> {
    while (this.#dirty.size === 0 && !signal.aborted) {
      if (!this.#isDamaged)
        await new Promise<void>(resolve => {
          const timer = this.#clock.after(CHECK_MS, resolve, { background: true });
          this.#wake = () => {
            timer.cancel();
            resolve();
          };
        });
      this.#wake = undefined;
      this.#isDamaged = false;
      if (this.#programmed && !signal.aborted && this.#backend.damaged()) {
        this.#log.warn('rules were changed by somebody else, programming them anew');
        repairs().add();
        this.#programmed = undefined;
        return;
      }
    }
  }

  #mark(key: string, triggeredMs: number | undefined): void {
    const earlier = this.#dirty.get(key);
    this.#dirty.set(
      key,
      earlier !== undefined && triggeredMs !== undefined ? Math.min(earlier, triggeredMs) : (triggeredMs ?? earlier),
    );
    if (this.#pendingSinceMs === undefined) {
      this.#pendingSinceMs = this.#clock.monotonic();
      for (const family of this.#families) lastQueuedSeconds().set(this.#clock.now() / 1000, family);
    }
    this.#wake?.();
  }

  // What nodes and ServiceCIDRs say may change every Service's entry: where this node is, and whose addresses are.
  #review(): void {
    const addresses = this.#readAddresses();
    const zone = this.#nodes.get(this.#options.nodeName)?.metadata.labels?.[ZONE_LABEL];
    if (addresses.fingerprint === this.#addresses.fingerprint && zone === this.#zone) return;
    this.#addresses = addresses;
    this.#zone = zone;
    for (const service of this.#services.values()) this.#mark(keyOf(service), undefined);
  }

  #readAddresses(): ClusterAddresses {
    const { podRanges = [], serviceRanges = [], allowedExternalRanges = [] } = this.#options;
    return new ClusterAddresses(
      { podRanges, serviceRanges, allowed: allowedExternalRanges },
      this.#nodes.values(),
      this.#serviceCidrs.values(),
    );
  }

  async #sync(): Promise<void> {
    if (this.#dirty.size === 0 && this.#programmed) return;
    const startMs = this.#clock.monotonic();
    const changed = [...this.#dirty];
    this.#dirty.clear();
    const next = this.#compute(changed);
    try {
      const full = this.#programmed === undefined;
      if (full || next !== this.#programmed) {
        // A table changed behind our back since is repaired with this very call, not after it.
        if (!full && this.#backend.damaged()) this.#log.warn('rules were changed by somebody else');
        await this.#backend.apply(next, this.#programmed);
        if (full) await this.#backend.prune(next);
        this.#programmed = next;
      }
    } catch (error) {
      this.#programmed = undefined;
      throw error;
    }
    this.#resolveSynced();
    this.#observe(changed, startMs);
  }

  #observe(changed: readonly (readonly [string, number | undefined])[], startMs: number): void {
    const nowMs = this.#clock.now();
    this.#lastUpdatedMs = nowMs;
    if (this.#dirty.size === 0) this.#pendingSinceMs = undefined;
    for (const listener of this.#listeners) listener(this.#programmed!);
    const seconds = (this.#clock.monotonic() - startMs) / 1000;
    for (const family of this.#families) {
      syncSeconds().observe(seconds, family);
      lastSyncSeconds().set(nowMs / 1000, family);
    }
    // What changed before this process began says nothing about it. Trigger times are whole seconds.
    for (const [, triggeredMs] of changed)
      if (triggeredMs !== undefined && triggeredMs + 1000 > this.#startedMs)
        for (const family of this.#families)
          networkProgrammingSeconds().observe(Math.max(0, nowMs - triggeredMs) / 1000, family);
  }

  // The table with these Services looked at anew; the very same table when nothing that matters has changed.
  #compute(changed: readonly (readonly [string, unknown])[]): ServiceTable {
    const view: NodeView = {
      nodeName: this.#options.nodeName,
      zone: this.#zone,
      localVips: new Set(this.#options.localVips),
      ownerOf: address => this.#addresses.ownerOf(address),
    };
    const affected = new Set<string>();
    for (const [key] of changed) {
      const service = this.#services.get(key);
      const before = this.#claims.get(key);
      const fresh = service && entryOf(service, this.#slices.byIndex(BY_SERVICE, key), view);
      const entry = fresh && inOrderOf(fresh, before);
      if (sameEntry(entry, before)) continue;
      affected.add(key);
      for (const other of this.#claims.set(key, entry)) affected.add(other);
    }
    let next: Map<string, ServiceEntry> | undefined;
    for (const key of affected) {
      const granted = this.#claims.granted(key);
      const before = this.#table.get(key);
      if (sameEntry(granted, before)) continue;
      next ??= new Map(this.#table);
      if (granted) next.set(key, granted);
      else next.delete(key);
      if (granted?.refused) this.#tell(key, granted, before);
    }
    if (next) this.#table = next;
    return this.#table;
  }

  #tell(key: string, { refused = [] }: ServiceEntry, before: ServiceEntry | undefined): void {
    const service = this.#services.get(key);
    for (const { field, address, because } of refused) {
      if (before?.refused?.some(old => old.address === address && old.because === because)) continue;
      this.#log.warn('address not given to Service', { service: key, field, address, because });
      if (service)
        this.#options.events?.event(
          { ...service, apiVersion: 'v1', kind: 'Service' },
          'Warning',
          'AddressNotGiven',
          `${field}: ${address} is ${because}: no traffic to it is sent to this Service. Choose an address that is nobody's in the cluster`,
        );
    }
  }
}

function serviceKeyOf(slice: EndpointSlice): string | undefined {
  const name = slice.metadata.labels?.[SERVICE_NAME_LABEL];
  return name === undefined ? undefined : `${slice.metadata.namespace}/${name}`;
}

// Nodes change every few seconds by their heartbeats; only these fields matter here.
function addressFacts({ metadata, spec, status }: Node): string {
  return JSON.stringify([metadata.labels?.[ZONE_LABEL], spec?.podCIDRs ?? spec?.podCIDR, status?.addresses]);
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
