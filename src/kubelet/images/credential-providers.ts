/**
 * Asks the node's credential provider plug-ins (KEP 2133; with tokens of service accounts KEP 4412) what opens an image's registry: a program
 * for each, a CredentialProviderRequest on its standard input, the response on its output. What one said is remembered as long as it says, for
 * the image, its registry or all; one that fails, or does not end within a minute, brings nothing. Invariant: passwords and tokens
 * are kept in memory only, and never told.
 */

import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Pod, ServiceAccount } from '../../api/core/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { metrics } from '../../base/metrics.ts';
import { CommandError, runCommand } from '../../sys/command.ts';
import { type CredentialProvider, durationMs } from './credential-provider-config.ts';
import { type Credential, Keyring, matchesLocation } from './credentials.ts';
import { DEFAULT_SECONDS } from './image-metrics.ts';

/** Of the API server; what providers that want a token of the pod's service account need. */
export interface ServiceAccountSource {
  account(namespace: string, name: string): Promise<ServiceAccount>;
  token(pod: Pod, audience: string): Promise<string>;
}

interface Account {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly token: string;
}

/** What a plug-in wrote, as far as it is used. */
interface Response {
  readonly apiVersion?: unknown;
  readonly kind?: unknown;
  readonly cacheKeyType?: unknown;
  readonly cacheDuration?: unknown;
  readonly auth?: Readonly<Record<string, { readonly username?: string; readonly password?: string } | null>> | null;
}

const RUN_MS_MAX = 60_000;
const CACHE_MAX = 1000;
const GLOBAL = 'global';

export class CredentialProviders {
  readonly #providers: readonly Provider[];
  readonly #log: Logger;

  constructor(options: {
    readonly providers: readonly CredentialProvider[];
    readonly binDir: string;
    readonly accounts: ServiceAccountSource;
    readonly clock: Clock;
    readonly log: Logger;
  }) {
    const { providers, ...shared } = options;
    this.#providers = providers.map(provider => new Provider(provider, shared));
    this.#log = options.log;
  }

  /** For a normalised repository, in the order of the configuration; each of a pod's service account says so. Never rejects. */
  async credentials(pod: Pod, repository: string): Promise<Credential[]> {
    const found = await Promise.all(
      this.#providers.map(provider =>
        provider.credentials(pod, repository).catch((error: unknown): Credential[] => {
          this.#log.error('a credential provider gave nothing', {
            provider: provider.name,
            repository,
            error: messageOf(error),
          });
          return [];
        }),
      ),
    );
    return found.flat();
  }
}

interface Shared {
  readonly binDir: string;
  readonly accounts: ServiceAccountSource;
  readonly clock: Clock;
}

class Provider {
  readonly #of: CredentialProvider;
  readonly #shared: Shared;
  /** By image, registry or all, and by service account. */
  readonly #cache = new Map<string, { readonly auths: string; readonly untilMs: number }>();
  readonly #underWay = new Map<string, Promise<Response>>();
  readonly #durations = metrics.histogram(
    'kubelet_credential_provider_plugin_duration',
    'Duration of execution in seconds for credential provider plugin',
    DEFAULT_SECONDS,
    ['plugin_name'],
  );
  readonly #errors = metrics.counter(
    'kubelet_credential_provider_plugin_errors_total',
    'Number of errors from credential provider plugin',
    ['plugin_name'],
  );

  constructor(of: CredentialProvider, shared: Shared) {
    this.#of = of;
    this.#shared = shared;
  }
  get name(): string {
    return this.#of.name;
  }

  async credentials(pod: Pod, repository: string): Promise<Credential[]> {
    if (!this.#of.matchImages.some(pattern => matchesLocation(pattern, repository))) return [];
    const account = await this.#account(pod);
    if (account === 'not asked') return [];
    const keyring = new Keyring();
    keyring.add(await this.#auths(repository, account), {
      form: 'dockercfg',
      ...(account ? { serviceAccount: { uid: account.uid, namespace: account.namespace, name: account.name } } : {}),
    });
    return keyring.lookup(repository);
  }

  /** Undefined: asked without one. */
  async #account(pod: Pod): Promise<Account | undefined | 'not asked'> {
    const { token } = this.#of;
    if (!token) return undefined;
    const namespace = pod.metadata.namespace!;
    const name = pod.spec.serviceAccountName ?? '';
    if (name === '') return token.requiresServiceAccount ? 'not asked' : undefined;
    const { metadata } = await this.#shared.accounts.account(namespace, name);
    const of = metadata.annotations ?? {};
    // An account without them has not opted in.
    if (token.requiredAnnotations.some(key => of[key] === undefined)) return 'not asked';
    const keys = [...token.requiredAnnotations, ...token.optionalAnnotations]
      .filter(key => of[key] !== undefined)
      .sort();
    return {
      namespace,
      name,
      uid: metadata.uid ?? '',
      annotations: Object.fromEntries(keys.map(key => [key, of[key]!])),
      token: await this.#shared.accounts.token(pod, token.audience),
    };
  }

  /** Text in the form of a `.dockercfg`. */
  async #auths(repository: string, account: Account | undefined): Promise<string> {
    const { clock } = this.#shared;
    const registry = repository.slice(0, repository.indexOf('/'));
    const whose = account ? this.#keyOf(account) : '';
    const key = (what: string) => JSON.stringify([what, whose]);
    const nowMs = clock.monotonic();
    for (const what of [repository, registry, GLOBAL]) {
      const known = this.#cache.get(key(what));
      if (known && nowMs < known.untilMs) return known.auths;
    }
    const response = await this.#once(JSON.stringify([repository, whose, account?.token]), () =>
      this.#ask(repository, account),
    );
    const what = { Image: repository, Registry: registry, Global: GLOBAL }[String(response.cacheKeyType)];
    if (what === undefined)
      throw new Error(
        `credential provider plugin did not return a valid cacheKeyType: ${JSON.stringify(response.cacheKeyType)}`,
      );
    const auths = JSON.stringify(response.auth ?? {});
    const keepMs =
      typeof response.cacheDuration === 'string' ? (durationMs(response.cacheDuration) ?? 0) : this.#of.defaultCacheMs;
    if (keepMs > 0) {
      const endMs = clock.monotonic();
      for (const [one, { untilMs }] of this.#cache) if (endMs >= untilMs) this.#cache.delete(one);
      if (this.#cache.size >= CACHE_MAX) this.#cache.delete(this.#cache.keys().next().value!);
      this.#cache.set(key(what), { auths, untilMs: endMs + keepMs });
    }
    return auths;
  }

  /** With the cache type Token another token is another key. */
  #keyOf({ token, ...account }: Account): string {
    const text = JSON.stringify(this.#of.token?.cacheType === 'Token' ? { ...account, token } : account);
    return createHash('sha256').update(text).digest('hex');
  }

  async #once(key: string, ask: () => Promise<Response>): Promise<Response> {
    const known = this.#underWay.get(key);
    if (known) return known;
    const asked = ask().finally(() => this.#underWay.delete(key));
    this.#underWay.set(key, asked);
    return asked;
  }

  async #ask(repository: string, account: Account | undefined): Promise<Response> {
    const { name, apiVersion, args, env } = this.#of;
    const request = {
      kind: 'CredentialProviderRequest',
      apiVersion,
      image: repository,
      ...(account
        ? {
            serviceAccountToken: account.token,
            ...(Object.keys(account.annotations).length ? { serviceAccountAnnotations: account.annotations } : {}),
          }
        : {}),
    };
    const { clock, binDir } = this.#shared;
    const beganMs = clock.monotonic();
    let output: string;
    try {
      output = await runCommand(join(binDir, name), args, {
        input: `${JSON.stringify(request)}\n`,
        env: { ...(process.env as Record<string, string>), ...env },
        timeoutMs: RUN_MS_MAX,
      });
    } catch (error) {
      this.#errors.add(1, name);
      // Not its whole message: what a plug-in wrote before it failed may be a password.
      const { code, stderr } = error instanceof CommandError ? error : { code: undefined, stderr: messageOf(error) };
      throw new Error(
        `error execing credential provider plugin ${name} for image ${repository}: ${code === undefined ? 'it did not run to its end' : `exit status ${code}`}: ${stderr.trim()}`,
      );
    } finally {
      this.#durations.observe((clock.monotonic() - beganMs) / 1000, name);
    }
    return parseResponse(output, apiVersion);
  }
}

/** Says nothing of the content when it is refused: there may be passwords in it. */
function parseResponse(output: string, apiVersion: string): Response {
  let response: Response;
  try {
    response = JSON.parse(output) as Response;
  } catch {
    throw new Error('error decoding credential provider plugin response from stdout');
  }
  if (response?.apiVersion !== apiVersion)
    throw new Error(
      `apiVersion from credential plugin response did not match expected apiVersion:${apiVersion}, actual apiVersion:${String(response?.apiVersion)}`,
    );
  if (response.kind !== 'CredentialProviderResponse')
    throw new Error('failed to decode CredentialProviderResponse, unexpected Kind');
  return response;
}
