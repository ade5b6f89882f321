/** Mutating admission policies and their bindings. */

import { defineKind } from '../kind.ts';
import { ageColumn, integer, nameColumn, text } from '../machinery/columns.ts';
import { isNewSpec } from '../machinery/equality.ts';
import { addForbidden, addRequired, type Errors, eachAt, requireOneOf, requireText } from '../machinery/validation.ts';
import { checkPolicy, checkPolicyBinding, UNSPECIFIED } from './policy-validation.ts';
import type { MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, Mutation } from './v1.gen.ts';
import { formatParamReference, matchDefaults } from './validating-admission-policy.ts';

const GROUP = 'admissionregistration.k8s.io';
/** Of a deletion there is nothing to change. */
const OPERATIONS = ['*', 'CONNECT', 'CREATE', 'UPDATE'];

export const mutatingAdmissionPolicy = defineKind<MutatingAdmissionPolicy>({
  group: GROUP,
  version: 'v1',
  kind: 'MutatingAdmissionPolicy',
  isNewGeneration: isNewSpec,
  unconditionalUpdate: false,
  defaults: object => {
    if (!object.spec) return;
    object.spec.failurePolicy ??= 'Fail';
    matchDefaults(object.spec.matchConstraints);
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec ?? {};
    checkPolicy(errors, spec, OPERATIONS);
    if (!spec.mutations?.length) addRequired(errors, 'spec.mutations', 'mutations must contain at least one item');
    eachAt(spec.mutations, 'spec.mutations', (mutation, at) => checkMutation(errors, at, mutation));
    requireOneOf(errors, 'spec.reinvocationPolicy', spec.reinvocationPolicy, ['IfNeeded', 'Never']);
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
  isNewGeneration: isNewSpec,
  unconditionalUpdate: false,
  defaults: object => matchDefaults(object.spec?.matchResources),
  validate: object => {
    const errors: Errors = [];
    checkPolicyBinding(errors, object.spec ?? {}, OPERATIONS);
    return errors;
  },
  columns: [
    nameColumn,
    text('PolicyName', object => object.spec?.policyName ?? ''),
    text('ParamRef', object => formatParamReference(object.spec?.paramRef)),
    ageColumn,
  ],
});

const PATCHES = { ApplyConfiguration: 'applyConfiguration', JSONPatch: 'jsonPatch' } as const;

function checkMutation(errors: Errors, path: string, mutation: Mutation): void {
  const { patchType } = mutation;
  requireOneOf(errors, `${path}.patchType`, patchType, Object.keys(PATCHES));
  const expected = PATCHES[patchType as keyof typeof PATCHES];
  for (const field of Object.values(PATCHES)) {
    const at = `${path}.${field}`;
    if (field === expected) {
      if (!mutation[field]) addRequired(errors, at, `must be specified when patchType is ${patchType}`);
      else requireText(errors, `${at}.expression`, mutation[field].expression?.trim(), UNSPECIFIED);
    } else if (expected && mutation[field])
      addForbidden(errors, at, `must not be specified when patchType is ${patchType}`);
  }
}
