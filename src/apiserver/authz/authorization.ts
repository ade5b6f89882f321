/** The authorizers that a configuration names, and their change when its file changes. */

import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import { followFile } from '../configuration/followed-file.ts';
import type { ServerSettings } from '../configuration/server-settings.ts';
import type { Dial } from '../webhooks/remote.ts';
import { type AuthorizationConfiguration, parseAuthorizationConfiguration } from './authorization-configuration.ts';
import type { AuthorizerChain, Link } from './authorizer.ts';
import { WebhookAuthorizer } from './webhook-authorizer.ts';

interface AuthorizationOptions {
  readonly dial?: Dial | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

export function linksOf({ authorizers }: AuthorizationConfiguration, options: AuthorizationOptions): Link[] {
  return authorizers.map(({ type, name, webhook }) => {
    if (type !== 'Webhook') return type;
    return new WebhookAuthorizer({ name, webhook: webhook!, access: webhook!.access!, ...options });
  });
}

/** Follows the configuration file, if there is one, until the signal aborts. */
export async function followAuthorization(
  chain: AuthorizerChain,
  { authorizationFile: file }: ServerSettings,
  options: AuthorizationOptions & { readonly signal: AbortSignal },
): Promise<void> {
  if (!file) return;
  await followFile(file.text, {
    kind: 'authorization',
    path: file.path,
    read: async text => linksOf(await parseAuthorizationConfiguration(text), options),
    changed: links => chain.use(links),
    clock: options.clock,
    log: options.log,
    signal: options.signal,
  });
}
