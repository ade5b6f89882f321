/** Statuses from judgements: conditions with their generation and the time they changed, beside what other controllers have written. */

import type {
  BackendTLSPolicy,
  Condition,
  Gateway,
  GatewayStatus,
  ListenerSet,
  ListenerStatus,
  Route,
  RouteStatus,
} from '../../api/gateway/v1.ts';
import { BUNDLE_VERSION, GROUP } from '../../api/gateway/v1.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { GatewayResult, PolicyStatus, RouteResult } from './gateway-model.ts';
import { CONTROLLER_NAME, type Said, said } from './gateway-objects.ts';
import type { JudgedListenerSet } from './listener-sets.ts';
import { type JudgedListener, letsAnybodyIn } from './listeners.ts';

/** How far a Gateway has come. */
export interface Progress {
  readonly addresses: readonly { readonly type: string; readonly value: string }[];
  readonly programmed: Said;
}

/** The time of what says the same as before stays. */
export function conditionsOf(
  object: KubeObject,
  before: readonly Condition[] | undefined,
  wanted: readonly Said[],
  now: string,
): Condition[] {
  return wanted.map(each => {
    const known = before?.find(({ type }) => type === each.type);
    return {
      ...each,
      ...(object.metadata.generation === undefined ? {} : { observedGeneration: object.metadata.generation }),
      lastTransitionTime: known?.status === each.status ? known.lastTransitionTime : now,
    };
  });
}

/** Those of others stay where they are. */
function beside(
  before: readonly Condition[] | undefined,
  ours: readonly Condition[],
  types: readonly string[],
): Condition[] {
  return [
    ...ours,
    ...(before ?? []).filter(({ type }) => !types.includes(type) && !ours.some(each => each.type === type)),
  ];
}

/** Administrators may put definitions of another version in the place of ours. */
export function supportedVersion({ metadata }: KubeObject): Said {
  const version = metadata.annotations?.['gateway.networking.k8s.io/bundle-version'] ?? 'without a version';
  const minor = BUNDLE_VERSION.replace(/\d+$/, '');
  return version.startsWith(minor)
    ? said('SupportedVersion', true, 'SupportedVersion', `the definitions of the Gateway API are ${version}`)
    : said(
        'SupportedVersion',
        false,
        'UnsupportedVersion',
        `the definitions are ${version}, not ${minor}x: fields may be ignored`,
      );
}

const INSECURE = 'InsecureFrontendValidationMode';
const GATEWAY_TYPES = ['Accepted', 'Programmed', 'ResolvedRefs', INSECURE];

export function gatewayStatus(
  gateway: Gateway,
  { accepted, resolved, listeners, sets }: GatewayResult,
  { addresses, programmed }: Progress,
  now: string,
): GatewayStatus {
  const before = gateway.status;
  const insecure = letsAnybodyIn(gateway)
    ? [said(INSECURE, true, 'ConfigurationChanged', 'clients are let in without a valid certificate')]
    : [];
  const ours = conditionsOf(gateway, before?.conditions, [accepted, programmed, resolved, ...insecure], now);
  return {
    addresses,
    conditions: beside(before?.conditions, ours, GATEWAY_TYPES),
    listeners: listenerStatuses(gateway, listeners, programmed, now),
    ...(sets.length > 0 || before?.attachedListenerSets !== undefined
      ? { attachedListenerSets: sets.filter(({ isAccepted }) => isAccepted).length }
      : {}),
  };
}

/** `programmed`: of the Gateway whose listeners they are, or are added to. */
export function listenerSetStatus(
  { set, accepted, isAccepted, listeners }: JudgedListenerSet,
  programmed: Said,
  now: string,
): NonNullable<ListenerSet['status']> {
  const before = set.status?.conditions;
  const own = !isAccepted
    ? said('Programmed', false, accepted.reason, accepted.message)
    : programmed.status === 'True'
      ? said('Programmed', true, 'Programmed', 'its listeners are served')
      : said('Programmed', false, 'ParentNotProgrammed', programmed.message);
  const ours = conditionsOf(set, before, [accepted, own], now);
  return {
    conditions: beside(before, ours, ['Accepted', 'Programmed']),
    listeners: listenerStatuses(set, listeners, programmed, now),
  };
}

function listenerStatuses(
  of: Gateway | ListenerSet,
  listeners: readonly JudgedListener[],
  programmed: Said,
  now: string,
): ListenerStatus[] {
  return listeners.map(({ listener, kinds, attached, conditions, isServed }) => {
    const known = of.status?.listeners?.find(({ name }) => name === listener.name);
    const isProgrammed = isServed && programmed.status === 'True';
    const all = [
      ...conditions,
      isProgrammed
        ? said('Programmed', true, 'Programmed')
        : said('Programmed', false, isServed ? 'Pending' : 'Invalid', isServed ? programmed.message : ''),
    ];
    return {
      name: listener.name,
      supportedKinds: kinds.map(kind => ({ group: GROUP, kind })),
      attachedRoutes: attached.size,
      conditions: conditionsOf(of, known?.conditions, all, now),
    };
  });
}

/** `result` undefined: none of its parents is ours any more. */
export function routeStatus(route: Route, result: RouteResult | undefined, now: string): RouteStatus {
  const before = route.status?.parents ?? [];
  const parents = (result?.parents ?? []).map(({ parentRef, conditions }) => {
    const known = before.find(
      each =>
        each.controllerName === CONTROLLER_NAME &&
        JSON.stringify(refOf(each.parentRef)) === JSON.stringify(refOf(parentRef)),
    );
    return {
      parentRef,
      controllerName: CONTROLLER_NAME,
      conditions: conditionsOf(route, known?.conditions, conditions, now),
    };
  });
  return { parents: [...before.filter(({ controllerName }) => controllerName !== CONTROLLER_NAME), ...parents] };
}

const refOf = ({ group, kind, namespace, name, sectionName, port }: RouteStatus['parents'][number]['parentRef']) => [
  group ?? GROUP,
  kind ?? 'Gateway',
  namespace ?? '',
  name,
  sectionName ?? '',
  port ?? 0,
];

export function policyStatus(
  policy: BackendTLSPolicy,
  result: PolicyStatus | undefined,
  now: string,
): NonNullable<BackendTLSPolicy['status']> {
  const before = policy.status?.ancestors ?? [];
  const ancestors = (result?.ancestors ?? []).map(({ gateway, conditions }) => {
    const [namespace, name] = gateway.split('/') as [string, string];
    const ancestorRef = { group: GROUP, kind: 'Gateway', namespace, name };
    const known = before.find(
      each =>
        each.controllerName === CONTROLLER_NAME &&
        each.ancestorRef.name === name &&
        each.ancestorRef.namespace === namespace,
    );
    return {
      ancestorRef,
      controllerName: CONTROLLER_NAME,
      conditions: conditionsOf(policy, known?.conditions, conditions, now),
    };
  });
  return { ancestors: [...before.filter(({ controllerName }) => controllerName !== CONTROLLER_NAME), ...ancestors] };
}
