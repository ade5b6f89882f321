/**
 * The behaviour of one version of a custom resource, made from its definition: what a built-in kind's file says in code, a
 * definition says in data.
 */

import { isDeepStrictEqual } from 'node:util';
import { hasRules, ruleProblems } from '../../api/apiextensions/schema-rules.ts';
import { blocksRules, duplicateItems, validateSchema } from '../../api/apiextensions/schema-validation.ts';
import { compilePath, fieldsOfPath, type Read } from '../../api/apiextensions/simple-path.ts';
import {
  isObject,
  type JsonObject,
  type LazySchema,
  type SchemaNode,
  setField,
} from '../../api/apiextensions/structural-schema.ts';
import type {
  CustomResourceColumnDefinition,
  CustomResourceDefinition,
  CustomResourceDefinitionVersion,
} from '../../api/apiextensions/v1.gen.ts';
import type { Column, Kind } from '../../api/kind.ts';
import { ageColumn, nameColumn } from '../../api/machinery/columns.ts';
import { ageSince } from '../../api/machinery/duration.ts';
import type { KubeObject } from '../../api/meta.ts';
import { type FieldError, failure, fieldErrors } from '../../base/errors.ts';
import { ratcheted } from './ratcheting.ts';

export interface CustomKindOptions {
  readonly definition: CustomResourceDefinition;
  readonly version: CustomResourceDefinitionVersion;
  readonly schema: LazySchema;
  /** A stored object in this version. */
  readonly show: (object: KubeObject) => KubeObject;
}

export function customKind({ definition, version, schema, show }: CustomKindOptions): Kind {
  const { group } = definition.spec;
  const { kind } = definition.status?.acceptedNames ?? definition.spec.names;
  const hasStatus = version.subresources?.status !== undefined;
  const scale = scaleOf(version, show);
  return {
    group,
    version: version.name,
    kind,
    unconditionalUpdate: false,
    ratchets: true,
    prepareCreate(object) {
      if (definition.metadata.deletionTimestamp)
        throw failure(405, 'MethodNotAllowed', 'create not allowed while custom resource definition is terminating');
      if (hasStatus) delete (object as unknown as JsonObject)['status'];
    },
    prepareUpdate(object, old) {
      const [fields, before] = [object as unknown as JsonObject, old as unknown as JsonObject];
      if (hasStatus) {
        if (before['status'] === undefined) delete fields['status'];
        else fields['status'] = before['status'];
      }
    },
    isNewGeneration(object, old) {
      const { metadata: _, ...now } = object;
      const { metadata: __, ...then } = old;
      return !isDeepStrictEqual(now, then);
    },
    validate: object => withRules(schema.node, problemsOf(schema.node, object), object),
    validateUpdate: (object, old) =>
      withRules(schema.node, ratcheted(schema.node, { object, old }, problemsOf), object, old),
    validateStatusUpdate: (object, old) =>
      withRules(schema.node, ratcheted(schema.node, { object, old }, problemsOf), object, old),
    columns: columnsOf(version, show),
    selectableFields: Object.fromEntries(
      (version.selectableFields ?? []).flatMap(({ jsonPath }) => {
        const read = compilePath(jsonPath);
        return read ? [[jsonPath.replace(/^\./, ''), (object: KubeObject) => textOf(read(show(object))[0])]] : [];
      }),
    ),
    ...(scale ? { scale } : {}),
    ...(version.deprecated
      ? {
          deprecation: version.deprecationWarning ?? `${group}/${version.name} ${kind} is deprecated`,
        }
      : {}),
  };
}

function problemsOf(schema: SchemaNode, object: KubeObject): FieldError[] {
  const errors = validateSchema(schema.source, object);
  errors.push(...duplicateItems(schema, object));
  return errors;
}

/** Rules are run only on what is sound enough for them. */
function withRules(schema: SchemaNode, errors: FieldError[], object: KubeObject, old?: KubeObject): FieldError[] {
  if (!hasRules(schema)) return errors;
  return blocksRules(errors) ? [...errors, NOT_CHECKED] : [...errors, ...ruleProblems(schema, object, old)];
}

const NOT_CHECKED = fieldErrors.invalid(
  '<nil>',
  null,
  'some validation rules were not checked because the object was invalid; correct the existing errors to complete validation',
);

function textOf(value: unknown): string {
  return value === undefined || value === null ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value);
}

function columnsOf(
  version: CustomResourceDefinitionVersion,
  show: (object: KubeObject) => KubeObject,
): Column<KubeObject>[] {
  const defined = version.additionalPrinterColumns ?? [];
  if (defined.length === 0) return [nameColumn, { ...ageColumn, type: 'date' }];
  return [
    nameColumn,
    ...defined.map((column): Column<KubeObject> => {
      const read = compilePath(column.jsonPath);
      return {
        name: column.name,
        type: column.type as Column<KubeObject>['type'],
        description: column.description ?? '',
        ...(column.format ? { format: column.format } : {}),
        ...(column.priority ? { priority: column.priority } : {}),
        cell: (object, nowMs) => cellOf(column, read ? read(show(object)) : [], nowMs),
      };
    }),
  ];
}

type Cell = string | number | boolean | null;

/** As upstream's table convertor: a value of another type than the column's is not shown. */
function cellOf({ type, jsonPath }: CustomResourceColumnDefinition, values: readonly unknown[], nowMs: number): Cell {
  if (values.length === 0 || values[0] === null) return null;
  const [value] = values;
  switch (type) {
    case 'integer':
      return typeof value === 'number' ? Math.trunc(value) : null;
    case 'number':
      return typeof value === 'number' ? value : null;
    case 'boolean':
      return typeof value === 'boolean' ? value : null;
    case 'date':
      return typeof value === 'string' ? dateText(value, nowMs) : null;
    default:
      return jsonPath.includes('[*]') || jsonPath.includes('?(') || values.length > 1
        ? values.map(textOf).join(' ')
        : textOf(value);
  }
}

function dateText(value: string, nowMs: number): string {
  return Number.isNaN(Date.parse(value)) ? '<invalid>' : ageSince(value, nowMs);
}

function scaleOf(version: CustomResourceDefinitionVersion, show: (object: KubeObject) => KubeObject): Kind['scale'] {
  const paths = version.subresources?.scale;
  if (!paths) return undefined;
  const specFields = fieldsOfPath(paths.specReplicasPath) ?? ['spec', 'replicas'];
  const numberAt = (read: Read | undefined) => (object: KubeObject) => {
    const value = read?.(show(object))[0];
    return typeof value === 'number' ? value : 0;
  };
  const selector = paths.labelSelectorPath ? compilePath(paths.labelSelectorPath) : undefined;
  return {
    replicas: numberAt(compilePath(paths.specReplicasPath)),
    statusReplicas: numberAt(compilePath(paths.statusReplicasPath)),
    selector: object => textOf(selector?.(show(object))[0]),
    setReplicas(object, replicas) {
      let at = object as unknown as JsonObject;
      for (const name of specFields.slice(0, -1)) {
        if (!isObject(at[name])) setField(at, name, {});
        at = at[name] as JsonObject;
      }
      setField(at, specFields.at(-1)!, replicas);
    },
  };
}
