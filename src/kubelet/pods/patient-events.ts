/**
 * Events of pods, told after the work they tell of: while pods start, ordinary events wait, so that writing them does not
 * take the processor from the starts. Invariant: order is kept, nothing waits longer than `waitMsMax`, a warning waits for nothing.
 */

import type { KubeObject } from '../../api/meta.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import type { EventRecorder } from '../../client/event-recorder.ts';
import type { StartGate } from './start-gate.ts';

/** After the last start: its status is written first. */
const SETTLE_MS = 20;
const WAIT_MS_MAX = 1000;

export class PatientEvents implements EventRecorder {
  readonly #recorder: EventRecorder;
  readonly #gate: StartGate;
  readonly #clock: Clock;
  #held: Parameters<EventRecorder['event']>[] = [];
  #settle: Timer | undefined;
  #deadline: Timer | undefined;

  constructor(options: { readonly recorder: EventRecorder; readonly gate: StartGate; readonly clock: Clock }) {
    this.#recorder = options.recorder;
    this.#gate = options.gate;
    this.#clock = options.clock;
    this.#gate.onIdle(() => this.#settleSoon());
  }

  event(
    about: KubeObject,
    type: 'Normal' | 'Warning',
    reason: string,
    message: string,
    options: { fieldPath?: string } = {},
  ): void {
    this.#held.push([about, type, reason, message, options]);
    if (type === 'Warning') return this.#tell();
    this.#deadline ??= this.#clock.after(WAIT_MS_MAX, () => this.#tell());
    if (this.#gate.isIdle) this.#settleSoon();
  }

  #settleSoon(): void {
    if (this.#held.length === 0) return;
    this.#settle ??= this.#clock.after(SETTLE_MS, () => {
      this.#settle = undefined;
      if (this.#gate.isIdle) this.#tell();
    });
  }
  #tell(): void {
    this.#settle?.cancel();
    this.#deadline?.cancel();
    this.#settle = undefined;
    this.#deadline = undefined;
    for (const [about, type, reason, message, options] of this.#held.splice(0))
      this.#recorder.event(about, type, reason, message, options);
  }
}
