/**
 * Gateways: for a URL whose host is one of a Gateway of ours, which listener, route and rule take the request, and what they do with it
 * before a Service is asked; the trace goes on there. A request without headers or a method of its own is assumed.
 */

import { keyOf } from '../../../api/meta.ts';
import { CLUSTER_DOMAIN } from '../../../base/cluster-defaults.ts';
import { type HttpFrontend, matchRequest } from '../../../ingress/gateway/frontends.ts';
import { buildGatewayState, type GatewayState, ourGateways } from '../../../ingress/gateway/gateway-model.ts';
import { DATA_PLANE_ANNOTATION, targetPorts } from '../../../ingress/gateway/gateway-service.ts';
import { ANY } from '../../../ingress/gateway/hostnames.ts';
import type { Backend, Choice, Step as Filter } from '../../../ingress/gateway/route-rules.ts';
import { addressesOf, type LiveCluster } from '../live-cluster.ts';
import { type Finding, failure, note, ok, type Step, warning } from '../step.ts';

export const gateway: Step = {
  name: 'gateway',
  async run(journey) {
    const { cluster, target } = journey;
    if (!/^https?:\/\//i.test(target.text)) return [];
    const url = new URL(target.text);
    // An Ingress has taken it already.
    if (url.hostname.replace(/^\[|\]$/g, '') !== target.host.toLowerCase()) return [];
    const state = await stateOf(cluster);
    const host = target.host.toLowerCase();
    const isSecure = url.protocol === 'https:';
    const frontends = state.frontends
      .flatMap((each): HttpFrontend[] =>
        each.kind === 'http' ? [each] : each.kind === 'tls' && each.https ? [each.https] : [],
      )
      .filter(each => (each.certificates !== undefined) === isSecure && String(each.port) === (target.port ?? ''));
    for (const frontend of frontends) {
      const addresses = frontend.gateway.status?.addresses?.map(({ value }) => value) ?? [];
      const { domain, candidate } = matchRequest(frontend, {
        host,
        path: url.pathname,
        method: 'GET',
        headers: new Map(),
        query: url.searchParams,
      });
      // A listener for any name would claim those of Services too.
      if (!domain || (domain.host === ANY && !addresses.includes(host))) continue;
      const of = `Gateway ${keyOf(frontend.gateway)}`;
      if (!candidate)
        return [
          failure(
            `listener ${domain.listener} of ${of} has ${domain.host}, but no route there takes ${url.pathname}: 404`,
            'kubectl get httproutes,grpcroutes -A, and add a rule; one with a method or headers is not tried here',
          ),
        ];
      const { kind, route, rule } = candidate.from;
      const findings: Finding[] = [
        ok(
          `${host}${url.pathname} is taken by rule ${rule + 1} of ${kind} ${route}, at listener ${domain.listener} of ${of}`,
          {
            gateway: keyOf(frontend.gateway),
            route,
            rule: rule + 1,
          },
        ),
        ...conditionsOf(state, kind, route),
      ];
      return [...findings, ...(await onwards(journey, frontend, candidate.choices, route, kind))];
    }
    return [];
  },
};

async function onwards(
  journey: Parameters<Step['run']>[0],
  frontend: HttpFrontend,
  choices: readonly Choice[],
  route: string,
  kind: string,
): Promise<Finding[]> {
  const { cluster, target } = journey;
  const [namespace, name] = route.split('/') as [string, string];
  const next = `kubectl -n ${namespace} describe ${kind.toLowerCase()} ${name}`;
  const best = choices.reduce<Choice | undefined>((a, b) => (a && a.weight >= b.weight ? a : b), undefined);
  if (!best) return [failure('its rule has no backend', next)];
  const findings: Finding[] = best.backend.steps.map(step => note(filterText(step)));
  if (best.backend.steps.some(step => step.do === 'redirect')) return findings;
  if (best.backend.answer !== undefined || !best.backend.service)
    return [...findings, failure(`its backend cannot be resolved: ${best.backend.answer ?? 500}`, next)];
  if (choices.length > 1) {
    const total = choices.reduce((sum, { weight }) => sum + weight, 0);
    findings.push(
      note(
        `shared by weight: ${choices.map(({ backend, weight }) => `${serviceOf(backend)} ${weight}/${total}`).join(', ')}`,
      ),
    );
  }
  const nodes = (await cluster.nodes()).filter(each =>
    each.metadata.annotations?.[DATA_PLANE_ANNOTATION]?.split(',').includes(String(frontend.targetPort)),
  );
  const node = nodes.find(each => each.metadata.name === journey.node.metadata.name) ?? nodes[0];
  if (!node)
    return [
      ...findings,
      failure('no node serves this Gateway', 'the log of an agent says why: /run/coxswain/CLUSTER/NODE.log'),
    ];
  const { service } = best.backend;
  findings.push(note(`${node.metadata.name}'s HAProxy sends it to Service ${serviceOf(best.backend)}`));
  journey.from = { kind: 'node', node: node.metadata.name, ips: addressesOf(node) };
  journey.target = {
    ...target,
    host: `${service.name}.${service.namespace}.svc.${CLUSTER_DOMAIN}`,
    port: String(service.port),
  };
  return findings;
}

const serviceOf = ({ service }: Backend): string =>
  service ? `${service.namespace}/${service.name}:${service.port}` : 'nowhere';

function filterText(step: Filter): string {
  switch (step.do) {
    case 'requestHeaders':
    case 'responseHeaders':
      return `headers of the ${step.do === 'requestHeaders' ? 'request' : 'response'} are changed`;
    case 'rewrite':
      return `rewritten${step.hostname ? ` to the host ${step.hostname}` : ''}${step.path ? ' with another path' : ''}`;
    case 'redirect':
      return `redirected by ${step.status} to ${step.scheme}://${step.hostname ?? 'the same host'}`;
    case 'mirror':
      return `mirrored to Service ${serviceOf(step.to)}`;
    case 'cors':
      return 'with CORS';
  }
}

function conditionsOf(state: GatewayState, kind: string, route: string): Finding[] {
  const found = state.routes.find(each => each.kind === kind && keyOf(each.route) === route);
  return (found?.parents ?? [])
    .flatMap(({ conditions }) => conditions)
    .filter(({ type, status }) => (type === 'PartiallyInvalid' ? status === 'True' : status === 'False'))
    .map(({ type, reason, message }) => warning(`${type} ${reason}: ${message}`));
}

async function stateOf(cluster: LiveCluster): Promise<GatewayState> {
  const objects = await cluster.gatewayObjects();
  const services = new Map((await cluster.services()).map(each => [keyOf(each), each]));
  const ours = ourGateways(objects.classes, objects.gateways);
  return buildGatewayState(
    { ...objects, service: (namespace, name) => services.get(`${namespace}/${name}`) },
    targetPorts(ours, (namespace, name) => services.get(`${namespace}/${name}`)),
  );
}
