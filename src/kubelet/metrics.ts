/**
 * The kubelet's own metrics, by upstream's names and labels. Each is where Prometheus and its dashboards look for it: what is told of
 * probes has a page of its own (`/metrics/probes`), since its series are as many as the containers.
 */

import { MetricsRegistry, metrics } from '../base/metrics.ts';

/** For times of a pod or its worker, as upstream. */
const DURATIONS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const START_DURATIONS = [
  0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600,
];

/** `/metrics/probes`. */
export const probeMetrics = new MetricsRegistry();
export const probeResults = probeMetrics.counter(
  'prober_probe_total',
  'Cumulative number of a liveness, readiness or startup probe for a container by result.',
  ['probe_type', 'result', 'container', 'pod', 'namespace', 'pod_uid'],
);
export const probeDurations = probeMetrics.histogram(
  'prober_probe_duration_seconds',
  'Duration in seconds for a probe response.',
  DURATIONS,
  ['probe_type', 'container', 'pod', 'namespace'],
);

export const nodeName = metrics.gauge('kubelet_node_name', "The node's name. The count is always 1.", ['node']);
export const runningPods = metrics.gauge('kubelet_running_pods', 'Number of pods that have a running pod sandbox');
export const runningContainers = metrics.gauge('kubelet_running_containers', 'Number of containers currently running', [
  'container_state',
]);
export const startedPods = metrics.counter('kubelet_started_pods_total', 'Cumulative number of pods started');
export const startedPodErrors = metrics.counter(
  'kubelet_started_pods_errors_total',
  'Cumulative number of errors when starting pods',
);
export const startedContainers = metrics.counter(
  'kubelet_started_containers_total',
  'Cumulative number of containers started',
  ['container_type'],
);
export const startedContainerErrors = metrics.counter(
  'kubelet_started_containers_errors_total',
  'Cumulative number of errors when starting containers',
  ['container_type', 'code'],
);
const admissionRejections = metrics.counter(
  'kubelet_admission_rejections_total',
  'Cumulative number pod admission rejections by the Kubelet.',
  ['reason'],
);
/** Reasons that have series of their own, so that nobody's resource can make one. */
const REJECTIONS = new Set([
  'AppArmor',
  'Evicted',
  'OutOfcpu',
  'OutOfephemeral-storage',
  'OutOfmemory',
  'OutOfpods',
  'PodOSNotSupported',
  'SupplementalGroupsPolicyNotSupported',
  'SysctlForbidden',
  'TopologyAffinityError',
  'UnexpectedAdmissionError',
]);
/** The node does not take a pod. */
export function countRejection(reason: string): void {
  const shown = reason.startsWith('OutOf') ? 'OutOfExtendedResources' : 'Other';
  admissionRejections.add(1, REJECTIONS.has(reason) ? reason : shown);
}
export const podStartDurations = metrics.histogram(
  'kubelet_pod_start_duration_seconds',
  'Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run',
  START_DURATIONS,
);
export const podWorkerStartDurations = metrics.histogram(
  'kubelet_pod_worker_start_duration_seconds',
  'Duration in seconds from kubelet seeing a pod to starting a worker.',
  DURATIONS,
);
export const podWorkerDurations = metrics.histogram(
  'kubelet_pod_worker_duration_seconds',
  'Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync',
  DURATIONS,
  ['operation_type'],
);
export const relistDurations = metrics.histogram(
  'kubelet_pleg_relist_duration_seconds',
  'Duration in seconds for relisting pods in PLEG.',
  DURATIONS,
);
export const relistIntervals = metrics.histogram(
  'kubelet_pleg_relist_interval_seconds',
  'Interval in seconds between relisting in PLEG.',
  DURATIONS,
);
export const runtimeOperations = metrics.counter(
  'kubelet_runtime_operations_total',
  'Cumulative number of runtime operations by operation type.',
  ['operation_type'],
);
export const runtimeErrors = metrics.counter(
  'kubelet_runtime_operations_errors_total',
  'Cumulative number of runtime operation errors by operation type.',
  ['operation_type'],
);
export const runtimeDurations = metrics.histogram(
  'kubelet_runtime_operations_duration_seconds',
  'Duration in seconds of runtime operations. Broken down by operation type.',
  [
    0.005, 0.0125, 0.03125, 0.078125, 0.1953125, 0.48828125, 1.220703125, 3.0517578125, 7.62939453125, 19.073486328125,
    47.6837158203125, 119.20928955078125, 298.0232238769531, 745.0580596923828,
  ],
  ['operation_type'],
);
export const requestedResizes = metrics.counter(
  'kubelet_container_requested_resizes_total',
  'Number of requested resizes, counted at the container level. Different resources on the same container are counted separately.',
  ['resource', 'requirement', 'operation'],
);
export const pendingResizes = metrics.gauge('kubelet_pod_pending_resizes', 'Number of pending resizes for pods.', [
  'reason',
]);
export const infeasibleResizes = metrics.counter(
  'kubelet_pod_infeasible_resizes_total',
  'Number of infeasible resizes for pods.',
  ['reason_detail'],
);
export const resizesUnderWay = metrics.gauge(
  'kubelet_pod_in_progress_resizes',
  'Number of in-progress resizes for pods.',
);
export const deferredResizesAccepted = metrics.counter(
  'kubelet_pod_deferred_accepted_resizes_total',
  'Cumulative number of resizes that were accepted after being deferred.',
  ['retry_trigger'],
);
export const resizeDurations = metrics.histogram(
  'kubelet_pod_resize_duration_milliseconds',
  'Duration in milliseconds to actuate a pod resize',
  [10, 50, 100, 500, 1000, 5000, 10_000],
  ['success'],
);
export const imageVolumesRequested = metrics.counter(
  'kubelet_image_volume_requested_total',
  'Number of requested image volumes.',
);
export const imageVolumesMounted = metrics.counter(
  'kubelet_image_volume_mounted_succeed_total',
  'Number of successful image volume mounts.',
);
export const imageVolumeErrors = metrics.counter(
  'kubelet_image_volume_mounted_errors_total',
  'Number of failed image volume mounts.',
);
/** `<any>` is each claim once, whatever drivers its devices have. */
export const claimsInUse = metrics.gauge(
  'dra_resource_claims_in_use',
  'The number of ResourceClaims that are currently in use on the node, by driver name (driver_name label value) and across all drivers (special value <any> for driver_name). Note that the sum of all by-driver counts is not the total number of in-use ResourceClaims because the same ResourceClaim might use devices from different drivers. Instead, use the count for the <any> driver_name.',
  ['driver_name'],
);
