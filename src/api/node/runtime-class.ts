/** Runtime classes. */

import { checkOverhead } from '../core/resource-validation.ts';
import { checkTolerations } from '../core/scheduling-validation.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { warnOfLabels } from '../machinery/deprecated-labels.ts';
import { validateLabels } from '../machinery/labels.ts';
import { dnsLabelProblems } from '../machinery/names.ts';
import { addDuplicate, addProblems, checkUnchanged, type Errors, eachAt } from '../machinery/validation.ts';
import type { RuntimeClass } from './v1.gen.ts';

export const runtimeClass = defineKind<RuntimeClass>({
  group: 'node.k8s.io',
  version: 'v1',
  kind: 'RuntimeClass',
  warnings: ({ scheduling }) => {
    const found: string[] = [];
    warnOfLabels(found, scheduling?.nodeSelector, label => `scheduling.nodeSelector[${label}]`);
    return found;
  },
  unconditionalUpdate: false,
  validate: object => {
    const errors: Errors = [];
    addProblems(errors, 'handler', object.handler ?? '', dnsLabelProblems(object.handler ?? ''));
    if (object.overhead?.podFixed) checkOverhead(errors, 'overhead.podFixed', object.overhead.podFixed);
    if (object.scheduling?.nodeSelector)
      errors.push(...validateLabels(object.scheduling.nodeSelector, 'scheduling.nodeSelector'));
    checkTolerations(errors, 'scheduling.tolerations', object.scheduling?.tolerations);
    const seen = new Set<string>();
    eachAt(object.scheduling?.tolerations, 'scheduling.tolerations', (toleration, at) => {
      const { key, operator, value, effect, tolerationSeconds } = toleration;
      const shown = JSON.stringify([key, operator, value, effect, tolerationSeconds]);
      if (seen.has(shown)) addDuplicate(errors, at, toleration);
      seen.add(shown);
    });
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'handler', object.handler, old.handler);
    return errors;
  },
  columns: [nameColumn, text('Handler', object => object.handler ?? ''), ageColumn],
});
