/**
 * The options of a server as they were given, `NAME=VALUE` without dashes. What is not known is refused, and so is a value that is not of
 * the option's kind or a file that cannot be read, with the option's name.
 */

import { readFileSync } from 'node:fs';
import { failure, messageOf } from '../../base/errors.ts';
import { durationMs } from './document.ts';

/** A file that goes on being followed: where, and what is in use of it. */
export interface FollowedText {
  readonly path: string;
  readonly text: string;
}

type Reading = 'text' | 'texts' | 'file' | 'files' | 'path' | 'boolean' | 'count' | 'duration' | 'list';

/** Every option there is; `file` must exist, `path` need not; `texts` and `files` may be given again. */
const OPTIONS = {
  'anonymous-auth': 'boolean',
  'authentication-config': 'file',
  'authentication-token-webhook-config-file': 'file',
  'authentication-token-webhook-version': 'text',
  'authentication-token-webhook-cache-ttl': 'duration',
  'authorization-config': 'file',
  'authorization-mode': 'list',
  'authorization-webhook-config-file': 'file',
  'authorization-webhook-version': 'text',
  'authorization-webhook-cache-authorized-ttl': 'duration',
  'authorization-webhook-cache-unauthorized-ttl': 'duration',
  'token-auth-file': 'file',
  'oidc-issuer-url': 'text',
  'oidc-client-id': 'text',
  'oidc-ca-file': 'file',
  'oidc-username-claim': 'text',
  'oidc-username-prefix': 'text',
  'oidc-groups-claim': 'text',
  'oidc-groups-prefix': 'text',
  'oidc-required-claim': 'texts',
  'oidc-signing-algs': 'list',
  'requestheader-client-ca-file': 'file',
  'requestheader-allowed-names': 'list',
  'requestheader-username-headers': 'list',
  'requestheader-uid-headers': 'list',
  'requestheader-group-headers': 'list',
  'requestheader-extra-headers-prefix': 'list',
  'audit-policy-file': 'file',
  'audit-log-path': 'path',
  'audit-log-format': 'text',
  'audit-log-maxage': 'count',
  'audit-log-maxbackup': 'count',
  'audit-log-maxsize': 'count',
  'audit-webhook-config-file': 'file',
  'audit-webhook-batch-buffer-size': 'count',
  'audit-webhook-batch-max-size': 'count',
  'audit-webhook-batch-max-wait': 'duration',
  'encryption-provider-config': 'file',
  'encryption-provider-config-automatic-reload': 'boolean',
  'tracing-config-file': 'file',
  'disable-admission-plugins': 'list',
  'runtime-config': 'list',
  'api-audiences': 'list',
  'service-account-issuer': 'texts',
  'service-account-jwks-uri': 'text',
  'service-account-key-file': 'files',
  'service-account-signing-key-file': 'file',
  'service-account-signing-endpoint': 'path',
  'service-account-max-token-expiration': 'duration',
  'service-account-extend-token-expiration': 'boolean',
  'service-account-lookup': 'boolean',
} as const satisfies Readonly<Record<string, Reading>>;

export type Option = keyof typeof OPTIONS;
export const OPTION_NAMES = Object.keys(OPTIONS) as Option[];

/** Options whose value is the name of a file: whoever keeps the arguments makes them absolute first. */
export const PATH_OPTIONS: ReadonlySet<string> = new Set(
  Object.entries(OPTIONS).flatMap(([name, reading]) => (/^(files?|path)$/.test(reading) ? [name] : [])),
);

const isRepeatable = (reading: Reading): boolean => reading === 'texts' || reading === 'files';

/** Options as they were given; reading one says what is wrong with its value. */
export class Given {
  readonly #values = new Map<string, string[]>();

  constructor(args: readonly string[]) {
    for (const arg of args) {
      const at = arg.indexOf('=');
      const name = (at < 0 ? arg : arg.slice(0, at)).replace(/^--/, '');
      if (!Object.hasOwn(OPTIONS, name)) throw refused(name, `unknown option; known: ${OPTION_NAMES.join(', ')}`);
      if (at < 0 && OPTIONS[name as Option] !== 'boolean') throw refused(name, 'it needs a value: NAME=VALUE');
      const values = this.#values.get(name) ?? [];
      if (values.length > 0 && !isRepeatable(OPTIONS[name as Option])) throw refused(name, 'given more than once');
      this.#values.set(name, [...values, at < 0 ? 'true' : arg.slice(at + 1)]);
    }
  }

  get flags(): Record<string, string> {
    return Object.fromEntries([...this.#values].map(([name, values]) => [name, values.join(',')]));
  }
  has(name: Option): boolean {
    return this.#values.has(name);
  }
  text(name: Option): string | undefined {
    return this.#values.get(name)?.[0];
  }
  all(name: Option): readonly string[] {
    return this.#values.get(name) ?? [];
  }
  list(name: Option): readonly string[] | undefined {
    const text = this.text(name);
    return text === undefined
      ? undefined
      : text
          .split(',')
          .map(one => one.trim())
          .filter(Boolean);
  }
  oneOf<T extends string>(name: Option, allowed: readonly T[], fallback: T): T {
    const text = this.text(name) ?? fallback;
    if (!(allowed as readonly string[]).includes(text))
      throw refused(name, `Unsupported value: ${JSON.stringify(text)}: supported values: ${allowed.join(', ')}`);
    return text as T;
  }
  boolean(name: Option, fallback: boolean): boolean {
    return this.oneOf(name, ['true', 'false'], String(fallback) as 'true' | 'false') === 'true';
  }
  count(name: Option, fallback: number): number {
    const text = this.text(name);
    if (text === undefined) return fallback;
    if (!/^\d{1,9}$/.test(text)) throw refused(name, `Invalid value: ${JSON.stringify(text)}: must be a whole number`);
    return Number(text);
  }
  duration(name: Option, fallback: number): number {
    const text = this.text(name);
    const found = text === undefined ? fallback : durationMs(text);
    if (found === undefined)
      throw refused(name, `Invalid value: ${JSON.stringify(text)}: must be a duration, such as 30s`);
    return found;
  }
  file(name: Option): FollowedText | undefined {
    return this.files(name)[0];
  }
  files(name: Option): readonly FollowedText[] {
    return this.all(name).map(path => {
      try {
        return { path, text: readFileSync(path, 'utf8') };
      } catch (error) {
        throw refused(name, messageOf(error));
      }
    });
  }
  /** What `read` makes of the file. */
  async parsed<T>(name: Option, read: (text: string, path: string) => T | Promise<T>): Promise<T | undefined> {
    const file = this.file(name);
    if (!file) return undefined;
    try {
      return await read(file.text, file.path);
    } catch (error) {
      throw refused(name, `${file.path}: ${messageOf(error)}`);
    }
  }
  /** Refuses options that stand for the same thing. */
  exclude(name: Option, others: readonly Option[]): void {
    const other = this.has(name) ? others.find(one => this.has(one)) : undefined;
    if (other) throw refused(name, `it cannot be used together with ${other}`);
  }
  needs(name: Option, other: Option): void {
    if (this.has(name) && !this.has(other)) throw refused(name, `it needs ${other}`);
  }
}

export function refused(name: string, why: string): Error {
  return failure(400, 'BadRequest', `--kube-apiserver-arg ${name}: ${why}`);
}
