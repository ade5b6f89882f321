/**
 * Bodies of requests against the schema of their kind: what Go's decoder would complain about, and the object as Go would
 * write it back. It runs on every write, so each type is compiled once into a table that a walk only looks up.
 *
 * Messages are those of upstream's strict decoder (sigs.k8s.io/json), which clients match on. Nothing here knows a kind.
 */
import { decodeError, typeError } from './go-json-error.ts';
import { canonicalQuantity } from './machinery/quantity.ts';
import { type BuiltinField, hasType, typeSchema } from './schema-registry.ts';
import { SCHEMA, wrapperOf } from './wrapped-fields.ts';

/** `fieldValidation` of a request: what happens to unknown and duplicate fields. */
export type FieldValidation = 'Ignore' | 'Warn' | 'Strict';

export interface FieldProblems {
  /** Message of the first value that cannot be decoded; the request is bad whatever the validation mode. */
  readonly mismatch?: string;
  /** Messages of unknown and duplicate fields, at most {@link STRICT_ERRORS_MAX}; warnings or errors by the mode. */
  readonly strict: readonly string[];
}

/** Upstream's decoder stops collecting there. */
const STRICT_ERRORS_MAX = 100;

type JsonObject = Record<string, unknown>;

/** A type reference, compiled. */
type Node =
  | { readonly is: 'scalar'; readonly scalar: string; readonly zero: unknown }
  | { readonly is: 'list'; readonly ref: string; readonly element: Node }
  | { readonly is: 'map'; readonly ref: string; readonly element: Node }
  | { readonly is: 'message'; readonly type: string; readonly plan: () => MessagePlan }
  /** A schema of a custom resource, a list of such, or something else in its place. */
  | { readonly is: 'schemaOr'; readonly other: SchemaOr; readonly schema: Node };

type SchemaOr = 'schemaOrArray' | 'schemaOrBool' | 'schemaOrStrings';

interface FieldPlan {
  readonly name: string;
  /** Its place in the plan. */
  readonly at: number;
  readonly node: Node;
  readonly always: boolean;
  readonly omitEmpty: boolean;
}

interface MessagePlan {
  /** In the order in which Go writes them. */
  readonly fields: readonly FieldPlan[];
  readonly byName: ReadonlyMap<string, FieldPlan>;
  /** How many fields are always there. */
  readonly always: number;
}

/**
 * Checks a decoded body. `text` is the JSON it was decoded from, needed to see duplicate fields (JSON.parse keeps the last);
 * without it they are not looked for. With mode `Ignore` only `mismatch` is found.
 */
export function checkFields(type: string, object: unknown, mode: FieldValidation, text?: string): FieldProblems {
  const checker = new Checker(mode !== 'Ignore');
  checker.check(messageNode(type), object);
  if (checker.mismatch !== undefined) return { mismatch: checker.mismatch, strict: [] };
  if (mode !== 'Ignore' && text !== undefined) {
    for (const path of duplicateFields(text)) checker.strict.push(`duplicate field "${path}"`);
  }
  return { strict: checker.strict.slice(0, STRICT_ERRORS_MAX) };
}

/** A copy of the object without the fields that its type does not have and without nulls; all else as it was sent. */
export function prune<T>(type: string, object: T): T {
  return rewriteMessage(planOf(type), object as JsonObject, false) as T;
}

/**
 * A copy of the object as Go's decoder and encoder would leave it: unknown fields and nulls gone, empty optional values
 * gone, values and structs that Go always writes present, quantities and times in canonical form, fields in Go's order and
 * map keys sorted. Idempotent. Two deviations: lists, maps and times that upstream writes as null are left out.
 * The object must have passed {@link checkFields}.
 */
export function normalize<T>(type: string, object: T): T {
  return rewriteMessage(planOf(type), object as JsonObject, true) as T;
}

/**
 * As {@link normalize}, but what is so already is not copied: the result shares it with the object, or is the object. For one
 * that was normalized before and has been added to.
 */
export function settle<T>(type: string, object: T): T {
  return settleMessage(planOf(type), object as JsonObject) as T;
}

// Plans

const plans = new Map<string, MessagePlan>();
const nodes = new Map<string, Node>();
const zeros: Readonly<Record<string, unknown>> = {
  string: '',
  bool: false,
  int32: 0,
  int64: 0,
  double: 0,
  bytes: '',
  quantity: '0',
  intOrString: 0,
};

/**
 * Lists that Go would not write when they are empty, but whose defaults ask whether there is one: none is then another wish than an
 * empty one. All other defaults count what is in a list.
 */
const MEANT_EMPTY = new Set(['autoscaling.v2.HPAScalingRules.policies']);

function planOf(type: string): MessagePlan {
  let plan = plans.get(type);
  if (plan === undefined) {
    const fields: Omit<FieldPlan, 'at'>[] = [];
    collectFields(type, fields);
    // Go's TypeMeta has kind first.
    if (fields[0]?.name === 'apiVersion' && fields[1]?.name === 'kind') fields.splice(0, 2, fields[1], fields[0]);
    const placed = fields.map((field, at) => ({ ...field, at }));
    plan = {
      fields: placed,
      byName: new Map(placed.map(field => [field.name, field])),
      always: placed.filter(({ always }) => always).length,
    };
    plans.set(type, plan);
  }
  return plan;
}

function collectFields(type: string, fields: Omit<FieldPlan, 'at'>[]): void {
  for (const field of typeSchema(type).fields) {
    if (field.name === '') collectFields(field.type, fields);
    else fields.push(fieldPlan(type, field));
  }
}

function fieldPlan(
  owner: string,
  { name, type, number, alwaysPresent, omitEmpty }: BuiltinField,
): Omit<FieldPlan, 'at'> {
  const wrapper = wrapperOf(owner, name);
  return {
    name,
    node: wrapper === undefined || wrapper === 'items' ? nodeOf(type) : schemaOrNode(type, wrapper),
    always: alwaysPresent === true,
    omitEmpty: (omitEmpty === true || number === 0) && !MEANT_EMPTY.has(`${owner}.${name}`),
  };
}

function nodeOf(ref: string): Node {
  let node = nodes.get(ref);
  if (node === undefined) {
    if (ref.startsWith('[]')) node = { is: 'list', ref, element: nodeOf(ref.slice(2)) };
    else if (ref.startsWith('map[string]')) node = { is: 'map', ref, element: nodeOf(ref.slice(11)) };
    else if (hasType(ref)) node = messageNode(ref);
    else node = { is: 'scalar', scalar: ref, zero: zeros[ref] };
    nodes.set(ref, node);
  }
  return node;
}

function schemaOrNode(ref: string, other: SchemaOr): Node {
  const node: Node = { is: 'schemaOr', other, schema: messageNode(SCHEMA) };
  return ref === 'json' ? node : { is: 'map', ref, element: node };
}

function messageNode(type: string): Node {
  let plan: MessagePlan | undefined;
  return { is: 'message', type, plan: () => (plan ??= planOf(type)) };
}

// Checking

const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

class Checker {
  mismatch: string | undefined;
  readonly strict: string[] = [];
  readonly #unknown: boolean;
  /** Fields, indexes and map keys from the root, and the fields alone, by which Go's type errors go. */
  readonly #path: (string | number)[] = [];
  readonly #fields: string[] = [];
  #struct = '';

  constructor(unknown: boolean) {
    this.#unknown = unknown;
  }

  check(node: Node, value: unknown): void {
    if (value === null || value === undefined) return;
    if (node.is === 'scalar') {
      const error = decodeError(node.scalar, value, this.#struct, this.#fields);
      if (error !== undefined) this.mismatch ??= error;
    } else if (node.is === 'schemaOr') {
      this.mismatch ??= schemaOrError(node, value);
    } else if (node.is === 'message') {
      if (isObject(value)) this.#checkMessage(node.type, node.plan(), value);
      else this.mismatch ??= typeError(value, node.type, this.#struct, this.#fields);
    } else if (node.is === 'list' ? !Array.isArray(value) : !isObject(value)) {
      this.mismatch ??= typeError(value, node.ref, this.#struct, this.#fields);
    } else if (node.is === 'list') {
      const depth = this.#path.length;
      for (const [index, element] of (value as unknown[]).entries()) {
        this.#path[depth] = index;
        this.check(node.element, element);
      }
      this.#path.length = depth;
    } else this.#checkMap(node.element, value as JsonObject);
  }

  #checkMap(element: Node, map: JsonObject): void {
    // Values of most maps are strings: labels, annotations, the data of a ConfigMap.
    const strings = element.is === 'scalar' && element.scalar === 'string';
    const depth = this.#path.length;
    for (const key in map) {
      const value = map[key];
      if (strings && typeof value === 'string') continue;
      this.#path[depth] = key;
      this.check(element, value);
    }
    this.#path.length = depth;
  }

  #checkMessage(type: string, plan: MessagePlan, object: JsonObject): void {
    const outer = this.#struct;
    const depth = this.#path.length;
    const level = this.#fields.length;
    this.#struct = type;
    for (const name in object) {
      const field = plan.byName.get(name);
      if (field !== undefined) {
        this.#path[depth] = name;
        this.#fields[level] = name;
        this.check(field.node, object[name]);
      } else if (this.#unknown && this.strict.length < STRICT_ERRORS_MAX) {
        this.#path[depth] = name;
        this.strict.push(`unknown field "${pathText(this.#path)}"`);
      }
    }
    this.#path.length = depth;
    this.#fields.length = level;
    this.#struct = outer;
  }
}

/** Go decodes these apart from what they are in: no unknown field is told, and types are told from the schema on. */
function schemaOrError({ schema, other }: Node & { is: 'schemaOr' }, value: unknown): string | undefined {
  if (other === 'schemaOrBool' && !isObject(value))
    return typeof value === 'boolean' ? undefined : 'boolean or JSON schema expected';
  const isList = Array.isArray(value);
  if (!isList && !isObject(value)) return undefined;
  const checker = new Checker(false);
  const element = other === 'schemaOrArray' ? schema : nodeOf('string');
  checker.check(isList ? { is: 'list', ref: '[]', element } : schema, value);
  return checker.mismatch;
}

/** `spec.containers[0].name` */
function pathText(path: readonly (string | number)[]): string {
  let text = '';
  for (const step of path) text += typeof step === 'number' ? `[${step}]` : text === '' ? step : `.${step}`;
  return text;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** Paths of the fields that occur more than once in their object, in order of appearance. The text must be valid JSON. */
export function duplicateFields(text: string): string[] {
  const duplicates: string[] = [];
  const objects: (Set<string> | undefined)[] = [];
  const path: (string | number)[] = [];
  let keys: Set<string> | undefined;
  let expectsKey = false;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case QUOTE: {
        const start = at + 1;
        at = text.indexOf('"', start);
        while (isEscaped(text, at)) at = text.indexOf('"', at + 1);
        if (!expectsKey) break;
        const raw = text.slice(start, at);
        const key: string = raw.includes('\\') ? JSON.parse(`"${raw}"`) : raw;
        path[path.length - 1] = key;
        if (keys!.has(key)) duplicates.push(pathText(path));
        else keys!.add(key);
        expectsKey = false;
        break;
      }
      case 0x7b: // {
        objects.push(keys);
        keys = new Set();
        path.push('');
        expectsKey = true;
        break;
      case 0x5b: // [
        objects.push(keys);
        keys = undefined;
        path.push(0);
        break;
      case 0x7d: // }
      case 0x5d: // ]
        keys = objects.pop();
        path.pop();
        expectsKey = false;
        break;
      case 0x2c: // ,
        if (keys !== undefined) expectsKey = true;
        else path[path.length - 1] = (path[path.length - 1] as number) + 1;
        break;
    }
  }
  return duplicates;
}

function isEscaped(text: string, quote: number): boolean {
  let slashes = 0;
  while (text.charCodeAt(quote - 1 - slashes) === BACKSLASH) slashes++;
  return slashes % 2 === 1;
}

// Rewriting

function rewriteMessage(plan: MessagePlan, object: JsonObject, fill: boolean): JsonObject {
  const result: JsonObject = {};
  if (!fill) {
    for (const name in object) {
      const field = plan.byName.get(name);
      const value = object[name];
      if (field !== undefined && value !== null && value !== undefined)
        result[name] = rewrite(field.node, value, false);
    }
    return result;
  }
  for (const { name, node, always, omitEmpty } of plan.fields) {
    let value = object[name];
    if (value === undefined || value === null) {
      if (!always) continue;
      value = emptyOf(node);
    } else value = rewrite(node, value, true);
    if (!(omitEmpty && isEmpty(value))) result[name] = value;
  }
  return result;
}

function rewrite(node: Node, value: unknown, fill: boolean): unknown {
  switch (node.is) {
    case 'scalar':
      return fill ? canonicalScalar(node.scalar, value) : value;
    case 'message':
      return rewriteMessage(node.plan(), value as JsonObject, fill);
    case 'schemaOr':
      return schemaOr(node, value, schema => rewrite(node.schema, schema, fill));
    case 'list':
      return (value as unknown[]).map(element =>
        element === null ? emptyOf(node.element) : rewrite(node.element, element, fill),
      );
    case 'map': {
      const map = value as JsonObject;
      const result: JsonObject = {};
      const keys = Object.keys(map);
      if (fill) keys.sort();
      for (const key of keys) {
        const element = map[key];
        const rewritten = element === null ? emptyOf(node.element) : rewrite(node.element, element, fill);
        if (key === '__proto__') Object.defineProperty(result, key, { value: rewritten, enumerable: true });
        else result[key] = rewritten;
      }
      return result;
    }
  }
}

function settleMessage(plan: MessagePlan, object: JsonObject): JsonObject {
  let changed: JsonObject | undefined;
  let at = -1;
  let always = 0;
  for (const name in object) {
    const field = plan.byName.get(name);
    const value = object[name];
    // Whatever is amiss here, writing all of it anew mends it.
    if (field === undefined || field.at <= at || value === null || value === undefined)
      return rewriteMessage(plan, object, true);
    const settled = settleValue(field.node, value);
    if (field.omitEmpty && isEmpty(settled)) return rewriteMessage(plan, object, true);
    if (settled !== value) (changed ??= { ...object })[name] = settled;
    if (field.always) always++;
    at = field.at;
  }
  return always === plan.always ? (changed ?? object) : rewriteMessage(plan, object, true);
}

function settleValue(node: Node, value: unknown): unknown {
  switch (node.is) {
    case 'scalar':
      return canonicalScalar(node.scalar, value);
    case 'message':
      return settleMessage(node.plan(), value as JsonObject);
    case 'schemaOr':
      return schemaOr(node, value, schema => settleValue(node.schema, schema));
    case 'list': {
      const list = value as unknown[];
      let changed: unknown[] | undefined;
      for (let index = 0; index < list.length; index++) {
        const element = list[index];
        const settled = element === null ? emptyOf(node.element) : settleValue(node.element, element);
        if (settled !== element) (changed ??= [...list])[index] = settled;
      }
      return changed ?? list;
    }
    case 'map': {
      const map = value as JsonObject;
      let last: string | undefined;
      for (const key in map) {
        const element = map[key];
        const isSettled = element !== null && (last === undefined || last < key) && key !== '__proto__';
        if (!isSettled || settleValue(node.element, element) !== element) return rewrite(node, map, true);
        last = key;
      }
      return map;
    }
  }
}

function schemaOr(
  { other }: Node & { is: 'schemaOr' },
  value: unknown,
  ofSchema: (schema: JsonObject) => unknown,
): unknown {
  if (isObject(value)) return ofSchema(value);
  if (!Array.isArray(value)) return value;
  const list = value.map(item => (other === 'schemaOrArray' ? ofSchema(item ?? {}) : (item ?? '')));
  return list.every((item, index) => item === value[index]) ? value : list;
}

/** What Go holds where nothing was given. */
function emptyOf(node: Node): unknown {
  if (node.is === 'scalar') return node.zero ?? null;
  if (node.is === 'list') return [];
  if (node.is === 'schemaOr') return null;
  return node.is === 'map' ? {} : rewriteMessage(node.plan(), {}, true);
}

function isEmpty(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return value === '' || value === 0 || value === false;
  if (Array.isArray(value)) return value.length === 0;
  for (const _ in value) return false;
  return true;
}

function canonicalScalar(scalar: string, value: unknown): unknown {
  if (scalar === 'quantity') return canonicalQuantity(value as string | number);
  if (scalar === 'time') return canonicalTime(value as string, 0);
  return scalar === 'microtime' ? canonicalTime(value as string, 6) : value;
}

/** RFC 3339 in UTC with a fixed number of decimals, as Go writes Time (0) and MicroTime (6). */
function canonicalTime(text: string, decimals: number): string {
  if (text.length === 20 + (decimals === 0 ? 0 : decimals + 1) && text.endsWith('Z')) return text;
  const fraction = /\.(\d+)/.exec(text)?.[1] ?? '';
  const seconds = new Date(Date.parse(text)).toISOString().slice(0, 19);
  return decimals === 0 ? `${seconds}Z` : `${seconds}.${fraction.slice(0, decimals).padEnd(decimals, '0')}Z`;
}
