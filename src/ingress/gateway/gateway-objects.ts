/** What gateways are made of, and the few things that all of it is told by: names, ages, conditions. */

import type { Namespace, Service } from '../../api/core/v1.gen.ts';
import type {
  BackendTLSPolicy,
  Condition,
  Gateway,
  GatewayClass,
  GRPCRoute,
  HTTPRoute,
  ListenerSet,
  ReferenceGrant,
  Route,
  TCPRoute,
  TLSRoute,
  UDPRoute,
} from '../../api/gateway/v1.ts';
import { GROUP } from '../../api/gateway/v1.ts';
import { type KubeObject, keyOf } from '../../api/meta.ts';
import type { SecretData } from '../credentials.ts';
import type { SecretRef } from '../settings.ts';

export const CONTROLLER_NAME = 'coxswain.dev/gateway';
export const CLASS_NAME = 'coxswain';

export const ROUTE_KINDS = ['HTTPRoute', 'GRPCRoute', 'TLSRoute', 'TCPRoute', 'UDPRoute'] as const;
export type RouteKind = (typeof ROUTE_KINDS)[number];

export interface RoutesByKind {
  readonly HTTPRoute: readonly HTTPRoute[];
  readonly GRPCRoute: readonly GRPCRoute[];
  readonly TLSRoute: readonly TLSRoute[];
  readonly TCPRoute: readonly TCPRoute[];
  readonly UDPRoute: readonly UDPRoute[];
}

export interface GatewayObjects {
  readonly classes: readonly GatewayClass[];
  readonly gateways: readonly Gateway[];
  readonly listenerSets: readonly ListenerSet[];
  readonly routes: RoutesByKind;
  readonly grants: readonly ReferenceGrant[];
  readonly policies: readonly BackendTLSPolicy[];
  namespace(name: string): Namespace | undefined;
  service(namespace: string, name: string): Service | undefined;
  secret(ref: SecretRef): SecretData | undefined;
  configMap(ref: SecretRef): Readonly<Record<string, string>> | undefined;
}

/** A condition but for its generation and time. */
export interface Said {
  readonly type: string;
  readonly status: Condition['status'];
  readonly reason: string;
  readonly message: string;
}

export const said = (type: string, isTrue: boolean, reason: string, message = ''): Said => ({
  type,
  status: isTrue ? 'True' : 'False',
  reason,
  message,
});

/** Something asked for that cannot be had. */
export interface Problem {
  readonly reason: string;
  readonly message: string;
}

export function isProblem<T extends object>(value: T | Problem): value is Problem {
  return 'reason' in value && 'message' in value;
}

/** Older first; of the same age by `namespace/name`. */
export function compareAge(a: KubeObject, b: KubeObject): number {
  const [from, to] = [a.metadata.creationTimestamp ?? '', b.metadata.creationTimestamp ?? ''];
  if (from !== to) return from < to ? -1 : 1;
  return keyOf(a) < keyOf(b) ? -1 : 1;
}

export function isOurClass(gatewayClass: GatewayClass | undefined): gatewayClass is GatewayClass {
  return gatewayClass?.spec.controllerName === CONTROLLER_NAME;
}

/** What a route or a set of listeners may name as its parent. */
export function isParent(
  { group, kind }: { readonly group?: string; readonly kind?: string },
  wanted: 'Gateway' | 'ListenerSet',
): boolean {
  return (group ?? GROUP) === GROUP && (kind ?? 'Gateway') === wanted;
}

/** `HTTPRoute namespace/name`. */
export const routeKey = (kind: RouteKind, route: Route): string => `${kind} ${keyOf(route)}`;
