/**
 * The route controller of a cloud: keeps a route to each node's pod ranges in the cloud's own network, and says in the node's condition
 * NetworkUnavailable whether they are there. Invariant: it removes no route outside the cluster's pod ranges. Without a provider of routes it
 * does nothing: the nodes' own overlay needs none.
 */

import type { Node, NodeCondition } from '../../api/core/v1.gen.ts';
import { formatTime } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { NODES } from '../../client/resources.ts';
import { CLOUD_CLUSTER, CloudClients } from '../runtime/cloud-clients.ts';
import {
  type Controller,
  type ControllerDefinition,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';
import { planRoutes, ROUTE_CALLS } from './routes.ts';

const KEY = 'routes';
/** Upstream's --route-reconciliation-period. */
const SYNC_MS = 10_000;

class CloudRoutes implements Controller {
  readonly name = 'route';
  readonly workers = 1;
  readonly watches;
  readonly #ctx: ReconcileContext;
  readonly #nodes;
  readonly #clients = new CloudClients('Routes', ROUTE_CALLS);

  constructor(ctx: ReconcileContext) {
    this.#ctx = ctx;
    this.#nodes = ctx.informers.get<Node>(NODES);
    const facts = (node: Node | undefined) => JSON.stringify([node?.spec?.podCIDRs, node?.status?.addresses]);
    this.watches = [
      watch<Node>(NODES, change =>
        this.#clients.areAny && (change.deleted || facts(change.old) !== facts(change.object)) ? [KEY] : [],
      ),
    ];
  }

  started(): void {
    this.#clients.follow(this.#ctx, () => this.#ctx.enqueue(KEY));
  }

  async reconcile(): Promise<Result | void> {
    const listed = await this.#clients.ask('listRoutes', { cluster: CLOUD_CLUSTER });
    if (!listed) return;
    const { events, log, settings } = this.#ctx;
    const nodes = [...this.#nodes.values()];
    const { create, remove } = planRoutes(nodes, listed.routes, settings.clusterCidrs);
    for (const route of remove)
      try {
        await this.#clients.ask('deleteRoute', { cluster: CLOUD_CLUSTER, route });
      } catch (error) {
        log.warn('a route of the cloud could not be removed', { route: route.name, error: messageOf(error) });
      }
    const failed = new Set<string>();
    for (const { node, route } of create)
      try {
        await this.#clients.ask('createRoute', { cluster: CLOUD_CLUSTER, nameHint: node.metadata.uid!, route });
      } catch (error) {
        failed.add(node.metadata.name);
        events.event(
          node,
          'Warning',
          'FailedToCreateRoute',
          `Could not create route ${node.metadata.uid} ${route.destinationCidr} for node ${node.metadata.name}: ${messageOf(error)}`,
        );
      }
    for (const node of nodes)
      await this.#tell(node, (node.spec?.podCIDRs?.length ?? 0) > 0 && !failed.has(node.metadata.name));
    return { requeueAfterMs: SYNC_MS };
  }

  async #tell({ metadata, status }: Node, isRouted: boolean): Promise<void> {
    const wanted = isRouted ? 'False' : 'True';
    if (status?.conditions?.find(({ type }) => type === 'NetworkUnavailable')?.status === wanted) return;
    const now = formatTime(this.#ctx.clock.now());
    const condition: NodeCondition = {
      type: 'NetworkUnavailable',
      status: wanted,
      reason: isRouted ? 'RouteCreated' : 'NoRouteCreated',
      message: isRouted ? 'RouteController created a route' : 'RouteController failed to create a route',
      lastHeartbeatTime: now,
      lastTransitionTime: now,
    };
    await this.#ctx.client
      .of<Node>(NODES)
      .patchStatus(
        '',
        metadata.name,
        { metadata: { uid: metadata.uid }, status: { conditions: [condition] } },
        'application/strategic-merge-patch+json',
      );
  }
}

export const cloudRoute: ControllerDefinition = {
  folder: 'cloudroute',
  component: 'route_controller',
  create: ctx => new CloudRoutes(ctx),
};
