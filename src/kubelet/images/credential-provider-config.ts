/**
 * Which programs of the node know passwords for which images: a CredentialProviderConfig (`kubelet.config.k8s.io/v1`, KEP 2133 and 4412),
 * one file or all `.json`, `.yaml` and `.yml` files of a folder, in the order of their names. Invariant: all of it is followed, or it is
 * refused with the place of the mistake.
 */

import { createHash } from 'node:crypto';
import { accessSync, constants, readdirSync, readFileSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';
import { failure, messageOf } from '../../base/errors.ts';
import { metrics } from '../../base/metrics.ts';

export interface CredentialProviderPaths {
  readonly config: string;
  /** Where the programs are, each named as its provider. */
  readonly binDir: string;
}

export interface CredentialProvider {
  readonly name: string;
  readonly matchImages: readonly string[];
  readonly defaultCacheMs: number;
  /** Of what it reads and writes. */
  readonly apiVersion: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly token?: TokenAttributes;
}

/** The provider is given a token of the pod's service account. */
export interface TokenAttributes {
  readonly audience: string;
  readonly cacheType: 'Token' | 'ServiceAccount';
  readonly requiresServiceAccount: boolean;
  readonly requiredAnnotations: readonly string[];
  readonly optionalAnnotations: readonly string[];
}

const GROUP = 'kubelet.config.k8s.io';
const VERSIONS = ['v1', 'v1beta1', 'v1alpha1'];
const PROTOCOL = 'credentialprovider.kubelet.k8s.io';
const FILE_BYTES_MAX = 1 << 20;
const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const QUALIFIED_NAME = /^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?$/;

const configurations = metrics.gauge(
  'kubelet_credential_provider_config_info',
  'Information about the last applied credential provider configuration with hash as label',
  ['hash'],
);

/** Throws Invalid; also when a program is not there. */
export async function readCredentialProviders({
  config,
  binDir,
}: CredentialProviderPaths): Promise<CredentialProvider[]> {
  const providers: CredentialProvider[] = [];
  const hash = createHash('sha256');
  for (const file of configFiles(config)) {
    const { bytes, read } = await readFileOf(file);
    const length = Buffer.alloc(8);
    length.writeBigUInt64BE(BigInt(bytes.length));
    hash.update(length).update(bytes);
    for (const provider of read) {
      if (providers.some(({ name }) => name === provider.name))
        throw invalid(file, `duplicate provider name ${JSON.stringify(provider.name)}`);
      providers.push(provider);
    }
  }
  for (const { name } of providers) {
    try {
      accessSync(join(binDir, name), constants.X_OK);
    } catch (error) {
      throw invalid(config, `plugin binary executable ${join(binDir, name)} cannot be run: ${messageOf(error)}`);
    }
  }
  configurations.clear();
  configurations.set(1, `sha256:${hash.digest('hex')}`);
  return providers;
}

function invalid(where: string, what: string): Error {
  return failure(422, 'Invalid', `${where}: ${what}`);
}

function configFiles(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
    const files = readdirSync(path, { withFileTypes: true })
      .filter(entry => !entry.isDirectory() && ['.json', '.yaml', '.yml'].includes(extname(entry.name)))
      .map(({ name }) => join(path, name))
      .sort();
    if (files.length > 0) return files;
  } catch (error) {
    throw invalid(path, `cannot be read: ${messageOf(error)}`);
  }
  throw invalid(path, 'no configuration files found in the folder');
}

async function readFileOf(
  file: string,
): Promise<{ readonly bytes: Buffer; readonly read: readonly CredentialProvider[] }> {
  const { parse } = await import('yaml');
  let parsed: unknown;
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
    if (bytes.length > FILE_BYTES_MAX) throw new Error(`larger than ${FILE_BYTES_MAX} bytes`);
    parsed = parse(bytes.toString(), { version: '1.1', uniqueKeys: true });
  } catch (error) {
    throw invalid(file, messageOf(error).split('\n')[0]!);
  }
  const top = new Reading(file, '').fields(parsed, ['apiVersion', 'kind', 'providers']);
  if (top['kind'] !== 'CredentialProviderConfig' || !VERSIONS.some(one => top['apiVersion'] === `${GROUP}/${one}`))
    throw invalid(file, `must have apiVersion: ${GROUP}/v1 and kind: CredentialProviderConfig`);
  const list = top['providers'];
  if (!Array.isArray(list) || list.length === 0)
    throw invalid(file, 'providers: Required value: at least 1 item in plugins is required');
  return { bytes, read: list.map((one, i) => new Reading(file, `providers[${i}]`).provider(one)) };
}

class Reading {
  readonly #file: string;
  readonly #where: string;
  constructor(file: string, where: string) {
    this.#file = file;
    this.#where = where;
  }
  #fail(field: string, what: string): never {
    throw invalid(this.#file, `${[this.#where, field].filter(Boolean).join('.')}: ${what}`);
  }
  fields(value: unknown, known: readonly string[]): Record<string, unknown> {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) this.#fail('', 'must be a mapping');
    for (const key of Object.keys(value)) if (!known.includes(key)) this.#fail(key, 'unknown field');
    return value as Record<string, unknown>;
  }
  #text(value: unknown, field: string): string {
    return typeof value === 'string' && value !== '' ? value : this.#fail(field, 'Required value');
  }
  #texts(value: unknown, field: string): string[] {
    if (value === undefined || value === null) return [];
    if (!Array.isArray(value) || value.some(one => typeof one !== 'string'))
      this.#fail(field, 'Invalid value: must be a list of strings');
    return value;
  }
  #annotations(value: unknown, field: string): string[] {
    const keys = this.#texts(value, field);
    for (const [i, key] of keys.entries()) {
      if (!QUALIFIED_NAME.test(key.toLowerCase()))
        this.#fail(field, `Invalid value: ${JSON.stringify(key)}: must be a qualified name`);
      if (keys.indexOf(key) !== i) this.#fail(field, `Duplicate value: ${JSON.stringify(key)}`);
    }
    return keys;
  }

  provider(value: unknown): CredentialProvider {
    const known = ['name', 'matchImages', 'defaultCacheDuration', 'apiVersion', 'args', 'env', 'tokenAttributes'];
    const fields = this.fields(value, known);
    const name = this.#text(fields['name'], 'name');
    if (/[/ ]/.test(name) || name === '.' || name === '..')
      this.#fail('name', `Invalid value: ${JSON.stringify(name)}: must be the name of a file, without spaces`);
    const matchImages = this.#texts(fields['matchImages'], 'matchImages');
    if (matchImages.length === 0)
      this.#fail('matchImages', 'Required value: at least 1 item in matchImages is required');
    for (const image of matchImages)
      if (/^\w+:\/\//.test(image) || !URL.canParse(`https://${image.replaceAll('*', 'x')}`))
        this.#fail(
          'matchImages',
          `Invalid value: ${JSON.stringify(image)}: must be a host with an optional port and path`,
        );
    const apiVersion = this.#text(fields['apiVersion'], 'apiVersion');
    if (!VERSIONS.some(one => apiVersion === `${PROTOCOL}/${one}`))
      this.#fail('apiVersion', `Unsupported value: ${JSON.stringify(apiVersion)}: supported values: "${PROTOCOL}/v1"`);
    const variables = fields['env'] ?? [];
    if (!Array.isArray(variables)) this.#fail('env', 'Invalid value: must be a list');
    const env = Object.fromEntries(
      variables.map((one, i) => {
        const place = new Reading(this.#file, `${this.#where}.env[${i}]`);
        const { name: of, value: is = '' } = place.fields(one, ['name', 'value']);
        return [place.#text(of, 'name'), String(is)];
      }),
    );
    return {
      name,
      matchImages,
      defaultCacheMs: this.#durationMs(fields['defaultCacheDuration'], 'defaultCacheDuration'),
      apiVersion,
      args: this.#texts(fields['args'], 'args'),
      env,
      ...(fields['tokenAttributes'] === undefined || fields['tokenAttributes'] === null
        ? {}
        : { token: this.#token(fields['tokenAttributes'], apiVersion) }),
    };
  }

  #durationMs(value: unknown, field: string): number {
    const ms = durationMs(this.#text(value, field));
    return (
      ms ??
      this.#fail(field, `Invalid value: ${JSON.stringify(value)}: must be a duration such as 5m, and not negative`)
    );
  }

  #token(value: unknown, apiVersion: string): TokenAttributes {
    const place = new Reading(this.#file, `${this.#where}.tokenAttributes`);
    if (apiVersion !== `${PROTOCOL}/v1`)
      this.#fail('tokenAttributes', `Forbidden: tokenAttributes is only supported for ${PROTOCOL}/v1 API version`);
    const fields = place.fields(value, [
      'serviceAccountTokenAudience',
      'cacheType',
      'requireServiceAccount',
      'requiredServiceAccountAnnotationKeys',
      'optionalServiceAccountAnnotationKeys',
    ]);
    const { requireServiceAccount: requires, cacheType } = fields;
    if (typeof requires !== 'boolean') return place.#fail('requireServiceAccount', 'Required value');
    if (cacheType !== 'Token' && cacheType !== 'ServiceAccount')
      return place.#fail(
        'cacheType',
        `Unsupported value: ${JSON.stringify(cacheType)}: supported values: "ServiceAccount", "Token"`,
      );
    const [required, optional] = ['requiredServiceAccountAnnotationKeys', 'optionalServiceAccountAnnotationKeys'].map(
      field => place.#annotations(fields[field], field),
    ) as [string[], string[]];
    if (!requires && required.length > 0)
      place.#fail(
        'requiredServiceAccountAnnotationKeys',
        'Forbidden: requireServiceAccount cannot be false when requiredServiceAccountAnnotationKeys is set',
      );
    const both = required.filter(key => optional.includes(key));
    if (both.length > 0)
      place.#fail('', `Invalid value: ${JSON.stringify(both)}: annotation keys cannot be both required and optional`);
    return {
      audience: place.#text(fields['serviceAccountTokenAudience'], 'serviceAccountTokenAudience'),
      cacheType,
      requiresServiceAccount: requires,
      requiredAnnotations: required,
      optionalAnnotations: optional,
    };
  }
}

/** Go's way to write one: `1h30m`, `0`, `0s`. Undefined when it is none, or negative. */
export function durationMs(text: string): number | undefined {
  if (text === '0') return 0;
  if (!/^\+?(\d+(\.\d+)?(ms|s|m|h))+$/.test(text)) return undefined;
  let ms = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)) ms += Number(amount) * UNIT_MS[unit!]!;
  return ms;
}
