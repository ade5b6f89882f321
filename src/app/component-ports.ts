/** The ports that a stock kube-scheduler and kube-controller-manager have, of the ones that run in the server's process. */

import type { ComponentPages } from '../apiserver/component-server.ts';
import type { Clock } from '../base/clock.ts';
import type { ClusterRanges } from './cluster-ranges.ts';
import { componentPages } from './component-pages.ts';

const SCHEDULER_PORT = 10_259;
const CONTROLLER_MANAGER_PORT = 10_257;
/** Of every process. */
const PROCESS = ['kubernetes_', 'process_', 'rest_client_'];
const CONTROLLERS = [
  'cronjob_controller_',
  'endpoint_slice_controller_',
  'job_controller_',
  'node_collector_',
  'running_managed_controllers',
  'statefulset_controller_',
  'storage_operation_',
  'workqueue_',
];

export interface ComponentPort {
  readonly port: number;
  readonly pages: ComponentPages;
}

interface Ready {
  /** What keeps it from working; undefined when nothing does. */
  readonly problem: () => string | undefined;
}

export function componentPorts(parts: {
  readonly scheduler: Ready & { readonly podResources: () => string };
  readonly controllers: Ready;
  readonly ranges: ClusterRanges;
  readonly clock: Clock;
}): ComponentPort[] {
  const { scheduler, controllers, ranges, clock } = parts;
  return [
    {
      port: SCHEDULER_PORT,
      pages: {
        health: ['healthz', 'livez', 'readyz'],
        checks: [{ name: 'sched-handler-sync', check: scheduler.problem, readinessOnly: true }],
        metricPrefixes: ['scheduler_', ...PROCESS],
        metricPages: { '/metrics/resources': scheduler.podResources },
        zPages: componentPages({
          component: 'kube-scheduler',
          flags: { 'leader-elect': false, 'secure-port': SCHEDULER_PORT },
          paths: ['/healthz', '/livez', '/metrics', '/readyz'],
          clock,
        }),
      },
    },
    {
      port: CONTROLLER_MANAGER_PORT,
      pages: {
        health: ['healthz'],
        checks: [{ name: 'informer-sync', check: controllers.problem, readinessOnly: true }],
        metricPrefixes: [...CONTROLLERS, ...PROCESS],
        zPages: componentPages({
          component: 'kube-controller-manager',
          flags: {
            'allocate-node-cidrs': true,
            'cluster-cidr': ranges.podCidrs,
            'leader-elect': false,
            'secure-port': CONTROLLER_MANAGER_PORT,
            'service-cluster-ip-range': ranges.serviceCidrs,
          },
          paths: ['/healthz', '/metrics'],
          clock,
        }),
      },
    },
  ];
}
