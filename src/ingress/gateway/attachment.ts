/**
 * Which routes are attached to which listeners: by their parent references, by what listeners allow, and by the host names they share.
 * Says for each parent of a route whether and why not.
 */

import type { Gateway, ParentReference, Route } from '../../api/gateway/v1.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import { keyOf } from '../../api/meta.ts';
import { type GatewayObjects, isParent, type Problem, type RouteKind, type Said } from './gateway-objects.ts';
import { ANY, intersection } from './hostnames.ts';
import type { JudgedListenerSet } from './listener-sets.ts';
import type { JudgedListener } from './listeners.ts';

export interface JudgedGateway {
  readonly gateway: Gateway;
  readonly key: string;
  /** Of its own. */
  readonly listeners: readonly JudgedListener[];
  readonly accepted: Said;
  readonly isAccepted: boolean;
  /** ListenerSets that name it, taken or not; older ones first. */
  readonly sets: readonly JudgedListenerSet[];
  /** File of the certificate that it shows to backends, or why there is none. */
  readonly own: string | Problem | undefined;
}

export interface Attachment {
  readonly gateway: JudgedGateway;
  readonly listener: JudgedListener;
  /** Names that listener and route share, each with the route's own; `*` for all. */
  readonly hosts: readonly { readonly host: string; readonly own: string }[];
}

export interface ParentResult {
  readonly parentRef: ParentReference;
  readonly gateway: JudgedGateway;
  readonly attachments: readonly Attachment[];
  /** Why there are none. */
  readonly refusal?: Problem;
}

/** Its own and those of its sets. */
export function allListeners({ listeners, sets }: JudgedGateway): JudgedListener[] {
  return [...listeners, ...sets.flatMap(set => set.listeners)];
}

/** One result for each parent that is a Gateway of ours, or a ListenerSet of one. */
export function attach(
  kind: RouteKind,
  route: Route,
  gateways: ReadonlyMap<string, JudgedGateway>,
  objects: GatewayObjects,
): ParentResult[] {
  const results: ParentResult[] = [];
  for (const parentRef of route.spec.parentRefs ?? []) {
    const key = `${parentRef.namespace ?? route.metadata.namespace}/${parentRef.name}`;
    if (isParent(parentRef, 'Gateway')) {
      const gateway = gateways.get(key);
      const parent = gateway && { name: `Gateway ${key}`, ...gateway };
      if (parent) results.push(attachTo(gateway, parent, parentRef, kind, route, objects));
    } else if (isParent(parentRef, 'ListenerSet'))
      for (const gateway of gateways.values())
        for (const set of gateway.sets)
          if (set.key === key)
            results.push(attachTo(gateway, { name: `ListenerSet ${key}`, ...set }, parentRef, kind, route, objects));
  }
  return results;
}

function attachTo(
  gateway: JudgedGateway,
  parent: { readonly name: string; readonly accepted: Said; readonly listeners: readonly JudgedListener[] },
  parentRef: ParentReference,
  kind: RouteKind,
  route: Route,
  objects: GatewayObjects,
): ParentResult {
  const refuse = (reason: string, message: string): ParentResult => ({
    parentRef,
    gateway,
    attachments: [],
    refusal: { reason, message },
  });
  if (parent.accepted.status === 'False' && parent.listeners.length === 0)
    return refuse('NoMatchingParent', `${parent.name} is not accepted: ${parent.accepted.message}`);
  const { sectionName, port } = parentRef;
  const named = parent.listeners.filter(
    ({ listener }) => (!sectionName || listener.name === sectionName) && (!port || listener.port === port),
  );
  if (named.length === 0)
    return refuse(
      'NoMatchingParent',
      `${parent.name} has no listener ${sectionName ?? ''}${port ? ` on port ${port}` : ''}`,
    );
  const allowing = named.filter(listener => listener.kinds.includes(kind) && allowsNamespace(listener, route, objects));
  if (allowing.length === 0)
    return refuse(
      'NotAllowedByListeners',
      `no listener of ${parent.name} allows a ${kind} of namespace ${route.metadata.namespace}`,
    );
  const hostnames = kind === 'TCPRoute' || kind === 'UDPRoute' ? [] : (route.spec.hostnames ?? []);
  const attachments: Attachment[] = [];
  for (const listener of allowing) {
    const hosts = sharedHosts(listener.hostname, hostnames);
    if (hosts.length > 0) attachments.push({ gateway, listener, hosts });
  }
  if (attachments.length === 0)
    return refuse('NoMatchingListenerHostname', `no listener of ${parent.name} has a hostname of ${keyOf(route)}`);
  return { parentRef, gateway, attachments };
}

function sharedHosts(listener: string, hostnames: readonly string[]): { host: string; own: string }[] {
  if (hostnames.length === 0) return [{ host: listener, own: ANY }];
  return hostnames.flatMap(own => {
    const host = intersection(listener, own);
    return host === undefined ? [] : [{ host, own }];
  });
}

function allowsNamespace({ listener, owner }: JudgedListener, route: Route, objects: GatewayObjects): boolean {
  const { from = 'Same', selector } = listener.allowedRoutes?.namespaces ?? {};
  const { namespace = '' } = route.metadata;
  if (from === 'All') return true;
  if (from === 'Same') return namespace === owner.namespace;
  return labelSelectorMatch(selector)(objects.namespace(namespace)?.metadata.labels ?? {});
}
