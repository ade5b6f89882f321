/**
 * Binding a pod to a node (`pods/binding`, `bindings`) and evicting it (`pods/eviction`). A pod is bound at most once; an
 * eviction that would break a PodDisruptionBudget is refused with 429 and takes one of its allowed disruptions otherwise.
 */

import type { Binding, Node, Pod } from '../../api/core/v1.gen.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { Eviction, PodDisruptionBudget } from '../../api/policy/v1.gen.ts';
import { type Clock, formatTime } from '../../base/clock.ts';
import {
  ApiError,
  badRequest,
  conflict,
  failure,
  fieldErrors,
  forbidden,
  internalError,
  invalid,
  isReason,
  notFound,
} from '../../base/errors.ts';
import { NODES, POD_DISRUPTION_BUDGETS, PODS } from '../../client/resources.ts';
import type { DeleteOptions, Transport } from '../../client/transport.ts';
import type { CreateHandler, HandlerRequest, Reader, StoredObjects } from '../request.ts';

const BINDING = { group: '', resource: 'pods/binding' };
/** Upstream's bound of pods whose eviction a budget remembers. */
const DISRUPTED_PODS_MAX = 2000;
const TOPOLOGY_LABELS = ['topology.kubernetes.io/zone', 'topology.kubernetes.io/region'];
const SUCCESS = {
  kind: 'Status',
  apiVersion: 'v1',
  metadata: {},
  status: 'Success',
  code: 201,
} as unknown as KubeObject;

export interface PodHandlersOptions {
  readonly reader: () => Reader;
  readonly transport: () => Transport;
  readonly stored: () => StoredObjects;
  readonly clock: Clock;
}

export function podHandlers(options: PodHandlersOptions): CreateHandler[] {
  return [
    { of: PODS, subresource: 'binding', create: (body, request) => bind(options, body as Binding, request) },
    {
      of: { group: '', version: 'v1', resource: 'bindings' },
      create: (body, request) => bind(options, body as Binding, request),
    },
    { of: PODS, subresource: 'eviction', create: (body, request) => evict(options, body as Eviction, request) },
  ];
}

async function bind(
  { stored, reader, clock }: PodHandlersOptions,
  binding: Binding,
  { attributes, dryRun }: HandlerRequest,
): Promise<KubeObject> {
  const name = binding.metadata?.name;
  if (!name || (attributes.name && attributes.name !== name))
    throw badRequest('name in URL does not match name in Binding object');
  const { target } = binding;
  if (target?.kind && target.kind !== 'Node')
    throw invalid({ group: '', kind: 'Binding' }, name, [
      fieldErrors.notSupported('target.kind', target.kind, ['Node', '<empty>']),
    ]);
  if (!target?.name) throw invalid({ group: '', kind: 'Binding' }, name, [fieldErrors.required('target.name')]);
  const node = reader().get(NODES, '', target.name) as Node | undefined;
  await stored().modify({ of: PODS, namespace: attributes.namespace, name, dryRun }, copy => {
    const pod = copy as Pod;
    const { uid, resourceVersion } = binding.metadata ?? {};
    if (uid && uid !== pod.metadata.uid)
      throw conflict(
        BINDING,
        name,
        `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${pod.metadata.uid}`,
      );
    if (resourceVersion && resourceVersion !== pod.metadata.resourceVersion)
      throw conflict(
        BINDING,
        name,
        `Precondition failed: ResourceVersion in precondition: ${resourceVersion}, ResourceVersion in object meta: ${pod.metadata.resourceVersion}`,
      );
    if (pod.metadata.deletionTimestamp)
      throw conflict(BINDING, name, `pod ${name} is being deleted, cannot be assigned to a host`);
    if (pod.spec?.nodeName)
      throw conflict(BINDING, name, `pod ${name} is already assigned to node ${JSON.stringify(pod.spec.nodeName)}`);
    if (pod.spec?.schedulingGates?.length)
      throw conflict(BINDING, name, `pod ${name} has non-empty .spec.schedulingGates`);
    pod.spec!.nodeName = target.name!;
    if (binding.metadata?.annotations)
      pod.metadata.annotations = { ...pod.metadata.annotations, ...binding.metadata.annotations };
    const labels = Object.fromEntries(
      TOPOLOGY_LABELS.map(label => [label, node?.metadata.labels?.[label]]).filter(([, value]) => value !== undefined),
    );
    if (Object.keys(labels).length) pod.metadata.labels = { ...pod.metadata.labels, ...labels };
    const conditions = (pod.status?.conditions ?? []).filter(condition => condition.type !== 'PodScheduled');
    const before = pod.status?.conditions?.find(
      condition => condition.type === 'PodScheduled' && condition.status === 'True',
    );
    const scheduled = before ?? {
      type: 'PodScheduled',
      status: 'True',
      lastProbeTime: null as never,
      lastTransitionTime: formatTime(clock.now()),
      ...(pod.metadata.generation ? { observedGeneration: pod.metadata.generation } : {}),
    };
    const { nominatedNodeName: _, ...status } = pod.status ?? {};
    pod.status = { ...status, conditions: [...conditions, scheduled] };
  });
  return SUCCESS;
}

async function evict(
  options: PodHandlersOptions,
  eviction: Eviction,
  { attributes, dryRun }: HandlerRequest,
): Promise<KubeObject> {
  const { namespace, name } = attributes;
  if (eviction.metadata?.name !== name) throw badRequest('name in URL does not match name in Eviction object');
  const pod = options.reader().get(PODS, namespace, name) as Pod | undefined;
  if (!pod) throw notFound(PODS, name);
  const asked = (eviction.deleteOptions ?? {}) as DeleteOptions & { dryRun?: string[] };
  const preconditions = asked.preconditions;
  const dry = dryRun || asked.dryRun?.includes('All') === true;
  if (!mayIgnoreBudgets(pod)) {
    const budgets = (options.reader().list(POD_DISRUPTION_BUDGETS, namespace) as readonly PodDisruptionBudget[]).filter(
      budget => budget.spec?.selector && labelSelectorMatch(budget.spec.selector)(pod.metadata.labels),
    );
    if (budgets.length > 1)
      throw internalError(
        'this pod has more than one PodDisruptionBudget, which the eviction subresource does not support.',
      );
    if (budgets[0] && !mayEvictUnhealthy(pod, budgets[0])) await takeDisruption(options, budgets[0], name, dry);
  }
  if (!dry) {
    // The pod that was judged is the pod that goes.
    const uid = preconditions?.uid ?? pod.metadata.uid!;
    await options
      .transport()
      .delete({ of: PODS, namespace, name }, { ...pick(asked), preconditions: { ...preconditions, uid } });
  }
  return SUCCESS;
}

function pick({ gracePeriodSeconds, propagationPolicy }: DeleteOptions): DeleteOptions {
  return {
    ...(gracePeriodSeconds === undefined ? {} : { gracePeriodSeconds }),
    ...(propagationPolicy === undefined ? {} : { propagationPolicy }),
  };
}

function mayIgnoreBudgets(pod: Pod): boolean {
  const phase = pod.status?.phase;
  return phase === 'Succeeded' || phase === 'Failed' || phase === 'Pending' || !!pod.metadata.deletionTimestamp;
}

function mayEvictUnhealthy(pod: Pod, { spec, status }: PodDisruptionBudget): boolean {
  if (pod.status?.conditions?.some(condition => condition.type === 'Ready' && condition.status === 'True'))
    return false;
  if (spec?.unhealthyPodEvictionPolicy === 'AlwaysAllow') return true;
  return (status?.currentHealthy ?? 0) >= (status?.desiredHealthy ?? 0) && (status?.desiredHealthy ?? 0) > 0;
}

function whyDenied({ metadata: { name }, status }: PodDisruptionBudget): string {
  const { currentHealthy = 0, desiredHealthy = 0 } = status ?? {};
  const denied = status?.conditions?.find(one => one.type === 'DisruptionAllowed' && one.status === 'False');
  const no = `The disruption budget ${name} does not allow evicting pods currently`;
  // The numbers are of an earlier time.
  if (denied?.message && denied.reason === 'SyncFailed') return `${no} because it failed sync: ${denied.message}`;
  if (currentHealthy <= desiredHealthy)
    return `The disruption budget ${name} needs ${desiredHealthy} healthy pods and has ${currentHealthy} currently`;
  return denied?.message ? `${no} (${denied.reason}): ${denied.message}` : no;
}

async function takeDisruption(
  { stored, clock }: PodHandlersOptions,
  { metadata }: PodDisruptionBudget,
  podName: string,
  dryRun: boolean,
): Promise<void> {
  try {
    await stored().modify(
      { of: POD_DISRUPTION_BUDGETS, namespace: metadata.namespace!, name: metadata.name, dryRun },
      copy => {
        const budget = copy as PodDisruptionBudget;
        const status = budget.status ?? {};
        const violation = (message: string) =>
          failure(429, 'TooManyRequests', "Cannot evict pod as it would violate the pod's disruption budget.", {
            causes: [{ reason: 'DisruptionBudget', message }],
            retryAfterSeconds: 10,
          });
        if ((status.observedGeneration ?? 0) < (budget.metadata.generation ?? 0))
          throw violation(`The disruption budget ${budget.metadata.name} is still being processed by the server.`);
        if ((status.disruptionsAllowed ?? 0) < 0)
          throw forbidden(POD_DISRUPTION_BUDGETS, budget.metadata.name, 'pdb disruptions allowed is negative');
        if (Object.keys(status.disruptedPods ?? {}).length > DISRUPTED_PODS_MAX)
          throw forbidden(
            POD_DISRUPTION_BUDGETS,
            budget.metadata.name,
            'DisruptedPods map too big - too many evictions not confirmed by PDB controller',
          );
        if (!status.disruptionsAllowed) {
          const { status: refusal } = violation(whyDenied(budget));
          const { retryAfterSeconds: _, ...details } = refusal.details!;
          throw new ApiError({ ...refusal, details });
        }
        budget.status = {
          ...status,
          disruptionsAllowed: status.disruptionsAllowed - 1,
          disruptedPods: { ...status.disruptedPods, [podName]: formatTime(clock.now()) },
        };
      },
    );
  } catch (error) {
    // A budget deleted in between protects nothing any more.
    if (!isReason(error, 'NotFound')) throw error;
  }
}
