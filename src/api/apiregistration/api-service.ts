/** API services. */

import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { pathSegmentName } from '../machinery/names.ts';
import { addInvalid, type Errors, requireText } from '../machinery/validation.ts';
import type { APIService } from './v1.gen.ts';

export const apiService = defineKind<APIService>({
  group: 'apiregistration.k8s.io',
  version: 'v1',
  kind: 'APIService',
  unconditionalUpdate: false,
  // `v1.` stands for the core group.
  validateName: pathSegmentName,
  defaults: object => {
    if (object.spec?.service) object.spec.service.port ??= 443;
  },
  // Local groups are there as soon as they are known.
  prepareCreate: object => {
    object.status = object.spec?.service
      ? {}
      : {
          conditions: [
            {
              type: 'Available',
              status: 'True',
              lastTransitionTime: object.metadata.creationTimestamp ?? '',
              reason: 'Local',
              message: 'Local APIServices are always available',
            },
          ],
        };
  },
  prepareUpdate: (object, old) => {
    object.status = old.status!;
  },
  validate: object => {
    const errors: Errors = [];
    const { group = '', version = '', groupPriorityMinimum = 0, versionPriority = 0 } = object.spec ?? {};
    const wanted = `${version}.${group}`;
    if (object.metadata.name !== wanted)
      addInvalid(
        errors,
        'metadata.name',
        object.metadata.name,
        `must be \`spec.version+"."+spec.group\`: ${JSON.stringify(wanted)}`,
      );
    requireText(errors, 'spec.version', version);
    if (groupPriorityMinimum <= 0 || groupPriorityMinimum > 20_000)
      addInvalid(errors, 'spec.groupPriorityMinimum', groupPriorityMinimum, 'must be positive and less than 20000');
    if (versionPriority <= 0 || versionPriority > 1000)
      addInvalid(errors, 'spec.versionPriority', versionPriority, 'must be positive and less than 1000');
    return errors;
  },
  columns: [
    nameColumn,
    text('Service', object =>
      object.spec?.service ? `${object.spec.service.namespace ?? ''}/${object.spec.service.name ?? ''}` : 'Local',
    ),
    text('Available', object => {
      const available = object.status?.conditions?.find(condition => condition.type === 'Available');
      if (!available) return 'Unknown';
      return available.status === 'True' ? 'True' : `${available.status} (${available.reason})`;
    }),
    ageColumn,
  ],
});
