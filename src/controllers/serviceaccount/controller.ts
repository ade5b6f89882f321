/** Every active namespace has a ServiceAccount `default`, made again when it is deleted. */

import type { Namespace, ServiceAccount } from '../../api/core/v1.gen.ts';
import { isReason } from '../../base/errors.ts';
import { NAMESPACES, SERVICE_ACCOUNTS } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  watch,
} from '../runtime/controller.ts';
import { isNamespaceTerminating } from '../runtime/pod-control.ts';

const NAME = 'default';

function create(ctx: ReconcileContext): Controller {
  const namespaces = ctx.informers.get<Namespace>(NAMESPACES);
  const accounts = ctx.informers.get<ServiceAccount>(SERVICE_ACCOUNTS);
  return {
    name: 'serviceaccount',
    watches: [
      watch<Namespace>(NAMESPACES, change => (change.deleted ? [] : [change.object.metadata.name])),
      watch<ServiceAccount>(SERVICE_ACCOUNTS, change =>
        change.deleted && change.old.metadata.name === NAME ? [latest(change).metadata.namespace!] : [],
      ),
    ],
    async reconcile({ name: namespace }) {
      const found = namespaces.get(namespace);
      if (
        !found ||
        found.status?.phase === 'Terminating' ||
        found.metadata.deletionTimestamp ||
        accounts.get(`${namespace}/${NAME}`)
      )
        return;
      try {
        await ctx.client
          .of<ServiceAccount>(SERVICE_ACCOUNTS)
          .create({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: NAME, namespace } });
      } catch (error) {
        if (!isReason(error, 'AlreadyExists') && !isNamespaceTerminating(error)) throw error;
      }
    },
  };
}

export const serviceAccount: ControllerDefinition = {
  folder: 'serviceaccount',
  component: 'serviceaccount-controller',
  create,
};
