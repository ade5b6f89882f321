/**
 * Built-in types as OpenAPI schemas, version 2 or 3, with the `x-kubernetes-*` extensions that clients patch and explain by.
 * Descriptions are this project's own (`descriptions.txt`).
 */
import type { Descriptions } from './descriptions.ts';
import { type BuiltinField, groupVersionOfType, isKind, typeSchema } from './schema-registry.ts';

/** OpenAPI version: v2 has neither defaults nor enums, and no `allOf`, as upstream publishes it. */
export type Dialect = 'v2' | 'v3';

export interface JsonSchema {
  [keyword: string]: unknown;
}

/** Where a document keeps its schemas. */
export const schemaRoot: Readonly<Record<Dialect, string>> = { v2: '#/definitions/', v3: '#/components/schemas/' };

export const patchDefinition = 'io.k8s.apimachinery.pkg.apis.meta.v1.Patch';
const jsonDefinition = 'io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON';

const plain: Readonly<Record<string, JsonSchema>> = {
  string: { type: 'string' },
  bool: { type: 'boolean' },
  int32: { type: 'integer', format: 'int32' },
  int64: { type: 'integer', format: 'int64' },
  double: { type: 'number', format: 'double' },
  bytes: { type: 'string', format: 'byte' },
};

const zero: Readonly<Record<string, unknown>> = { string: '', bool: false, int32: 0, int64: 0, double: 0 };

/** Scalars that OpenAPI names, by their definition. */
const named: Readonly<Record<string, string>> = {
  time: 'io.k8s.apimachinery.pkg.apis.meta.v1.Time',
  microtime: 'io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime',
  duration: 'io.k8s.apimachinery.pkg.apis.meta.v1.Duration',
  quantity: 'io.k8s.apimachinery.pkg.api.resource.Quantity',
  intOrString: 'io.k8s.apimachinery.pkg.util.intstr.IntOrString',
  raw: 'io.k8s.apimachinery.pkg.runtime.RawExtension',
  fieldsV1: 'io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1',
  json: jsonDefinition,
};

/** Definitions that are not tables of fields; where the versions of OpenAPI differ, both. */
const opaque: Readonly<Record<string, JsonSchema | Readonly<Record<Dialect, JsonSchema>>>> = {
  [named['time']!]: { type: 'string', format: 'date-time' },
  [named['microtime']!]: { type: 'string', format: 'date-time' },
  [named['duration']!]: { type: 'string' },
  [named['quantity']!]: { v2: { type: 'string' }, v3: { oneOf: [{ type: 'string' }, { type: 'number' }] } },
  [named['intOrString']!]: {
    v2: { type: 'string', format: 'int-or-string' },
    v3: { format: 'int-or-string', oneOf: [{ type: 'integer' }, { type: 'string' }] },
  },
  [named['raw']!]: { type: 'object' },
  [named['fieldsV1']!]: { type: 'object' },
  [patchDefinition]: { type: 'object' },
  [jsonDefinition]: {},
  [`${jsonDefinition}SchemaPropsOrArray`]: {},
  [`${jsonDefinition}SchemaPropsOrBool`]: {},
  [`${jsonDefinition}SchemaPropsOrStringArray`]: {},
};

/** Fields of any JSON whose definition has a name of its own. */
const jsonFields: Readonly<Record<string, string>> = {
  'apiextensions.v1.JSONSchemaProps.items': `${jsonDefinition}SchemaPropsOrArray`,
  'apiextensions.v1.JSONSchemaProps.additionalItems': `${jsonDefinition}SchemaPropsOrBool`,
  'apiextensions.v1.JSONSchemaProps.additionalProperties': `${jsonDefinition}SchemaPropsOrBool`,
  'apiextensions.v1.JSONSchemaProps.dependencies': `${jsonDefinition}SchemaPropsOrStringArray`,
};

/** Group-versions that upstream's scheme registers, the retired ones included: the options kinds exist in each. */
const registered: Readonly<Record<string, string>> = {
  '': 'v1',
  'admission.k8s.io': 'v1 v1beta1',
  'admissionregistration.k8s.io': 'v1 v1alpha1 v1beta1',
  'apiextensions.k8s.io': 'v1 v1beta1',
  'apiregistration.k8s.io': 'v1 v1beta1',
  apps: 'v1 v1beta1 v1beta2',
  'authentication.k8s.io': 'v1 v1alpha1 v1beta1',
  'authorization.k8s.io': 'v1 v1beta1',
  autoscaling: 'v1 v2',
  batch: 'v1 v1beta1',
  'certificates.k8s.io': 'v1 v1alpha1 v1beta1',
  'coordination.k8s.io': 'v1 v1alpha2 v1beta1',
  'discovery.k8s.io': 'v1 v1beta1',
  'events.k8s.io': 'v1 v1beta1',
  extensions: 'v1beta1',
  'flowcontrol.apiserver.k8s.io': 'v1 v1beta1 v1beta2 v1beta3',
  'imagepolicy.k8s.io': 'v1alpha1',
  'internal.apiserver.k8s.io': 'v1alpha1',
  'networking.k8s.io': 'v1 v1beta1',
  'node.k8s.io': 'v1 v1alpha1 v1beta1',
  policy: 'v1 v1beta1',
  'rbac.authorization.k8s.io': 'v1 v1alpha1 v1beta1',
  'resource.k8s.io': 'v1 v1alpha3 v1beta1 v1beta2',
  'scheduling.k8s.io': 'v1 v1alpha2 v1beta1',
  'storage.k8s.io': 'v1 v1alpha1 v1beta1',
  'storagemigration.k8s.io': 'v1beta1',
};

export interface GroupVersionKind {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
}

/** Schema of a definition by its full name, and by `visit` the definitions that it refers to. */
export function definitionSchema(
  definition: string,
  type: string | undefined,
  { dialect, descriptions }: Manner,
  visit: (definition: string, type: string | undefined) => void,
): JsonSchema {
  if (type !== undefined) return new TypeRenderer(type, { dialect, descriptions }, visit).render();
  const fixed = opaque[definition]!;
  const schema = 'v2' in fixed ? (fixed as Readonly<Record<Dialect, JsonSchema>>)[dialect] : (fixed as JsonSchema);
  return { ...described(descriptions.ofType(definition)), ...schema };
}

/** How definitions are rendered. */
export interface Manner {
  readonly dialect: Dialect;
  readonly descriptions: Descriptions;
}

const described = (description: string | undefined): JsonSchema => (description === undefined ? {} : { description });

class TypeRenderer {
  readonly #type: string;
  readonly #dialect: Dialect;
  readonly #descriptions: Descriptions;
  readonly #visit: (definition: string, type: string | undefined) => void;
  readonly #properties: [string, JsonSchema][] = [];
  readonly #required: string[] = [];

  constructor(
    type: string,
    { dialect, descriptions }: Manner,
    visit: (definition: string, type: string | undefined) => void,
  ) {
    this.#type = type;
    this.#dialect = dialect;
    this.#descriptions = descriptions;
    this.#visit = visit;
  }

  render(): JsonSchema {
    const type = typeSchema(this.#type);
    this.#addFields(this.#type);
    this.#properties.sort(([a], [b]) => (a < b ? -1 : 1));
    const schema: JsonSchema = { ...described(this.#descriptions.ofType(this.#type)), type: 'object' };
    if (this.#properties.length > 0) schema['properties'] = Object.fromEntries(this.#properties);
    if (this.#required.length > 0) schema['required'] = this.#required;
    const kinds = kindsOf(this.#type);
    if (kinds.length > 0) schema['x-kubernetes-group-version-kind'] = kinds;
    if (type.structType === 'atomic') schema['x-kubernetes-map-type'] = 'atomic';
    if (type.union) {
      schema['x-kubernetes-unions'] = type.union.map(({ discriminator, fields }) => ({
        ...(discriminator === undefined ? {} : { discriminator }),
        'fields-to-discriminateBy': Object.fromEntries(
          fields.map(name => [name, name[0]!.toUpperCase() + name.slice(1)]),
        ),
      }));
    }
    return schema;
  }

  #addFields(type: string): void {
    for (const field of typeSchema(type).fields) {
      if (field.name === '') {
        this.#addFields(field.type);
        continue;
      }
      this.#properties.push([field.name, this.#field(type, field)]);
      if (field.required) this.#required.push(field.name);
    }
  }

  #field(type: string, field: BuiltinField): JsonSchema {
    const v3 = this.#dialect === 'v3';
    const jsonName = field.type.endsWith('json') ? jsonFields[`${type}.${field.name}`] : undefined;
    const schema: JsonSchema = {
      ...described(this.#descriptions.ofField(type, field.name)),
      ...this.#reference(field.type, v3 ? field.enum : undefined, jsonName),
    };
    if (v3 && field.default !== undefined) schema['default'] = field.default;
    else if (v3 && field.alwaysPresent && named[field.type] === undefined) schema['default'] = zero[field.type] ?? {};
    if (field.listMapKeys) schema['x-kubernetes-list-map-keys'] = field.listMapKeys;
    if (field.listType) schema['x-kubernetes-list-type'] = field.listType;
    if (field.mapType) schema['x-kubernetes-map-type'] = field.mapType;
    if (field.patchMergeKey) schema['x-kubernetes-patch-merge-key'] = field.patchMergeKey;
    if (field.patchStrategy) schema['x-kubernetes-patch-strategy'] = field.patchStrategy.join(',');
    if (!v3 || schema['$ref'] === undefined) return schema;
    const { $ref, ...siblings } = schema;
    return Object.keys(siblings).length === 0 ? schema : { allOf: [{ $ref }], ...siblings };
  }

  #reference(ref: string, values: readonly string[] | undefined, jsonName?: string): JsonSchema {
    if (ref.startsWith('[]')) return { type: 'array', items: this.#element(ref.slice(2), values) };
    if (ref.startsWith('map[string]')) {
      return { type: 'object', additionalProperties: this.#element(ref.slice(11), values, jsonName) };
    }
    const schema = plain[ref];
    if (schema !== undefined) return values ? { ...schema, enum: values } : { ...schema };
    const definition = jsonName ?? named[ref] ?? typeSchema(ref).openapiName;
    this.#visit(definition, named[ref] === undefined ? ref : undefined);
    return { $ref: schemaRoot[this.#dialect] + definition };
  }

  /** Elements of lists and maps are never absent, so OpenAPI v3 gives them Go's zero value as default. */
  #element(ref: string, values: readonly string[] | undefined, jsonName?: string): JsonSchema {
    const schema = this.#reference(ref, values, jsonName);
    if (this.#dialect === 'v2') return schema;
    if (zero[ref] !== undefined) return { ...schema, default: zero[ref] };
    return ref.includes('.') && !ref.startsWith('[') ? { allOf: [schema], default: {} } : schema;
  }
}

function kindsOf(type: string): GroupVersionKind[] {
  const kind = type.slice(type.lastIndexOf('.') + 1);
  if (type === 'meta.v1.DeleteOptions' || type === 'meta.v1.WatchEvent') {
    return Object.entries(registered).flatMap(([group, versions]) =>
      versions.split(' ').map(version => ({ group, kind, version })),
    );
  }
  if (!isKind(type)) return [];
  const [group, version] = type.startsWith('meta.') ? ['', 'v1'] : groupVersionOfType(type);
  return [{ group, kind, version }];
}
