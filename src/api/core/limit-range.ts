/** Limit ranges. */

import { defineKind } from '../kind.ts';
import { nameColumn } from '../machinery/columns.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import { compareQuantity, quantityMilli } from '../machinery/quantity.ts';
import {
  addDuplicate,
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  type Errors,
  eachAt,
} from '../machinery/validation.ts';
import { canonicalList } from './pod-defaults.ts';
import { checkContainerResourceName, checkResourceName, isOvercommitAllowed } from './resource-validation.ts';
import type { LimitRange, LimitRangeItem } from './v1.gen.ts';

const TYPES = ['Pod', 'Container', 'PersistentVolumeClaim'];
const LISTS = ['max', 'min', 'default', 'defaultRequest', 'maxLimitRequestRatio'] as const;

export const limitRange = defineKind<LimitRange>({
  group: '',
  version: 'v1',
  kind: 'LimitRange',
  defaults: object => {
    for (const item of object.spec?.limits ?? []) {
      for (const list of LISTS) if (item[list]) canonicalList(item[list]);
      if (item.type !== 'Container') continue;
      // default ← max, defaultRequest ← default or min.
      for (const name in item.max) (item.default ??= {})[name] ??= item.max[name]!;
      for (const name in item.default) (item.defaultRequest ??= {})[name] ??= item.default[name]!;
      for (const name in item.min) (item.defaultRequest ??= {})[name] ??= item.min[name]!;
    }
  },
  validate: object => {
    const errors: Errors = [];
    const types = new Set<string>();
    eachAt(object.spec?.limits, 'spec.limits', (item, at) => {
      checkType(errors, `${at}.type`, item.type ?? '');
      if (types.has(item.type)) addDuplicate(errors, `${at}.type`, item.type);
      types.add(item.type);
      checkItem(errors, at, item);
    });
    return errors;
  },
  columns: [
    nameColumn,
    { name: 'Created At', type: 'date', cell: object => object.metadata.creationTimestamp ?? null },
  ],
});

function checkType(errors: Errors, path: string, type: string): void {
  const problems = qualifiedNameProblems(type);
  addProblems(errors, path, type, problems);
  if (problems.length === 0 && !type.includes('/') && !TYPES.includes(type))
    addInvalid(errors, path, type, 'must be a standard limit type or fully qualified');
}

function checkItem(errors: Errors, path: string, item: LimitRangeItem): void {
  const names = new Set<string>();
  for (const list of LISTS) {
    if (item.type === 'Pod' && (list === 'default' || list === 'defaultRequest')) {
      if (Object.keys(item[list] ?? {}).length)
        addForbidden(errors, `${path}.${list}`, "may not be specified when `type` is 'Pod'");
      continue;
    }
    for (const name in item[list]) {
      const at = `${path}.${list}[${name}]`;
      if (item.type === 'Pod' || item.type === 'Container') checkContainerResourceName(errors, at, name);
      else checkResourceName(errors, at, name);
      names.add(name);
    }
  }
  if (
    item.type === 'PersistentVolumeClaim' &&
    item.min?.['storage'] === undefined &&
    item.max?.['storage'] === undefined
  )
    addRequired(
      errors,
      `${path}.limits`,
      'either minimum or maximum storage value is required, but neither was provided',
    );
  for (const name of names) checkOrder(errors, path, item, name);
}

function checkOrder(errors: Errors, path: string, item: LimitRangeItem, name: string): void {
  const min = item.min?.[name];
  const max = item.max?.[name];
  const preset = item.type === 'Pod' ? undefined : item.default?.[name];
  const request = item.type === 'Pod' ? undefined : item.defaultRequest?.[name];
  const ratio = item.maxLimitRequestRatio?.[name];
  const exceeds = (a: string | undefined, b: string | undefined): boolean =>
    a !== undefined && b !== undefined && compareQuantity(a, b) > 0;
  if (exceeds(min, max))
    addInvalid(errors, `${path}.min[${name}]`, min, `min value ${min} is greater than max value ${max}`);
  if (exceeds(min, request))
    addInvalid(
      errors,
      `${path}.defaultRequest[${name}]`,
      request,
      `min value ${min} is greater than default request value ${request}`,
    );
  if (exceeds(request, max))
    addInvalid(
      errors,
      `${path}.defaultRequest[${name}]`,
      request,
      `default request value ${request} is greater than max value ${max}`,
    );
  if (exceeds(request, preset))
    addInvalid(
      errors,
      `${path}.defaultRequest[${name}]`,
      request,
      `default request value ${request} is greater than default limit value ${preset}`,
    );
  if (exceeds(min, preset))
    addInvalid(errors, `${path}.default[${name}]`, min, `min value ${min} is greater than default value ${preset}`);
  if (exceeds(preset, max))
    addInvalid(errors, `${path}.default[${name}]`, max, `default value ${preset} is greater than max value ${max}`);
  if (exceeds('1', ratio))
    addInvalid(errors, `${path}.maxLimitRequestRatio[${name}]`, ratio, `ratio ${ratio} is less than 1`);
  if (ratio !== undefined && min !== undefined && max !== undefined) {
    const highest = quantityMilli(max) / quantityMilli(min);
    if (quantityMilli(ratio) / 1000 > highest)
      addInvalid(
        errors,
        `${path}.maxLimitRequestRatio[${name}]`,
        ratio,
        `ratio ${ratio} is greater than max/min = ${highest.toFixed(6)}`,
      );
  }
  if (
    !isOvercommitAllowed(name) &&
    preset !== undefined &&
    request !== undefined &&
    compareQuantity(preset, request) !== 0
  )
    addInvalid(
      errors,
      `${path}.defaultRequest[${name}]`,
      request,
      `default value ${preset} must equal to defaultRequest value ${request} in ${name}`,
    );
}
