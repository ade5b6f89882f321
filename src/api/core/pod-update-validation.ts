/**
 * Rules between an old and a new pod: what an update and new ephemeral containers may change. Resizes are in
 * pod-resize-validation.ts, statuses in pod-status-validation.ts, the rules of a pod by itself in pod-validation.ts.
 */

import { fieldErrors } from '../../base/errors.ts';
import { forgiveStored } from '../machinery/address-forms.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { rangeProblem } from '../machinery/names.ts';
import { addForbidden, addInvalid, type Errors } from '../machinery/validation.ts';
import { checkAnnotationChange, MIRROR_ANNOTATION } from './pod-annotation-validation.ts';
import { validatePod } from './pod-validation.ts';
import type { Container, Pod, PodSpec, Toleration } from './v1.gen.ts';

const INT32_MAX = 2 ** 31 - 1;
const UPDATABLE = [
  '`spec.containers[*].image`',
  '`spec.initContainers[*].image`',
  '`spec.activeDeadlineSeconds`',
  '`spec.tolerations` (only additions to existing tolerations)',
  '`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)',
].join(',');

/** What an update of the pod itself may change: images, deadline, more tolerations, fewer gates. */
export function validatePodUpdate(pod: Pod, old: Pod): Errors {
  const errors: Errors = [];
  checkAnnotationChange(errors, pod.metadata.annotations, old.metadata.annotations);
  const spec = pod.spec!;
  const before = old.spec!;
  for (const field of ['containers', 'initContainers'] as const) {
    if ((spec[field]?.length ?? 0) !== (before[field]?.length ?? 0)) {
      addForbidden(errors, `spec.${field}`, 'pod updates may not add or remove containers');
      return errors;
    }
  }
  const deadline = spec.activeDeadlineSeconds;
  if (deadline !== undefined) {
    if (deadline < 0 || deadline > INT32_MAX) {
      addInvalid(errors, 'spec.activeDeadlineSeconds', deadline, rangeProblem(0, INT32_MAX));
      return errors;
    }
    if (before.activeDeadlineSeconds !== undefined && before.activeDeadlineSeconds < deadline) {
      addInvalid(errors, 'spec.activeDeadlineSeconds', deadline, 'must be less than or equal to previous value');
      return errors;
    }
  } else if (before.activeDeadlineSeconds !== undefined)
    addInvalid(errors, 'spec.activeDeadlineSeconds', null, 'must not update from a positive integer to nil value');
  if (!onlyAdds(spec.tolerations, before.tolerations))
    addForbidden(errors, 'spec.tolerations', 'existing toleration can not be modified except its tolerationSeconds');
  spec.schedulingGates?.forEach((gate, index) => {
    if (!before.schedulingGates?.some(other => other.name === gate.name))
      addForbidden(
        errors,
        `spec.schedulingGates[${index}].name`,
        `only deletion is allowed, but found new scheduling gate '${gate.name}'`,
      );
  });
  if (semanticEqual(spec, before)) return errors;

  const masked: PodSpec = {
    ...spec,
    containers: maskImages(spec.containers, before.containers)!,
    initContainers: maskImages(spec.initContainers, before.initContainers),
    activeDeadlineSeconds: before.activeDeadlineSeconds,
    schedulingGates: before.schedulingGates,
    tolerations: before.tolerations,
  } as PodSpec;
  if ((before.terminationGracePeriodSeconds ?? 0) < 0 && masked.terminationGracePeriodSeconds === 1)
    masked.terminationGracePeriodSeconds = before.terminationGracePeriodSeconds;
  if (before.schedulingGates?.length) maskGatedChanges(errors, masked, before);
  if (!semanticEqual(masked, before))
    addForbidden(
      errors,
      'spec',
      `pod updates may not change fields other than ${UPDATABLE}\n${describeDifference(before, masked)}`,
    );
  return errors;
}

function onlyAdds(tolerations: readonly Toleration[] = [], before: readonly Toleration[] = []): boolean {
  return before.every(old =>
    tolerations.some(toleration =>
      semanticEqual({ ...toleration, tolerationSeconds: undefined }, { ...old, tolerationSeconds: undefined }),
    ),
  );
}

function maskImages(
  containers: readonly Container[] | undefined,
  before: readonly Container[] | undefined,
): Container[] | undefined {
  return containers?.map((container, index) => {
    const { image: _, ...rest } = container;
    const image = before![index]!.image;
    return image === undefined ? rest : { ...rest, image };
  });
}

// A gated pod may still be steered: selectors and affinity may become narrower.
function maskGatedChanges(errors: Errors, masked: PodSpec, before: PodSpec): void {
  if (!semanticEqual(masked.nodeSelector, before.nodeSelector)) {
    for (const key in before.nodeSelector)
      if (masked.nodeSelector?.[key] !== before.nodeSelector[key]) {
        addInvalid(
          errors,
          'spec.nodeSelector',
          masked.nodeSelector,
          'only additions to spec.nodeSelector are allowed (no mutations or deletions)',
        );
        break;
      }
    masked.nodeSelector = before.nodeSelector as Record<string, string>;
  }
  const affinity = masked.affinity?.nodeAffinity;
  const old = before.affinity?.nodeAffinity;
  if (semanticEqual(affinity, old)) return;
  const path = 'spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution';
  const terms = affinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  const oldTerms = old?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  if (oldTerms) {
    if (terms?.length !== oldTerms.length)
      addInvalid(
        errors,
        `${path}.nodeSelectorTerms`,
        terms,
        'no additions/deletions to non-empty NodeSelectorTerms list are allowed',
      );
    else
      terms.forEach((term, index) => {
        const kept = oldTerms[index]!;
        const contains = (now: readonly unknown[] = [], then: readonly unknown[] = []): boolean =>
          then.every((requirement, at) => semanticEqual(requirement, now[at]));
        const wasEmpty = !kept.matchExpressions?.length && !kept.matchFields?.length;
        if (
          (wasEmpty && !semanticEqual(term, kept)) ||
          !contains(term.matchExpressions, kept.matchExpressions) ||
          !contains(term.matchFields, kept.matchFields)
        )
          addInvalid(
            errors,
            `${path}.nodeSelectorTerms[${index}]`,
            term,
            'only additions are allowed (no mutations or deletions)',
          );
      });
  }
  const rest = { ...masked.affinity, nodeAffinity: old };
  masked.affinity = (
    before.affinity === undefined && !rest.podAffinity && !rest.podAntiAffinity ? undefined : rest
  ) as NonNullable<PodSpec['affinity']>;
}

/** Changed fields, old and new, one line each: `- Field: old`, `+ Field: new`. */
export function describeDifference(before: object, after: object): string {
  const lines: string[] = [];
  const old = before as Record<string, unknown>;
  const now = after as Record<string, unknown>;
  for (const key of new Set([...Object.keys(old), ...Object.keys(now)])) {
    if (semanticEqual(old[key], now[key])) continue;
    if (old[key] !== undefined) lines.push(`- \t${key}: ${JSON.stringify(old[key])},`);
    if (now[key] !== undefined) lines.push(`+ \t${key}: ${JSON.stringify(now[key])},`);
  }
  return `  {\n  \t... // identical fields\n${lines.join('\n')}\n  }\n`;
}

/** The `ephemeralcontainers` subresource: existing ones stay as they are. */
export function validateEphemeralContainersUpdate(pod: Pod, old: Pod): Errors {
  if (old.metadata.annotations?.[MIRROR_ANNOTATION] !== undefined)
    return [fieldErrors.forbidden('[]', 'static pods do not support ephemeral containers')];
  const errors = [...forgiveStored(validatePod(pod), () => validatePod(old))];
  checkAnnotationChange(errors, pod.metadata.annotations, old.metadata.annotations);
  for (const container of old.spec?.ephemeralContainers ?? []) {
    const now = pod.spec?.ephemeralContainers?.find(other => other.name === container.name);
    if (!now)
      addForbidden(
        errors,
        'spec.ephemeralContainers',
        `existing ephemeral containers ${JSON.stringify(container.name)} may not be removed\n`,
      );
    else if (!semanticEqual(now, container))
      addForbidden(
        errors,
        'spec.ephemeralContainers',
        `existing ephemeral containers ${JSON.stringify(container.name)} may not be changed\n${describeDifference(container, now)}`,
      );
  }
  return errors;
}
