/**
 * How objects of one version of a custom resource are read and written. Invariant: what is shown has the fields and
 * defaults of the version's present schema, whatever schema they were stored under.
 */

import { pruneUnknown, withDefaults } from '../../api/apiextensions/schema-fields.ts';
import { isObject, type JsonObject, type LazySchema, setField } from '../../api/apiextensions/structural-schema.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { ResourceInfo } from '../../api/schema.ts';
import {
  checkFields,
  duplicateFields,
  type FieldProblems,
  type FieldValidation,
  normalize,
} from '../../api/structural.ts';
import type { FieldTable, Scope } from '../apply/structure.ts';
import { deepFreeze } from '../entry.ts';
import { apiVersionOf, type CustomShape } from '../resource-table.ts';
import { customFields } from './field-structure.ts';
import type { WebhookConverter } from './webhook-converter.ts';

/** What every object has, whatever its kind. */
const PARTIAL = 'meta.v1.PartialObjectMetadata';
const STRICT_ERRORS_MAX = 100;

export interface CustomShapeOptions {
  readonly info: ResourceInfo;
  readonly stored: ResourceInfo;
  readonly schema: LazySchema;
  readonly ended: AbortSignal;
  /** Of definitions whose versions only a webhook can convert. */
  readonly converter?: WebhookConverter | undefined;
}

export class StructuralShape implements CustomShape {
  readonly ended: AbortSignal;
  readonly published: object;
  readonly prepare?: NonNullable<CustomShape['prepare']>;
  readonly toStored?: NonNullable<CustomShape['toStored']>;
  readonly #converter: WebhookConverter | undefined;
  readonly #schema: LazySchema;
  readonly #apiVersion: string;
  readonly #storedApiVersion: string;
  readonly #kind: string;
  readonly #fields = new Map<Scope, FieldTable>();
  readonly #shown = new WeakMap<KubeObject, KubeObject>();

  constructor({ info, stored, schema, ended, converter }: CustomShapeOptions) {
    this.#schema = schema;
    this.published = schema.source;
    this.#apiVersion = apiVersionOf(info);
    this.#storedApiVersion = apiVersionOf(stored);
    this.#kind = info.kind;
    this.ended = ended;
    this.#converter = converter;
    if (!converter) return;
    this.prepare = objects => converter.learn(objects, this.#apiVersion);
    this.toStored = object =>
      object.apiVersion === this.#storedApiVersion ? undefined : this.#convertToStored(converter, object);
  }
  async #convertToStored(converter: WebhookConverter, object: KubeObject): Promise<KubeObject> {
    const [converted] = await converter.convert([object], this.#storedApiVersion);
    return converted!;
  }

  check(object: unknown, mode: FieldValidation, text?: string): FieldProblems {
    if (!isObject(object)) return checkFields(PARTIAL, object, mode);
    const { apiVersion, kind, metadata } = object;
    const { mismatch, strict } = checkFields(PARTIAL, { apiVersion, kind, metadata }, mode);
    if (mismatch !== undefined || mode === 'Ignore') return mismatch === undefined ? { strict } : { mismatch, strict };
    const found = [...strict];
    pruneUnknown(this.#schema.node, object, path => found.push(`unknown field "${textOf(path)}"`));
    if (text !== undefined) for (const path of duplicateFields(text)) found.push(`duplicate field "${path}"`);
    return { strict: found.slice(0, STRICT_ERRORS_MAX) };
  }

  decode(object: KubeObject): KubeObject {
    const { metadata } = normalize(PARTIAL, {
      apiVersion: this.#apiVersion,
      kind: this.#kind,
      metadata: object.metadata ?? { name: '' },
    });
    const pruned = withDefaults(this.#schema.node, pruneUnknown(this.#schema.node, { ...object, metadata }));
    // The registry changes what it gets.
    return { ...pruned };
  }

  store(object: KubeObject): KubeObject {
    const sorted: JsonObject = {};
    const fields = object as unknown as JsonObject;
    for (const name of Object.keys(fields).sort()) setField(sorted, name, fields[name]);
    return { ...sorted, metadata: { ...object.metadata }, apiVersion: this.#storedApiVersion } as unknown as KubeObject;
  }

  show(object: KubeObject): KubeObject {
    let shown = this.#shown.get(object);
    if (shown !== undefined) return shown;
    const known = this.#converter ? this.#converter.known(object, this.#apiVersion) : undefined;
    const isSame = object.apiVersion === this.#apiVersion;
    const converted = known ?? (isSame ? object : { ...object, apiVersion: this.#apiVersion });
    const pruned = pruneUnknown(this.#schema.node, converted);
    shown = deepFreeze(this.#schema.node.hasDefaults ? withDefaults(this.#schema.node, pruned) : pruned);
    // What was only renamed may be asked for again when the webhook has answered.
    if (!this.#converter || known) this.#shown.set(object, shown);
    if (shown !== object) this.#shown.set(shown, shown);
    return shown;
  }

  fields(scope: Scope): FieldTable {
    let table = this.#fields.get(scope);
    if (!table) this.#fields.set(scope, (table = customFields(this.#schema.node, scope)));
    return table;
  }
}

/** `spec.containers[0].name` */
function textOf(path: readonly (string | number)[]): string {
  let text = '';
  for (const step of path) text += typeof step === 'number' ? `[${step}]` : text === '' ? step : `.${step}`;
  return text;
}
