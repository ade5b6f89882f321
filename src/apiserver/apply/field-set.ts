/**
 * Sets of fields of an object in the form in which `managedFields` stores them (fieldsV1): a trie whose keys are path
 * elements (`f:name` a field, `k:{"name":"a"}` an item by its keys, `v:"x"` an item by its value, `i:0` by its index).
 * A node without entries is a member of the set; `.` says that a node with entries below is a member too.
 *
 * Invariant: sets are immutable and shared freely; every operation returns its first argument itself when nothing changes,
 * so that "did it change" is `===`. The root is never a member, and `undefined` is the empty set.
 */

export interface FieldSet {
  readonly [element: string]: FieldSet;
}

type Building = Record<string, FieldSet>;

/** A member without anything below. */
export const MEMBER: FieldSet = Object.freeze({});

const SELF = '.';

export function isMember(set: FieldSet): boolean {
  if (SELF in set) return true;
  for (const _ in set) return false;
  return true;
}

/** Everything in `a` or in `b`. */
export function union(a: FieldSet | undefined, b: FieldSet | undefined): FieldSet | undefined {
  if (a === undefined || b === undefined || a === b) return a ?? b;
  return unite(a, b);
}

function unite(a: FieldSet, b: FieldSet): FieldSet {
  if (a === b) return a;
  if (isLeaf(b)) return isMember(a) ? a : { [SELF]: MEMBER, ...a };
  if (isLeaf(a)) return SELF in b ? b : { [SELF]: MEMBER, ...b };
  let result: Building | undefined = SELF in b && !(SELF in a) ? { [SELF]: MEMBER, ...a } : undefined;
  let added = false;
  for (const element in b) {
    if (element === SELF) continue;
    const mine = a[element];
    const both = mine === undefined ? b[element]! : unite(mine, b[element]!);
    if (both === mine) continue;
    result ??= { ...a };
    result[element] = both;
    added ||= mine === undefined;
  }
  if (result === undefined) return a;
  return added ? sorted(result) : result;
}

/** What is in `a` and not in `b`; a member goes only when it is itself in `b`, whatever is above or below. */
export function difference(a: FieldSet | undefined, b: FieldSet | undefined): FieldSet | undefined {
  if (a === undefined || b === undefined) return a;
  return subtract(a, b, true);
}

function subtract(a: FieldSet, b: FieldSet, isRoot: boolean): FieldSet | undefined {
  const member = !isRoot && isMember(a);
  const stays = member && !isMember(b);
  let result: Building | undefined;
  for (const element in a) {
    const theirs = b[element];
    if (element === SELF || theirs === undefined) continue;
    const rest = subtract(a[element]!, theirs, false);
    if (rest === a[element]) continue;
    result ??= { ...a };
    if (rest === undefined) delete result[element];
    else result[element] = rest;
  }
  if (result === undefined && stays === member) return a;
  return node(result ?? a, stays);
}

/** What is in both. */
export function intersection(a: FieldSet | undefined, b: FieldSet | undefined): FieldSet | undefined {
  if (a === undefined || b === undefined) return undefined;
  return intersect(a, b, true);
}

function intersect(a: FieldSet, b: FieldSet, isRoot: boolean): FieldSet | undefined {
  const result: Building = {};
  for (const element in a) {
    const theirs = b[element];
    if (element === SELF || theirs === undefined) continue;
    const both = intersect(a[element]!, theirs, false);
    if (both !== undefined) result[element] = both;
  }
  return node(result, !isRoot && isMember(a) && isMember(b));
}

// A node with these entries below; undefined when nothing is left of it.
function node(below: FieldSet, member: boolean): FieldSet | undefined {
  let has = false;
  for (const element in below)
    if (element !== SELF) {
      has = true;
      break;
    }
  if (!has) return member ? MEMBER : undefined;
  if (member === SELF in below) return below;
  if (member) return { [SELF]: MEMBER, ...below };
  const { [SELF]: _, ...rest } = below;
  return rest;
}

function isLeaf(set: FieldSet): boolean {
  for (const _ in set) return false;
  return true;
}

const KINDS = '.fkvi';

/** Upstream's order: the node itself, fields, keys, values, indexes; each by its text. */
export function compareElements(a: string, b: string): number {
  if (a[0] !== b[0]) return KINDS.indexOf(a[0]!) - KINDS.indexOf(b[0]!);
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The same entries in upstream's order; entries below are left as they are. */
export function sorted(set: Building): FieldSet {
  let last: string | undefined;
  let inOrder = true;
  for (const element in set) {
    if (last !== undefined && compareElements(last, element) > 0) {
      inOrder = false;
      break;
    }
    last = element;
  }
  if (inOrder) return set;
  const result: Building = {};
  for (const element of Object.keys(set).sort(compareElements)) result[element] = set[element]!;
  return result;
}

/** Paths of all members as upstream prints them, `.spec.template.spec.containers[name="app"].image`. */
export function pathsOf(set: FieldSet | undefined): string[] {
  const paths: string[] = [];
  const walk = (at: FieldSet, path: string) => {
    if (path !== '' && isMember(at)) paths.push(path);
    for (const element in at) if (element !== SELF) walk(at[element]!, path + elementText(element));
  };
  if (set) walk(set, '');
  return paths;
}

export function elementText(element: string): string {
  const text = element.slice(2);
  switch (element[0]) {
    case 'f':
      return `.${text}`;
    case 'k':
      return `[${Object.entries(JSON.parse(text) as object)
        .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
        .join(',')}]`;
    case 'v':
      return `[=${text}]`;
    default:
      return `[${text}]`;
  }
}

/** Whether a client's value has the form of a set. */
export function isFieldSet(value: unknown): value is FieldSet {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  const set = value as Record<string, unknown>;
  for (const element in set) {
    if (element !== SELF && !isElement(element)) return false;
    if (!isFieldSet(set[element])) return false;
  }
  return true;
}

function isElement(element: string): boolean {
  if (element[1] !== ':') return false;
  if (element[0] === 'f') return true;
  if (element[0] === 'i') return /^i:-?\d+$/.test(element);
  if (element[0] !== 'k' && element[0] !== 'v') return false;
  try {
    const value: unknown = JSON.parse(element.slice(2));
    return element[0] === 'v' || (typeof value === 'object' && value !== null && !Array.isArray(value));
  } catch {
    return false;
  }
}
