/** The auditor that settings describe. */

import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { AuditSettings } from '../configuration/server-settings.ts';
import type { Dial } from '../webhooks/remote.ts';
import { Auditor, type AuditSink } from './auditor.ts';
import { LogSink } from './log-sink.ts';
import { WebhookSink } from './webhook-sink.ts';

/** Throws when the log cannot be opened. */
export function auditorOf(
  { policy, log: file, webhook }: AuditSettings,
  options: { readonly dial?: Dial | undefined; readonly clock: Clock; readonly random: Random; readonly log: Logger },
): Auditor {
  const sinks: AuditSink[] = [];
  if (file) sinks.push(new LogSink({ ...file, ...options }));
  if (webhook) sinks.push(new WebhookSink({ ...webhook, ...options }));
  return new Auditor({ policy, sinks, clock: options.clock });
}
