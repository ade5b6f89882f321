/**
 * The ordered registry of the built-in kinds that are more than their schema. To add one: write its file under
 * `src/api/<group>/`, import it here and add it to the array (a test fails when a file is missing from it).
 * The order is that of the lookup table only; no kind may depend on it.
 */

import { controllerRevision } from './apps/controller-revision.ts';
import { daemonSet } from './apps/daemon-set.ts';
import { deployment } from './apps/deployment.ts';
import { replicaSet } from './apps/replica-set.ts';
import { statefulSet } from './apps/stateful-set.ts';
import { cronJob } from './batch/cron-job.ts';
import { job } from './batch/job.ts';
import { configMap } from './core/config-map.ts';
import { endpoints } from './core/endpoints.ts';
import { limitRange } from './core/limit-range.ts';
import { namespace } from './core/namespace.ts';
import { node } from './core/node.ts';
import { persistentVolume } from './core/persistent-volume.ts';
import { persistentVolumeClaim } from './core/persistent-volume-claim.ts';
import { pod } from './core/pod.ts';
import { podTemplate, replicationController } from './core/replication-controller.ts';
import { resourceQuota } from './core/resource-quota.ts';
import { secret } from './core/secret.ts';
import { service } from './core/service.ts';
import { serviceAccount } from './core/service-account.ts';
import { endpointSlice } from './discovery/endpoint-slice.ts';
import type { Kind } from './kind.ts';

export const kinds: readonly Kind[] = [
  configMap,
  endpoints,
  limitRange,
  namespace,
  node,
  persistentVolumeClaim,
  persistentVolume,
  pod,
  replicationController,
  podTemplate,
  resourceQuota,
  secret,
  serviceAccount,
  service,
  controllerRevision,
  daemonSet,
  deployment,
  replicaSet,
  statefulSet,
  cronJob,
  job,
  endpointSlice,
];

let index: Map<string, Kind> | undefined;

/** The kind's behaviour, or undefined: the kind is served by its schema alone. */
export function kindFor(group: string, version: string, kind: string): Kind | undefined {
  index ??= new Map(kinds.map(entry => [`${entry.group}/${entry.version}/${entry.kind}`, entry]));
  return index.get(`${group}/${version}/${kind}`);
}
