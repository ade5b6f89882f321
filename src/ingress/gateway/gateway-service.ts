/**
 * How traffic gets to the data planes of a Gateway: a Service of its own in its namespace, whose TCP ports lead to ports that every node
 * listens on for this Gateway alone. Which those are stands in the Service, so that all nodes know and nobody forgets.
 */

import type { Service } from '../../api/core/v1.gen.ts';
import type { Gateway } from '../../api/gateway/v1.ts';
import { keyOf } from '../../api/meta.ts';
import { stableName } from '../stable-name.ts';
import { compareAge } from './gateway-objects.ts';

/** On a Node: the ports that its HAProxy listens on for gateways, separated by commas. */
export const DATA_PLANE_ANNOTATION = 'gateway.coxswain.dev/data-plane';
export const GATEWAY_LABEL = 'gateway.networking.k8s.io/gateway-name';
export const CLASS_LABEL = 'gateway.networking.k8s.io/gateway-class-name';
export const MANAGED_LABEL = 'app.kubernetes.io/managed-by';
export const MANAGER = 'gateway.coxswain.dev';
/** Outside of node ports, of the Ingress's and of those that programs usually take. */
const PORT_FIRST = 11_000;
const PORT_LAST = 11_999;
const NAME_LENGTH_MAX = 63;

/** `GATEWAY-CLASS`, made a name that a Service may have. */
export function serviceName({ metadata, spec }: Gateway): string {
  const name = `${metadata.name}-${spec.gatewayClassName}`;
  if (name.length <= NAME_LENGTH_MAX && /^[a-z]([-a-z0-9]*[a-z0-9])?$/.test(name)) return name;
  const plain = `gateway-${name.replaceAll('.', '-')}`.slice(0, NAME_LENGTH_MAX - 18).replace(/-+$/, '');
  return `${plain}-${stableName(name)}`;
}

/** Of Gateways, by `namespace/name`: port → target port, as their Services have it. A port belongs to the oldest Gateway that has it. */
export function targetPorts(
  gateways: Iterable<Gateway>,
  serviceOf: (namespace: string, name: string) => Service | undefined,
): Map<string, Map<number, number>> {
  const taken = new Set<number>();
  const found = new Map<string, Map<number, number>>();
  for (const gateway of [...gateways].sort(compareAge)) {
    const ports = new Map<number, number>();
    found.set(keyOf(gateway), ports);
    const service = serviceOf(gateway.metadata.namespace ?? '', serviceName(gateway));
    for (const { port, targetPort, protocol = 'TCP' } of service?.spec?.ports ?? []) {
      if (protocol !== 'TCP' || typeof targetPort !== 'number' || taken.has(targetPort)) continue;
      if (targetPort < PORT_FIRST || targetPort > PORT_LAST) continue;
      taken.add(targetPort);
      ports.set(port, targetPort);
    }
  }
  return found;
}

/** Target ports for these ports, keeping those that are known; undefined when there are no more. */
export function allocate(
  gateway: string,
  ports: readonly number[],
  known: Map<string, Map<number, number>>,
): Map<number, number> | undefined {
  const mine = known.get(gateway) ?? new Map<number, number>();
  known.set(gateway, mine);
  const taken = new Set([...known.values()].flatMap(each => [...each.values()]));
  let next = PORT_FIRST;
  for (const port of ports) {
    if (mine.has(port)) continue;
    while (taken.has(next)) next++;
    if (next > PORT_LAST) return undefined;
    taken.add(next);
    mine.set(port, next);
  }
  return new Map(ports.map(port => [port, mine.get(port)!]));
}
