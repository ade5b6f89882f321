/** Secrets. */

import { fieldErrors } from '../../base/errors.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { configKeyProblems } from '../machinery/names.ts';
import { addInvalid, addProblems, addRequired, checkUnchanged, type Errors } from '../machinery/validation.ts';
import { checkImmutable, DATA_BYTES_MAX, decodedLength } from './config-map.ts';
import type { Secret } from './v1.gen.ts';

export const secret = defineKind<Secret>({
  group: '',
  version: 'v1',
  kind: 'Secret',
  defaults: object => {
    object.type ||= 'Opaque';
    // stringData is write-only: its values become data.
    if (object.stringData) {
      const data = (object.data ??= {});
      for (const key in object.stringData) data[key] = Buffer.from(object.stringData[key] ?? '').toString('base64');
      delete object.stringData;
    }
  },
  prepareUpdate: (object, old) => {
    // An empty type keeps the old one, for clients from before the field existed.
    if (!object.type && old.type) object.type = old.type;
  },
  validate: object => {
    const errors: Errors = [];
    let bytes = 0;
    for (const key in object.data) {
      addProblems(errors, `data[${key}]`, key, configKeyProblems(key));
      bytes += decodedLength(object.data[key] ?? '');
    }
    if (bytes > DATA_BYTES_MAX) errors.push(fieldErrors.tooLong('data', DATA_BYTES_MAX));
    checkType(errors, object);
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'type', object.type, old.type);
    checkImmutable(errors, object, old, ['data']);
    return errors;
  },
  selectableFields: { type: object => object.type ?? '' },
  columns: [
    nameColumn,
    text('Type', object => object.type ?? ''),
    text('Data', object => Object.keys(object.data ?? {}).length),
    ageColumn,
  ],
});

function checkType(errors: Errors, object: Secret): void {
  const data = object.data ?? {};
  const requireKey = (key: string): void => {
    if (data[key] === undefined) addRequired(errors, `data[${key}]`);
  };
  switch (object.type) {
    case 'kubernetes.io/service-account-token': {
      const annotation = 'kubernetes.io/service-account.name';
      if (!object.metadata.annotations?.[annotation]) addRequired(errors, `metadata.annotations[${annotation}]`);
      break;
    }
    case 'kubernetes.io/dockercfg':
      checkJson(errors, data, '.dockercfg');
      break;
    case 'kubernetes.io/dockerconfigjson':
      checkJson(errors, data, '.dockerconfigjson');
      break;
    case 'kubernetes.io/basic-auth':
      if (data['username'] === undefined && data['password'] === undefined) {
        requireKey('username');
        requireKey('password');
      }
      break;
    case 'kubernetes.io/ssh-auth':
      if (!data['ssh-privatekey']) addRequired(errors, 'data[ssh-privatekey]');
      break;
    case 'kubernetes.io/tls':
      requireKey('tls.crt');
      requireKey('tls.key');
      break;
  }
}

function checkJson(errors: Errors, data: Readonly<Record<string, string>>, key: string): void {
  const value = data[key];
  if (value === undefined) {
    addRequired(errors, `data[${key}]`);
    return;
  }
  const redacted = '<secret contents redacted>';
  try {
    const parsed: unknown = JSON.parse(Buffer.from(value, 'base64').toString());
    if (parsed === null || typeof parsed !== 'object' || Array.isArray(parsed))
      addInvalid(
        errors,
        `data[${key}]`,
        redacted,
        'json: cannot unmarshal into Go value of type map[string]interface {}',
      );
  } catch {
    addInvalid(
      errors,
      `data[${key}]`,
      redacted,
      value === '' ? 'unexpected end of JSON input' : 'invalid character in JSON',
    );
  }
}
