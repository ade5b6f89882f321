/** A store behind the encryption that settings describe, and the change of its keys when the file changes. */

import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { Store } from '../../store/store.ts';
import { followFile } from '../configuration/followed-file.ts';
import type { ServerSettings } from '../configuration/server-settings.ts';
import { EncryptedStore } from './encrypted-store.ts';
import { type EncryptionRule, parseEncryptionConfiguration } from './encryption-configuration.ts';

interface Options {
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Calls to a plugin that were begun before the configuration changed have this long to end. */
const GRACE_MS = 10_000;

/** Rejects when a key management service does not answer. */
export async function openEncrypted(
  inner: Store,
  { rules, file, reloads }: NonNullable<ServerSettings['encryption']>,
  options: Options,
): Promise<EncryptedStore> {
  let leave = await started(rules, options);
  const store = new EncryptedStore(inner, rules);
  if (reloads)
    void followFile(file.text, {
      kind: 'encryption',
      path: file.path,
      read: text => parseEncryptionConfiguration(text),
      changed: async next => {
        const before = leave;
        leave = await started(next, options);
        store.use(next);
        options.clock.after(GRACE_MS, before, { background: true });
      },
      ...options,
    });
  return store;
}

/** The services of one configuration; what it returns lets go of them. */
async function started(rules: readonly EncryptionRule[], options: Options): Promise<() => void> {
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  try {
    for (const { envelopes } of rules) for (const envelope of envelopes) await envelope.start?.({ ...options, signal });
  } catch (error) {
    stop.abort();
    throw error;
  }
  return () => stop.abort();
}
