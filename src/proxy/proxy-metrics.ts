/** kube-proxy's metrics, by its names and with its buckets. */

import { metrics } from '../base/metrics.ts';

export const syncSeconds = () =>
  metrics.histogram(
    'kubeproxy_sync_proxy_rules_duration_seconds',
    'SyncProxyRules latency in seconds',
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384],
  );

const every = (from: number, to: number, step: number) =>
  Array.from({ length: (to - from) / step + 1 }, (_, i) => from + i * step);

export const networkProgrammingSeconds = () =>
  metrics.histogram(
    'kubeproxy_network_programming_duration_seconds',
    'In Cluster Network Programming Latency in seconds',
    [0, 0.25, 0.5, ...every(1, 59, 1), ...every(60, 120, 5), ...every(150, 300, 30)],
  );

export const lastSyncSeconds = () =>
  metrics.gauge(
    'kubeproxy_sync_proxy_rules_last_timestamp_seconds',
    'The last time proxy rules were successfully synced',
  );

export const lastQueuedSeconds = () =>
  metrics.gauge(
    'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds',
    'The last time a sync of proxy rules was queued',
  );

export const syncFailures = () =>
  metrics.counter('kubeproxy_sync_proxy_rules_nftables_sync_failures_total', 'Cumulative proxy nftables sync failures');

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
