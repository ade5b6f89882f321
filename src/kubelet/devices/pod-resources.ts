/**
 * The pod resources API (KEP 606, KEP 2403): monitoring agents ask at `pod-resources/kubelet.sock` which container has which devices,
 * processors, memory and claimed devices. Invariant: it tells what the pods on the node hold now, and changes nothing.
 */

import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Container, Pod } from '../../api/core/v1.gen.ts';
import { GRPC, GrpcError, serveGrpc } from '../../csi/grpc.ts';
import type { CpuAssignments } from '../cpus/cpu-assignments.ts';
import type { MemoryAssignments } from '../cpus/memory-assignments.ts';
import { isSidecar } from '../pods/resources.ts';
import type { DeviceAllocations } from './device-allocations.ts';
import type { DevicePlugins } from './device-plugins.ts';
import type { PodClaims } from './pod-claims.ts';
import { POD_RESOURCES_CALLS } from './pod-resources-messages.ts';

export interface PodResourcesOptions {
  readonly rootDir: string;
  /** Those that hold something of the node. */
  pods(): readonly Pod[];
  readonly devices: DeviceAllocations;
  readonly plugins: DevicePlugins;
  readonly claims: PodClaims;
  readonly cpus: CpuAssignments;
  readonly memory: MemoryAssignments;
}

export class PodResources {
  readonly #options: PodResourcesOptions;
  constructor(options: PodResourcesOptions) {
    this.#options = options;
  }

  async run(signal: AbortSignal): Promise<void> {
    const folder = join(this.#options.rootDir, 'pod-resources');
    mkdirSync(folder, { recursive: true, mode: 0o750 });
    const socket = join(folder, 'kubelet.sock');
    const { plugins, cpus, memory } = this.#options;
    const server = await serveGrpc<typeof POD_RESOURCES_CALLS>(
      socket,
      {
        list: () => ({ podResources: this.#options.pods().map(pod => this.#ofPod(pod)) }),
        getAllocatableResources: () => ({
          devices: plugins.names.map(resourceName => ({ resourceName, deviceIds: plugins.healthy(resourceName) })),
          cpuIds: cpus.allocatable,
          memory: memory.allocatable.map(told),
        }),
        get: ({ podName, podNamespace }) => {
          const pod = this.#options
            .pods()
            .find(({ metadata }) => metadata.name === podName && metadata.namespace === podNamespace);
          if (!pod) throw new GrpcError(GRPC.NOT_FOUND, `pod ${podName} in namespace ${podNamespace} not found`);
          return { podResources: this.#ofPod(pod) };
        },
      },
      POD_RESOURCES_CALLS,
    );
    chmodSync(socket, 0o660);
    await new Promise<void>(resolve => {
      if (signal.aborted) resolve();
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
    await server.close();
  }

  #ofPod(pod: Pod) {
    const { name, namespace = '' } = pod.metadata;
    const lasting = (pod.spec.initContainers ?? []).filter(isSidecar);
    return {
      name,
      namespace,
      containers: [...lasting, ...pod.spec.containers].map(one => this.#ofContainer(pod, one)),
    };
  }
  #ofContainer(pod: Pod, container: Container) {
    const { devices, cpus, memory, claims } = this.#options;
    const uid = pod.metadata.uid!;
    return {
      name: container.name,
      devices: devices
        .ofContainer(uid, container.name)
        .map(({ resource, ids }) => ({ resourceName: resource, deviceIds: ids })),
      cpuIds: cpus.exclusive(uid, container.name),
      memory: memory.ofContainer(uid, container.name).map(told),
      dynamicResources: claims.ofContainer(uid, container).map(({ name, namespace, devices: claimed }) => ({
        claimName: name,
        claimNamespace: namespace,
        claimResources: claimed.map(({ cdi, driver = '', pool = '', device = '' }) => ({
          cdiDevices: cdi.map(one => ({ name: one })),
          driverName: driver,
          poolName: pool,
          deviceName: device,
        })),
      })),
    };
  }
}

const told = ({ type, bytes, node }: MemoryAssignments['allocatable'][number]) => ({
  memoryType: type,
  size: bytes,
  topology: { nodes: [{ id: node }] },
});
