/**
 * kube-proxy of one node: follows Services and EndpointSlices and keeps a backend at the table that they ask for.
 * Invariant: nothing is programmed before both have been listed once, and nothing removed before everything is programmed,
 * so a restart never takes a Service away. The first change after a pause is programmed at once; changes that come while
 * one is being programmed, or within the pause after it, go together.
 */

import type { Service } from '../api/core/v1.gen.ts';
import type { EndpointSlice } from '../api/discovery/v1.gen.ts';
import { keyOf } from '../api/meta.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { metrics } from '../base/metrics.ts';
import type { Informer, InformerFactory } from '../client/informer.ts';
import { ENDPOINT_SLICES, SERVICES } from '../client/resources.ts';
import type { ProxyBackend } from './backend.ts';
import {
  entryOf,
  type NodeView,
  SERVICE_NAME_LABEL,
  type ServiceEntry,
  type ServiceTable,
  sameEntry,
} from './model.ts';

/** Between two programmings: a burst of changes becomes few transactions. */
const PAUSE_MS = 10;
const CHECK_MS = 2000;
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 10_000;
const TRIGGER_TIME_ANNOTATION = 'endpoints.kubernetes.io/last-change-trigger-time';
const BY_SERVICE = 'by-service';

export interface ServiceProxyOptions {
  readonly informers: InformerFactory;
  readonly nodeName: string;
  readonly backend: ProxyBackend;
  /** Service addresses that the node itself serves, such as the cluster DNS's: they get no rules. */
  readonly localVips?: readonly string[];
  readonly log: Logger;
  readonly clock?: Clock;
}

export class ServiceProxy {
  readonly #backend: ProxyBackend;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #view: NodeView;
  readonly #services: Informer<Service>;
  readonly #slices: Informer<EndpointSlice>;
  /** Services to look at anew, and since when their endpoints had changed (wall clock). */
  readonly #dirty = new Map<string, number | undefined>();
  #table: ServiceTable = new Map();
  /** What the backend was last given with success. */
  #programmed: ServiceTable | undefined;
  #wake: (() => void) | undefined;
  #resolveSynced!: () => void;
  /** Resolves when the first programming and pruning is done. */
  readonly synced: Promise<void>;

  constructor(options: ServiceProxyOptions) {
    this.#backend = options.backend;
    this.#log = options.log.with({ component: 'proxy' });
    this.#clock = options.clock ?? systemClock;
    this.#view = { nodeName: options.nodeName, localVips: new Set(options.localVips) };
    this.#services = options.informers.get<Service>(SERVICES);
    this.#slices = options.informers.get<EndpointSlice>(ENDPOINT_SLICES);
    this.#slices.addIndex(BY_SERVICE, slice => {
      const key = serviceKeyOf(slice);
      return key === undefined ? [] : [key];
    });
    this.synced = new Promise(resolve => {
      this.#resolveSynced = resolve;
    });
  }

  /** Runs until the signal aborts; what is programmed stays. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#wake?.(), { once: true });
    this.#services.onChange(({ object, old }) => this.#mark(keyOf((object ?? old)!), undefined));
    this.#slices.onChange(({ object, old }) => {
      const triggered = object?.metadata.annotations?.[TRIGGER_TIME_ANNOTATION];
      for (const slice of [old, object]) {
        const key = slice && serviceKeyOf(slice);
        if (key !== undefined) this.#mark(key, triggered === undefined ? undefined : Date.parse(triggered));
      }
    });
    await Promise.race([Promise.all([this.#services.synced, this.#slices.synced]), aborted(signal)]);
    let retryMs = RETRY_MS_MIN;
    while (!signal.aborted) {
      try {
        await this.#sync();
        retryMs = RETRY_MS_MIN;
        await this.#clock.sleep(PAUSE_MS, signal);
        if (this.#dirty.size === 0) await this.#idle(signal);
      } catch (error) {
        this.#log.warn('services not programmed, retrying', { error: messageOf(error), retryMs });
        syncFailures().add();
        await this.#clock.sleep(retryMs, signal);
        retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
      }
    }
    this.#backend.close();
  }

  // Until there is something to do: a change, damage by somebody else, or the end.
  async #idle(signal: AbortSignal): Promise<void> {
    while (this.#dirty.size === 0 && !signal.aborted) {
      await new Promise<void>(resolve => {
        const timer = this.#clock.after(CHECK_MS, resolve, { background: true });
        this.#wake = () => {
          timer.cancel();
          resolve();
        };
      });
      this.#wake = undefined;
      if (this.#programmed && !signal.aborted && this.#backend.damaged()) {
        this.#log.warn('rules were changed by somebody else, programming them anew');
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
    this.#wake?.();
  }

  async #sync(): Promise<void> {
    if (this.#dirty.size === 0 && this.#programmed) return;
    const startMs = this.#clock.monotonic();
    const changed = [...this.#dirty];
    this.#dirty.clear();
    const next = this.#compute(changed);
    try {
      const full = this.#programmed === undefined;
      if (!full && next === this.#programmed) return;
      await this.#backend.apply(next, this.#programmed);
      if (full) await this.#backend.prune(next);
      this.#programmed = next;
    } catch (error) {
      this.#programmed = undefined;
      throw error;
    }
    this.#resolveSynced();
    const nowMs = this.#clock.now();
    syncSeconds().observe((this.#clock.monotonic() - startMs) / 1000);
    lastSync().set(nowMs / 1000);
    for (const [, triggeredMs] of changed)
      if (triggeredMs !== undefined) networkProgrammingSeconds().observe(Math.max(0, nowMs - triggeredMs) / 1000);
  }

  // The table with these Services looked at anew; the very same table when nothing that matters has changed.
  #compute(changed: readonly (readonly [string, unknown])[]): ServiceTable {
    let next: Map<string, ServiceEntry> | undefined;
    for (const [key] of changed) {
      const service = this.#services.get(key);
      const entry = service && entryOf(service, this.#slices.byIndex(BY_SERVICE, key), this.#view);
      if (sameEntry(entry, this.#table.get(key))) continue;
      next ??= new Map(this.#table);
      if (entry) next.set(key, entry);
      else next.delete(key);
    }
    if (next) this.#table = next;
    return this.#table;
  }
}

function serviceKeyOf(slice: EndpointSlice): string | undefined {
  const name = slice.metadata.labels?.[SERVICE_NAME_LABEL];
  return name === undefined ? undefined : `${slice.metadata.namespace}/${name}`;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

// Names and buckets of kube-proxy's metrics.
const syncSeconds = () =>
  metrics.histogram(
    'kubeproxy_sync_proxy_rules_duration_seconds',
    'SyncProxyRules latency in seconds',
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384],
  );
const networkProgrammingSeconds = () =>
  metrics.histogram(
    'kubeproxy_network_programming_duration_seconds',
    'In Cluster Network Programming Latency in seconds',
    [
      0,
      0.25,
      0.5,
      ...Array.from({ length: 59 }, (_, i) => i + 1),
      60,
      65,
      70,
      75,
      80,
      85,
      90,
      95,
      100,
      105,
      110,
      115,
      120,
      150,
      180,
      210,
      240,
      270,
      300,
    ],
  );
const lastSync = () =>
  metrics.gauge(
    'kubeproxy_sync_proxy_rules_last_timestamp_seconds',
    'The last time proxy rules were successfully synced',
  );
const syncFailures = () =>
  metrics.counter('kubeproxy_sync_proxy_rules_failures_total', 'Number of failed attempts to sync proxy rules');
