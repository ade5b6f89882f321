/**
 * One stored object as the API server keeps it: canonical JSON bytes, ready to be sent, and the parsed object, made when
 * first asked for and frozen. Invariant: both say the same, resourceVersion included.
 *
 * What the store holds is the same JSON with an empty resourceVersion, because the revision is known only after the
 * write; the number is spliced in at that place.
 */

import type { KubeObject, ObjectMeta } from '../api/meta.ts';
import { assert } from '../base/assert.ts';

// As bytes: a string would be encoded anew for each search.
const PLACEHOLDER = Buffer.from('"resourceVersion":""');

export class Entry {
  /** `namespace/name`, or `name`. */
  readonly key: string;
  readonly revision: number;
  /** Either as stored, or spliced already. */
  #source: Buffer;
  /** Where the digits of resourceVersion begin in spliced bytes; -1 before that. */
  #digitsAt = -1;
  #object: KubeObject | undefined;
  #frozen = false;

  /** `object` is the parsed value when the caller has it; the entry then owns it. */
  constructor(options: { key: string; revision: number; value: Uint8Array; object?: KubeObject | undefined }) {
    const { key, revision, value, object } = options;
    this.key = key;
    this.revision = revision;
    this.#source = Buffer.isBuffer(value) ? value : Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    if (object) {
      this.#object = object;
      object.metadata.resourceVersion = String(revision);
    }
  }
  get bytes(): Buffer {
    if (this.#digitsAt < 0) {
      this.#digitsAt = placeIn(this.#source);
      this.#source = replace(this.#source, this.#digitsAt, 0, String(this.revision));
    }
    return this.#source;
  }
  /** Bytes as stored, that is without the revision. */
  get size(): number {
    return this.#source.length - (this.#digitsAt < 0 ? 0 : String(this.revision).length);
  }
  /** The bytes in pieces, for a reader that copies them anyway: most objects are sent once, when they are written. */
  get parts(): readonly Buffer[] {
    const source = this.#source;
    if (this.#digitsAt >= 0) return [source];
    const at = placeIn(source);
    return [source.subarray(0, at), Buffer.from(String(this.revision)), source.subarray(at)];
  }
  get object(): KubeObject {
    this.#object ??= JSON.parse(this.bytes.toString()) as KubeObject;
    if (!this.#frozen) {
      deepFreeze(this.#object);
      this.#frozen = true;
    }
    return this.#object;
  }
  /** Whether the object is stored as exactly these bytes. */
  holds(value: Buffer): boolean {
    const { bytes } = this;
    const digits = String(this.revision).length;
    const at = this.#digitsAt;
    return (
      bytes.length - digits === value.length &&
      bytes.compare(value, 0, at, 0, at) === 0 &&
      bytes.compare(value, at, value.length, at + digits) === 0
    );
  }
  /** The same object at another revision: what a deletion reports. */
  at(revision: number): Entry {
    const value = replace(this.bytes, this.#digitsAt, String(this.revision).length, '');
    return new Entry({ key: this.key, revision, value });
  }
}

function placeIn(source: Buffer): number {
  const at = source.indexOf(PLACEHOLDER);
  assert(at > 0, 'a stored object has no place for its resourceVersion');
  return at + PLACEHOLDER.length - 1;
}

/** Bytes of an object for the store; `object` must be canonical with resourceVersion ''. */
export function encode(object: KubeObject): Buffer {
  const json = JSON.stringify(object);
  // Out of Node's pool: bytes that stay would keep the whole block alive, with all that was written beside them and is done with.
  const bytes = Buffer.allocUnsafeSlow(Buffer.byteLength(json));
  bytes.write(json);
  return bytes;
}

function replace(source: Buffer, at: number, oldLength: number, text: string): Buffer {
  const bytes = Buffer.allocUnsafeSlow(source.length - oldLength + text.length);
  source.copy(bytes, 0, 0, at);
  for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
  source.copy(bytes, at + text.length, at + oldLength);
  return bytes;
}

/**
 * Top-level and metadata fields in the order in which upstream writes them, so that the placeholder comes before any text a
 * user controls; resourceVersion is ''. The parts below are shared with the object given, which is the caller's no more.
 */
export function canonical(object: KubeObject): KubeObject {
  const from = object.metadata;
  const metadata: ObjectMeta = { name: from.name };
  if (from.generateName) metadata.generateName = from.generateName;
  if (from.namespace) metadata.namespace = from.namespace;
  if (from.uid) metadata.uid = from.uid;
  metadata.resourceVersion = '';
  if (from.generation) metadata.generation = from.generation;
  if (from.creationTimestamp) metadata.creationTimestamp = from.creationTimestamp;
  if (from.deletionTimestamp) metadata.deletionTimestamp = from.deletionTimestamp;
  if (from.deletionGracePeriodSeconds !== undefined && from.deletionGracePeriodSeconds !== null)
    metadata.deletionGracePeriodSeconds = from.deletionGracePeriodSeconds;
  if (!isEmpty(from.labels)) metadata.labels = from.labels!;
  if (!isEmpty(from.annotations)) metadata.annotations = from.annotations!;
  if (from.ownerReferences?.length) metadata.ownerReferences = from.ownerReferences;
  if (from.finalizers?.length) metadata.finalizers = from.finalizers;
  if (from.managedFields?.length) metadata.managedFields = from.managedFields;
  const [first, second, third] = Object.keys(object);
  if (first === 'kind' && second === 'apiVersion' && third === 'metadata') {
    object.metadata = metadata;
    return object;
  }
  const { kind, apiVersion, metadata: _, ...rest } = object;
  return { kind, apiVersion, metadata, ...rest };
}

function isEmpty(map: object | undefined | null): boolean {
  if (!map) return true;
  for (const _ in map) return false;
  return true;
}

export function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  Object.freeze(value);
  if (Array.isArray(value)) for (const item of value) deepFreeze(item);
  else for (const key in value) deepFreeze(value[key]);
  return value;
}

/** A copy that may be changed; JSON values only. */
export function thaw<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(thaw) as T;
  const copy: Record<string, unknown> = {};
  for (const key in value) put(copy, key, thaw(value[key]));
  return copy as T;
}

/** `__proto__` is a key like others. */
export function put(object: Record<string, unknown>, key: string, value: unknown): void {
  if (key !== '__proto__') object[key] = value;
  else Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true });
}

/** Undefined for what the object itself does not have. */
export function own(object: Readonly<Record<string, unknown>>, key: string): unknown {
  return key !== '__proto__' || Object.hasOwn(object, key) ? object[key] : undefined;
}
