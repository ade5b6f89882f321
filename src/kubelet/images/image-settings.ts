/**
 * The one configuration file about images, `images.yaml` in the image store's folder: registries (mirrors, TLS, credentials), how
 * pulls run and when unused images go. All of it is optional and read anew at each pull. Invariant: what it says is known here, or
 * it is refused with the place of the mistake; a setting is never ignored.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { failure } from '../../base/errors.ts';
import type { CredentialProviderPaths } from './credential-provider-config.ts';

export interface RegistrySettings {
  /** Asked in this order before the registry itself: `https://mirror.example:5000`, with an optional path in front of `/v2`. */
  readonly mirrors: readonly string[];
  /** Whether the registry itself is asked when no mirror has the image. */
  readonly isAskedAfterMirrors: boolean;
  /** Plain HTTP. */
  readonly isPlain: boolean;
  readonly tls: { readonly ca?: string; readonly cert?: string; readonly key?: string; readonly skipVerify: boolean };
}

export interface ImageSettings {
  /** By host and port as in image names; `*` for those not named. */
  readonly registries: ReadonlyMap<string, RegistrySettings>;
  /** Whether a development cluster's nodes may reach registries outside of it. */
  readonly outside: boolean;
  readonly pullsMax: number;
  readonly collection: CollectionPolicy;
  readonly verification: 'NeverVerify' | 'NeverVerifyPreloadedImages' | 'AlwaysVerify';
  /** Text of `config.json` beside the file: the node's own credentials. */
  readonly dockerConfig: string | undefined;
  readonly credentialProviders?: CredentialProviderPaths;
}

export interface CollectionPolicy {
  readonly highPercent: number;
  readonly lowPercent: number;
  readonly ageMsMin: number;
  /** Unused for so long: goes whatever space is left. 0: never. */
  readonly ageMsMax: number;
}

export const SETTINGS_FILE = 'images.yaml';
export const CREDENTIALS_FILE = 'config.json';
const FILE_BYTES_MAX = 1 << 20;
/** Without serialisation and without a limit given: still not without bound. */
const PULLS_UNLIMITED = 64;

const PLAIN: RegistrySettings = { mirrors: [], isAskedAfterMirrors: true, isPlain: false, tls: { skipVerify: false } };

export function registrySettings(settings: ImageSettings, host: string): RegistrySettings {
  return settings.registries.get(host) ?? settings.registries.get('*') ?? PLAIN;
}

/** Throws Invalid when the file says something that is not known. */
export async function readImageSettings(folder: string): Promise<ImageSettings> {
  const path = join(folder, SETTINGS_FILE);
  const text = readText(path);
  const dockerConfig = readText(join(folder, CREDENTIALS_FILE));
  let parsed: unknown = {};
  if (text !== undefined) {
    const { parse } = await import('yaml');
    try {
      parsed = parse(text, { version: '1.1' }) ?? {};
    } catch (error) {
      throw failure(422, 'Invalid', `${path}: ${(error as Error).message.split('\n')[0]}`);
    }
  }
  return { ...new Reading(path, folder).settings(parsed), dockerConfig };
}

class Reading {
  readonly #path: string;
  readonly #folder: string;
  constructor(path: string, folder: string) {
    this.#path = path;
    this.#folder = folder;
  }
  #fail(where: string, what: string): never {
    throw failure(422, 'Invalid', `${this.#path}: ${where}: ${what}`);
  }
  #object(value: unknown, where: string, keys: readonly string[] | undefined): Record<string, unknown> {
    if (value === undefined || value === null) return {};
    if (typeof value !== 'object' || Array.isArray(value)) this.#fail(where || 'the file', 'must be a mapping');
    for (const key of Object.keys(value))
      if (keys && !keys.includes(key))
        this.#fail(where ? `${where}.${key}` : key, `unknown; known here: ${keys.join(', ')}`);
    return value as Record<string, unknown>;
  }
  #boolean(value: unknown, where: string, fallback: boolean): boolean {
    if (value === undefined) return fallback;
    return typeof value === 'boolean' ? value : this.#fail(where, 'must be true or false');
  }
  #integer(
    value: unknown,
    where: string,
    { fallback, min, max }: { fallback: number; min: number; max: number },
  ): number {
    if (value === undefined || value === null) return fallback;
    if (!Number.isInteger(value) || (value as number) < min || (value as number) > max)
      this.#fail(where, `must be a whole number from ${min} to ${max}`);
    return value as number;
  }
  #duration(value: unknown, where: string, fallbackMs: number): number {
    if (value === undefined) return fallbackMs;
    const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
    const text = String(value);
    if (text === '0') return 0;
    if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text)) this.#fail(where, 'must be a duration such as 2m or 1h30m');
    let ms = 0;
    for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)) ms += Number(amount) * units[unit!]!;
    return ms;
  }
  #pem(value: unknown, where: string): string | undefined {
    if (value === undefined) return undefined;
    if (typeof value !== 'string') this.#fail(where, 'must be the path of a PEM file, or its text');
    if (value.includes('-----BEGIN')) return value;
    return (
      readText(join(value.startsWith('/') ? '/' : this.#folder, value)) ?? this.#fail(where, `cannot read ${value}`)
    );
  }

  settings(root: unknown): Omit<ImageSettings, 'dockerConfig'> {
    const top = this.#object(root, '', [
      'registries',
      'outside',
      'serializeImagePulls',
      'maxParallelImagePulls',
      'imageGCHighThresholdPercent',
      'imageGCLowThresholdPercent',
      'imageMinimumGCAge',
      'imageMaximumGCAge',
      'imagePullCredentialsVerificationPolicy',
      'credentialProviders',
    ]);
    const registries = new Map<string, RegistrySettings>();
    for (const [host, value] of Object.entries(this.#object(top['registries'], 'registries', undefined)))
      registries.set(host === 'index.docker.io' ? 'docker.io' : host, this.#registry(host, value));
    const percent = { min: 0, max: 100 };
    const highPercent = this.#integer(top['imageGCHighThresholdPercent'], 'imageGCHighThresholdPercent', {
      fallback: 85,
      ...percent,
    });
    const lowPercent = this.#integer(top['imageGCLowThresholdPercent'], 'imageGCLowThresholdPercent', {
      fallback: 80,
      ...percent,
    });
    if (lowPercent >= highPercent)
      this.#fail('imageGCLowThresholdPercent', `must be less than imageGCHighThresholdPercent (${highPercent})`);
    const ageMsMin = this.#duration(top['imageMinimumGCAge'], 'imageMinimumGCAge', 120_000);
    const ageMsMax = this.#duration(top['imageMaximumGCAge'], 'imageMaximumGCAge', 0);
    if (ageMsMax !== 0 && ageMsMax <= ageMsMin)
      this.#fail('imageMaximumGCAge', 'must be 0 or more than imageMinimumGCAge');
    const isSerial = this.#boolean(
      top['serializeImagePulls'],
      'serializeImagePulls',
      top['maxParallelImagePulls'] === undefined || top['maxParallelImagePulls'] === 1,
    );
    const parallel = this.#integer(top['maxParallelImagePulls'], 'maxParallelImagePulls', {
      fallback: isSerial ? 1 : PULLS_UNLIMITED,
      min: 1,
      max: PULLS_UNLIMITED,
    });
    if (isSerial && parallel > 1)
      this.#fail('maxParallelImagePulls', 'must be 1 or absent while serializeImagePulls is true');
    const verification = top['imagePullCredentialsVerificationPolicy'] ?? 'NeverVerifyPreloadedImages';
    if (
      verification !== 'NeverVerify' &&
      verification !== 'NeverVerifyPreloadedImages' &&
      verification !== 'AlwaysVerify'
    )
      this.#fail(
        'imagePullCredentialsVerificationPolicy',
        'must be NeverVerify, NeverVerifyPreloadedImages or AlwaysVerify',
      );
    return {
      registries,
      outside: this.#boolean(top['outside'], 'outside', false),
      pullsMax: parallel,
      collection: { highPercent, lowPercent, ageMsMin, ageMsMax },
      verification,
      ...this.#providers(top['credentialProviders']),
    };
  }

  #providers(value: unknown): Pick<ImageSettings, 'credentialProviders'> {
    if (value === undefined || value === null) return {};
    const entry = this.#object(value, 'credentialProviders', ['config', 'binDir']);
    const path = (key: 'config' | 'binDir'): string => {
      const written = entry[key];
      if (typeof written !== 'string' || written === '')
        this.#fail(`credentialProviders.${key}`, 'must be the path of a file or folder');
      return written.startsWith('/') ? written : join(this.#folder, written);
    };
    return { credentialProviders: { config: path('config'), binDir: path('binDir') } };
  }

  #registry(host: string, value: unknown): RegistrySettings {
    const where = `registries.${host}`;
    const entry = this.#object(value, where, ['mirrors', 'mirrorsOnly', 'http', 'tls']);
    const mirrors = entry['mirrors'] ?? [];
    if (!Array.isArray(mirrors)) this.#fail(`${where}.mirrors`, 'must be a list of addresses');
    for (const mirror of mirrors) {
      const url = URL.canParse(String(mirror)) ? new URL(String(mirror)) : undefined;
      if (!url || !/^https?:$/.test(url.protocol) || url.username || url.search || url.hash)
        this.#fail(`${where}.mirrors`, `${JSON.stringify(mirror)} is no address such as https://mirror.example:5000`);
    }
    const tls = this.#object(entry['tls'], `${where}.tls`, ['ca', 'cert', 'key', 'skipVerify']);
    const [ca, cert, key] = ['ca', 'cert', 'key'].map(name => this.#pem(tls[name], `${where}.tls.${name}`));
    if ((cert === undefined) !== (key === undefined)) this.#fail(`${where}.tls`, 'cert and key belong together');
    return {
      mirrors: mirrors.map(String),
      isAskedAfterMirrors: !this.#boolean(entry['mirrorsOnly'], `${where}.mirrorsOnly`, false),
      isPlain: this.#boolean(entry['http'], `${where}.http`, false),
      tls: {
        ...(ca === undefined ? {} : { ca }),
        ...(cert === undefined ? {} : { cert }),
        ...(key === undefined ? {} : { key }),
        skipVerify: this.#boolean(tls['skipVerify'], `${where}.tls.skipVerify`, false),
      },
    };
  }
}

function readText(path: string): string | undefined {
  try {
    const text = readFileSync(path, 'utf8');
    if (text.length > FILE_BYTES_MAX) throw failure(422, 'Invalid', `${path}: larger than ${FILE_BYTES_MAX} bytes`);
    return text;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || (error as NodeJS.ErrnoException).code === 'ENOTDIR')
      return undefined;
    throw error;
  }
}
