/** The controllers, in the order in which they start. A folder that is missing here fails a test. */

import { attachDetach } from './attachdetach/controller.ts';
import { bootstrapSigner } from './bootstrapsigner/controller.ts';
import { cloudLoadBalancer } from './cloudloadbalancer/controller.ts';
import { cloudNode } from './cloudnode/controller.ts';
import { cloudNodeLifecycle } from './cloudnodelifecycle/controller.ts';
import { cloudRoute } from './cloudroute/controller.ts';
import { clusterNetworkPolicy } from './clusternetworkpolicy/controller.ts';
import { cronJob } from './cronjob/controller.ts';
import { csrApproving } from './csrapproving/controller.ts';
import { csrCleaner } from './csrcleaner/controller.ts';
import { csrSigning } from './csrsigning/controller.ts';
import { daemonSet } from './daemonset/controller.ts';
import { deployment } from './deployment/controller.ts';
import { deviceTaintEviction } from './devicetainteviction/controller.ts';
import { disruption } from './disruption/controller.ts';
import { endpoints } from './endpoints/controller.ts';
import { endpointSlice } from './endpointslice/controller.ts';
import { endpointSliceMirroring } from './endpointslicemirroring/controller.ts';
import { ephemeralVolume } from './ephemeralvolume/controller.ts';
import { garbageCollector } from './garbagecollector/controller.ts';
import { horizontalPodAutoscaler } from './horizontalpodautoscaler/controller.ts';
import { job } from './job/controller.ts';
import { legacyTokenCleaner } from './legacytokencleaner/controller.ts';
import { loadBalancer } from './loadbalancer/controller.ts';
import { namespace } from './namespace/controller.ts';
import { nodeIpam } from './nodeipam/controller.ts';
import { nodeLifecycle } from './nodelifecycle/controller.ts';
import { nodeTtl } from './nodettl/controller.ts';
import { persistentVolume } from './persistentvolume/controller.ts';
import { podCertificateCleaner } from './podcertificatecleaner/controller.ts';
import { podGc } from './podgc/controller.ts';
import { pvcProtection } from './pvcprotection/controller.ts';
import { pvProtection } from './pvprotection/controller.ts';
import { replicaSet } from './replicaset/controller.ts';
import { replicationController } from './replicationcontroller/controller.ts';
import { resourceClaim } from './resourceclaim/controller.ts';
import { rootCa } from './rootca/controller.ts';
import type { ControllerDefinition } from './runtime/controller.ts';
import { serviceAccount } from './serviceaccount/controller.ts';
import { serviceAccountToken } from './serviceaccounttoken/controller.ts';
import { serviceCidr } from './servicecidr/controller.ts';
import { statefulSet } from './statefulset/controller.ts';
import { storageVersionMigrator } from './storageversionmigrator/controller.ts';
import { taintEviction } from './tainteviction/controller.ts';
import { tokenCleaner } from './tokencleaner/controller.ts';
import { ttlAfterFinished } from './ttlafterfinished/controller.ts';
import { vacProtection } from './vacprotection/controller.ts';

export const controllers: readonly ControllerDefinition[] = [
  serviceAccount,
  serviceAccountToken,
  rootCa,
  csrApproving,
  csrSigning,
  csrCleaner,
  podCertificateCleaner,
  tokenCleaner,
  bootstrapSigner,
  nodeIpam,
  serviceCidr,
  nodeLifecycle,
  taintEviction,
  deviceTaintEviction,
  deployment,
  replicaSet,
  replicationController,
  statefulSet,
  daemonSet,
  job,
  cronJob,
  horizontalPodAutoscaler,
  endpointSlice,
  endpointSliceMirroring,
  endpoints,
  loadBalancer,
  cloudLoadBalancer,
  cloudNode,
  cloudNodeLifecycle,
  cloudRoute,
  clusterNetworkPolicy,
  namespace,
  garbageCollector,
  podGc,
  disruption,
  resourceClaim,
  persistentVolume,
  pvcProtection,
  pvProtection,
  vacProtection,
  ephemeralVolume,
  attachDetach,
  ttlAfterFinished,
  nodeTtl,
  legacyTokenCleaner,
  storageVersionMigrator,
];
