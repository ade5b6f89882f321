/** What every owner of a pod template checks: its selector, and that the template's labels match it. */

import { fieldErrors } from '../../base/errors.ts';
import { labelSelectorMatch } from '../machinery/labels.ts';
import {
  addForbidden,
  addInvalid,
  addRequired,
  checkLabelSelector,
  checkNotNegative,
  type Errors,
  isEmptySelector,
} from '../machinery/validation.ts';
import type { LabelSelector } from '../meta.ts';
import { checkPodTemplate } from './pod-validation.ts';
import type { PodTemplateSpec } from './v1.gen.ts';

/** `selector` of a workload: required and not empty. Whether it can be matched with. */
export function checkWorkloadSelector(
  errors: Errors,
  path: string,
  selector: LabelSelector | undefined,
  kind: string,
): boolean {
  if (!selector) {
    addRequired(errors, path);
    return true;
  }
  const usable = checkLabelSelector(errors, path, selector);
  if (isEmptySelector(selector)) addInvalid(errors, path, selector, `empty selector is invalid for ${kind}`);
  if (!usable) addInvalid(errors, path, selector, 'invalid label selector');
  return usable;
}

export interface TemplateOwner {
  readonly template: PodTemplateSpec | undefined;
  readonly selector: LabelSelector | undefined;
  /** As in `activeDeadlineSeconds in ReplicaSet is not Supported`. */
  readonly kind: string;
}

/** The template of a workload whose pods always restart. */
export function checkRestartingTemplate(errors: Errors, path: string, owner: TemplateOwner): void {
  const { template, selector, kind } = owner;
  if (!template) {
    addRequired(errors, path);
    return;
  }
  const labels = template.metadata?.labels;
  // Without a selector nothing matches, with an empty one everything.
  if (!(selector && isEmptySelector(selector)) && !labelSelectorMatch(selector)(labels))
    addInvalid(errors, `${path}.metadata.labels`, labels, '`selector` does not match template `labels`');
  checkPodTemplate(errors, path, template);
  const policy = template.spec?.restartPolicy;
  if (policy !== 'Always')
    errors.push(fieldErrors.notSupported(`${path}.spec.restartPolicy`, policy ?? '', ['Always']));
  if (template.spec?.activeDeadlineSeconds !== undefined)
    addForbidden(errors, `${path}.spec.activeDeadlineSeconds`, `activeDeadlineSeconds in ${kind} is not Supported`);
}

/** Counts in a workload's status: none negative, none of the parts larger than `replicas`. */
export function checkReplicaStatus(errors: Errors, status: object | undefined, parts: readonly string[]): void {
  if (!status) return;
  const counts = status as Readonly<Record<string, number | undefined>>;
  for (const field of ['replicas', ...parts, 'observedGeneration'])
    checkNotNegative(errors, `status.${field}`, counts[field]);
  const total = counts['replicas'] ?? 0;
  for (const field of parts)
    if ((counts[field] ?? 0) > total)
      addInvalid(errors, `status.${field}`, counts[field], 'cannot be greater than status.replicas');
  if ((counts['availableReplicas'] ?? 0) > (counts['readyReplicas'] ?? 0))
    addInvalid(errors, 'status.availableReplicas', counts['availableReplicas'], 'cannot be greater than readyReplicas');
}
