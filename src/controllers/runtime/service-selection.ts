/**
 * Which pods a Service selects and which Services select a pod, by index instead of scan; and what the Endpoints
 * controllers agree on about a pod. Pure apart from registering indexes.
 */

import type { Pod, Service } from '../../api/core/v1.gen.ts';
import { semanticEqual } from '../../api/machinery/equality.ts';
import { isPodReady, isPodTerminal, podCondition, podIPs } from '../../api/machinery/pod.ts';
import { keyOf } from '../../api/meta.ts';
import { formatTime } from '../../base/clock.ts';
import type { Informer } from '../../client/informer.ts';
import { PODS, SERVICES } from '../../client/resources.ts';
import type { Change, ReconcileContext } from './controller.ts';

export const LAST_CHANGE_TRIGGER_TIME = 'endpoints.kubernetes.io/last-change-trigger-time';
export const HEADLESS = 'service.kubernetes.io/headless';

const SELECTOR_INDEX = 'selector-pair';
const LABEL_INDEX = 'label';

/** The Service's selector as pairs, in a fixed order; empty when it has none and so is not ours. */
export function selectorPairs(service: Service): [string, string][] {
  if (service.spec?.type === 'ExternalName') return [];
  return Object.entries(service.spec?.selector ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
}

export class ServiceSelection {
  readonly services: Informer<Service>;
  readonly pods: Informer<Pod>;

  constructor(ctx: ReconcileContext) {
    this.services = ctx.informers.get<Service>(SERVICES);
    this.pods = ctx.informers.get<Pod>(PODS);
    this.services.addIndex(SELECTOR_INDEX, service =>
      selectorPairs(service)
        .slice(0, 1)
        .map(([key, value]) => `${service.metadata.namespace}/${key}=${value}`),
    );
    this.pods.addIndex(LABEL_INDEX, pod =>
      Object.entries(pod.metadata.labels ?? {}).map(([key, value]) => `${pod.metadata.namespace}/${key}=${value}`),
    );
  }

  podsOf(service: Service): Pod[] {
    const pairs = selectorPairs(service);
    if (pairs.length === 0) return [];
    const [first, ...others] = pairs;
    return this.pods
      .byIndex(LABEL_INDEX, `${service.metadata.namespace}/${first![0]}=${first![1]}`)
      .filter(pod => others.every(([key, value]) => pod.metadata.labels?.[key] === value));
  }

  /** Keys of the Services whose endpoints a change of a pod may alter. */
  keysFor(change: Change<Pod>): Iterable<string> {
    const keys = new Set<string>();
    if (!change.deleted && change.old && !endpointFactsDiffer(change.old, change.object)) return keys;
    for (const pod of [change.object, change.old]) {
      const labels = pod?.metadata.labels ?? {};
      for (const key in labels) {
        for (const service of this.services.byIndex(
          SELECTOR_INDEX,
          `${pod!.metadata.namespace}/${key}=${labels[key]}`,
        )) {
          if (selectorPairs(service).every(([name, value]) => labels[name] === value)) keys.add(keyOf(service));
        }
      }
    }
    return keys;
  }
}

function endpointFactsDiffer(a: Pod, b: Pod): boolean {
  return (
    isPodReady(a) !== isPodReady(b) ||
    a.metadata.deletionTimestamp !== b.metadata.deletionTimestamp ||
    isPodTerminal(a) !== isPodTerminal(b) ||
    a.spec?.nodeName !== b.spec?.nodeName ||
    a.metadata.uid !== b.metadata.uid ||
    !semanticEqual(a.status?.podIPs, b.status?.podIPs) ||
    !semanticEqual(a.metadata.labels, b.metadata.labels) ||
    a.status?.podIP !== b.status?.podIP
  );
}

/** Has an address and may still serve; a terminating pod counts only when asked. */
export function mayBeEndpoint(pod: Pod, options: { terminating: boolean }): boolean {
  if (isPodTerminal(pod) || podIPs(pod).length === 0) return false;
  return options.terminating || pod.metadata.deletionTimestamp === undefined;
}

/** The pod's DNS name below the Service's, when it asks for one. */
export function endpointHostname(pod: Pod, service: Service): string | undefined {
  return pod.spec?.hostname && pod.spec.subdomain === service.metadata.name ? pod.spec.hostname : undefined;
}

export const isHeadless = (service: Service): boolean => service.spec?.clusterIP === 'None';

/**
 * When what a Service shows last began to change: the earliest readiness change or creation not reported before. Kept per
 * Service, for the annotation by which programming latency is measured.
 */
export class TriggerTimes {
  readonly #seen = new Map<string, { serviceMs: number; podsMs: Map<string, number> }>();

  next(service: Service, pods: readonly Pod[]): string | undefined {
    const key = keyOf(service);
    const seen = this.#seen.get(key) ?? { serviceMs: 0, podsMs: new Map<string, number>() };
    const podsMs = new Map<string, number>();
    let earliestMs = Number.POSITIVE_INFINITY;
    for (const pod of pods) {
      const atMs = Date.parse(podCondition(pod, 'Ready')?.lastTransitionTime ?? '');
      if (Number.isNaN(atMs)) continue;
      if (atMs > (seen.podsMs.get(pod.metadata.name) ?? 0)) earliestMs = Math.min(earliestMs, atMs);
      podsMs.set(pod.metadata.name, atMs);
    }
    const serviceMs = Date.parse(service.metadata.creationTimestamp ?? '') || 0;
    if (serviceMs > seen.serviceMs) earliestMs = Math.min(earliestMs, serviceMs);
    this.#seen.set(key, { serviceMs, podsMs });
    return Number.isFinite(earliestMs) ? formatTime(earliestMs) : undefined;
  }
  forget(key: string): void {
    this.#seen.delete(key);
  }
}
