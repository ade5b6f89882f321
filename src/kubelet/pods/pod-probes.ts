/**
 * The probes of one pod's running containers. Invariant: after `update` exactly the running containers that the pod's object
 * names are probed, and none of a pod that ends gets new probes. It restarts nothing: it says what a container is (ready,
 * started, doomed) and wakes the worker when that changes.
 */

import { PassThrough } from 'node:stream';
import type { Container } from '../../api/core/v1.gen.ts';
import { ContainerProbes } from '../probes/container-probes.ts';
import type { ProbeTarget } from '../probes/prober.ts';
import type { ContainerState, RuntimeState } from '../runtime.ts';
import type { PodContext } from './context.ts';
import type { PodSubject } from './pod-subject.ts';
import { allContainers } from './resources.ts';
import { containerIdOf } from './status.ts';

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
    for (const probes of this.#probes.values()) probes.stop();
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
          failed: (kind, output) =>
            this.#subject.event(
              'Warning',
              'Unhealthy',
              `${kind[0]!.toUpperCase()}${kind.slice(1)} probe failed: ${output}`,
              spec,
            ),
          changed: () => this.#subject.wake(),
        }),
      );
    }
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
        const { exitCode } = await this.#context.runtime.exec(container.id, {
          isBrief: true,
          command,
          tty: false,
          stdout: sink,
          stderr: sink,
          signal,
        });
        return { exitCode, output: Buffer.concat(parts).toString('utf8') };
      },
    };
  }
}
