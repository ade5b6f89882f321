/**
 * A configuration file that may be changed while the server runs. Invariant: what is in use was valid as a whole; a change that is not
 * stays unused, is logged once, and the old configuration goes on.
 */

import { readFileSync } from 'node:fs';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { ConfigurationMetrics, type FollowedConfiguration } from '../metrics/configuration-metrics.ts';

const LOOK_EVERY_MS = 1000;

export interface FollowOptions<T> {
  readonly kind: FollowedConfiguration;
  readonly path: string;
  /** Makes the configuration of the text; throws for what is wrong. */
  readonly read: (text: string) => T | Promise<T>;
  /** Called with each later configuration that is valid; what it rejects with leaves the old one in use. */
  readonly changed: (value: T) => void | Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Looks at the file until the signal aborts. `text` is what is in use already. */
export async function followFile<T>(text: string, options: FollowOptions<T>): Promise<void> {
  const { path, clock, log, signal } = options;
  const told = new ConfigurationMetrics(options.kind);
  told.applied(text);
  let seen = text;
  let said = '';
  while (!signal.aborted) {
    await clock.sleep(LOOK_EVERY_MS, signal);
    if (signal.aborted) return;
    try {
      const now = readFileSync(path, 'utf8');
      if (now === seen) continue;
      seen = now;
      await options.changed(await options.read(now));
      said = '';
      told.applied(now);
      told.reloaded('success', clock.now());
      log.info('configuration reloaded', { path });
    } catch (error) {
      // An editor that replaces the file takes it away for a moment.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue;
      told.reloaded('failure', clock.now());
      if (messageOf(error) === said) continue;
      said = messageOf(error);
      log.error('changed configuration is not valid; the old one stays in use', { path, error: said });
    }
  }
}
