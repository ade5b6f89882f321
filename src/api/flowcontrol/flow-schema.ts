/** Flow schemas: which priority level a request belongs to, and with which others it shares a queue. */

import { fieldErrors } from '../../base/errors.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { isNewSpec, semanticEqual } from '../machinery/equality.ts';
import { dnsSubdomainProblems } from '../machinery/names.ts';
import { addInvalid, addProblems, type Errors, eachAt, requireText } from '../machinery/validation.ts';
import { checkFlowRule } from './flow-rule-validation.ts';
import { MANDATORY_SCHEMAS } from './mandatory-objects.ts';
import type { FlowSchema, FlowSchemaSpec } from './v1.gen.ts';

const PRECEDENCE_MAX = 10_000;
const DISTINGUISHERS = ['ByNamespace', 'ByUser'];

export const flowSchema = defineKind<FlowSchema>({
  group: 'flowcontrol.apiserver.k8s.io',
  version: 'v1',
  kind: 'FlowSchema',
  isNewGeneration: isNewSpec,
  defaults: object => {
    if (object.spec) object.spec.matchingPrecedence ||= 1000;
  },
  validate: object => {
    const errors: Errors = [];
    const { name } = object.metadata;
    const spec = (object.spec ?? {}) as FlowSchemaSpec;
    const at = 'spec.matchingPrecedence';
    const precedence = spec.matchingPrecedence ?? 0;
    if (precedence <= 0) addInvalid(errors, at, precedence, 'must be a positive value');
    if (precedence > PRECEDENCE_MAX) addInvalid(errors, at, precedence, `must not be greater than ${PRECEDENCE_MAX}`);
    if (precedence === 1 && name !== 'exempt')
      addInvalid(errors, at, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    const method = spec.distinguisherMethod;
    if (method && !DISTINGUISHERS.includes(method.type))
      errors.push(fieldErrors.notSupported('spec.distinguisherMethod.type', method, DISTINGUISHERS));
    const level = spec.priorityLevelConfiguration?.name;
    if (requireText(errors, 'spec.priorityLevelConfiguration.name', level, 'must reference a priority level'))
      addProblems(errors, 'spec.priorityLevelConfiguration.name', level, dnsSubdomainProblems(level));
    eachAt(spec.rules, 'spec.rules', (rule, ruleAt) => checkFlowRule(errors, ruleAt, rule));
    if ((name === 'exempt' || name === 'catch-all') && !semanticEqual(spec, MANDATORY_SCHEMAS[name]))
      addInvalid(errors, 'spec', spec, `spec of '${name}' must equal the fixed value`);
    return errors;
  },
  rowOrder: (a, b) =>
    (a.spec?.matchingPrecedence ?? 0) - (b.spec?.matchingPrecedence ?? 0) ||
    (a.metadata.name < b.metadata.name ? -1 : 1),
  columns: [
    nameColumn,
    text('PriorityLevel', object => object.spec?.priorityLevelConfiguration?.name ?? ''),
    { name: 'MatchingPrecedence', type: 'string', cell: object => object.spec?.matchingPrecedence ?? 0 },
    text('DistinguisherMethod', object => object.spec?.distinguisherMethod?.type ?? '<none>'),
    ageColumn,
    text(
      'MissingPL',
      object => object.status?.conditions?.find(condition => condition.type === 'Dangling')?.status ?? '?',
    ),
  ],
});
