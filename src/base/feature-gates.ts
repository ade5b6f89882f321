/**
 * The feature gates of Kubernetes 1.36 that a client or an operator can see the effect of, by stage, and whether what they stand for is
 * here: on for what we do, off for what we do not, whatever a stock component has by default. None can be switched. Gates of Go's
 * inner workings (caches, informers, logging) mean nothing here and are left out. Source: Kubernetes' feature gates reference.
 */

const names = (text: string): readonly string[] => text.trim().split(/\s+/);

/** A graduated gate's stage is the empty text, as upstream tells it. */
export type FeatureStage = '' | 'BETA' | 'ALPHA';

interface Gates {
  readonly on: readonly string[];
  readonly off: readonly string[];
}

export const FEATURE_GATES: Readonly<Record<FeatureStage, Gates>> = {
  '': {
    on: names(`APIServerTracing AnonymousAuthConfigurableEndpoints AuthorizeNodeWithSelectors AuthorizeWithSelectors CRDValidationRatcheting
      ConsistentListFromCache CronJobsScheduledAnnotation CustomResourceFieldSelectors DynamicResourceAllocation
      ElasticIndexedJob ImageVolume InPlacePodVerticalScaling JobBackoffLimitPerIndex JobManagedBy JobPodReplacementPolicy
      JobSuccessPolicy KubeletPSI KubeletTracing MatchLabelKeysInPodAffinity MultiCIDRServiceAllocator MutatingAdmissionPolicy NFTablesProxyMode
      NodeInclusionPolicyInPodTopologySpread NodeLogQuery OrderedNamespaceDeletion PodIndexLabel PodLifecycleSleepAction
      PodLifecycleSleepActionAllowZero PodObservedGenerationTracking PodSchedulingReadiness RecursiveReadOnlyMounts
      RetryGenerateName ServiceAccountTokenJTI ServiceAccountTokenNodeBinding ServiceAccountTokenPodNodeInfo
      ServiceTrafficDistribution SidecarContainers StatefulSetAutoDeletePVC StatefulSetStartOrdinal
      StructuredAuthenticationConfiguration`),
    off: [],
  },
  BETA: {
    on: names(`ComponentFlagz ComponentStatusz ConstrainedImpersonation ContainerRestartRules
      DRADeviceTaints DRAResourceClaimGranularStatusAuthorization DeploymentReplicaSetTerminatingReplicas EnvFiles NodeDeclaredFeatures
      DRAExtendedResource NominatedNodeNameForExpectation
      PodDeletionCost PodLevelResources RestartAllContainersOnContainerExits ServiceAccountNodeAudienceRestriction
      StructuredAuthenticationConfigurationEgressSelector SupplementalGroupsPolicy TokenRequestServiceAccountUIDValidation
      WatchList`),
    off: names(`CRDObservedGenerationTracking ClusterTrustBundle ClusterTrustBundleProjection CoordinatedLeaderElection DRADeviceBindingConditions
      DRADeviceTaintRules PodCertificateRequest ResourceHealthStatus SELinuxMount
      StorageVersionMigrator`),
  },
  ALPHA: {
    on: [],
    off: names(`CrossNamespaceVolumeDataSource EventedPLEG GenericWorkload HPAScaleToZero
      InPlacePodVerticalScalingExclusiveCPUs InPlacePodVerticalScalingExclusiveMemory MutablePVNodeAffinity PodLogsQuerySplitStreams
      RuntimeClassInImageCriApi ShardedListAndWatch TaintTolerationComparisonOperators TopologyAwareWorkloadScheduling
      UserNamespacesHostNetworkSupport WorkloadWithJob`),
  },
};
