/** Pods: what a create sets, what a delete grants, how they are selected and shown. */

import { defineKind } from '../kind.ts';
import { warnOfAddress } from '../machinery/address-forms.ts';
import { isNewSpec } from '../machinery/equality.ts';
import { isPodTerminal, podIPs, podQosClass } from '../machinery/pod.ts';
import { eachAt } from '../machinery/validation.ts';
import { keepAppArmorFields } from './app-armor.ts';
import { podColumns, podRowConditions } from './pod-columns.ts';
import { podDefaults } from './pod-defaults.ts';
import { validatePodResize } from './pod-resize-validation.ts';
import { validatePodStatusUpdate } from './pod-status-validation.ts';
import { validateEphemeralContainersUpdate, validatePodUpdate } from './pod-update-validation.ts';
import { validatePod } from './pod-validation.ts';
import { podWarnings } from './pod-warnings.ts';
import type { Pod } from './v1.gen.ts';

export const pod = defineKind<Pod>({
  group: '',
  version: 'v1',
  kind: 'Pod',
  forgivesStored: true,
  // People make pods; what updates them is programs.
  warnings: (object, old) => (old ? [] : podWarnings(object)),
  statusWarnings: ({ status }) => {
    const found: string[] = [];
    for (const field of ['podIPs', 'hostIPs'] as const)
      eachAt(status?.[field], `status.${field}`, ({ ip }, at) => warnOfAddress(found, `${at}.ip`, ip));
    return found;
  },
  isNewGeneration: isNewSpec,
  defaults: podDefaults,
  prepareCreate: object => {
    object.status = { phase: 'Pending', qosClass: podQosClass(object.spec!) };
    if (object.spec!.schedulingGates?.length)
      object.status.conditions = [
        {
          type: 'PodScheduled',
          status: 'False',
          reason: 'SchedulingGated',
          message: 'Scheduling is blocked due to non-empty scheduling gates',
        },
      ];
    matchLabelKeySelectors(object);
    keepAppArmorFields(object);
  },
  prepareStatusUpdate: (object, old) => {
    object.spec = old.spec!;
    const { ownerReferences, deletionTimestamp, generation } = old.metadata;
    restore(object.metadata, { ownerReferences, deletionTimestamp, generation });
    // Writers that know nothing of the class, or of generations, must not clear them.
    if (object.status && !object.status.qosClass && old.status?.qosClass) object.status.qosClass = old.status.qosClass;
    keepObservedGenerations(object.status, old.status);
  },
  validate: validatePod,
  validateUpdate: validatePodUpdate,
  validateStatusUpdate: validatePodStatusUpdate,
  validateSubresourceUpdate: { ephemeralcontainers: validateEphemeralContainersUpdate, resize: validatePodResize },
  deletionGraceSeconds: (object, askedSeconds) => {
    if (!object.spec?.nodeName || isPodTerminal(object)) return 0;
    const seconds = askedSeconds ?? object.spec.terminationGracePeriodSeconds ?? 0;
    return seconds < 0 ? 1 : seconds;
  },
  selectableFields: {
    'spec.nodeName': object => object.spec?.nodeName ?? '',
    'spec.restartPolicy': object => object.spec?.restartPolicy ?? '',
    'spec.schedulerName': object => object.spec?.schedulerName ?? '',
    'spec.serviceAccountName': object => object.spec?.serviceAccountName ?? '',
    'spec.hostNetwork': object => String(object.spec?.hostNetwork ?? false),
    'status.phase': object => object.status?.phase ?? '',
    'status.podIP': object => podIPs(object)[0] ?? '',
    'status.nominatedNodeName': object => object.status?.nominatedNodeName ?? '',
  },
  columns: podColumns,
  rowConditions: podRowConditions,
});

/** Several conditions of a type are told apart by their order. */
function keepObservedGenerations(status: Pod['status'], old: Pod['status']): void {
  if (!status || !old) return;
  if (!status.observedGeneration && old.observedGeneration) status.observedGeneration = old.observedGeneration;
  const before = new Map<string, number[]>();
  for (const { type, observedGeneration = 0 } of old.conditions ?? [])
    before.set(type, [...(before.get(type) ?? []), observedGeneration]);
  for (const condition of status.conditions ?? []) {
    const known = before.get(condition.type)?.shift();
    if (!condition.observedGeneration && known) condition.observedGeneration = known;
  }
}

function restore(into: object, values: Readonly<Record<string, unknown>>): void {
  const target = into as Record<string, unknown>;
  for (const key in values) {
    if (values[key] === undefined) delete target[key];
    else target[key] = values[key];
  }
}

/** `matchLabelKeys` become requirements on the pod's own labels, so that the scheduler sees plain selectors. */
function matchLabelKeySelectors(object: Pod): void {
  const labels = object.metadata.labels ?? {};
  for (const { labelSelector, matchLabelKeys } of object.spec?.topologySpreadConstraints ?? [])
    for (const key of (labelSelector && matchLabelKeys) ?? [])
      if (labels[key] !== undefined)
        (labelSelector!.matchExpressions ??= []).push({ key, operator: 'In', values: [labels[key]] });
  for (const affinity of [object.spec?.affinity?.podAffinity, object.spec?.affinity?.podAntiAffinity]) {
    const terms = [
      ...(affinity?.requiredDuringSchedulingIgnoredDuringExecution ?? []),
      ...(affinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []).map(weighted => weighted.podAffinityTerm),
    ];
    for (const term of terms) {
      if (!term?.labelSelector) continue;
      for (const [keys, operator] of [
        [term.matchLabelKeys, 'In'],
        [term.mismatchLabelKeys, 'NotIn'],
      ] as const)
        for (const key of keys ?? [])
          if (labels[key] !== undefined)
            (term.labelSelector.matchExpressions ??= []).push({ key, operator, values: [labels[key]] });
    }
  }
}
