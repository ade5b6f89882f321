/**
 * Serves the OpenAPI documents: made when first asked for, and then kept only as compressed bytes, for they are large. With a
 * thousand definitions making one takes seconds, so it is done in short steps between which other requests have their turn.
 */

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { createGzip, gunzip } from 'node:zlib';
import {
  type DocumentParts,
  type Keep,
  type OpenapiOptions,
  openapiFrame,
  openapiV2Parts,
  openapiV3Documents,
  openapiV3Index,
  type Parts,
  sorted,
} from '../api/openapi.ts';
import { definitionEntry, openapiV2Message, pathEntry } from '../api/openapi-protobuf.ts';
import type { Dialect, JsonSchema } from '../api/openapi-schema.ts';
import { ownSchema } from '../api/own-definitions.ts';
import { describedSchema, type OwnDescriptions, ownDescriptions } from '../api/own-descriptions.ts';
import type { ExtensionOpenapi } from './aggregation/extension-openapi.ts';
import type { ResourceTable } from './resource-table.ts';

/** Key of the v2 document's protobuf form beside the paths. */
export const V2_PROTOBUF = '/openapi/v2+protobuf';
export const V2_PROTOBUF_TYPE = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf';

/** Others wait for so long at most, or for one definition. */
const STEP_MS = 4;
/** Pieces that go to the compressor together. */
const BLOCK_BYTES = 256 * 1024;

export interface Served {
  readonly gzipped: Buffer;
  readonly etag: string;
}

interface Document {
  /** Below `/openapi/v3/`. */
  readonly path: string;
  readonly hash: string;
  readonly make: () => Promise<Buffer[]>;
}

/** What there is to be told of, at one time. */
interface Snapshot {
  readonly version: number;
  readonly extensions: readonly ExtensionOpenapi[];
  readonly options: OpenapiOptions;
  /** Of version 3, by URL path. */
  readonly documents: ReadonlyMap<string, Document>;
  readonly making: Map<string, Promise<Served>>;
}

export class OpenapiService {
  readonly #release: string;
  readonly #table: ResourceTable;
  readonly #hashes = new WeakMap<object, string>();
  /** Of the newest snapshot. */
  readonly #served = new Map<string, Served>();
  #extensions: readonly ExtensionOpenapi[] = [];
  #newest: Snapshot | undefined;
  #looking: Promise<void> | undefined;

  constructor(release: string, table: ResourceTable) {
    this.#release = release;
    this.#table = table;
  }
  /** Takes in what extension servers serve, in place of what they served before. */
  merge(extensions: readonly ExtensionOpenapi[]): void {
    this.#extensions = extensions;
  }
  /** By URL path; undefined for another path. */
  async find(path: string): Promise<Served | undefined> {
    const snapshot = await this.#snapshot();
    const known = this.#newest === snapshot ? this.#served.get(path) : undefined;
    if (known) return known;
    const isThere =
      path === '/openapi/v2' || path === V2_PROTOBUF || path === '/openapi/v3' || snapshot.documents.has(path);
    if (!isThere) return undefined;
    let making = snapshot.making.get(path);
    if (!making) {
      making = this.#make(path, snapshot);
      snapshot.making.set(path, making);
      const done = () => snapshot.making.delete(path);
      making.then(done, done);
    }
    return making;
  }

  /** Whoever has seen a definition take effect finds it. */
  async #snapshot(): Promise<Snapshot> {
    const { version } = this.#table;
    for (;;) {
      const newest = this.#newest;
      if (newest && newest.version >= version && newest.extensions === this.#extensions) return newest;
      this.#looking ??= this.#look().finally(() => {
        this.#looking = undefined;
      });
      await this.#looking;
    }
  }
  async #look(): Promise<void> {
    const { version } = this.#table;
    const extensions = this.#extensions;
    const options = await this.#options();
    const all = new Map<string, Document>();
    for (const { path, hash, v3 } of extensions)
      all.set(path, { path, hash, make: async () => [Buffer.from(JSON.stringify(v3))] });
    for (const { path, hash, parts } of openapiV3Documents(options))
      all.set(path, { path, hash, make: () => jsonBytes('v3', this.#release, parts(jsonEntry)) });
    const documents = new Map(sorted(all).map(([path, document]) => [`/openapi/v3/${path}`, document]));
    // Documents of group-versions that have not changed keep their bytes.
    for (const path of [...this.#served.keys()]) {
      const hash = documents.get(path)?.hash;
      if (hash === undefined || hash !== this.#newest?.documents.get(path)?.hash) this.#served.delete(path);
    }
    this.#newest = { version, extensions, options, documents, making: new Map() };
  }
  async #options(): Promise<OpenapiOptions> {
    let texts: OwnDescriptions | undefined;
    const custom = this.#table.custom.map(({ info, custom }) => {
      const published = custom!.published as JsonSchema;
      const isOwn = ownSchema(`${info.resource}.${info.group}`, info.version) !== undefined;
      // Made when it is looked at: a text at every field makes it several times as large.
      const make = () =>
        isOwn ? (describedSchema(info.kind, published, (texts ??= ownDescriptions())) as JsonSchema) : published;
      return { info, published, make };
    });
    return inSteps(this.#hashed({ release: this.#release, builtin: this.#table.builtin }, custom));
  }
  *#hashed(
    options: OpenapiOptions,
    custom: readonly {
      readonly info: NonNullable<OpenapiOptions['custom']>[number]['info'];
      readonly published: JsonSchema | undefined;
      readonly make: () => JsonSchema;
    }[],
  ): Generator<void, OpenapiOptions> {
    const found: { info: (typeof custom)[number]['info']; hash: string; readonly schema: JsonSchema }[] = [];
    for (const { info, published, make } of custom) {
      let hash = published && this.#hashes.get(published);
      if (hash === undefined) {
        hash = createHash('sha256')
          .update(JSON.stringify(make()) ?? '')
          .digest('hex');
        if (published) this.#hashes.set(published, hash);
        yield;
      }
      found.push({
        info,
        hash,
        get schema() {
          return make();
        },
      });
    }
    return { ...options, custom: found };
  }

  async #make(path: string, snapshot: Snapshot): Promise<Served> {
    const { extensions, options, documents } = snapshot;
    const document = documents.get(path);
    const served = document
      ? await compressed(await document.make(), document.hash)
      : path === '/openapi/v3'
        ? await compressed([Buffer.from(JSON.stringify(openapiV3Index([...documents.values()])))])
        : path === '/openapi/v2'
          ? await compressed(await jsonBytes('v2', this.#release, withExtensions(options, extensions, jsonEntry)))
          : await compressed(await this.#v2Message(options, extensions));
    if (this.#newest === snapshot) this.#served.set(path, served);
    return served;
  }
  async #v2Message(options: OpenapiOptions, extensions: readonly ExtensionOpenapi[]): Promise<Buffer[]> {
    const keep: Keep<Buffer> = (of, name, value) =>
      of === 'path' ? pathEntry(name, value) : definitionEntry(name, value);
    const { paths, schemas } = await inSteps(withExtensions(options, extensions, keep));
    const bytes = (entries: DocumentParts<Buffer>['paths']) => entries.map(([, entry]) => entry);
    const frame = openapiFrame('v2', this.#release, {}, {});
    return openapiV2Message(frame, { paths: bytes(paths), definitions: bytes(schemas) });
  }
}

/** Does the steps, with turns for others between them. */
async function inSteps<T>(steps: Generator<void, T>): Promise<T> {
  let sinceMs = performance.now();
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
    if (performance.now() - sinceMs < STEP_MS) continue;
    await new Promise(resolve => setImmediate(resolve));
    sinceMs = performance.now();
  }
}

const jsonEntry: Keep<Buffer> = (_of, name, value) => Buffer.from(`${JSON.stringify(name)}:${JSON.stringify(value)}`);

async function jsonBytes(dialect: Dialect, release: string, steps: Parts<Buffer>): Promise<Buffer[]> {
  const { paths, schemas } = await inSteps(steps);
  const text = JSON.stringify(openapiFrame(dialect, release, {}, {}));
  const bytes: Buffer[] = [];
  let from = 0;
  for (const [name, entries] of [
    ['paths', paths],
    [dialect === 'v2' ? 'definitions' : 'schemas', schemas],
  ] as const) {
    const at = text.indexOf(`"${name}":{}`, from) + name.length + 4;
    bytes.push(Buffer.from(text.slice(from, at)));
    for (const [index, [, entry]] of entries.entries()) bytes.push(...(index > 0 ? [COMMA] : []), entry);
    from = at;
  }
  return [...bytes, Buffer.from(text.slice(from))];
}
const COMMA = Buffer.from(',');

async function compressed(pieces: readonly Buffer[], hash?: string): Promise<Served> {
  const gzip = createGzip({ level: 6 });
  const out: Buffer[] = [];
  gzip.on('data', (part: Buffer) => out.push(part));
  const ended = once(gzip, 'end');
  const digest = createHash('sha512');
  for (const block of blocksOf(pieces)) {
    if (hash === undefined) digest.update(block);
    if (!gzip.write(block)) await once(gzip, 'drain');
  }
  gzip.end();
  await ended;
  return { gzipped: Buffer.concat(out), etag: `"${hash ?? digest.digest('hex').toUpperCase()}"` };
}

function* blocksOf(pieces: readonly Buffer[]): Generator<Buffer> {
  let block: Buffer[] = [];
  let length = 0;
  for (const piece of pieces) {
    block.push(piece);
    length += piece.length;
    if (length < BLOCK_BYTES) continue;
    yield Buffer.concat(block);
    block = [];
    length = 0;
  }
  yield Buffer.concat(block);
}

/** Our version 2 document with theirs; a definition of the same name is ours. */
function* withExtensions<T>(options: OpenapiOptions, extensions: readonly ExtensionOpenapi[], keep: Keep<T>): Parts<T> {
  const ours = yield* openapiV2Parts(options, keep);
  const paths = new Map(ours.paths);
  const schemas = new Map(ours.schemas);
  for (const { v2 } of extensions) {
    for (const [into, of, entries] of [
      [paths, 'path', v2?.paths ?? {}],
      [schemas, 'schema', v2?.definitions ?? {}],
    ] as const)
      for (const [name, value] of Object.entries(entries)) {
        if (!into.has(name)) into.set(name, keep(of, name, value as JsonSchema));
        yield;
      }
  }
  return { paths: sorted(paths), schemas: sorted(schemas) };
}

export async function plainBytes({ gzipped }: Served): Promise<Buffer> {
  return promisify(gunzip)(gzipped);
}
