/**
 * A node as the scheduler reckons with it: the node, the pods on it (bound or assumed) and the sums over them, kept up to
 * date pod by pod. Refuses nothing: whether a pod fits is the plugins' question.
 */

import type { ContainerPort, Node, Pod } from '../api/core/v1.gen.ts';
import { podRequests, type ResourceAmounts, resourceAmounts } from '../api/machinery/pod.ts';
import { controllerOf } from '../api/meta.ts';

/** What a container that asks for nothing is taken to use, for scoring only (upstream's non-zero requests). */
const DEFAULT_MILLI_CPU = 100;
const DEFAULT_MEMORY_BYTES = 200 * 1024 * 1024;

/** Everything about a pod that is needed again and again, worked out once. */
export interface PodInfo {
  readonly pod: Pod;
  readonly requests: ResourceAmounts;
  /** Requests for scoring: CPU in thousandths, memory in bytes. */
  readonly assumedCpu: number;
  readonly assumedMemory: number;
  readonly hostPorts: readonly HostPort[];
  readonly priority: number;
  readonly controllerUid: string | undefined;
  readonly hasAffinity: boolean;
}

export interface HostPort {
  readonly ip: string;
  readonly protocol: string;
  readonly port: number;
}

const infos = new WeakMap<Pod, PodInfo>();

export function podInfo(pod: Pod): PodInfo {
  let info = infos.get(pod);
  if (!info) infos.set(pod, (info = makeInfo(pod)));
  return info;
}

function makeInfo(pod: Pod): PodInfo {
  const spec = pod.spec ?? { containers: [] };
  const requests = podRequests(spec);
  let missingCpu = 0;
  let missingMemory = 0;
  for (const { resources } of spec.containers) {
    if (resources?.requests?.['cpu'] === undefined) missingCpu += DEFAULT_MILLI_CPU;
    if (resources?.requests?.['memory'] === undefined) missingMemory += DEFAULT_MEMORY_BYTES;
  }
  return {
    pod,
    requests,
    assumedCpu: (requests['cpu'] ?? 0) + missingCpu,
    assumedMemory: (requests['memory'] ?? 0) + missingMemory,
    hostPorts: hostPortsOf(pod),
    priority: spec.priority ?? 0,
    controllerUid: controllerOf(pod)?.uid,
    hasAffinity: spec.affinity?.podAffinity !== undefined || spec.affinity?.podAntiAffinity !== undefined,
  };
}

function hostPortsOf(pod: Pod): HostPort[] {
  const ports: HostPort[] = [];
  const add = ({ hostPort, hostIP, protocol, containerPort }: ContainerPort) => {
    const port = hostPort || (pod.spec?.hostNetwork ? containerPort : 0);
    if (port) ports.push({ ip: hostIP || '0.0.0.0', protocol: protocol ?? 'TCP', port });
  };
  for (const container of pod.spec?.containers ?? []) container.ports?.forEach(add);
  for (const container of pod.spec?.initContainers ?? [])
    if (container.restartPolicy === 'Always') container.ports?.forEach(add);
  return ports;
}

export class NodeInfo {
  node: Node;
  allocatable: ResourceAmounts;
  readonly pods = new Map<string, PodInfo>();
  readonly requested: ResourceAmounts = {};
  assumedCpu = 0;
  assumedMemory = 0;
  /** Pods whose affinity or anti-affinity concerns other pods. */
  readonly withAffinity = new Set<PodInfo>();
  /** Pods a controller has here. */
  readonly byController = new Map<string, number>();
  readonly #images = new Map<string, number>();

  constructor(node: Node) {
    this.node = node;
    this.allocatable = {};
    this.setNode(node);
  }
  get name(): string {
    return this.node.metadata.name;
  }
  get labels(): Readonly<Record<string, string>> {
    return this.node.metadata.labels ?? {};
  }
  setNode(node: Node): void {
    this.node = node;
    this.allocatable = resourceAmounts(node.status?.allocatable ?? node.status?.capacity);
    this.#images.clear();
    for (const { names, sizeBytes } of node.status?.images ?? [])
      for (const name of names ?? []) this.#images.set(name, sizeBytes ?? 0);
  }
  /** Bytes of an image that the node has; 0 when it does not. */
  imageBytes(name: string): number {
    return this.#images.get(name) ?? 0;
  }
  add(info: PodInfo): void {
    const uid = info.pod.metadata.uid!;
    if (this.pods.has(uid)) this.remove(uid);
    this.pods.set(uid, info);
    this.#account(info, 1);
    if (info.hasAffinity) this.withAffinity.add(info);
  }
  remove(uid: string): void {
    const info = this.pods.get(uid);
    if (!info) return;
    this.pods.delete(uid);
    this.#account(info, -1);
    this.withAffinity.delete(info);
  }
  #account(info: PodInfo, sign: 1 | -1): void {
    for (const name in info.requests) this.requested[name] = (this.requested[name] ?? 0) + sign * info.requests[name]!;
    this.assumedCpu += sign * info.assumedCpu;
    this.assumedMemory += sign * info.assumedMemory;
    if (info.controllerUid)
      this.byController.set(info.controllerUid, (this.byController.get(info.controllerUid) ?? 0) + sign);
  }
  /** A copy that may be changed to ask "what if". */
  clone(): NodeInfo {
    const copy = new NodeInfo(this.node);
    for (const info of this.pods.values()) copy.add(info);
    return copy;
  }
}
