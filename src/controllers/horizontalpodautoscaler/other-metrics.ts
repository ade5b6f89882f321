/**
 * Values of metrics that are not the pods' own CPU and memory, as custom.metrics.k8s.io and external.metrics.k8s.io tell them: whoever
 * serves these groups decides what they mean. Newer versions are asked first; a server that has only the older one is asked by that.
 */

import type { CrossVersionObjectReference, MetricIdentifier } from '../../api/autoscaling/v2.gen.ts';
import { formatLabelSelector } from '../../api/machinery/labels.ts';
import { quantityMilli } from '../../api/machinery/quantity.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { ResourceInfo } from '../../api/schema.ts';
import { isReason } from '../../base/errors.ts';
import type { ListOptions, Target, Transport } from '../../client/transport.ts';
import type { PodMetric } from './pod-metrics.ts';

const CUSTOM = 'custom.metrics.k8s.io';
const CUSTOM_VERSIONS = ['v1beta2', 'v1beta1'] as const;
const EXTERNAL = { group: 'external.metrics.k8s.io', version: 'v1beta1' };
/** Upstream's: what a value without a window is taken to cover. */
const WINDOW_MS = 60_000;

interface MetricValue extends KubeObject {
  readonly describedObject?: { readonly name?: string };
  readonly timestamp?: string;
  readonly windowSeconds?: number;
  readonly value?: string;
}

const selectorOf = ({ selector }: MetricIdentifier): string => (selector ? formatLabelSelector(selector) : '');

async function values(transport: Transport, target: Target, options: ListOptions): Promise<readonly MetricValue[]> {
  for (const version of CUSTOM_VERSIONS) {
    try {
      const of = { ...target.of, group: CUSTOM, version };
      return (await transport.list({ ...target, of }, options)).items as readonly MetricValue[];
    } catch (error) {
      // A version that is not served is unknown to the server in front, too: it says so in the same way.
      if (version === CUSTOM_VERSIONS.at(-1) || !isReason(error, 'NotFound')) throw error;
    }
  }
  return [];
}

/** A metric of each pod, by the pod's name. Throws when none of them has it. */
export async function podsMetric(
  transport: Transport,
  of: { readonly namespace: string; readonly selector: string; readonly metric: MetricIdentifier },
): Promise<Map<string, PodMetric>> {
  const { namespace, selector, metric } = of;
  const target = {
    of: { group: CUSTOM, version: '', resource: 'pods' },
    namespace,
    name: '*',
    subresource: metric.name,
  };
  const items = await values(transport, target, {
    labelSelector: selector,
    metricLabelSelector: selectorOf(metric),
  });
  if (items.length === 0) throw new Error('no metrics returned from custom metrics API');
  return new Map(
    items.map(item => [
      item.describedObject?.name ?? '',
      {
        milli: quantityMilli(item.value),
        atMs: Date.parse(item.timestamp ?? ''),
        windowMs: item.windowSeconds === undefined ? WINDOW_MS : item.windowSeconds * 1000,
      },
    ]),
  );
}

/** A metric of one object, in thousandths. `info` is the resource that the object's kind is served as. */
export async function objectMetric(
  transport: Transport,
  of: {
    readonly namespace: string;
    readonly object: CrossVersionObjectReference;
    readonly info: ResourceInfo;
    readonly metric: MetricIdentifier;
  },
): Promise<number> {
  const { namespace, object, info, metric } = of;
  const resource = info.group === '' ? info.resource : `${info.resource}.${info.group}`;
  // Metrics of namespaces have a path of their own: the namespace, and `metrics` as the resource.
  const target: Target =
    info.resource === 'namespaces' && info.group === ''
      ? { of: { group: CUSTOM, version: '', resource: 'metrics' }, namespace: object.name, name: metric.name }
      : {
          of: { group: CUSTOM, version: '', resource },
          ...(info.namespaced ? { namespace } : {}),
          name: object.name,
          subresource: metric.name,
        };
  const items = await values(transport, target, { metricLabelSelector: selectorOf(metric) });
  if (items.length !== 1) throw new Error(`expected exactly one value of ${metric.name}, but got ${items.length}`);
  return quantityMilli(items[0]!.value);
}

/** The sum of an external metric's values, in thousandths. */
export async function externalMetric(
  transport: Transport,
  { namespace, metric }: { readonly namespace: string; readonly metric: MetricIdentifier },
): Promise<number> {
  const of = { ...EXTERNAL, resource: metric.name };
  const { items } = await transport.list({ of, namespace }, { labelSelector: selectorOf(metric) });
  if (items.length === 0) throw new Error('no metrics returned from external metrics API');
  return (items as readonly MetricValue[]).reduce((sum, { value }) => sum + quantityMilli(value), 0);
}
