/**
 * Dev mode: ways from the server's namespace, the switch, to pods and Services, so that the API server reaches what it proxies to and
 * calls (webhooks, aggregated API servers). To each node's pods through that node, to Services through a ready node, whose kube-proxy
 * does the rest. It follows Node and ServiceCIDR objects and owns the routes of our protocol number there; nothing else.
 */

import type { Node } from '../api/core/v1.gen.ts';
import type { ServiceCIDR } from '../api/networking/v1.gen.ts';
import { type Clock, systemClock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Informer, InformerFactory } from '../client/informer.ts';
import { NODES, SERVICE_CIDRS } from '../client/resources.ts';
import { addRoute, deleteRoute, ROUTE_PROTOCOL_COXSWAIN, RouteSocket } from '../sys/netlink.ts';

const RETRY_MS = 1000;

export interface SegmentRoutesOptions {
  readonly informers: InformerFactory;
  /** Name or path of the namespace; the calling thread's own when absent. */
  readonly namespace?: string;
  readonly log: Logger;
  readonly clock?: Clock;
}

export class SegmentRoutes {
  readonly #nodes: Informer<Node>;
  readonly #ranges: Informer<ServiceCIDR>;
  readonly #routes: RouteSocket;
  readonly #log: Logger;
  readonly #clock: Clock;
  #applied = '';

  constructor(options: SegmentRoutesOptions) {
    this.#nodes = options.informers.get<Node>(NODES);
    this.#ranges = options.informers.get<ServiceCIDR>(SERVICE_CIDRS);
    this.#routes = new RouteSocket(options.namespace);
    this.#log = options.log.with({ part: 'segment-routes' });
    this.#clock = options.clock ?? systemClock;
  }

  /** Follows until the signal aborts. Routes stay: they end with the namespace. */
  async run(signal: AbortSignal): Promise<void> {
    let isDue = false;
    const pass = () => {
      isDue = false;
      if (signal.aborted) return;
      try {
        this.#apply();
      } catch (error) {
        this.#log.warn('routes to pods not set, trying again', { error: messageOf(error) });
        this.#clock.after(RETRY_MS, trigger, { background: true });
      }
    };
    const trigger = () => {
      if (isDue) return;
      isDue = true;
      setImmediate(pass);
    };
    this.#nodes.onChange(trigger);
    this.#ranges.onChange(trigger);
    await new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true }));
    this.#routes.close();
  }

  #apply(): void {
    const wanted = waysTo([...this.#nodes.values()], [...this.#ranges.values()]);
    // Nodes change at every heartbeat, their ways hardly ever.
    const text = JSON.stringify([...wanted]);
    if (text === this.#applied) return;
    const protocol = ROUTE_PROTOCOL_COXSWAIN;
    const stale = this.#routes.routes({ protocol }).filter(({ to }) => !wanted.has(to));
    this.#routes.request([
      ...stale.map(({ to }) => deleteRoute({ to, protocol })),
      ...[...wanted].map(([to, via]) => addRoute({ to, via, protocol })),
    ]);
    this.#applied = text;
  }
}

/** Gateway by range. */
export function waysTo(nodes: readonly Node[], ranges: readonly ServiceCIDR[]): Map<string, string> {
  const ways = new Map<string, string>();
  const add = (to: string, node: Node | undefined) => {
    const via = node?.status?.addresses?.find(
      ({ type, address }) => type === 'InternalIP' && address.includes(':') === to.includes(':'),
    )?.address;
    if (via) ways.set(to, via);
  };
  for (const node of nodes) for (const range of node.spec?.podCIDRs ?? []) add(range, node);
  const ready = nodes
    .filter(({ status }) => status?.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True'))
    .sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1))[0];
  for (const { spec } of ranges) for (const range of spec?.cidrs ?? []) add(range, ready);
  return ways;
}
