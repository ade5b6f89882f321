/**
 * The JSON paths of definitions: `.spec.replicas`, `.metadata.annotations['a.b/c']`, `.spec.items[0].name`,
 * `.status.conditions[?(@.type=="Ready")].status`. Compiled to a function; what is not found is absent, never an error.
 */

export type Read = (object: unknown) => unknown[];

type Step = (values: unknown[]) => unknown[];

const FIELD = /^\.?((?:[^.[\]\\]|\\.)+)/;
const QUOTED = /^\[(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\]/;
const INDEX = /^\[(-?\d+)\]/;
const ALL = /^(?:\[\*\]|\.\*)/;
const FILTER = /^\[\?\(\s*@((?:\.[\w-]+|\['[^']*'\])+)\s*(==|!=)\s*(?:'([^']*)'|"([^"]*)"|([\w.-]+))\s*\)\]/;

/** Undefined for a path that cannot be understood. */
export function compilePath(path: string): Read | undefined {
  let rest = path.trim();
  if (rest.startsWith('{') && rest.endsWith('}')) rest = rest.slice(1, -1);
  if (rest.startsWith('$')) rest = rest.slice(1);
  const steps: Step[] = [];
  while (rest !== '' && rest !== '.') {
    const step = next(rest);
    if (!step) return undefined;
    steps.push(step.step);
    rest = rest.slice(step.length);
  }
  return object => steps.reduce((values, step) => step(values), [object]);
}

function next(rest: string): { step: Step; length: number } | undefined {
  let match = ALL.exec(rest);
  if (match) return { step: values => values.flatMap(elementsOf), length: match[0].length };
  match = FILTER.exec(rest);
  if (match) {
    const inner = compilePath(match[1]!);
    if (!inner) return undefined;
    const wanted = match[3] ?? match[4] ?? match[5]!;
    const equal = match[2] === '==';
    const test = (item: unknown) =>
      inner(item).some(value => typeof value !== 'object' && String(value) === wanted) === equal;
    return { step: values => values.flatMap(value => elementsOf(value).filter(test)), length: match[0].length };
  }
  match = QUOTED.exec(rest);
  if (match) return { step: field(unescaped(match[1] ?? match[2]!)), length: match[0].length };
  match = INDEX.exec(rest);
  if (match) {
    const index = Number(match[1]);
    return {
      step: values =>
        values.flatMap(value => (Array.isArray(value) && value.at(index) !== undefined ? [value.at(index)] : [])),
      length: match[0].length,
    };
  }
  match = FIELD.exec(rest);
  return match ? { step: field(unescaped(match[1]!)), length: match[0].length } : undefined;
}

function field(name: string): Step {
  return values =>
    values.flatMap(value =>
      typeof value === 'object' && value !== null && !Array.isArray(value) && Object.hasOwn(value, name)
        ? [(value as Record<string, unknown>)[name]]
        : [],
    );
}

function elementsOf(value: unknown): unknown[] {
  if (Array.isArray(value)) return value;
  return typeof value === 'object' && value !== null ? Object.values(value) : [];
}

function unescaped(text: string): string {
  return text.replace(/\\(.)/g, '$1');
}

/** `.spec.replicas` → `['spec', 'replicas']`: paths of plain fields, which can also be written to. */
export function fieldsOfPath(path: string): string[] | undefined {
  const fields: string[] = [];
  let rest = path;
  while (rest !== '') {
    const match = rest.startsWith('[') ? QUOTED.exec(rest) : rest.startsWith('.') ? FIELD.exec(rest) : null;
    if (!match) return undefined;
    fields.push(unescaped(match[1] ?? match[2]!));
    rest = rest.slice(match[0].length);
  }
  return fields.length > 0 ? fields : undefined;
}
