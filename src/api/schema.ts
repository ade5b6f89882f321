/**
 * The shape of API types as data: the vocabulary in which `schema.gen.json` describes every built-in kind, and from
 * which REST, field validation, strategic merge, OpenAPI, protobuf and the TypeScript interfaces follow.
 * Pure data; it never holds behaviour of a kind (that is in `src/api/<group>/`).
 */

/**
 * A type reference: a scalar name, `[]T`, `map[string]T`, or the short name of a message such as `core.v1.PodSpec`
 * (group's first label, version, message; `meta.v1` for apimachinery).
 * Scalars: string bool int32 int64 double bytes time microtime duration quantity intOrString raw json fieldsV1.
 */
export type TypeRef = string;

export interface FieldSchema {
  /** JSON name; `''` for an inlined field, whose type's fields belong to the outer object. */
  readonly name: string;
  readonly type: TypeRef;
  /** protobuf field number. */
  readonly number: number;
  readonly required?: true;
  readonly listType?: 'atomic' | 'set' | 'map';
  readonly listMapKeys?: readonly string[];
  readonly mapType?: 'atomic' | 'granular';
  readonly patchStrategy?: readonly ('merge' | 'replace' | 'retainKeys')[];
  readonly patchMergeKey?: string;
  readonly enum?: readonly string[];
  readonly default?: unknown;
}

export interface TypeSchema {
  /** Short name, `core.v1.PodSpec`. */
  readonly name: string;
  /** OpenAPI definition name, `io.k8s.api.core.v1.PodSpec`. */
  readonly openapiName: string;
  readonly fields: readonly FieldSchema[];
  readonly structType?: 'atomic' | 'granular';
  /** Present on unions that carry `+union` markers. */
  readonly union?: readonly { readonly discriminator?: string; readonly fields: readonly string[] }[];
}

/** One served resource of one group-version. */
export interface ResourceInfo {
  /** '' for the core group. */
  readonly group: string;
  readonly version: string;
  /** Plural, as in the URL. */
  readonly resource: string;
  readonly singular: string;
  readonly kind: string;
  readonly listKind: string;
  readonly namespaced: boolean;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  readonly verbs: readonly string[];
  /** Short name of the message that describes the kind. */
  readonly type: string;
  readonly subresources: readonly SubresourceInfo[];
  /** group/version that is stored when the same kind is served in several (events, autoscaling). */
  readonly storageVersion?: { readonly group: string; readonly version: string };
}

export interface SubresourceInfo {
  /** `status`, `scale`, `log`, `exec`, `binding` … */
  readonly name: string;
  readonly verbs: readonly string[];
  /** Kind of the body when it differs from the parent: Scale, Binding, Eviction, TokenRequest, PodExecOptions … */
  readonly kind?: { readonly group: string; readonly version: string; readonly kind: string };
}
