/**
 * The port of a component that runs beside the API server (kube-scheduler, kube-controller-manager): health, metrics, `/statusz` and
 * `/flagz`, to whoever the API server would let. Paths mean nothing else here; only health is told to everybody.
 */

import type { Clock } from '../base/clock.ts';
import { ApiError, internalError, messageOf } from '../base/errors.ts';
import { healthMetrics } from '../base/health-metrics.ts';
import type { Logger } from '../base/log.ts';
import { metrics } from '../base/metrics.ts';
import type { ZPageSource } from '../base/z-page.ts';
import type { Exchange } from './exchange.ts';
import { Health, type HealthCheck } from './health.ts';
import { finish, type ReplyContext, sendStatus, text } from './reply.ts';
import type { Credentials, RequestAttributes, UserInfo } from './request.ts';

export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';
/** Upstream's `--authorization-always-allow-paths`. */
const OPEN_PATHS = new Set(['/healthz', '/livez', '/readyz']);

export interface ComponentPages {
  /** Which of the paths of health it has. */
  readonly health: readonly ('healthz' | 'livez' | 'readyz')[];
  readonly checks: readonly HealthCheck[];
  /** Of the process's metrics those that are the component's. */
  readonly metricPrefixes: readonly string[];
  /** Other pages of metrics by their path. */
  readonly metricPages?: Readonly<Record<string, () => string>>;
  readonly zPages: ZPageSource;
}

export interface ComponentServerOptions extends ComponentPages {
  readonly identify: (credentials: Credentials) => UserInfo | Promise<UserInfo>;
  readonly authorize: (attributes: RequestAttributes) => void | Promise<void>;
  readonly auditIdOf: (headers: Exchange['headers']) => string;
  readonly clock: Clock;
  readonly log: Logger;
}

export class ComponentServer {
  readonly #options: ComponentServerOptions;
  readonly #health = new Health();

  constructor(options: ComponentServerOptions) {
    this.#options = options;
    for (const check of options.checks) this.#health.add(check);
  }

  /** Answers the exchange; never rejects. */
  async handle(exchange: Exchange, certificate: Credentials['certificate']): Promise<void> {
    const { clock, log, auditIdOf } = this.#options;
    const context: ReplyContext = {
      exchange,
      code: 0,
      warnings: undefined,
      receivedMs: clock.monotonic(),
      auditId: auditIdOf(exchange.headers),
      trail: undefined,
      admitted: undefined,
      expired: false,
      bytes: 0,
    };
    const [path = '/', search] = exchange.url.split('?', 2);
    try {
      if (!OPEN_PATHS.has(path)) await this.#admit(exchange, path, certificate);
      await this.#answer(context, path, new URLSearchParams(search));
    } catch (error) {
      if (!(error instanceof ApiError)) log.error('request failed', { path, error: messageOf(error) });
      await sendStatus(context, (error instanceof ApiError ? error : internalError(messageOf(error))).status);
    }
  }

  async #admit({ headers, method }: Exchange, path: string, certificate: Credentials['certificate']): Promise<void> {
    const { identify, authorize } = this.#options;
    const user = await identify(certificate ? { headers, certificate, path } : { headers, path });
    const nothing = { group: '', version: '', resource: '', subresource: '', namespace: '', name: '' };
    await authorize({ ...nothing, user, verb: method.toLowerCase(), isResource: false, path });
  }

  async #answer(context: ReplyContext, path: string, query: URLSearchParams): Promise<void> {
    const { health, metricPrefixes, metricPages, zPages } = this.#options;
    const { method, headers } = context.exchange;
    const healthy = health.some(one => path.split('/')[1] === one) && this.#health.answer(path, query);
    if (healthy) return text(context, healthy.status, healthy.text);
    if (path === '/metrics') return text(context, 200, metrics.render({ prefixes: metricPrefixes }), METRICS_TYPE);
    if (path === '/metrics/slis') return text(context, 200, healthMetrics.render(), METRICS_TYPE);
    const page = metricPages && Object.hasOwn(metricPages, path) ? metricPages[path] : undefined;
    if (page) return text(context, 200, page(), METRICS_TYPE);
    const zPage = method === 'GET' ? await zPages.find(path, headers.accept) : undefined;
    if (zPage) return finish(context, 200, { ...zPage.headers }, await zPage.bytes);
    text(context, 404, '404 page not found\n');
  }
}
