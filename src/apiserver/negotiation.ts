/**
 * What a client wants to read and what it sent, from Accept and Content-Type. Bodies and replies are JSON, YAML, the
 * Kubernetes protobuf and CBOR: a client that accepts nothing else gets 406. Custom resources have no protobuf form, except
 * as metadata; Tables have none.
 */

import { decodeCbor } from '../api/cbor/decoder.ts';
import { encodeCbor } from '../api/cbor/encoder.ts';
import { decodeProtobuf } from '../api/protobuf/decoder.ts';
import { encodeProtobuf, encodeWatchFrame } from '../api/protobuf/encoder.ts';
import { PROTOBUF } from '../api/protobuf/wire.ts';
import { badRequest, failure, messageOf } from '../base/errors.ts';
import { syntaxError, unrecognized } from './undecodable.ts';

const CBOR = 'application/cbor';

export type Format = 'json' | 'yaml' | 'protobuf' | 'cbor';

/** A format and, of JSON, whether it is to be indented. */
export interface Layout {
  readonly format: Format;
  readonly isPretty?: boolean;
}

export interface Representation extends Layout {
  /** Reply in another kind: a Table or only metadata. */
  readonly as?: 'Table' | 'PartialObjectMetadata' | 'PartialObjectMetadataList' | 'APIGroupDiscoveryList';
  /** Version of the group of `as` that was asked for. */
  readonly version: string;
}

/** What there are forms of: custom resources have no protobuf messages, reviews and other resources that only answer no Tables. */
export type Serving = 'builtin' | 'custom' | 'review';

/** In the order in which upstream offers them: the first serves `*`/`*`. */
const MEDIA_TYPES: Readonly<Record<Format, string>> = {
  json: 'application/json',
  yaml: 'application/yaml',
  protobuf: PROTOBUF,
  cbor: CBOR,
};
const FORMATS = Object.keys(MEDIA_TYPES) as Format[];
export const OBJECT_TYPES = FORMATS.map(format => MEDIA_TYPES[format]);
export const CUSTOM_OBJECT_TYPES = OBJECT_TYPES.filter(type => type !== PROTOBUF);
const STREAM_TYPES: Readonly<Record<Format, string>> = {
  json: 'application/json',
  yaml: '',
  protobuf: `${PROTOBUF};stream=watch`,
  cbor: 'application/cbor-seq',
};

const WATCH_TYPES = FORMATS.filter(format => STREAM_TYPES[format]).map(format => `${MEDIA_TYPES[format]};stream=watch`);

const JSON_PLAIN: Representation = { format: 'json', version: 'v1' };
/** Upstream tells it so to whoever accepts no form that there is. */
const JSON_PRETTY: Representation = { ...JSON_PLAIN, isPretty: true };
const KNOWN_MAX = 256;
const known = {
  builtin: new Map<string, Representation | undefined>(),
  custom: new Map<string, Representation | undefined>(),
  review: new Map<string, Representation | undefined>(),
};

/** The best representation for an Accept header; of a list, whose route has watches too, `isList`. Throws NotAcceptable. */
export function negotiate(
  accept: string | undefined,
  serving: Serving = 'builtin',
  { isList = false, isRouted = serving !== 'custom' }: { readonly isList?: boolean; readonly isRouted?: boolean } = {},
): Representation {
  if (!accept || accept === '*/*' || accept === 'application/json') return JSON_PLAIN;
  if (isRouted) checkRoute(accept, isList ? [...OBJECT_TYPES, ...WATCH_TYPES] : OBJECT_TYPES);
  const chosen = represented(accept, serving);
  if (!chosen) throw notAcceptable(serving === 'custom' ? CUSTOM_OBJECT_TYPES : OBJECT_TYPES);
  return chosen;
}

/** As `negotiate`, for a watch, which YAML has no form of; one that stands for a list has no form as a table either. */
export function negotiateWatch(
  asked: string | undefined,
  serving: Serving,
  { isList = false }: { readonly isList?: boolean } = {},
): Representation {
  const refused = () =>
    notAcceptable(serving === 'custom' ? WATCH_TYPES.filter(type => !type.startsWith(PROTOBUF)) : WATCH_TYPES);
  if (!asked) return JSON_PLAIN;
  if (serving !== 'custom') checkRoute(asked, [...OBJECT_TYPES, ...WATCH_TYPES]);
  const accept = isList ? withoutTables(asked) : asked;
  const chosen = accept === '' ? undefined : represented(accept, serving);
  if (!chosen || !STREAM_TYPES[chosen.format]) throw refused();
  return chosen;
}

function withoutTables(accept: string): string {
  const clauses = accept.split(',').filter(clause => !/;\s*as=table\s*(;|$)/i.test(clause));
  return clauses.join(',');
}

/** How a failure is told: in JSON to whoever accepts nothing that there is. */
export function layoutOfFailure(accept: string | undefined): Layout {
  if (!accept || accept === 'application/json') return JSON_PLAIN;
  return represented(accept, 'builtin') ?? JSON_PRETTY;
}

export function mediaTypeOf({ format }: { readonly format: Format }): string {
  return MEDIA_TYPES[format];
}
export function streamTypeOf({ format }: Representation): string {
  return STREAM_TYPES[format];
}

function notAcceptable(types: readonly string[]): Error {
  return failure(406, 'NotAcceptable', `only the following media types are accepted: ${types.join(', ')}`);
}

/**
 * What upstream's router does before anything is negotiated (it does not know custom resources): a type must be accepted by its
 * name or with all others, whatever its parameters. Throws NotAcceptable.
 */
export function checkRoute(accept: string | undefined, produced: readonly string[]): void {
  const isProduced = (clause: string): boolean => {
    const type = clause.split(';', 1)[0]!.trim();
    return type === '*/*' || produced.includes(type);
  };
  if (accept && !accept.split(',').some(isProduced))
    throw failure(406, 'NotAcceptable', `406: Not Acceptable\n\nAvailable representations: ${produced.join(', ')}`, {});
}

function represented(accept: string, serving: Serving): Representation | undefined {
  const cached: Map<string, Representation | undefined> = known[serving];
  if (!cached.has(accept)) {
    if (cached.size >= KNOWN_MAX) cached.clear();
    cached.set(accept, choose(accept, serving));
  }
  return cached.get(accept);
}

interface Clause {
  readonly type: string;
  readonly subtype: string;
  readonly parameters: ReadonlyMap<string, string>;
}

/** The parts of an Accept header, what is wanted most first. */
export function clausesOf(accept: string): Clause[] {
  const clauses: (Clause & { quality: number })[] = accept.split(',').map(text => {
    const [media = '', ...rest] = text.split(';').map(part => part.trim());
    const [type = '', subtype = ''] = media.toLowerCase().split('/', 2);
    const parameters = new Map(rest.map(part => part.split('=', 2) as [string, string]));
    const quality = Number(parameters.get('q') ?? 1);
    return { type, subtype, parameters, quality: Number.isNaN(quality) ? 1 : quality };
  });
  const generality = ({ type, subtype }: Clause) => Number(type === '*') + Number(subtype === '*');
  return clauses.sort((a, b) => b.quality - a.quality || generality(a) - generality(b));
}

function choose(accept: string, serving: Serving): Representation | undefined {
  for (const clause of clausesOf(accept))
    for (const format of FORMATS) {
      if (!accepts(clause, format)) continue;
      const found = represent(clause, format, serving);
      if (found) return clause.parameters.get('pretty') === '1' ? { ...found, isPretty: true } : found;
    }
  return undefined;
}

function accepts({ type, subtype }: Clause, format: Format): boolean {
  if (type === '*') return subtype === '*';
  return type === 'application' && (subtype === '*' || `application/${subtype}` === MEDIA_TYPES[format]);
}

function represent({ parameters }: Clause, format: Format, serving: Serving): Representation | undefined {
  const stream = parameters.get('stream');
  if (stream !== undefined && stream !== 'watch') return undefined;
  const as = parameters.get('as');
  const isProtobuf = format === 'protobuf';
  if (!as) return isProtobuf && serving === 'custom' ? undefined : { format, version: 'v1' };
  const group = parameters.get('g');
  const version = parameters.get('v') ?? '';
  if (group === 'meta.k8s.io' && (version === 'v1' || version === 'v1beta1')) {
    if (as === 'Table') return isProtobuf || serving === 'review' ? undefined : { format, as, version };
    if (as === 'PartialObjectMetadata' || as === 'PartialObjectMetadataList') return { format, as, version };
  }
  if (group === 'apidiscovery.k8s.io' && as === 'APIGroupDiscoveryList' && version === 'v2')
    return { format, as, version };
  return undefined;
}

/** Bytes of a value in the format. The YAML library is loaded when first needed. */
export function encodeBody(value: unknown, format: Format): Buffer | Promise<Buffer> {
  switch (format) {
    case 'json':
      return Buffer.from(JSON.stringify(value));
    case 'protobuf':
      return encodeProtobuf(value as { kind: string });
    case 'cbor':
      return encodeCbor(value);
    default:
      return import('yaml').then(({ stringify }) =>
        Buffer.from(
          stringify(value, { version: '1.1', aliasDuplicateObjects: false, lineWidth: 0, sortMapEntries: true }),
        ),
      );
  }
}

/** One event of a watch in a format that has a stream. */
export function encodeEvent(type: string, object: unknown, format: Format): Buffer {
  if (format === 'protobuf') return encodeWatchFrame(type, object as { kind: string });
  if (format === 'cbor') return encodeCbor({ type, object });
  return Buffer.from(`{"type":"${type}","object":${JSON.stringify(object)}}\n`);
}

export interface Body {
  readonly value: unknown;
  /** JSON text, for finding duplicate fields. */
  readonly text?: string;
  /** What YAML had twice, in the words of Go's strict decoder. */
  readonly duplicates?: readonly string[];
}

/**
 * Decodes a body by its Content-Type; nothing means JSON. Throws UnsupportedMediaType or BadRequest, which says what `kind`
 * the body was to be; of a patch, which is of none, only what is wrong.
 */
export function decodeBody(
  bytes: Buffer,
  contentType: string | undefined,
  accepted: readonly string[],
  kind?: string,
): Body | Promise<Body> {
  const semicolon = contentType?.indexOf(';') ?? -1;
  const type = (semicolon < 0 ? contentType : contentType!.slice(0, semicolon))?.trim() || 'application/json';
  if (!accepted.includes(type))
    throw failure(
      415,
      'UnsupportedMediaType',
      `the body of the request was in an unknown format - accepted media types include: ${accepted.join(', ')}`,
    );
  if (type === PROTOBUF) return { value: decodeProtobuf(bytes) };
  if (type === CBOR) return { value: decodeCbor(bytes) };
  const text = bytes.toString();
  if (type.endsWith('yaml')) {
    // Clients send JSON as YAML, which it nearly always is, and reading it as JSON is a hundred times faster.
    const json = text.startsWith('{') ? jsonOf(text) : undefined;
    return json === undefined ? decodeYaml(text, kind) : { value: json };
  }
  try {
    return { value: JSON.parse(text), text };
  } catch (error) {
    const why = syntaxError(text, error);
    throw badRequest(kind === undefined ? why : unrecognized(kind, why, bytes));
  }
}

// Go's decoder takes the last of two values for a key.
async function decodeYaml(text: string, kind: string | undefined): Promise<Body> {
  const { LineCounter, parseDocument } = await import('yaml');
  const lines = new LineCounter();
  try {
    // What it warns of is the client's, and no business of our log.
    const document = parseDocument(text, {
      version: '1.1',
      logLevel: 'error',
      prettyErrors: false,
      lineCounter: lines,
    });
    const duplicates: string[] = [];
    for (const error of document.errors) {
      if (error.code !== 'DUPLICATE_KEY') throw new Error(`line ${lines.linePos(error.pos[0]).line}: ${error.message}`);
      duplicates.push(`line ${lines.linePos(error.pos[0]).line}: key ${keyAt(text, error.pos[0])} already set in map`);
    }
    document.errors.length = 0;
    const value: unknown = document.toJS({ maxAliasCount: 100 });
    return duplicates.length > 0 ? { value, duplicates } : { value };
  } catch (error) {
    const why = `yaml: ${messageOf(error)}`;
    throw badRequest(kind === undefined ? `error converting YAML to JSON: ${why}` : unrecognized(kind, why, text, ''));
  }
}

function keyAt(text: string, at: number): string {
  return JSON.stringify(/^["']?([^"':\s,}]*)/.exec(text.slice(at))?.[1] ?? '');
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
