/**
 * The ports of gateways as look-ups, purely: a request's host leads to a domain, its path in that domain to a list of candidates, of which
 * the first whose tests hold takes the request. Precedence is decided here, once, and not for each request. Invariant: a list ends at
 * its first candidate without tests, and holds those of less specific hosts and paths behind those of more specific ones.
 */

import type { Gateway } from '../../api/gateway/v1.ts';
import type { KubeObject } from '../../api/meta.ts';
import { keyOf } from '../../api/meta.ts';
import type { Attachment } from './attachment.ts';
import { compareAge, type RouteKind } from './gateway-objects.ts';
import { compareSpecificity, covers, mostSpecific } from './hostnames.ts';
import type { ClientChecks, JudgedListener } from './listeners.ts';
import { type Choice, compareMatches, type Match, type ReadRoute, type Test } from './route-rules.ts';

export interface Candidate {
  readonly tests: readonly Test[];
  readonly choices: readonly Choice[];
  /** For explanations: the route, and which of its rules and matches. */
  readonly from: { readonly kind: RouteKind; readonly route: string; readonly rule: number; readonly match: number };
}

/** What the names of one pattern lead to. */
export interface Domain {
  readonly host: string;
  /** Name of the listener, and the host name that it has. */
  readonly listener: string;
  readonly listenerHost: string;
  /** Whole paths. */
  readonly exact: ReadonlyMap<string, readonly Candidate[]>;
  /** Paths without a slash at the end; the root is the empty text. */
  readonly prefixes: ReadonlyMap<string, readonly Candidate[]>;
}

interface FrontendCommon {
  /** Unique on a node, and the same on all: by the port that nodes listen on. */
  readonly id: string;
  readonly gateway: Gateway;
  readonly port: number;
  readonly targetPort: number;
}

export interface CertificateOfHost {
  /** `*` for all names. */
  readonly hostname: string;
  readonly pem: string;
}

export interface HttpFrontend extends FrontendCommon {
  readonly kind: 'http';
  /** Undefined: plain HTTP. */
  readonly certificates: readonly CertificateOfHost[] | undefined;
  /** How certificates of clients are checked. */
  readonly clients?: ClientChecks;
  /** Most specific first. */
  readonly domains: readonly Domain[];
}

/** Connections by their server name. */
export interface TlsFrontend extends FrontendCommon {
  readonly kind: 'tls';
  readonly hosts: ReadonlyMap<string, TlsWay>;
  /** Of what is decrypted here: HTTPS listeners, and TLS ones that terminate. */
  readonly https: HttpFrontend | undefined;
  readonly terminated:
    | { readonly certificates: readonly CertificateOfHost[]; readonly hosts: ReadonlyMap<string, readonly Choice[]> }
    | undefined;
}
export type TlsWay =
  | { readonly to: 'https' | 'terminated' }
  | { readonly to: 'backends'; readonly choices: readonly Choice[] };

export interface TcpFrontend extends FrontendCommon {
  readonly kind: 'tcp';
  readonly choices: readonly Choice[];
}

export type Frontend = HttpFrontend | TlsFrontend | TcpFrontend;

/** A route attached to a listener, as read for it. */
export interface AttachedRoute {
  readonly kind: RouteKind;
  readonly route: KubeObject;
  readonly attachment: Attachment;
  readonly read: ReadRoute;
}

/** The frontend of one port, of the listeners that are served there. */
export function buildFrontend(
  common: FrontendCommon,
  listeners: readonly JudgedListener[],
  attached: readonly AttachedRoute[],
): Frontend {
  const byAge = [...attached].sort((a, b) => compareAge(a.route, b.route));
  const of = (...protocols: readonly string[]) =>
    listeners.filter(({ protocol }) => protocols.includes(protocol ?? ''));
  const http = (wanted: readonly JudgedListener[], hasTls: boolean): HttpFrontend => ({
    ...common,
    kind: 'http',
    certificates: hasTls ? certificatesOf(wanted) : undefined,
    ...clientsOf(wanted),
    domains: domainsOf(wanted, byAge),
  });
  const tcp = of('TCP')[0];
  if (tcp) {
    const first = byAge.find(({ attachment }) => attachment.listener === tcp);
    return { ...common, kind: 'tcp', choices: first?.read.rules[0]?.choices ?? [] };
  }
  const tls = of('TLS');
  const https = of('HTTPS');
  if (tls.length === 0) return https.length > 0 ? http(https, true) : http(of('HTTP'), false);
  const terminating = tls.filter(({ terminates }) => terminates);
  const hosts = new Map<string, TlsWay>();
  for (const { hostname } of https) hosts.set(hostname, { to: 'https' });
  for (const { hostname } of terminating) hosts.set(hostname, { to: 'terminated' });
  const passing = tls.filter(({ terminates }) => !terminates);
  for (const [host, choices] of serverNames(passing, byAge))
    if (!hosts.has(host)) hosts.set(host, { to: 'backends', choices });
  return {
    ...common,
    kind: 'tls',
    hosts: sortedByHost(hosts),
    https: https.length > 0 ? http(https, true) : undefined,
    terminated:
      terminating.length > 0
        ? { certificates: certificatesOf(terminating), hosts: sortedByHost(serverNames(terminating, byAge)) }
        : undefined,
  };
}

/** Of the same port, and so the same for all. */
const clientsOf = (listeners: readonly JudgedListener[]): { clients?: ClientChecks } => {
  const clients = listeners[0]?.clients;
  return clients ? { clients } : {};
};
const certificatesOf = (listeners: readonly JudgedListener[]): CertificateOfHost[] =>
  listeners.flatMap(({ hostname, certificates }) => certificates.map(pem => ({ hostname, pem })));

function sortedByHost<V>(hosts: ReadonlyMap<string, V>): Map<string, V> {
  return new Map([...hosts].sort(([a], [b]) => compareSpecificity(a, b)));
}

/** Server name → the backends of the oldest route that has it; names of a listener without a route lead nowhere. */
function serverNames(
  listeners: readonly JudgedListener[],
  byAge: readonly AttachedRoute[],
): Map<string, readonly Choice[]> {
  const hosts = new Map<string, readonly Choice[]>();
  for (const listener of listeners) {
    hosts.set(listener.hostname, []);
    for (const { attachment, read } of byAge)
      if (attachment.listener === listener)
        for (const { host } of attachment.hosts)
          if (!hosts.get(host)?.length) hosts.set(host, read.rules[0]?.choices ?? []);
  }
  return hosts;
}

interface Entry {
  readonly host: string;
  readonly own: string;
  readonly match: Match;
  readonly candidate: Candidate;
  readonly route: KubeObject;
}

function domainsOf(listeners: readonly JudgedListener[], byAge: readonly AttachedRoute[]): Domain[] {
  const entries = new Map<JudgedListener, Entry[]>();
  for (const listener of listeners) entries.set(listener, []);
  for (const { kind, route, attachment, read } of byAge) {
    const into = entries.get(attachment.listener);
    if (!into) continue;
    for (const { host, own } of attachment.hosts)
      for (const [rule, { matches, choices }] of read.rules.entries())
        for (const [at, match] of matches.entries()) {
          const candidate = { tests: match.tests, choices, from: { kind, route: keyOf(route), rule, match: at } };
          into.push({ host, own, match, candidate, route });
        }
  }
  const hosts = new Set<string>();
  for (const [listener, list] of entries) {
    hosts.add(listener.hostname);
    for (const { host } of list) hosts.add(host);
  }
  const domains: Domain[] = [];
  for (const host of [...hosts].sort(compareSpecificity)) {
    // Names go to one listener only, although another one's routes may name them too.
    const listener = mostSpecific(host, listeners, each => each.hostname);
    if (!listener) continue;
    const covering = entries.get(listener)!.filter(entry => covers(entry.host, host));
    domains.push({
      host,
      listener: listener.listener.name,
      listenerHost: listener.hostname,
      ...pathsOf(covering),
    });
  }
  return domains;
}

/** Entries of one host, by where their path is looked up. */
interface Tier {
  readonly exact: Map<string, Entry[]>;
  readonly patterns: Entry[];
  readonly prefixes: Map<string, Entry[]>;
}

function pathsOf(entries: readonly Entry[]): Pick<Domain, 'exact' | 'prefixes'> {
  const tiers = tiersOf(entries);
  const exact = new Map<string, readonly Candidate[]>();
  const prefixes = new Map<string, readonly Candidate[]>();
  for (const tier of tiers) {
    for (const path of tier.exact.keys()) if (!exact.has(path)) exact.set(path, candidatesAt(tiers, path, true));
    for (const prefix of tier.prefixes.keys())
      if (!prefixes.has(prefix)) prefixes.set(prefix, candidatesAt(tiers, prefix, false));
    if (tier.patterns.length > 0 && !prefixes.has('')) prefixes.set('', candidatesAt(tiers, '', false));
  }
  return { exact, prefixes };
}

/** Most specific host first; of one host by the name that the route itself has. */
function tiersOf(entries: readonly Entry[]): Tier[] {
  const byHost = new Map<string, Entry[]>();
  for (const entry of entries) {
    const key = `${entry.host} ${entry.own}`;
    const list = byHost.get(key);
    if (list) list.push(entry);
    else byHost.set(key, [entry]);
  }
  return [...byHost.values()]
    .sort(([a], [b]) => compareSpecificity(a!.host, b!.host) || compareSpecificity(a!.own, b!.own))
    .map(list => {
      const tier: Tier = { exact: new Map(), patterns: [], prefixes: new Map() };
      const sorted = list
        .map((entry, at) => ({ entry, at }))
        .sort(
          (a, b) =>
            compareMatches(a.entry.match, b.entry.match) || compareAge(a.entry.route, b.entry.route) || a.at - b.at,
        );
      for (const { entry } of sorted) {
        const { type, value } = entry.match.path;
        if (type === 'pattern') tier.patterns.push(entry);
        else {
          const map = type === 'exact' ? tier.exact : tier.prefixes;
          const known = map.get(value);
          if (known) known.push(entry);
          else map.set(value, [entry]);
        }
      }
      tier.patterns.sort((a, b) => b.match.path.value.length - a.match.path.value.length);
      return tier;
    });
}

function candidatesAt(tiers: readonly Tier[], path: string, isExact: boolean): Candidate[] {
  const found: Candidate[] = [];
  const take = (entries: readonly Entry[] | undefined): boolean => {
    for (const { candidate } of entries ?? []) {
      found.push(candidate);
      if (candidate.tests.length === 0) return true;
    }
    return false;
  };
  for (const tier of tiers) {
    if (isExact && take(tier.exact.get(path))) return found;
    if (take(tier.patterns)) return found;
    for (const prefix of prefixesOf(path)) if (take(tier.prefixes.get(prefix))) return found;
  }
  return found;
}

/** `/a/b` → `/a/b`, `/a`, ``. */
function prefixesOf(path: string): string[] {
  const found = new Set<string>();
  for (let end = path.length; end > 0; end = path.lastIndexOf('/', end - 1))
    found.add(path.slice(0, end).replace(/\/+$/, ''));
  return [...found.add('')];
}

export interface AskedRequest {
  readonly host: string;
  readonly path: string;
  readonly method: string;
  readonly headers: ReadonlyMap<string, string>;
  readonly query: URLSearchParams;
}

/** The candidate that takes a request, as the data plane decides it: for explanations and tests. */
export function matchRequest(
  { domains }: HttpFrontend,
  request: AskedRequest,
): { readonly domain: Domain | undefined; readonly candidate: Candidate | undefined } {
  const domain = mostSpecific(request.host.toLowerCase(), domains, each => each.host);
  if (!domain) return { domain: undefined, candidate: undefined };
  let list = domain.exact.get(request.path);
  if (!list) for (const prefix of prefixesOf(request.path)) if ((list = domain.prefixes.get(prefix))) break;
  return { domain, candidate: list?.find(({ tests }) => tests.every(test => holds(test, request))) };
}

function holds(test: Test, { path, method, headers, query }: AskedRequest): boolean {
  if (test.on === 'method') return method === test.is;
  const value =
    test.on === 'path' ? path : test.on === 'header' ? headers.get(test.name.toLowerCase()) : query.get(test.name);
  if (value === undefined || value === null) return false;
  return 'is' in test ? value === test.is : new RegExp(`^(?:${test.pattern})$`).test(value);
}
