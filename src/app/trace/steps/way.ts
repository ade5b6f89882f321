/** The way to each endpoint: over the node's own bridge, or by the route that the node's kernel has to the other node. */

import { messageOf } from '../../../base/errors.ts';
import { parseAddress, parsePrefix, prefixContains } from '../../../sys/address.ts';
import { type Route, withRoutes } from '../../../sys/netlink.ts';
import { addressesOf, isLoopback, isReady, type LiveCluster } from '../live-cluster.ts';
import { type Finding, failure, type Journey, ok, type Step, warning } from '../step.ts';
import { isNodeDns } from './service.ts';

const MAIN_TABLES = new Set([254, 255]);

export const way: Step = {
  name: 'way',
  async run(journey) {
    const { endpoints, cluster, node } = journey;
    if (!endpoints || endpoints.length === 0 || isNodeDns(journey)) return [];
    const here = node.metadata.name;
    let links: ReadonlyMap<number, { readonly name: string; readonly kind: string; readonly up: boolean }>;
    let routes: readonly Route[];
    try {
      [links, routes] = withRoutes(cluster.networkOf(here), door => [
        new Map(door.links().map(link => [link.index, link])),
        door.routes().filter(({ table }) => MAIN_TABLES.has(table)),
      ]);
    } catch (error) {
      return [
        warning(
          `the routes of ${here} cannot be read: ${messageOf(error)}`,
          'run it as root on the machine of the cluster',
        ),
      ];
    }
    const ways = new Map<string, Finding>();
    for (const { ip } of endpoints) {
      if (isLoopback(ip)) continue;
      const pod = await cluster.podAt(ip);
      const there = pod?.spec.nodeName ?? (await cluster.nodeAt(ip))?.metadata.name;
      const object = (await cluster.nodes()).find(({ metadata }) => metadata.name === there);
      const route = routeTo(routes, ip);
      const link = route && links.get(route.link);
      const where = there ?? 'outside the cluster';
      const key = `${where} ${link?.name}`;
      if (ways.has(key)) continue;
      if (journey.from.ips.includes(ip)) ways.set(key, ok(`${ip} is the sender itself`));
      else if (addressesOf(node).includes(ip)) ways.set(key, ok(`${ip} is ${here} itself`));
      else if (!route || !link)
        ways.set(key, failure(`${here} has no route to ${ip} (${where})`, `see: cox node exec ${here} -- ip route`));
      else if (!there && (await cluster.nodeOfPodRange(ip))) ways.set(`${key} ${ip}`, await nobody(journey, ip));
      else if (!there && route.via && !leadsOut(cluster, ip))
        ways.set(
          key,
          failure(
            `${ip} is outside, where nothing of a development cluster can go: its switch has no route there and refuses`,
            'see docs/not-yet.md; on this machine what is to be reached can run as a pod',
          ),
        );
      else if (!link.up)
        ways.set(
          key,
          failure(`the link ${link.name} of ${here} to ${ip} is down`, `see: cox node exec ${here} -- ip link`),
        );
      else {
        const via = route.via ? ` via ${route.via}` : '';
        const steps =
          there === here
            ? `${here}: ${link.name} (${link.kind || 'link'}) → pod`
            : `${here}: ${link.name} (${link.kind || 'link'})${via} → ${where}`;
        const text = `${ip}: ${steps}`;
        const data = { ip, node: there, link: link.name, kind: link.kind, ...(route.via ? { via: route.via } : {}) };
        ways.set(
          key,
          object && !isReady(object)
            ? warning(`${text}, which is not Ready`, `kubectl describe node ${there}`)
            : ok(text, data),
        );
      }
    }
    const found = [...ways.values()];
    // One dead way of several is a connection that fails sometimes.
    return found.some(({ status }) => status !== 'failure')
      ? found.map(finding => (finding.status === 'failure' ? { ...finding, status: 'warning' as const } : finding))
      : found;
  },
};

// A pod's address is nobody's once the pod is gone. The first of a range are the node's own.
async function nobody({ cluster }: Journey, ip: string): Promise<Finding> {
  const node = (await cluster.nodeOfPodRange(ip))!.metadata.name;
  const isOwn = withRoutes(cluster.networkOf(node), door =>
    door.addresses().some(({ prefix }) => prefix.split('/')[0] === ip),
  );
  return isOwn
    ? ok(`${ip} is ${node} itself, towards its pods`)
    : failure(`${ip} is in the range of the pods of ${node}, but no pod has it`, 'see: kubectl get pods -A -o wide');
}

function leadsOut(cluster: LiveCluster, ip: string): boolean {
  try {
    return withRoutes(
      cluster.switchNetwork,
      door =>
        routeTo(
          door.routes().filter(({ table }) => MAIN_TABLES.has(table)),
          ip,
        ) !== undefined,
    );
  } catch {
    // Not to be seen: no reason to say that it fails.
    return true;
  }
}

function routeTo(routes: readonly Route[], ip: string): Route | undefined {
  const address = parseAddress(ip);
  let best: { readonly route: Route; readonly length: number } | undefined;
  for (const route of routes) {
    const text = route.to === 'default' ? (ip.includes(':') ? '::/0' : '0.0.0.0/0') : route.to;
    const prefix = parsePrefix(text.includes('/') ? text : `${text}/${address.length * 8}`);
    if (prefixContains(prefix, address) && (!best || prefix.length > best.length))
      best = { route, length: prefix.length };
  }
  return best?.route;
}
