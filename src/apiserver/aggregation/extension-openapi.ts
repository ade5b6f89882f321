/**
 * OpenAPI of extension servers, so that clients find their kinds in our documents: the version 3 document of each group-version, and
 * what of their version 2 document lies below their paths. Servers that know version 2 only have it turned into version 3. Asked for when
 * somebody asks us, and kept for a minute. A server that tells nothing is left out, never waited for long.
 */

import { createHash } from 'node:crypto';
import type { JsonSchema } from '../../api/openapi-schema.ts';

const KEPT_MS = 60_000;

type Document = Readonly<Record<string, unknown>>;
type Get = (path: string) => Promise<unknown>;

/** What one group-version of an extension server adds to our documents. */
export interface ExtensionOpenapi {
  /** `apis/wardle.example.com/v1`. */
  readonly path: string;
  readonly hash: string;
  readonly v3: JsonSchema;
  /** Paths and definitions of version 2, below its path only; undefined when the server has none. */
  readonly v2: { readonly paths: Document; readonly definitions: Document } | undefined;
}

/** Documents by group-version, each asked for again after a minute. */
export class ExtensionOpenapis {
  readonly #known = new Map<string, { readonly atMs: number; readonly found: ExtensionOpenapi | undefined }>();

  /** Those of the group-versions given; the same array as before while nothing has changed. */
  #last: readonly ExtensionOpenapi[] = [];

  async all(
    servers: readonly { readonly path: string; readonly get: Get }[],
    nowMs: number,
  ): Promise<readonly ExtensionOpenapi[]> {
    for (const path of this.#known.keys()) if (!servers.some(server => server.path === path)) this.#known.delete(path);
    await Promise.all(
      servers.map(async ({ path, get }) => {
        const known = this.#known.get(path);
        if (known && nowMs - known.atMs < KEPT_MS) return;
        this.#known.set(path, { atMs: nowMs, found: await fetchOpenapi(path, get) });
      }),
    );
    const now = [...this.#known.values()].flatMap(({ found }) => found ?? []);
    const isSame =
      now.length === this.#last.length &&
      now.every((one, at) => one.path === this.#last[at]!.path && one.hash === this.#last[at]!.hash);
    if (!isSame) this.#last = now;
    return this.#last;
  }
}

async function fetchOpenapi(path: string, get: Get): Promise<ExtensionOpenapi | undefined> {
  const silent = () => undefined;
  const [index, whole] = await Promise.all([get('/openapi/v3').catch(silent), get('/openapi/v2').catch(silent)]);
  const v2 = isDocument(whole) ? below(path, whole) : undefined;
  const where = entryOf(index, path);
  const own = where === undefined ? undefined : await get(where).catch(silent);
  const v3 = isDocument(own) && isDocument(own['components']) ? own : v2 && asVersion3(v2);
  if (!v3) return undefined;
  const hash = createHash('sha512')
    .update(JSON.stringify([v3, v2]))
    .digest('hex')
    .toUpperCase();
  return { path, hash, v3, v2 };
}

const isDocument = (value: unknown): value is Document => typeof value === 'object' && value !== null;

function entryOf(index: unknown, path: string): string | undefined {
  const paths = isDocument(index) && isDocument(index['paths']) ? index['paths'] : {};
  const entry = paths[path];
  const url = isDocument(entry) ? entry['serverRelativeURL'] : undefined;
  // What a server names is a path on that server, and nothing else.
  return typeof url === 'string' && url.startsWith('/') && !url.startsWith('//') ? url : undefined;
}

function below(path: string, { paths, definitions }: Document): ExtensionOpenapi['v2'] {
  if (!isDocument(paths) || !isDocument(definitions)) return undefined;
  const own = Object.entries(paths).filter(([one]) => one.startsWith(`/${path}/`));
  if (own.length === 0) return undefined;
  const reached = new Map<string, unknown>();
  const visit = (value: unknown): void => {
    if (!isDocument(value)) return;
    const name = typeof value['$ref'] === 'string' ? value['$ref'].slice('#/definitions/'.length) : undefined;
    if (name !== undefined && !reached.has(name) && Object.hasOwn(definitions, name)) {
      reached.set(name, definitions[name]);
      visit(definitions[name]);
    }
    for (const inner of Object.values(value)) visit(inner);
  };
  for (const [, item] of own) visit(item);
  return { paths: Object.fromEntries(own), definitions: Object.fromEntries([...reached].sort()) };
}

/** The same in version 3: bodies, replies and parameters have their schemas elsewhere there. */
function asVersion3({ paths, definitions }: NonNullable<ExtensionOpenapi['v2']>): JsonSchema {
  const converted = {
    openapi: '3.0.0',
    info: { title: 'Kubernetes', version: 'v0' },
    paths: Object.fromEntries(Object.entries(paths).map(([path, item]) => [path, pathItem(item as Document)])),
    components: { schemas: definitions },
  };
  return JSON.parse(JSON.stringify(converted).replaceAll('"#/definitions/', '"#/components/schemas/')) as JsonSchema;
}

const METHODS = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch'];

function pathItem(item: Document): Document {
  return Object.fromEntries(
    Object.entries(item).map(([name, value]) => [
      name,
      METHODS.includes(name)
        ? operation(value as Document)
        : name === 'parameters'
          ? (value as Document[]).map(parameter)
          : value,
    ]),
  );
}

function operation({ consumes, produces, schemes: _, parameters, responses, ...rest }: Document): Document {
  const all = (parameters ?? []) as Document[];
  const body = all.find(one => one['in'] === 'body');
  const media = (types: unknown, schema: unknown) =>
    Object.fromEntries((Array.isArray(types) ? (types as string[]) : ['*/*']).map(type => [type, { schema }]));
  return {
    ...rest,
    parameters: all.filter(one => one !== body).map(parameter),
    ...(body ? { requestBody: { content: media(consumes, body['schema']), required: body['required'] === true } } : {}),
    responses: Object.fromEntries(
      Object.entries((responses ?? {}) as Record<string, Document>).map(([code, { schema, ...reply }]) => [
        code,
        schema === undefined ? reply : { ...reply, content: media(produces, schema) },
      ]),
    ),
  };
}

function parameter({ type, uniqueItems, format, items, ...rest }: Document): Document {
  return {
    ...rest,
    schema: {
      type,
      ...(uniqueItems ? { uniqueItems } : {}),
      ...(format ? { format } : {}),
      ...(items ? { items } : {}),
    },
  };
}
