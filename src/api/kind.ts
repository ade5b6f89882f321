/**
 * A built-in kind: data plus small pure functions. REST, watch, discovery, OpenAPI and tables follow from its schema;
 * what is here is only what cannot be derived. One folder an API group holds its kinds; `src/api/kinds.ts` is the
 * ordered registry array. Kinds absent from it are served by their schema alone (`genericKind`).
 */

import type { FieldError } from '../base/errors.ts';
import type { KubeObject } from './meta.ts';

/** One column of `kubectl get`, as upstream's printers define it. `priority` 1 shows only with `-o wide`. */
/** Of `meta.k8s.io/v1` Tables. */
export interface RowCondition {
  readonly type: 'Completed';
  readonly status: 'True';
  readonly reason: string;
  readonly message: string;
}

export interface Column<T> {
  readonly name: string;
  readonly type: 'string' | 'integer' | 'number' | 'boolean' | 'date';
  readonly format?: string;
  readonly description?: string;
  readonly priority?: number;
  readonly cell: (object: T, nowMs: number) => string | number | boolean | null;
}

export interface Kind<T extends KubeObject = KubeObject> {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  /** Fills defaults; changes the object given. Idempotent: runs on create, on update and on patch results. */
  readonly defaults?: (object: T) => void;
  /** Before a create: drop status and other server-owned fields. Changes the object given. */
  readonly prepareCreate?: (object: T) => void;
  /**
   * Before an update of the main resource: carry over what clients may not change (status). Changes `object`; `old` is frozen.
   * May run twice: admission may put another object in its place. Without it: status is carried over.
   */
  readonly prepareUpdate?: (object: T, old: T) => void;
  /**
   * Whether an update (of anything but the status) asks for something else than before: it raises metadata.generation, which
   * begins with 1. Objects of kinds without it have no generation.
   */
  readonly isNewGeneration?: (object: T, old: T) => boolean;
  /** Before an update of `/status`: everything but status (and what upstream lets through) is carried over from `old`. */
  readonly prepareStatusUpdate?: (object: T, old: T) => void;
  /** After that: what follows from the change, such as times and what goes with something that was taken away. Changes `object`; may run twice. */
  readonly settleStatus?: (object: T, old: T, nowMs: number) => void;
  /** Whole-object validation (metadata is validated generically before). `group`: as which the client sent it, when that matters. */
  readonly validate?: (object: T, group?: string) => readonly FieldError[];
  /** Additional rules between old and new, e.g. immutable fields. `validate` runs as well. */
  readonly validateUpdate?: (object: T, old: T, group?: string) => readonly FieldError[];
  /** `validateUpdate` finds all that `validate` would, and forgives what was wrong before. */
  readonly ratchets?: true;
  /** An update is forgiven what `validate` finds in the stored object as well: kinds that hold pods, whose rules grow. */
  readonly forgivesStored?: true;
  readonly validateStatusUpdate?: (object: T, old: T) => readonly FieldError[];
  /**
   * Rules of an update through a subresource other than status and scale (`ephemeralcontainers`, `resize`), by its name;
   * they replace `validate` and `validateUpdate`, which the registry runs for subresources without an entry.
   */
  readonly validateSubresourceUpdate?: Readonly<Record<string, (object: T, old: T) => readonly FieldError[]>>;
  /** Rules for metadata.name; default DNS-1123 subdomain. Returns messages. */
  readonly validateName?: (name: string, prefix: boolean) => readonly string[];
  /** Extra field selectors beside metadata.name and metadata.namespace: `spec.nodeName` … */
  readonly selectableFields?: Readonly<Record<string, (object: T) => string>>;
  readonly columns?: readonly Column<T>[];
  /** What a table says of an object's row: that it has run to its end. */
  readonly rowConditions?: (object: T) => readonly RowCondition[];
  /** The order of a table's rows, where it is not that of names. */
  readonly rowOrder?: (a: T, b: T) => number;
  /** True when PUT to an absent name creates it (upstream AllowCreateOnUpdate: leases, endpoints, rbac no …). */
  readonly createOnUpdate?: boolean;
  /** True when an update may omit resourceVersion (upstream AllowUnconditionalUpdate). Default true. */
  readonly unconditionalUpdate?: boolean;
  /** Grace period in seconds for a delete (pods); undefined: deleted at once. */
  readonly deletionGraceSeconds?: (object: T, askedSeconds: number | undefined) => number;
  /** Marks an object whose deletion begins; changes the object given. */
  readonly prepareDelete?: (object: T, nowMs: number) => void;
  /** Paths of the `scale` subresource; label selector as string is `selector(object)`. */
  readonly scale?: {
    readonly replicas: (object: T) => number;
    readonly setReplicas: (object: T, replicas: number) => void;
    readonly statusReplicas: (object: T) => number;
    readonly selector: (object: T) => string;
  };
  /** Warning sent with every reply about the kind: that it is deprecated, and what comes after it. */
  readonly deprecation?: string;
  /** Warnings sent in `Warning:` headers on create and update of the main resource. */
  readonly warnings?: (object: T, old: T | undefined) => readonly string[];
  /** As `warnings`, of an update of `/status`. */
  readonly statusWarnings?: (object: T, old: T) => readonly string[];
}

/** Fixes T for a literal: `export const pod = defineKind<Pod>({ … })`. */
export function defineKind<T extends KubeObject>(kind: Kind<T>): Kind<KubeObject> {
  return kind as unknown as Kind<KubeObject>;
}
