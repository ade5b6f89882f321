/** What every pod worker of a node shares. */

import type { Pod, Service } from '../../api/core/v1.gen.ts';
import type { Clock } from '../../base/clock.ts';
import type { Logger } from '../../base/log.ts';
import type { Random } from '../../base/random.ts';
import type { Tracer } from '../../base/tracing/span.ts';
import type { EventRecorder } from '../../client/event-recorder.ts';
import type { Transport } from '../../client/transport.ts';
import type { CgroupTree } from '../../sys/cgroup.ts';
import type { HugePages } from '../../sys/huge-pages.ts';
import type { KubeletConfiguration } from '../configuration.ts';
import type { CpuAssignments } from '../cpus/cpu-assignments.ts';
import type { MemoryAssignments } from '../cpus/memory-assignments.ts';
import type { DeviceAllocations } from '../devices/device-allocations.ts';
import type { PodClaims } from '../devices/pod-claims.ts';
import type { ImageStore } from '../images/image-store.ts';
import type { NodeImages } from '../images/node-images.ts';
import type { References } from '../references.ts';
import type { PodNetwork, Runtime } from '../runtime.ts';
import type { VolumeNode } from '../volumes/volume-node.ts';
import type { DeadContainerPolicy } from './dead-containers.ts';
import type { PodPaths } from './files.ts';
import type { NodeLimits, Refusal } from './refusals.ts';
import type { StartGate } from './start-gate.ts';
import type { StatusWriter } from './status-writer.ts';
import type { TokenSource } from './tokens.ts';
import type { UserIds } from './user-ids.ts';

export interface PodContext {
  readonly nodeName: string;
  readonly nodeIps: readonly string[];
  readonly clusterDns: readonly string[];
  readonly clusterDomain: string;
  readonly cgroupRoot: string;
  readonly runtime: Runtime;
  readonly images: ImageStore;
  readonly nodeImages: NodeImages;
  readonly network: PodNetwork;
  readonly cgroups: CgroupTree;
  readonly references: References;
  readonly tokens: TokenSource;
  readonly transport: Transport;
  /** Without one nothing is traced. */
  readonly tracer?: Tracer | undefined;
  readonly events: EventRecorder;
  readonly statuses: StatusWriter;
  readonly starts: StartGate;
  readonly paths: PodPaths;
  readonly userIds: UserIds;
  readonly volumes: VolumeNode;
  readonly devices: DeviceAllocations;
  readonly cpus: CpuAssignments;
  readonly memory: MemoryAssignments;
  readonly claims: PodClaims;
  readonly node: NodeLimits;
  /** Sizes of huge pages that control groups here can limit. */
  readonly hugePages: readonly HugePages[];
  readonly configuration: KubeletConfiguration;
  readonly deadContainers: DeadContainerPolicy;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  services(): Iterable<Service>;
  /** Opens and closes host ports as the pods' sandboxes want them. */
  publishPorts(): Promise<void>;
  /** Gives all containers that have no processors of their own those that are left. */
  shareCpus(): Promise<void>;
  /** Why the node, short of something, does not take the pod now. */
  pressureRefusal(pod: Pod): Refusal | undefined;
  /** Pods of this node that take up resources, without the given one. */
  otherPods(uid: string): readonly Pod[];
}
