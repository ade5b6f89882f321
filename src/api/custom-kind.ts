/**
 * CustomResourceDefinitions written by us, in short: schemas by the words below, one version, the columns of `kubectl get`.
 * Pure. A `metadata` of its own, several versions and conversion are not for it.
 */

import type { CustomResourceDefinition } from './apiextensions/v1.gen.ts';

export type Schema = Readonly<Record<string, unknown>>;

export const string = { type: 'string' } as const;
export const boolean = { type: 'boolean' } as const;
export const integer = (minimum: number, maximum: number) => ({ type: 'integer', minimum, maximum }) as const;
export const array = (items: Schema, more: Schema = {}) => ({ type: 'array', items, ...more }) as const;
export const about = (description: string, schema: Schema): Schema => ({ ...schema, description });
export const object = (properties: Readonly<Record<string, Schema>>, more: Schema = {}) =>
  ({ type: 'object', properties, ...more }) as const;
/** An object with exactly one of the properties. */
export const oneOf = (properties: Readonly<Record<string, Schema>>): Schema =>
  object(properties, { minProperties: 1, maxProperties: 1 });

export const SELECTOR = object(
  {
    matchLabels: { type: 'object', additionalProperties: string },
    matchExpressions: array(
      object(
        {
          key: string,
          operator: { type: 'string', enum: ['In', 'NotIn', 'Exists', 'DoesNotExist'] },
          values: array(string, { 'x-kubernetes-list-type': 'atomic' }),
        },
        { required: ['key', 'operator'] },
      ),
      { 'x-kubernetes-list-type': 'atomic' },
    ),
  },
  { 'x-kubernetes-map-type': 'atomic' },
);

/** `status.conditions`, one of a type. */
export const CONDITIONS = array(
  object(
    {
      type: { ...string, maxLength: 316 },
      status: { ...string, enum: ['True', 'False', 'Unknown'] },
      observedGeneration: { type: 'integer', format: 'int64', minimum: 0 },
      lastTransitionTime: { ...string, format: 'date-time' },
      reason: { ...string, minLength: 1, maxLength: 1024 },
      message: { ...string, maxLength: 32_768 },
    },
    { required: ['type', 'status', 'lastTransitionTime', 'reason', 'message'] },
  ),
  { 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] },
);

export interface CustomKind {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly plural: string;
  readonly shortNames?: readonly string[];
  readonly spec: Schema;
  readonly isSpecRequired?: boolean;
  readonly status?: Schema;
  /** Rules (CEL) about the whole object. */
  readonly rules?: readonly { readonly rule: string; readonly message: string }[];
  /** Header and JSON path of what `kubectl get` shows. */
  readonly columns: readonly (readonly [name: string, jsonPath: string, type?: string])[];
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Cluster-scoped. */
export function definitionOf(of: CustomKind): CustomResourceDefinition {
  const { group, version, kind, plural, shortNames, status, rules, columns, annotations } = of;
  const schema = {
    type: 'object',
    properties: { spec: of.spec, ...(status ? { status } : {}) },
    ...(of.isSpecRequired ? { required: ['spec'] } : {}),
    ...(rules ? { 'x-kubernetes-validations': rules } : {}),
  };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${group}`, ...(annotations ? { annotations } : {}) },
    spec: {
      group,
      scope: 'Cluster',
      names: {
        kind,
        listKind: `${kind}List`,
        plural,
        singular: kind.toLowerCase(),
        ...(shortNames ? { shortNames: [...shortNames] } : {}),
      },
      versions: [
        {
          name: version,
          served: true,
          storage: true,
          schema: { openAPIV3Schema: schema },
          ...(status ? { subresources: { status: {} } } : {}),
          additionalPrinterColumns: [
            ...columns.map(([name, jsonPath, type = 'string']) => ({ name, jsonPath, type })),
            { name: 'Age', jsonPath: '.metadata.creationTimestamp', type: 'date' },
          ],
        },
      ],
    },
  } as CustomResourceDefinition;
}
