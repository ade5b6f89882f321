/** How many questions came and what they were answered, under the names of CoreDNS's `prometheus` plugin. Cheap to count. */

import type { MetricsRegistry, SeriesHandle } from '../base/metrics.ts';
import { RCODE, TYPE } from './message.ts';

const SECONDS_BUCKETS = Array.from({ length: 16 }, (_, power) => 0.00025 * 2 ** power);
const TYPE_NAMES = new Map<number, string>(Object.entries(TYPE).map(([name, type]) => [type, name]));
const RCODE_NAMES = new Map<number, string>(Object.entries(RCODE).map(([name, code]) => [code, name]));
// A type is told by its number below this, else as `other`.
const TYPES_MAX = 256;

/** Of one server block. */
export class RequestStatistics {
  readonly #requests = new Uint32Array(2 * TYPES_MAX);
  readonly #replies = new Uint32Array(32);
  readonly #seconds: SeriesHandle;

  constructor(metrics: MetricsRegistry, { server, zone, family }: { server: string; zone: string; family: '1' | '2' }) {
    const requests = metrics.counter(
      'coredns_dns_requests_total',
      'Counter of DNS requests made per zone, protocol and family.',
      ['server', 'zone', 'view', 'proto', 'family', 'type'],
    );
    const replies = metrics.counter('coredns_dns_responses_total', 'Counter of response status codes.', [
      'server',
      'zone',
      'view',
      'rcode',
      'plugin',
    ]);
    this.#seconds = metrics
      .histogram(
        'coredns_dns_request_duration_seconds',
        'Histogram of the time (in seconds) each request took per zone.',
        SECONDS_BUCKETS,
        ['server', 'zone', 'view'],
      )
      .series(server, zone, '');
    metrics.onCollect(() => {
      this.#requests.forEach((count, key) => {
        const type = TYPE_NAMES.get(key >> 1) ?? 'other';
        if (count > 0) requests.add(count, server, zone, '', key & 1 ? 'tcp' : 'udp', family, type);
      });
      this.#replies.forEach((count, code) => {
        if (count > 0) replies.add(count, server, zone, '', RCODE_NAMES.get(code) ?? String(code), '');
      });
      this.#requests.fill(0);
      this.#replies.fill(0);
    });
  }

  request(type: number, via: 'udp' | 'tcp'): void {
    this.#requests[((type < TYPES_MAX ? type : 0) << 1) | (via === 'tcp' ? 1 : 0)]!++;
  }
  reply(rcode: number, seconds: number): void {
    this.#replies[rcode & 31]!++;
    this.#seconds.observe(seconds);
  }
}
