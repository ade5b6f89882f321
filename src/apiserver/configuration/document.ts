/**
 * Configuration files of the API server: YAML or JSON whose every field is known and of its type. What is wrong is said with
 * the path of the field, all of it at once. It knows no kind: callers bring the shape and check the meaning.
 */

import { messageOf } from '../../base/errors.ts';

/** `[shape]` is a list, `{ '*': shape }` a map with any keys, other objects name their fields. */
export type Shape = 'string' | 'boolean' | 'integer' | 'any' | readonly [Shape] | { readonly [field: string]: Shape };

/** What is wrong, one line each: `jwt[0].issuer.url: Required value`. */
export class ConfigurationError extends Error {
  override name = 'ConfigurationError';
  readonly problems: readonly string[];
  constructor(problems: readonly string[]) {
    super(problems.join('; '));
    this.problems = problems;
  }
}

export interface DocumentKind {
  readonly kind: string;
  readonly apiVersions: readonly string[];
  readonly shape: { readonly [field: string]: Shape };
}

/** The document as it is written. Rejects with ConfigurationError. */
export async function parseDocument<T>(text: string, { kind, apiVersions, shape }: DocumentKind): Promise<T> {
  // Loaded when first needed: most servers have no such file.
  const { parse } = await import('yaml');
  let value: unknown;
  try {
    value = parse(text, { version: '1.1', merge: true });
  } catch (error) {
    throw new ConfigurationError([`it is not YAML: ${messageOf(error).split('\n')[0]}`]);
  }
  if (!isObject(value)) throw new ConfigurationError([`it holds no ${kind}`]);
  if (value['kind'] !== kind || !apiVersions.includes(String(value['apiVersion'])))
    throw new ConfigurationError([
      `it holds apiVersion ${JSON.stringify(value['apiVersion'] ?? '')}, kind ${JSON.stringify(value['kind'] ?? '')}; wanted: kind ${kind}, apiVersion ${apiVersions.join(' or ')}`,
    ]);
  const problems: string[] = [];
  check(value, { ...shape, kind: 'string', apiVersion: 'string', metadata: 'any' }, '', problems);
  if (problems.length > 0) throw new ConfigurationError(problems);
  return value as T;
}

function check(value: unknown, shape: Shape, path: string, problems: string[]): void {
  if (value === undefined || value === null || shape === 'any') return;
  const wrong = (wanted: string) =>
    problems.push(`${path}: Invalid value: ${JSON.stringify(value)}: must be ${wanted}`);
  if (typeof shape === 'string') {
    if (shape === 'integer' ? !Number.isSafeInteger(value) : typeof value !== shape)
      wrong(shape === 'integer' ? 'a whole number' : `a ${shape}`);
  } else if (Array.isArray(shape)) {
    if (!Array.isArray(value)) wrong('a list');
    else for (const [at, item] of value.entries()) check(item, shape[0] as Shape, `${path}[${at}]`, problems);
  } else if (!isObject(value)) wrong('an object');
  else
    for (const [field, inner] of Object.entries(value)) {
      const at = path ? `${path}.${field}` : field;
      const fields = shape as { readonly [field: string]: Shape };
      const known = Object.hasOwn(fields, field) ? fields[field] : fields['*'];
      if (known === undefined)
        problems.push(
          `${at}: unknown field; known here: ${Object.keys(fields)
            .filter(name => name !== 'metadata')
            .join(', ')}`,
        );
      else check(inner, known, at, problems);
    }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Gathers what is wrong with the meaning of a document. */
export class Problems {
  readonly #found: string[] = [];
  get count(): number {
    return this.#found.length;
  }
  required(path: string, detail = ''): void {
    this.#found.push(`${path}: Required value${detail ? `: ${detail}` : ''}`);
  }
  invalid(path: string, value: unknown, detail: string): void {
    this.#found.push(`${path}: Invalid value: ${JSON.stringify(value)}: ${detail}`);
  }
  unsupported(path: string, value: unknown, supported: readonly string[]): void {
    this.#found.push(
      `${path}: Unsupported value: ${JSON.stringify(value)}: supported values: ${supported.map(one => JSON.stringify(one)).join(', ')}`,
    );
  }
  duplicate(path: string, value: unknown): void {
    this.#found.push(`${path}: Duplicate value: ${JSON.stringify(value)}`);
  }
  forbidden(path: string, detail: string): void {
    this.#found.push(`${path}: Forbidden: ${detail}`);
  }
  /** Throws ConfigurationError when there was anything. */
  throwIfAny(): void {
    if (this.#found.length > 0) throw new ConfigurationError(this.#found);
  }
}

const UNITS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** Go's form of a duration, `1m30s`, in milliseconds; undefined for anything else. */
export function durationMs(text: string): number | undefined {
  if (text === '0') return 0;
  if (!/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined;
  let sum = 0;
  for (const [, count, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g))
    sum += Number(count) * UNITS[unit!]!;
  return sum;
}
