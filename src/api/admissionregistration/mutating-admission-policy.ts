/** Mutating admission policies and their bindings. */

import { defineKind } from '../kind.ts';
import { ageColumn, integer, nameColumn, text } from '../machinery/columns.ts';
import { addRequired, allowOneOf, type Errors, eachAt, requireText } from '../machinery/validation.ts';
import type { MatchResources, MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding } from './v1.gen.ts';
import { formatParamReference, matchDefaults } from './validating-admission-policy.ts';

const GROUP = 'admissionregistration.k8s.io';
/** Of a deletion there is nothing to change. */
const OPERATIONS = ['*', 'CONNECT', 'CREATE', 'UPDATE'];

function checkOperations(errors: Errors, path: string, constraints: MatchResources | undefined): void {
  eachAt(constraints?.resourceRules, `${path}.resourceRules`, ({ operations }, at) =>
    eachAt(operations, `${at}.operations`, (operation, operationAt) =>
      allowOneOf(errors, operationAt, operation, OPERATIONS),
    ),
  );
}

export const mutatingAdmissionPolicy = defineKind<MutatingAdmissionPolicy>({
  group: GROUP,
  version: 'v1',
  kind: 'MutatingAdmissionPolicy',
  unconditionalUpdate: false,
  defaults: object => {
    if (!object.spec) return;
    object.spec.failurePolicy ??= 'Fail';
    matchDefaults(object.spec.matchConstraints);
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec;
    if (!spec?.matchConstraints) addRequired(errors, 'spec.matchConstraints');
    else if (!spec.matchConstraints.resourceRules?.length) addRequired(errors, 'spec.matchConstraints.resourceRules');
    checkOperations(errors, 'spec.matchConstraints', spec?.matchConstraints);
    if (!spec?.mutations?.length) addRequired(errors, 'spec.mutations', 'mutations must contain at least one item');
    allowOneOf(errors, 'spec.failurePolicy', spec?.failurePolicy, ['Fail', 'Ignore']);
    allowOneOf(errors, 'spec.reinvocationPolicy', spec?.reinvocationPolicy, ['IfNeeded', 'Never']);
    return errors;
  },
  columns: [
    nameColumn,
    integer('Mutations', object => object.spec?.mutations?.length),
    text('ParamKind', object =>
      object.spec?.paramKind ? `${object.spec.paramKind.apiVersion}/${object.spec.paramKind.kind}` : '<unset>',
    ),
    ageColumn,
  ],
});

export const mutatingAdmissionPolicyBinding = defineKind<MutatingAdmissionPolicyBinding>({
  group: GROUP,
  version: 'v1',
  kind: 'MutatingAdmissionPolicyBinding',
  unconditionalUpdate: false,
  defaults: object => matchDefaults(object.spec?.matchResources),
  validate: object => {
    const errors: Errors = [];
    requireText(errors, 'spec.policyName', object.spec?.policyName);
    checkOperations(errors, 'spec.matchResources', object.spec?.matchResources);
    return errors;
  },
  columns: [
    nameColumn,
    text('PolicyName', object => object.spec?.policyName ?? ''),
    text('ParamRef', object => formatParamReference(object.spec?.paramRef)),
    ageColumn,
  ],
});
