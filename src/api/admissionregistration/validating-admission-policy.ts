/** Validating admission policies and their bindings. */

import { defineKind } from '../kind.ts';
import { ageColumn, integer, nameColumn, text } from '../machinery/columns.ts';
import { checkConditions } from '../machinery/conditions.ts';
import { isNewSpec } from '../machinery/equality.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import {
  addDuplicate,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  type Errors,
  eachAt,
  requireText,
} from '../machinery/validation.ts';
import { checkPolicy, checkPolicyBinding, UNSPECIFIED } from './policy-validation.ts';
import type {
  AuditAnnotation,
  MatchResources,
  ParamRef,
  ValidatingAdmissionPolicy,
  ValidatingAdmissionPolicyBinding,
  Validation,
} from './v1.gen.ts';

const GROUP = 'admissionregistration.k8s.io';
const AUDIT_ANNOTATIONS_MAX = 20;
const REASONS = ['Forbidden', 'Invalid', 'RequestEntityTooLarge', 'Unauthorized'];

/** Fills in how a policy or binding matches; shared by both sorts of policy. */
export function matchDefaults(match: MatchResources | undefined): void {
  if (!match) return;
  match.matchPolicy ??= 'Equivalent';
  match.namespaceSelector ??= {};
  match.objectSelector ??= {};
  for (const rule of [...(match.resourceRules ?? []), ...(match.excludeResourceRules ?? [])]) rule.scope ??= '*';
}

/** `namespace/name`, `*` where the namespace is the request's; a selector as Go prints it. */
export function formatParamReference(reference: ParamRef | undefined): string {
  if (reference?.name) return `${reference.namespace || '*'}/${reference.name}`;
  if (!reference?.selector) return '<unset>';
  const { matchLabels = {}, matchExpressions = [] } = reference.selector;
  const labels = Object.keys(matchLabels)
    .sort()
    .map(key => `${key}: ${matchLabels[key]},`);
  const requirements = matchExpressions.map(
    ({ key, operator, values = [] }) =>
      `LabelSelectorRequirement{Key:${key},Operator:${operator},Values:[${values.join(' ')}],},`,
  );
  return `&LabelSelector{MatchLabels:map[string]string{${labels.join('')}},MatchExpressions:[]LabelSelectorRequirement{${requirements.join('')}},}`;
}

export const validatingAdmissionPolicy = defineKind<ValidatingAdmissionPolicy>({
  group: GROUP,
  version: 'v1',
  kind: 'ValidatingAdmissionPolicy',
  isNewGeneration: isNewSpec,
  unconditionalUpdate: false,
  defaults: object => {
    const spec = object.spec;
    if (!spec) return;
    spec.failurePolicy ??= 'Fail';
    matchDefaults(spec.matchConstraints);
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec ?? {};
    checkPolicy(errors, spec);
    if (!spec.validations?.length && !spec.auditAnnotations?.length) {
      addRequired(errors, 'spec.validations', 'validations or auditAnnotations must be non-empty');
      addRequired(errors, 'spec.auditAnnotations', 'validations or auditAnnotations must be non-empty');
    }
    eachAt(spec.validations, 'spec.validations', (validation, at) => checkValidation(errors, at, validation));
    checkAuditAnnotations(errors, 'spec.auditAnnotations', spec.auditAnnotations ?? []);
    return errors;
  },
  validateStatusUpdate: ({ status }) => {
    const errors: Errors = [];
    eachAt(status?.typeChecking?.expressionWarnings, 'status.typeChecking.expressionWarnings', (warning, at) => {
      requireText(errors, `${at}.warning`, warning.warning);
      requireText(errors, `${at}.fieldRef`, warning.fieldRef?.trim());
    });
    checkConditions(errors, 'status.conditions', status?.conditions);
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
  isNewGeneration: isNewSpec,
  unconditionalUpdate: false,
  defaults: object => matchDefaults(object.spec?.matchResources),
  validate: object => {
    const errors: Errors = [];
    checkPolicyBinding(errors, object.spec ?? {});
    checkActions(errors, 'spec.validationActions', object.spec?.validationActions ?? []);
    return errors;
  },
  columns: [
    nameColumn,
    text('PolicyName', object => object.spec?.policyName ?? ''),
    text('ParamRef', object => formatParamReference(object.spec?.paramRef)),
    ageColumn,
  ],
});

function checkValidation(errors: Errors, path: string, validation: Validation): void {
  const { expression, message, messageExpression, reason } = validation;
  requireText(errors, `${path}.expression`, expression?.trim(), UNSPECIFIED);
  if (messageExpression !== undefined && messageExpression !== '' && messageExpression.trim() === '')
    addInvalid(errors, `${path}.messageExpression`, messageExpression, 'must be non-empty if specified');
  if (message && message.trim() === '')
    addInvalid(errors, `${path}.message`, message, 'message must be non-empty if specified');
  else if (message?.trim().includes('\n'))
    addInvalid(errors, `${path}.message`, message, 'message must not contain line breaks');
  else if (!message && expression?.trim().includes('\n'))
    addRequired(errors, `${path}.message`, 'message must be specified if expression contains line breaks');
  allowOneOf(errors, `${path}.reason`, reason, REASONS);
}

function checkAuditAnnotations(errors: Errors, path: string, annotations: readonly AuditAnnotation[]): void {
  if (annotations.length > AUDIT_ANNOTATIONS_MAX)
    addInvalid(errors, path, annotations, `must not have more than ${AUDIT_ANNOTATIONS_MAX} auditAnnotations`);
  const keys = new Set<string>();
  eachAt(annotations, path, ({ key, valueExpression }, at) => {
    requireText(errors, `${at}.valueExpression`, valueExpression?.trim(), 'valueExpression is not specified');
    if (requireText(errors, `${at}.key`, key)) addProblems(errors, `${at}.key`, key, qualifiedNameProblems(key));
    if (keys.has(key)) addDuplicate(errors, `${at}.key`, key);
    keys.add(key);
  });
}

function checkActions(errors: Errors, path: string, actions: readonly string[]): void {
  const seen = new Set<string>();
  for (const action of actions) {
    allowOneOf(errors, path, action, ['Audit', 'Deny', 'Warn']);
    if (seen.has(action)) addDuplicate(errors, path, action);
    seen.add(action);
  }
  if (seen.has('Deny') && seen.has('Warn'))
    addInvalid(
      errors,
      path,
      actions,
      'must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)',
    );
  if (actions.length === 0) addRequired(errors, path, 'at least one validation action is required');
}
