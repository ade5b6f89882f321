/** Component statuses: computed by the API server, never stored. */

import { defineKind } from '../kind.ts';
import { nameColumn, text } from '../machinery/columns.ts';
import type { ComponentCondition, ComponentStatus } from './v1.gen.ts';

function healthy(object: ComponentStatus): ComponentCondition | undefined {
  return object.conditions?.find(condition => condition.type === 'Healthy');
}

export const componentStatus = defineKind<ComponentStatus>({
  group: '',
  version: 'v1',
  kind: 'ComponentStatus',
  deprecation: 'v1 ComponentStatus is deprecated in v1.19+',
  columns: [
    nameColumn,
    text('Status', object => {
      const condition = healthy(object);
      if (!condition) return 'Unknown';
      return condition.status === 'True' ? 'Healthy' : 'Unhealthy';
    }),
    text('Message', object => healthy(object)?.message ?? ''),
    text('Error', object => healthy(object)?.error ?? ''),
  ],
});
