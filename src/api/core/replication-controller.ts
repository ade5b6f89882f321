/** Replication controllers, and pod templates on their own. */

import { defineKind } from '../kind.ts';
import { formatLabels, nameColumn, text } from '../machinery/columns.ts';
import { isNewSpec, semanticEqual } from '../machinery/equality.ts';
import { addRequired, checkNotNegative, type Errors } from '../machinery/validation.ts';
import { podTemplateDefaults } from './pod-defaults.ts';
import { checkPodTemplate } from './pod-validation.ts';
import { templateWarnings, workloadWarnings } from './pod-warnings.ts';
import { replicaControllerParts } from './replicas.ts';
import { checkRestartingTemplate } from './template-validation.ts';
import type { PodTemplate, ReplicationController } from './v1.gen.ts';

export const replicationController = defineKind<ReplicationController>({
  group: '',
  version: 'v1',
  kind: 'ReplicationController',
  forgivesStored: true,
  warnings: (object, old) => workloadWarnings(object, old),
  isNewGeneration: isNewSpec,
  defaults: object => {
    const spec = (object.spec ??= {});
    const labels = spec.template?.metadata?.labels;
    if (labels) {
      if (Object.keys(spec.selector ?? {}).length === 0) spec.selector = { ...labels };
      if (Object.keys(object.metadata.labels ?? {}).length === 0) object.metadata.labels = { ...labels };
    }
    spec.replicas ??= 1;
    podTemplateDefaults(spec.template);
  },
  prepareCreate: object => {
    object.status = { replicas: 0 };
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec ?? {};
    checkNotNegative(errors, 'spec.minReadySeconds', spec.minReadySeconds);
    if (Object.keys(spec.selector ?? {}).length === 0) addRequired(errors, 'spec.selector');
    checkNotNegative(errors, 'spec.replicas', spec.replicas);
    checkRestartingTemplate(errors, 'spec.template', {
      template: spec.template,
      selector: { matchLabels: spec.selector ?? {} },
      kind: 'ReplicationController',
    });
    return errors;
  },
  ...replicaControllerParts<ReplicationController>(object => formatLabels(object.spec?.selector)),
});

export const podTemplate = defineKind<PodTemplate>({
  group: '',
  version: 'v1',
  kind: 'PodTemplate',
  forgivesStored: true,
  warnings: object => templateWarnings('template', object.template),
  isNewGeneration: (object, old) => !semanticEqual(object.template, old.template),
  defaults: object => podTemplateDefaults(object.template),
  validate: object => {
    const errors: Errors = [];
    checkPodTemplate(errors, 'template', object.template ?? {});
    return errors;
  },
  columns: [
    nameColumn,
    text('Containers', object => (object.template?.spec?.containers ?? []).map(container => container.name).join(',')),
    text('Images', object => (object.template?.spec?.containers ?? []).map(container => container.image).join(',')),
    text('Pod Labels', object => formatLabels(object.template?.metadata?.labels)),
  ],
});
