/**
 * The small steps that validation of every kind is made of. Each appends to `errors`, so that a valid object costs no
 * allocation beyond its paths; paths are strings such as `spec.ports[0].name`.
 */

import { type FieldError, fieldErrors } from '../../base/errors.ts';
import type { LabelSelector } from '../meta.ts';
import { semanticEqual } from './equality.ts';
import { labelValueProblems, qualifiedNameProblems, validateLabels } from './labels.ts';
import { isPercent, type Problems, percentProblems, portNameProblems, portNumberProblems } from './names.ts';
import { parseNano } from './quantity.ts';

export const NOT_NEGATIVE = 'must be greater than or equal to 0';
export const IMMUTABLE = 'field is immutable';

export type Errors = FieldError[];

/** One `Invalid value` for each problem. */
export function addProblems(errors: Errors, path: string, value: unknown, problems: Problems): void {
  for (const problem of problems) errors.push(fieldErrors.invalid(path, value, problem));
}

export function addRequired(errors: Errors, path: string, detail?: string): void {
  errors.push(fieldErrors.required(path, detail));
}

export function addInvalid(errors: Errors, path: string, value: unknown, detail: string): void {
  errors.push(fieldErrors.invalid(path, value ?? null, detail));
}

export function addForbidden(errors: Errors, path: string, detail: string): void {
  errors.push(fieldErrors.forbidden(path, detail));
}

export function addDuplicate(errors: Errors, path: string, value: unknown): void {
  errors.push(fieldErrors.duplicate(path, value));
}

/** Required when absent or empty, otherwise one of `supported`. */
export function requireOneOf(
  errors: Errors,
  path: string,
  value: string | undefined,
  supported: readonly string[],
): void {
  if (!value) addRequired(errors, path);
  else if (!supported.includes(value)) errors.push(fieldErrors.notSupported(path, value, supported));
}

/** One of `supported` when present. */
export function allowOneOf(
  errors: Errors,
  path: string,
  value: string | undefined,
  supported: readonly string[],
): void {
  if (value !== undefined && !supported.includes(value)) errors.push(fieldErrors.notSupported(path, value, supported));
}

export function requireText(errors: Errors, path: string, value: string | undefined, detail?: string): value is string {
  if (value) return true;
  addRequired(errors, path, detail);
  return false;
}

export function checkNotNegative(errors: Errors, path: string, value: number | undefined): void {
  if (value !== undefined && value < 0) addInvalid(errors, path, value, NOT_NEGATIVE);
}

export function checkUnchanged(errors: Errors, path: string, value: unknown, old: unknown): void {
  if (!semanticEqual(value, old)) addInvalid(errors, path, value, IMMUTABLE);
}

export function checkLabelKey(errors: Errors, path: string, key: string | undefined): void {
  addProblems(errors, path, key ?? '', qualifiedNameProblems(key ?? ''));
}

export function checkPort(errors: Errors, path: string, port: number | string | undefined): void {
  if (typeof port === 'string') addProblems(errors, path, port, portNameProblems(port));
  else addProblems(errors, path, port ?? 0, portNumberProblems(port ?? 0));
}

export function checkQuantityNotNegative(errors: Errors, path: string, quantity: string | undefined): void {
  if (quantity?.startsWith('-') && (parseNano(quantity) ?? 0n) < 0n) addInvalid(errors, path, quantity, NOT_NEGATIVE);
}

/** A `metav1.LabelSelector`; absent is fine. Whether it can be matched with. */
export function checkLabelSelector(errors: Errors, path: string, selector: LabelSelector | undefined): boolean {
  if (!selector) return true;
  const before = errors.length;
  if (selector.matchLabels) errors.push(...validateLabels(selector.matchLabels, `${path}.matchLabels`));
  selector.matchExpressions?.forEach((requirement, index) => {
    const at = `${path}.matchExpressions[${index}]`;
    const values = requirement.values ?? [];
    if (requirement.operator === 'In' || requirement.operator === 'NotIn') {
      if (values.length === 0)
        addRequired(errors, `${at}.values`, "must be specified when `operator` is 'In' or 'NotIn'");
    } else if (requirement.operator === 'Exists' || requirement.operator === 'DoesNotExist') {
      if (values.length > 0)
        addForbidden(errors, `${at}.values`, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
    } else addInvalid(errors, `${at}.operator`, requirement.operator ?? '', 'not a valid selector operator');
    checkLabelKey(errors, `${at}.key`, requirement.key);
    values.forEach((value, valueIndex) => {
      addProblems(errors, `${at}.values[${valueIndex}]`, value, labelValueProblems(value));
    });
  });
  return errors.length === before;
}

export function isEmptySelector(selector: LabelSelector): boolean {
  return Object.keys(selector.matchLabels ?? {}).length + (selector.matchExpressions?.length ?? 0) === 0;
}

/** A count or percentage that is not negative: maxSurge, maxUnavailable, minAvailable. */
export function checkCountOrPercent(errors: Errors, path: string, value: number | string | undefined): void {
  if (typeof value === 'number') checkNotNegative(errors, path, value);
  else if (typeof value === 'string') addProblems(errors, path, value, percentProblems(value));
}

export function checkAtMostHundredPercent(errors: Errors, path: string, value: number | string | undefined): void {
  if (typeof value === 'string' && isPercent(value) && Number(value.slice(0, -1)) > 100)
    addInvalid(errors, path, value, 'must not be greater than 100%');
}

/** Calls back for each item with its path; absent lists are empty. */
export function eachAt<T>(
  items: readonly T[] | undefined,
  path: string,
  check: (item: T, path: string, index: number) => void,
): void {
  if (items) for (let index = 0; index < items.length; index++) check(items[index]!, `${path}[${index}]`, index);
}
