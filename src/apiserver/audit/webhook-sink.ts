/**
 * Audit events to a webhook, in batches (an EventList in each POST), in order. A batch that fails is tried again while the failure may
 * pass; then its events are dropped and counted, as are those for which the buffer has no room.
 */

import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { ServerAccess } from '../../client/kubeconfig.ts';
import { type Dial, Remote } from '../webhooks/remote.ts';
import { patiently } from '../webhooks/retries.ts';
import type { AuditSink } from './auditor.ts';
import { dropped } from './log-sink.ts';
import type { AuditEvent } from './trail.ts';

const CALL_MS_MAX = 30_000;

export interface WebhookSinkOptions {
  readonly access: ServerAccess;
  readonly dial?: Dial | undefined;
  /** Events that wait at most; upstream's default is 10 000. */
  readonly bufferMax: number;
  readonly batchMax: number;
  /** How long a batch that is not full waits. */
  readonly waitMs: number;
  readonly clock: Clock;
  readonly log: Logger;
}

export class WebhookSink implements AuditSink {
  readonly #options: WebhookSinkOptions;
  readonly #remote: Remote;
  #waiting: AuditEvent[] = [];
  #sending: Promise<void> | undefined;
  #wake: (() => void) | undefined;
  #closing = false;

  constructor(options: WebhookSinkOptions) {
    this.#options = options;
    this.#remote = new Remote(options.access, options.dial);
  }

  record(event: AuditEvent): void {
    const { bufferMax, batchMax } = this.#options;
    if (this.#waiting.length >= bufferMax) return dropped.add(1, 'webhook');
    this.#waiting.push(event);
    if (this.#waiting.length >= batchMax) this.#wake?.();
    this.#sending ??= this.#send();
  }

  async close(): Promise<void> {
    this.#closing = true;
    this.#wake?.();
    while (this.#sending) await this.#sending;
    this.#remote.close();
  }

  async #send(): Promise<void> {
    const { access, batchMax, clock, log } = this.#options;
    while (this.#waiting.length > 0) {
      await this.#gathered();
      const items = this.#waiting.slice(0, batchMax);
      this.#waiting = this.#waiting.slice(batchMax);
      const body = { kind: 'EventList', apiVersion: 'audit.k8s.io/v1', metadata: {}, items };
      try {
        await patiently(clock, () => this.#remote.post(access.server, { body, timeoutMs: CALL_MS_MAX }));
      } catch (error) {
        dropped.add(items.length, 'webhook');
        log.error('audit events could not be sent', { events: items.length, error: messageOf(error) });
      }
    }
    this.#sending = undefined;
  }

  // Until the batch is full, or has waited long enough, or nothing more is to be waited for.
  #gathered(): Promise<void> {
    const { batchMax, waitMs, clock } = this.#options;
    if (this.#closing || this.#waiting.length >= batchMax) return Promise.resolve();
    return new Promise(resolve => {
      const done = () => {
        timer.cancel();
        this.#wake = undefined;
        resolve();
      };
      const timer = clock.after(waitMs, done);
      this.#wake = done;
    });
  }
}
