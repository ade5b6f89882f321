/** What must hold of requests for devices, beyond their schema: names, one kind of request, rules that compile. Pure. */

import { type FieldError, fieldErrors } from '../../base/errors.ts';
import { dnsLabelProblems, dnsSubdomainProblems } from '../machinery/names.ts';
import { addInvalid, addProblems, addRequired, type Errors, requireText } from '../machinery/validation.ts';
import {
  CONFIGURATIONS_MAX,
  checkConfiguration,
  checkFullyQualifiedName,
  checkToleration,
  eachOnce,
  eachUpTo,
} from './device-fields.ts';
import { checkSelectors } from './device-selectors.ts';
import type { DeviceClaim, DeviceRequest, DeviceSubRequest, ExactDeviceRequest } from './v1.gen.ts';

const REQUESTS_MAX = 32;
const CONSTRAINTS_MAX = 32;
const ALTERNATIVES_MAX = 8;
const TOLERATIONS_MAX = 16;
const NO_ATTRIBUTE = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set';

/** Names that constraints, configurations and results may refer to: of requests, and of their alternatives after a slash. */
export function requestNames(claim: DeviceClaim | undefined): ReadonlySet<string> {
  return new Set(
    (claim?.requests ?? []).flatMap(({ name, firstAvailable = [] }) => [
      name,
      ...firstAvailable.map(alternative => `${name}/${alternative.name}`),
    ]),
  );
}

/** Those that a constraint, a configuration or a result concerns. */
export function checkRequestNames(
  errors: Errors,
  path: string,
  concerned: readonly string[] | undefined,
  names: ReadonlySet<string>,
): void {
  eachOnce(errors, path, concerned, {
    key: name => name,
    max: REQUESTS_MAX,
    check: (name, at) => checkRequestName(errors, at, name, names),
  });
}

export function checkRequestName(errors: Errors, path: string, name: string, names: ReadonlySet<string>): void {
  const segments = name.split('/');
  if (segments.length <= 2)
    for (const segment of segments) addProblems(errors, path, segment, dnsLabelProblems(segment));
  if (!names.has(name))
    addInvalid(
      errors,
      path,
      name,
      "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
    );
}

export function checkDeviceClaim(path: string, claim: DeviceClaim = {}): FieldError[] {
  const errors: Errors = [];
  const { requests, constraints, config } = claim;
  const names = requestNames(claim);
  eachNamed(errors, `${path}.requests`, requests, {
    max: REQUESTS_MAX,
    check: (request, at) => checkRequest(errors, at, request),
  });
  eachUpTo(errors, `${path}.constraints`, constraints, {
    max: CONSTRAINTS_MAX,
    check: ({ requests: concerned, matchAttribute, distinctAttribute }, at) => {
      checkRequestNames(errors, `${at}.requests`, concerned, names);
      if (matchAttribute !== undefined) checkFullyQualifiedName(errors, `${at}.matchAttribute`, matchAttribute);
      else if (distinctAttribute !== undefined)
        checkFullyQualifiedName(errors, `${at}.distinctAttribute`, distinctAttribute);
      else addRequired(errors, at, NO_ATTRIBUTE);
    },
  });
  eachUpTo(errors, `${path}.config`, config, {
    max: CONFIGURATIONS_MAX,
    check: (one, at) => {
      checkRequestNames(errors, `${at}.requests`, one.requests, names);
      checkConfiguration(errors, at, one);
    },
  });
  return errors;
}

function eachNamed<T extends { readonly name: string }>(
  errors: Errors,
  path: string,
  items: readonly T[] | undefined,
  { max, check }: { max: number; check: (item: T, path: string) => void },
): void {
  eachOnce(errors, path, items, {
    key: ({ name }) => name,
    max,
    check: (item, at) => {
      addProblems(errors, `${at}.name`, item.name ?? '', dnsLabelProblems(item.name ?? ''));
      check(item, at);
    },
  });
}

function checkRequest(errors: Errors, path: string, { exactly, firstAvailable = [] }: DeviceRequest): void {
  const one = 'exactly one of `exactly` or `firstAvailable` is required';
  if (exactly && firstAvailable.length > 0)
    return addInvalid(errors, path, null, `${one}, but multiple fields are set`);
  if (exactly) return checkWish(errors, `${path}.exactly`, exactly);
  if (firstAvailable.length === 0) return addRequired(errors, path, one);
  eachNamed(errors, `${path}.firstAvailable`, firstAvailable, {
    max: ALTERNATIVES_MAX,
    check: (wish, at) => checkWish(errors, at, wish),
  });
}

function checkWish(errors: Errors, path: string, wish: ExactDeviceRequest | DeviceSubRequest): void {
  const { deviceClassName, allocationMode: mode = 'ExactCount', count, tolerations } = wish;
  if (requireText(errors, `${path}.deviceClassName`, deviceClassName))
    addProblems(errors, `${path}.deviceClassName`, deviceClassName, dnsSubdomainProblems(deviceClassName));
  checkSelectors(errors, `${path}.selectors`, wish.selectors);
  if (mode !== 'ExactCount' && mode !== 'All')
    errors.push(fieldErrors.notSupported(`${path}.allocationMode`, mode, ['All', 'ExactCount']));
  else if (mode === 'All' && count)
    addInvalid(errors, `${path}.count`, count, "must not be specified when allocationMode is 'All'");
  else if (mode === 'ExactCount' && count !== undefined && count <= 0)
    addInvalid(errors, `${path}.count`, count, 'must be greater than zero');
  eachUpTo(errors, `${path}.tolerations`, tolerations, {
    max: TOLERATIONS_MAX,
    check: (toleration, at) => checkToleration(errors, at, toleration),
  });
}

/** Upstream's: one device of each. */
export function defaultDeviceClaim(claim: DeviceClaim | undefined): void {
  for (const { exactly, firstAvailable = [] } of claim?.requests ?? [])
    for (const one of [...(exactly ? [exactly] : []), ...firstAvailable]) {
      one.allocationMode ||= 'ExactCount';
      if (one.allocationMode === 'ExactCount') one.count ||= 1;
      for (const toleration of one.tolerations ?? []) toleration.operator ||= 'Equal';
    }
}
