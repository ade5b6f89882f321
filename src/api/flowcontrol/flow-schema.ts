/** Flow schemas and priority levels. */

import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { addInvalid, type Errors, requireOneOf, requireText } from '../machinery/validation.ts';
import type { FlowSchema, PriorityLevelConfiguration } from './v1.gen.ts';

const GROUP = 'flowcontrol.apiserver.k8s.io';

export const flowSchema = defineKind<FlowSchema>({
  group: GROUP,
  version: 'v1',
  kind: 'FlowSchema',
  defaults: object => {
    if (object.spec) object.spec.matchingPrecedence ||= 1000;
  },
  validate: object => {
    const errors: Errors = [];
    const precedence = object.spec?.matchingPrecedence ?? 0;
    if (precedence <= 0 || precedence > 10_000)
      addInvalid(
        errors,
        'spec.matchingPrecedence',
        precedence,
        precedence <= 0 ? 'must be a positive value' : 'must not be greater than 10000',
      );
    requireText(
      errors,
      'spec.priorityLevelConfiguration.name',
      object.spec?.priorityLevelConfiguration?.name,
      'must reference a priority level',
    );
    return errors;
  },
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

export const priorityLevelConfiguration = defineKind<PriorityLevelConfiguration>({
  group: GROUP,
  version: 'v1',
  kind: 'PriorityLevelConfiguration',
  defaults: object => {
    const exempt = object.spec?.exempt;
    if (exempt) {
      exempt.nominalConcurrencyShares ??= 0;
      exempt.lendablePercent ??= 0;
    }
    const limited = object.spec?.limited;
    if (!limited) return;
    limited.nominalConcurrencyShares ??= 30;
    limited.lendablePercent ??= 0;
    const queuing = limited.limitResponse?.queuing;
    if (!queuing) return;
    queuing.handSize ||= 8;
    queuing.queues ||= 64;
    queuing.queueLengthLimit ||= 50;
  },
  validate: object => {
    const errors: Errors = [];
    requireOneOf(errors, 'spec.type', object.spec?.type, ['Exempt', 'Limited']);
    return errors;
  },
  columns: [
    nameColumn,
    text('Type', object => object.spec?.type ?? ''),
    text(
      'NominalConcurrencyShares',
      object =>
        object.spec?.limited?.nominalConcurrencyShares ?? object.spec?.exempt?.nominalConcurrencyShares ?? '<none>',
    ),
    text('Queues', object => object.spec?.limited?.limitResponse?.queuing?.queues ?? '<none>'),
    text('HandSize', object => object.spec?.limited?.limitResponse?.queuing?.handSize ?? '<none>'),
    text('QueueLengthLimit', object => object.spec?.limited?.limitResponse?.queuing?.queueLengthLimit ?? '<none>'),
    ageColumn,
  ],
});
