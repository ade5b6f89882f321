/**
 * Ingresses to routes, purely: which host and path leads to which Service port under which settings, which Secret speaks for
 * which host, and what could not be honoured. Invariant: a host and path belongs to the oldest Ingress that asks for it, whatever
 * order they are handed in; a finding is about the Ingress that lost.
 */

import { keyOf } from '../api/meta.ts';
import type { HTTPIngressPath, Ingress, IngressBackend } from '../api/networking/v1.gen.ts';
import { checkPattern, path as pathValue, Refused } from './annotation-values.ts';
import { type ReadSettings, readAnnotations } from './annotations.ts';
import {
  ANY_HOST,
  contentOf,
  coversTls,
  hostKey,
  otherOfWww,
  routeId,
  ruleHosts,
  type ServiceRef,
  serviceOf,
  withoutSlash,
} from './ingress-rules.ts';
import { type CanaryRule, DEFAULT_SETTINGS, type SecretRef, type Settings } from './settings.ts';

export { ANY_HOST, type ServiceRef } from './ingress-rules.ts';

const NO_DEFAULTS = {};

export interface Route {
  /** Unique and stable: says Ingress, Service and port, and what else tells it from its siblings. */
  readonly id: string;
  /** `namespace/name`. */
  readonly ingress: string;
  /** Absent, and no content either: answers 503. */
  readonly service?: ServiceRef;
  /** A ConfigMap of files that is the backend itself. */
  readonly content?: SecretRef;
  readonly settings: Settings;
  /** Of connections, not requests. */
  readonly isStream?: true;
  readonly redirectsToTls: boolean;
  /** The path's expression, when the path is rewritten by it. */
  readonly rewritePattern?: string;
  readonly canaries: readonly { readonly rule: CanaryRule; readonly route: string }[];
  /** The route taken while this one has no endpoints. */
  readonly fallback?: string;
}

export interface PatternRule {
  readonly host: string;
  readonly pattern: string;
  readonly route: string;
}

export interface Finding {
  readonly ingress: string;
  readonly reason: string;
  readonly message: string;
}

export interface RouteTable {
  readonly routes: ReadonlyMap<string, Route>;
  /** `host/path` → route id; hosts in lower case, `*.example.com` for one label, `*` for any. */
  readonly exact: ReadonlyMap<string, string>;
  /** `host/path/` with a slash at the end → route id. */
  readonly prefixes: ReadonlyMap<string, string>;
  /** Longest first. */
  readonly patterns: readonly PatternRule[];
  /** Host → the route of its connections with TLS, which are not decrypted. */
  readonly passthrough: ReadonlyMap<string, string>;
  /** For what nothing matches. */
  readonly defaultRoute?: string;
  /** Host → the namespace that had it first. */
  readonly hosts: ReadonlyMap<string, string>;
  /** Host → the Secret whose certificate it shows. */
  readonly certificates: ReadonlyMap<string, SecretRef & { readonly ingress: string }>;
  readonly findings: readonly Finding[];
}

export interface ClassedIngress {
  readonly ingress: Ingress;
  readonly defaults?: Readonly<Record<string, string>>;
  readonly ownsHostsByNamespace?: boolean;
}

/** Objects are frozen, so what an Ingress's annotations say is read once for each version of it. */
const read = new WeakMap<Ingress, { defaults: object; result: ReadSettings }>();

function settingsOf({ ingress, defaults = NO_DEFAULTS }: ClassedIngress): ReadSettings {
  const known = read.get(ingress);
  if (known?.defaults === defaults) return known.result;
  const result = readAnnotations(ingress, defaults);
  read.set(ingress, { defaults, result });
  return result;
}

export function buildRouteTable(ingresses: readonly ClassedIngress[]): RouteTable {
  const byAge = [...ingresses].sort((a, b) => compareAge(a.ingress, b.ingress));
  const builder = new Builder();
  const isCanary = (classed: ClassedIngress) => settingsOf(classed).settings.canary !== undefined;
  for (const classed of byAge) builder.noteAnnotations(classed);
  for (const classed of byAge) if (isCanary(classed)) builder.addCanary(classed);
  for (const classed of byAge)
    if (!isCanary(classed)) {
      builder.addRules(classed);
      builder.addAliases(classed);
    }
  for (const classed of byAge) if (!isCanary(classed)) builder.addPassthrough(classed);
  for (const classed of byAge) if (!isCanary(classed)) builder.addWww(classed);
  for (const classed of byAge) if (!isCanary(classed)) builder.addCertificates(classed);
  return builder.finish();
}

function compareAge(a: Ingress, b: Ingress): number {
  const [from, to] = [a.metadata.creationTimestamp ?? '', b.metadata.creationTimestamp ?? ''];
  if (from !== to) return from < to ? -1 : 1;
  return keyOf(a) < keyOf(b) ? -1 : 1;
}

interface Claim {
  readonly type: 'exact' | 'prefix' | 'pattern';
  readonly host: string;
  readonly path: string;
}

class Builder {
  readonly #routes = new Map<string, Route>();
  readonly #exact = new Map<string, string>();
  readonly #prefixes = new Map<string, string>();
  readonly #patterns: PatternRule[] = [];
  readonly #certificates = new Map<string, SecretRef & { ingress: string; hasRule: boolean }>();
  readonly #passthrough = new Map<string, string>();
  readonly #findings: Finding[] = [];
  /** Host → who had it first; host and path → whose it is. */
  readonly #hosts = new Map<string, Ingress>();
  readonly #paths = new Map<string, Ingress>();
  readonly #canaries = new Map<string, { rule: CanaryRule; backend: ServiceRef; ingress: Ingress; used: boolean }[]>();
  #default: string | undefined;

  noteAnnotations(classed: ClassedIngress): void {
    for (const { annotation, value, rule, closes } of settingsOf(classed).findings)
      this.#find(
        classed.ingress,
        'AnnotationRefused',
        `${annotation}: ${JSON.stringify(value)}: ${rule}${closes ? '; nothing is let through until it is mended' : ''}`,
      );
  }

  addCanary({ ingress, ...rest }: ClassedIngress): void {
    const rule = settingsOf({ ingress, ...rest }).settings.canary!;
    for (const { host = '', http } of ingress.spec?.rules ?? [])
      for (const item of http?.paths ?? []) {
        const backend = serviceOf(ingress, item.backend);
        const key = `${hostKey(host)} ${withoutSlash(item.path || '/')}`;
        if (!backend) continue;
        const list = this.#canaries.get(key) ?? [];
        list.push({ rule, backend, ingress, used: false });
        this.#canaries.set(key, list);
      }
  }

  addRules(classed: ClassedIngress): void {
    const { ingress } = classed;
    const { rules = [], defaultBackend } = ingress.spec ?? {};
    for (const { host = '', http } of rules)
      for (const item of http?.paths ?? []) this.#addPath(classed, hostKey(host), item);
    if (!defaultBackend) return;
    if (rules.length > 0) {
      const anything = { path: '/', pathType: 'Prefix', backend: defaultBackend };
      for (const host of new Set(rules.map(rule => hostKey(rule.host ?? ''))))
        if (!this.#prefixes.has(`${host}/`)) this.#addPath(classed, host, anything);
    } else if (this.#default === undefined) this.#default = this.#route(classed, ANY_HOST, '/', defaultBackend);
    else
      this.#find(
        ingress,
        'HostPathTaken',
        `the default backend is that of ${this.#routes.get(this.#default)!.ingress}`,
      );
  }

  /** A whole host, for who had it first: there is no path to be seen. */
  addPassthrough(classed: ClassedIngress): void {
    const { ingress } = classed;
    const { settings } = settingsOf(classed);
    if (!settings.passesTls) return;
    for (const { host: given = '', http } of ingress.spec?.rules ?? []) {
      const host = hostKey(given);
      const backend = http?.paths.find(({ path = '/' }) => path === '/')?.backend;
      const service = backend && serviceOf(ingress, backend);
      const owner = this.#hosts.get(host);
      const refuse = (why: string) => this.#find(ingress, 'PassthroughRefused', `${host}: ${why}`);
      if (host === ANY_HOST) refuse('TLS is passed through by the name of a host');
      else if (!service) refuse('TLS is passed through to the Service of the path /, which it does not have');
      else if (owner && owner !== ingress) refuse(`the host belongs to the older Ingress ${keyOf(owner)}`);
      else {
        const id = routeId(ingress, service, ['tls as it is']);
        const { isClosed } = settings;
        this.#put({
          id,
          ingress: keyOf(ingress),
          service,
          isStream: true,
          settings: { ...DEFAULT_SETTINGS, isClosed },
          redirectsToTls: false,
          canaries: [],
        });
        this.#passthrough.set(host, id);
      }
    }
  }

  addAliases(classed: ClassedIngress): void {
    for (const alias of settingsOf(classed).settings.aliases) {
      const taken = this.#hosts.get(alias);
      if (taken && taken !== classed.ingress) {
        this.#find(classed.ingress, 'HostPathTaken', `the alias ${alias} is a host of ${keyOf(taken)}`);
        continue;
      }
      for (const { http } of classed.ingress.spec?.rules ?? [])
        for (const item of http?.paths ?? []) this.#addPath(classed, alias, item, { isAlias: true });
    }
  }

  /** Last of all that take hosts: whoever has the other name keeps it. */
  addWww(classed: ClassedIngress): void {
    const { ingress } = classed;
    const { redirectsWww, isLogged } = settingsOf(classed).settings;
    if (!redirectsWww) return;
    for (const host of ruleHosts(ingress)) {
      const other = otherOfWww(host);
      if (other === undefined || this.#hosts.get(host) !== ingress) continue;
      if (this.#hosts.has(other) || !this.#take(classed, { type: 'prefix', host: other, path: '' }, {})) continue;
      const scheme = coversTls(ingress, host) ? 'https' : ({ variable: 'scheme' } as const);
      const id = routeId(ingress, undefined, [`to ${host}`]);
      this.#put({
        id,
        ingress: keyOf(ingress),
        settings: {
          ...DEFAULT_SETTINGS,
          isLogged,
          redirect: { to: [scheme, `://${host}`, { variable: 'uri' }], status: 308 },
        },
        redirectsToTls: false,
        canaries: [],
      });
      this.#prefixes.set(`${other}/`, id);
    }
  }

  addCertificates(classed: ClassedIngress): void {
    const { ingress } = classed;
    const { redirectsWww } = settingsOf(classed).settings;
    const hosts = ruleHosts(ingress);
    for (const { hosts: named, secretName } of ingress.spec?.tls ?? []) {
      if (!secretName) continue;
      const shown = named?.length ? named : hosts;
      const www = redirectsWww ? shown.map(otherOfWww).filter(host => host !== undefined) : [];
      for (const host of [...shown, ...www]) {
        if (host === ANY_HOST) continue;
        const key = host.toLowerCase();
        const owner = this.#hosts.get(key);
        const hasRule = hosts.includes(key) && owner !== undefined;
        if (!hasRule && owner && owner.metadata.namespace !== ingress.metadata.namespace) {
          this.#find(ingress, 'HostTaken', `the host ${key} is that of Ingress ${keyOf(owner)}, of another namespace`);
          continue;
        }
        const known = this.#certificates.get(key);
        if (known && (known.hasRule || !hasRule)) {
          if (known.namespace !== ingress.metadata.namespace || known.name !== secretName)
            this.#find(ingress, 'HostTaken', `the certificate of ${key} is that of Ingress ${known.ingress}`);
          continue;
        }
        const namespace = ingress.metadata.namespace ?? '';
        this.#certificates.set(key, { namespace, name: secretName, ingress: keyOf(ingress), hasRule });
      }
    }
  }

  finish(): RouteTable {
    for (const list of this.#canaries.values())
      for (const { ingress, used } of list)
        if (!used) this.#find(ingress, 'CanaryWithoutMain', 'no other Ingress has the host and path of this canary');
    this.#patterns.sort((a, b) => b.pattern.length - a.pattern.length);
    return {
      routes: this.#routes,
      exact: this.#exact,
      prefixes: this.#prefixes,
      patterns: this.#patterns,
      passthrough: this.#passthrough,
      ...(this.#default === undefined ? {} : { defaultRoute: this.#default }),
      hosts: new Map([...this.#hosts].map(([host, { metadata }]) => [host, metadata.namespace ?? ''])),
      certificates: this.#certificates,
      findings: this.#findings,
    };
  }

  #addPath(classed: ClassedIngress, host: string, item: HTTPIngressPath, options: { isAlias?: true } = {}): void {
    const { ingress } = classed;
    const { settings } = settingsOf(classed);
    const text = item.path || '/';
    const claim = this.#claimOf(ingress, settings, host, item.pathType, text);
    if (!claim || !this.#take(classed, claim, options)) return;
    const pattern = settings.usesRegex && claim.type !== 'exact' ? text : undefined;
    const route = this.#route(classed, host, text, item.backend, pattern);
    if (claim.type === 'exact') this.#exact.set(host + text, route);
    else if (claim.type === 'prefix') this.#prefixes.set(`${host}${claim.path}/`, route);
    else this.#patterns.push({ host, pattern: text, route });
  }

  #claimOf(ingress: Ingress, settings: Settings, host: string, type: string, text: string): Claim | undefined {
    try {
      if (type !== 'Exact' && settings.usesRegex && /[\\[\](){}+*?^$|]/.test(text)) {
        checkPattern(text);
        return { type: 'pattern', host, path: text };
      }
      pathValue(text);
      return type === 'Exact'
        ? { type: 'exact', host, path: text }
        : { type: 'prefix', host, path: withoutSlash(text) };
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#find(ingress, 'PathRefused', `${host}${text.slice(0, 200)}: ${error.message}`);
      return undefined;
    }
  }

  /** True when the host and path is this Ingress's from now on. */
  #take(classed: ClassedIngress, { type, host, path }: Claim, { isAlias }: { isAlias?: true }): boolean {
    const { ingress, ownsHostsByNamespace } = classed;
    const refuse = (owner: Ingress, why = '') => {
      if (!isAlias)
        this.#find(
          ingress,
          'HostPathTaken',
          `${host}${path || '/'} belongs to the older Ingress ${keyOf(owner)}${why}`,
        );
      return false;
    };
    const first = this.#hosts.get(host);
    const isForeign = first !== undefined && first.metadata.namespace !== ingress.metadata.namespace;
    if (isForeign && (ownsHostsByNamespace || type === 'pattern'))
      return refuse(
        first,
        type === 'pattern'
          ? ' of another namespace, so no expression may be matched against it'
          : ', and a host belongs to one namespace',
      );
    const place = `${host} ${withoutSlash(path)}`;
    const owner = this.#paths.get(place);
    if (owner && owner.metadata.namespace !== ingress.metadata.namespace) return refuse(owner);
    const sameType = this.#paths.get(`${type} ${host} ${path}`);
    if (sameType) return refuse(sameType);
    if (!first) this.#hosts.set(host, ingress);
    if (!owner) this.#paths.set(place, ingress);
    this.#paths.set(`${type} ${host} ${path}`, ingress);
    return true;
  }

  #route(classed: ClassedIngress, host: string, path: string, backend: IngressBackend, pattern?: string): string {
    const { ingress } = classed;
    const { settings } = settingsOf(classed);
    const found = serviceOf(ingress, backend);
    const service = found && settings.usesClusterIp ? { ...found, usesClusterIp: true as const } : found;
    const content = contentOf(ingress, backend);
    if (!service && !content)
      this.#find(
        ingress,
        'ResourceBackend',
        `${host}${path}: a resource backend is a ConfigMap of files, not ${backend.resource?.apiGroup ?? ''}/${backend.resource?.kind} ${backend.resource?.name}; requests get 503`,
      );
    const redirectsToTls =
      settings.tlsRedirect === 'always' || (settings.tlsRedirect === 'withTls' && coversTls(ingress, host));
    const rewritePattern = pattern !== undefined && settings.rewriteTarget !== undefined ? pattern : undefined;
    const canaries = (this.#canaries.get(`${host} ${withoutSlash(path)}`) ?? [])
      .filter(canary => canary.ingress.metadata.namespace === ingress.metadata.namespace)
      .map(canary => {
        canary.used = true;
        const id = routeId(canary.ingress, canary.backend, [`of ${ingress.metadata.name}`, rewritePattern]);
        this.#put({
          id,
          ingress: keyOf(canary.ingress),
          service: canary.backend,
          settings,
          redirectsToTls,
          canaries: [],
          ...(rewritePattern === undefined ? {} : { rewritePattern }),
        });
        return { rule: canary.rule, route: id };
      });
    const fallback =
      settings.defaultBackend === undefined ? undefined : this.#fallback(ingress, settings.defaultBackend);
    const id = routeId(ingress, service, [
      content && `files ${content.name}`,
      redirectsToTls ? 'tls' : undefined,
      rewritePattern,
      canaries.length > 0 ? `${host}${path}` : undefined,
    ]);
    this.#put({
      id,
      ingress: keyOf(ingress),
      ...(service ? { service } : {}),
      ...(content ? { content } : {}),
      settings,
      redirectsToTls,
      ...(rewritePattern === undefined ? {} : { rewritePattern }),
      canaries,
      ...(fallback === undefined ? {} : { fallback }),
    });
    return id;
  }

  #fallback(ingress: Ingress, name: string): string {
    const service = { namespace: ingress.metadata.namespace ?? '', name };
    const id = routeId(ingress, service, ['fallback']);
    this.#put({
      id,
      ingress: keyOf(ingress),
      service,
      settings: DEFAULT_SETTINGS,
      redirectsToTls: false,
      canaries: [],
    });
    return id;
  }

  #put(route: Route): void {
    if (!this.#routes.has(route.id)) this.#routes.set(route.id, route);
  }

  #find(ingress: Ingress, reason: string, message: string): void {
    this.#findings.push({ ingress: keyOf(ingress), reason, message });
  }
}

/** The route that a request takes, by the same precedence as the data plane: for explanations and tests. */
export function matchRoute(table: RouteTable, host: string, path: string): string | undefined {
  const name = host.toLowerCase();
  for (const candidate of [name, name.replace(/^[^.]+/, '*'), ANY_HOST]) {
    const exact = table.exact.get(candidate + path);
    if (exact !== undefined) return exact;
    const pattern = table.patterns.find(
      rule => rule.host === candidate && new RegExp(`^(?:${rule.pattern})`, 'i').test(path),
    );
    if (pattern) return pattern.route;
    for (let end = path.length; end >= 0; end = path.lastIndexOf('/', end - 1)) {
      const prefix = table.prefixes.get(`${candidate}${withoutSlash(path.slice(0, end))}/`);
      if (prefix !== undefined) return prefix;
      if (end === 0) break;
    }
  }
  return table.defaultRoute;
}
