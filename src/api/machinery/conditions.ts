/** What must hold of every list of `metav1.Condition`, whatever the kind: types once each, a known status, a reason, when it changed. */

import { fieldErrors } from '../../base/errors.ts';
import type { Condition } from '../meta.ts';
import { qualifiedNameProblems } from './labels.ts';
import { regexProblem } from './names.ts';
import { addDuplicate, addInvalid, addProblems, addRequired, type Errors, eachAt } from './validation.ts';

const STATUSES = ['False', 'True', 'Unknown'];
const REASON = '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?';
const REASON_PATTERN = new RegExp(`^${REASON}$`);
const REASON_BYTES_MAX = 1024;
const MESSAGE_BYTES_MAX = 32 * 1024;

export function checkConditions(errors: Errors, path: string, conditions: readonly Condition[] | undefined): void {
  const types = new Set<string>();
  eachAt(conditions, path, (condition, at) => {
    const { type = '', status = '', reason, message = '', observedGeneration = 0, lastTransitionTime } = condition;
    if (types.has(type)) addDuplicate(errors, `${at}.type`, type);
    types.add(type);
    addProblems(errors, `${at}.type`, type, qualifiedNameProblems(type));
    if (!STATUSES.includes(status)) errors.push(fieldErrors.notSupported(`${at}.status`, status, STATUSES));
    if (observedGeneration < 0)
      addInvalid(errors, `${at}.observedGeneration`, observedGeneration, 'must be greater than or equal to zero');
    if (!lastTransitionTime) addRequired(errors, `${at}.lastTransitionTime`, 'must be set');
    if (!reason) addRequired(errors, `${at}.reason`, 'must be set');
    else checkReason(errors, `${at}.reason`, reason);
    if (Buffer.byteLength(message) > MESSAGE_BYTES_MAX)
      errors.push(fieldErrors.tooLong(`${at}.message`, MESSAGE_BYTES_MAX));
  });
}

function checkReason(errors: Errors, path: string, reason: string): void {
  if (!REASON_PATTERN.test(reason))
    addInvalid(
      errors,
      path,
      reason,
      regexProblem(
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'",
        REASON,
        'my_name',
        'MY_NAME',
        'MyName',
        'ReasonA,ReasonB',
        'ReasonA:ReasonB',
      ),
    );
  if (Buffer.byteLength(reason) > REASON_BYTES_MAX) errors.push(fieldErrors.tooLong(path, REASON_BYTES_MAX));
}

/** Whether there is one of the type that is true. */
export function isTrue(conditions: readonly Condition[] | undefined, type: string): boolean {
  return conditions?.some(condition => condition.type === type && condition.status === 'True') ?? false;
}
