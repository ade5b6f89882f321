/**
 * Ingress: for a URL whose host stands in an Ingress of ours, which rule takes the request, and what its settings say about it before a
 * backend is asked. The journey then goes on from the node's data plane to the Service of that rule.
 */

import { CLUSTER_DOMAIN } from '../../../base/cluster-defaults.ts';
import { className, isOurs } from '../../../ingress/ingress-class.ts';
import { DATA_PLANE_ANNOTATION } from '../../../ingress/ingress-service.ts';
import { ANY_HOST, buildRouteTable, matchRoute, type Route } from '../../../ingress/route-table.ts';
import { addressesOf } from '../live-cluster.ts';
import { type Finding, failure, note, ok, type Step } from '../step.ts';

export const ingress: Step = {
  name: 'ingress',
  async run(journey) {
    const { cluster, target } = journey;
    if (!/^https?:\/\//i.test(target.text)) return [];
    const { protocol, pathname } = new URL(target.text);
    const classes = new Map((await cluster.ingressClasses()).map(each => [each.metadata.name, each]));
    const ours = (await cluster.ingresses()).filter(each => isOurs(classes.get(className(each) ?? '')));
    const table = buildRouteTable(ours.map(each => ({ ingress: each })));
    const host = target.host.toLowerCase();
    const hosts = new Set([...table.exact.keys(), ...table.prefixes.keys()].map(key => key.slice(0, key.indexOf('/'))));
    for (const { host: patternHost } of table.patterns) hosts.add(patternHost);
    // Rules for any host would claim every name there is, also those of Services.
    if (!hosts.has(host) && !hosts.has(host.replace(/^[^.]+/, ANY_HOST))) return [];

    const passing = table.passthrough.get(host) ?? table.passthrough.get(host.replace(/^[^.]+/, '*'));
    const route = table.routes.get(
      (protocol === 'https:' ? passing : undefined) ?? matchRoute(table, host, pathname) ?? '',
    );
    if (!route)
      return [
        failure(
          `no rule of an Ingress for ${host} has the path ${pathname}: 404`,
          `kubectl get ingress -A, and add the path`,
        ),
      ];
    const [namespace, name] = route.ingress.split('/') as [string, string];
    const findings: Finding[] = [
      ok(`${host}${pathname} is taken by Ingress ${route.ingress}`, {
        ingress: route.ingress,
        ...(route.service ? { service: route.service.name } : {}),
      }),
      ...table.findings
        .filter(each => each.ingress === route.ingress)
        .map(each => note(`${each.reason}: ${each.message}`)),
    ];
    if (protocol === 'https:' && passing !== undefined)
      findings.push(note('its TLS is passed through: the rest of the settings count for plain requests only'));
    if (protocol === 'http:' && route.redirectsToTls) {
      findings.push(note(`redirected to https://${host}${pathname} (308), because the host has TLS`));
      return findings;
    }
    if (route.settings.redirect && !route.settings.isClosed) {
      const { to, status } = route.settings.redirect;
      const place = to.map(part => (typeof part === 'string' ? part : `$${part.variable}`)).join('');
      return [...findings, note(`redirected to ${place} (${status})`)];
    }
    const nodes = (await cluster.nodes()).filter(
      node => node.metadata.annotations?.[DATA_PLANE_ANNOTATION] !== undefined,
    );
    const node = nodes.find(each => each.metadata.name === journey.node.metadata.name) ?? nodes[0];
    const problem = problemOf(route, name, namespace);
    if (problem) return [...findings, problem];
    if (!node)
      return [
        ...findings,
        failure('no node runs a data plane', 'the log of an agent says why: /run/coxswain/CLUSTER/NODE.log'),
      ];
    const { service, settings } = route;
    findings.push(note(`${node.metadata.name}'s HAProxy sends it to Service ${service!.name}:${service!.port ?? ''}`));
    for (const [is, text] of [
      [settings.satisfiesAny, 'one of these is enough:'],
      [settings.allow, 'only from addresses of the allow list'],
      [settings.deny, 'not from addresses of the deny list'],
      [settings.basicAuth, 'with a password'],
      [settings.externalAuth, `when ${settings.externalAuth?.url} lets it`],
      [settings.mirror, `with a copy to ${settings.mirror?.host}`],
      [settings.usesClusterIp, "by the Service's own address"],
      [settings.upstreamVersion, `by ${settings.upstreamVersion} and no other version of TLS`],
      [settings.rewriteTarget, `with the path rewritten to ${settings.rewriteTarget}`],
    ] as const)
      if (is) findings.push(note(text));
    journey.from = { kind: 'node', node: node.metadata.name, ips: addressesOf(node) };
    journey.target = {
      ...target,
      host: `${service!.name}.${service!.namespace}.svc.${CLUSTER_DOMAIN}`,
      port: service!.port === undefined ? undefined : String(service!.port),
    };
    return findings;
  },
};

function problemOf({ service, settings }: Route, name: string, namespace: string): Finding | undefined {
  const next = `kubectl -n ${namespace} describe ingress ${name}`;
  if (settings.isClosed)
    return failure('a setting that protects is not understood, so nothing is let through: 503', next);
  return service ? undefined : failure('its backend is not a Service: 503', next);
}
