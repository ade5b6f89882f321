/** Certificate signing requests. Who asks is filled in by the API server, never by the client. */

import { messageOf } from '../../base/errors.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { humanDuration } from '../machinery/duration.ts';
import { addDuplicate, addInvalid, addRequired, checkUnchanged, type Errors, eachAt } from '../machinery/validation.ts';
import { parseCertificateRequest } from './certificate-request.ts';
import { checkSignerName } from './signer-name.ts';
import type { CertificateSigningRequest } from './v1.gen.ts';

const EXPIRATION_SECONDS_MIN = 600;

export const certificateSigningRequest = defineKind<CertificateSigningRequest>({
  group: 'certificates.k8s.io',
  version: 'v1',
  kind: 'CertificateSigningRequest',
  validateName: () => [],
  prepareCreate: object => {
    object.status = {};
  },
  // Neither the request nor its outcome changes through the main resource.
  prepareUpdate: (object, old) => {
    object.spec = old.spec;
    object.status = old.status!;
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec;
    try {
      parseCertificateRequest(spec?.request ?? '');
    } catch (error) {
      addInvalid(errors, 'spec.request', spec?.request ?? '', messageOf(error));
    }
    const usages = spec?.usages ?? [];
    if (usages.length === 0) addRequired(errors, 'spec.usages');
    const seen = new Set<string>();
    eachAt(usages, 'spec.usages', (usage, at) => {
      if (seen.has(usage)) addDuplicate(errors, at, usage);
      seen.add(usage);
    });
    const seconds = spec?.expirationSeconds;
    if (seconds !== undefined && seconds < EXPIRATION_SECONDS_MIN)
      addInvalid(
        errors,
        'spec.expirationSeconds',
        seconds,
        `may not specify a duration less than ${EXPIRATION_SECONDS_MIN} seconds (10 minutes)`,
      );
    checkSignerName(errors, 'spec.signerName', spec?.signerName);
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec', object.spec, old.spec);
    return errors;
  },
  selectableFields: { 'spec.signerName': object => object.spec?.signerName ?? '' },
  columns: [
    nameColumn,
    ageColumn,
    text('SignerName', object => object.spec?.signerName || '<none>'),
    text('Requestor', object => object.spec?.username ?? ''),
    text('RequestedDuration', object =>
      object.spec?.expirationSeconds === undefined ? '<none>' : humanDuration(object.spec.expirationSeconds * 1000),
    ),
    text('Condition', condition),
  ],
});

function condition(object: CertificateSigningRequest): string {
  const types = (object.status?.conditions ?? []).map(entry => entry.type);
  let text = types.includes('Denied') ? 'Denied' : types.includes('Approved') ? 'Approved' : 'Pending';
  if (types.includes('Failed')) text += ',Failed';
  if (object.status?.certificate) text += ',Issued';
  return text;
}
