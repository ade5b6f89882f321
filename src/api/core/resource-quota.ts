/** Resource quotas. */

import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { addInvalid, addRequired, type Errors } from '../machinery/validation.ts';
import { canonicalList } from './pod-defaults.ts';
import { checkQuotaResourceName, checkResourceQuantity, isStandardQuotaResource } from './resource-validation.ts';
import type { ResourceQuota, ResourceQuotaSpec } from './v1.gen.ts';

const EXISTENCE_SCOPES = ['Terminating', 'NotTerminating', 'BestEffort', 'NotBestEffort', 'CrossNamespacePodAffinity'];
const SCOPES = [...EXISTENCE_SCOPES, 'PriorityClass', 'VolumeAttributesClass'];
const CONFLICTS = [
  ['BestEffort', 'NotBestEffort'],
  ['Terminating', 'NotTerminating'],
] as const;
const POD_RESOURCES = ['pods', 'cpu', 'memory', 'requests.cpu', 'requests.memory', 'limits.cpu', 'limits.memory'];

export const resourceQuota = defineKind<ResourceQuota>({
  group: '',
  version: 'v1',
  kind: 'ResourceQuota',
  defaults: object => {
    if (object.spec?.hard) canonicalList(object.spec.hard);
    if (object.status?.hard) canonicalList(object.status.hard);
    if (object.status?.used) canonicalList(object.status.used);
  },
  prepareCreate: object => {
    object.status = {};
  },
  prepareUpdate: (object, old) => {
    object.status = old.status!;
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec ?? {};
    checkList(errors, 'spec.hard', spec.hard);
    checkScopes(errors, spec);
    checkScopeSelector(errors, spec);
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    const now = JSON.stringify([...new Set(object.spec?.scopes)].sort());
    const then = JSON.stringify([...new Set(old.spec?.scopes)].sort());
    if (now !== then) addInvalid(errors, 'spec.scopes', object.spec?.scopes, 'field is immutable');
    return errors;
  },
  validateStatusUpdate: object => {
    const errors: Errors = [];
    checkList(errors, 'status.hard', object.status?.hard);
    checkList(errors, 'status.used', object.status?.used);
    return errors;
  },
  columns: [
    nameColumn,
    text('Request', object => usage(object, false)),
    text('Limit', object => usage(object, true)),
    ageColumn,
  ],
});

/** `requests.cpu: 1/2, pods: 3/10`, limits apart. */
function usage(object: ResourceQuota, limits: boolean): string {
  const hard = object.status?.hard ?? {};
  const names = Object.keys(hard)
    .filter(name => name.startsWith('limits.') === limits)
    .sort();
  return names.map(name => `${name}: ${object.status?.used?.[name] ?? '0'}/${hard[name]}`).join(', ');
}

function checkList(errors: Errors, path: string, list: Readonly<Record<string, string>> | undefined): void {
  for (const name in list) {
    checkQuotaResourceName(errors, `${path}[${name}]`, name);
    checkResourceQuantity(errors, `${path}[${name}]`, name, list[name]!);
  }
}

function isScopeFor(scope: string, resource: string): boolean {
  switch (scope) {
    case 'BestEffort':
      return resource === 'pods';
    case 'VolumeAttributesClass':
      return resource === 'persistentvolumeclaims' || resource === 'requests.storage';
    default:
      // What no scope is called is another finding.
      return !SCOPES.includes(scope) || POD_RESOURCES.includes(resource);
  }
}

function checkScopes(errors: Errors, spec: ResourceQuotaSpec): void {
  const scopes = spec.scopes ?? [];
  for (const scope of scopes) {
    if (!SCOPES.includes(scope)) addInvalid(errors, 'spec.scopes', scopes, 'unsupported scope');
    for (const name of Object.keys(spec.hard ?? {}).sort())
      if (isStandardQuotaResource(name) && !isScopeFor(scope, name))
        addInvalid(errors, 'spec.scopes', scopes, 'unsupported scope applied to resource');
  }
  for (const pair of CONFLICTS)
    if (pair.every(scope => scopes.includes(scope))) addInvalid(errors, 'spec.scopes', scopes, 'conflicting scopes');
}

function checkScopeSelector(errors: Errors, spec: ResourceQuotaSpec): void {
  const path = 'spec.scopeSelector.matchExpressions';
  const expressions = spec.scopeSelector?.matchExpressions ?? [];
  for (const { scopeName, operator, values = [] } of expressions) {
    if (!SCOPES.includes(scopeName)) addInvalid(errors, `${path}.scopeName`, scopeName, 'unsupported scope');
    for (const name of Object.keys(spec.hard ?? {}).sort())
      if (isStandardQuotaResource(name) && !isScopeFor(scopeName, name))
        addInvalid(errors, path, spec.scopeSelector, 'unsupported scope applied to resource');
    if (EXISTENCE_SCOPES.includes(scopeName) && operator !== 'Exists')
      addInvalid(
        errors,
        `${path}.operator`,
        operator,
        "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
      );
    if (operator === 'In' || operator === 'NotIn') {
      if (values.length === 0)
        addRequired(
          errors,
          `${path}.values`,
          "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
        );
    } else if (operator === 'Exists' || operator === 'DoesNotExist') {
      if (values.length > 0)
        addInvalid(
          errors,
          `${path}.values`,
          values,
          "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
        );
    } else addInvalid(errors, `${path}.operator`, operator, 'not a valid selector operator');
  }
  const names = expressions.map(expression => expression.scopeName);
  for (const pair of CONFLICTS)
    if (pair.every(scope => names.includes(scope))) addInvalid(errors, path, spec.scopes, 'conflicting scopes');
}
