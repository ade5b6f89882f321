/** Replication controllers, and pod templates on their own. */

import { defineKind } from '../kind.ts';
import {
  ageColumn,
  containerColumns,
  formatLabels,
  integer,
  nameColumn,
  text,
  wideText,
} from '../machinery/columns.ts';
import { addRequired, checkNotNegative, type Errors } from '../machinery/validation.ts';
import { podTemplateDefaults } from './pod-defaults.ts';
import { checkPodTemplate } from './pod-validation.ts';
import { checkReplicaStatus, checkRestartingTemplate } from './template-validation.ts';
import type { PodTemplate, ReplicationController } from './v1.gen.ts';

export const replicationController = defineKind<ReplicationController>({
  group: '',
  version: 'v1',
  kind: 'ReplicationController',
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
    object.metadata.generation = 1;
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
  validateStatusUpdate: object => {
    const errors: Errors = [];
    checkReplicaStatus(errors, object.status, ['fullyLabeledReplicas', 'readyReplicas', 'availableReplicas']);
    return errors;
  },
  selectableFields: { 'status.replicas': object => String(object.status?.replicas ?? 0) },
  columns: [
    nameColumn,
    integer('Desired', object => object.spec?.replicas),
    integer('Current', object => object.status?.replicas),
    integer('Ready', object => object.status?.readyReplicas),
    ageColumn,
    ...containerColumns<ReplicationController>(object => object.spec?.template?.spec?.containers),
    wideText('Selector', object => formatLabels(object.spec?.selector)),
  ],
  scale: {
    replicas: object => object.spec?.replicas ?? 0,
    setReplicas: (object, replicas) => {
      object.spec = { ...object.spec, replicas };
    },
    statusReplicas: object => object.status?.replicas ?? 0,
    selector: object => (object.spec?.selector ? formatLabels(object.spec.selector) : ''),
  },
});

export const podTemplate = defineKind<PodTemplate>({
  group: '',
  version: 'v1',
  kind: 'PodTemplate',
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
