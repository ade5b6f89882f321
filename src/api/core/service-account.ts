/** Service accounts. */

import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import type { ServiceAccount } from './v1.gen.ts';

const ENFORCE_MOUNTABLE_SECRETS = 'kubernetes.io/enforce-mountable-secrets';

export const serviceAccount = defineKind<ServiceAccount>({
  group: '',
  version: 'v1',
  kind: 'ServiceAccount',
  warnings: (object, old) => {
    const has = (one: ServiceAccount | undefined) =>
      one?.metadata.annotations?.[ENFORCE_MOUNTABLE_SECRETS] !== undefined;
    return has(object) && !has(old)
      ? [
          `metadata.annotations[${ENFORCE_MOUNTABLE_SECRETS}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets`,
        ]
      : [];
  },
  columns: [nameColumn, text('Secrets', object => object.secrets?.length ?? 0), ageColumn],
});
