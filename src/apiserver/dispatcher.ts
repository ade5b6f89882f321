/**
 * The verbs of resources, from an authorized operation to its outcome: which handler, which subresource, which format of
 * patch. HTTP and the in-process transport both end here, so nothing is decided twice.
 */

import type { KubeObject } from '../api/meta.ts';
import type { Clock } from '../base/clock.ts';
import {
  type ApiError,
  badRequest,
  failure,
  fieldErrors,
  invalid,
  isReason,
  notFound,
  type Status,
} from '../base/errors.ts';
import type { PatchType } from '../client/transport.ts';
import { applyPatch as serverSideApply } from './apply/apply-patch.ts';
import { ComponentStatuses } from './component-statuses.ts';
import { convertObject } from './conversion.ts';
import { type Deletion, deleteObject } from './deletion.ts';
import { deepFreeze, Entry } from './entry.ts';
import { jsonPatch } from './json-patch.ts';
import { type ListQuery, type ListResult, listEntries, waitFresh } from './list.ts';
import { mergePatch, strategicMergePatch } from './patch.ts';
import { checkPlace, type Operation, type Outcome, type Registry } from './registry.ts';
import type { CreateHandler, RequestAttributes } from './request.ts';
import { type CustomShape, type Served, subresourceOf } from './resource-table.ts';
import { notAllowed, unknownResource } from './routes.ts';
import { compileSelector } from './selectors.ts';
import { applyScale, scaleOf } from './subresources.ts';
import { type Seen, type WatchQuery, watchEntries } from './watch.ts';

export interface Selectors {
  readonly labelSelector?: string | undefined;
  readonly fieldSelector?: string | undefined;
}

export class Dispatcher {
  readonly registry: Registry;
  readonly components = new ComponentStatuses();
  /** By the resource that they are of: few have any. */
  readonly #createHandlers = new Map<string, CreateHandler[]>();
  readonly #clock: Clock;
  readonly #authorize: (attributes: RequestAttributes) => void | Promise<void>;

  constructor(options: {
    registry: Registry;
    createHandlers: readonly CreateHandler[];
    clock: Clock;
    /** Rejects with Forbidden; asked for what a request does besides its verb. */
    authorize: (attributes: RequestAttributes) => void | Promise<void>;
  }) {
    this.registry = options.registry;
    for (const handler of options.createHandlers) {
      const same = this.#createHandlers.get(handler.of.resource);
      if (same) same.push(handler);
      else this.#createHandlers.set(handler.of.resource, [handler]);
    }
    this.#clock = options.clock;
    this.#authorize = options.authorize;
  }

  get(operation: Operation): Outcome | Promise<Outcome> {
    this.#checkVerb(operation, 'get');
    const entry = isComputed(operation.served) ? this.#component(operation) : this.registry.get(operation);
    const preparing = operation.served.custom?.prepare?.([entry.object]);
    if (preparing) return preparing.then(() => this.get(operation));
    return operation.attributes.subresource === 'scale' ? scaleOf(operation.served, entry.object) : entry;
  }

  /** Resolves once what is read is at least as new; 504 when that takes too long. */
  fresh(revision: number): Promise<void> {
    return waitFresh(this.registry.caches, revision, this.#clock);
  }

  list(operation: Operation, query: ListQuery & Selectors): Promise<ListResult> {
    this.#checkVerb(operation, 'list');
    const { served, attributes } = operation;
    const { caches } = this.registry;
    const cache = isComputed(served)
      ? this.components.now(served.prefix, caches.revision)
      : this.registry.cacheOf(served);
    const listing = listEntries(caches, cache, {
      namespace: served.info.namespaced ? attributes.namespace : '',
      selector: this.#selector(operation, query),
      query,
      clock: this.#clock,
    });
    return served.custom?.prepare ? preparedList(served.custom, listing) : listing;
  }

  #component({ served, attributes: { name } }: Operation): Entry {
    const found = this.components.now(served.prefix, this.registry.caches.revision).entries.get(name);
    if (!found) throw notFound(served.info, name);
    return found;
  }

  watch(
    operation: Operation,
    query: Omit<WatchQuery, 'namespace' | 'selector'> & Selectors,
    signal: AbortSignal,
  ): AsyncGenerator<readonly Seen[]> {
    this.#checkVerb(operation, 'watch');
    const { served, attributes } = operation;
    const seen = watchEntries(
      this.registry.caches,
      this.registry.cacheOf(served),
      {
        ...query,
        namespace: served.info.namespaced ? attributes.namespace : '',
        selector: this.#selector(operation, query),
      },
      { clock: this.#clock, signal: served.custom ? AbortSignal.any([signal, served.custom.ended]) : signal },
    );
    return served.custom?.prepare ? preparedEvents(served.custom, seen) : seen;
  }

  async #ask(handler: CreateHandler, operation: Operation, body: KubeObject, query: URLSearchParams): Promise<Outcome> {
    return await handler.create(this.registry.decodeQuestion(operation, body), {
      attributes: operation.attributes,
      query,
      dryRun: operation.dryRun,
      warn: message => operation.warn(message),
      annotate: operation.trail && ((key, value) => operation.trail?.annotate(key, value)),
    });
  }

  /** Throws at once what it sees at once. */
  create(operation: Operation, body: KubeObject, query = new URLSearchParams()): Promise<Outcome> {
    const { attributes, served } = operation;
    const { subresource } = attributes;
    const handler = this.#createHandlers
      .get(served.info.resource)
      ?.find(
        ({ of, subresource: sub = '' }) =>
          sub === subresource && of.group === served.info.group && of.version === served.info.version,
      );
    if (handler) return this.#ask(handler, operation, body, query);
    this.#checkVerb(operation, 'create');
    if (subresource || !served.persistent) throw notAllowed();
    return this.registry.create(operation, body);
  }

  async update(operation: Operation, body: KubeObject): Promise<{ outcome: Outcome; created: boolean }> {
    this.#checkVerb(operation, 'update');
    if (operation.attributes.subresource !== 'scale') return this.registry.update(operation, body);
    return { outcome: await this.#scale(operation, () => body), created: false };
  }

  async patch(operation: Operation, patch: unknown, type: PatchType): Promise<Outcome> {
    this.#checkVerb(operation, 'patch');
    const { served, attributes } = operation;
    if (attributes.subresource === 'scale')
      return this.#scale(operation, scale =>
        unconditional(applyPatch(scale, patch, type, 'autoscaling.v1.Scale'), scale),
      );
    const { info } = served;
    const isStrategic = type === 'application/strategic-merge-patch+json';
    const strange = type === 'application/json-patch+json' ? unknownMembers(patch) : [];
    if (operation.fieldValidation === 'Warn') for (const warning of strange) operation.warn(warning);
    if (served.custom && isStrategic)
      throw unsupportedPatch([
        'application/json-patch+json',
        'application/merge-patch+json',
        'application/apply-patch+yaml',
      ]);
    return this.registry.modify(operation, current => {
      const from = shownObject(served, current);
      const patched = applyPatch(from, patch, type, info.type);
      checkPlace(attributes, patched);
      if (strange.length > 0 && operation.fieldValidation === 'Strict')
        throw unreadablePatch(patched, badRequest(`strict decoding error: ${strange.join(', ')}`));
      try {
        return this.registry.decode(operation, unconditional(patched, from));
      } catch (error) {
        throw isReason(error, 'BadRequest') ? unreadablePatch(isStrategic ? patch : patched, error) : error;
      }
    });
  }

  /** Server-side apply; `created` says that the object was not there before. */
  async apply(
    operation: Operation,
    configuration: unknown,
    { force }: { force: boolean },
  ): Promise<{ outcome: Outcome; created: boolean }> {
    this.#checkVerb(operation, 'patch');
    const { served, attributes } = operation;
    const { outcome, created } = await serverSideApply(this.registry, operation, configuration, {
      force,
      authorizeCreate: () => this.#authorize({ ...attributes, verb: 'create' }),
    });
    if (attributes.subresource !== 'scale') return { outcome, created };
    return { outcome: scaleOf(served, outcome instanceof Entry ? outcome.object : outcome), created };
  }

  delete(operation: Operation, options: Deletion): Promise<Outcome | Status> {
    this.#checkVerb(operation, 'delete');
    return deleteObject(this.registry, operation, options);
  }

  /** The entries that were chosen; those with finalizers or a grace period are terminating now. */
  async deleteCollection(operation: Operation, options: Deletion, query: ListQuery & Selectors): Promise<ListResult> {
    this.#checkVerb(operation, 'deletecollection');
    const { served, attributes } = operation;
    const chosen = await listEntries(this.registry.caches, this.registry.cacheOf(served), {
      namespace: served.info.namespaced ? attributes.namespace : '',
      selector: this.#selector(operation, query),
      query,
      clock: this.#clock,
    });
    const queue = [...chosen.entries];
    // Deletes of one collection share flushes without crowding others out.
    await Promise.all(
      Array.from({ length: 16 }, async () => {
        for (let entry = queue.shift(); entry; entry = queue.shift()) {
          const { name, namespace = '' } = entry.object.metadata;
          try {
            await deleteObject(
              this.registry,
              { ...operation, attributes: { ...attributes, name, namespace } },
              options,
            );
          } catch (error) {
            if ((error as { code?: number }).code !== 404) throw error;
          }
        }
      }),
    );
    return chosen;
  }

  async #scale(operation: Operation, change: (scale: KubeObject) => KubeObject): Promise<Outcome> {
    const { served, attributes } = operation;
    const outcome = await this.registry.modify(operation, current => {
      const scaled = change(scaleOf(served, current));
      checkPlace(attributes, scaled);
      const replicas = (scaled as { spec?: { replicas?: unknown } }).spec?.replicas ?? 0;
      if (typeof replicas === 'number' && replicas < 0)
        throw invalid({ group: 'autoscaling', kind: 'Scale' }, attributes.name, [
          {
            type: 'FieldValueInvalid',
            field: 'spec.replicas',
            message: `Invalid value: ${replicas}: must be greater than or equal to 0`,
          },
        ]);
      return applyScale(served, current, scaled);
    });
    return scaleOf(served, outcome instanceof Entry ? outcome.object : outcome);
  }

  #selector({ served, attributes }: Operation, query: Selectors): ReturnType<typeof compileSelector> {
    const selector = compileSelector(served, query);
    if (!attributes.name) return selector;
    // A list or watch of one name, as the URL of an object with ?watch=true means.
    return compileSelector(served, {
      labelSelector: query.labelSelector,
      fieldSelector: [query.fieldSelector, `metadata.name=${attributes.name}`].filter(Boolean).join(','),
    });
  }

  #checkVerb({ served, attributes }: Operation, verb: string): void {
    const { info } = served;
    if (!attributes.subresource) {
      if (!info.verbs.includes(verb)) throw notAllowed();
      return;
    }
    const subresource = subresourceOf(info, attributes.subresource);
    if (!subresource) throw unknownResource();
    if (!subresource.verbs.includes(verb)) throw notAllowed();
  }
}

/** Kept nowhere, but found out when somebody asks. */
function isComputed({ info }: Served): boolean {
  return info.resource === 'componentstatuses' && info.group === '';
}

async function preparedList(custom: CustomShape, listing: Promise<ListResult>): Promise<ListResult> {
  const result = await listing;
  await custom.prepare!(result.entries.map(entry => entry.object));
  return result;
}

async function* preparedEvents(
  custom: CustomShape,
  seen: AsyncGenerator<readonly Seen[]>,
): AsyncGenerator<readonly Seen[]> {
  for await (const batch of seen) {
    const objects = batch.flatMap(event => ('entry' in event ? [event.entry.object] : []));
    if (objects.length > 0) await custom.prepare!(objects);
    yield batch;
  }
}

// A patch is a precondition only where it names another resourceVersion itself; else it is applied again to what is newer.
function unconditional(patched: KubeObject, from: KubeObject): KubeObject {
  if (patched.metadata?.resourceVersion !== from.metadata.resourceVersion) return patched;
  const { resourceVersion: _, ...metadata } = patched.metadata;
  return { ...patched, metadata };
}

// What a patch makes of an object is the patch's fault, and no body's.
function unreadablePatch(value: unknown, error: ApiError): ApiError {
  const why = error.message.replace(/^.*? cannot be handled as a [^:]*: /, '');
  return invalid({ group: '', kind: '' }, '', [fieldErrors.invalid('patch', JSON.stringify(value), why)]);
}

/** What no operation of a JSON patch has, in upstream's words. */
function unknownMembers(patch: unknown): string[] {
  if (!Array.isArray(patch)) return [];
  return patch.flatMap((operation, at) =>
    Object.keys(operation ?? {})
      .filter(name => !['op', 'path', 'from', 'value'].includes(name))
      .map(name => `json patch unknown field "[${at}].${name}"`),
  );
}

function goTypeOf(value: unknown): string {
  if (Array.isArray(value)) return 'array';
  return typeof value === 'boolean' ? 'bool' : typeof value;
}

function applyPatch(object: KubeObject, patch: unknown, type: PatchType, schema: string): KubeObject {
  switch (type) {
    case 'application/json-patch+json':
      return jsonPatch(object, patch);
    case 'application/merge-patch+json':
      if (patch === null) throw badRequest('Invalid JSON Patch');
      if (typeof patch !== 'object' || Array.isArray(patch))
        throw badRequest(
          `error decoding patch: json: cannot unmarshal ${goTypeOf(patch)} into Go value of type map[string]interface {}`,
        );
      return mergePatch(object, patch) as KubeObject;
    case 'application/strategic-merge-patch+json':
      return strategicMergePatch(object, patch, schema);
    default:
      throw unsupportedPatch([
        'application/json-patch+json',
        'application/merge-patch+json',
        'application/strategic-merge-patch+json',
      ]);
  }
}

function unsupportedPatch(accepted: readonly PatchType[]): Error {
  return failure(
    415,
    'UnsupportedMediaType',
    `the body of the request was in an unknown format - accepted media types include: ${accepted.join(', ')}`,
  );
}

const converted = new WeakMap<KubeObject, Map<string, KubeObject>>();

/** A stored object as the request's version shows it; frozen, and converted once. */
export function shownObject({ info, stored, custom }: Served, object: KubeObject): KubeObject {
  if (custom) return custom.show(object);
  if (info === stored) return object;
  let versions = converted.get(object);
  if (!versions) converted.set(object, (versions = new Map()));
  const id = `${info.group}/${info.version}`;
  let shown = versions.get(id);
  if (!shown) versions.set(id, (shown = deepFreeze(convertObject(object, stored, info))));
  return shown;
}

/** Whether the entry's own bytes are what the request's version shows. */
export function isShownAsStored(served: Served, entry: Entry): boolean {
  return served.custom ? served.custom.show(entry.object) === entry.object : served.info === served.stored;
}

/** The object of an outcome in the request's version. */
export function outcomeObject(served: Served, outcome: Outcome): KubeObject {
  if (outcome instanceof Entry) return shownObject(served, outcome.object);
  // Scales and replies of handlers are not of the resource's kind.
  return outcome.kind === served.stored.kind ? shownObject(served, outcome) : outcome;
}
