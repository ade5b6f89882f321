/**
 * What HAProxy counted, by route, as metrics of the agent. Reading takes a moment, so a scrape shows what was counted at the one before and
 * sets off the next reading. Counters go on across reloads, where HAProxy's own start again.
 */

import { metrics } from '../../base/metrics.ts';
import type { Route } from '../route-table.ts';
import type { DataPlane } from './data-plane.ts';
import { routeLabel } from './desired-state.ts';

const LABELS = ['namespace', 'ingress', 'service'];
const requests = metrics.counter('cox_ingress_requests_total', 'Requests by class of their status.', [
  ...LABELS,
  'status',
]);
const bytes = metrics.counter(
  'cox_ingress_bytes_total',
  'Bytes of bodies and heads, from clients (in) and to them (out).',
  [...LABELS, 'direction'],
);
const connectErrors = metrics.counter(
  'cox_ingress_connect_errors_total',
  'Connections to endpoints that failed.',
  LABELS,
);
const retries = metrics.counter('cox_ingress_retries_total', 'Requests sent again after a failure.', LABELS);
const latency = metrics.gauge(
  'cox_ingress_response_milliseconds',
  'Mean time to the head of the response over the last 1024 requests.',
  LABELS,
);
const endpoints = metrics.gauge('cox_ingress_endpoints', 'Endpoints that requests are sent to.', LABELS);
const reloads = metrics.counter('cox_ingress_reloads_total', 'Configurations that HAProxy has taken.');

/** Last value seen of each counter of one HAProxy, by backend and column. */
const seen = new Map<string, number>();
let seenReloads = 0;

let source: (() => DataPlane | undefined) | undefined;
let routeById: (id: string) => Route | undefined = () => undefined;

/** The planes of a process replace each other: there is one at a time. */
export function publishMetrics(plane: () => DataPlane | undefined, route: (id: string) => Route | undefined): void {
  const isFirst = source === undefined;
  source = plane;
  routeById = route;
  if (!isFirst) return;
  let reading = false;
  metrics.onCollect(() => {
    const current = source?.();
    if (!current || reading) return;
    reading = true;
    void readStatistics(current)
      .catch(() => {})
      .finally(() => {
        reading = false;
      });
  });
}

export async function readStatistics(plane: DataPlane): Promise<void> {
  reloads.set(plane.reloads);
  if (plane.reloads !== seenReloads) seen.clear();
  seenReloads = plane.reloads;
  // Backends alone (2 of the types), of all proxies (-1) and servers (-1).
  const [head, ...rows] = (await plane.api.ask('show stat -1 2 -1')).trim().split('\n');
  const columns = new Map(
    head!
      .replace(/^# /, '')
      .split(',')
      .map((name, at) => [name, at]),
  );
  for (const row of rows) {
    const fields = row.split(',');
    const field = (name: string) => fields[columns.get(name)!] ?? '';
    const backend = field('pxname');
    const route = routeById(plane.routeOf(backend) ?? '');
    if (!route) continue;
    const [namespace, name] = route.ingress.split('/') as [string, string];
    const labels = [namespace, name, routeLabel(route).slice(route.ingress.length + 1)];
    const since = (column: string) => difference(`${backend} ${column}`, Number(field(column)));
    for (const status of ['1xx', '2xx', '3xx', '4xx', '5xx']) requests.add(since(`hrsp_${status}`), ...labels, status);
    bytes.add(since('bin'), ...labels, 'in');
    bytes.add(since('bout'), ...labels, 'out');
    connectErrors.add(since('econ'), ...labels);
    retries.add(since('wretr'), ...labels);
    latency.set(Number(field('rtime')), ...labels);
    endpoints.set(Number(field('act')), ...labels);
  }
}

function difference(key: string, value: number): number {
  const before = seen.get(key) ?? 0;
  seen.set(key, value);
  return Math.max(0, value - before);
}
