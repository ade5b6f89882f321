/** Custom resource definitions: names and columns of the definition itself. What it defines is served elsewhere. */

import { formatTime } from '../../base/clock.ts';
import { defineKind } from '../kind.ts';
import { nameColumn } from '../machinery/columns.ts';
import { isNewSpec } from '../machinery/equality.ts';
import { validateDefinition, validateDefinitionStatus } from './definition-validation.ts';
import { formatWarnings } from './format-warnings.ts';
import type { CustomResourceDefinition, CustomResourceDefinitionSpec } from './v1.gen.ts';

/** Held until no instance is left. */
export const CLEANUP = 'customresourcecleanup.apiextensions.k8s.io';

export const customResourceDefinition = defineKind<CustomResourceDefinition>({
  group: 'apiextensions.k8s.io',
  version: 'v1',
  kind: 'CustomResourceDefinition',
  isNewGeneration: isNewSpec,
  warnings: formatWarnings,
  unconditionalUpdate: false,
  defaults: object => {
    const spec = object.spec;
    if (!spec) return;
    const names = (spec.names ??= {} as CustomResourceDefinitionSpec['names']);
    if (names.kind) {
      names.singular ||= names.kind.toLowerCase();
      names.listKind ||= `${names.kind}List`;
    }
    (spec.conversion ??= { strategy: 'None' }).strategy ||= 'None';
    const service = spec.conversion.webhook?.clientConfig?.service;
    if (service) service.port ??= 443;
  },
  prepareCreate: object => {
    const stored = object.spec?.versions?.find(version => version.storage)?.name;
    object.status = {
      conditions: [],
      acceptedNames: { plural: '', kind: '' },
      storedVersions: stored ? [stored] : [],
    } as NonNullable<CustomResourceDefinition['status']>;
  },
  prepareUpdate: (object, old) => {
    const stored = object.spec?.versions?.find(version => version.storage)?.name;
    const before = old.status?.storedVersions ?? [];
    object.status = (
      stored && !before.includes(stored) ? { ...old.status, storedVersions: [...before, stored] } : old.status
    ) as NonNullable<CustomResourceDefinition['status']>;
  },
  prepareDelete: (object, nowMs) => {
    object.metadata.finalizers = [...(object.metadata.finalizers ?? []), CLEANUP];
    const terminating = {
      lastTransitionTime: formatTime(nowMs),
      message: 'CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon',
      reason: 'InstanceDeletionPending',
      status: 'True',
      type: 'Terminating',
    };
    const conditions = object.status?.conditions ?? [];
    object.status = {
      ...object.status,
      conditions: [...conditions.filter(({ type }) => type !== 'Terminating'), terminating],
    };
  },
  ratchets: true,
  validate: object => validateDefinition(object),
  validateUpdate: (object, old) => validateDefinition(object, old),
  validateStatusUpdate: object => validateDefinitionStatus(object),
  columns: [
    nameColumn,
    { name: 'Created At', type: 'date', cell: object => object.metadata.creationTimestamp ?? null },
  ],
});
