/**
 * `/metrics/resources`: what each pod asks for and may use, as the scheduler counts it. One series a pod and resource, made when it is
 * asked for, on a page of its own because there are so many.
 */

import type { Pod } from '../api/core/v1.gen.ts';
import { isPodTerminal, podLimits, podRequests, type ResourceAmounts } from '../api/machinery/pod.ts';
import { MetricsRegistry } from '../base/metrics.ts';

const LABELS = ['namespace', 'pod', 'node', 'scheduler', 'priority', 'resource', 'unit'];
const MEANING =
  'broken down by pod. This shows the resource usage the scheduler and kubelet expect per pod for resources along with the unit for the resource if any.';

function unitOf(resource: string): string {
  if (resource === 'cpu') return 'cores';
  if (['memory', 'storage', 'ephemeral-storage'].includes(resource) || resource.startsWith('hugepages-'))
    return 'bytes';
  return resource.startsWith('attachable-volumes-') ? 'integer' : '';
}

export function podResourceMetrics(pods: Iterable<Pod>): string {
  const registry = new MetricsRegistry();
  const requests = registry.gauge(
    'kube_pod_resource_request',
    `Resources requested by workloads on the cluster, ${MEANING}`,
    LABELS,
  );
  const limits = registry.gauge(
    'kube_pod_resource_limit',
    `Resources limit for workloads on the cluster, ${MEANING}`,
    LABELS,
  );
  for (const pod of pods) {
    const { metadata, spec } = pod;
    if (spec.nodeName && isPodTerminal(pod)) continue;
    const { nodeName = '', schedulerName = '', priority } = spec;
    const of = [
      metadata.namespace ?? '',
      metadata.name,
      nodeName,
      schedulerName,
      priority === undefined ? '' : String(priority),
    ];
    const tell = (gauge: typeof requests, amounts: ResourceAmounts) => {
      for (const [resource, amount] of Object.entries(amounts))
        if (amount !== 0) gauge.set(resource === 'cpu' ? amount / 1000 : amount, ...of, resource, unitOf(resource));
    };
    tell(requests, podRequests(spec));
    tell(limits, podLimits(spec));
  }
  return registry.render();
}
