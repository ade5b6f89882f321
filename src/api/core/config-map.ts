/** Config maps. */

import { fieldErrors } from '../../base/errors.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { byteLength, configKeyProblems } from '../machinery/names.ts';
import { addForbidden, addInvalid, addProblems, type Errors } from '../machinery/validation.ts';
import type { ConfigMap } from './v1.gen.ts';

export const DATA_BYTES_MAX = 1024 * 1024;

/** Bytes behind a base64 text. */
export function decodedLength(base64: string): number {
  const padding = base64.endsWith('==') ? 2 : base64.endsWith('=') ? 1 : 0;
  return Math.max(0, (base64.length / 4) * 3 - padding);
}

const IMMUTABLE_REFUSAL = 'field is immutable when `immutable` is set';

interface Immutable {
  readonly immutable?: boolean;
}

/** Once `immutable` is set it and the named fields stay as they are. */
export function checkImmutable<T extends Immutable>(
  errors: Errors,
  object: T,
  old: T,
  fields: readonly (keyof T & string)[],
): void {
  if (!old.immutable) return;
  if (!object.immutable) addForbidden(errors, 'immutable', IMMUTABLE_REFUSAL);
  for (const field of fields)
    if (!semanticEqual(object[field] ?? {}, old[field] ?? {})) addForbidden(errors, field, IMMUTABLE_REFUSAL);
}

export const configMap = defineKind<ConfigMap>({
  group: '',
  version: 'v1',
  kind: 'ConfigMap',
  validate: object => {
    const errors: Errors = [];
    let bytes = 0;
    for (const key in object.data) {
      addProblems(errors, `data[${key}]`, key, configKeyProblems(key));
      if (object.binaryData && Object.hasOwn(object.binaryData, key))
        addInvalid(errors, `data[${key}]`, key, 'duplicate of key present in binaryData');
      bytes += byteLength(object.data[key] ?? '');
    }
    for (const key in object.binaryData) {
      addProblems(errors, `binaryData[${key}]`, key, configKeyProblems(key));
      bytes += decodedLength(object.binaryData[key] ?? '');
    }
    if (bytes > DATA_BYTES_MAX) errors.push(fieldErrors.tooLong('[]', DATA_BYTES_MAX));
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkImmutable(errors, object, old, ['data', 'binaryData']);
    return errors;
  },
  columns: [
    nameColumn,
    text('Data', object => Object.keys(object.data ?? {}).length + Object.keys(object.binaryData ?? {}).length),
    ageColumn,
  ],
});
