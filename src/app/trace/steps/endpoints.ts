/** The policy that chooses the endpoints, each endpoint with its readiness and node, and why there are none when there are none. */

import type { Event, Pod, Service } from '../../../api/core/v1.gen.ts';
import type { EndpointSlice } from '../../../api/discovery/v1.gen.ts';
import { mapSelectorMatch } from '../../../api/machinery/labels.ts';
import type { Endpoint, Frontend } from '../../../proxy/model.ts';
import { isReady, type LiveCluster } from '../live-cluster.ts';
import { at, type Finding, failure, type Journey, note, ok, type Step } from '../step.ts';
import { frontendOf, isNodeDns } from './service.ts';

const SHOWN_MAX = 12;

export const endpoints: Step = {
  name: 'endpoints',
  async run(journey) {
    const { service, cluster } = journey;
    if (!service) return [];
    if (isNodeDns(journey)) {
      journey.endpoints = [{ ip: journey.address!, port: journey.port!, local: true }];
      return [ok(`every node answers the cluster DNS itself: ${journey.node.metadata.name} has ${journey.address}`)];
    }
    const frontend = await frontendOf(journey);
    if (!frontend)
      return [
        failure(
          `the proxy does not handle Service ${service.metadata.name}: its label names another proxy`,
          'see labels service.kubernetes.io/service-proxy-name and /headless',
        ),
      ];
    const slices = await cluster.slicesOf(service);
    const chosen = chosenOf(journey, frontend);
    journey.frontend = frontend;
    journey.endpoints = chosen;
    const listed = await describeAll(journey, slices, chosen);
    if (chosen.length > 0)
      return [ok(policyOf(journey, frontend, chosen), { policy: policyOf(journey, frontend, chosen) }), ...listed];
    const [why, next] = await whyNone(cluster, service, slices, frontend, journey);
    return [...listed, failure(why, next, { whenEmpty: frontend.whenEmpty })];
  },
};

// From inside the cluster (pods, and the node itself) policy Local of external addresses does not hold.
function chosenOf({ from }: Journey, frontend: Frontend): readonly Endpoint[] {
  return from.kind === 'host' && frontend.localEndpoints ? frontend.localEndpoints : frontend.endpoints;
}

function policyOf({ service, from }: Journey, frontend: Frontend, chosen: readonly Endpoint[]): string {
  const { spec } = service!;
  const external = frontend.kind !== 'cluster-ip';
  const parts = [
    external
      ? `externalTrafficPolicy ${spec.externalTrafficPolicy ?? 'Cluster'}${frontend.localEndpoints && from.kind !== 'host' ? ' (does not hold for senders inside the cluster)' : ''}`
      : `internalTrafficPolicy ${spec.internalTrafficPolicy ?? 'Cluster'}`,
  ];
  if (spec.trafficDistribution) parts.push(`trafficDistribution ${spec.trafficDistribution}`);
  if (frontend.affinity)
    parts.push(
      `sessionAffinity ClientIP for ${frontend.affinity.seconds} s: a client that came before, by whichever address of the Service, stays with its endpoint`,
    );
  return `${parts.join(', ')}: one of ${chosen.length} by chance`;
}

async function describeAll(
  { cluster, servicePort }: Journey,
  slices: readonly EndpointSlice[],
  chosen: readonly Endpoint[],
): Promise<Finding[]> {
  const findings: Finding[] = [];
  let count = 0;
  for (const slice of slices) {
    const port = slice.ports?.find(
      one =>
        (one.name ?? '') === (servicePort!.name ?? '') && (one.protocol ?? 'TCP') === (servicePort!.protocol ?? 'TCP'),
    )?.port;
    for (const { addresses, conditions, nodeName, targetRef } of slice.endpoints ?? []) {
      if (++count > SHOWN_MAX) continue;
      const ip = addresses[0]!;
      const used = chosen.some(endpoint => endpoint.ip === ip && endpoint.port === port);
      const state = conditions?.terminating
        ? conditions.serving
          ? 'terminating, still serving'
          : 'terminating'
        : (conditions?.ready ?? true)
          ? 'ready'
          : 'not ready';
      const pod =
        targetRef?.kind === 'Pod'
          ? (await cluster.pods(slice.metadata.namespace)).find(one => one.metadata.name === targetRef.name)
          : undefined;
      const why = pod && state === 'not ready' ? `: ${await problemOf(cluster, pod)}` : '';
      const text = `${at(ip, port ?? '?')} ${state}${why}${nodeName ? `, on ${nodeName}` : ''}${targetRef ? `, ${targetRef.kind?.toLowerCase()} ${targetRef.name}` : ''}${used ? '' : ', not used'}`;
      findings.push({
        status: used ? 'ok' : state === 'ready' ? 'note' : 'warning',
        text,
        data: {
          ip,
          port,
          state,
          used,
          ...(nodeName ? { node: nodeName } : {}),
          ...(targetRef?.name ? { pod: targetRef.name } : {}),
        },
      });
    }
  }
  if (count > SHOWN_MAX) findings.push(note(`and ${count - SHOWN_MAX} more`));
  return findings;
}

async function whyNone(
  cluster: LiveCluster,
  service: Service,
  slices: readonly EndpointSlice[],
  frontend: Frontend,
  { node, servicePort, from }: Journey,
): Promise<[why: string, next: string]> {
  const { namespace, name } = service.metadata;
  const all = slices.flatMap(slice => slice.endpoints ?? []);
  const ready = all.filter(({ conditions }) => conditions?.ready ?? true);
  const does = frontend.whenEmpty === 'drop' ? 'packets are dropped' : 'connections are rejected';
  const local =
    (frontend.kind === 'cluster-ip' ? service.spec.internalTrafficPolicy : service.spec.externalTrafficPolicy) ===
    'Local';
  const elsewhere = [...new Set(ready.map(({ nodeName }) => nodeName).filter(Boolean))];
  if (local && elsewhere.length > 0)
    return [
      `traffic policy Local: no ready endpoint on ${node.metadata.name}, so ${does}; there are some on ${elsewhere.join(', ')}`,
      `run a pod on ${node.metadata.name}, or set ${frontend.kind === 'cluster-ip' ? 'internalTrafficPolicy' : 'externalTrafficPolicy'}: Cluster`,
    ];
  const { selector } = service.spec;
  if (!selector || Object.keys(selector).length === 0)
    return [
      `it has no selector and ${all.length === 0 ? 'no endpoints' : 'no ready endpoint'} of its own: ${does}`,
      `make an EndpointSlice labelled kubernetes.io/service-name: ${name} in namespace ${namespace}`,
    ];
  const text = Object.entries(selector)
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
  const matching = (await cluster.pods(namespace)).filter(pod => mapSelectorMatch(selector)(pod.metadata.labels));
  if (matching.length === 0)
    return [
      `selector ${text} matches no pod in namespace ${namespace}: ${does}`,
      `kubectl -n ${namespace} get pods --show-labels`,
    ];
  const able = matching.filter(isReady);
  const count = `selector matches ${matching.length} pod${matching.length === 1 ? '' : 's'}`;
  if (able.length > 0 && ready.length > 0)
    return [
      `${count}, but none has a port for targetPort ${servicePort?.targetPort ?? servicePort?.port} of family IPv${frontend.family}: ${does}`,
      `name that port in the pod's containers, or change targetPort of Service ${name}`,
    ];
  if (able.length > 0)
    return [
      `${count}, ${able.length} Ready, but they are not among its endpoints yet: ${does}`,
      'try again; if it lasts, see the log of the server: endpointslice controller',
    ];
  const problems = new Map<string, number>();
  for (const pod of matching) {
    const problem = await problemOf(cluster, pod);
    problems.set(problem, (problems.get(problem) ?? 0) + 1);
  }
  const told = [...problems]
    .map(([problem, times]) => (problems.size > 1 ? `${times}× ${problem}` : problem))
    .join('; ');
  return [
    `${count}, none Ready: ${told}${from.kind === 'host' ? '' : ` — ${does}`}`,
    `kubectl -n ${namespace} describe pod ${matching[0]!.metadata.name}`,
  ];
}

/** Why a pod is not Ready, in one phrase. */
export async function problemOf(cluster: LiveCluster, pod: Pod): Promise<string> {
  const { status, spec, metadata } = pod;
  if (metadata.deletionTimestamp) return 'it is being deleted';
  if (status?.phase === 'Succeeded' || status?.phase === 'Failed')
    return `it is over (${status.phase})${status.reason ? `: ${status.reason}` : ''}`;
  const condition = (type: string) => status?.conditions?.find(one => one.type === type);
  const scheduled = condition('PodScheduled');
  if (scheduled?.status === 'False') return `it is on no node: ${scheduled.message ?? scheduled.reason}`;
  const events = await cluster.eventsOf(pod);
  for (const container of [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])]) {
    const { waiting, terminated } = container.state ?? {};
    if (waiting?.reason && waiting.reason !== 'PodInitializing' && waiting.reason !== 'ContainerCreating')
      return `container ${container.name} waits: ${waiting.reason}${waiting.message ? ` (${waiting.message})` : ''}`;
    if (terminated && terminated.exitCode !== 0)
      return `container ${container.name} ended with code ${terminated.exitCode}`;
  }
  for (const container of spec.containers) {
    const state = status?.containerStatuses?.find(({ name }) => name === container.name);
    if (!state?.state?.running) {
      const event = events.find(({ type }) => type === 'Warning');
      return `container ${container.name} does not run yet${event ? `: ${event.reason}: ${event.message}` : ''}`;
    }
    if (state.ready || !container.readinessProbe) continue;
    return `readiness probe ${describeProbe(container.readinessProbe)} ${outcomeOf(events)}`;
  }
  const gate = spec.readinessGates?.find(({ conditionType }) => condition(conditionType)?.status !== 'True');
  if (gate) return `readiness gate ${gate.conditionType} is not True`;
  const ready = condition('Ready');
  return ready?.message ?? ready?.reason ?? `phase ${status?.phase ?? 'Pending'}`;
}

function describeProbe({
  httpGet,
  tcpSocket,
  exec,
  grpc,
}: NonNullable<Pod['spec']['containers'][number]['readinessProbe']>): string {
  if (httpGet) return `GET ${httpGet.host ?? ''}:${httpGet.port}${httpGet.path ?? '/'}`;
  if (tcpSocket) return `tcp :${tcpSocket.port}`;
  if (grpc) return `grpc :${grpc.port}`;
  return `exec ${exec?.command?.join(' ') ?? ''}`;
}

function outcomeOf(events: readonly Event[]): string {
  const event = events.find(({ reason, message }) => reason === 'Unhealthy' && message?.startsWith('Readiness probe'));
  if (!event) return 'has not passed yet';
  const code = /statuscode: (\d+)/.exec(event.message ?? '')?.[1];
  if (code) return `answers ${code}`;
  const text = event.message!.replace(/^Readiness probe (failed|errored)[^:]*: /, '').trim();
  // Without the address, so that pods with one trouble are told together.
  return `fails: ${/connect: .*$/.exec(text)?.[0] ?? text}`;
}
