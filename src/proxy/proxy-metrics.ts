/** kube-proxy's metrics, by its names and with its buckets. */

import { metrics } from '../base/metrics.ts';

/** kube-proxy has a proxier for each family, and so do its metrics; ours programs both at once. */
export type Family = 'IPv4' | 'IPv6';
export const familyName = (address: string): Family => (address.includes(':') ? 'IPv6' : 'IPv4');
const FAMILY = ['ip_family'];
const DOUBLING = Array.from({ length: 15 }, (_, i) => 0.001 * 2 ** i);

export const syncSeconds = () =>
  metrics.histogram(
    'kubeproxy_sync_proxy_rules_duration_seconds',
    'SyncProxyRules latency in seconds',
    DOUBLING,
    FAMILY,
  );

const every = (from: number, to: number, step: number) =>
  Array.from({ length: (to - from) / step + 1 }, (_, i) => from + i * step);

export const networkProgrammingSeconds = () =>
  metrics.histogram(
    'kubeproxy_network_programming_duration_seconds',
    'In Cluster Network Programming Latency in seconds',
    [0, 0.25, 0.5, ...every(1, 59, 1), ...every(60, 120, 5), ...every(150, 300, 30)],
    FAMILY,
  );

export const lastSyncSeconds = () =>
  metrics.gauge(
    'kubeproxy_sync_proxy_rules_last_timestamp_seconds',
    'The last time proxy rules were successfully synced',
    FAMILY,
  );

export const lastQueuedSeconds = () =>
  metrics.gauge(
    'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds',
    'The last time a sync of proxy rules was queued',
    FAMILY,
  );

export const syncFailures = () =>
  metrics.counter(
    'kubeproxy_sync_proxy_rules_nftables_sync_failures_total',
    'Cumulative proxy nftables sync failures',
    FAMILY,
  );

export const conntrackSeconds = () =>
  metrics.histogram(
    'kubeproxy_conntrack_reconciler_sync_duration_seconds',
    'ReconcileConntrackFlowsLatency latency in seconds',
    DOUBLING,
    FAMILY,
  );

export const conntrackDeletions = () =>
  metrics.counter(
    'kubeproxy_conntrack_reconciler_deleted_entries_total',
    'Cumulative conntrack flows deleted by conntrack reconciler',
    FAMILY,
  );

export const serviceChanges = () =>
  metrics.counter('kubeproxy_sync_proxy_rules_service_changes_total', 'Cumulative proxy rules Service changes');

export const endpointChanges = () =>
  metrics.counter('kubeproxy_sync_proxy_rules_endpoint_changes_total', 'Cumulative proxy rules Endpoint changes');

export const repairs = () =>
  metrics.counter(
    'coxswain_proxy_repairs_total',
    'How often rules were programmed anew because somebody else had changed them',
  );

export const healthRequests = (path: 'healthz' | 'livez') =>
  metrics.counter(`kubeproxy_proxy_${path}_total`, `Cumulative proxy ${path} HTTP status`, ['code']);
