/** The authenticators of a server, as its settings want them, and the change of those that its configuration file names. */

import { assert } from '../../base/assert.ts';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import { followFile } from '../configuration/followed-file.ts';
import type { ServerSettings } from '../configuration/server-settings.ts';
import type { Reader } from '../request.ts';
import type { Dial } from '../webhooks/remote.ts';
import {
  type AnonymousConfiguration,
  type AuthenticationConfiguration,
  parseAuthenticationConfiguration,
} from './authentication-configuration.ts';
import { forApiServer, RequestAuthenticator } from './authenticator.ts';
import { BootstrapTokens } from './bootstrap-tokens.ts';
import { JwtAuthenticator } from './jwt-authenticator.ts';
import { staticTokens } from './static-tokens.ts';
import { type TokenAuthenticator, TokenUnion } from './token-authenticator.ts';
import { WebhookTokens } from './webhook-tokens.ts';

export interface AuthenticationOptions {
  readonly settings: ServerSettings;
  readonly serviceAccounts: TokenAuthenticator;
  /** Of service accounts: nobody else may issue in their name. */
  readonly issuers: readonly string[];
  readonly audiences: readonly string[];
  readonly reader: () => Reader;
  readonly dial?: { readonly controlplane?: Dial | undefined; readonly cluster?: Dial | undefined };
  readonly clock: Clock;
  readonly log: Logger;
}

export class Authentication {
  readonly authenticator: RequestAuthenticator;
  readonly #options: AuthenticationOptions;
  #jwt: JwtAuthenticator;
  #anonymous: AnonymousConfiguration;
  readonly #webhook: WebhookTokens | undefined;

  constructor(options: AuthenticationOptions) {
    const { settings, serviceAccounts, audiences, reader, clock, dial } = options;
    this.#options = options;
    this.#jwt = this.#issuersOf(settings.authentication);
    this.#anonymous = anonymousOf(settings.authentication);
    this.#webhook =
      settings.tokenWebhook &&
      new WebhookTokens({ ...settings.tokenWebhook, audiences, clock, dial: dial?.controlplane });
    const others: TokenAuthenticator[] = [
      forApiServer(staticTokens(settings.staticTokens), audiences),
      serviceAccounts,
      forApiServer(new BootstrapTokens({ reader, clock }), audiences),
      forApiServer({ verify: (token, wanted) => this.#jwt.verify(token, wanted) }, audiences),
    ];
    if (this.#webhook) others.push(this.#webhook);
    this.authenticator = new RequestAuthenticator({
      tokens: new TokenUnion(others),
      audiences,
      requestHeader: settings.requestHeader,
      anonymous: () => this.#anonymous,
    });
  }

  /** Follows the configuration file, if there is one, until the signal aborts. */
  async follow(signal: AbortSignal): Promise<void> {
    const { settings, issuers, clock, log } = this.#options;
    const file = settings.authenticationFile;
    if (!file) return;
    await followFile(file.text, {
      kind: 'authentication',
      path: file.path,
      read: text => parseAuthenticationConfiguration(text, issuers),
      changed: configuration => {
        const before = this.#jwt;
        this.#jwt = this.#issuersOf(configuration);
        this.#anonymous = anonymousOf(configuration, settings.authentication);
        before.close();
      },
      clock,
      log,
      signal,
    });
  }

  close(): void {
    this.#jwt.close();
    this.#webhook?.close();
  }

  #issuersOf({ jwt = [] }: AuthenticationConfiguration): JwtAuthenticator {
    const { dial, clock } = this.#options;
    return new JwtAuthenticator({ issuers: jwt, clock, ...(dial ? { dial } : {}) });
  }
}

function anonymousOf(configuration: AuthenticationConfiguration, start = configuration): AnonymousConfiguration {
  const found = configuration.anonymous ?? start.anonymous;
  assert(found, 'settings always say whether anonymous users are let in');
  return found;
}
