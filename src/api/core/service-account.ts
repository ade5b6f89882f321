/** Service accounts. */

import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import type { ServiceAccount } from './v1.gen.ts';

export const serviceAccount = defineKind<ServiceAccount>({
  group: '',
  version: 'v1',
  kind: 'ServiceAccount',
  columns: [nameColumn, text('Secrets', object => object.secrets?.length ?? 0), ageColumn],
});
