/**
 * What a component's health checks said (`/metrics/slis`), by upstream's names: how often which, and what each said last. A page of its
 * own, so that it can be scraped often.
 */

import { MetricsRegistry } from './metrics.ts';

export const healthMetrics = new MetricsRegistry();
const last = healthMetrics.gauge('kubernetes_healthcheck', 'This metric records the result of a single healthcheck.', [
  'name',
  'type',
]);
const all = healthMetrics.counter(
  'kubernetes_healthchecks_total',
  'This metric records the results of all healthcheck.',
  ['name', 'type', 'status'],
);

/** The type is the endpoint: `healthz`, `livez` or `readyz`. */
export function countCheck(name: string, type: string, isHealthy: boolean): void {
  last.set(isHealthy ? 1 : 0, name, type);
  all.add(1, name, type, isHealthy ? 'success' : 'error');
}
