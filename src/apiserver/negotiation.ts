/**
 * What a client wants to read and what it sent, from Accept and Content-Type. Bodies are read as JSON, YAML and protobuf,
 * replies written as JSON and YAML: a client that accepts nothing else gets 406.
 */

import { decodeProtobuf, PROTOBUF } from '../api/protobuf.ts';
import { badRequest, failure, messageOf } from '../base/errors.ts';

export interface Representation {
  readonly format: 'json' | 'yaml';
  /** Reply in another kind: a Table or only metadata. */
  readonly as?:
    | 'Table'
    | 'PartialObjectMetadata'
    | 'PartialObjectMetadataList'
    | 'APIGroupDiscoveryList'
    | 'APIGroupDiscoveryList-v2beta1';
  /** Version of meta.k8s.io asked for. */
  readonly version: string;
}

const JSON_PLAIN: Representation = { format: 'json', version: 'v1' };
const KNOWN_MAX = 256;
const known = new Map<string, Representation | undefined>();

/** The best representation for an Accept header. Throws NotAcceptable. */
export function negotiate(accept: string | undefined): Representation {
  if (!accept || accept === '*/*' || accept === 'application/json') return JSON_PLAIN;
  if (!known.has(accept)) {
    if (known.size >= KNOWN_MAX) known.clear();
    known.set(accept, choose(accept));
  }
  const chosen = known.get(accept);
  if (!chosen)
    throw failure(
      406,
      'NotAcceptable',
      'only the following media types are accepted: application/json, application/yaml, application/json;stream=watch',
    );
  return chosen;
}

interface Clause {
  readonly type: string;
  readonly parameters: ReadonlyMap<string, string>;
}

function choose(accept: string): Representation | undefined {
  const clauses: (Clause & { quality: number })[] = accept.split(',').map(text => {
    const [type = '', ...rest] = text.split(';').map(part => part.trim());
    const parameters = new Map(rest.map(part => part.split('=', 2) as [string, string]));
    return { type: type.toLowerCase(), parameters, quality: Number(parameters.get('q') ?? 1) };
  });
  clauses.sort((a, b) => b.quality - a.quality);
  for (const clause of clauses) {
    const found = represent(clause);
    if (found) return found;
  }
  return undefined;
}

function represent({ type, parameters }: Clause): Representation | undefined {
  const format =
    type === 'application/yaml'
      ? 'yaml'
      : ['application/json', '*/*', 'application/*'].includes(type)
        ? 'json'
        : undefined;
  if (!format) return undefined;
  const as = parameters.get('as');
  if (!as) return { format, version: 'v1' };
  const group = parameters.get('g');
  const version = parameters.get('v') ?? '';
  if (group === 'meta.k8s.io' && (version === 'v1' || version === 'v1beta1'))
    if (as === 'Table' || as === 'PartialObjectMetadata' || as === 'PartialObjectMetadataList')
      return { format, as, version };
  if (group === 'apidiscovery.k8s.io' && as === 'APIGroupDiscoveryList' && version === 'v2')
    return { format, as, version };
  return undefined;
}

/** Bytes of a value in the format. The YAML library is loaded when first needed. */
export function encodeBody(value: unknown, format: 'json' | 'yaml'): Buffer | Promise<Buffer> {
  if (format === 'json') return Buffer.from(JSON.stringify(value));
  return import('yaml').then(({ stringify }) =>
    Buffer.from(stringify(value, { version: '1.1', aliasDuplicateObjects: false, lineWidth: 0 })),
  );
}

export interface Body {
  readonly value: unknown;
  /** JSON text, for finding duplicate fields. */
  readonly text?: string;
}

/** Decodes a body by its Content-Type; nothing means JSON. Throws UnsupportedMediaType or BadRequest. */
export function decodeBody(
  bytes: Buffer,
  contentType: string | undefined,
  accepted: readonly string[],
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
  const text = bytes.toString();
  if (type.endsWith('yaml')) {
    // Clients send JSON as YAML, which it nearly always is, and reading it as JSON is a hundred times faster.
    const json = text.startsWith('{') ? jsonOf(text) : undefined;
    return json === undefined ? decodeYaml(text) : { value: json };
  }
  try {
    return { value: JSON.parse(text), text };
  } catch (error) {
    throw badRequest(`couldn't get version/kind; json parse error: ${messageOf(error)}`);
  }
}

async function decodeYaml(text: string): Promise<Body> {
  const { parse } = await import('yaml');
  try {
    return { value: parse(text, { version: '1.1', maxAliasCount: 100 }) };
  } catch (error) {
    throw badRequest(`error converting YAML to JSON: ${messageOf(error)}`);
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export const OBJECT_TYPES = ['application/json', 'application/yaml', PROTOBUF];
