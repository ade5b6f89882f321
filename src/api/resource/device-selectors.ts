/** What rules of claims and classes may say of a device: types of its parts, and what a rule costs at most before it runs. Pure. */

import { fieldErrors } from '../../base/errors.ts';
import { checkExpression, type Declarations, type Type, typeText } from '../cel/checker.ts';
import { estimateCost } from '../cel/cost-estimate.ts';
import { compile, kubernetesLibrary } from '../cel/environment.ts';
import { addForbidden, addInvalid, addRequired, type Errors } from '../machinery/validation.ts';
import { eachUpTo } from './device-fields.ts';
import type { DeviceSelector } from './v1.gen.ts';

const SELECTORS_MAX = 32;
const EXPRESSION_BYTES_MAX = 10 * 1024;
const COST_MAX = 1_000_000;
const DRIVER_BYTES_MAX = 63;
const VALUES_MAX = 32;
const VALUE_BYTES_MAX = 64;

/** By domain, then by name; an attribute may be of any type, but is not large. */
const byDomain = (of: Type): Type => ({ is: 'map', of: { is: 'map', of, max: VALUES_MAX }, max: VALUES_MAX });
const FIELDS: Readonly<Record<string, Type>> = {
  driver: { is: 'plain', name: 'string', max: DRIVER_BYTES_MAX },
  allowMultipleAllocations: { is: 'plain', name: 'bool', max: 1 },
  attributes: byDomain({ is: 'dyn', max: VALUE_BYTES_MAX }),
  capacity: byDomain({ is: 'plain', name: 'quantity' }),
};
const DEVICE: Type = { is: 'object', field: name => FIELDS[name] };
const declared: Declarations = name => (name === 'device' ? DEVICE : undefined);

export function checkSelectors(errors: Errors, path: string, selectors: readonly DeviceSelector[] | undefined): void {
  eachUpTo(errors, path, selectors, {
    max: SELECTORS_MAX,
    check: ({ cel }, at) => {
      if (!cel) addRequired(errors, `${at}.cel`);
      else checkSelector(errors, `${at}.cel.expression`, cel.expression ?? '');
    },
  });
}

function checkSelector(errors: Errors, path: string, expression: string): void {
  if (Buffer.byteLength(expression) > EXPRESSION_BYTES_MAX) {
    errors.push(fieldErrors.tooLong(path, EXPRESSION_BYTES_MAX));
    return;
  }
  try {
    compile(expression);
    const type = checkExpression(expression, kubernetesLibrary(), declared);
    if (type.is !== 'dyn' && !(type.is === 'plain' && type.name === 'bool'))
      addInvalid(errors, path, expression, `must evaluate to bool or the unknown type, not ${typeText(type)}`);
    else if (estimateCost(expression, kubernetesLibrary(), declared) > COST_MAX)
      addForbidden(errors, path, 'too complex, exceeds cost limit');
  } catch (error) {
    addInvalid(errors, path, expression, `compilation failed: ${(error as Error).message}`);
  }
}
