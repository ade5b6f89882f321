/** The parts that claims, classes and slices share: names of drivers, pools and attributes, taints and tolerations, a driver's own parameters. Pure. */

import { fieldErrors } from '../../base/errors.ts';
import { checkDriverName } from '../core/volume-validation.ts';
import { labelValueProblems, qualifiedNameProblems } from '../machinery/labels.ts';
import { cIdentifierProblems, dnsSubdomainProblems } from '../machinery/names.ts';
import { addInvalid, addProblems, addRequired, type Errors, eachAt, requireOneOf } from '../machinery/validation.ts';
import type { DeviceConfiguration, DeviceTaint, DeviceToleration } from './v1.gen.ts';

export const CONFIGURATIONS_MAX = 32;
const POOL_NAME_BYTES_MAX = 253;
const ID_BYTES_MAX = 32;
const BINDING_CONDITIONS_MAX = 4;
const PARAMETERS_BYTES_MAX = 10 * 1024;
const OMITTED = '<value omitted>';
const EFFECTS = ['NoExecute', 'NoSchedule', 'None'];

/** At most `max` items; upstream shows their number alone, and looks at none of them when there are more. */
export function checkSize(errors: Errors, path: string, items: readonly unknown[] | undefined, max: number): boolean {
  if (!items || items.length <= max) return true;
  errors.push(fieldErrors.tooMany(path, items.length, max));
  return false;
}

/** Items with their paths, unless there are more than `max`. */
export function eachUpTo<T>(
  errors: Errors,
  path: string,
  items: readonly T[] | undefined,
  { max, check }: { max: number; check: (item: T, path: string) => void },
): void {
  if (checkSize(errors, path, items, max)) eachAt(items, path, check);
}

/** The same of items of which no two have the same key. */
export function eachOnce<T>(
  errors: Errors,
  path: string,
  items: readonly T[] | undefined,
  { key, max = Infinity, check }: { key: (item: T) => string; max?: number; check: (item: T, path: string) => void },
): void {
  if (!checkSize(errors, path, items, max)) return;
  eachAt(items, path, check);
  const seen = new Set<string>();
  eachAt(items, path, (item, at) => {
    if (seen.has(key(item))) errors.push(fieldErrors.duplicate(at, key(item)));
    seen.add(key(item));
  });
}

/** DNS subdomains, with slashes between them. */
export function checkPoolName(errors: Errors, path: string, name: string | undefined): void {
  if (!name) return addRequired(errors, path);
  if (Buffer.byteLength(name) > POOL_NAME_BYTES_MAX) errors.push(fieldErrors.tooLong(path, POOL_NAME_BYTES_MAX));
  for (const part of name.split('/')) addProblems(errors, path, part, dnsSubdomainProblems(part));
}

/** `id` or `domain/id`. */
export function checkQualifiedName(errors: Errors, path: string, name: string): void {
  const parts = name.split('/');
  const id = parts.at(-1)!;
  if (parts.length > 2) return addInvalid(errors, path, name, 'must have at most one slash');
  if (parts.length === 2) {
    if (parts[0]) checkDriverName(errors, path, parts[0]);
    else addInvalid(errors, path, '', 'the domain must not be empty');
    if (!id) return addInvalid(errors, path, '', 'the name must not be empty');
  }
  if (Buffer.byteLength(id) > ID_BYTES_MAX) errors.push(fieldErrors.tooLong(path, ID_BYTES_MAX));
  addProblems(errors, path, id, cIdentifierProblems(id));
}

export function checkFullyQualifiedName(errors: Errors, path: string, name: string): void {
  checkQualifiedName(errors, path, name);
  if (!name.includes('/'))
    addInvalid(errors, path, name, 'a fully qualified name must be a domain and a name separated by a slash');
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Of a share of a device: as upstream writes it, though its library reads other forms too. */
export function checkShareId(errors: Errors, path: string, id: string | undefined): void {
  if (id === undefined || UUID.test(id)) return;
  const bare = id.toLowerCase().replace(/^urn:uuid:|^\{(?=.{37}$)|(?<=^\{?.{36})\}$/g, '');
  const isKnownForm = UUID.test(bare) || /^[0-9a-f]{32}$/.test(bare);
  const problem = isKnownForm
    ? 'uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters'
    : `error validating uid: invalid UUID ${[32, 36, 38, 45].includes(id.length) ? 'format' : `length: ${id.length}`}`;
  addInvalid(errors, path, id, problem);
}

export function checkTaint(errors: Errors, path: string, { key = '', value, effect }: DeviceTaint): void {
  addProblems(errors, `${path}.key`, key, qualifiedNameProblems(key));
  if (value) addProblems(errors, `${path}.value`, value, labelValueProblems(value));
  requireOneOf(errors, `${path}.effect`, effect, EFFECTS);
}

export function checkToleration(errors: Errors, path: string, toleration: DeviceToleration): void {
  const { key, operator = 'Equal', value = '', effect } = toleration;
  if (key) addProblems(errors, `${path}.key`, key, qualifiedNameProblems(key));
  if (operator === 'Exists') {
    if (value) addInvalid(errors, `${path}.value`, value, 'must be empty for operator `Exists`');
  } else if (operator === 'Equal') addProblems(errors, `${path}.value`, value, labelValueProblems(value));
  else errors.push(fieldErrors.notSupported(`${path}.operator`, operator, ['Equal', 'Exists']));
  if (effect && !EFFECTS.includes(effect)) errors.push(fieldErrors.notSupported(`${path}.effect`, effect, EFFECTS));
}

/** What the driver is told beside the request; only the driver knows what it means. */
export function checkConfiguration(errors: Errors, path: string, { opaque }: DeviceConfiguration): void {
  if (!opaque) return addRequired(errors, `${path}.opaque`);
  checkDriverName(errors, `${path}.opaque.driver`, opaque.driver);
  checkRaw(errors, `${path}.opaque.parameters`, opaque.parameters);
}

/** A JSON object of anything, not too large. */
export function checkRaw(errors: Errors, path: string, value: unknown): void {
  if (value === undefined || value === null) addRequired(errors, path);
  else if (Buffer.byteLength(JSON.stringify(value)) > PARAMETERS_BYTES_MAX)
    errors.push(fieldErrors.tooLong(path, PARAMETERS_BYTES_MAX));
  else if (typeof value !== 'object' || Array.isArray(value))
    addInvalid(errors, path, OMITTED, 'must be a valid JSON object');
}

/** Conditions that a device waits for before its pod is bound. */
export function checkBindingConditions(
  errors: Errors,
  path: string,
  conditions: { readonly bindingConditions?: readonly string[]; readonly bindingFailureConditions?: readonly string[] },
): void {
  const { bindingConditions: good = [], bindingFailureConditions: bad = [] } = conditions;
  for (const field of ['bindingConditions', 'bindingFailureConditions'] as const)
    eachOnce(errors, `${path}.${field}`, conditions[field], {
      key: type => type,
      max: BINDING_CONDITIONS_MAX,
      check: (type, at) => addProblems(errors, at, type, qualifiedNameProblems(type)),
    });
  eachAt(bad, `${path}.bindingFailureConditions`, (type, at) => {
    if (good.includes(type))
      addInvalid(errors, at, type, 'bindingFailureConditions must not overlap with bindingConditions');
  });
  if (good.length === 0 && bad.length > 0)
    addInvalid(
      errors,
      `${path}.bindingConditions`,
      good,
      'bindingConditions are required to use bindingFailureConditions',
    );
  if (bad.length === 0 && good.length > 0)
    addInvalid(
      errors,
      `${path}.bindingFailureConditions`,
      bad,
      'bindingFailureConditions are required to use bindingConditions',
    );
}
