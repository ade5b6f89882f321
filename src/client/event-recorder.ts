/**
 * Writes `v1.Event`s about objects, as client-go's recorder does: equal events within ten minutes are counted on one
 * object instead of repeated. Recording never blocks nor fails its caller; a failed write is logged and dropped.
 */

import type { KubeObject } from '../api/meta.ts';
import { type Clock, formatTime, systemClock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { EVENTS } from './resources.ts';
import type { Transport } from './transport.ts';

interface RecordedEvent extends KubeObject {
  involvedObject: Record<string, unknown>;
  reason: string;
  message: string;
  type: string;
  count: number;
  firstTimestamp: string;
  lastTimestamp: string;
  source: { component: string; host?: string };
  reportingComponent: string;
  reportingInstance: string;
}

const SIMILAR_MS = 10 * 60 * 1000;
const CACHE_ENTRIES_MAX = 4096;

export interface EventRecorder {
  /** `fieldPath` narrows to a part: `spec.containers{web}`. */
  event(
    about: KubeObject,
    type: 'Normal' | 'Warning',
    reason: string,
    message: string,
    options?: { fieldPath?: string },
  ): void;
}

/** By all recorders of the process: two may write about one object in the same millisecond. */
let written = 0;

export class ApiEventRecorder implements EventRecorder {
  readonly #transport: Transport;
  readonly #component: string;
  readonly #host: string | undefined;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #seen = new Map<string, { name: string; namespace: string; count: number; lastMs: number }>();
  #tail: Promise<void> = Promise.resolve();

  constructor(options: { transport: Transport; component: string; host?: string; log: Logger; clock?: Clock }) {
    this.#transport = options.transport;
    this.#component = options.component;
    this.#host = options.host;
    this.#log = options.log;
    this.#clock = options.clock ?? systemClock;
  }

  event(
    about: KubeObject,
    type: 'Normal' | 'Warning',
    reason: string,
    message: string,
    options: { fieldPath?: string } = {},
  ): void {
    this.#tail = this.#tail
      .then(() => this.#write(about, type, reason, message, options.fieldPath))
      .catch(error => {
        this.#log.debug('event not written', { reason, error: messageOf(error) });
      });
  }

  async #write(
    about: KubeObject,
    type: string,
    reason: string,
    message: string,
    fieldPath: string | undefined,
  ): Promise<void> {
    const { metadata } = about;
    const namespace = metadata.namespace || 'default';
    const nowMs = this.#clock.now();
    const id = [metadata.uid ?? metadata.name, about.kind, fieldPath ?? '', type, reason, message].join('\0');
    const known = this.#seen.get(id);
    if (known && nowMs - known.lastMs < SIMILAR_MS) {
      known.count += 1;
      known.lastMs = nowMs;
      try {
        await this.#transport.patch(
          { of: EVENTS, namespace: known.namespace, name: known.name },
          { count: known.count, lastTimestamp: formatTime(nowMs) },
          'application/merge-patch+json',
        );
        return;
      } catch {
        // The event has expired meanwhile: write it anew below.
      }
    }
    // An IPAddress may be named `fd00::1`.
    const name = `${metadata.name.replaceAll(':', '-')}.${BigInt(Math.floor(nowMs * 1e6)).toString(16)}${(written++ & 0xff).toString(16).padStart(2, '0')}`;
    const event: RecordedEvent = {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { name, namespace },
      involvedObject: {
        kind: about.kind,
        ...(metadata.namespace ? { namespace: metadata.namespace } : {}),
        name: metadata.name,
        ...(metadata.uid ? { uid: metadata.uid } : {}),
        apiVersion: about.apiVersion,
        ...(metadata.resourceVersion ? { resourceVersion: metadata.resourceVersion } : {}),
        ...(fieldPath ? { fieldPath } : {}),
      },
      reason,
      message: message.slice(0, 1024),
      type,
      count: 1,
      firstTimestamp: formatTime(nowMs),
      lastTimestamp: formatTime(nowMs),
      source: { component: this.#component, ...(this.#host ? { host: this.#host } : {}) },
      reportingComponent: this.#component,
      reportingInstance: this.#host ?? '',
    };
    await this.#transport.create({ of: EVENTS, namespace }, event);
    if (this.#seen.size >= CACHE_ENTRIES_MAX) this.#seen.delete(this.#seen.keys().next().value!);
    this.#seen.set(id, { name, namespace, count: 1, lastMs: nowMs });
  }
}
