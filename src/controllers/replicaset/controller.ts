/** ReplicaSets: see `replicas.ts`. */

import type { ReplicaSet } from '../../api/apps/v1.gen.ts';
import { REPLICA_SETS } from '../../client/resources.ts';
import type { ControllerDefinition } from '../runtime/controller.ts';
import { replicasController } from './replicas.ts';

export const replicaSet: ControllerDefinition = {
  folder: 'replicaset',
  component: 'replicaset-controller',
  create: ctx =>
    replicasController<ReplicaSet>(ctx, {
      name: 'replicaset',
      of: REPLICA_SETS,
      kind: 'ReplicaSet',
      selector: owner => owner.spec.selector,
      template: owner => owner.spec.template,
      countsTerminating: true,
    }),
};
