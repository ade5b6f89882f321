/** Validating admission policies and their bindings. */

import { defineKind } from '../kind.ts';
import { ageColumn, integer, nameColumn, text } from '../machinery/columns.ts';
import { addRequired, allowOneOf, type Errors, eachAt, requireText } from '../machinery/validation.ts';
import type {
  MatchResources,
  ParamRef,
  ValidatingAdmissionPolicy,
  ValidatingAdmissionPolicyBinding,
} from './v1.gen.ts';

const GROUP = 'admissionregistration.k8s.io';

/** Fills in how a policy or binding matches; shared by both sorts of policy. */
export function matchDefaults(match: MatchResources | undefined): void {
  if (!match) return;
  match.matchPolicy ??= 'Equivalent';
  match.namespaceSelector ??= {};
  match.objectSelector ??= {};
  for (const rule of [...(match.resourceRules ?? []), ...(match.excludeResourceRules ?? [])]) rule.scope ??= '*';
}

/** `namespace/name`, `*` for any name. */
export function formatParamReference(reference: ParamRef | undefined): string {
  if (!reference) return '<unset>';
  const name = reference.name || '*';
  return reference.namespace ? `${reference.namespace}/${name}` : name;
}

export const validatingAdmissionPolicy = defineKind<ValidatingAdmissionPolicy>({
  group: GROUP,
  version: 'v1',
  kind: 'ValidatingAdmissionPolicy',
  unconditionalUpdate: false,
  defaults: object => {
    const spec = object.spec;
    if (!spec) return;
    spec.failurePolicy ??= 'Fail';
    matchDefaults(spec.matchConstraints);
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec;
    if (!spec?.matchConstraints) addRequired(errors, 'spec.matchConstraints');
    else if (!spec.matchConstraints.resourceRules?.length) addRequired(errors, 'spec.matchConstraints.resourceRules');
    if (!spec?.validations?.length && !spec?.auditAnnotations?.length) {
      addRequired(errors, 'spec.validations', 'validations or auditAnnotations must be non-empty');
      addRequired(errors, 'spec.auditAnnotations', 'validations or auditAnnotations must be non-empty');
    }
    eachAt(spec?.validations, 'spec.validations', (validation, at) =>
      requireText(errors, `${at}.expression`, validation.expression?.trim(), 'expression is not specified'),
    );
    allowOneOf(errors, 'spec.failurePolicy', spec?.failurePolicy, ['Fail', 'Ignore']);
    return errors;
  },
  columns: [
    nameColumn,
    integer('Validations', object => object.spec?.validations?.length),
    text('ParamKind', object =>
      object.spec?.paramKind ? `${object.spec.paramKind.apiVersion}/${object.spec.paramKind.kind}` : '<unset>',
    ),
    ageColumn,
  ],
});

export const validatingAdmissionPolicyBinding = defineKind<ValidatingAdmissionPolicyBinding>({
  group: GROUP,
  version: 'v1',
  kind: 'ValidatingAdmissionPolicyBinding',
  unconditionalUpdate: false,
  defaults: object => matchDefaults(object.spec?.matchResources),
  validate: object => {
    const errors: Errors = [];
    requireText(errors, 'spec.policyName', object.spec?.policyName);
    if (!object.spec?.validationActions?.length) addRequired(errors, 'spec.validationActions');
    for (const action of object.spec?.validationActions ?? [])
      allowOneOf(errors, 'spec.validationActions', action, ['Audit', 'Deny', 'Warn']);
    return errors;
  },
  columns: [
    nameColumn,
    text('PolicyName', object => object.spec?.policyName ?? ''),
    text('ParamRef', object => formatParamReference(object.spec?.paramRef)),
    ageColumn,
  ],
});
