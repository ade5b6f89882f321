/**
 * Gateways and routes to frontends, backends, certificates and conditions, purely. The cluster's controller takes the conditions, each
 * node's agent the rest; both see the same. Invariant: what comes out depends on the objects alone, not on the order they are
 * handed in.
 */

import type { BackendTLSPolicy, Gateway, GatewayClass, ParentReference, Route } from '../../api/gateway/v1.ts';
import { keyOf } from '../../api/meta.ts';
import type { ServiceRef } from '../route-table.ts';
import { allListeners, attach, type JudgedGateway, type ParentResult } from './attachment.ts';
import { type AttachedRoute, buildFrontend, type Frontend } from './frontends.ts';
import {
  compareAge,
  type GatewayObjects,
  isOurClass,
  type Problem,
  ROUTE_KINDS,
  type RouteKind,
  routeKey,
  type Said,
  said,
} from './gateway-objects.ts';
import { judgeListenerSets } from './listener-sets.ts';
import { clientCertificate, type JudgedListener, judgeListeners, ownerOf } from './listeners.ts';
import { References } from './references.ts';
import { type Choice, RouteReader } from './route-rules.ts';

export interface GatewayResult extends JudgedGateway {
  readonly resolved: Said;
  /** Ports of its Service: TCP ones lead to nodes, UDP ones to the pods of these Services. */
  readonly tcpPorts: readonly number[];
  readonly udpPorts: ReadonlyMap<number, readonly ServiceRef[]>;
}

export interface RouteResult {
  readonly kind: RouteKind;
  readonly route: Route;
  readonly parents: readonly { readonly parentRef: ParentReference; readonly conditions: readonly Said[] }[];
}

export interface PolicyStatus {
  readonly policy: BackendTLSPolicy;
  readonly ancestors: readonly { readonly gateway: string; readonly conditions: readonly Said[] }[];
}

export interface GatewayState {
  readonly gateways: readonly GatewayResult[];
  readonly routes: readonly RouteResult[];
  readonly policies: readonly PolicyStatus[];
  readonly frontends: readonly Frontend[];
  /** File → certificates of authorities that backends are checked against. */
  readonly caFiles: ReadonlyMap<string, string>;
  /** Services that were asked about, whether they exist or not: `namespace/name`. */
  readonly services: ReadonlySet<string>;
}

/** `namespace/name` of a Gateway → port → the port that nodes listen on for it. */
export type TargetPorts = ReadonlyMap<string, ReadonlyMap<number, number>>;

export function ourGateways(classes: Iterable<GatewayClass>, gateways: Iterable<Gateway>): Gateway[] {
  const ours = new Set(
    [...classes].filter(each => isOurClass(each) && !each.spec.parametersRef).map(each => each.metadata.name),
  );
  return [...gateways].filter(({ spec, metadata }) => ours.has(spec.gatewayClassName) && !metadata.deletionTimestamp);
}

export function buildGatewayState(objects: GatewayObjects, targetPorts: TargetPorts): GatewayState {
  const references = new References(objects);
  const gateways = new Map<string, JudgedGateway>();
  for (const gateway of ourGateways(objects.classes, objects.gateways).sort(compareAge)) {
    const of = { owner: ownerOf('Gateway', gateway), listeners: gateway.spec.listeners };
    const listeners = judgeListeners(gateway, of, objects, references);
    const own = clientCertificate(gateway, objects, references);
    const judged = { gateway, key: keyOf(gateway), listeners, own, ...acceptance(listeners, refusalOf(gateway)) };
    gateways.set(judged.key, { ...judged, sets: judgeListenerSets(gateway, judged, objects, references) });
  }
  const attached: AttachedRoute[] = [];
  const routes: RouteResult[] = [];
  for (const kind of ROUTE_KINDS)
    for (const route of [...objects.routes[kind]].sort(compareAge)) {
      const parents = attach(kind, route, gateways, objects);
      if (parents.length > 0) routes.push(readRoute(kind, route, parents, references, attached));
    }
  return {
    gateways: [...gateways.values()].map(gateway => gatewayResult(gateway, attached)),
    routes,
    policies: references.policies.map(({ policy, conditions, ancestors }) => ({
      policy,
      ancestors: [...ancestors].sort().map(gateway => ({ gateway, conditions })),
    })),
    frontends: frontendsOf(gateways.values(), attached, targetPorts),
    caFiles: references.caFiles,
    services: references.services,
  };
}

function refusalOf({ spec }: Gateway): Problem | undefined {
  if (spec.infrastructure?.parametersRef)
    return { reason: 'InvalidParameters', message: 'infrastructure.parametersRef: there are no parameters' };
  const addresses = spec.addresses ?? [];
  const odd = addresses.find(({ type = 'IPAddress' }) => type !== 'IPAddress');
  if (odd) return { reason: 'UnsupportedAddress', message: `addresses of type ${odd.type} are not supported` };
  return undefined;
}

function readRoute(
  kind: RouteKind,
  route: Route,
  parents: readonly ParentResult[],
  references: References,
  attached: AttachedRoute[],
): RouteResult {
  const reader = new RouteReader(kind, route, references, new Set(parents.map(({ gateway }) => gateway.key)));
  const results = parents.map(({ parentRef, gateway, attachments, refusal }) => {
    const certificate = typeof gateway.own === 'string' ? gateway.own : undefined;
    const reads = attachments.map(attachment => {
      const { listener, protocol, terminates } = attachment.listener;
      const scheme = protocol === 'HTTPS' ? 'https' : 'http';
      const read = reader.read({
        port: listener.port,
        scheme,
        isPassedThrough: protocol === 'TLS' && !terminates,
        certificate,
      });
      return { kind, route, attachment, read };
    });
    const read = reads[0]?.read ?? reader.read({ port: 80, scheme: 'http', isPassedThrough: false });
    const conditions: Said[] = [];
    const weights = kind === 'UDPRoute' && hasWeights(read.rules[0]?.choices ?? []);
    const unsupported = [...read.unsupported, ...(weights ? ['weights of UDP backends must be equal'] : [])];
    if (refusal) conditions.push(said('Accepted', false, refusal.reason, refusal.message));
    else if (weights || read.isAllUnsupported)
      conditions.push(said('Accepted', false, read.reason, unsupported.join('; ')));
    else {
      conditions.push(said('Accepted', true, 'Accepted', 'the route is attached'));
      if (unsupported.length > 0)
        conditions.push(said('PartiallyInvalid', true, read.reason, `Dropped Rule: ${unsupported.join('; ')}`));
      for (const each of reads) {
        each.attachment.listener.attached.add(routeKey(kind, route));
        attached.push(each);
      }
    }
    const unresolved = read.unresolved[0];
    conditions.push(
      unresolved
        ? said('ResolvedRefs', false, unresolved.reason, read.unresolved.map(({ message }) => message).join('; '))
        : said('ResolvedRefs', true, 'ResolvedRefs', 'all references are resolved'),
    );
    return { parentRef, conditions };
  });
  return { kind, route, parents: results };
}

const hasWeights = (choices: readonly Choice[]): boolean =>
  new Set(choices.map(({ weight }) => weight).filter(weight => weight > 0)).size > 1;

const names = (of: readonly JudgedListener[]) => of.map(({ listener }) => listener.name).join(', ');

/** Nothing of a Gateway is served when it, or all its listeners, were refused. */
function acceptance(
  listeners: readonly JudgedListener[],
  refusal: Problem | undefined,
): Pick<JudgedGateway, 'accepted' | 'isAccepted'> {
  if (refusal) return { accepted: said('Accepted', false, refusal.reason, refusal.message), isAccepted: false };
  const wrong = listeners.filter(({ isAccepted, isServed }) => !isAccepted || !isServed);
  const served = listeners.filter(({ isServed }) => isServed);
  const isAccepted = served.length > 0;
  if (wrong.length === 0) return { accepted: said('Accepted', true, 'Accepted', 'the Gateway is valid'), isAccepted };
  const message = `not valid: ${names(wrong)}${isAccepted ? `; valid: ${names(served)}` : ''}`;
  return { accepted: said('Accepted', isAccepted, 'ListenersNotValid', message), isAccepted };
}

function gatewayResult(gateway: JudgedGateway, attached: readonly AttachedRoute[]): GatewayResult {
  const { listeners, own, isAccepted } = gateway;
  const served = allListeners(gateway).filter(({ isServed }) => isServed);
  const unresolved = listeners.filter(({ isResolved }) => !isResolved);
  const udpPorts = new Map<number, readonly ServiceRef[]>();
  for (const listener of served)
    if (listener.protocol === 'UDP') udpPorts.set(listener.listener.port, servicesOf(listener, attached));
  return {
    ...gateway,
    resolved:
      typeof own === 'object'
        ? said('ResolvedRefs', false, own.reason, own.message)
        : unresolved.length > 0
          ? said('ResolvedRefs', false, 'ListenersNotResolved', `references are not resolved of: ${names(unresolved)}`)
          : said('ResolvedRefs', true, 'ResolvedRefs'),
    tcpPorts: isAccepted
      ? [...new Set(served.filter(({ protocol }) => protocol !== 'UDP').map(({ listener }) => listener.port))].sort(
          (a, b) => a - b,
        )
      : [],
    udpPorts: isAccepted ? udpPorts : new Map(),
  };
}

/** Those of the oldest route of a UDP listener. */
function servicesOf(listener: JudgedListener, attached: readonly AttachedRoute[]): ServiceRef[] {
  const first = attached
    .filter(({ attachment }) => attachment.listener === listener)
    .sort((a, b) => compareAge(a.route, b.route))[0];
  const choices = first?.read.rules[0]?.choices ?? [];
  return choices.flatMap(({ backend, weight }) => (weight > 0 && backend.service) || []);
}

function frontendsOf(
  gateways: Iterable<JudgedGateway>,
  attached: readonly AttachedRoute[],
  targetPorts: TargetPorts,
): Frontend[] {
  const frontends: Frontend[] = [];
  for (const judged of gateways) {
    const { gateway, key, isAccepted } = judged;
    if (!isAccepted) continue;
    const byPort = new Map<number, JudgedListener[]>();
    for (const each of allListeners(judged))
      if (each.isServed && each.protocol !== 'UDP')
        byPort.set(each.listener.port, [...(byPort.get(each.listener.port) ?? []), each]);
    for (const [port, served] of byPort) {
      const targetPort = targetPorts.get(key)?.get(port);
      if (targetPort === undefined) continue;
      const here = attached.filter(({ attachment }) => served.includes(attachment.listener));
      frontends.push(buildFrontend({ id: `g${targetPort}`, gateway, port, targetPort }, served, here));
    }
  }
  return frontends.sort((a, b) => a.targetPort - b.targetPort);
}
