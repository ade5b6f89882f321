/**
 * The API server's own Transport: what controllers and the scheduler use when they run in its process. It skips HTTP and
 * JSON but nothing else: authorization, admission and validation are those of any client. Objects that come out are the
 * cache's own, frozen and shared.
 */

import type { KubeList, KubeObject, WatchEvent } from '../api/meta.ts';
import { conflict, notFound, type Status } from '../base/errors.ts';
import type {
  DeleteOptions,
  ListOptions,
  PatchType,
  ResourceId,
  Target,
  Transport,
  WatchOptions,
  WriteOptions,
} from '../client/transport.ts';
import { ConflictError } from '../store/store.ts';
import type { Trail } from './audit/trail.ts';
import { storedForm } from './conversion.ts';
import { type Dispatcher, outcomeObject, type Selectors, shownObject } from './dispatcher.ts';
import { canonical, deepFreeze, Entry, encode, thaw } from './entry.ts';
import type { ListQuery } from './list.ts';
import { MODIFIED, type Operation } from './registry.ts';
import type { RequestAttributes, StoredObjects, UserInfo } from './request.ts';
import { apiVersionOf, type ResourceTable, type Served } from './resource-table.ts';
import { unknownResource } from './routes.ts';
import { bookmarkObject, type Seen } from './watch.ts';

export interface InProcessOptions {
  readonly dispatcher: Dispatcher;
  readonly table: ResourceTable;
  readonly user: UserInfo;
  /** Manager of fields written without a `fieldManager`. */
  readonly component: string;
  /** Rejects with Forbidden what the user may not do. */
  readonly authorize: (attributes: RequestAttributes, trail?: Trail) => void | Promise<void>;
  /** Where the one request that this transport is made for is recorded. */
  readonly trail?: Trail;
}

export class InProcessTransport implements Transport, StoredObjects {
  readonly #options: InProcessOptions;

  constructor(options: InProcessOptions) {
    this.#options = options;
  }

  async get(target: Target): Promise<KubeObject> {
    const operation = await this.#operation('get', target);
    return this.#shown(operation.served, await this.#options.dispatcher.get(operation));
  }
  async list(target: Target, options: ListOptions = {}): Promise<KubeList> {
    const operation = await this.#operation('list', target, options.fieldSelector);
    const { served } = operation;
    const result = await this.#options.dispatcher.list(operation, { ...listQueryOf(options), ...selectorsOf(options) });
    return {
      kind: served.info.listKind,
      apiVersion: apiVersionOf(served.info),
      metadata: {
        resourceVersion: String(result.revision),
        ...(result.continue ? { continue: result.continue } : {}),
        ...(result.remaining === undefined ? {} : { remainingItemCount: result.remaining }),
      },
      items: result.entries.map(entry => shownObject(served, entry.object)),
    };
  }
  async create(target: Target, object: KubeObject, options: WriteOptions = {}): Promise<KubeObject> {
    const operation = await this.#operation('create', target, undefined, options);
    return this.#shown(operation.served, await this.#options.dispatcher.create(operation, object));
  }
  async update(target: Target, object: KubeObject, options: WriteOptions = {}): Promise<KubeObject> {
    const operation = await this.#operation('update', target, undefined, options);
    return this.#shown(operation.served, (await this.#options.dispatcher.update(operation, object)).outcome);
  }
  async patch(target: Target, patch: unknown, type: PatchType, options: WriteOptions = {}): Promise<KubeObject> {
    const operation = await this.#operation('patch', target, undefined, options);
    if (type === 'application/apply-patch+yaml') {
      const force = options.force ?? false;
      return this.#shown(
        operation.served,
        (await this.#options.dispatcher.apply(operation, thaw(patch), { force })).outcome,
      );
    }
    return this.#shown(
      operation.served,
      await this.#options.dispatcher.patch({ ...operation, trusted: false }, patch, type),
    );
  }
  async delete(target: Target, options: DeleteOptions = {}): Promise<KubeObject | Status> {
    const operation = await this.#operation('delete', target);
    const outcome = await this.#options.dispatcher.delete(operation, options);
    return isStatus(outcome) ? outcome : this.#shown(operation.served, outcome);
  }
  async deleteCollection(target: Target, options: DeleteOptions & ListOptions = {}): Promise<void> {
    const operation = await this.#operation('deletecollection', target, options.fieldSelector);
    await this.#options.dispatcher.deleteCollection(operation, options, {
      ...listQueryOf(options),
      ...selectorsOf(options),
    });
  }
  async *watch(target: Target, options: WatchOptions, signal: AbortSignal): AsyncIterable<readonly WatchEvent[]> {
    const operation = await this.#operation('watch', target, options.fieldSelector);
    const { served } = operation;
    const seen = this.#options.dispatcher.watch(
      operation,
      {
        resourceVersion: options.resourceVersion ?? '',
        resourceVersionMatch: options.sendInitialEvents === undefined ? '' : 'NotOlderThan',
        allowWatchBookmarks: options.allowWatchBookmarks ?? false,
        sendInitialEvents: options.sendInitialEvents,
        labelSelector: options.labelSelector,
        fieldSelector: options.fieldSelector,
      },
      options.timeoutSeconds ? AbortSignal.any([signal, AbortSignal.timeout(options.timeoutSeconds * 1000)]) : signal,
    );
    for await (const batch of seen) yield batch.map(event => this.#event(served, event));
  }

  async modify(
    target: { of: ResourceId; namespace: string; name: string; dryRun?: boolean },
    change: (copy: KubeObject) => void,
  ): Promise<KubeObject> {
    return modifyStored(this.#options, target, change);
  }

  #event(served: Served, seen: Seen): WatchEvent {
    switch (seen.type) {
      case 'ERROR':
        return { type: 'ERROR', object: seen.status };
      case 'BOOKMARK':
        return {
          type: 'BOOKMARK',
          object: bookmarkObject({ kind: served.info.kind, apiVersion: apiVersionOf(served.info) }, seen),
        };
      default:
        return { type: seen.type, object: shownObject(served, seen.entry.object) };
    }
  }
  #shown(served: Served, outcome: Entry | KubeObject): KubeObject {
    const object = outcomeObject(served, outcome);
    return outcome instanceof Entry ? object : deepFreeze(object);
  }

  async #operation(
    verb: string,
    target: Target,
    fieldSelector?: string,
    options: WriteOptions = {},
  ): Promise<Operation> {
    const { of, namespace = '', name = '', subresource = '' } = target;
    const served = this.#options.table.of(of);
    if (!served) throw unknownResource();
    const attributes: RequestAttributes = {
      user: this.#options.user,
      verb,
      isResource: true,
      group: of.group,
      version: of.version,
      resource: of.resource,
      subresource,
      namespace,
      name,
      path: '',
      ...(fieldSelector ? { fieldSelector } : {}),
    };
    const { authorize, trail } = this.#options;
    const waiting = authorize(attributes, trail);
    if (waiting) await waiting;
    return {
      attributes,
      served,
      dryRun: options.dryRun ?? false,
      fieldValidation: 'Ignore',
      fieldManager: options.fieldManager ?? this.#options.component,
      trusted: true,
      ...(trail ? { trail } : {}),
      warn() {},
    };
  }
}

function listQueryOf(options: ListOptions): ListQuery {
  return {
    resourceVersion: options.resourceVersion ?? '',
    resourceVersionMatch: options.resourceVersionMatch ?? '',
    limit: options.limit ?? 0,
    continue: options.continue ?? '',
  };
}

export function isStatus(outcome: Entry | KubeObject | Status): outcome is Status {
  return !(outcome instanceof Entry) && outcome.kind === 'Status' && 'code' in outcome;
}

function selectorsOf({ labelSelector, fieldSelector }: ListOptions): Selectors {
  return { labelSelector, fieldSelector };
}

/** Attempts at a change that others interfere with; each loses only to somebody else's success. */
const MODIFY_ATTEMPTS = 10;

async function modifyStored(
  { dispatcher, table }: InProcessOptions,
  { of, namespace, name, dryRun }: { of: ResourceId; namespace: string; name: string; dryRun?: boolean },
  change: (copy: KubeObject) => void,
): Promise<KubeObject> {
  const served = table.of(of);
  if (!served) throw unknownResource();
  const { caches } = dispatcher.registry;
  const cache = caches.of(served.prefix);
  const key = served.info.namespaced ? `${namespace}/${name}` : name;
  for (let attempt = 1; ; attempt++) {
    const current = cache.entries.get(key);
    if (!current) throw notFound(of, name);
    const copy = thaw(current.object);
    change(copy);
    const next = canonical(storedForm(served, copy));
    const value = encode(next);
    if (current.holds(value)) return current.object;
    if (dryRun)
      return deepFreeze({ ...next, metadata: { ...next.metadata, resourceVersion: String(current.revision) } });
    try {
      return (await caches.put(cache, key, { value, object: next, expect: current.revision })).object;
    } catch (error) {
      if (!(error instanceof ConflictError)) throw error;
      if (!error.current) throw notFound(of, name);
      if (attempt >= MODIFY_ATTEMPTS) throw conflict(of, name, MODIFIED);
    }
  }
}
