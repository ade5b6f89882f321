/** Routes in a cloud's network: the calls of docs/load-balancer-provider.proto, and which routes are missing or one too many. Pure but for the calls. */

import type { Node } from '../../api/core/v1.gen.ts';
import { type Call, call, type Reply } from '../../csi/calls.ts';
import { EMPTY } from '../../csi/messages.ts';
import { flag, message, repeated, schema, text } from '../../csi/protobuf.ts';
import { parsePrefix, prefixContains } from '../../sys/address.ts';
import { ADDRESS } from '../cloudnode/instances.ts';

const ROUTE_FIELDS = {
  name: text(1),
  targetNode: text(2),
  destinationCidr: text(3),
  blackhole: flag(4),
  enableNodeAddresses: flag(5),
  targetNodeAddresses: repeated(message(6, ADDRESS)),
};
const ROUTE = schema(ROUTE_FIELDS);
const OF_CLUSTER = schema({ cluster: text(1) });
const ROUTES = schema({ routes: repeated(message(1, ROUTE)) });
const NEW_ROUTE = schema({ cluster: text(1), nameHint: text(2), route: message(3, ROUTE) });
const OLD_ROUTE = schema({ cluster: text(1), route: message(2, ROUTE) });

const PATH = '/coxswain.cloudprovider.v1.Routes/';

export const ROUTE_CALLS = {
  listRoutes: call(`${PATH}ListRoutes`, OF_CLUSTER, ROUTES),
  createRoute: call(`${PATH}CreateRoute`, NEW_ROUTE, EMPTY),
  deleteRoute: call(`${PATH}DeleteRoute`, OLD_ROUTE, EMPTY),
} satisfies Record<string, Call<object, object>>;

export type Route = Reply<(typeof ROUTE_CALLS)['listRoutes']>['routes'][number];

export interface RoutePlan {
  readonly remove: readonly Route[];
  readonly create: readonly { readonly node: Node; readonly route: Route }[];
}

/** Routes that lead outside the cluster's own ranges are nobody's to remove. */
export function planRoutes(nodes: readonly Node[], present: readonly Route[], ranges: readonly string[]): RoutePlan {
  const wanted = nodes.flatMap(node => (node.spec?.podCIDRs ?? []).map(cidr => ({ node, route: routeTo(node, cidr) })));
  const fits = (route: Route, { route: other }: { route: Route }) =>
    route.targetNode === other.targetNode &&
    route.destinationCidr === other.destinationCidr &&
    (!route.enableNodeAddresses || told(route) === told(other));
  return {
    remove: present.filter(
      route => isOurs(route, ranges) && (route.blackhole || !wanted.some(one => fits(route, one))),
    ),
    create: wanted.filter(one => !present.some(route => !route.blackhole && fits(route, one))),
  };
}

function routeTo({ metadata, status }: Node, cidr: string): Route {
  const addresses = (status?.addresses ?? []).map(({ type, address }) => ({ type, address }));
  return { targetNode: metadata.name, destinationCidr: cidr, targetNodeAddresses: addresses };
}

const told = ({ targetNodeAddresses = [] }: Route): string =>
  targetNodeAddresses
    .map(one => `${one.type} ${one.address}`)
    .sort()
    .join();

function isOurs({ destinationCidr = '' }: Route, ranges: readonly string[]): boolean {
  try {
    const { address } = parsePrefix(destinationCidr);
    return ranges.some(range => prefixContains(parsePrefix(range), address));
  } catch {
    return false;
  }
}
