/**
 * Between the versions of a kind that is served in several: one is stored, requests and replies in another are converted
 * here. Versions of the same shape need only their apiVersion changed.
 */

import type { KubeObject } from '../api/meta.ts';
import { settle } from '../api/structural.ts';
import { apiVersionOf, type Served } from './resource-table.ts';

interface Version {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
}

type Fields = Record<string, unknown>;
type Convert = (fields: Fields) => Fields;

/** Renames top-level fields and leaves all others alone. */
function rename(pairs: readonly (readonly [from: string, to: string])[]): Convert {
  const names = new Map(pairs);
  return fields => Object.fromEntries(Object.entries(fields).map(([name, value]) => [names.get(name) ?? name, value]));
}

const EVENT_FIELDS = [
  ['involvedObject', 'regarding'],
  ['message', 'note'],
  ['source', 'deprecatedSource'],
  ['firstTimestamp', 'deprecatedFirstTimestamp'],
  ['lastTimestamp', 'deprecatedLastTimestamp'],
  ['count', 'deprecatedCount'],
  ['reportingComponent', 'reportingController'],
] as const;

const CPU_PERCENT = 'targetCPUUtilizationPercentage';
/** Where autoscaling/v1 keeps what it has no fields for. */
const METRICS = 'autoscaling.alpha.kubernetes.io/metrics';
const CURRENT_METRICS = 'autoscaling.alpha.kubernetes.io/current-metrics';
const BEHAVIOR = 'autoscaling.alpha.kubernetes.io/behavior';
const CONDITIONS = 'autoscaling.alpha.kubernetes.io/conditions';

interface Metric {
  readonly type: string;
  readonly resource?: { readonly name: string; readonly target?: Fields; readonly current?: Fields };
}

const isCpu = (metric: Metric, field: 'target' | 'current') =>
  metric.type === 'Resource' &&
  metric.resource?.name === 'cpu' &&
  metric.resource[field]?.['averageUtilization'] !== undefined;

function autoscalerToV1(fields: Fields): Fields {
  const { metrics = [], behavior, ...spec } = (fields['spec'] ?? {}) as Fields & { metrics?: Metric[] };
  const {
    currentMetrics = [],
    conditions,
    ...status
  } = (fields['status'] ?? {}) as Fields & { currentMetrics?: Metric[] };
  const metadata = fields['metadata'] as Fields;
  const annotations: Record<string, string> = { ...(metadata['annotations'] as Record<string, string>) };
  const cpu = metrics.find(metric => isCpu(metric, 'target'));
  if (cpu) spec[CPU_PERCENT] = cpu.resource!.target!['averageUtilization'];
  const currentCpu = currentMetrics?.find(metric => isCpu(metric, 'current'));
  if (currentCpu) status['currentCPUUtilizationPercentage'] = currentCpu.resource!.current!['averageUtilization'];
  const keep = (name: string, value: unknown) => {
    if (value !== undefined && (!Array.isArray(value) || value.length > 0)) annotations[name] = JSON.stringify(value);
  };
  keep(
    METRICS,
    metrics.filter(metric => metric !== cpu),
  );
  keep(
    CURRENT_METRICS,
    currentMetrics?.filter(metric => metric !== currentCpu),
  );
  keep(BEHAVIOR, behavior);
  keep(CONDITIONS, conditions);
  const next = { ...metadata, ...(Object.keys(annotations).length > 0 ? { annotations } : {}) };
  // What v2 leaves out when it is 0, v1 does not.
  return { ...fields, metadata: next, spec, status: { currentReplicas: 0, desiredReplicas: 0, ...status } };
}

function autoscalerToV2(fields: Fields): Fields {
  const { [CPU_PERCENT]: percent, ...spec } = (fields['spec'] ?? {}) as Fields;
  const { currentCPUUtilizationPercentage: current, ...status } = (fields['status'] ?? {}) as Fields;
  const metadata = { ...(fields['metadata'] as Fields) };
  const {
    [METRICS]: metrics,
    [CURRENT_METRICS]: currentMetrics,
    [BEHAVIOR]: behavior,
    [CONDITIONS]: conditions,
    ...annotations
  } = (metadata['annotations'] ?? {}) as Record<string, string>;
  if (Object.keys(annotations).length > 0) metadata['annotations'] = annotations;
  else delete metadata['annotations'];
  const utilization = (value: unknown, field: string) => ({
    type: 'Resource',
    resource: {
      name: 'cpu',
      [field]: field === 'target' ? { type: 'Utilization', averageUtilization: value } : { averageUtilization: value },
    },
  });
  const all = [...parsed(metrics), ...(percent === undefined ? [] : [utilization(percent, 'target')])];
  if (all.length > 0) spec['metrics'] = all;
  if (behavior !== undefined) spec['behavior'] = parseJson(behavior);
  if (!fields['status']) return { ...fields, metadata, spec };
  const currents = [...parsed(currentMetrics), ...(current === undefined ? [] : [utilization(current, 'current')])];
  if (currents.length > 0) status['currentMetrics'] = currents;
  if (conditions !== undefined) status['conditions'] = parseJson(conditions);
  return { ...fields, metadata, spec, status };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function parsed(text: string | undefined): unknown[] {
  const value = text === undefined ? [] : parseJson(text);
  return Array.isArray(value) ? value : [];
}

/** By `group/version/kind` of the source and `group/version` of the result. */
const conversions: Readonly<Record<string, Convert>> = {
  '/v1/Event>events.k8s.io/v1': rename(EVENT_FIELDS),
  'events.k8s.io/v1/Event>/v1': rename(EVENT_FIELDS.map(([from, to]) => [to, from] as const)),
  'autoscaling/v2/HorizontalPodAutoscaler>autoscaling/v1': autoscalerToV1,
  'autoscaling/v1/HorizontalPodAutoscaler>autoscaling/v2': autoscalerToV2,
};

/** The object in another version of its kind; a new object that shares parts with the one given. */
export function convertObject(object: KubeObject, from: Version, to: Version): KubeObject {
  const convert = conversions[`${from.group}/${from.version}/${from.kind}>${to.group}/${to.version}`];
  const converted = convert ? convert(object as unknown as Fields) : { ...object };
  return { ...converted, apiVersion: apiVersionOf(to), kind: to.kind } as unknown as KubeObject;
}

/** The object that is to be stored, without anything that its schema does not have. It may share parts with the one given, or be it. */
export function storedForm({ stored, custom }: Served, object: KubeObject): KubeObject {
  return custom ? custom.store(object) : settle(stored.type, object);
}

/** A stored object in the version in which requests are worked on: the stored one, or for custom resources the request's. */
export function workingForm({ custom }: Served, object: KubeObject): KubeObject {
  return custom ? custom.show(object) : object;
}
