/** Priority levels: how many requests at once, how many may wait, and how a client's are spread over queues. */

import { fieldErrors } from '../../base/errors.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { isNewSpec, semanticEqual } from '../machinery/equality.ts';
import { addForbidden, addInvalid, addRequired, type Errors } from '../machinery/validation.ts';
import { MANDATORY_LEVELS } from './mandatory-objects.ts';
import type {
  ExemptPriorityLevelConfiguration,
  LimitedPriorityLevelConfiguration,
  PriorityLevelConfiguration,
  PriorityLevelConfigurationSpec,
  QueuingConfiguration,
} from './v1.gen.ts';

const QUEUES_MAX = 10_000_000;
/** Of a hash of 64 bits, the four lowest say nothing. */
const HASH_BITS_MAX = 60;

export const priorityLevelConfiguration = defineKind<PriorityLevelConfiguration>({
  group: 'flowcontrol.apiserver.k8s.io',
  version: 'v1',
  kind: 'PriorityLevelConfiguration',
  isNewGeneration: isNewSpec,
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
    const { name } = object.metadata;
    const spec = (object.spec ?? {}) as PriorityLevelConfigurationSpec;
    checkSpec(errors, name, spec);
    if (name === 'exempt' && !semanticEqual({ ...spec, exempt: null }, { ...MANDATORY_LEVELS.exempt, exempt: null }))
      addInvalid(errors, 'spec', spec, `spec of '${name}' except the 'spec.exempt' field must equal the fixed value`);
    if (name === 'catch-all' && !semanticEqual(spec, MANDATORY_LEVELS[name]))
      addInvalid(errors, 'spec', spec, `spec of '${name}' must equal the fixed value`);
    return errors;
  },
  columns: [
    nameColumn,
    text('Type', object => object.spec?.type ?? ''),
    text('NominalConcurrencyShares', object => object.spec?.limited?.nominalConcurrencyShares ?? '<none>'),
    text('Queues', object => object.spec?.limited?.limitResponse?.queuing?.queues ?? '<none>'),
    text('HandSize', object => object.spec?.limited?.limitResponse?.queuing?.handSize ?? '<none>'),
    text('QueueLengthLimit', object => object.spec?.limited?.limitResponse?.queuing?.queueLengthLimit ?? '<none>'),
    ageColumn,
  ],
});

function checkSpec(errors: Errors, name: string, spec: PriorityLevelConfigurationSpec): void {
  const { type = '', exempt, limited } = spec;
  if ((name === 'exempt') !== (type === 'Exempt'))
    addInvalid(errors, 'spec.type', type, "type must be 'Exempt' if and only if name is 'exempt'");
  if (type === 'Exempt') {
    if (limited) addForbidden(errors, 'spec.limited', 'must be nil if the type is not Limited');
    if (exempt) checkShares(errors, 'spec.exempt', exempt);
  } else if (type === 'Limited') {
    if (exempt) addForbidden(errors, 'spec.exempt', 'must be nil if the type is Limited');
    if (limited) checkLimited(errors, 'spec.limited', limited);
    else addRequired(errors, 'spec.limited', 'must not be empty when type is Limited');
  } else errors.push(fieldErrors.notSupported('spec.type', type, ['Exempt', 'Limited']));
}

function checkShares(
  errors: Errors,
  path: string,
  level: ExemptPriorityLevelConfiguration | LimitedPriorityLevelConfiguration,
): void {
  const { nominalConcurrencyShares: shares = 0, lendablePercent: percent = 0 } = level;
  if (shares < 0) addInvalid(errors, `${path}.nominalConcurrencyShares`, shares, 'must be a non-negative integer');
  if (percent < 0 || percent > 100)
    addInvalid(errors, `${path}.lendablePercent`, percent, 'must be between 0 and 100, inclusive');
}

function checkLimited(errors: Errors, path: string, limited: LimitedPriorityLevelConfiguration): void {
  checkShares(errors, path, limited);
  const borrowing = limited.borrowingLimitPercent;
  if (borrowing !== undefined && borrowing < 0)
    addInvalid(errors, `${path}.borrowingLimitPercent`, borrowing, 'if specified, must be a non-negative integer');
  const { type = '', queuing } = limited.limitResponse ?? {};
  const at = `${path}.limitResponse`;
  if (type === 'Reject') {
    if (queuing) addForbidden(errors, `${at}.queuing`, 'must be nil if limited.limitResponse.type is not Limited');
  } else if (type === 'Queue') {
    if (queuing) checkQueuing(errors, `${at}.queuing`, queuing);
    else addRequired(errors, `${at}.queuing`, 'must not be empty if limited.limitResponse.type is Limited');
  } else errors.push(fieldErrors.notSupported(`${at}.type`, type, ['Queue', 'Reject']));
}

function checkQueuing(errors: Errors, path: string, queuing: QueuingConfiguration): void {
  const { queues = 0, handSize = 0, queueLengthLimit = 0 } = queuing;
  if (queueLengthLimit <= 0) addInvalid(errors, `${path}.queueLengthLimit`, queueLengthLimit, 'must be positive');
  if (queues <= 0) addInvalid(errors, `${path}.queues`, queues, 'must be positive');
  else if (queues > QUEUES_MAX) addInvalid(errors, `${path}.queues`, queues, `must not be greater than ${QUEUES_MAX}`);
  const at = `${path}.handSize`;
  if (handSize <= 0) addInvalid(errors, at, handSize, 'must be positive');
  else if (handSize > queues) addInvalid(errors, at, handSize, `should not be greater than queues (${queues})`);
  else if (entropyBits(queues, handSize) > HASH_BITS_MAX)
    addInvalid(
      errors,
      at,
      handSize,
      `required entropy bits of deckSize ${queues} and handSize ${handSize} should not be greater than ${HASH_BITS_MAX}`,
    );
}

/** Bits of a hash by which a hand is dealt, as upstream counts them. */
function entropyBits(deckSize: number, handSize: number): number {
  return Math.ceil(Math.log2(deckSize) * handSize);
}
