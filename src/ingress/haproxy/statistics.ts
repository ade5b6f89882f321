/**
 * What HAProxy counted, by route, as metrics of the agent. Reading takes a moment, so a scrape shows what was counted at the one before and
 * sets off the next reading. Counters go on across reloads, where HAProxy's own start again.
 */

import { metrics } from '../../base/metrics.ts';
import type { DataPlane } from './data-plane.ts';

export interface RouteLabels {
  readonly namespace: string;
  /** Of the object that the route comes from. */
  readonly name: string;
  /** `service:port`. */
  readonly service: string;
}

type Family = 'ingress' | 'gateway';

function countersOf(family: Family) {
  const labels = ['namespace', family === 'ingress' ? 'ingress' : 'route', 'service'];
  const name = (what: string) => `cox_${family}_${what}`;
  return {
    requests: metrics.counter(name('requests_total'), 'Requests by class of their status.', [...labels, 'status']),
    bytes: metrics.counter(name('bytes_total'), 'Bytes of bodies and heads, from clients (in) and to them (out).', [
      ...labels,
      'direction',
    ]),
    connectErrors: metrics.counter(name('connect_errors_total'), 'Connections to endpoints that failed.', labels),
    retries: metrics.counter(name('retries_total'), 'Requests sent again after a failure.', labels),
    latency: metrics.gauge(
      name('response_milliseconds'),
      'Mean time to the head of the response over the last 1024 requests.',
      labels,
    ),
    endpoints: metrics.gauge(name('endpoints'), 'Endpoints that requests are sent to.', labels),
    reloads: metrics.counter(name('reloads_total'), 'Configurations that HAProxy has taken.'),
  };
}

/** What is known of one family's data plane; the planes of a process replace each other: there is one at a time. */
class Published {
  readonly counters: ReturnType<typeof countersOf>;
  plane: () => DataPlane | undefined = () => undefined;
  labelsOf: (route: string) => RouteLabels | undefined = () => undefined;
  /** Last value seen of each counter of one HAProxy, by backend and column. */
  readonly seen = new Map<string, number>();
  seenReloads = 0;
  #isReading = false;

  constructor(family: Family) {
    this.counters = countersOf(family);
    metrics.onCollect(() => {
      const current = this.plane();
      if (!current || this.#isReading) return;
      this.#isReading = true;
      void readStatistics(current, this)
        .catch(() => {})
        .finally(() => {
          this.#isReading = false;
        });
    });
  }
  since(key: string, value: number): number {
    const before = this.seen.get(key) ?? 0;
    this.seen.set(key, value);
    return Math.max(0, value - before);
  }
}

const published = new Map<Family, Published>();

export function publishMetrics(
  family: Family,
  plane: () => DataPlane | undefined,
  labelsOf: (route: string) => RouteLabels | undefined,
): void {
  let known = published.get(family);
  if (!known) published.set(family, (known = new Published(family)));
  known.plane = plane;
  known.labelsOf = labelsOf;
}

async function readStatistics(plane: DataPlane, to: Published): Promise<void> {
  const { requests, bytes, connectErrors, retries, latency, endpoints, reloads } = to.counters;
  reloads.set(plane.reloads);
  if (plane.reloads !== to.seenReloads) to.seen.clear();
  to.seenReloads = plane.reloads;
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
    const of = to.labelsOf(plane.routeOf(backend) ?? '');
    if (!of) continue;
    const labels = [of.namespace, of.name, of.service];
    const since = (column: string) => to.since(`${backend} ${column}`, Number(field(column)));
    for (const status of ['1xx', '2xx', '3xx', '4xx', '5xx']) requests.add(since(`hrsp_${status}`), ...labels, status);
    bytes.add(since('bin'), ...labels, 'in');
    bytes.add(since('bout'), ...labels, 'out');
    connectErrors.add(since('econ'), ...labels);
    retries.add(since('wretr'), ...labels);
    latency.set(Number(field('rtime')), ...labels);
    endpoints.set(Number(field('act')), ...labels);
  }
}
