/** Gives each node its pod ranges (`spec.podCIDRs`), once and for the node's life. Invariant: no two nodes share a subnet. */

import type { Node } from '../../api/core/v1.gen.ts';
import { assert } from '../../base/assert.ts';
import { NODES } from '../../client/resources.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';
import { SubnetAllocator } from './ranges.ts';

const lacksRange = ({ spec }: Node): boolean => !spec?.podCIDRs?.length;

function create(ctx: ReconcileContext): Controller {
  const { clusterCidrs, nodeCidrMaskSizes } = ctx.settings;
  const allocators = clusterCidrs.map((range, at) => new SubnetAllocator(range, nodeCidrMaskSizes[at]!));
  const nodes = ctx.informers.get<Node>(NODES);
  const forAll = (node: Node, act: (allocator: SubnetAllocator, subnet: string) => void) => {
    for (const subnet of node.spec?.podCIDRs ?? []) for (const allocator of allocators) act(allocator, subnet);
  };
  return {
    name: 'nodeipam',
    // One at a time: an allocation and its write are one step.
    workers: 1,
    watches: [
      watch<Node>(NODES, change => {
        if (change.deleted) {
          forAll(change.old, (allocator, subnet) => allocator.release(subnet));
          // What it had may be what others wait for.
          return [...nodes.values()].filter(lacksRange).map(({ metadata }) => metadata.name);
        }
        forAll(change.object, (allocator, subnet) => allocator.occupy(subnet));
        return lacksRange(change.object) ? [change.object.metadata.name] : [];
      }),
    ],
    async reconcile({ name }) {
      const node = nodes.get(name);
      if (!node || !lacksRange(node) || node.metadata.deletionTimestamp) return;
      const podCIDRs: string[] = [];
      const giveBack = () => {
        for (const [i, subnet] of podCIDRs.entries()) allocators[i]!.release(subnet);
      };
      for (const allocator of allocators) {
        const subnet = allocator.allocate();
        if (!subnet) {
          giveBack();
          ctx.events.event(node, 'Normal', 'CIDRNotAvailable', `Node ${name} status is now: CIDRNotAvailable`);
          ctx.log.warn('no pod range is free for the node', { node: name });
          return;
        }
        podCIDRs.push(subnet);
      }
      if (podCIDRs.length === 0) return;
      assert(podCIDRs.length === allocators.length, 'one range a family');
      try {
        await ctx.client
          .of<Node>(NODES)
          .patch(
            '',
            name,
            { metadata: { uid: node.metadata.uid }, spec: { podCIDR: podCIDRs[0], podCIDRs } },
            'application/strategic-merge-patch+json',
          );
      } catch (error) {
        giveBack();
        throw error;
      }
    },
  };
}

export const nodeIpam: ControllerDefinition = { folder: 'nodeipam', component: 'cidrAllocator', create };
