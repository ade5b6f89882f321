/** A store behind the encryption that settings describe, and the change of its keys when the file changes. */

import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { Store } from '../../store/store.ts';
import { followFile } from '../configuration/followed-file.ts';
import type { ServerSettings } from '../configuration/server-settings.ts';
import { EncryptedStore } from './encrypted-store.ts';
import { parseEncryptionConfiguration } from './encryption-configuration.ts';

export function openEncrypted(
  inner: Store,
  { rules, file, reloads }: NonNullable<ServerSettings['encryption']>,
  options: { readonly clock: Clock; readonly log: Logger; readonly signal: AbortSignal },
): Store {
  const store = new EncryptedStore(inner, rules);
  if (reloads)
    void followFile(file.text, {
      path: file.path,
      read: text => parseEncryptionConfiguration(text),
      changed: next => store.use(next),
      ...options,
    });
  return store;
}
