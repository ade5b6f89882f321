/**
 * The ordered registry of the built-in kinds that are more than their schema. To add one: write its file under
 * `src/api/<group>/`, import it here and add it to the array (a test fails when a file is missing from it).
 * The order is that of the lookup table only; no kind may depend on it.
 */

import {
  mutatingAdmissionPolicy,
  mutatingAdmissionPolicyBinding,
} from './admissionregistration/mutating-admission-policy.ts';
import {
  validatingAdmissionPolicy,
  validatingAdmissionPolicyBinding,
} from './admissionregistration/validating-admission-policy.ts';
import {
  mutatingWebhookConfiguration,
  validatingWebhookConfiguration,
} from './admissionregistration/webhook-configuration.ts';
import { customResourceDefinition } from './apiextensions/custom-resource-definition.ts';
import { apiService } from './apiregistration/api-service.ts';
import { controllerRevision } from './apps/controller-revision.ts';
import { daemonSet } from './apps/daemon-set.ts';
import { deployment } from './apps/deployment.ts';
import { replicaSet } from './apps/replica-set.ts';
import { statefulSet } from './apps/stateful-set.ts';
import { horizontalPodAutoscaler } from './autoscaling/horizontal-pod-autoscaler.ts';
import { cronJob } from './batch/cron-job.ts';
import { job } from './batch/job.ts';
import { certificateSigningRequest } from './certificates/certificate-signing-request.ts';
import { clusterTrustBundle } from './certificates/cluster-trust-bundle.ts';
import { podCertificateRequest } from './certificates/pod-certificate-request.ts';
import { lease } from './coordination/lease.ts';
import { componentStatus } from './core/component-status.ts';
import { configMap } from './core/config-map.ts';
import { endpoints } from './core/endpoints.ts';
import { event } from './core/event.ts';
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
import { flowSchema } from './flowcontrol/flow-schema.ts';
import { priorityLevelConfiguration } from './flowcontrol/priority-level-configuration.ts';
import type { Kind } from './kind.ts';
import { ingress, ingressClass } from './networking/ingress.ts';
import { networkPolicy } from './networking/network-policy.ts';
import { ipAddress, serviceCidr } from './networking/service-cidr.ts';
import { runtimeClass } from './node/runtime-class.ts';
import { podDisruptionBudget } from './policy/pod-disruption-budget.ts';
import { clusterRole, role } from './rbac/role.ts';
import { clusterRoleBinding, roleBinding } from './rbac/role-binding.ts';
import { deviceClass, resourceClaim, resourceClaimTemplate, resourceSlice } from './resource/resource-claim.ts';
import { priorityClass } from './scheduling/priority-class.ts';
import { csiDriver, csiNode, csiStorageCapacity, volumeAttachment } from './storage/csi.ts';
import { storageClass, volumeAttributesClass } from './storage/storage-class.ts';
import { storageVersionMigration } from './storagemigration/storage-version-migration.ts';

export const kinds: readonly Kind[] = [
  componentStatus,
  configMap,
  endpoints,
  event,
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
  roleBinding,
  clusterRoleBinding,
  role,
  clusterRole,
  ingress,
  ingressClass,
  networkPolicy,
  serviceCidr,
  ipAddress,
  podDisruptionBudget,
  priorityClass,
  horizontalPodAutoscaler,
  lease,
  volumeAttachment,
  csiDriver,
  csiNode,
  csiStorageCapacity,
  storageClass,
  volumeAttributesClass,
  runtimeClass,
  certificateSigningRequest,
  clusterTrustBundle,
  podCertificateRequest,
  mutatingAdmissionPolicy,
  mutatingAdmissionPolicyBinding,
  validatingAdmissionPolicy,
  validatingAdmissionPolicyBinding,
  validatingWebhookConfiguration,
  mutatingWebhookConfiguration,
  customResourceDefinition,
  apiService,
  flowSchema,
  priorityLevelConfiguration,
  resourceClaim,
  resourceClaimTemplate,
  deviceClass,
  resourceSlice,
  storageVersionMigration,
];

let index: Map<string, Kind> | undefined;

/** The kind's behaviour, or undefined: the kind is served by its schema alone. */
export function kindFor(group: string, version: string, kind: string): Kind | undefined {
  index ??= new Map(kinds.map(entry => [`${entry.group}/${entry.version}/${entry.kind}`, entry]));
  return index.get(`${group}/${version}/${kind}`);
}
