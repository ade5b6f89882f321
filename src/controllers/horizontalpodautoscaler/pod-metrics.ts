/** Resource metrics of pods as metrics.k8s.io tells them, summed up for one resource of a pod or of one of its containers. */

import { quantityMilli } from '../../api/machinery/quantity.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { Transport } from '../../client/transport.ts';

const POD_METRICS = { group: 'metrics.k8s.io', version: 'v1beta1', resource: 'pods' };

interface PodMetrics extends KubeObject {
  readonly timestamp: string;
  /** A Go duration: `15s`. */
  readonly window: string;
  readonly containers: readonly { readonly name: string; readonly usage: Readonly<Record<string, string>> }[];
}

export interface PodMetric {
  /** In thousandths. */
  readonly milli: number;
  readonly atMs: number;
  readonly windowMs: number;
}

/** By the pod's name; pods that told nothing of the resource are missing. Throws when none told anything. */
export async function resourceMetrics(
  transport: Transport,
  of: { readonly namespace: string; readonly selector: string; readonly resource: string; readonly container: string },
): Promise<Map<string, PodMetric>> {
  const { namespace, selector, resource, container } = of;
  const { items } = await transport.list({ of: POD_METRICS, namespace }, { labelSelector: selector });
  if (items.length === 0) throw new Error('no metrics returned from resource metrics API');
  const metrics = new Map<string, PodMetric>();
  for (const item of items as unknown as readonly PodMetrics[]) {
    const measured = container ? item.containers.filter(({ name }) => name === container) : item.containers;
    // A pod counts only when all of it was measured.
    if (measured.length === 0 || measured.some(({ usage }) => usage[resource] === undefined)) continue;
    metrics.set(item.metadata.name, {
      milli: measured.reduce((sum, { usage }) => sum + quantityMilli(usage[resource]), 0),
      atMs: Date.parse(item.timestamp),
      windowMs: secondsOf(item.window) * 1000,
    });
  }
  if (metrics.size === 0)
    throw new Error(
      container
        ? `container ${container} not present in metrics for pods`
        : `no metrics of ${resource} returned from resource metrics API`,
    );
  return metrics;
}

function secondsOf(window: string): number {
  const [, minutes = '0', seconds = '0'] = /^(?:(\d+)m)?(?:([\d.]+)s)?$/.exec(window) ?? [];
  return Number(minutes) * 60 + Number(seconds);
}
