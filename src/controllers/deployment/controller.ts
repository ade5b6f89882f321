/** Deployments: replica sets, one a pod template, moved from the old to the new by the strategy. */

import type { Deployment, ReplicaSet } from '../../api/apps/v1.gen.ts';
import type { Pod } from '../../api/core/v1.gen.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import { controllerOf, keyOf } from '../../api/meta.ts';
import { DEPLOYMENTS, PODS, REPLICA_SETS } from '../../client/resources.ts';
import {
  type Change,
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  watch,
} from '../runtime/controller.ts';
import { claim, dependents, indexByController, orphans } from '../runtime/ownership.ts';
import { Rollout } from './rollout.ts';

function create(ctx: ReconcileContext): Controller {
  const deployments = ctx.informers.get<Deployment>(DEPLOYMENTS);
  const sets = ctx.informers.get<ReplicaSet>(REPLICA_SETS);
  const pods = ctx.informers.get<Pod>(PODS);
  indexByController(sets as never);
  indexByController(pods as never);

  function* setKeys(change: Change<ReplicaSet>): Iterable<string> {
    const set = latest(change);
    const owners = [controllerOf(set), change.old && controllerOf(change.old)];
    for (const owner of owners) if (owner?.kind === 'Deployment') yield `${set.metadata.namespace}/${owner.name}`;
    if (owners[0] || change.deleted) return;
    for (const deployment of deployments.values()) {
      if (
        deployment.metadata.namespace === set.metadata.namespace &&
        labelSelectorMatch(deployment.spec.selector)(set.metadata.labels)
      )
        yield keyOf(deployment);
    }
  }

  // Only Recreate waits for pods; a rolling update goes by the replica sets' counts.
  function* podKeys(change: Change<Pod>): Iterable<string> {
    const finished =
      change.deleted || change.object.status?.phase === 'Succeeded' || change.object.status?.phase === 'Failed';
    const owner = finished ? controllerOf(latest(change)) : undefined;
    if (owner?.kind !== 'ReplicaSet') return;
    const set = sets.get(`${latest(change).metadata.namespace}/${owner.name}`);
    const deployment = set && controllerOf(set);
    if (deployment?.kind !== 'Deployment') return;
    const key = `${set!.metadata.namespace}/${deployment.name}`;
    if (deployments.get(key)?.spec.strategy?.type === 'Recreate') yield key;
  }

  return {
    name: 'deployment',
    watches: [
      watch<Deployment>(DEPLOYMENTS, change => [keyOf(latest(change))]),
      watch<ReplicaSet>(REPLICA_SETS, setKeys),
      watch<Pod>(PODS, podKeys),
    ],
    async reconcile({ namespace, name }) {
      const deployment = deployments.get(`${namespace}/${name}`);
      if (!deployment) return;
      const { selector } = deployment.spec;
      if (!Object.keys(selector?.matchLabels ?? {}).length && !selector?.matchExpressions?.length) {
        ctx.events.event(
          deployment,
          'Warning',
          'SelectingAll',
          'This deployment is selecting all pods. A non-empty selector is required.',
        );
        return;
      }
      const claimed = await claim(ctx, {
        owner: deployment,
        ownerResource: DEPLOYMENTS,
        of: REPLICA_SETS,
        selector: labelSelectorMatch(selector),
        objects: [...dependents(sets, deployment), ...orphans(sets, namespace)],
      });
      return new Rollout(ctx, { deployment, sets: claimed, podsOf: set => dependents(pods, set) }).run();
    },
  };
}

export const deployment: ControllerDefinition = { folder: 'deployment', component: 'deployment-controller', create };
