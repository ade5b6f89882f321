/** ReplicationControllers: the ReplicaSet core with a plain map as selector. */

import type { ReplicationController } from '../../api/core/v1.gen.ts';
import { REPLICATION_CONTROLLERS } from '../../client/resources.ts';
import { replicasController } from '../replicaset/replicas.ts';
import type { ControllerDefinition } from '../runtime/controller.ts';

export const replicationController: ControllerDefinition = {
  folder: 'replicationcontroller',
  component: 'replication-controller',
  create: ctx =>
    replicasController<ReplicationController>(ctx, {
      name: 'replicationcontroller',
      of: REPLICATION_CONTROLLERS,
      kind: 'ReplicationController',
      selector: owner =>
        owner.spec?.selector && Object.keys(owner.spec.selector).length > 0
          ? { matchLabels: owner.spec.selector }
          : undefined,
      template: owner => owner.spec?.template,
      countsTerminating: false,
    }),
};
