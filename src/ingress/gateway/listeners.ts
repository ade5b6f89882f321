/**
 * The listeners of one Gateway and of the ListenerSets that it takes, judged: which are served, with which certificates, which kinds of
 * routes they take, and what is wrong with the others. Invariants: of listeners of one object that cannot be told apart none is served;
 * of those of several objects the first one's, the Gateway before its sets and older sets before newer ones.
 */

import type { ClientsTls, Gateway, Listener, RouteGroupKind } from '../../api/gateway/v1.ts';
import { GROUP } from '../../api/gateway/v1.ts';
import { type KubeObject, keyOf } from '../../api/meta.ts';
import { readCertificate, type SecretData } from '../credentials.ts';
import { type GatewayObjects, type Problem, type RouteKind, type Said, said } from './gateway-objects.ts';
import { ANY, intersection } from './hostnames.ts';
import type { References } from './references.ts';

export type Protocol = 'HTTP' | 'HTTPS' | 'TLS' | 'TCP' | 'UDP';

/** The Gateway or ListenerSet that a listener stands in. */
export interface ListenerOwner {
  readonly kind: 'Gateway' | 'ListenerSet';
  readonly namespace: string;
  /** `namespace/name` */
  readonly key: string;
}

export interface JudgedListener {
  readonly listener: Listener;
  readonly owner: ListenerOwner;
  /** Undefined: not one of ours. */
  readonly protocol: Protocol | undefined;
  /** `*` for all names. */
  readonly hostname: string;
  readonly terminates: boolean;
  /** Kinds that it takes. */
  readonly kinds: readonly RouteKind[];
  /** Chain and key, each. */
  readonly certificates: readonly string[];
  /** How certificates of clients are checked; absent: none is asked for. */
  readonly clients?: ClientChecks;
  readonly conditions: readonly Said[];
  readonly isAccepted: boolean;
  readonly isResolved: boolean;
  /** Accepted, and there is nothing that it could not do. */
  readonly isServed: boolean;
  /** Routes that are attached to it. */
  readonly attached: Set<string>;
}

export interface ClientChecks {
  /** File of authorities. */
  readonly caFile: string;
  /** False: clients without a valid one are let in too. */
  readonly isRequired: boolean;
}

const KINDS: Readonly<Record<Protocol, readonly RouteKind[]>> = {
  HTTP: ['HTTPRoute', 'GRPCRoute'],
  HTTPS: ['HTTPRoute', 'GRPCRoute'],
  TLS: ['TLSRoute'],
  TCP: ['TCPRoute'],
  UDP: ['UDPRoute'],
};

/** `earlier`: listeners that come first where two cannot be told apart. */
export function judgeListeners(
  gateway: Gateway,
  { owner, listeners, earlier = [] }: ListenersOf,
  objects: GatewayObjects,
  references: References,
): JudgedListener[] {
  const taken = earlier.filter(({ isAccepted }) => isAccepted).map(each => each.listener);
  return listeners.map(listener => {
    const protocol = protocolOf(listener);
    const conflict = conflictOf(listener, listeners) ?? conflictOf(listener, taken, 'of another owner');
    const unsupported = protocol ? undefined : `protocol ${listener.protocol} is not supported`;
    const options = Object.keys(listener.tls?.options ?? {});
    const kinds = kindsOf(listener, protocol);
    const terminates = protocol === 'HTTPS' || (protocol === 'TLS' && listener.tls?.mode !== 'Passthrough');
    const certificates: string[] = [];
    let unresolved = kinds.problem;
    if (terminates) {
      for (const ref of listener.tls?.certificateRefs ?? []) {
        const read = certificateOf(owner, ref, objects, references, listener.hostname);
        if (typeof read === 'string') certificates.push(read);
        else unresolved ??= read;
      }
      if (certificates.length === 0)
        unresolved ??= { reason: 'InvalidCertificateRef', message: 'there is no certificate to show' };
    }
    const validation = protocol === 'HTTPS' ? validationOf(gateway, listener.port) : undefined;
    const authorities =
      validation && references.authorities(gateway.metadata.namespace ?? '', validation.caCertificateRefs);
    unresolved = authorities?.problems[0] ?? unresolved;
    const clients = authorities?.caFile
      ? { caFile: authorities.caFile, isRequired: validation?.mode !== 'AllowInsecureFallback' }
      : undefined;
    const noAuthority: Problem | undefined =
      authorities && !clients
        ? { reason: 'NoValidCACertificate', message: authorities.problems[0]?.message ?? 'there is no authority' }
        : undefined;
    const refusal: Problem | undefined = conflict
      ? conflict
      : unsupported
        ? { reason: 'UnsupportedProtocol', message: unsupported }
        : options.length > 0
          ? { reason: 'UnsupportedValue', message: `tls.options ${options.join(', ')}: there are no options` }
          : noAuthority;
    const canServe = !refusal && (!terminates || certificates.length > 0) && kinds.supported.length > 0;
    return {
      listener,
      owner,
      protocol,
      hostname: listener.hostname || ANY,
      terminates,
      kinds: kinds.supported,
      certificates,
      ...(clients ? { clients } : {}),
      isAccepted: !refusal,
      isResolved: !unresolved,
      isServed: canServe,
      attached: new Set<string>(),
      conditions: [
        refusal
          ? said('Accepted', false, refusal.reason, refusal.message)
          : said('Accepted', true, 'Accepted', 'the listener is valid'),
        conflict
          ? said('Conflicted', true, conflict.reason, conflict.message)
          : said('Conflicted', false, 'NoConflicts'),
        unresolved
          ? said('ResolvedRefs', false, unresolved.reason, unresolved.message)
          : said('ResolvedRefs', true, 'ResolvedRefs'),
        ...(protocol === 'HTTPS' ? overlapOf(listener, [...listeners, ...taken]) : []),
      ],
    };
  });
}

/** Clients may use a connection for all names of its certificate: they are told that it is for one listener (421). */
function overlapOf(listener: Listener, all: readonly Listener[]): Said[] {
  const overlaps = all.some(
    other =>
      other !== listener &&
      other.port === listener.port &&
      protocolOf(other) === 'HTTPS' &&
      intersection(other.hostname || ANY, listener.hostname || ANY) !== undefined,
  );
  const message = 'another listener of this port has some of its host names';
  return overlaps ? [said('OverlappingTLSConfig', true, 'OverlappingHostnames', message)] : [];
}

export interface ListenersOf {
  readonly owner: ListenerOwner;
  readonly listeners: readonly Listener[];
  readonly earlier?: readonly JudgedListener[];
}

export function ownerOf(kind: ListenerOwner['kind'], object: KubeObject): ListenerOwner {
  return { kind, namespace: object.metadata.namespace ?? '', key: keyOf(object) };
}

type Validation = NonNullable<ClientsTls['validation']>;

function validationOf({ spec }: Gateway, port: number): Validation | undefined {
  const { frontend } = spec.tls ?? {};
  return (frontend?.perPort?.find(each => each.port === port)?.tls ?? frontend?.default)?.validation;
}

/** Clients that show no valid certificate are let in somewhere. */
export function letsAnybodyIn({ spec }: Gateway): boolean {
  const { frontend } = spec.tls ?? {};
  return [frontend?.default, ...(frontend?.perPort ?? []).map(({ tls }) => tls)].some(
    each => each?.validation?.mode === 'AllowInsecureFallback',
  );
}

/** The file of what a Gateway shows to its backends, or why there is none. */
export function clientCertificate(
  gateway: Gateway,
  objects: GatewayObjects,
  references: References,
): string | Problem | undefined {
  const ref = gateway.spec.tls?.backend?.clientCertificateRef;
  if (!ref) return undefined;
  const read = certificateOf(ownerOf('Gateway', gateway), ref, objects, references, undefined);
  if (typeof read === 'string') return references.file('own', read);
  return read.reason === 'RefNotPermitted' ? read : { ...read, reason: 'InvalidClientCertificateRef' };
}

function protocolOf({ protocol }: Listener): Protocol | undefined {
  const name = protocol.toUpperCase();
  return Object.hasOwn(KINDS, name) ? (name as Protocol) : undefined;
}

const transportOf = (listener: Listener): 'UDP' | 'TCP' => (protocolOf(listener) === 'UDP' ? 'UDP' : 'TCP');
/** HTTPS and TLS are told apart by the server name. */
const familyOf = (listener: Listener): string => {
  const protocol = protocolOf(listener);
  return protocol === 'HTTPS' ? 'TLS' : (protocol ?? listener.protocol);
};

// What stands in objects of others is not told: it may be nobody's business here.
function conflictOf(listener: Listener, all: readonly Listener[], whose?: string): Problem | undefined {
  for (const other of all) {
    if (other === listener || other.port !== listener.port || transportOf(other) !== transportOf(listener)) continue;
    if (familyOf(other) !== familyOf(listener))
      return {
        reason: 'ProtocolConflict',
        message: `${whose ? `a listener ${whose}` : `listener ${other.name}`} has port ${listener.port} for ${other.protocol}`,
      };
    if ((other.hostname || ANY) === (listener.hostname || ANY))
      return {
        reason: 'HostnameConflict',
        message: `${whose ? `a listener ${whose}` : `listener ${other.name}`} has the same port and hostname`,
      };
  }
  return undefined;
}

function kindsOf(
  { allowedRoutes }: Listener,
  protocol: Protocol | undefined,
): { readonly supported: readonly RouteKind[]; readonly problem?: Problem } {
  const possible = protocol ? KINDS[protocol] : [];
  const asked = allowedRoutes?.kinds ?? [];
  if (asked.length === 0) return { supported: possible };
  const isPossible = ({ group = GROUP, kind }: RouteGroupKind) =>
    group === GROUP && (possible as readonly string[]).includes(kind);
  const wrong = asked.filter(each => !isPossible(each));
  const supported = possible.filter(kind => asked.some(each => isPossible(each) && each.kind === kind));
  return wrong.length === 0
    ? { supported }
    : {
        supported,
        problem: {
          reason: 'InvalidRouteKinds',
          message: `${wrong.map(({ kind }) => kind).join(', ')} cannot be attached to protocol ${protocol ?? 'unknown'}`,
        },
      };
}

function certificateOf(
  owner: ListenerOwner,
  {
    group = '',
    kind = 'Secret',
    name,
    namespace = owner.namespace,
  }: { group?: string; kind?: string; name: string; namespace?: string },
  objects: GatewayObjects,
  references: References,
  hostname: string | undefined,
): string | Problem {
  if (group !== '' || kind !== 'Secret')
    return { reason: 'InvalidCertificateRef', message: `certificates come from Secrets, not ${group}/${kind} ${name}` };
  if (!references.permits(owner, { group, kind, namespace, name }))
    return {
      reason: 'RefNotPermitted',
      message: `no ReferenceGrant in namespace ${namespace} lets ${owner.kind} ${owner.key} refer to Secret ${name}`,
    };
  const read = readOnce(objects.secret({ namespace, name }), hostname ?? '');
  return 'problem' in read
    ? { reason: 'InvalidCertificateRef', message: `Secret ${namespace}/${name} ${read.problem}` }
    : read.pem;
}

/** Data of Secrets are frozen: what they hold is read once for each host. */
const known = new WeakMap<SecretData, Map<string, ReturnType<typeof readCertificate>>>();

function readOnce(data: SecretData | undefined, host: string): ReturnType<typeof readCertificate> {
  if (!data) return readCertificate(undefined, host);
  let byHost = known.get(data);
  if (!byHost) known.set(data, (byHost = new Map()));
  let read = byHost.get(host);
  if (!read) byHost.set(host, (read = readCertificate(data, host)));
  return read;
}
