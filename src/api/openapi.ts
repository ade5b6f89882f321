/**
 * The documents of `/openapi/v2` and `/openapi/v3`, made on demand from schemas and resource tables. Pure: nothing is
 * cached here and nothing is served; a document is a plain object that the caller serialises and keeps or drops, or,
 * since a thousand definitions make it large, its parts, each in the form that the caller wants, made step by step.
 * The protobuf form of v2 is in `openapi-protobuf.ts`.
 */
import { createHash } from 'node:crypto';
import { Descriptions, descriptionText } from './descriptions.ts';
import {
  type Body,
  capital,
  groupWord,
  type Operation,
  type Parameter,
  type PathItem,
  resourcePaths,
} from './openapi-paths.ts';
import {
  type Dialect,
  definitionSchema,
  type GroupVersionKind,
  type JsonSchema,
  patchDefinition,
  schemaRoot,
} from './openapi-schema.ts';
import { apiGroupOrder, builtinResources } from './resources.ts';
import type { ResourceInfo } from './schema.ts';
import { typeOfKind, typeSchema } from './schema-registry.ts';

/** A resource that a CustomResourceDefinition serves. */
export interface CustomResource {
  readonly info: ResourceInfo;
  /** `openAPIV3Schema` of the version; absent: any fields. */
  readonly schema?: JsonSchema;
  /** Of the schema, where it is known already. */
  readonly hash?: string;
}

export interface OpenapiOptions {
  /** Identifies the build, so that clients' caches end with it. */
  readonly release: string;
  /** Default: those that every server serves. */
  readonly builtin?: readonly ResourceInfo[];
  readonly custom?: readonly CustomResource[];
}

export interface OpenapiDocument {
  /** Path below `/openapi/v3/`, `apis/apps/v1`. */
  readonly path: string;
  /** Changes whenever the document may have changed. */
  readonly hash: string;
  readonly build: () => JsonSchema;
  /** As `build`, in steps. */
  readonly parts: <T>(keep: Keep<T>) => Parts<T>;
}

/** Turns an entry of a document into the form that it is wanted in. */
export type Keep<T> = (of: 'path' | 'schema', name: string, value: JsonSchema) => T;

/** Comes to the entries of a document, in order of their names. */
export type Parts<T> = Generator<void, DocumentParts<T>>;

export interface DocumentParts<T> {
  readonly paths: readonly (readonly [name: string, T])[];
  readonly schemas: readonly (readonly [name: string, T])[];
}

const mediaTypes = ['application/json', 'application/yaml', 'application/vnd.kubernetes.protobuf'];
const streamTypes = ['application/json;stream=watch', 'application/vnd.kubernetes.protobuf;stream=watch'];
/** Forms of custom resources, which have neither protobuf nor a strategic merge. */
const customTypes = ['application/json', 'application/yaml'];
const patchTypes = [
  'application/json-patch+json',
  'application/merge-patch+json',
  'application/strategic-merge-patch+json',
  'application/apply-patch+yaml',
];
const metaTypes: Readonly<Record<string, string>> = {
  DeleteOptions: 'meta.v1.DeleteOptions',
  Status: 'meta.v1.Status',
  WatchEvent: 'meta.v1.WatchEvent',
};
const securityScheme = {
  description: 'Bearer Token authentication',
  in: 'header',
  name: 'authorization',
  type: 'apiKey',
};

/** A document but for its paths and schemas, which stand where these stand. */
export function openapiFrame(dialect: Dialect, release: string, paths: JsonSchema, schemas: JsonSchema): JsonSchema {
  const info = { title: 'Kubernetes', version: release };
  if (dialect === 'v3')
    return {
      openapi: '3.0.0',
      info,
      paths,
      components: { schemas, securitySchemes: { BearerToken: securityScheme } },
    };
  return {
    swagger: '2.0',
    info,
    paths,
    definitions: schemas,
    securityDefinitions: { BearerToken: securityScheme },
    security: [{ BearerToken: [] }],
  };
}

function whole(dialect: Dialect, release: string, steps: Parts<JsonSchema>): JsonSchema {
  let step = steps.next();
  while (!step.done) step = steps.next();
  const { paths, schemas } = step.value;
  return openapiFrame(dialect, release, Object.fromEntries(paths), Object.fromEntries(schemas));
}
const itself: Keep<JsonSchema> = (_of, _name, value) => value;

/** The v3 documents in order of their paths. */
export function openapiV3Documents({
  release,
  builtin = builtinResources,
  custom = [],
}: OpenapiOptions): OpenapiDocument[] {
  const documents: OpenapiDocument[] = [];
  const prose = createHash('sha256').update(descriptionText()).digest('hex');
  const add = (
    path: string,
    content: unknown,
    build: <T>(builder: DocumentBuilder<T>) => Iterable<void> | undefined,
  ) => {
    const hash = createHash('sha512')
      .update(JSON.stringify([release, prose, path, content]))
      .digest('hex')
      .toUpperCase();
    function* parts<T>(keep: Keep<T>): Parts<T> {
      const builder = new DocumentBuilder('v3', { builtin, custom }, keep);
      yield* build(builder) ?? [];
      return yield* builder.finish();
    }
    documents.push({ path, hash, build: () => whole('v3', release, parts(itself)), parts });
  };
  const addPage = (path: string, content: unknown, page: Page) =>
    add(path, content, builder => {
      builder.addPage(page);
      return undefined;
    });
  for (const page of staticPages) addPage(page.path.replace(/^\/|\/$/g, ''), page, page);
  for (const { group, versions } of servedGroups([...builtin, ...custom.map(({ info }) => info)])) {
    if (group !== '') addPage(`apis/${group}`, 0, groupPage(group));
    for (const version of versions) {
      const home = group === '' ? `api/${version}` : `apis/${group}/${version}`;
      const own = custom
        .filter(resource => resource.info.group === group && resource.info.version === version)
        .map(resource => (resource.hash ? { info: resource.info, hash: resource.hash } : resource));
      add(home, own, builder => builder.addGroupVersion(group, version));
    }
  }
  return documents.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Body of `/openapi/v3`. */
export function openapiV3Index(documents: readonly Pick<OpenapiDocument, 'path' | 'hash'>[]): JsonSchema {
  const entry = ({ path, hash }: Pick<OpenapiDocument, 'path' | 'hash'>) => ({
    serverRelativeURL: `/openapi/v3/${path}?hash=${hash}`,
  });
  return { paths: Object.fromEntries(documents.map(document => [document.path, entry(document)])) };
}

/** Body of `/openapi/v2`. */
export function openapiV2Document(options: OpenapiOptions): JsonSchema {
  return whole('v2', options.release, openapiV2Parts(options, itself));
}

/** The entries of `/openapi/v2`, in steps. */
export function* openapiV2Parts<T>(
  { builtin = builtinResources, custom = [] }: OpenapiOptions,
  keep: Keep<T>,
): Parts<T> {
  const builder = new DocumentBuilder('v2', { builtin, custom }, keep);
  for (const page of staticPages) builder.addPage(page);
  for (const { group, versions } of servedGroups([...builtin, ...custom.map(({ info }) => info)])) {
    if (group !== '') builder.addPage(groupPage(group));
    for (const version of versions) yield* builder.addGroupVersion(group, version);
  }
  return yield* builder.finish();
}

interface Page {
  readonly path: string;
  readonly id: string;
  readonly tag: string;
  readonly mediaTypes: readonly string[];
  /** Short name of the reply's type; absent: text. */
  readonly reply?: string;
}

const staticPages: readonly Page[] = [
  {
    path: '/.well-known/openid-configuration/',
    id: 'getServiceAccountIssuerOpenIDConfiguration',
    tag: 'WellKnown',
    mediaTypes: ['application/json'],
  },
  { path: '/api/', id: 'getCoreAPIVersions', tag: 'core', mediaTypes, reply: 'meta.v1.APIVersions' },
  { path: '/apis/', id: 'getAPIVersions', tag: 'apis', mediaTypes, reply: 'meta.v1.APIGroupList' },
  {
    path: '/openid/v1/jwks/',
    id: 'getServiceAccountIssuerOpenIDKeyset',
    tag: 'openid',
    mediaTypes: ['application/jwk-set+json'],
  },
  { path: '/version/', id: 'getCodeVersion', tag: 'version', mediaTypes: ['application/json'], reply: 'version.Info' },
];

function groupPage(group: string): Page {
  const word = groupWord(group);
  return {
    path: `/apis/${group}/`,
    id: `get${capital(word)}APIGroup`,
    tag: word,
    mediaTypes,
    reply: 'meta.v1.APIGroup',
  };
}

function servedGroups(infos: readonly ResourceInfo[]): { group: string; versions: string[] }[] {
  const groups = new Map(apiGroupOrder.map(({ group, versions }) => [group, new Set(versions)]));
  for (const info of infos) {
    const versions = groups.get(info.group);
    if (versions) versions.add(info.version);
    else groups.set(info.group, new Set([info.version]));
  }
  return [...groups].map(([group, versions]) => ({ group, versions: [...versions].sort() }));
}

class DocumentBuilder<T> {
  readonly #keep: Keep<T>;
  readonly #dialect: Dialect;
  readonly #descriptions = new Descriptions();
  readonly #builtin: readonly ResourceInfo[];
  readonly #custom: readonly CustomResource[];
  readonly #paths = new Map<string, T>();
  readonly #definitions = new Map<string, T>();
  /** Definitions that are referred to but not yet made, with the type that describes them. */
  readonly #pending = new Map<string, string | undefined>();

  constructor(dialect: Dialect, { builtin, custom }: Omit<Required<OpenapiOptions>, 'release'>, keep: Keep<T>) {
    this.#keep = keep;
    this.#dialect = dialect;
    this.#builtin = builtin;
    this.#custom = custom;
  }

  addPage({ path, id, tag, mediaTypes, reply }: Page): void {
    const schema = reply === undefined ? { type: 'string' } : this.#typeReference(reply);
    const operation = { operationId: id, tags: [tag] };
    const responses = this.#responses([200], schema, mediaTypes);
    const v2 = { consumes: reply === undefined ? undefined : mediaTypes, produces: mediaTypes, schemes: ['https'] };
    this.#setPath(path, { get: { ...operation, ...(this.#dialect === 'v2' ? v2 : {}), responses } });
  }

  *addGroupVersion(group: string, version: string): Generator<void> {
    const word = groupWord(group);
    const tag = `${word}_${version}`;
    this.addPage({
      path: `${group === '' ? '/api' : `/apis/${group}`}/${version}/`,
      id: `get${capital(word)}${capital(version)}APIResources`,
      tag,
      mediaTypes,
      reply: 'meta.v1.APIResourceList',
    });
    const serves = (info: ResourceInfo) => info.group === group && info.version === version;
    for (const resource of this.#builtin) {
      if (serves(resource)) this.#addPaths(resourcePaths(resource, false), tag);
    }
    yield;
    for (const resource of this.#custom) {
      if (!serves(resource.info)) continue;
      this.#addCustom(resource, tag);
      yield;
    }
  }

  *finish(): Parts<T> {
    const manner = { dialect: this.#dialect, descriptions: this.#descriptions };
    for (const [definition, type] of this.#pending) {
      const visit = (name: string, of: string | undefined) => this.#refer(name, of);
      this.#define(definition, definitionSchema(definition, type, manner, visit));
      this.#pending.delete(definition);
      yield;
    }
    return { paths: sorted(this.#paths), schemas: sorted(this.#definitions) };
  }

  #setPath(path: string, item: JsonSchema): void {
    this.#paths.set(path, this.#keep('path', path, item));
  }
  #define(name: string, definition: JsonSchema): void {
    this.#definitions.set(name, this.#keep('schema', name, definition));
  }

  #addPaths(items: readonly PathItem[], tag: string, isCustom = false): void {
    for (const { path, parameters, operations } of items) {
      const item: JsonSchema = {};
      for (const operation of operations) item[operation.method] = this.#operation(operation, tag, isCustom);
      item['parameters'] = parameters.map(parameter => this.#parameter(parameter));
      this.#setPath(path, item);
    }
  }

  #addCustom({ info, schema }: CustomResource, tag: string): void {
    const { group, version, kind, listKind } = info;
    const name = customName(info, kind);
    const extension = (kind: string) => [{ group, kind, version }];
    const meta = (type: string) => {
      const reference = this.#typeReference(type);
      const description = this.#descriptions.ofField('', 'metadata');
      return this.#dialect === 'v2' ? { ...reference, description } : { allOf: [reference], description };
    };
    const isV2 = this.#dialect === 'v2';
    // Clients of v2 take named fields to be all there are: an object that may have any has none of them.
    const isOpen = schema === undefined || (isV2 && schema['x-kubernetes-preserve-unknown-fields'] === true);
    const own = isOpen
      ? isV2
        ? {}
        : { 'x-kubernetes-preserve-unknown-fields': true }
      : isV2
        ? withoutV3(schema)
        : schema;
    this.#define(name, {
      type: 'object',
      ...own,
      ...(own['properties'] === undefined
        ? {}
        : {
            properties: {
              ...(own['properties'] as JsonSchema),
              ...this.#typeMeta(),
              metadata: meta('meta.v1.ObjectMeta'),
            },
          }),
      'x-kubernetes-group-version-kind': extension(kind),
    });
    this.#define(customName(info, listKind), {
      type: 'object',
      description: `A list of ${kind} objects.`,
      required: ['items'],
      properties: {
        ...this.#typeMeta(),
        items: { type: 'array', items: { $ref: schemaRoot[this.#dialect] + name } },
        metadata: meta('meta.v1.ListMeta'),
      },
      'x-kubernetes-group-version-kind': extension(listKind),
    });
    this.#addPaths(resourcePaths(info, true), tag, true);
  }

  #typeMeta(): JsonSchema {
    const field = (name: string) => ({ description: this.#descriptions.ofField('', name), type: 'string' });
    return { apiVersion: field('apiVersion'), kind: field('kind') };
  }

  #operation(operation: Operation, tag: string, isCustom: boolean): JsonSchema {
    const { id, action, kind, parameters, body, reply, codes } = operation;
    const patches = isCustom ? patchTypes.filter(type => !type.includes('strategic')) : patchTypes;
    const consumes = body === 'Patch' ? patches : isCustom && body !== undefined ? customTypes : ['*/*'];
    const produces = isCustom ? customTypes : action === 'connect' ? ['*/*'] : this.#produces(operation);
    const list = parameters.map(parameter => this.#parameter(parameter));
    const common = { operationId: id, tags: [tag], 'x-kubernetes-action': action };
    const rest = {
      responses: this.#responses(codes, this.#body(reply), produces),
      'x-kubernetes-group-version-kind': kind,
    };
    const required = body !== 'DeleteOptions';
    if (this.#dialect === 'v3') {
      const schema = body === undefined ? undefined : this.#body(body);
      return {
        ...common,
        ...(list.length > 0 ? { parameters: list } : {}),
        ...(schema ? { requestBody: { content: contents(consumes, schema), ...(required ? { required } : {}) } } : {}),
        ...rest,
      };
    }
    if (body !== undefined) {
      list.unshift({ in: 'body', name: 'body', ...(required ? { required } : {}), schema: this.#body(body) });
    }
    return {
      ...common,
      consumes,
      produces,
      schemes: ['https'],
      ...(list.length > 0 ? { parameters: list } : {}),
      ...rest,
    };
  }

  #produces({ reply, streams }: Operation): readonly string[] {
    if (reply === 'text') return ['text/plain', ...mediaTypes];
    return streams ? [...mediaTypes, ...streamTypes] : mediaTypes;
  }

  #responses(codes: readonly number[], schema: JsonSchema, produces: readonly string[]): JsonSchema {
    const responses: JsonSchema = {};
    for (const code of codes) {
      const description = ({ 200: 'OK', 201: 'Created', 202: 'Accepted' } as Record<number, string>)[code];
      const body = this.#dialect === 'v3' ? { content: contents(produces, schema) } : { schema };
      responses[code] = { description, ...body };
    }
    responses['401'] = { description: 'Unauthorized' };
    return responses;
  }

  #parameter({ name, in: place, type }: Parameter): JsonSchema {
    const where = { name, in: place, ...(place === 'path' ? { required: true } : {}) };
    const shape = { type, uniqueItems: true };
    return this.#dialect === 'v3' ? { ...where, schema: shape } : { ...where, ...shape };
  }

  #body(body: Body): JsonSchema {
    if (body === 'text') return { type: 'string' };
    if (body === 'Patch') return this.#reference(patchDefinition, undefined);
    if (typeof body === 'string') return this.#typeReference(metaTypes[body]!);
    const { group, version, kind } = body.kind;
    const type = typeOfKind(group, version, kind);
    return type === undefined ? this.#reference(customName(body.kind, kind), undefined) : this.#typeReference(type);
  }

  #typeReference(type: string): JsonSchema {
    return this.#reference(typeSchema(type).openapiName, type);
  }

  #reference(definition: string, type: string | undefined): JsonSchema {
    this.#refer(definition, type);
    return { $ref: schemaRoot[this.#dialect] + definition };
  }

  #refer(definition: string, type: string | undefined): void {
    if (!this.#definitions.has(definition)) this.#pending.set(definition, type);
  }
}

function contents(mediaTypes: readonly string[], schema: JsonSchema): JsonSchema {
  return Object.fromEntries(mediaTypes.map(mediaType => [mediaType, { schema }]));
}

/** Entries in order of their names. */
export function sorted<T>(map: ReadonlyMap<string, T>): [string, T][] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** `com.example.stable.v1.CronTab` for group `stable.example.com`. */
function customName({ group, version }: Pick<GroupVersionKind, 'group' | 'version'>, kind: string): string {
  return [...group.split('.').reverse(), version, kind].join('.');
}

/** A structural schema without what OpenAPI v2 cannot say, so that v2 clients accept every valid object. */
function withoutV3(schema: JsonSchema): JsonSchema {
  const { oneOf: _o, anyOf: _a, allOf: _l, not: _n, nullable, default: _d, ...rest } = schema;
  if (nullable === true || rest['x-kubernetes-int-or-string'] === true) delete rest['type'];
  if (rest['x-kubernetes-preserve-unknown-fields'] === true || nullable === true) {
    const { properties: _p, items: _i, additionalProperties: _x, required: _r, ...open } = rest;
    // Of an object or a list without a word of what is in it they know too much: no null may stand there.
    if (open['type'] === 'object' || open['type'] === 'array') delete open['type'];
    return open;
  }
  for (const keyword of ['items', 'additionalProperties']) {
    const inner = rest[keyword];
    if (typeof inner === 'object' && inner !== null) rest[keyword] = withoutV3(inner as JsonSchema);
  }
  const properties = rest['properties'] as Readonly<Record<string, JsonSchema>> | undefined;
  if (properties !== undefined) {
    rest['properties'] = Object.fromEntries(
      Object.entries(properties).map(([name, inner]) => [name, withoutV3(inner)]),
    );
  }
  return rest;
}
