/**
 * The door to an API server, at the level of resources: over HTTPS (`https-transport.ts`) or in process (the API server
 * itself implements it). Objects that come out are frozen and may be shared; objects that go in are not kept.
 * Every method rejects with ApiError for what the server refuses.
 */

import type { KubeList, KubeObject, WatchEvent } from '../api/meta.ts';
import type { Status } from '../base/errors.ts';

/** A resource, as in the URL: `{ group: 'apps', version: 'v1', resource: 'deployments' }`. */
export interface ResourceId {
  readonly group: string;
  readonly version: string;
  readonly resource: string;
}

export interface Target {
  readonly of: ResourceId;
  /** '' or absent: cluster-scoped, or all namespaces for list and watch. */
  readonly namespace?: string;
  readonly name?: string;
  readonly subresource?: string;
}

export interface ListOptions {
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  readonly resourceVersion?: string;
  readonly resourceVersionMatch?: 'Exact' | 'NotOlderThan';
  readonly limit?: number;
  readonly continue?: string;
  /** Of metrics APIs only: selects among the values of a metric. */
  readonly metricLabelSelector?: string;
}

export interface WatchOptions {
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  readonly resourceVersion?: string;
  readonly allowWatchBookmarks?: boolean;
  readonly sendInitialEvents?: boolean;
  readonly timeoutSeconds?: number;
}

export interface DeleteOptions {
  readonly gracePeriodSeconds?: number;
  readonly propagationPolicy?: 'Orphan' | 'Background' | 'Foreground';
  readonly preconditions?: { readonly uid?: string; readonly resourceVersion?: string };
}

export type PatchType =
  | 'application/json-patch+json'
  | 'application/merge-patch+json'
  | 'application/strategic-merge-patch+json'
  | 'application/apply-patch+yaml';

export interface WriteOptions {
  readonly dryRun?: boolean;
  readonly fieldManager?: string;
  /** For apply patches. */
  readonly force?: boolean;
}

export interface Transport {
  get(target: Target): Promise<KubeObject>;
  list(target: Target, options?: ListOptions): Promise<KubeList>;
  create(target: Target, object: KubeObject, options?: WriteOptions): Promise<KubeObject>;
  update(target: Target, object: KubeObject, options?: WriteOptions): Promise<KubeObject>;
  patch(target: Target, patch: unknown, type: PatchType, options?: WriteOptions): Promise<KubeObject>;
  /** The deleted (or now terminating) object, or a Status. */
  delete(target: Target, options?: DeleteOptions): Promise<KubeObject | Status>;
  deleteCollection(target: Target, options?: DeleteOptions & ListOptions): Promise<void>;
  /** Events as they came, those together that came together. Ends without error when the server closes the stream; watch again from the last resourceVersion seen. */
  watch(target: Target, options: WatchOptions, signal: AbortSignal): AsyncIterable<readonly WatchEvent[]>;
}

/** The path of a request's URL. */
export function pathOf({ of, namespace, name, subresource }: Target): string {
  let out = of.group === '' ? `/api/${of.version}` : `/apis/${of.group}/${of.version}`;
  if (namespace) out += `/namespaces/${namespace}`;
  out += `/${of.resource}`;
  if (name) out += `/${encodeURIComponent(name)}`;
  if (subresource) out += `/${subresource}`;
  return out;
}
