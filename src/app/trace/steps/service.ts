/** What the address is: a Service's (and which of its ports), a pod's, a node's, or none of the cluster's. */

import type { Service, ServicePort } from '../../../api/core/v1.gen.ts';
import { entryOf, type Frontend, type Protocol } from '../../../proxy/model.ts';
import { addressesOf, isLoopback } from '../live-cluster.ts';
import { at, type Finding, failure, type Journey, note, ok, type Step } from '../step.ts';

const ZONE_LABEL = 'topology.kubernetes.io/zone';

export const service: Step = {
  name: 'service',
  async run(journey) {
    const { cluster, from, target, node } = journey;
    const address = journey.address!;
    if (from.kind === 'host') return fromHost(journey);
    if (isLoopback(address))
      return toPlainAddress(journey, `${address} is the loopback of ${whose(journey)}, which no Service is reached by`);
    const all = await cluster.services();
    const owner = all.find(one => addressOf(one, address) !== undefined);
    if (owner) return choosePort(journey, owner, addressOf(owner, address)!);
    const here = await cluster.nodeAt(address);
    const isOwn = addressesOf(node).includes(address);
    if (here) {
      const byPort = all
        .flatMap(one => (one.spec.ports ?? []).map(port => ({ one, port })))
        .find(
          ({ port }) =>
            port.nodePort !== undefined &&
            String(port.nodePort) === target.port &&
            protocolOf(port) === target.protocol,
        );
      if (byPort)
        return found(journey, byPort.one, byPort.port, { kind: 'node-port', address, port: byPort.port.nodePort! });
      return toPlainAddress(
        journey,
        `${address} is node ${here.metadata.name}${isOwn ? ', where the connection is made' : ''}`,
      );
    }
    const pod = await cluster.podAt(address);
    if (pod)
      return toPlainAddress(
        journey,
        `${address} is pod ${pod.metadata.namespace}/${pod.metadata.name}; no Service is in between`,
      );
    const range = await cluster.serviceRangeOf(address);
    if (range)
      return [
        failure(
          `no Service has ${address}, which is in the range of Services, ${range}: nothing answers`,
          'see the addresses that Services have: kubectl get services -A',
        ),
      ];
    const headless = all.filter(({ spec }) => spec.clusterIP === 'None').length > 0 && target.isService;
    return [
      headless
        ? note(`${address} is an endpoint outside the cluster`)
        : note(`${address} is no address of a Service, pod or node`),
      ...toPlainAddress(journey, 'no Service is in between'),
    ];
  },
};

const whose = ({ from, node }: Journey): string =>
  from.kind === 'pod' && !from.pod.spec.hostNetwork ? `pod ${from.pod.metadata.name} itself` : node.metadata.name;

const protocolOf = (port: ServicePort): Protocol => (port.protocol ?? 'TCP') as Protocol;

function addressOf({ spec, status }: Service, address: string): Frontend['kind'] | undefined {
  if (spec.clusterIPs?.includes(address) || spec.clusterIP === address) return 'cluster-ip';
  if (spec.externalIPs?.includes(address)) return 'external-ip';
  if (status?.loadBalancer?.ingress?.some(({ ip }) => ip === address)) return 'load-balancer-ip';
  return undefined;
}

function toPlainAddress(journey: Journey, text: string): Finding[] {
  const { target, address } = journey;
  const port = Number(target.port);
  if (target.port === undefined || Number.isNaN(port))
    return [ok(text, { address }), note('without a port there is nothing more to look at; give one: ADDRESS:PORT')];
  journey.port = port;
  journey.endpoints = [{ ip: address!, port, local: journey.from.ips.includes(address!) }];
  return [ok(text, { address, port })];
}

// On the machine the cluster is reached through 127.0.0.1: node ports only.
async function fromHost(journey: Journey): Promise<Finding[]> {
  const { cluster, target } = journey;
  const all = await cluster.services();
  const owner = all.find(one => addressOf(one, journey.address!) !== undefined);
  const ports = all.flatMap(one => (one.spec.ports ?? []).map(port => ({ one, port })));
  const byNodePort =
    journey.address === '127.0.0.1'
      ? ports.find(({ port }) => String(port.nodePort) === target.port && protocolOf(port) === target.protocol)
      : undefined;
  const byOwner = owner && ports.find(({ one, port }) => one === owner && port.nodePort && fits(port, journey));
  const chosen = byNodePort ?? byOwner;
  if (!chosen) {
    if (owner)
      return [
        failure(
          `Service ${keyOf(owner)} has no node port${target.port ? ` for ${target.port}` : ''}: this machine reaches the cluster through node ports only`,
          `kubectl -n ${owner.metadata.namespace} patch service ${owner.metadata.name} -p '{"spec":{"type":"NodePort"}}', or use kubectl port-forward`,
        ),
      ];
    return [
      journey.address === '127.0.0.1'
        ? failure(
            `no Service has node port ${target.port ?? '?'}/${target.protocol}, so nothing on 127.0.0.1 leads into the cluster there`,
            'see the node ports there are: kubectl get services -A',
          )
        : failure(
            `${journey.address} cannot be reached from this machine: the cluster has a network of its own`,
            'use a node port on 127.0.0.1, kubectl port-forward, or --from POD',
          ),
    ];
  }
  const { nodePort } = chosen.port;
  const findings = found(journey, chosen.one, chosen.port, {
    kind: 'node-port',
    address: '127.0.0.1',
    port: nodePort!,
  });
  return [...findings, note(`use 127.0.0.1:${nodePort} on this machine: it is relayed to a Ready node in turn`)];
}

const keyOf = ({ metadata }: Service): string => `${metadata.namespace}/${metadata.name}`;

const fits = (port: ServicePort, { target }: Journey): boolean =>
  target.port === undefined || String(port.port) === target.port || port.name === target.port;

function choosePort(journey: Journey, one: Service, kind: Frontend['kind']): Finding[] {
  const { target } = journey;
  const ports = (one.spec.ports ?? []).filter(
    // A name is one port's, and that port's protocol with it.
    port => protocolOf(port) === target.protocol || target.port === undefined || port.name === target.port,
  );
  const fitting = ports.filter(port => fits(port, journey));
  const [chosen] = fitting;
  if (!chosen) {
    const has = (one.spec.ports ?? [])
      .map(port => `${port.name ? `${port.name} ` : ''}${port.port}/${protocolOf(port)}`)
      .join(', ');
    return [
      failure(
        `Service ${keyOf(one)} (${journey.address}) has no port ${target.port}/${target.protocol}: connections are rejected`,
        `it has: ${has || 'none'}`,
        { service: keyOf(one), port: target.port },
      ),
    ];
  }
  const findings = found(journey, one, chosen, { kind, address: journey.address!, port: chosen.port });
  if (fitting.length > 1)
    findings.push(
      note(
        `of its ports ${fitting.map(port => port.name ?? port.port).join(', ')} the first is looked at; choose with ${target.host}:PORT`,
      ),
    );
  return findings;
}

function found(
  journey: Journey,
  one: Service,
  port: ServicePort,
  where: { readonly kind: Frontend['kind']; readonly address: string; readonly port: number },
): Finding[] {
  journey.service = one;
  journey.servicePort = port;
  journey.port = where.port;
  const what = {
    'cluster-ip': 'cluster IP',
    'external-ip': 'external IP',
    'load-balancer-ip': 'load balancer address',
    'node-port': 'node port',
  }[where.kind];
  const name = port.name ? `${port.name} ` : '';
  return [
    ok(
      `${at(where.address, where.port)} is the ${what} of Service ${keyOf(one)}, port ${name}${port.port}/${protocolOf(port)} → ${port.targetPort ?? port.port}`,
      {
        service: keyOf(one),
        kind: where.kind,
        address: where.address,
        port: where.port,
        servicePort: port.name ?? port.port,
      },
    ),
  ];
}

/** How the proxy of the node that the connection is made on is to treat it; undefined when it does not at all. */
export async function frontendOf(journey: Journey): Promise<Frontend | undefined> {
  const { cluster, service: one, servicePort, node, from } = journey;
  if (!one || !servicePort) return undefined;
  const entry = entryOf(one, await cluster.slicesOf(one), {
    nodeName: node.metadata.name,
    zone: node.metadata.labels?.[ZONE_LABEL],
    localVips: new Set(),
  });
  return entry?.frontends.find(
    frontend =>
      frontend.port === journey.port &&
      frontend.protocol === protocolOf(servicePort) &&
      (frontend.kind === 'node-port'
        ? from.kind === 'host' || addressesOf(node).includes(journey.address!) || frontend.port === servicePort.nodePort
        : frontend.address === journey.address),
  );
}

/** The cluster's DNS, which each node answers itself. */
export const isNodeDns = ({ service: one, address }: Journey): boolean =>
  one?.metadata.namespace === 'kube-system' &&
  one.metadata.name === 'kube-dns' &&
  one.spec.clusterIPs?.includes(address ?? '') === true;
