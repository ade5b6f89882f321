/** Stateful sets. */

import { fieldErrors } from '../../base/errors.ts';
import { claimDefaults } from '../core/persistent-volume-claim.ts';
import { podTemplateDefaults } from '../core/pod-defaults.ts';
import { checkPodTemplate } from '../core/pod-validation.ts';
import { claimSpecWarnings, isSameGeneration, workloadWarnings } from '../core/pod-warnings.ts';
import { replicaScale } from '../core/replicas.ts';
import { checkReplicaStatus } from '../core/template-validation.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, containerColumns, nameColumn, text } from '../machinery/columns.ts';
import { isNewSpec, semanticEqual } from '../machinery/equality.ts';
import { formatLabelSelector, labelSelectorMatch } from '../machinery/labels.ts';
import { dnsLabelProblems, labelName } from '../machinery/names.ts';
import {
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  checkAtMostHundredPercent,
  checkCountOrPercent,
  checkLabelSelector,
  checkNotNegative,
  type Errors,
  eachAt,
  isEmptySelector,
} from '../machinery/validation.ts';
import type { StatefulSet, StatefulSetSpec } from './v1.gen.ts';

export const statefulSet = defineKind<StatefulSet>({
  group: 'apps',
  version: 'v1',
  kind: 'StatefulSet',
  forgivesStored: true,
  warnings: (object, old) => {
    const found = workloadWarnings(object, old);
    if (isSameGeneration(object, old)) return found;
    eachAt(object.spec?.volumeClaimTemplates, 'spec.volumeClaimTemplates', ({ spec }, at) =>
      found.push(...claimSpecWarnings(`${at}.Spec`, spec)),
    );
    if ((object.spec?.revisionHistoryLimit ?? 0) < 0)
      found.push(
        'spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended',
      );
    return found;
  },
  isNewGeneration: isNewSpec,
  validateName: labelName,
  defaults: object => {
    const spec = object.spec;
    if (!spec) return;
    spec.podManagementPolicy ||= 'OrderedReady';
    const strategy = (spec.updateStrategy ??= {});
    if (!strategy.type) {
      strategy.type = 'RollingUpdate';
      strategy.rollingUpdate ??= { partition: 0 };
    }
    if (strategy.type === 'RollingUpdate' && strategy.rollingUpdate) strategy.rollingUpdate.partition ??= 0;
    const retention = (spec.persistentVolumeClaimRetentionPolicy ??= {});
    retention.whenDeleted ||= 'Retain';
    retention.whenScaled ||= 'Retain';
    spec.replicas ??= 1;
    spec.revisionHistoryLimit ??= 10;
    podTemplateDefaults(spec.template);
    for (const claim of spec.volumeClaimTemplates ?? []) {
      // Whatever was written: templates are claims.
      claim.apiVersion = 'v1';
      claim.kind = 'PersistentVolumeClaim';
      claimDefaults(claim);
    }
  },
  prepareCreate: object => {
    object.status = { replicas: 0, availableReplicas: 0 };
  },
  validate: object => {
    const errors: Errors = [];
    checkSpec(errors, object.spec ?? ({} as StatefulSetSpec), true);
    return errors;
  },
  // Before 1.34 nobody looked into the template: sets whose pods cannot be made may be updated still.
  ratchets: true,
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    const before: Errors = [];
    checkTemplate(before, old.spec ?? ({} as StatefulSetSpec));
    checkSpec(errors, object.spec ?? ({} as StatefulSetSpec), before.length === 0);
    const mutable = [
      'replicas',
      'ordinals',
      'template',
      'updateStrategy',
      'revisionHistoryLimit',
      'persistentVolumeClaimRetentionPolicy',
      'minReadySeconds',
    ];
    const fixed = (spec: object | undefined): object =>
      Object.fromEntries(Object.entries(spec ?? {}).filter(([field]) => !mutable.includes(field)));
    if (!semanticEqual(fixed(object.spec), fixed(old.spec)))
      addForbidden(
        errors,
        'spec',
        "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
      );
    return errors;
  },
  validateStatusUpdate: object => {
    const errors: Errors = [];
    checkReplicaStatus(errors, object.status, [
      'readyReplicas',
      'currentReplicas',
      'updatedReplicas',
      'availableReplicas',
    ]);
    return errors;
  },
  columns: [
    nameColumn,
    text('Ready', object => `${object.status?.readyReplicas ?? 0}/${object.spec?.replicas ?? 0}`),
    ageColumn,
    ...containerColumns<StatefulSet>(object => object.spec?.template?.spec?.containers),
  ],
  scale: replicaScale(object => formatLabelSelector(object.spec?.selector)),
});

function checkSpec(errors: Errors, spec: StatefulSetSpec, looksIntoTemplate: boolean): void {
  const policy = spec.podManagementPolicy;
  if (!policy) addRequired(errors, 'spec.podManagementPolicy');
  else if (policy !== 'OrderedReady' && policy !== 'Parallel')
    addInvalid(errors, 'spec.podManagementPolicy', policy, "must be 'OrderedReady' or 'Parallel'");
  checkUpdateStrategy(errors, spec);
  const retention = spec.persistentVolumeClaimRetentionPolicy;
  for (const field of ['whenDeleted', 'whenScaled'] as const) {
    const value = retention?.[field];
    if (retention && value !== 'Retain' && value !== 'Delete')
      errors.push(
        fieldErrors.notSupported(`spec.persistentVolumeClaimRetentionPolicy.${field}`, value ?? '', [
          'Delete',
          'Retain',
        ]),
      );
  }
  checkNotNegative(errors, 'spec.replicas', spec.replicas);
  checkNotNegative(errors, 'spec.minReadySeconds', spec.minReadySeconds);
  checkNotNegative(errors, 'spec.ordinals.start', spec.ordinals?.start);
  checkNotNegative(errors, 'spec.revisionHistoryLimit', spec.revisionHistoryLimit);
  const { selector, template = {} } = spec;
  let usable = true;
  if (!selector) addRequired(errors, 'spec.selector');
  else {
    usable = checkLabelSelector(errors, 'spec.selector', selector);
    if (isEmptySelector(selector))
      addInvalid(errors, 'spec.selector', selector, 'empty selector is invalid for statefulset');
  }
  const labels = template.metadata?.labels;
  if (!usable) addInvalid(errors, 'spec.selector', selector, '');
  else if (!labelSelectorMatch(selector)(labels))
    addInvalid(errors, 'spec.template.metadata.labels', labels, '`selector` does not match template `labels`');
  if (looksIntoTemplate) checkTemplate(errors, spec);
  const restart = template.spec?.restartPolicy;
  if (restart !== 'Always')
    errors.push(fieldErrors.notSupported('spec.template.spec.restartPolicy', restart ?? '', ['Always']));
  if (template.spec?.activeDeadlineSeconds !== undefined)
    addForbidden(
      errors,
      'spec.template.spec.activeDeadlineSeconds',
      'activeDeadlineSeconds in StatefulSet is not Supported',
    );
  if (spec.serviceName) addProblems(errors, 'spec.serviceName', spec.serviceName, dnsLabelProblems(spec.serviceName));
}

/** The template with the volumes that its pods will have: the set's claims in place of those of the same name. */
function checkTemplate(errors: Errors, { template, volumeClaimTemplates = [] }: StatefulSetSpec): void {
  const claims = new Set(volumeClaimTemplates.map(({ metadata }) => metadata?.name ?? ''));
  const volumes = [
    ...(template?.spec?.volumes ?? []).filter(({ name }) => !claims.has(name)),
    ...[...claims].map(name => ({ name, persistentVolumeClaim: { claimName: name } })),
  ];
  const spec = { containers: [], ...template?.spec, volumes };
  checkPodTemplate(errors, 'spec.template', { ...template, spec });
}

function checkUpdateStrategy(errors: Errors, spec: StatefulSetSpec): void {
  const strategy = spec.updateStrategy ?? {};
  const rolling = strategy.rollingUpdate;
  if (strategy.type === 'OnDelete') {
    if (rolling)
      addInvalid(
        errors,
        'spec.updateStrategy.rollingUpdate',
        rolling,
        "only allowed for updateStrategy 'RollingUpdate'",
      );
  } else if (!strategy.type) addRequired(errors, 'spec.updateStrategy');
  else if (strategy.type !== 'RollingUpdate')
    addInvalid(errors, 'spec.updateStrategy', strategy, "must be 'RollingUpdate' or 'OnDelete'");
  else if (rolling) {
    const path = 'spec.updateStrategy.rollingUpdate';
    checkNotNegative(errors, `${path}.partition`, rolling.partition);
    if (rolling.maxUnavailable === undefined) return;
    checkCountOrPercent(errors, `${path}.maxUnavailable`, rolling.maxUnavailable);
    if (rolling.maxUnavailable === 0 || rolling.maxUnavailable === '0%')
      addInvalid(errors, `${path}.maxUnavailable`, rolling.maxUnavailable, 'cannot be 0');
    checkAtMostHundredPercent(errors, `${path}.maxUnavailable`, rolling.maxUnavailable);
  }
}
