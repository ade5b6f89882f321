/**
 * Nodes whose machine is gone in its cloud are deleted, those whose machine is switched off are tainted. Invariant: a node that is Ready is
 * neither, whatever the provider says; without a provider that answers nothing is done. Upstream's cloud-node-lifecycle-controller.
 */

import type { Node } from '../../api/core/v1.gen.ts';
import type { ObjectKey } from '../../api/meta.ts';
import { isReason } from '../../base/errors.ts';
import { NODES } from '../../client/resources.ts';
import { INSTANCE_CALLS, ofNode } from '../cloudnode/instances.ts';
import { CloudClients } from '../runtime/cloud-clients.ts';
import {
  type Controller,
  type ControllerDefinition,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';

const SHUTDOWN = 'node.cloudprovider.kubernetes.io/shutdown';
/** Upstream's --node-monitor-period. */
const ASK_MS = 5_000;

const isReady = ({ status }: Node): boolean =>
  status?.conditions?.some(one => one.type === 'Ready' && one.status === 'True') ?? false;

class CloudNodeLifecycle implements Controller {
  readonly name = 'cloud-node-lifecycle';
  readonly watches;
  readonly #ctx: ReconcileContext;
  readonly #nodes;
  readonly #clients = new CloudClients('Instances', INSTANCE_CALLS);

  constructor(ctx: ReconcileContext) {
    this.#ctx = ctx;
    this.#nodes = ctx.informers.get<Node>(NODES);
    this.watches = [
      watch<Node>(NODES, change => {
        if (change.deleted || !this.#clients.areAny) return [];
        const { name } = change.object.metadata;
        // A node that has just registered is about to be ready, and its cloud about to know it.
        if (!change.old) ctx.enqueue(name, ASK_MS);
        return change.old && isReady(change.old) !== isReady(change.object) ? [name] : [];
      }),
    ];
  }

  started(): void {
    this.#clients.follow(this.#ctx, () => {
      for (const { metadata } of this.#nodes.values()) this.#ctx.enqueue(metadata.name, ASK_MS);
    });
  }

  async reconcile({ name }: ObjectKey): Promise<Result | void> {
    const node = this.#nodes.get(name);
    if (!node || node.metadata.deletionTimestamp || !this.#clients.areAny) return;
    if (isReady(node)) return this.#setTaint(node, false);
    const exists = await this.#clients.ask('instanceExists', ofNode(node));
    if (exists && !exists.yes) return this.#delete(node);
    const shutdown = exists && (await this.#clients.ask('instanceShutdown', ofNode(node)));
    if (shutdown?.yes) await this.#setTaint(node, true);
    return { requeueAfterMs: ASK_MS };
  }

  async #delete(node: Node): Promise<void> {
    const { uid, name } = node.metadata;
    this.#ctx.events.event(
      node,
      'Normal',
      'DeletingNode',
      `Deleting node ${name} because it does not exist in the cloud provider`,
    );
    try {
      await this.#ctx.client.of<Node>(NODES).delete('', name, { preconditions: { uid: uid! } });
    } catch (error) {
      if (!isReason(error, 'NotFound', 'Conflict')) throw error;
    }
  }

  async #setTaint({ metadata, spec }: Node, wanted: boolean): Promise<void> {
    const taints = spec?.taints ?? [];
    if (taints.some(({ key }) => key === SHUTDOWN) === wanted) return;
    await this.#ctx.client.of<Node>(NODES).patch('', metadata.name, {
      metadata: { resourceVersion: metadata.resourceVersion },
      spec: {
        taints: wanted
          ? [...taints, { key: SHUTDOWN, effect: 'NoSchedule' }]
          : taints.filter(({ key }) => key !== SHUTDOWN),
      },
    });
  }
}

export const cloudNodeLifecycle: ControllerDefinition = {
  folder: 'cloudnodelifecycle',
  component: 'cloud-node-lifecycle-controller',
  create: ctx => new CloudNodeLifecycle(ctx),
};
