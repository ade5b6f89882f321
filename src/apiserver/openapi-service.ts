/** Serves the OpenAPI documents: made when first asked for, and then kept only as compressed bytes, for they are large. */

import { createHash } from 'node:crypto';
import { gunzipSync, gzipSync } from 'node:zlib';
import {
  type OpenapiDocument,
  type OpenapiOptions,
  openapiV2Document,
  openapiV3Documents,
  openapiV3Index,
} from '../api/openapi.ts';
import { openapiV2Protobuf } from '../api/openapi-protobuf.ts';
import type { JsonSchema } from '../api/openapi-schema.ts';
import { ownSchema } from '../api/own-definitions.ts';
import { describedSchema, type OwnDescriptions, ownDescriptions } from '../api/own-descriptions.ts';
import type { ExtensionOpenapi } from './aggregation/extension-openapi.ts';
import type { ResourceTable } from './resource-table.ts';

/** Key of the v2 document's protobuf form beside the paths. */
export const V2_PROTOBUF = '/openapi/v2+protobuf';
export const V2_PROTOBUF_TYPE = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf';

export interface Served {
  readonly gzipped: Buffer;
  readonly etag: string;
}

export class OpenapiService {
  readonly #release: string;
  readonly #served = new Map<string, Served>();
  readonly #table: ResourceTable;
  #documents: Map<string, OpenapiDocument> | undefined;
  #extensions: readonly ExtensionOpenapi[] = [];
  /** Of the table, when the documents were made. */
  #version = 0;

  constructor(release: string, table: ResourceTable) {
    this.#release = release;
    this.#table = table;
  }
  /** Takes in what extension servers serve, in place of what they served before. */
  merge(extensions: readonly ExtensionOpenapi[]): void {
    if (extensions === this.#extensions) return;
    this.#extensions = extensions;
    this.#renew();
  }
  /** By URL path; undefined for another path. */
  find(path: string): Served | undefined {
    if (this.#version !== this.#table.version) this.#renew();
    const known = this.#served.get(path);
    if (known) return known;
    if (path === '/openapi/v2' || path === V2_PROTOBUF) {
      const document = withExtensions(openapiV2Document(this.#options()), this.#extensions);
      if (path === '/openapi/v2') return this.#keep(path, document);
      return this.#keepBytes(path, openapiV2Protobuf(document));
    }
    if (path === '/openapi/v3') return this.#keep(path, openapiV3Index([...this.#all().values()]));
    const document = this.#all().get(path);
    return document && this.#keep(path, document.build(), document.hash);
  }
  #options(): OpenapiOptions {
    let texts: OwnDescriptions | undefined;
    const custom = this.#table.custom.map(({ info, custom }) => {
      const schema = custom!.published as JsonSchema;
      if (!ownSchema(`${info.resource}.${info.group}`, info.version)) return { info, schema };
      // Made when it is looked at: a text at every field makes it several times as large.
      return {
        info,
        get schema() {
          return describedSchema(info.kind, schema, (texts ??= ownDescriptions())) as JsonSchema;
        },
      };
    });
    return { release: this.#release, builtin: this.#table.builtin, custom };
  }
  // Documents of group-versions that have not changed keep their hash, and with it their bytes.
  #renew(): void {
    const before = this.#documents;
    this.#version = this.#table.version;
    this.#documents = undefined;
    for (const path of [...this.#served.keys()])
      if (!before?.has(path) || path.startsWith('/openapi/v2')) this.#served.delete(path);
    const now = this.#all();
    for (const [path, document] of before ?? []) if (now.get(path)?.hash !== document.hash) this.#served.delete(path);
  }
  #all(): Map<string, OpenapiDocument> {
    if (!this.#documents) {
      const all = openapiV3Documents(this.#options());
      const ours = new Set(all.map(({ path }) => path));
      for (const { path, hash, v3 } of this.#extensions) if (!ours.has(path)) all.push({ path, hash, build: () => v3 });
      all.sort((a, b) => (a.path < b.path ? -1 : 1));
      this.#documents = new Map(all.map(document => [`/openapi/v3/${document.path}`, document]));
    }
    return this.#documents;
  }
  #keep(path: string, value: unknown, hash?: string): Served {
    return this.#keepBytes(path, Buffer.from(JSON.stringify(value)), hash);
  }
  #keepBytes(path: string, bytes: Buffer, hash?: string): Served {
    const etag = hash ?? createHash('sha512').update(bytes).digest('hex').toUpperCase();
    const served = { gzipped: gzipSync(bytes, { level: 6 }), etag: `"${etag}"` };
    this.#served.set(path, served);
    return served;
  }
}

/** Our version 2 document with theirs; a definition of the same name is ours. */
function withExtensions(document: JsonSchema, extensions: readonly ExtensionOpenapi[]): JsonSchema {
  if (extensions.length === 0) return document;
  const { paths, definitions } = document as { paths: object; definitions: object };
  const parts = [...extensions.flatMap(({ v2 }) => v2 ?? [])].reverse();
  return {
    ...document,
    paths: Object.assign({}, ...parts.map(part => part.paths), paths),
    definitions: Object.assign({}, ...parts.map(part => part.definitions), definitions),
  };
}

export function plainBytes({ gzipped }: Served): Buffer {
  return gunzipSync(gzipped);
}
