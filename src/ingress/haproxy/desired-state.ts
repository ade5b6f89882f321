/**
 * From a route table to what HAProxy is to hold, purely: the shapes of backends, the contents of maps, lists of users.
 */

import { createHash } from 'node:crypto';
import type { Users } from '../credentials.ts';
import type { Listening } from '../ingress-class.ts';
import type { Route, RouteTable, ServiceRef } from '../route-table.ts';
import type { Endpoints } from '../service-endpoints.ts';
import { backendLines, cookieKey, externalServer, isName, type Resources, serverWords } from './backend.ts';
import { type BackendFiles, backendCertificates } from './backend-certificates.ts';
import { authoritiesFile, type ClientAuthorities, clientAuthorities } from './client-authorities.ts';
import type { Section } from './configuration.ts';
import { contentSource } from './content.ts';
import { type BackendShape, type CertificateEntry, type Desired, PLAIN_SHAPE, shape } from './desired.ts';
import { DEFAULT_KEY, type Feature, FILES, listeningSections } from './listening.ts';
import { LUA_SOURCE } from './lua.ts';

/** What Ingresses come to. */
export interface IngressWishes {
  readonly table: RouteTable;
  readonly listening: Listening;
  readonly resources: Resources;
  /** Host → certificates and key. */
  readonly certificates: ReadonlyMap<string, string>;
  /** Name of the list → its users. */
  readonly users: ReadonlyMap<string, Users>;
  /** Where a Service of type ExternalName leads. */
  externalOf(service: ServiceRef): External | undefined;
}

export interface IngressFront {
  readonly httpPort: number;
  readonly httpsPort: number;
  /** `` for all of IPv4, `::` for both families. */
  readonly bindAddress: string;
  readonly nameservers: readonly string[];
  /** PEM shown to clients that ask for a host without a certificate. */
  readonly defaultCertificate: string;
  /** Ways to routes that were used once: they only grow, so that what comes and goes costs one reload. */
  readonly features: Set<Feature>;
}

type External = NonNullable<Endpoints['external']>;

const CLIENT_SECONDS = 60;

export function ingressDesired(
  wishes: IngressWishes,
  front: IngressFront,
  servers: ReadonlyMap<string, readonly string[]>,
): Desired {
  const routes = [...wishes.table.routes.values()];
  for (const feature of featuresOf(wishes.table)) front.features.add(feature);
  const settings = routes.map(route => route.settings);
  const seconds = settings.map(({ readSeconds = 0, sendSeconds = 0 }) => Math.ceil(Math.max(readSeconds, sendSeconds)));
  const externals = new Map<string, External>();
  for (const { id, service } of routes) {
    const external = service && wishes.externalOf(service);
    // A name that nobody can be asked for leads nowhere.
    if (external && (!isName(external) || front.nameservers.length > 0)) externals.set(id, external);
  }
  const contents = new Map(
    routes.flatMap(({ content }) => (content ? [[`${content.namespace}/${content.name}`, content]] : [])),
  );
  const content =
    contents.size > 0
      ? contentSource([...contents.values()].flatMap(ref => wishes.resources.files(ref) ?? []))
      : undefined;
  const authorities = clientAuthorities(wishes.table, wishes.resources);
  const asking = askingList(authorities);
  const shown = backendCertificates(wishes.table, wishes.resources);
  const shut = new Set([...authorities.shut, ...shown.shut]);
  const certificates = new Map<string, CertificateEntry>();
  for (const host of new Set([...wishes.certificates.keys(), ...authorities.byHost.keys(), ...foreignHosts(wishes)])) {
    const of = authorities.byHost.get(host);
    certificates.set(`certificates/${host.replace('*', '_')}.pem`, {
      list: of !== undefined && asking ? asking : FILES.certificateList,
      filter: host,
      pem: wishes.certificates.get(host) ?? front.defaultCertificate,
      ...(of === undefined ? {} : { options: `ca-file ${authoritiesFile(of)} verify optional` }),
    });
  }
  return {
    routes: new Map(
      routes.map(route => [
        route.id,
        shapeOf(
          servedAs(route, shut),
          wishes.resources,
          externals.get(route.id),
          authorities.byRoute.get(route.id),
          shown.byRoute.get(route.id),
        ),
      ]),
    ),
    servers,
    certificates,
    certificateLists: [FILES.certificateList, ...(asking ? [asking] : [])],
    files: new Map([
      [FILES.defaultCertificate, front.defaultCertificate],
      [FILES.lua, LUA_SOURCE],
      ...shown.files,
      ...[...authorities.bundles].map(([name, pem]) => [authoritiesFile(name), pem] as const),
      ...(content === undefined ? [] : [[FILES.content, content] as const]),
    ]),
    sections: backendOf => [
      ...listeningSections({
        ...wishes.listening,
        ...front,
        usesLua: settings.some(each => each.basicAuth || each.externalAuth || each.mirror || each.errorStatuses),
        hasErrorPages: settings.some(({ errorStatuses }) => errorStatuses !== undefined),
        askingList: asking,
        contentVersion: content === undefined ? undefined : createHash('sha256').update(content).digest('hex'),
        resolves: [...externals.values()].some(isName),
        clientSeconds: seconds.reduce((a, b) => Math.max(a, b), CLIENT_SECONDS),
        canaries: routes.flatMap(route =>
          route.canaries.map(({ rule, route: to }) => ({ of: backendOf(route.id), to: backendOf(to), rule })),
        ),
      }),
      ...userSections(wishes),
    ],
    maps: backendOf => desiredMaps(wishes, backendOf).set(FILES.authorities, authoritiesMap(certificates, authorities)),
    orderedMaps: ORDERED,
  };
}

/** Hosts that a wildcard's certificate would be shown for, which another namespace has. */
function* foreignHosts({ table, certificates }: IngressWishes): Iterable<string> {
  for (const [host, namespace] of table.hosts) {
    const wildcard = host.replace(/^[^.]+/, '*');
    if (host !== wildcard && certificates.has(wildcard) && table.certificates.get(wildcard)?.namespace !== namespace)
      yield host;
  }
}

/** The file of names that ask for certificates: another one when it holds something else, since only a reload takes it. */
function askingList({ byHost }: ClientAuthorities): string | undefined {
  if (byHost.size === 0) return undefined;
  const text = JSON.stringify([...byHost].sort());
  return `asking-${createHash('sha256').update(text).digest('hex').slice(0, 32)}.list`;
}

/** Every name that has a certificate, as HAProxy chooses by it. */
function authoritiesMap(
  certificates: ReadonlyMap<string, CertificateEntry>,
  { byHost }: ClientAuthorities,
): Map<string, string> {
  if (byHost.size === 0) return new Map();
  return new Map([...certificates.values()].map(({ filter = '' }) => [filter, byHost.get(filter) ?? '-']));
}

function servedAs(route: Route, shut: ReadonlySet<string>): Route {
  return shut.has(route.id) ? { ...route, settings: { ...route.settings, isClosed: true } } : route;
}

const ORDERED = new Set([FILES.pattern]);

export function shapeOf(
  route: Route | undefined,
  resources: Resources,
  external?: External,
  authorities?: string,
  files?: BackendFiles,
): BackendShape {
  if (!route) return PLAIN_SHAPE;
  const words = serverWords(route.settings, files);
  const own = backendLines(route, resources, authorities);
  // HAProxy's command line makes no servers whose names are asked of DNS: it is part of the section.
  const isShut = route.settings.isClosed || !external;
  return shape(isShut ? own : [...own, externalServer(external, words)], words, cookieKey(route));
}

export function userSections({ users }: Pick<IngressWishes, 'users'>): Section[] {
  return [...users].map(([name, { crypt }]) => ({
    type: 'userlist',
    name,
    lines: [...crypt].map(([user, hash]) => ['user', user, 'password', hash]),
  }));
}

/** What the way from a request to its route needs. */
export function featuresOf(table: RouteTable): Feature[] {
  const { exact, prefixes, patterns, passthrough, defaultRoute, routes } = table;
  const keys = [...exact.keys(), ...prefixes.keys(), ...patterns.map(rule => `${rule.host}/`)];
  const uses: Record<Feature, boolean> = {
    passthrough: passthrough.size > 0,
    exact: exact.size > 0,
    patterns: patterns.length > 0,
    wildcards: keys.some(key => key.startsWith('*.')),
    anyHost: keys.some(key => key.startsWith('*/')),
    default: defaultRoute !== undefined,
    redirects: routes.values().some(route => route.redirectsToTls),
    fallbacks: routes.values().some(route => route.fallback !== undefined),
  };
  return (Object.keys(uses) as Feature[]).filter(feature => uses[feature]);
}

/** Contents of all maps; `backendOf` gives the backend of a route. */
export function desiredMaps(
  { table, users }: Pick<IngressWishes, 'table' | 'users'>,
  backendOf: (route: string) => string,
): Map<string, Map<string, string>> {
  const toBackends = (entries: Iterable<readonly [string, string]>) =>
    new Map([...entries].map(([key, route]) => [key, backendOf(route)]));
  const exact = toBackends(table.exact);
  if (table.defaultRoute !== undefined) exact.set(DEFAULT_KEY, backendOf(table.defaultRoute));
  const redirect = new Map<string, string>();
  const fallback = new Map<string, string>();
  const routes = new Map<string, string>();
  const canaries = new Map<string, string>();
  for (const route of table.routes.values()) {
    for (const { rule, route: to } of route.canaries) canaries.set(backendOf(to), String(rule.weight));
    const backend = backendOf(route.id);
    routes.set(backend, routeLabel(route));
    if (route.redirectsToTls) redirect.set(backend, '1');
    if (route.fallback !== undefined) fallback.set(backend, backendOf(route.fallback));
  }
  const passwords = new Map<string, string>();
  for (const [list, { htpasswd }] of users) for (const [user, hash] of htpasswd) passwords.set(`${list}/${user}`, hash);
  return new Map([
    [FILES.exact, exact],
    [FILES.prefix, toBackends(table.prefixes)],
    [FILES.pattern, new Map(table.patterns.map(rule => [patternKey(rule), backendOf(rule.route)]))],
    [FILES.passthrough, toBackends(table.passthrough)],
    [FILES.redirect, redirect],
    [FILES.fallback, fallback],
    [FILES.passwords, passwords],
    [FILES.authorities, new Map()],
    [FILES.routes, routes],
    [FILES.canaries, canaries],
  ]);
}

function patternKey({ host, pattern }: { readonly host: string; readonly pattern: string }): string {
  return `^${host.replace(/[.*]/g, '\\$&')}(?i:${pattern})`;
}

/** How a route is called in the access log and in metrics: `namespace/ingress service:port`. */
export function routeLabel({ ingress, service }: Route): string {
  return service ? `${ingress} ${service.name}:${service.port ?? ''}` : ingress;
}
