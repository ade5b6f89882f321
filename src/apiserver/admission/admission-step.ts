/** One of the two steps of admission: its plugins, one after the other, each timed. */

import type { Clock } from '../../base/clock.ts';
import { type Step, type StepSeries, stepSeries } from '../metrics/admission-metrics.ts';
import type { AdmissionPlugin, AdmissionRequest } from '../request.ts';

/** A request on its way, with the clock as it was when its turn began. */
interface Passage {
  readonly request: AdmissionRequest;
  readonly series: StepSeries;
  readonly sinceMs: number;
}

export class AdmissionStep {
  readonly #step: Step;
  readonly #plugins: readonly AdmissionPlugin[];
  readonly #clock: Clock;
  readonly #series = new Map<string, StepSeries>();

  /** Of all plugins those that take part in the step. */
  constructor(step: Step, plugins: readonly AdmissionPlugin[], clock: Clock) {
    this.#step = step;
    this.#plugins = plugins.filter(plugin => this.#part(plugin));
    this.#clock = clock;
  }

  /** Throws what a plugin refuses with. A promise only where a plugin waits: those that answer at once must not cost a turn each. */
  run(request: AdmissionRequest): void | Promise<void> {
    const sinceMs = this.#clock.monotonic();
    return this.#from(0, { request, series: this.#seriesOf(request.operation), sinceMs }, sinceMs);
  }

  #from(first: number, passage: Passage, pluginSinceMs: number): void | Promise<void> {
    const { request, series, sinceMs } = passage;
    for (let at = first; at < this.#plugins.length; at++) {
      const plugin = this.#plugins[at]!;
      let waiting: void | Promise<void>;
      try {
        waiting = this.#step === 'admit' ? plugin.mutate!(request) : plugin.validate!(request);
      } catch (error) {
        this.#rejected(plugin, passage, pluginSinceMs);
        throw error;
      }
      if (waiting) {
        const beganMs = pluginSinceMs;
        return waiting.then(
          () => this.#from(at + 1, passage, this.#passed(at, passage, beganMs)),
          error => {
            this.#rejected(plugin, passage, beganMs);
            throw error;
          },
        );
      }
      pluginSinceMs = this.#passed(at, passage, pluginSinceMs);
    }
    series.step.observe((pluginSinceMs - sinceMs) / 1000);
  }

  /** The time at which the next plugin begins. */
  #passed(at: number, { series }: Passage, sinceMs: number): number {
    const nowMs = this.#clock.monotonic();
    series.plugins[at]!.observe((nowMs - sinceMs) / 1000);
    return nowMs;
  }
  #rejected({ name }: AdmissionPlugin, { request, sinceMs }: Passage, pluginSinceMs: number): void {
    const nowMs = this.#clock.monotonic();
    const series = stepSeries({ step: this.#step, operation: request.operation, rejected: true }, [name]);
    series.plugins[0]!.observe((nowMs - pluginSinceMs) / 1000);
    series.step.observe((nowMs - sinceMs) / 1000);
  }

  // Found once an operation: names of series cost more than most plugins.
  #seriesOf(operation: string): StepSeries {
    let series = this.#series.get(operation);
    if (!series) {
      const names = this.#plugins.map(({ name }) => name);
      series = stepSeries({ step: this.#step, operation, rejected: false }, names);
      this.#series.set(operation, series);
    }
    return series;
  }
  #part(plugin: AdmissionPlugin): unknown {
    return this.#step === 'admit' ? plugin.mutate : plugin.validate;
  }
}
