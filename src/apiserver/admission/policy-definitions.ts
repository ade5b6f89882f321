/** Policies and webhook configurations whose expressions do not compile are refused when they are written. */

import type {
  MatchCondition,
  MutatingAdmissionPolicy,
  ValidatingAdmissionPolicy,
  ValidatingWebhookConfiguration,
  Variable,
} from '../../api/admissionregistration/v1.gen.ts';
import { type FieldError, fieldErrors, invalid } from '../../base/errors.ts';
import type { AdmissionPlugin } from '../request.ts';
import { checkAdmission } from './expressions.ts';

const GROUP = 'admissionregistration.k8s.io';

const OF_REQUEST = ['object', 'oldObject', 'request', 'authorizer'];
const OF_POLICY = [...OF_REQUEST, 'params', 'namespaceObject', 'variables'];

interface Found {
  readonly path: string;
  readonly expression: string | undefined;
}

type Finder = (object: never) => readonly Found[];

const conditions = (list: readonly MatchCondition[] | undefined, at: string): Found[] =>
  (list ?? []).map(({ expression }, index) => ({ path: `${at}.matchConditions[${index}].expression`, expression }));
const variables = (list: readonly Variable[] | undefined): Found[] =>
  (list ?? []).map(({ expression }, index) => ({ path: `spec.variables[${index}].expression`, expression }));

const FINDERS: Readonly<Record<string, Finder>> = {
  validatingadmissionpolicies: ({ spec }: ValidatingAdmissionPolicy) => [
    ...conditions(spec.matchConditions, 'spec'),
    ...variables(spec.variables),
    ...(spec.validations ?? []).flatMap(({ expression, messageExpression }, index) => [
      { path: `spec.validations[${index}].expression`, expression },
      { path: `spec.validations[${index}].messageExpression`, expression: messageExpression },
    ]),
    ...(spec.auditAnnotations ?? []).map(({ valueExpression }, index) => ({
      path: `spec.auditAnnotations[${index}].valueExpression`,
      expression: valueExpression,
    })),
  ],
  mutatingadmissionpolicies: ({ spec }: MutatingAdmissionPolicy) => [
    ...conditions(spec.matchConditions, 'spec'),
    ...variables(spec.variables),
    ...(spec.mutations ?? []).flatMap(({ applyConfiguration, jsonPatch }, index) => [
      { path: `spec.mutations[${index}].applyConfiguration.expression`, expression: applyConfiguration?.expression },
      { path: `spec.mutations[${index}].jsonPatch.expression`, expression: jsonPatch?.expression },
    ]),
  ],
  validatingwebhookconfigurations: ({ webhooks }: ValidatingWebhookConfiguration) =>
    (webhooks ?? []).flatMap((webhook, index) => conditions(webhook.matchConditions, `webhooks[${index}]`)),
};

export function policyDefinitions(): AdmissionPlugin {
  return {
    name: 'PolicyDefinitions',
    validate({ attributes, object, info }) {
      if (attributes.group !== GROUP || attributes.subresource || !object) return;
      const name =
        attributes.resource === 'mutatingwebhookconfigurations'
          ? 'validatingwebhookconfigurations'
          : attributes.resource;
      const finder = Object.hasOwn(FINDERS, name) ? FINDERS[name] : undefined;
      const errors: FieldError[] = [];
      for (const { path, expression } of finder?.(object as never) ?? []) {
        if (!expression) continue;
        try {
          checkAdmission(expression, name === 'validatingwebhookconfigurations' ? OF_REQUEST : OF_POLICY);
        } catch (error) {
          errors.push(fieldErrors.invalid(path, expression, `compilation failed: ${(error as Error).message}`));
        }
      }
      if (errors.length > 0) throw invalid(info, object.metadata.name, errors);
    },
  };
}
