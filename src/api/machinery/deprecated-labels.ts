/** Labels of nodes that have newer names: what upstream says where somebody selects by them. */

import type { NodeSelectorTerm } from '../core/v1.gen.ts';
import { labelValueProblems } from './labels.ts';
import { eachAt } from './validation.ts';

const MESSAGES = new Map([
  ['beta.kubernetes.io/arch', 'deprecated since v1.14; use "kubernetes.io/arch" instead'],
  ['beta.kubernetes.io/os', 'deprecated since v1.14; use "kubernetes.io/os" instead'],
  ['failure-domain.beta.kubernetes.io/region', 'deprecated since v1.17; use "topology.kubernetes.io/region" instead'],
  ['failure-domain.beta.kubernetes.io/zone', 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead'],
  ['beta.kubernetes.io/instance-type', 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead'],
]);

/** Undefined for a label that is in order. */
export const labelDeprecation = (label: string): string | undefined => MESSAGES.get(label);

/** Each deprecated one of the labels, told at its place. */
export function warnOfLabels(warnings: string[], labels: object | undefined, at: (label: string) => string): void {
  for (const label of Object.keys(labels ?? {})) {
    const message = labelDeprecation(label);
    if (message) warnings.push(`${at(label)}: ${message}`);
  }
}

/** Keys of `matchExpressions`; and their values, where upstream judges those too. */
export function warnOfTerm(
  warnings: string[],
  path: string,
  { matchExpressions }: Pick<NodeSelectorTerm, 'matchExpressions'> = {},
  values?: 'values',
): void {
  eachAt(matchExpressions, `${path}.matchExpressions`, (expression, at) => {
    const message = labelDeprecation(expression.key);
    if (message) warnings.push(`${at}.key: ${expression.key} is ${message}`);
    if (values)
      eachAt(expression.values, `${at}.values`, (value, valueAt) => {
        for (const problem of labelValueProblems(value)) warnings.push(`${valueAt}: ${value} is invalid, ${problem}`);
      });
  });
}
