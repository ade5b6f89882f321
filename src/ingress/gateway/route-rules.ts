/**
 * Rules of routes in the terms of a proxy: what a request must be like, what is done with it, and which backends share it by which
 * weights. What cannot be honoured makes the rule answer 500 (or 503 to gRPC) rather than be left out, unless it is its match that
 * is not understood. Texts that come out are checked: no control characters, names of headers are words, expressions are safe.
 */

import type {
  BackendRef,
  GRPCRouteMatch,
  GRPCRouteRule,
  HTTPRouteMatch,
  HTTPRouteRule,
  PathModifier,
  RequestRedirect,
  Route,
  RouteFilter,
  ValueMatch,
} from '../../api/gateway/v1.ts';
import { keyOf } from '../../api/meta.ts';
import { checkPattern, Refused } from '../annotation-values.ts';
import { origin } from '../annotations.ts';
import type { ServiceRef } from '../route-table.ts';
import type { Cors } from '../settings.ts';
import { isProblem, type Problem, type RouteKind } from './gateway-objects.ts';
import type { References, Upstream } from './references.ts';

/** One thing that a request must be. Patterns match the whole value. */
export type Test =
  | { readonly on: 'method'; readonly is: string }
  | { readonly on: 'path'; readonly pattern: string }
  | { readonly on: 'header' | 'query'; readonly name: string; readonly is: string }
  | { readonly on: 'header' | 'query'; readonly name: string; readonly pattern: string };

export interface Match {
  readonly path: { readonly type: 'exact' | 'prefix' | 'pattern'; readonly value: string };
  readonly tests: readonly Test[];
}

export type Step =
  | {
      readonly do: 'requestHeaders' | 'responseHeaders';
      readonly set: readonly Header[];
      readonly add: readonly Header[];
      readonly remove: readonly string[];
    }
  | { readonly do: 'rewrite'; readonly hostname?: string; readonly path?: NewPath }
  | {
      readonly do: 'redirect';
      readonly scheme: 'http' | 'https';
      readonly hostname?: string;
      readonly port?: number;
      readonly path?: NewPath;
      readonly status: number;
    }
  | { readonly do: 'mirror'; readonly to: Backend; readonly share?: { readonly of: number; readonly total: number } }
  | { readonly do: 'cors'; readonly cors: Cors };

export interface Header {
  readonly name: string;
  readonly value: string;
}
export type NewPath = { readonly full: string } | { readonly prefix: string; readonly instead: string };

/** Where requests of one rule go, and what happens to them on the way. */
export interface Backend {
  /** Unique and stable: says all that there is to it. */
  readonly id: string;
  readonly kind: RouteKind;
  /** `namespace/name` of the route. */
  readonly route: string;
  readonly mode: 'http' | 'tcp';
  readonly service?: ServiceRef;
  readonly upstream: Upstream;
  /** Answers this instead of asking anybody. */
  readonly answer?: number;
  readonly steps: readonly Step[];
  /** For one try: without a byte from the backend. */
  readonly serverMs?: number;
  /** For all of it, from the head of the request to the end of the response. */
  readonly deadlineMs?: number;
  readonly retry?: { readonly attempts: number; readonly codes: readonly number[] };
}

type Bounds = Pick<Backend, 'serverMs' | 'deadlineMs' | 'retry'>;

export interface Choice {
  readonly backend: Backend;
  /** One of them at least is more than 0. */
  readonly weight: number;
}

export interface ReadRule {
  readonly matches: readonly Match[];
  readonly choices: readonly Choice[];
}

/** What is read of a route for one listener. */
export interface ReadRoute {
  readonly rules: readonly ReadRule[];
  /** What cannot be honoured, by rule. */
  readonly unsupported: readonly string[];
  readonly unresolved: readonly Problem[];
  readonly isAllUnsupported: boolean;
  /** Why rules are not supported, in the API's terms. */
  readonly reason: 'UnsupportedValue' | 'IncompatibleFilters';
}

/** Filters that contradict each other. */
class Incompatible extends Refused {}

/** The listener that a route is read for. */
export interface Place {
  readonly port: number;
  readonly scheme: 'http' | 'https';
  /** What comes is encrypted already, from end to end. */
  readonly isPassedThrough: boolean;
  /** File of what the Gateway shows to backends that are spoken to by TLS. */
  readonly certificate?: string | undefined;
}

const RETRY_CODES = new Set([401, 403, 404, 408, 425, 500, 501, 502, 503, 504]);
const ATTEMPTS_MAX = 20;
/** These say where a message ends. */
const FRAMING = new Set(['connection', 'content-length', 'transfer-encoding', 'upgrade', 'host']);
const HEADER_NAME = /^[A-Za-z0-9_.-]{1,256}$/;
const PRINTABLE = /^[\x20-\x7e]{1,4096}$/;
const PATH = /^[\x21-\x7e]{0,1024}$/;
const NEW_PATH = /^[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,1024}$/;
/** As long as it takes: HAProxy's own longest time is 24 days. */
const NO_LIMIT_MS = 2_000_000_000;
const HTTP_UPSTREAM: Upstream = { protocol: 'http' };

export class RouteReader {
  readonly #kind: RouteKind;
  readonly #route: Route;
  readonly #references: References;
  readonly #gateways: ReadonlySet<string>;
  readonly #unresolved: Problem[] = [];

  constructor(kind: RouteKind, route: Route, references: References, gateways: ReadonlySet<string>) {
    this.#kind = kind;
    this.#route = route;
    this.#references = references;
    this.#gateways = gateways;
  }

  read(place: Place): ReadRoute {
    this.#unresolved.length = 0;
    const unsupported: string[] = [];
    let reason: ReadRoute['reason'] = 'UnsupportedValue';
    const rules: ReadRule[] = [];
    const all = (this.#route.spec.rules ?? []) as readonly (HTTPRouteRule & GRPCRouteRule)[];
    for (const [at, rule] of all.entries()) {
      const wrong = (refused: Refused) => {
        unsupported.push(`rule ${rule.name ?? at + 1}: ${refused.message}`);
        if (refused instanceof Incompatible) reason = 'IncompatibleFilters';
      };
      const matches = attempt(() => this.#matches(rule), wrong);
      if (!matches) continue;
      const choices = attempt(() => this.#choices(rule, place), wrong);
      rules.push({ matches, choices: choices ?? [{ backend: this.#refusal(), weight: 1 }] });
    }
    return {
      rules,
      unsupported,
      unresolved: [...new Map(this.#unresolved.map(each => [each.message, each])).values()],
      isAllUnsupported: all.length > 0 && unsupported.length === all.length,
      reason,
    };
  }

  #matches(rule: HTTPRouteRule & GRPCRouteRule): Match[] {
    if (this.#kind === 'HTTPRoute')
      return ((rule.matches as readonly HTTPRouteMatch[] | undefined) ?? [{}]).map(httpMatch);
    if (this.#kind === 'GRPCRoute') {
      const matches = rule.matches as readonly GRPCRouteMatch[] | undefined;
      return (matches?.length ? matches : [{}]).map(grpcMatch);
    }
    return [{ path: { type: 'prefix', value: '' }, tests: [] }];
  }

  #choices(rule: HTTPRouteRule, place: Place): Choice[] {
    const prefix = (rule.matches as readonly HTTPRouteMatch[] | undefined)?.[0]?.path?.value ?? '/';
    const steps = this.#steps(rule.filters ?? [], prefix, place);
    const more = this.#limits(rule);
    const refs = rule.backendRefs ?? [];
    if (steps.some(step => step.do === 'redirect') || refs.every(({ weight }) => weight === 0)) {
      const redirects = steps.some(step => step.do === 'redirect');
      const backend = this.#backend({ steps, upstream: HTTP_UPSTREAM, ...(redirects ? {} : { answer: this.#status }) });
      return [{ backend, weight: 1 }];
    }
    return refs.map(ref => ({ weight: ref.weight ?? 1, backend: this.#target(ref, steps, prefix, place, more) }));
  }

  #target(ref: BackendRef, steps: readonly Step[], prefix: string, place: Place, more: Bounds): Backend {
    const found = this.#resolve(ref, place);
    if (!found) return this.#refusal();
    const resolved = place.isPassedThrough ? { service: found.service, upstream: HTTP_UPSTREAM } : found;
    const all = [...steps, ...this.#steps(ref.filters ?? [], prefix, place)];
    if (all.some(step => step.do === 'rewrite') && all.some(step => step.do === 'redirect'))
      throw new Incompatible(`backend ${ref.name}: a request cannot be both rewritten and redirected`);
    return this.#backend({ ...resolved, steps: all, ...more });
  }

  #resolve(
    ref: BackendRef,
    { certificate }: Place,
  ): { readonly service: ServiceRef; readonly upstream: Upstream } | undefined {
    const { namespace = '' } = this.#route.metadata;
    const resolved = this.#references.backend({ kind: this.#kind, namespace }, ref, this.#gateways);
    if (isProblem(resolved)) {
      this.#unresolved.push(resolved);
      return undefined;
    }
    const { service, upstream } = resolved;
    if (!upstream.tls || certificate === undefined) return resolved;
    return { service, upstream: { ...upstream, tls: { ...upstream.tls, certificate } } };
  }

  /** gRPC knows no status 500, but that a server is not available. */
  get #status(): number {
    return this.#kind === 'GRPCRoute' ? 503 : 500;
  }
  #refusal(): Backend {
    return this.#backend({ steps: [], upstream: HTTP_UPSTREAM, answer: this.#status });
  }
  #backend(what: Omit<Backend, 'id' | 'kind' | 'route' | 'mode'>): Backend {
    const mode = this.#kind === 'HTTPRoute' || this.#kind === 'GRPCRoute' ? 'http' : 'tcp';
    const rest = { kind: this.#kind, route: keyOf(this.#route), mode, ...what } as const;
    return { id: JSON.stringify(rest), ...rest };
  }

  #limits({ timeouts, retry }: HTTPRouteRule): Bounds {
    const given = [timeouts?.request, timeouts?.backendRequest].filter(text => text !== undefined).map(milliseconds);
    const bounded = given.filter(ms => ms > 0);
    // With one try the time for a try is that for all of it.
    const whole = retry ? [milliseconds(timeouts?.request ?? '')].filter(ms => ms > 0) : bounded;
    if (retry?.backoff !== undefined) throw new Refused('retry.backoff: retries are made at once');
    const codes = retry?.codes ?? [];
    const odd = codes.find(code => !RETRY_CODES.has(code));
    if (odd !== undefined)
      throw new Refused(`retry.codes: ${odd} cannot be retried, only ${[...RETRY_CODES].join(', ')}`);
    return {
      ...(given.length > 0 ? { serverMs: bounded.length > 0 ? Math.min(...bounded) : NO_LIMIT_MS } : {}),
      ...(whole.length > 0 ? { deadlineMs: Math.min(...whole) } : {}),
      ...(retry ? { retry: { attempts: Math.max(0, Math.min(retry.attempts ?? 1, ATTEMPTS_MAX)), codes } } : {}),
    };
  }

  #steps(filters: readonly RouteFilter[], prefix: string, place: Place): Step[] {
    const steps: Step[] = [];
    for (const filter of filters) {
      const { requestHeaderModifier, responseHeaderModifier, requestRedirect, urlRewrite, requestMirror, cors } =
        filter;
      if (requestHeaderModifier) steps.push({ do: 'requestHeaders', ...headers(requestHeaderModifier) });
      else if (responseHeaderModifier) steps.push({ do: 'responseHeaders', ...headers(responseHeaderModifier) });
      else if (requestRedirect) steps.push(redirect(requestRedirect, prefix, place));
      else if (urlRewrite) {
        const { hostname, path } = urlRewrite;
        steps.push({
          do: 'rewrite',
          ...(hostname ? { hostname } : {}),
          ...(path ? { path: newPath(path, prefix) } : {}),
        });
      } else if (requestMirror) {
        const { percent, fraction, backendRef } = requestMirror;
        const resolved = this.#resolve(backendRef, place);
        if (!resolved) continue;
        const of = percent ?? fraction?.numerator ?? 1;
        const total = percent === undefined ? (fraction?.denominator ?? (fraction ? 100 : 1)) : 100;
        if (of === 0) continue;
        const to = this.#backend({ ...resolved, steps: [] });
        steps.push({ do: 'mirror', to, ...(of < total ? { share: { of, total } } : {}) });
      } else if (cors) steps.push({ do: 'cors', cors: readCors(cors) });
      else throw new Refused(`the filter ${filter.type} is not supported`);
    }
    return steps;
  }
}

function attempt<T>(read: () => T, wrong: (refused: Refused) => void): T | undefined {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    wrong(error);
    return undefined;
  }
}

/** By the precedence of HTTPRoutes: a method, more headers, more parameters. Negative: `a` first. */
export function compareMatches(a: Match, b: Match): number {
  const count = (match: Match, on: Test['on']) => match.tests.filter(test => test.on === on).length;
  for (const on of ['method', 'header', 'query'] as const) {
    const difference = count(b, on) - count(a, on);
    if (difference !== 0) return difference;
  }
  return 0;
}

function httpMatch({ path, headers: wanted = [], queryParams = [], method }: HTTPRouteMatch): Match {
  const { type = 'PathPrefix', value = '/' } = path ?? {};
  return matchOf(pathOf(type, value), [
    ...(method === undefined ? [] : [{ on: 'method', is: method } as const]),
    ...firstOfName(wanted, name => name.toLowerCase()).map(each => valueTest('header', each)),
    ...firstOfName(queryParams, name => name).map(each => valueTest('query', each)),
  ]);
}

function grpcMatch({ method, headers: wanted = [] }: GRPCRouteMatch): Match {
  const tests = firstOfName(wanted, name => name.toLowerCase()).map(each => valueTest('header', each));
  const { type = 'Exact', service, method: name } = method ?? {};
  if (!service && !name) return matchOf(pathOf('PathPrefix', '/'), tests);
  if (type === 'Exact' && service)
    return matchOf(name ? pathOf('Exact', `/${service}/${name}`) : pathOf('PathPrefix', `/${service}`), tests);
  const part = (text: string | undefined) => (text ? (type === 'Exact' ? escaped(text) : `(?:${text})`) : '[^/]+');
  return matchOf(pathOf('RegularExpression', `/${part(service)}/${part(name)}`), tests);
}

function pathOf(type: NonNullable<HTTPRouteMatch['path']>['type'], value: string): Match['path'] {
  if (type === 'RegularExpression') {
    checkPattern(value);
    return { type: 'pattern', value };
  }
  if (!PATH.test(value)) throw new Refused('a path is of visible ASCII characters');
  return type === 'Exact' ? { type: 'exact', value } : { type: 'prefix', value: value.replace(/\/+$/, '') };
}

function matchOf(path: Match['path'], tests: readonly Test[]): Match {
  return { path, tests: path.type === 'pattern' ? [{ on: 'path', pattern: path.value }, ...tests] : tests };
}

function firstOfName(list: readonly ValueMatch[], nameOf: (name: string) => string): ValueMatch[] {
  const seen = new Set<string>();
  return list.filter(({ name }) => !seen.has(nameOf(name)) && seen.add(nameOf(name)));
}

function valueTest(on: 'header' | 'query', { type = 'Exact', name, value }: ValueMatch): Test {
  if (!HEADER_NAME.test(name))
    throw new Refused(`the name ${name.slice(0, 64)} has other characters than letters, digits, "-", "_", "."`);
  if (type === 'RegularExpression') {
    checkPattern(value);
    return { on, name, pattern: value };
  }
  if (!PRINTABLE.test(value)) throw new Refused(`the value of ${name} is not of printable ASCII characters`);
  return { on, name, is: value };
}

function headers(modifier: NonNullable<RouteFilter['requestHeaderModifier']>) {
  const check = ({ name, value }: Header): Header => {
    checkName(name);
    if (!PRINTABLE.test(value)) throw new Refused(`the value of ${name} is not of printable ASCII characters`);
    return { name, value };
  };
  const { set = [], add = [], remove = [] } = modifier;
  for (const name of remove) checkName(name);
  return { set: set.map(check), add: add.map(check), remove };
}

function checkName(name: string): void {
  if (!HEADER_NAME.test(name))
    throw new Refused(`the header ${name.slice(0, 64)} has other characters than letters, digits, "-", "_", "."`);
  if (FRAMING.has(name.toLowerCase())) throw new Refused(`the header ${name} is not a filter's to change`);
}

function redirect(
  { scheme, hostname, path, port, statusCode = 302 }: RequestRedirect,
  prefix: string,
  place: Place,
): Step {
  const to = scheme ?? place.scheme;
  const known = to === 'http' ? 80 : 443;
  const wanted = port ?? (scheme ? known : place.port);
  return {
    do: 'redirect',
    scheme: to,
    ...(hostname ? { hostname } : {}),
    ...(wanted === known ? {} : { port: wanted }),
    ...(path ? { path: newPath(path, prefix) } : {}),
    status: statusCode,
  };
}

function newPath(path: PathModifier, prefix: string): NewPath {
  const text = path.type === 'ReplaceFullPath' ? path.replaceFullPath : path.replacePrefixMatch;
  if (!NEW_PATH.test(text)) throw new Refused('a new path has the characters of a path, without a query');
  const absolute = text.startsWith('/') || text === '' ? text : `/${text}`;
  return path.type === 'ReplaceFullPath'
    ? { full: absolute || '/' }
    : { prefix: prefix.replace(/\/+$/, ''), instead: absolute.replace(/\/+$/, '') };
}

function readCors(cors: NonNullable<RouteFilter['cors']>): Cors {
  const { allowOrigins = [], allowMethods = [], allowHeaders = [], exposeHeaders = [], maxAge = 5 } = cors;
  const credentials = cors.allowCredentials ?? false;
  const names = [...allowHeaders, ...exposeHeaders];
  if (credentials && names.includes('*')) throw new Refused('cors: "*" for headers together with allowCredentials');
  for (const name of names) if (name !== '*' && !HEADER_NAME.test(name)) throw new Refused(`cors: the header ${name}`);
  const methods = allowMethods.length > 0 ? allowMethods : ['GET', 'HEAD', 'POST'];
  const all = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH'];
  return {
    origins: allowOrigins.map(origin),
    methods: (credentials && methods.includes('*') ? all : methods).join(', '),
    headers: allowHeaders.join(', '),
    ...(exposeHeaders.length > 0 ? { exposeHeaders: exposeHeaders.join(', ') } : {}),
    credentials,
    maxAgeSeconds: maxAge,
  };
}

/** A duration as GEP-2257 has it: `1h2m3s400ms`. */
function milliseconds(text: string): number {
  let sum = 0;
  for (const [, amount, unit] of text.matchAll(/(\d{1,5})(ms|h|m|s)/g))
    sum += Number(amount) * { h: 3_600_000, m: 60_000, s: 1000, ms: 1 }[unit as 's'];
  return Math.min(sum, NO_LIMIT_MS);
}

/** A text as an expression that matches it. */
export function escaped(text: string): string {
  return text.replace(/[\\^$.|?*+()[\]{}]/g, '\\$&');
}
