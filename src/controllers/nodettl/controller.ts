/**
 * Writes on each node how many seconds its kubelet may keep Secrets and ConfigMaps before it reads them again: more in large clusters
 * (upstream's ttl controller and its steps, which fall back later than they rise, so that nothing flaps).
 */

import type { Node } from '../../api/core/v1.gen.ts';
import { isReason } from '../../base/errors.ts';
import { NODES } from '../../client/resources.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';

const ANNOTATION = 'node.alpha.kubernetes.io/ttl';
const STEPS = [
  { nodesMin: 0, nodesMax: 100, seconds: 0 },
  { nodesMin: 90, nodesMax: 500, seconds: 15 },
  { nodesMin: 450, nodesMax: 1000, seconds: 30 },
  { nodesMin: 900, nodesMax: 2000, seconds: 60 },
  { nodesMin: 1800, nodesMax: Number.POSITIVE_INFINITY, seconds: 300 },
] as const;

function create(ctx: ReconcileContext): Controller {
  const nodes = ctx.informers.get<Node>(NODES);
  let step = 0;
  return {
    name: 'nodettl',
    watches: [
      watch<Node>(NODES, change => {
        const count = [...nodes.values()].length;
        const before = step;
        while (count > STEPS[step]!.nodesMax) step++;
        while (count < STEPS[step]!.nodesMin) step--;
        if (step !== before) return [...nodes.values()].map(({ metadata }) => metadata.name);
        return change.deleted ? [] : [change.object.metadata.name];
      }),
    ],
    async reconcile({ name }) {
      const wanted = String(STEPS[step]!.seconds);
      const node = nodes.get(name);
      if (!node || node.metadata.annotations?.[ANNOTATION] === wanted) return;
      try {
        await ctx.client.of<Node>(NODES).patch('', name, { metadata: { annotations: { [ANNOTATION]: wanted } } });
      } catch (error) {
        if (!isReason(error, 'NotFound')) throw error;
      }
    },
  };
}

export const nodeTtl: ControllerDefinition = { folder: 'nodettl', component: 'ttl-controller', create };
