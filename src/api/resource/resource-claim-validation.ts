/** What must hold of requests for devices, beyond their schema: names, one kind of request, rules that compile. Pure. */

import { type FieldError, fieldErrors } from '../../base/errors.ts';
import { compile } from '../cel/environment.ts';
import { dnsLabelProblems } from '../machinery/names.ts';
import { addProblems } from '../machinery/validation.ts';
import type { DeviceClaim, DeviceSelector } from './v1.gen.ts';

const REQUESTS_MAX = 32;
const SELECTORS_MAX = 32;

export function checkSelectors(path: string, selectors: readonly DeviceSelector[] = []): FieldError[] {
  const errors: FieldError[] = [];
  if (selectors.length > SELECTORS_MAX) errors.push(fieldErrors.tooMany(path, selectors.length, SELECTORS_MAX));
  for (const [i, { cel }] of selectors.entries()) {
    if (!cel?.expression) {
      errors.push(fieldErrors.required(`${path}[${i}].cel`, ''));
      continue;
    }
    try {
      compile(cel.expression);
    } catch (error) {
      errors.push(fieldErrors.invalid(`${path}[${i}].cel.expression`, cel.expression, (error as Error).message));
    }
  }
  return errors;
}

export function checkDeviceClaim(path: string, claim: DeviceClaim = {}): FieldError[] {
  const errors: FieldError[] = [];
  const { requests = [], constraints = [] } = claim;
  if (requests.length > REQUESTS_MAX)
    errors.push(fieldErrors.tooMany(`${path}.requests`, requests.length, REQUESTS_MAX));
  const names = new Set<string>();
  for (const [i, { name, exactly, firstAvailable = [] }] of requests.entries()) {
    const at = `${path}.requests[${i}]`;
    addProblems(errors, `${at}.name`, name, dnsLabelProblems(name));
    if (names.has(name)) errors.push(fieldErrors.duplicate(`${at}.name`, name));
    names.add(name);
    if (!exactly && firstAvailable.length === 0)
      errors.push(fieldErrors.required(at, 'exactly one of `exactly` or `firstAvailable` is required'));
    if (exactly && firstAvailable.length > 0)
      errors.push(
        fieldErrors.invalid(
          at,
          null,
          'exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set',
        ),
      );
    for (const [one, where] of [
      ...(exactly ? [[exactly, `${at}.exactly`] as const] : []),
      ...firstAvailable.map((alternative, n) => [alternative, `${at}.firstAvailable[${n}]`] as const),
    ]) {
      if (!one.deviceClassName) errors.push(fieldErrors.required(`${where}.deviceClassName`, ''));
      const mode = one.allocationMode ?? 'ExactCount';
      if (mode !== 'ExactCount' && mode !== 'All')
        errors.push(fieldErrors.notSupported(`${where}.allocationMode`, mode, ['All', 'ExactCount']));
      if (mode === 'ExactCount' && one.count !== undefined && one.count <= 0)
        errors.push(fieldErrors.invalid(`${where}.count`, one.count, 'must be greater than zero'));
      errors.push(...checkSelectors(`${where}.selectors`, one.selectors));
    }
  }
  for (const [i, { requests: concerned = [], matchAttribute, distinctAttribute }] of constraints.entries()) {
    const at = `${path}.constraints[${i}]`;
    for (const [n, name] of concerned.entries())
      if (!names.has(name.split('/')[0]!))
        errors.push(
          fieldErrors.invalid(
            `${at}.requests[${n}]`,
            name,
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
          ),
        );
    if (!matchAttribute && !distinctAttribute) errors.push(fieldErrors.required(`${at}.matchAttribute`, ''));
  }
  return errors;
}

/** Upstream's: one device of each. */
export function defaultDeviceClaim(claim: DeviceClaim | undefined): void {
  for (const { exactly, firstAvailable = [] } of claim?.requests ?? [])
    for (const one of [...(exactly ? [exactly] : []), ...firstAvailable]) {
      one.allocationMode ??= 'ExactCount';
      if (one.allocationMode === 'ExactCount') one.count ??= 1;
    }
}
