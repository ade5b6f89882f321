/**
 * Devices as rules in CEL see them (`device.driver`, `device.attributes["domain"].name`, `device.capacity["domain"].name`), and
 * whether one meets all selectors of its request and class. Pure. A rule that fails on a device says so: it is the claim's mistake.
 */

import { compile } from '../api/cel/environment.ts';
import { Budget, type Program } from '../api/cel/evaluator.ts';
import { HashMap, MapValue, type Value } from '../api/cel/values.ts';
import type { Device, DeviceAttribute, DeviceSelector } from '../api/resource/v1.gen.ts';

/** Upstream's limit of one selector on one device. */
const COST_MAX = 1_000_000;
const QUANTITY = compile('quantity(text)');
const VERSION = compile('semver(text)');

const programs = new Map<string, Program>();
const PROGRAMS_MAX = 1000;

function programOf(source: string): Program {
  let program = programs.get(source);
  if (!program) {
    if (programs.size >= PROGRAMS_MAX) programs.clear();
    programs.set(source, (program = compile(source)));
  }
  return program;
}

/** Any domain has a map: names in it may be asked for with `has`. */
class ByDomain extends MapValue {
  readonly #domains: ReadonlyMap<string, HashMap>;
  constructor(domains: ReadonlyMap<string, HashMap>) {
    super();
    this.#domains = domains;
  }
  get size(): number {
    return this.#domains.size;
  }
  get(key: Value): Value | undefined {
    return typeof key === 'string' ? (this.#domains.get(key) ?? EMPTY) : undefined;
  }
  keys(): Iterable<Value> {
    return this.#domains.keys();
  }
}
const EMPTY = new HashMap();

/** The value of an attribute by its full or short name, as text that is equal only for equal values of one type. */
export function attributeText(device: Device, { driver, name }: { driver: string; name: string }): string | undefined {
  const [domain, id] = name.includes('/') ? (name.split('/', 2) as [string, string]) : [driver, name];
  const attributes = device.attributes ?? {};
  const found = attributes[`${domain}/${id}`] ?? (domain === driver ? attributes[id] : undefined);
  return found && JSON.stringify(found);
}

function readAttribute(attribute: DeviceAttribute): Value {
  if (attribute.int !== undefined) return BigInt(attribute.int);
  if (attribute.bool !== undefined) return attribute.bool;
  if (attribute.version !== undefined) return evaluate(VERSION, attribute.version);
  return attribute.string ?? '';
}
const evaluate = (program: Program, text: string): Value =>
  program(name => (name === 'text' ? text : undefined), new Budget(COST_MAX));

function byDomain<T>(driver: string, values: Readonly<Record<string, T>>, read: (value: T) => Value): ByDomain {
  const domains = new Map<string, [Value, Value][]>();
  for (const [name, value] of Object.entries(values)) {
    const [domain, id] = name.includes('/') ? (name.split('/', 2) as [string, string]) : [driver, name];
    const entries = domains.get(domain) ?? [];
    entries.push([id, read(value)]);
    domains.set(domain, entries);
  }
  return new ByDomain(new Map([...domains].map(([domain, entries]) => [domain, new HashMap(entries)])));
}

/** Throws with the selector that could not be worked out. */
export function isSelected(device: Device, driver: string, selectors: readonly DeviceSelector[]): boolean {
  if (selectors.length === 0) return true;
  const seen = new HashMap([
    ['driver', driver],
    ['attributes', byDomain(driver, device.attributes ?? {}, readAttribute)],
    ['capacity', byDomain(driver, device.capacity ?? {}, ({ value }) => evaluate(QUANTITY, String(value)))],
    ['allowMultipleAllocations', device.allowMultipleAllocations ?? false],
  ]);
  return selectors.every(({ cel }) => {
    if (!cel) return true;
    try {
      return programOf(cel.expression)(name => (name === 'device' ? seen : undefined), new Budget(COST_MAX)) === true;
    } catch (error) {
      throw new Error(`CEL expression ${JSON.stringify(cel.expression)}: ${(error as Error).message}`);
    }
  });
}
