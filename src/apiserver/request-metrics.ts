/**
 * What is counted of requests, by upstream's names and labels. A request finds its series by one key of its route, since it would
 * otherwise make a key of nine labels for each metric.
 */

import { metrics, type SeriesHandle } from '../base/metrics.ts';
import type { PathAttributes } from './request-path.ts';

const ROUTE_LABELS = ['verb', 'dry_run', 'group', 'version', 'resource', 'subresource', 'scope', 'component'];
const LONG_LABELS = ['verb', 'group', 'version', 'resource', 'subresource', 'scope', 'component'];
const SECONDS = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60];

const requests = metrics.counter(
  'apiserver_request_total',
  'Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.',
  [...ROUTE_LABELS, 'code'],
);
const durations = metrics.histogram(
  'apiserver_request_duration_seconds',
  'Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.',
  SECONDS,
  ROUTE_LABELS,
);
const sliDurations = metrics.histogram(
  'apiserver_request_sli_duration_seconds',
  'Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.',
  SECONDS,
  LONG_LABELS,
);
const sizes = metrics.histogram(
  'apiserver_response_sizes',
  'Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.',
  [1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000],
  LONG_LABELS,
);
const bodySizes = metrics.histogram(
  'apiserver_request_body_size_bytes',
  'Apiserver request body size in bytes broken out by resource and verb.',
  Array.from({ length: 31 }, (_, step) => 50_000 + step * 100_000),
  ['resource', 'verb'],
);
const long = metrics.gauge(
  'apiserver_longrunning_requests',
  'Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.',
  LONG_LABELS,
);
const inflight = metrics.gauge(
  'apiserver_current_inflight_requests',
  'Maximal number of currently used inflight request limit of this apiserver per request kind in last second.',
  ['request_kind'],
);
const watchLists = metrics.histogram(
  'apiserver_watch_list_duration_seconds',
  'Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.',
  [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 15, 20, 30, 45, 60],
  ['group', 'version', 'resource', 'scope'],
);
export const terminations = metrics.counter(
  'apiserver_request_terminations_total',
  'Number of requests which apiserver terminated in self-defense.',
  ['component', 'group', 'version', 'resource', 'subresource', 'scope', 'verb', 'code'],
);
export const handshakeErrors = metrics.counter(
  'apiserver_tls_handshake_errors_total',
  "Number of requests dropped with 'TLS handshake error from' error",
);
export const deprecatedUse = metrics.gauge(
  'apiserver_requested_deprecated_apis',
  'Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.',
  ['group', 'version', 'resource', 'subresource', 'removed_release'],
);
export const certificateSeconds = metrics.histogram(
  'apiserver_client_certificate_expiration_seconds',
  'Distribution of the remaining lifetime on the certificate used to authenticate a request.',
  [
    0, 1800, 3600, 7200, 21_600, 43_200, 86_400, 172_800, 345_600, 604_800, 2_592_000, 7_776_000, 15_552_000,
    31_104_000,
  ],
);
export const authentications = metrics.counter('authentication_attempts', 'Counter of authenticated attempts.', [
  'result',
]);
const authenticatedUsers = metrics.counter(
  'authenticated_user_requests',
  'Counter of authenticated requests broken out by username.',
  ['username'],
);
export const authorizations = metrics.counter(
  'authorization_attempts_total',
  "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.",
  ['result'],
);
export const storedObjects = metrics.gauge(
  'apiserver_resource_objects',
  'Number of stored objects at the time of last check split by kind.',
  ['group', 'resource'],
);

export const storedObjectsByName = metrics.gauge(
  'apiserver_storage_objects',
  '[DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind.',
  ['resource'],
);
export const storageSize = metrics.gauge(
  'apiserver_storage_size_bytes',
  'Size of the storage database file physically allocated in bytes.',
  ['storage_cluster_id'],
);
export const storageEvents = metrics.counter(
  'apiserver_storage_events_received_total',
  'Number of etcd events received split by kind.',
  ['group', 'resource'],
);
export const storedBytes = metrics.gauge(
  'apiserver_resource_size_estimate_bytes',
  'Estimated size of stored objects in database. Estimate is based on sum of last observed sizes of serialized objects.',
  ['group', 'resource'],
);

interface Counted {
  readonly labels: readonly string[];
  readonly byCode: Map<number, SeriesHandle>;
  readonly durations: SeriesHandle;
  readonly sliDurations: SeriesHandle;
  readonly sizes: SeriesHandle;
  readonly longLabels: readonly string[];
}
const counted = new Map<string, Counted>();

export interface Counting {
  readonly method: string;
  readonly attributes: PathAttributes;
  /** There is such a resource: what somebody makes up has no series of its own. */
  readonly isKnown: boolean;
  readonly query: URLSearchParams | undefined;
  /** Of the body that is sent to it. */
  readonly contentType: string | undefined;
  readonly isLong: boolean;
}

/** Requests under way, by what upstream calls their kind. */
const underWay = { readOnly: 0, mutating: 0 };
metrics.onCollect(() => {
  for (const [kind, count] of Object.entries(underWay)) inflight.set(count, kind);
});

/** Begins to count a request; the result ends it. */
export function countRequest(
  counting: Counting,
): (end: { code: number; durationMs: number; waitedMs: number; bytes: number }) => void {
  const { attributes, isLong } = counting;
  const { verb } = attributes;
  const kind = isLong ? undefined : verb === 'get' || verb === 'list' ? 'readOnly' : 'mutating';
  const series = seriesOf(counting);
  if (kind) underWay[kind]++;
  else long.add(1, ...series.longLabels);
  return ({ code, durationMs, waitedMs, bytes }) => {
    if (kind) underWay[kind]--;
    else long.add(-1, ...series.longLabels);
    let ofCode = series.byCode.get(code);
    if (!ofCode) series.byCode.set(code, (ofCode = requests.series(...series.labels, String(code))));
    ofCode.add(1);
    if (isLong) return;
    series.durations.observe(durationMs / 1000);
    series.sliDurations.observe((durationMs - waitedMs) / 1000);
    if (bytes > 0 && (verb === 'get' || verb === 'list')) series.sizes.observe(bytes);
  };
}

const bodiesOf = new Map<string, SeriesHandle>();

/** A body has come whole that writes. */
export function countBody({ group, resource, verb }: Omit<PathAttributes, 'rest'>, bytes: number): void {
  const key = `${verb} ${resource}.${group}`;
  let series = bodiesOf.get(key);
  if (!series)
    bodiesOf.set(
      key,
      (series = bodySizes.series(group === '' ? resource : `${resource}.${group}`, BODY_VERBS[verb] ?? verb)),
    );
  series.observe(bytes);
}
const BODY_VERBS: Readonly<Record<string, string>> = { deletecollection: 'delete_collection' };

/** The server ended it by itself. */
export function countTermination(counting: Counting, code: number): void {
  const [verb = '', group = '', version = '', resource = '', subresource = '', scope = '', component = ''] =
    seriesOf(counting).longLabels;
  terminations.add(1, component, group, version, resource, subresource, scope, verb, String(code));
}

/** Pages that upstream counts one by one: the path stands for the subresource, and no component is named. */
const PAGES = new Set(['/flagz', '/healthz', '/livez', '/readyz', '/statusz']);
const UNKNOWN = { group: '', version: '', resource: '' };

function seriesOf({ method, attributes, isKnown, query, contentType }: Counting): Counted {
  const isPage = !isKnown && PAGES.has(attributes.path);
  const { group, version, resource } = isKnown ? attributes : UNKNOWN;
  const subresource = isKnown ? attributes.subresource : isPage ? attributes.path : '';
  const verb = verbOf(method, attributes, contentType);
  const scope = scopeOf(attributes);
  const dryRun = query?.get('dryRun') === 'All' ? 'All' : '';
  const key = `${verb} ${scope} ${group}/${version}/${resource}/${subresource} ${dryRun}`;
  let series = counted.get(key);
  if (!series) {
    const component = isPage ? '' : 'apiserver';
    const labels = [verb, dryRun, group, version, resource, subresource, scope, component];
    const longLabels = [verb, group, version, resource, subresource, scope, component];
    series = {
      labels,
      longLabels,
      byCode: new Map(),
      durations: durations.series(...labels),
      sliDurations: sliDurations.series(...longLabels),
      sizes: sizes.series(...longLabels),
    };
    counted.set(key, series);
  }
  return series;
}
/** A watch has sent all that a list would have had. */
export function countWatchList(attributes: PathAttributes, ms: number): void {
  const { group, version, resource } = attributes;
  watchLists.observe(ms / 1000, group, version, resource, scopeOf(attributes));
}

const CONNECTED = new Set(['attach', 'exec', 'portforward', 'proxy']);

/** As upstream shows verbs: the method in capitals, but for what a method does not tell. */
export function verbOf(method: string, { verb, subresource }: PathAttributes, contentType: string | undefined): string {
  if (verb === 'list' || verb === 'watch' || verb === 'deletecollection') return verb.toUpperCase();
  if (CONNECTED.has(subresource) || verb === 'proxy') return 'CONNECT';
  if (verb === 'patch' && contentType?.startsWith('application/apply-patch')) return 'APPLY';
  return METHODS.has(method) ? method : 'other';
}
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

export function scopeOf({ isResource, verb, name, namespace }: PathAttributes): string {
  if (!isResource) return '';
  if (name !== '' || verb === 'create') return 'resource';
  return namespace === '' ? 'cluster' : 'namespace';
}

const succeeded = authentications.series('success');
const others = authenticatedUsers.series('other');
/** Users that upstream tells apart; there may be any number of the others. */
const TOLD_USERS = new Set(['admin', 'client', 'kube_proxy', 'kubelet', 'system:serviceaccount:kube-system:default']);

/** Somebody showed who they are. */
export function countUser(name: string): void {
  succeeded.add(1);
  if (TOLD_USERS.has(name)) authenticatedUsers.add(1, name);
  else others.add(1);
}
