/** The kubelet as its HTTPS server sees it: pods by name, their containers, and usage. Errors are those of upstream's kubelet. */

import { existsSync } from 'node:fs';
import type { Pod } from '../api/core/v1.gen.ts';
import { badRequest, failure, notFound } from '../base/errors.ts';
import type { CgroupTree } from '../sys/cgroup.ts';
import type { PodWorkers } from './pods/pod-workers.ts';
import { everyContainer } from './pods/resources.ts';
import { latestOf } from './pods/status.ts';
import type { ContainerState, Runtime, SandboxState } from './runtime.ts';
import type { ContainerTarget, KubeletBackend } from './server/backend.ts';
import { noLogYet } from './server/log-request.ts';
import { cadvisorMetrics, resourceMetrics } from './stats/metrics-text.ts';
import type { NodeStats } from './stats/node-stats.ts';
import { summaryOf } from './stats/summary.ts';

export interface PodBackendOptions {
  readonly runtime: Runtime;
  readonly workers: PodWorkers;
  readonly stats: NodeStats;
  readonly cgroups: CgroupTree;
  /** As a KubeletConfiguration. */
  readonly configuration: object;
}

const DEFAULT_CONTAINER = 'kubectl.kubernetes.io/default-container';

export class PodBackend implements KubeletBackend {
  readonly #options: PodBackendOptions;
  constructor(options: PodBackendOptions) {
    this.#options = options;
  }
  get runtime(): Runtime {
    return this.#options.runtime;
  }
  pods(): readonly Pod[] {
    return this.#options.workers.pods();
  }
  #pod(namespace: string, name: string): Pod {
    const worker = this.#options.workers.find(`${namespace}/${name}`);
    if (!worker) throw notFound({ group: '', resource: 'pods' }, name);
    return worker.pod;
  }

  async resolveContainer(
    namespace: string,
    name: string,
    container: string | undefined,
    purpose: 'exec' | 'attach' | 'logs',
  ): Promise<ContainerTarget> {
    const pod = this.#pod(namespace, name);
    const specs = everyContainer(pod);
    const chosen =
      container ||
      pod.metadata.annotations?.[DEFAULT_CONTAINER] ||
      (pod.spec.containers.length === 1 ? pod.spec.containers[0]!.name : undefined);
    if (!chosen)
      throw badRequest(
        `a container name must be specified for pod ${name}, choose one of: [${pod.spec.containers.map(one => one.name).join(' ')}]`,
      );
    const spec = specs.find(one => one.name === chosen);
    if (!spec) throw badRequest(`container ${chosen} is not valid for pod ${name}`);
    const states = (await this.#states(pod.metadata.uid!)).filter(one => one.name === chosen);
    const latest = latestOf(states, chosen);
    if (purpose === 'logs' && !latest) {
      const waiting = [
        ...(pod.status?.containerStatuses ?? []),
        ...(pod.status?.initContainerStatuses ?? []),
        ...(pod.status?.ephemeralContainerStatuses ?? []),
      ].find(one => one.name === chosen)?.state?.waiting;
      throw noLogYet(chosen, name, waiting?.reason || 'ContainerCreating');
    }
    const before = states.filter(one => one !== latest).sort((a, b) => b.attempt - a.attempt)[0];
    return {
      pod,
      containerName: chosen,
      id: latest?.id,
      state: latest?.state ?? 'waiting',
      tty: spec.tty ?? false,
      stdin: spec.stdin ?? false,
      logPath: (attempt = 'current') => {
        const path = (attempt === 'previous' ? before : latest)?.logPath;
        return path && existsSync(path) ? path : undefined;
      },
    };
  }
  async #states(podUid: string): Promise<readonly ContainerState[]> {
    return (await this.#options.runtime.snapshot(podUid)).containers;
  }

  async sandboxOf(namespace: string, name: string): Promise<SandboxState> {
    const pod = this.#pod(namespace, name);
    const { sandboxes } = await this.#options.runtime.snapshot(pod.metadata.uid);
    const sandbox = sandboxes.filter(one => one.ready).sort((a, b) => b.attempt - a.attempt)[0];
    if (!sandbox) throw failure(404, 'NotFound', `sandbox of pod "${name}" not found`);
    return sandbox;
  }

  async summary(): Promise<object> {
    return summaryOf(await this.#options.stats.measure());
  }
  async resourceMetrics(): Promise<string> {
    return resourceMetrics(await this.#options.stats.measure());
  }
  async cadvisorMetrics(): Promise<string> {
    return cadvisorMetrics(await this.#options.stats.measure(), this.#options.cgroups);
  }
  configz(): object {
    return { kubeletconfig: this.#options.configuration };
  }
}
