/** Secrets. */

import { createPrivateKey, createPublicKey, type KeyObject, X509Certificate } from 'node:crypto';
import { fieldErrors } from '../../base/errors.ts';
import { defineKind } from '../kind.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { configKeyProblems } from '../machinery/names.ts';
import { addInvalid, addProblems, addRequired, checkUnchanged, type Errors } from '../machinery/validation.ts';
import { checkImmutable, DATA_BYTES_MAX, decodedLength } from './config-map.ts';
import type { Secret } from './v1.gen.ts';

/** What Go's `tls.X509KeyPair` says of a certificate and key that do not fit. */
function keyPairWarnings(data: Secret['data'] = {}): string[] {
  const [certificate, key] = ['tls.crt', 'tls.key'].map(name => Buffer.from(data[name] ?? '', 'base64').toString());
  for (const [pem, input] of [
    [certificate, 'certificate'],
    [key, 'key'],
  ])
    if (!/-----BEGIN [^-]+-----/.test(pem!)) return [`tls: failed to find any PEM data in ${input} input`];
  try {
    const { publicKey } = new X509Certificate(certificate!);
    let privateKey: KeyObject;
    try {
      privateKey = createPrivateKey(key!);
    } catch {
      return ['tls: failed to parse private key'];
    }
    if (publicKey.asymmetricKeyType !== privateKey.asymmetricKeyType)
      return ['tls: private key type does not match public key type'];
    return createPublicKey(privateKey).equals(publicKey) ? [] : ['tls: private key does not match public key'];
  } catch {
    return ['x509: malformed certificate'];
  }
}

export const secret = defineKind<Secret>({
  group: '',
  version: 'v1',
  kind: 'Secret',
  warnings: ({ type, data }) => (type === 'kubernetes.io/tls' ? keyPairWarnings(data) : []),
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
