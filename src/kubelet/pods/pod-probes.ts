/**
 * The probes of one pod's running containers. Invariant: after `update` exactly the running containers that the pod's object
 * names are probed, and none of a pod that ends gets new probes. It restarts nothing: it says what a container is (ready,
 * started, doomed) and wakes the worker when that changes.
 */

import { PassThrough } from 'node:stream';
import type { Container } from '../../api/core/v1.gen.ts';
import { probeDurations, probeResults } from '../metrics.ts';
import { ContainerProbes, type ProbeKind } from '../probes/container-probes.ts';
import type { ProbeTarget } from '../probes/prober.ts';
import type { ContainerState, RuntimeState } from '../runtime.ts';
import type { PodContext } from './context.ts';
import type { PodSubject } from './pod-subject.ts';
import { allContainers } from './resources.ts';
import { containerIdOf } from './status.ts';

const capital = (kind: ProbeKind) => `${kind[0]!.toUpperCase()}${kind.slice(1)}`;
const EXEC_OUTPUT_BYTES_MAX = 10 * 1024;

export class PodProbes {
  readonly #context: PodContext;
  readonly #subject: PodSubject;
  readonly #probes = new Map<string, ContainerProbes>();
  #isAbandoned = false;

  constructor(subject: PodSubject) {
    this.#context = subject.context;
    this.#subject = subject;
  }
  /** By the container's id; undefined of one that does not run. */
  of(id: string): ContainerProbes | undefined {
    return this.#probes.get(id);
  }
  /** Ends all, and begins none any more. */
  abandon(): void {
    this.#isAbandoned = true;
    this.forget();
    for (const probes of this.#probes.values()) probes.stop();
  }

  /** The pod is gone, and what was told of its probes with it. */
  forget(): void {
    for (const { forget } of this.#told.values()) forget();
    this.#told.clear();
  }

  update(state: RuntimeState): void {
    this.#subject.see(state);
    const running = new Map(state.containers.filter(one => one.state === 'running').map(one => [one.id, one]));
    for (const [id, probes] of this.#probes) {
      if (running.has(id)) continue;
      probes.stop();
      this.#probes.delete(id);
    }
    if (this.#isAbandoned || this.#subject.isEnding) return;
    for (const container of running.values()) {
      if (this.#probes.has(container.id)) continue;
      const spec = allContainers(this.#subject.pod).find(one => one.name === container.name);
      if (!spec) continue;
      const known = this.#subject.toldStatuses.find(one => one.containerID === containerIdOf(container));
      this.#probes.set(
        container.id,
        new ContainerProbes({
          container: spec,
          startedMs: container.startedMs ?? container.createdMs,
          target: this.target(container, spec),
          clock: this.#context.clock,
          random: this.#context.random,
          wasReady: known?.ready ?? false,
          probed: (kind, isSuccess, seconds) => this.#series(spec, kind).told(isSuccess, seconds),
          told: (kind, what, output) =>
            this.#subject.event(
              'Warning',
              what === 'warning' ? 'ProbeWarning' : 'Unhealthy',
              `${capital(kind)} probe ${what === 'errored' ? 'errored and resulted in unknown state' : what}: ${output}`,
              spec,
            ),
          changed: () => this.#subject.wake(),
        }),
      );
    }
  }

  /** Metrics of one probe, which are there as long as its pod is. */
  readonly #told = new Map<string, { told(isSuccess: boolean, seconds: number): void; forget(): void }>();
  #series(spec: Container, kind: ProbeKind) {
    const key = `${kind}/${spec.name}`;
    let series = this.#told.get(key);
    if (!series) {
      const { namespace = '', name } = this.#subject.pod.metadata;
      const type = capital(kind);
      const of = [spec.name, name, namespace] as const;
      const labels = (result: string) => [type, result, ...of, this.#subject.uid];
      const durations = probeDurations.series(type, ...of);
      series = {
        told: (isSuccess, seconds) => {
          probeResults.add(1, ...labels(isSuccess ? 'successful' : 'failed'));
          durations.observe(seconds);
        },
        forget: () => {
          for (const result of ['successful', 'failed']) probeResults.remove(...labels(result));
          probeDurations.remove(type, ...of);
        },
      };
      this.#told.set(key, series);
    }
    return series;
  }

  /** What probes and hooks of the container reach. */
  target(container: ContainerState, spec: Container): ProbeTarget {
    return {
      podIp: (this.#subject.pod.spec.hostNetwork ? this.#context.nodeIps : this.#subject.podIps)[0] ?? '127.0.0.1',
      container: spec,
      exec: async (command, signal) => {
        const sink = new PassThrough();
        const parts: Buffer[] = [];
        let bytes = 0;
        sink.on('data', (part: Buffer) => {
          if (bytes < EXEC_OUTPUT_BYTES_MAX) parts.push(part.subarray(0, EXEC_OUTPUT_BYTES_MAX - bytes));
          bytes += part.length;
        });
        const { exitCode, isUnstarted } = await this.#context.runtime.exec(container.id, {
          isBrief: true,
          command,
          tty: false,
          stdout: sink,
          stderr: sink,
          signal,
        });
        const output = Buffer.concat(parts).toString('utf8');
        if (isUnstarted) throw new Error(output.trim() || `exit code ${exitCode}`);
        return { exitCode, output };
      },
    };
  }
}
