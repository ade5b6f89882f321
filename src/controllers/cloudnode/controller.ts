/**
 * Nodes of a cloud get from their provider what only it knows: `providerID`, labels of type, zone and region, and addresses; then the taint
 * with which they registered goes. Invariant: a node keeps the taint until all that is written. Addresses are asked again every five minutes.
 */

import type { Node } from '../../api/core/v1.gen.ts';
import type { ObjectKey } from '../../api/meta.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import { NODES } from '../../client/resources.ts';
import { CloudClients } from '../runtime/cloud-clients.ts';
import {
  type Controller,
  type ControllerDefinition,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';
import { addressesOf, type InstanceFacts, isUninitialized, labelsOf, UNINITIALIZED } from './facts.ts';
import { INSTANCE_CALLS, ofNode } from './instances.ts';

/** Upstream's --node-status-update-frequency of the cloud-controller-manager. */
const REFRESH_MS = 300_000;

class CloudNodes implements Controller {
  readonly name = 'cloud-node';
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
        return !change.old || isUninitialized(change.object) ? [change.object.metadata.name] : [];
      }),
    ];
  }

  started(): void {
    this.#clients.follow(this.#ctx, () => {
      for (const { metadata } of this.#nodes.values()) this.#ctx.enqueue(metadata.name);
    });
  }

  async reconcile({ name }: ObjectKey): Promise<Result | void> {
    const { events, log } = this.#ctx;
    const node = this.#nodes.get(name);
    if (!node || node.metadata.deletionTimestamp || !this.#clients.areAny) return;
    const isNew = isUninitialized(node);
    let facts: InstanceFacts | undefined;
    try {
      facts = (await this.#clients.ask('instanceMetadata', ofNode(node))) as InstanceFacts | undefined;
      if (!facts) return;
      if (isNew) return await this.#initialize(node, facts);
    } catch (error) {
      if (!isNew || isReason(error, 'Conflict', 'NotFound')) throw error;
      events.event(
        node,
        'Warning',
        'NotInitialized',
        `its cloud provider has not initialized the node: ${messageOf(error)}`,
      );
      throw error;
    }
    if (!(await this.#writeAddresses(node, facts)))
      log.warn('the cloud provider does not know the address that the kubelet was told to use', { node: name });
    return { requeueAfterMs: REFRESH_MS };
  }

  async #initialize(node: Node, facts: InstanceFacts): Promise<Result> {
    const written = await this.#writeAddresses(node, facts);
    if (!written) throw new Error('failed to find kubelet node IP from cloud provider');
    const { metadata, spec } = written;
    const { client, events } = this.#ctx;
    await client.of<Node>(NODES).patch('', metadata.name, {
      metadata: { resourceVersion: metadata.resourceVersion, labels: labelsOf(written, facts) },
      spec: {
        ...(spec?.providerID || !facts.providerId ? {} : { providerID: facts.providerId }),
        taints: (spec?.taints ?? []).filter(({ key }) => key !== UNINITIALIZED),
      },
    });
    events.event(node, 'Normal', 'Synced', 'Node synced successfully');
    return { requeueAfterMs: REFRESH_MS };
  }

  /** The node with them; undefined when they are not to be had. */
  async #writeAddresses(node: Node, facts: InstanceFacts): Promise<Node | undefined> {
    const { uid, name } = node.metadata;
    const addresses = addressesOf(node, facts);
    const before = (node.status?.addresses ?? []).map(({ type, address }) => ({ type, address }));
    if (!addresses) return undefined;
    if (addresses.length === 0 || JSON.stringify(before) === JSON.stringify(addresses)) return node;
    return this.#ctx.client.of<Node>(NODES).patchStatus('', name, { metadata: { uid }, status: { addresses } });
  }
}

export const cloudNode: ControllerDefinition = {
  folder: 'cloudnode',
  component: 'cloud-node-controller',
  create: ctx => new CloudNodes(ctx),
};
