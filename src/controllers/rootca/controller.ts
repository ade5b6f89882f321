/** Every namespace has the ConfigMap `kube-root-ca.crt` with the cluster's CA, by which pods trust the API server. */

import type { ConfigMap, Namespace } from '../../api/core/v1.gen.ts';
import { isReason } from '../../base/errors.ts';
import { CONFIG_MAPS, NAMESPACES } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  watch,
} from '../runtime/controller.ts';
import { isNamespaceTerminating } from '../runtime/pod-control.ts';

const NAME = 'kube-root-ca.crt';
const DESCRIPTION = 'kubernetes.io/description';
const TEXT =
  'Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.';

function create(ctx: ReconcileContext): Controller {
  const namespaces = ctx.informers.get<Namespace>(NAMESPACES);
  const maps = ctx.informers.get<ConfigMap>(CONFIG_MAPS);
  const client = ctx.client.of<ConfigMap>(CONFIG_MAPS);
  const data = { 'ca.crt': ctx.settings.caPem };
  return {
    name: 'rootca',
    watches: [
      watch<Namespace>(NAMESPACES, change => (change.deleted ? [] : [change.object.metadata.name])),
      watch<ConfigMap>(CONFIG_MAPS, change =>
        latest(change).metadata.name === NAME ? [latest(change).metadata.namespace!] : [],
      ),
    ],
    async reconcile({ name: namespace }) {
      const found = namespaces.get(namespace);
      if (!found || found.status?.phase === 'Terminating' || found.metadata.deletionTimestamp) return;
      const current = maps.get(`${namespace}/${NAME}`);
      try {
        if (!current) {
          await client.create({
            apiVersion: 'v1',
            kind: 'ConfigMap',
            metadata: { name: NAME, namespace, annotations: { [DESCRIPTION]: TEXT } },
            data,
          });
        } else if (
          current.data?.['ca.crt'] !== data['ca.crt'] ||
          Object.keys(current.data).length !== 1 ||
          !current.metadata.annotations?.[DESCRIPTION]
        ) {
          await client.update({
            ...current,
            metadata: { ...current.metadata, annotations: { ...current.metadata.annotations, [DESCRIPTION]: TEXT } },
            data,
          });
        }
      } catch (error) {
        if (!isReason(error, 'AlreadyExists') && !isNamespaceTerminating(error)) throw error;
      }
    },
  };
}

export const rootCa: ControllerDefinition = { folder: 'rootca', component: 'root-ca-certificate-publisher', create };
