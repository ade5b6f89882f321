/**
 * The admission plugins, in upstream's order. To add one: a file that exports it and a line here. Policies and webhooks come last, but for quotas.
 */

import type { AdmissionPlugin } from '../request.ts';
import { WebhookClient } from '../webhooks/client.ts';
import { adminAccess } from './admin-access.ts';
import { mutatingWebhooks, validatingWebhooks } from './admission-webhooks.ts';
import {
  certificateApproval,
  certificateRequester,
  certificateSigning,
  certificateSubjectRestriction,
  clusterTrustBundleAttest,
  podCertificateSigning,
} from './certificates.ts';
import { claimStatus } from './claim-status.ts';
import type { AdmissionContext } from './context.ts';
import { limitRanger } from './limit-ranger.ts';
import { mutatingPolicies } from './mutating-policies.ts';
import { namespaceLifecycle } from './namespace-lifecycle.ts';
import { nodeDeclaredFeatures } from './node-declared-features.ts';
import { nodeRestriction, taintNodesByCondition } from './node-restriction.ts';
import { podResize } from './pod-resize.ts';
import { podSecurity } from './pod-security.ts';
import { defaultTolerationSeconds, priority, runtimeClass } from './pods.ts';
import { policyDefinitions } from './policy-definitions.ts';
import { policyParams } from './policy-params.ts';
import { rbacEscalation } from './rbac-escalation.ts';
import type { ResourceQuota } from './resource-quota.ts';
import { serviceAccount } from './service-account.ts';
import {
  defaultIngressClass,
  defaultStorageClass,
  persistentVolumeClaimResize,
  storageObjectInUseProtection,
} from './storage.ts';
import { validatingPolicies } from './validating-policies.ts';

export function admissionPlugins(context: AdmissionContext, quota: ResourceQuota): AdmissionPlugin[] {
  const client = new WebhookClient({ reader: context.reader, random: context.random });
  const own = [
    namespaceLifecycle(context),
    limitRanger(context),
    serviceAccount(context),
    nodeRestriction(context),
    taintNodesByCondition(),
    podSecurity(context),
    priority(context),
    defaultTolerationSeconds(),
    defaultStorageClass(context),
    storageObjectInUseProtection(),
    persistentVolumeClaimResize(context),
    runtimeClass(context),
    certificateRequester(context),
    certificateApproval(context),
    certificateSigning(context),
    clusterTrustBundleAttest(context),
    podCertificateSigning(context),
    certificateSubjectRestriction(),
    defaultIngressClass(context),
    nodeDeclaredFeatures(context),
    podResize(context),
    rbacEscalation(context),
    claimStatus(context),
    adminAccess(context),
    policyDefinitions(),
    policyParams(context),
  ];
  return [
    ...own,
    mutatingPolicies(context),
    mutatingWebhooks(context, client, own),
    validatingPolicies(context),
    validatingWebhooks(context, client),
    quota,
  ];
}
