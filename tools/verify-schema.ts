/**
 * Compares our schemas, resources and OpenAPI with the OpenAPI v2 document of upstream v1.36, and prints every difference:
 * groups, versions, kinds, fields, types, required fields, list types and keys, patch strategies and merge keys, unions,
 * paths, operations, parameters and replies.
 *
 *   node26 tools/verify-schema.ts [reference.json]     default: $KUBERNETES_OPENAPI, then ../shared/data/…
 *
 * Exits 1 when something differs, 0 when nothing does or the reference is absent. Descriptions are not compared.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Descriptions } from '../src/api/descriptions.ts';
import { openapiV2Document } from '../src/api/openapi.ts';
import { definitionSchema, type JsonSchema } from '../src/api/openapi-schema.ts';
import { apiGroupOrder } from '../src/api/resources.ts';
import { typeNames, typeSchema } from '../src/api/schema-registry.ts';

/**
 * Types that only we have, because no path of the API server mentions them: bodies of webhooks, of aggregated discovery
 * and of options in query strings, and the JSON inside annotations (HPA v1 metrics, avoided pods).
 */
const beyondReference =
  /^(admission|apidiscovery)\.|ConversionRe\w+$|Options$|^meta\.v1\.(GroupVersion|PartialObjectMetadata)|^core\.v1\.(AvoidPods|PodSignature|PreferAvoidPodsEntry|Preconditions|RangeAllocation|PodStatusResult|SerializedReference)$|^autoscaling\.v1\.\w*Metric|^autoscaling\.v1\.HorizontalPodAutoscalerCondition$/;

interface Reference {
  readonly definitions: Readonly<Record<string, JsonSchema>>;
  readonly parameters: Readonly<Record<string, JsonSchema>>;
  readonly paths: Readonly<Record<string, Readonly<Record<string, JsonSchema>>>>;
}

const file =
  process.argv[2] ??
  process.env['KUBERNETES_OPENAPI'] ??
  join(import.meta.dirname, '../../shared/data/kubernetes-openapi-v1.36.json');
if (!existsSync(file)) {
  console.log(`verify-schema: skipped, no reference at ${file}`);
  process.exit(0);
}
const reference: Reference = JSON.parse(readFileSync(file, 'utf8'));
const differences: string[] = [];

/** Deep comparison of two JSON values; objects by key. */
function compare(path: string, ours: unknown, theirs: unknown): void {
  if (Array.isArray(ours) && Array.isArray(theirs) && ours.length === theirs.length) {
    for (const [index, value] of ours.entries()) compare(`${path}[${index}]`, value, theirs[index]);
  } else if (isObject(ours) && isObject(theirs)) {
    for (const key of new Set([...Object.keys(ours), ...Object.keys(theirs)])) {
      if (key === 'description' && typeof (ours[key] ?? theirs[key]) === 'string') continue;
      if (ours[key] !== undefined || theirs[key] !== undefined) compare(`${path} ${key}`, ours[key], theirs[key]);
    }
  } else if (ours !== theirs) {
    differences.push(`${path}: ours ${JSON.stringify(ours)}, reference ${JSON.stringify(theirs)}`);
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function compareDefinitions(): number {
  const types = new Map(typeNames().map(name => [typeSchema(name).openapiName, name]));
  const opaque = new Map<string, undefined>();
  const ours = new Map<string, JsonSchema>();
  const manner = { dialect: 'v2' as const, descriptions: new Descriptions(new Map()) };
  for (const [definition, type] of types) {
    const visit = (name: string, of: string | undefined) => of === undefined && opaque.set(name, undefined);
    ours.set(definition, definitionSchema(definition, type, manner, visit));
  }
  for (const name of [...opaque.keys(), 'io.k8s.apimachinery.pkg.apis.meta.v1.Patch']) {
    ours.set(
      name,
      definitionSchema(name, undefined, manner, () => {}),
    );
  }
  for (const name of Object.keys(reference.definitions)) {
    const schema = ours.get(name);
    if (schema === undefined) differences.push(`${name}: missing`);
    else compare(name, schema, reference.definitions[name]);
  }
  const inlined = new Set(
    typeNames().flatMap(name =>
      typeSchema(name)
        .fields.filter(field => field.name === '')
        .map(field => field.type),
    ),
  );
  for (const [definition, type] of types) {
    if (definition in reference.definitions || inlined.has(type) || beyondReference.test(type)) continue;
    differences.push(`${definition}: not in reference`);
  }
  return ours.size;
}

/** The paths of the group-versions that are served by default, with shared parameters resolved and order made equal. */
function comparePaths(): number {
  const ours = openapiV2Document({ release: 'unversioned' })['paths'] as Reference['paths'];
  const served = new Set(
    apiGroupOrder.flatMap(({ group, versions }) => versions.map(version => `/apis/${group}/${version}/`)),
  );
  const isServed = (path: string) => {
    const [, root, group, version] = path.split('/');
    if (root === 'logs') return false;
    if (root !== 'apis' || !group) return true;
    return version ? served.has(`/apis/${group}/${version}/`) : apiGroupOrder.some(entry => entry.group === group);
  };
  for (const path of new Set([...Object.keys(ours), ...Object.keys(reference.paths).filter(isServed)])) {
    const [own, other] = [ours[path], reference.paths[path]];
    if (own === undefined || other === undefined) differences.push(`${path}: only in ${own ? 'ours' : 'reference'}`);
    else compare(path, normalItem(own), normalItem(other));
  }
  return Object.keys(ours).length;
}

function normalItem(item: Readonly<Record<string, JsonSchema>>): JsonSchema {
  const normal: JsonSchema = {};
  for (const [method, operation] of Object.entries(item)) {
    normal[method] = method === 'parameters' ? normalParameters(operation) : normalOperation(operation);
  }
  return normal;
}

function normalOperation(operation: JsonSchema): JsonSchema {
  const { consumes, produces, parameters, ...rest } = operation;
  // Media types of CBOR are not served, and the discovery endpoints mention it here and there.
  const known = (types: unknown) => (types as string[] | undefined)?.filter(type => !type.includes('cbor'));
  const normal = { ...rest, consumes: known(consumes), produces: known(produces) };
  return parameters === undefined ? normal : { ...normal, parameters: normalParameters(parameters) };
}

function normalParameters(parameters: unknown): JsonSchema {
  const resolved = (parameters as JsonSchema[]).map(parameter => {
    const name = /^#\/parameters\/(.*)$/.exec(String(parameter['$ref'] ?? ''))?.[1];
    return name === undefined ? parameter : reference.parameters[name]!;
  });
  return Object.fromEntries(resolved.map(parameter => [`${parameter['in']} ${parameter['name']}`, parameter]));
}

const definitions = compareDefinitions();
const paths = comparePaths();
for (const difference of differences) console.error(difference);
console.log(`verify-schema: ${definitions} definitions, ${paths} paths, ${differences.length} differences`);
process.exitCode = differences.length > 0 ? 1 : 0;
