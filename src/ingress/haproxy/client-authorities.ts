/**
 * Which server names ask clients for certificates, and of which authorities: by what routes lead from them. Invariant: a route is served only
 * where every name that leads to it asks for certificates of its own authorities; names that two routes want differently are the first's.
 */

import { createHash } from 'node:crypto';
import { readAuthorities } from '../credentials.ts';
import { ANY_HOST, type RouteTable } from '../route-table.ts';
import type { Resources } from './backend.ts';

export interface ClientAuthorities {
  /** Host → name of its authorities. */
  readonly byHost: ReadonlyMap<string, string>;
  /** Route → name of the authorities that its clients' certificates are of. */
  readonly byRoute: ReadonlyMap<string, string>;
  /** Routes that cannot be served as they are to be. */
  readonly shut: ReadonlySet<string>;
  /** Name → certificates. */
  readonly bundles: ReadonlyMap<string, string>;
}

export const authoritiesFile = (name: string): string => `certificates/ca-${name}.pem`;

export function clientAuthorities(table: RouteTable, resources: Resources): ClientAuthorities {
  const byHost = new Map<string, string>();
  const byRoute = new Map<string, string>();
  const shut = new Set<string>();
  const bundles = new Map<string, string>();
  for (const [id, { settings }] of table.routes) {
    if (!settings.clientAuth) continue;
    const bundle = readAuthorities(resources.secret(settings.clientAuth.secret)?.['ca.crt']);
    if (bundle === undefined) {
      shut.add(id);
      continue;
    }
    const name = createHash('sha256').update(bundle).digest('hex').slice(0, 32);
    byRoute.set(id, name);
    bundles.set(name, bundle);
  }
  if (byRoute.size === 0) return { byHost, byRoute, shut, bundles };
  for (const [host, id] of ways(table)) {
    const name = byRoute.get(id);
    if (name === undefined) continue;
    if (host === ANY_HOST || (byHost.get(host) ?? name) !== name) shut.add(id);
    else byHost.set(host, name);
  }
  return { byHost, byRoute, shut, bundles };
}

function* ways({ exact, prefixes, patterns, defaultRoute }: RouteTable): Iterable<readonly [string, string]> {
  for (const [key, id] of [...exact, ...prefixes]) yield [key.slice(0, key.indexOf('/')), id];
  for (const { host, route } of patterns) yield [host, route];
  if (defaultRoute !== undefined) yield [ANY_HOST, defaultRoute];
}
