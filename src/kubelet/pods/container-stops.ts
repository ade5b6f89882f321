/**
 * The graceful end of one pod's containers: preStop hook, stop signal, SIGKILL, and the order in which they go. Invariant: a
 * container is being stopped once at most, however many ask; a shorter grace overtakes a longer one under way. It does not
 * decide that something must end, and leaves sandboxes, volumes and the pod's status alone.
 */

import type { Container, Pod } from '../../api/core/v1.gen.ts';
import { messageOf } from '../../base/errors.ts';
import type { ContainerState, RuntimeState } from '../runtime.ts';
import type { PodContext } from './context.ts';
import { runHook } from './hooks.ts';
import type { PodProbes } from './pod-probes.ts';
import type { PodSubject } from './pod-subject.ts';
import { everyContainer, isSidecar } from './resources.ts';

const GRACE_SECONDS_DEFAULT = 30;
/** A container gets this long even when its preStop hook took all the time. */
const GRACE_SECONDS_MIN = 2;

export function graceSecondsOf(pod: Pod): number {
  return pod.spec.terminationGracePeriodSeconds ?? GRACE_SECONDS_DEFAULT;
}

export class ContainerStops {
  readonly #context: PodContext;
  readonly #subject: PodSubject;
  readonly #probes: PodProbes;
  readonly #stopping = new Map<string, Promise<void>>();
  /** What is left to a pod that is being deleted; caps every stop. */
  #graceSeconds: number | undefined;

  constructor(subject: PodSubject, probes: PodProbes) {
    this.#context = subject.context;
    this.#subject = subject;
    this.#probes = probes;
  }

  get graceSeconds(): number | undefined {
    return this.#graceSeconds;
  }
  /** For the stops that begin from now on. */
  limit(graceSeconds: number): void {
    this.#graceSeconds = graceSeconds;
  }
  /** Force deletion overtakes a graceful one under way. */
  shorten(before: number | undefined, after: number | undefined): void {
    if (
      this.#graceSeconds !== undefined &&
      after !== undefined &&
      after < (before ?? this.#graceSeconds + 1) &&
      after < this.#graceSeconds
    ) {
      this.#graceSeconds = after;
      for (const id of this.#stopping.keys()) void this.#context.runtime.stop(id, after).catch(() => {});
    }
  }

  /** preStop, then the stop signal, all within the grace; probes end first. Idempotent. */
  stop(container: ContainerState, spec: Container | undefined, graceSeconds: number, message: string): Promise<void> {
    const present = this.#stopping.get(container.id);
    if (present) return present;
    const work = this.#stopOnce(container, spec, graceSeconds, message).finally(() =>
      this.#stopping.delete(container.id),
    );
    this.#stopping.set(container.id, work);
    return work;
  }
  async #stopOnce(
    container: ContainerState,
    spec: Container | undefined,
    graceSeconds: number,
    message: string,
  ): Promise<void> {
    const { clock, runtime } = this.#context;
    this.#probes.of(container.id)?.stop();
    if (spec) this.#subject.event('Normal', 'Killing', message, spec);
    const hook = spec?.lifecycle?.preStop;
    let leftSeconds = graceSeconds;
    if (hook && spec && graceSeconds > 0 && container.state === 'running') {
      const late = new AbortController();
      const timer = clock.after(graceSeconds * 1000, () => late.abort());
      const beganMs = clock.monotonic();
      try {
        await Promise.race([
          runHook(hook, { container: spec, target: this.#probes.target(container, spec), clock, signal: late.signal }),
          new Promise<void>(resolve => late.signal.addEventListener('abort', () => resolve())),
        ]);
      } catch (error) {
        this.#subject.event('Warning', 'FailedPreStopHook', `PreStopHook failed: ${messageOf(error)}`, spec);
      } finally {
        timer.cancel();
      }
      leftSeconds = Math.max(GRACE_SECONDS_MIN, graceSeconds - (clock.monotonic() - beganMs) / 1000);
    }
    await runtime.stop(container.id, Math.min(leftSeconds, this.#graceSeconds ?? leftSeconds));
  }

  /** Main containers together, then sidecars one by one in reverse. */
  async stopAll(state: RuntimeState, graceSeconds: number): Promise<void> {
    const { clock } = this.#context;
    const running = state.containers.filter(one => one.state !== 'exited');
    const sidecars = (this.#subject.pod.spec.initContainers ?? []).filter(isSidecar).map(spec => spec.name);
    const specOf = (name: string) => everyContainer(this.#subject.pod).find(one => one.name === name);
    const endMs = clock.monotonic() + graceSeconds * 1000;
    await Promise.all(
      running
        .filter(one => !sidecars.includes(one.name))
        .map(one => this.stop(one, specOf(one.name), graceSeconds, `Stopping container ${one.name}`)),
    );
    for (const name of sidecars.reverse()) {
      const left = graceSeconds === 0 ? 0 : Math.max(GRACE_SECONDS_MIN, (endMs - clock.monotonic()) / 1000);
      for (const one of running)
        if (one.name === name) await this.stop(one, specOf(name), left, `Stopping container ${name}`);
    }
  }
}
