/**
 * From a route table to what HAProxy is to hold, purely: the shapes of backends, the contents of maps, lists of users. Names of
 * backends are not decided here, since any backend of the right shape will do.
 */

import type { Users } from '../credentials.ts';
import type { Listening } from '../ingress-class.ts';
import type { Route, RouteTable } from '../route-table.ts';
import { backendLines, cookieKey, type Resources, serverWords, userList } from './backend.ts';
import type { Line, Section } from './configuration.ts';
import { DEFAULT_KEY, type Feature, FILES } from './listening.ts';

export interface Desired {
  readonly table: RouteTable;
  readonly listening: Listening;
  readonly resources: Resources;
  /** Route id → `address:port` of each endpoint. */
  readonly servers: ReadonlyMap<string, readonly string[]>;
  /** Host → certificates and key. */
  readonly certificates: ReadonlyMap<string, string>;
  /** Name of the list → its users. */
  readonly users: ReadonlyMap<string, Users>;
}

export interface BackendShape {
  /** Equal for routes that may take each other's backend. */
  readonly key: string;
  readonly lines: readonly Line[];
  readonly serverWords: Line;
  readonly cookieKey: string | undefined;
}

const PLAIN: BackendShape = { key: '', lines: [], serverWords: [], cookieKey: undefined };

export function shapeOf(route: Route | undefined, resources: Resources): BackendShape {
  if (!route) return PLAIN;
  const lines = backendLines(route, resources);
  const words = serverWords(route.settings);
  if (lines.length === 0 && words.length === 0) return PLAIN;
  return { key: JSON.stringify([lines, words]), lines, serverWords: words, cookieKey: cookieKey(route) };
}

export function userSections({ users }: Desired): Section[] {
  return [...users].map(([name, { crypt }]) => ({
    type: 'userlist',
    name,
    lines: [...crypt].map(([user, hash]) => ['user', user, 'password', hash]),
  }));
}

/** What the way from a request to its route needs. */
export function featuresOf(table: RouteTable): Feature[] {
  const { exact, prefixes, patterns, defaultRoute, routes } = table;
  const keys = [...exact.keys(), ...prefixes.keys(), ...patterns.map(rule => `${rule.host}/`)];
  const uses: Record<Feature, boolean> = {
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
  { table, users }: Desired,
  backendOf: (route: string) => string,
): Map<string, Map<string, string>> {
  const toBackends = (entries: Iterable<readonly [string, string]>) =>
    new Map([...entries].map(([key, route]) => [key, backendOf(route)]));
  const exact = toBackends(table.exact);
  if (table.defaultRoute !== undefined) exact.set(DEFAULT_KEY, backendOf(table.defaultRoute));
  const redirect = new Map<string, string>();
  const fallback = new Map<string, string>();
  const routes = new Map<string, string>();
  for (const route of table.routes.values()) {
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
    [FILES.redirect, redirect],
    [FILES.fallback, fallback],
    [FILES.passwords, passwords],
    [FILES.routes, routes],
  ]);
}

function patternKey({ host, pattern }: { readonly host: string; readonly pattern: string }): string {
  return `^${host.replace(/[.*]/g, '\\$&')}(?i:${pattern})`;
}

/** How a route is called in the access log and in metrics: `namespace/ingress service:port`. */
export function routeLabel({ ingress, service }: Route): string {
  return service ? `${ingress} ${service.name}:${service.port ?? ''}` : ingress;
}

export { userList };
