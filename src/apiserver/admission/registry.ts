/**
 * The admission plugins, in upstream's order. To add one: a file that exports it and a line here. Not yet served:
 * PodSecurity, CertificateSigning, admission policies and webhooks (they come between DefaultIngressClass and ResourceQuota).
 */

import type { AdmissionPlugin } from '../request.ts';
import { certificateApproval, certificateRequester, certificateSubjectRestriction } from './certificates.ts';
import type { AdmissionContext } from './context.ts';
import { limitRanger } from './limit-ranger.ts';
import { namespaceLifecycle } from './namespace-lifecycle.ts';
import { nodeRestriction, taintNodesByCondition } from './node-restriction.ts';
import { notYet } from './not-yet.ts';
import { defaultTolerationSeconds, priority, runtimeClass } from './pods.ts';
import { rbacEscalation } from './rbac-escalation.ts';
import type { ResourceQuota } from './resource-quota.ts';
import { serviceAccount } from './service-account.ts';
import {
  defaultIngressClass,
  defaultStorageClass,
  persistentVolumeClaimResize,
  storageObjectInUseProtection,
} from './storage.ts';

export function admissionPlugins(context: AdmissionContext, quota: ResourceQuota): AdmissionPlugin[] {
  return [
    namespaceLifecycle(context),
    limitRanger(context),
    serviceAccount(context),
    nodeRestriction(context),
    taintNodesByCondition(),
    priority(context),
    defaultTolerationSeconds(),
    defaultStorageClass(context),
    storageObjectInUseProtection(),
    persistentVolumeClaimResize(context),
    runtimeClass(context),
    certificateRequester(context),
    certificateApproval(context),
    certificateSubjectRestriction(),
    defaultIngressClass(context),
    rbacEscalation(context),
    notYet(),
    quota,
  ];
}
