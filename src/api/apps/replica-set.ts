/** Replica sets. */

import { podTemplateDefaults } from '../core/pod-defaults.ts';
import { workloadWarnings } from '../core/pod-warnings.ts';
import { replicaControllerParts } from '../core/replicas.ts';
import { checkRestartingTemplate, checkWorkloadSelector } from '../core/template-validation.ts';
import { defineKind } from '../kind.ts';
import { isNewSpec } from '../machinery/equality.ts';
import { formatLabelSelector } from '../machinery/labels.ts';
import { checkNotNegative, checkUnchanged, type Errors } from '../machinery/validation.ts';
import type { ReplicaSet } from './v1.gen.ts';

export const replicaSet = defineKind<ReplicaSet>({
  group: 'apps',
  version: 'v1',
  kind: 'ReplicaSet',
  forgivesStored: true,
  warnings: (object, old) => workloadWarnings(object, old),
  isNewGeneration: isNewSpec,
  defaults: object => {
    if (!object.spec) return;
    object.spec.replicas ??= 1;
    podTemplateDefaults(object.spec.template);
  },
  prepareCreate: object => {
    object.status = { replicas: 0 };
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec;
    checkNotNegative(errors, 'spec.replicas', spec?.replicas);
    checkNotNegative(errors, 'spec.minReadySeconds', spec?.minReadySeconds);
    if (checkWorkloadSelector(errors, 'spec.selector', spec?.selector, 'deployment'))
      checkRestartingTemplate(errors, 'spec.template', {
        template: spec?.template ?? {},
        selector: spec?.selector,
        kind: 'ReplicaSet',
      });
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec.selector', object.spec?.selector, old.spec?.selector);
    return errors;
  },
  ...replicaControllerParts<ReplicaSet>(object => formatLabelSelector(object.spec?.selector)),
});
