/**
 * The framework: what a scheduling plugin is. A plugin looks once at the pod and the cluster and returns functions of a
 * node; undefined means that it has nothing to say about this pod. All of it is synchronous and pure.
 */

import type { Namespace, PersistentVolume, PersistentVolumeClaim } from '../api/core/v1.gen.ts';
import type { DeviceClass, ResourceClaim } from '../api/resource/v1.gen.ts';
import type { CSIDriver, CSINode, CSIStorageCapacity, StorageClass } from '../api/storage/v1.gen.ts';
import type { Inventory } from './claim-allocation.ts';
import type { NodeInfo, PodInfo } from './node-info.ts';

/** What changed in the cluster, in the terms by which plugins say what could help a pod they refused. */
export type ClusterEvent =
  | 'node-added'
  | 'node-allocatable'
  | 'node-labels'
  | 'node-taints'
  | 'node-features'
  | 'pod-removed'
  | 'pod-added'
  | 'volume'
  | 'namespace'
  | 'device'
  | 'device-class';

export interface Refusal {
  /** As in the FailedScheduling event: `Insufficient cpu`. */
  readonly reasons: readonly string[];
  /** No eviction of pods could change it. */
  readonly unresolvable: boolean;
}

/** Refuses every node at once: `persistentvolumeclaim "x" not found`. */
export interface Rejection {
  readonly rejection: string;
}

export type Filter = (node: NodeInfo) => Refusal | undefined;

export interface Scorer {
  score(node: NodeInfo): number;
  /** How raw scores become 0 to 100: scaled to the highest, the same reversed, or they are already. */
  readonly normalize: 'scale' | 'reverse' | 'none' | ((scores: number[]) => number[]);
}

/** The cluster as one scheduling attempt sees it. */
export interface Cluster {
  readonly nodes: ReadonlyMap<string, NodeInfo>;
  readonly lookup: Lookup;
}

/** Objects besides nodes and pods. */
export interface Lookup {
  namespace(name: string): Namespace | undefined;
  claim(namespace: string, name: string): PersistentVolumeClaim | undefined;
  volume(name: string): PersistentVolume | undefined;
  storageClass(name: string): StorageClass | undefined;
  /** Of a storage class, '' for none. */
  volumesOf(storageClass: string): Iterable<PersistentVolume>;
  csiDriver(name: string): CSIDriver | undefined;
  csiNode(name: string): CSINode | undefined;
  capacities(): Iterable<CSIStorageCapacity>;
  resourceClaim(namespace: string, name: string): ResourceClaim | undefined;
  /** Which serves an extended resource. */
  deviceClassFor(resource: string): DeviceClass | undefined;
  /** The claim that was made for the pod's extended resources, in an attempt that failed. */
  leftoverClaim(podUid: string): ResourceClaim | undefined;
  readonly devices: Inventory;
}

export interface Plugin {
  readonly name: string;
  /** Weight of its scores; 0 when it does not score. */
  readonly weight: number;
  /** What may make a pod schedulable that this plugin refused. */
  readonly wakesOn: readonly ClusterEvent[];
  filter?(pod: PodInfo, cluster: Cluster): Filter | Rejection | undefined;
  score?(pod: PodInfo, cluster: Cluster, feasible: readonly NodeInfo[]): Scorer | undefined;
}

export const refuse = (reason: string): Refusal => ({ reasons: [reason], unresolvable: false });
export const refuseForGood = (reason: string): Refusal => ({ reasons: [reason], unresolvable: true });

export const SCORE_MAX = 100;
