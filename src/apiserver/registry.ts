/**
 * The generic registry: create, read and update of any resource, the same for HTTP and in-process callers. A request runs
 * through decoding, defaults, mutating admission, the kind's preparation, claims, validation, validating admission and one
 * compare-and-swap in the store. Invariant: what is stored is normalised, validated and has passed admission.
 * Deletion is in `deletion.ts`, which builds on the same steps.
 */

import { typeError } from '../api/go-json-error.ts';
import { forgiveOldForms, forgiveStored } from '../api/machinery/address-forms.ts';
import { validateObjectMeta, validateObjectMetaUpdate } from '../api/machinery/metadata.ts';
import type { KubeObject, ObjectMeta } from '../api/meta.ts';
import { typeOfKind } from '../api/schema-registry.ts';
import { checkFields, type FieldValidation, normalize } from '../api/structural.ts';
import { type Clock, formatTime } from '../base/clock.ts';
import {
  alreadyExists,
  badRequest,
  conflict,
  type FieldError,
  invalid,
  isReason,
  messageOf,
  notFound,
  unknownFailure,
} from '../base/errors.ts';
import { type Random, randomSuffix } from '../base/random.ts';
import { activeSpan, traced } from '../base/tracing/active.ts';
import type { Span } from '../base/tracing/span.ts';
import { ConflictError } from '../store/store.ts';
import { AdmissionStep } from './admission/admission-step.ts';
import { FieldTracker } from './apply/field-tracker.ts';
import type { Trail } from './audit/trail.ts';
import { type BodyKind, otherKind, otherNamespace } from './body-kind.ts';
import type { Caches, ResourceCache } from './cache.ts';
import { convertObject, storedForm, workingForm } from './conversion.ts';
import { canonical, Entry, encode, thaw } from './entry.ts';
import { uintProblem } from './go-numbers.ts';
import type { AdmissionPlugin, AdmissionRequest, Allocator, RequestAttributes } from './request.ts';
import { apiVersionOf, groupResource, type ResourceTable, type Served, storeKey } from './resource-table.ts';
import { applyScale, mergeSubresource, scaleOf } from './subresources.ts';
import { unrecognized } from './undecodable.ts';

/** One request for the registry, after authorization. */
export interface Operation {
  readonly attributes: RequestAttributes;
  readonly served: Served;
  readonly dryRun: boolean;
  readonly fieldValidation: FieldValidation;
  /** The caller's types vouch for the body's structure: in-process callers. */
  readonly trusted?: boolean;
  /** JSON text of the body, for finding duplicate fields. */
  readonly text?: string;
  /** What its YAML has twice. */
  readonly duplicates?: readonly string[];
  /** Who owns the fields that the write changes; absent: nobody is recorded. */
  readonly fieldManager?: string;
  /** The object comes with its managedFields: a server-side apply. */
  readonly applied?: boolean;
  /** Where the request is recorded, if it is. */
  readonly trail?: Trail | undefined;
  warn(message: string): void;
}

/** A stored object, or one that exists only in the reply. */
export type Outcome = Entry | KubeObject;

export const MODIFIED = 'the object has been modified; please apply your changes to the latest version and try again';
/** Upstream's bounds: names are generated anew, and patches retried, that often. */
/** The structure by which upstream finds out version and kind has no name. */
const UNNAMED = 'struct.';
const GENERATE_NAME_ATTEMPTS = 8;
const UPDATE_ATTEMPTS = 5;
const GENERATED_NAME_BASE_MAX = 58;

export interface RegistryOptions {
  readonly caches: Caches;
  readonly table: ResourceTable;
  readonly admission: readonly AdmissionPlugin[];
  readonly allocators: readonly Allocator[];
  readonly clock: Clock;
  readonly random: Random;
}

/** What an object does not bring along when it is created. */
const SERVER_OWNED = [
  'deletionTimestamp',
  'deletionGracePeriodSeconds',
  'selfLink',
  'resourceVersion',
  'generation',
] as const;

/** Makes the next object from the current one; what it returns may be changed by the registry. */
export type Produce = (current: KubeObject) => KubeObject | Promise<KubeObject>;

export class Registry {
  readonly caches: Caches;
  readonly table: ResourceTable;
  readonly clock: Clock;
  readonly fields: FieldTracker;
  readonly #mutating: AdmissionStep;
  readonly #validating: AdmissionStep;
  readonly #allocators: readonly Allocator[];
  readonly #random: Random;

  constructor(options: RegistryOptions) {
    this.caches = options.caches;
    this.table = options.table;
    this.clock = options.clock;
    this.fields = new FieldTracker({ resources: options.table, clock: options.clock });
    this.#mutating = new AdmissionStep('admit', options.admission, options.clock);
    this.#validating = new AdmissionStep('validate', options.admission, options.clock);
    this.#allocators = options.allocators;
    this.#random = options.random;
  }

  cacheOf(served: Served): ResourceCache {
    return this.caches.of(served.prefix);
  }
  keyOf({ attributes, served }: Operation): string {
    return served.info.namespaced ? `${attributes.namespace}/${attributes.name}` : attributes.name;
  }

  /** The stored entry. Throws NotFound. */
  get(operation: Operation): Entry {
    const entry = this.cacheOf(operation.served).entries.get(this.keyOf(operation));
    if (!entry) throw notFound(operation.served.info, operation.attributes.name);
    return entry;
  }

  async create(operation: Operation, body: KubeObject): Promise<Outcome> {
    const { attributes } = operation;
    const object = this.decode(operation, body);
    if (namesRevision(object.metadata) && !operation.dryRun)
      throw unknownFailure('resourceVersion should not be set on objects to be created');
    if (attributes.name && object.metadata.name && attributes.name !== object.metadata.name)
      throw badRequest(nameMismatch(object.metadata.name, attributes.name));
    if (object.metadata.name || !object.metadata.generateName) return this.#createOnce(operation, object);
    for (let candidate = object, attempt = 1; ; attempt++, candidate = this.decode(operation, body)) {
      const base = candidate.metadata.generateName!.slice(0, GENERATED_NAME_BASE_MAX);
      candidate.metadata.name = base + randomSuffix(this.#random);
      try {
        return await this.#createOnce(operation, candidate);
      } catch (error) {
        if (attempt >= GENERATE_NAME_ATTEMPTS || !isReason(error, 'AlreadyExists')) throw error;
      }
    }
  }

  /** As `create`, of a named object in stored form. */
  createDecoded(operation: Operation, object: KubeObject): Promise<Outcome> {
    return this.#createOnce(operation, object);
  }

  async #createOnce(operation: Operation, object: KubeObject): Promise<Outcome> {
    const { served } = operation;
    const { kind, stored } = served;
    kind?.defaults?.(object);
    const managedFields = this.fields.created(operation, object);
    const admission = this.#admissionRequest(operation, 'CREATE', object, undefined);
    const mutating = this.#mutating.run(admission);
    if (mutating) await mutating;
    this.#beginMetadata(object);
    if (kind?.isNewGeneration) object.metadata.generation = 1;
    if (kind?.prepareCreate) kind.prepareCreate(object);
    else prepareCreateGenerically(served, object);
    const claims = this.#claim(operation, object, undefined);
    let kept = false;
    try {
      const errors = validateObjectMeta(object.metadata, {
        namespaced: stored.namespaced,
        ...(kind?.validateName ? { nameRule: kind.validateName } : {}),
        freeFinalizers: isExtension(served),
      });
      if (kind?.validate) errors.push(...kind.validate(object, served.info.group));
      this.#refuse(served, object, errors);
      for (const warning of kind?.warnings?.(object, undefined) ?? []) operation.warn(warning);
      const validating = this.#validating.run(admission);
      if (validating) await validating;
      const cache = this.cacheOf(served);
      const key = keyFor(served, object);
      const converting = served.custom?.toStored?.(object);
      const next = canonical(storedForm(served, converting ? await converting : object));
      if (managedFields?.length) next.metadata.managedFields = managedFields;
      if (operation.dryRun) {
        if (cache.entries.has(key)) throw alreadyExists(served.info, object.metadata.name);
        return withoutRevision(next);
      }
      try {
        const entry = await timedStore(operation, { name: 'Create etcd3', key }, () =>
          this.caches.put(cache, key, { value: encode(next), object: next, expect: 'absent' }),
        );
        kept = true;
        const preparing = served.custom?.prepare?.([entry.object]);
        if (preparing) await preparing;
        return entry;
      } catch (error) {
        throw error instanceof ConflictError ? alreadyExists(served.info, object.metadata.name) : error;
      }
    } finally {
      for (const claim of claims) kept ? claim.committed() : claim.failed();
    }
  }

  /** PUT of the resource or of an updatable subresource. */
  async update(operation: Operation, body: KubeObject): Promise<{ outcome: Outcome; created: boolean }> {
    const { served, attributes } = operation;
    checkPlace(attributes, body);
    const object = this.decode(operation, body);
    const exists = this.cacheOf(served).entries.has(this.keyOf(operation));
    if (!exists && served.kind?.createOnUpdate && !attributes.subresource && !object.metadata.resourceVersion) {
      if (object.metadata.uid) throw conflict(served.info, attributes.name, uidMismatch(object.metadata.uid, ''));
      return { outcome: await this.create(operation, body), created: true };
    }
    if (
      exists &&
      !namesRevision(object.metadata) &&
      served.kind?.unconditionalUpdate === false &&
      !attributes.subresource
    )
      throw invalid(served.stored, object.metadata.name, [
        {
          type: 'FieldValueInvalid',
          field: 'metadata.resourceVersion',
          message: 'Invalid value: 0: must be specified for an update',
        },
      ]);
    return { outcome: await this.modify(operation, () => thaw(object)), created: false };
  }

  /**
   * Reads, changes and writes back until nobody interfered. `produce` gets the frozen current object and returns a new
   * one in stored form; a resourceVersion or uid in it is a precondition.
   */
  async modify(operation: Operation, produce: Produce): Promise<Outcome> {
    const { served } = operation;
    const cache = this.cacheOf(served);
    const key = this.keyOf(operation);
    for (let attempt = 1; ; attempt++) {
      const current = this.get(operation);
      const preparing = served.custom?.prepare?.([current.object]);
      if (preparing) await preparing;
      const next = await produce(workingForm(served, current.object));
      const conditional = this.#checkPreconditions(operation, next, current);
      try {
        return await this.#modifyOnce(operation, { cache, key, current, next });
      } catch (error) {
        if (!(error instanceof ConflictError)) throw error;
        if (conditional || attempt >= UPDATE_ATTEMPTS || !error.current) {
          if (!error.current) throw notFound(served.info, operation.attributes.name);
          throw conflict(served.info, operation.attributes.name, MODIFIED);
        }
      }
    }
  }

  // True when the object names the state that it replaces.
  #checkPreconditions({ served, attributes }: Operation, next: KubeObject, current: Entry): boolean {
    const { uid, resourceVersion } = next.metadata;
    const currentUid = current.object.metadata.uid;
    // In a patch it is a field like others, which validation refuses to change.
    if (uid && uid !== currentUid && attributes.verb !== 'patch')
      throw conflict(served.info, attributes.name, uidMismatch(uid, currentUid));
    if (!resourceVersion || !namesRevision(next.metadata)) return false;
    // Upstream's error is none of the API's.
    const problem = uintProblem(resourceVersion);
    if (problem) throw unknownFailure(problem);
    if (resourceVersion !== String(current.revision)) throw conflict(served.info, attributes.name, MODIFIED);
    return true;
  }

  async #modifyOnce(
    operation: Operation,
    write: { cache: ResourceCache; key: string; current: Entry; next: KubeObject },
  ): Promise<Outcome> {
    const { served, attributes } = operation;
    const { kind } = served;
    const { cache, key, current } = write;
    const old = workingForm(served, current.object);
    carryMetadata(write.next, old);
    kind?.defaults?.(write.next);
    const object = isolated(operation, { object: write.next, old, nowMs: this.clock.now() });
    const managedFields = this.fields.updated(operation, object, old);
    const admission =
      attributes.subresource === 'scale'
        ? this.#scaleAdmission(operation, object, old)
        : this.#isolatedAdmission(operation, object, old);
    const mutating = this.#mutating.run(admission);
    if (mutating) await mutating;
    countGeneration(operation, object, old);
    const claims = attributes.subresource ? [] : this.#claim(operation, object, old);
    let kept = false;
    try {
      object.metadata.resourceVersion = String(current.revision);
      this.#refuse(served, object, this.#updateErrors(operation, object, old));
      const { subresource } = attributes;
      const warnings = !subresource || subresource === 'scale' ? kind?.warnings : undefined;
      const told = subresource === 'status' ? kind?.statusWarnings?.(object, old) : warnings?.(object, old);
      for (const warning of told ?? []) operation.warn(warning);
      const validating = this.#validating.run(admission);
      if (validating) await validating;
      const converting = served.custom?.toStored?.(object);
      const next = canonical(storedForm(served, converting ? await converting : object));
      if (managedFields?.length) next.metadata.managedFields = managedFields;
      const value = encode(next);
      if (current.holds(value) && !this.caches.isStale(cache, key)) return current;
      if (operation.dryRun) {
        next.metadata.resourceVersion = String(current.revision);
        return next;
      }
      if (old.metadata.deletionTimestamp && isFinished(served, next)) {
        const revision = await timedStore(operation, { name: UPDATE, key }, () =>
          this.caches.delete(cache, key, current.revision),
        );
        this.released(served, old);
        kept = true;
        return new Entry({ key, revision, value });
      }
      const entry = await timedStore(operation, { name: UPDATE, key }, () =>
        this.caches.put(cache, key, { value, object: next, expect: current.revision }),
      );
      kept = true;
      const preparing = served.custom?.prepare?.([entry.object]);
      if (preparing) await preparing;
      return entry;
    } finally {
      for (const claim of claims) kept ? claim.committed() : claim.failed();
    }
  }

  #updateErrors({ served, attributes }: Operation, object: KubeObject, old: KubeObject): FieldError[] {
    const { kind } = served;
    const { group } = served.info;
    const errors = validateObjectMetaUpdate(object.metadata, old.metadata, { freeFinalizers: isExtension(served) });
    switch (attributes.subresource) {
      case '':
      case 'scale':
        if (kind?.validate && !kind.ratchets) {
          const forgive = kind.forgivesStored ? forgiveStored : forgiveOldForms;
          errors.push(...forgive(kind.validate(object, group), () => kind.validate!(old, group)));
        }
        if (kind?.validateUpdate)
          errors.push(
            ...forgiveOldForms(kind.validateUpdate(object, old, group), () => kind.validateUpdate!(old, old, group)),
          );
        break;
      case 'status':
        if (kind?.validateStatusUpdate)
          errors.push(
            ...forgiveOldForms(kind.validateStatusUpdate(object, old), () => kind.validateStatusUpdate!(old, old)),
          );
        break;
      default: {
        const rules = kind?.validateSubresourceUpdate?.[attributes.subresource];
        if (rules) errors.push(...rules(object, old));
        else if (kind?.validate) errors.push(...kind.validate(object));
      }
    }
    return errors;
  }

  /** Admission of a deletion, where there is no object to change, or of a connection, whose options `settle` puts in order. */
  async admit(
    operation: Operation,
    kind: 'DELETE' | 'CONNECT',
    about: Pick<AdmissionRequest, 'kind'> & {
      readonly object?: KubeObject | undefined;
      readonly old?: KubeObject;
      readonly settle?: ((options: KubeObject) => KubeObject) | undefined;
    },
  ): Promise<void> {
    const { replace: _, ...rest } = this.#admissionRequest(operation, kind, about.object, about.old);
    const { object, settle } = about;
    const request: AdmissionRequest = {
      ...rest,
      kind: about.kind,
      ...(object && settle ? { replace: next => replaceContents(object, settle(next)) } : {}),
    };
    await this.#mutating.run(request);
    await this.#validating.run(request);
  }
  /** The object has left the store. */
  released(served: Served, object: KubeObject): void {
    for (const allocator of this.#allocators) if (isOf(allocator, served)) allocator.release(object);
  }

  /** The body in stored form, checked against the request; a fresh object that the caller may change. */
  decode(operation: Operation, body: KubeObject): KubeObject {
    const { served, attributes } = operation;
    const { info, stored } = served;
    const named = this.#named(operation, body, info);
    if (!operation.trusted) this.checkBody(operation, info, body);
    const object = served.custom ? served.custom.decode(thaw(named)) : normalize(info.type, named);
    object.metadata ??= { name: '' };
    const { namespace } = object.metadata;
    if (namespace && namespace !== attributes.namespace) throw otherNamespace();
    if (info.namespaced) object.metadata.namespace = attributes.namespace;
    return served.custom || info === stored ? object : convertObject(object, info, stored);
  }
  /** The body of a request that is answered and not stored, checked likewise: a review, a Binding, an Eviction. */
  decodeQuestion(operation: Operation, body: KubeObject): KubeObject {
    const { served, attributes } = operation;
    const other = served.info.subresources.find(({ name }) => name === attributes.subresource)?.kind;
    const type = other && typeOfKind(other.group, other.version, other.kind);
    const of = other && type ? { ...other, type } : served.info;
    const named = this.#named(operation, body, of);
    if (!operation.trusted) this.checkBody(operation, of, body);
    const object = normalize(of.type, named);
    const { namespace, ...metadata } = object.metadata ?? {};
    if (attributes.namespace && namespace && namespace !== attributes.namespace) throw otherNamespace();
    object.metadata = {
      ...metadata,
      ...(attributes.namespace ? { namespace: attributes.namespace } : {}),
    } as KubeObject['metadata'];
    return object;
  }
  /** The body with its kind, which is that of the request when it says none. Throws for another one. */
  #named(operation: Operation, body: KubeObject, info: BodyKind): KubeObject {
    if (typeof body !== 'object' || body === null || Array.isArray(body))
      throw badRequest(
        unrecognized(
          info.kind,
          `json: cannot unmarshal ${Array.isArray(body) ? 'array' : typeof body} into Go value of type struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }`,
          operation.text ?? JSON.stringify(body),
        ),
      );
    for (const field of ['apiVersion', 'kind'] as const)
      if (typeof (body[field] ?? '') !== 'string')
        throw badRequest(
          unrecognized(
            info.kind,
            typeError(body[field], 'string', UNNAMED, [field]),
            operation.text ?? JSON.stringify(body),
          ),
        );
    const expected = apiVersionOf(info);
    const apiVersion = body.apiVersion || expected;
    const kind = body.kind || info.kind;
    const problem = otherKind({ apiVersion, kind }, info, operation.served.custom !== undefined);
    if (problem !== undefined) throw badRequest(problem);
    return { ...body, apiVersion, kind };
  }
  /** Throws for fields of a wrong type, and as `fieldValidation` wants for unknown ones. */
  checkBody(operation: Operation, { type, kind, version }: BodyKind, body: unknown, text = operation.text): void {
    const { info, custom } = operation.served;
    const { mismatch, strict: problems } =
      custom && type === info.type
        ? custom.check(body, operation.fieldValidation, text)
        : checkFields(type, body, operation.fieldValidation, text);
    const name = kind;
    if (mismatch !== undefined)
      throw badRequest(`${name} in version "${version}" cannot be handled as a ${name}: ${mismatch}`);
    const twice = operation.fieldValidation === 'Ignore' ? [] : (operation.duplicates ?? []);
    const strict = twice.length > 0 ? [`yaml: unmarshal errors: ${twice.join(', ')}`, ...problems] : problems;
    if (strict.length === 0) return;
    if (operation.fieldValidation === 'Strict')
      throw badRequest(
        `${name} in version "${version}" cannot be handled as a ${name}: strict decoding error: ${strict.join(', ')}`,
      );
    for (const warning of strict) operation.warn(warning);
  }

  #beginMetadata(object: KubeObject): void {
    const { metadata } = object;
    metadata.uid = this.#random.uuid();
    metadata.creationTimestamp = formatTime(this.clock.now());
    // Deleting what is not there costs as much as deleting what is.
    for (const name of SERVER_OWNED) if (metadata[name] !== undefined) delete metadata[name];
  }
  #admissionRequest(
    operation: Operation,
    kind: AdmissionRequest['operation'],
    object: KubeObject | undefined,
    oldObject: KubeObject | undefined,
  ): AdmissionRequest {
    const { attributes, served, dryRun, trail } = operation;
    return {
      operation: kind,
      attributes,
      info: served.custom ? served.info : served.stored,
      object,
      oldObject,
      dryRun,
      warn: message => operation.warn(message),
      ...(trail
        ? {
            annotate: (key, value, least) => trail.annotate(key, value, least),
            spent: (layer, ms) => trail.spent(layer, ms),
          }
        : {}),
      ...(object ? { replace: next => replaceContents(object, this.#settled(served, next)) } : {}),
    };
  }
  // What admission may change is what the client may: neither the status through the main resource, nor more than it through `/status`.
  #isolatedAdmission(operation: Operation, object: KubeObject, old: KubeObject): AdmissionRequest {
    return {
      ...this.#admissionRequest(operation, 'UPDATE', object, old),
      replace: next => {
        const settled = this.#settled(operation.served, next);
        replaceContents(object, isolated(operation, { object: settled, old, nowMs: this.clock.now() }));
      },
    };
  }
  // Admission of a scale sees Scales; what it makes of the new one goes into the object.
  #scaleAdmission(operation: Operation, object: KubeObject, old: KubeObject): AdmissionRequest {
    const { served } = operation;
    // A custom resource that is shown is frozen, and this one is still to be written.
    const scale = scaleOf(served, thaw(object));
    return {
      ...this.#admissionRequest(operation, 'UPDATE', scale, scaleOf(served, old)),
      kind: { group: 'autoscaling', version: 'v1', kind: 'Scale' },
      replace: next => {
        replaceContents(scale, next);
        replaceContents(object, applyScale(served, object, next));
      },
    };
  }
  // What admission made of an object, as if the client had sent it.
  #settled(served: Served, object: KubeObject): KubeObject {
    const { kind, stored, custom } = served;
    if (custom) return custom.decode(object);
    const settled = normalize(stored.type, object);
    kind?.defaults?.(settled);
    return settled;
  }
  #claim(operation: Operation, object: KubeObject, old: KubeObject | undefined): ReturnType<Allocator['claim']>[] {
    const claims: ReturnType<Allocator['claim']>[] = [];
    for (const allocator of this.#allocators) {
      if (!isOf(allocator, operation.served)) continue;
      try {
        claims.push(allocator.claim(object, old, { dryRun: operation.dryRun }));
      } catch (error) {
        for (const claim of claims) claim.failed();
        throw error;
      }
    }
    return claims;
  }
  #refuse(served: Served, object: KubeObject, errors: readonly FieldError[]): void {
    if (errors.length > 0) throw invalid(served.stored, object.metadata.name ?? '', errors);
  }
}

const uidMismatch = (wanted: string, found: string | undefined): string =>
  `Precondition failed: UID in precondition: ${wanted}, UID in object meta: ${found}`;

function replaceContents(object: KubeObject, next: KubeObject): void {
  const fields = object as unknown as Record<string, unknown>;
  for (const name of Object.keys(fields)) delete fields[name];
  Object.assign(fields, next);
}

function isExtension({ stored, custom }: Served): boolean {
  return custom !== undefined || stored.group === 'apiextensions.k8s.io';
}

function isOf(allocator: Allocator, { stored }: Served): boolean {
  return allocator.of.resource === stored.resource && allocator.of.group === stored.group;
}

/** Refuses an object that is not the one that the URL names. What is no text at all is the decoder's to refuse. */
export function checkPlace({ name, namespace }: RequestAttributes, object: KubeObject): void {
  const inObject = (object?.metadata ?? {}) as Partial<KubeObject['metadata']>;
  if (typeof (inObject.name ?? '') !== 'string' || typeof (inObject.namespace ?? '') !== 'string') return;
  if (!inObject.name)
    throw badRequest(`the name of the object (${name} based on URL) was undeterminable: name must be provided`);
  if (inObject.name !== name) throw badRequest(nameMismatch(inObject.name, name));
  if (namespace && inObject.namespace && inObject.namespace !== namespace)
    throw badRequest(
      `the namespace of the object (${inObject.namespace}) does not match the namespace on the request (${namespace})`,
    );
}

export function nameMismatch(inObject: string, inUrl: string): string {
  return `the name of the object (${inObject}) does not match the name on the URL (${inUrl})`;
}

export function keyFor({ stored }: Served, object: KubeObject): string {
  return stored.namespaced ? `${object.metadata.namespace}/${object.metadata.name}` : object.metadata.name;
}

export function withoutRevision(object: KubeObject): KubeObject {
  delete object.metadata.resourceVersion;
  return object;
}

/** Nothing keeps a terminating object any more. */
export function isFinished({ stored }: Served, object: KubeObject): boolean {
  const { finalizers, deletionGracePeriodSeconds } = object.metadata;
  if (finalizers?.length || deletionGracePeriodSeconds) return false;
  if (stored.group !== '' || stored.resource !== 'namespaces') return true;
  return !(object as KubeObject & { spec?: { finalizers?: string[] } }).spec?.finalizers?.length;
}

type Shaped = KubeObject & { spec?: unknown; status?: unknown };

function hasStatus({ stored }: Served): boolean {
  return stored.subresources.some(subresource => subresource.name === 'status');
}

/** The object without what an update of its kind, or of the subresource, may not bring; `object` may be changed for it. */
function isolated(
  { served, attributes }: Operation,
  { object, old, nowMs }: { object: KubeObject; old: KubeObject; nowMs: number },
): KubeObject {
  const { subresource } = attributes;
  if (subresource && subresource !== 'scale') return mergeSubresource(served, subresource, { object, old, nowMs });
  if (served.kind?.prepareUpdate) served.kind.prepareUpdate(object, old);
  else prepareUpdateGenerically(served, object, old);
  return object;
}

function countGeneration({ served, attributes }: Operation, object: KubeObject, old: KubeObject): void {
  const { metadata } = object;
  const before = old.metadata.generation;
  if (attributes.subresource !== 'status' && served.kind?.isNewGeneration?.(object, old))
    metadata.generation = (before ?? 0) + 1;
  else if (before !== undefined) metadata.generation = before;
  else if (metadata.generation !== undefined) delete metadata.generation;
}

function prepareCreateGenerically(served: Served, object: Shaped): void {
  if (!hasStatus(served)) return;
  if (object.status !== undefined) delete object.status;
}

function prepareUpdateGenerically(served: Served, object: Shaped, old: Shaped): void {
  if (!hasStatus(served)) return;
  if (old.status === undefined) delete object.status;
  else object.status = old.status;
}

// What clients leave out is kept; what they may not change and send differently is found by validation.
function carryMetadata(object: KubeObject, old: KubeObject): void {
  const metadata = object.metadata;
  const from = old.metadata;
  if (from.uid) metadata.uid ??= from.uid;
  if (from.creationTimestamp) metadata.creationTimestamp ??= from.creationTimestamp;
  if (from.generateName) metadata.generateName ??= from.generateName;
  if (from.generation === undefined) delete metadata.generation;
  else metadata.generation = from.generation;
  if (from.deletionTimestamp) metadata.deletionTimestamp = from.deletionTimestamp;
  if (from.deletionGracePeriodSeconds !== undefined)
    metadata.deletionGracePeriodSeconds ??= from.deletionGracePeriodSeconds;
  if (from.managedFields) metadata.managedFields ??= from.managedFields;
  delete metadata.selfLink;
}

/** A change of the store, whose time is part of the request's. */
function timedStore<T>(
  { trail, served }: Operation,
  of: { readonly name: string; readonly key: string },
  change: () => Promise<T>,
): Promise<T> {
  const span = activeSpan();
  const changing = span ? () => tracedStore(span, served, of, change) : change;
  return trail ? trail.time('etcd', changing) : changing();
}

/** Upstream's, whatever the store is. */
const UPDATE = 'GuaranteedUpdate etcd3';

function tracedStore<T>(
  parent: Span,
  served: Served,
  { name, key }: { readonly name: string; readonly key: string },
  change: () => Promise<T>,
): Promise<T> {
  const { stored } = served;
  const attributes = () => ({
    'audit-id': parent.attributes['audit-id'] ?? '',
    key: storeKey(served, key),
    type: served.custom ? '*unstructured.Unstructured' : `*${stored.group.split('.')[0] || 'core'}.${stored.kind}`,
    resource: groupResource(stored),
  });
  return traced(name, attributes, async () => {
    try {
      const result = await change();
      activeSpan()?.event(name === UPDATE ? 'Txn call completed' : 'Txn call succeeded');
      return result;
    } catch (error) {
      activeSpan()?.event('Txn call failed', { err: messageOf(error) });
      throw error;
    }
  });
}

/** Zero is none. */
function namesRevision({ resourceVersion }: ObjectMeta): boolean {
  return Boolean(resourceVersion) && resourceVersion !== '0';
}
