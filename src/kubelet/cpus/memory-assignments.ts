/**
 * Memory of one's own (memoryManagerPolicy: Static): containers of guaranteed pods are held to the memory of a NUMA node, which counts what
 * it has given, of plain memory and of each size of huge pages. On a machine with one node that node is it; with more the kubelet refuses
 * to start. Invariants: what was given is on disk before the pod is admitted; never more than the node has beside what is reserved. With the
 * policy `None` it gives nothing.
 */

import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import type { Container, Pod } from '../../api/core/v1.gen.ts';
import { quantityValue } from '../../api/machinery/quantity.ts';
import type { KubeletConfiguration } from '../configuration.ts';
import { thresholdOf } from '../node/machine.ts';
import type { Refusal } from '../pods/refusals.ts';
import { allContainers, hugePageNames, isSidecar, qosOf } from '../pods/resources.ts';

const NODE = 0;
const MEMORY = 'memory';

/** One sort of memory: what there is, what is reserved of it, and what can be given. */
interface Pool {
  readonly type: string;
  readonly total: number;
  readonly reserved: number;
  readonly allocatable: number;
}
interface Block {
  readonly numaAffinity: readonly number[];
  readonly type: string;
  readonly size: number;
}
/** By pod uid and container. */
type Entries = Readonly<Record<string, Readonly<Record<string, readonly Block[]>>>>;

export interface MemoryAssignmentsOptions {
  /** The file that keeps them, in upstream's form but for its checksum. */
  readonly path: string;
  readonly numaNodes: number;
  readonly capacityBytes: number;
  /** What of it is in huge pages, by the name of the resource. */
  readonly hugePages: Readonly<Record<string, number>>;
  readonly configuration: Pick<
    KubeletConfiguration,
    'memoryManagerPolicy' | 'reservedMemory' | 'kubeReserved' | 'systemReserved' | 'evictionHard'
  >;
}

export class MemoryAssignments {
  readonly #path: string;
  readonly isStatic: boolean;
  readonly #pools: readonly Pool[];
  #entries: Entries = {};

  /** Throws where the machine cannot do what the configuration asks for. */
  constructor({ path, numaNodes, capacityBytes, hugePages, configuration }: MemoryAssignmentsOptions) {
    this.#path = path;
    this.isStatic = configuration.memoryManagerPolicy === 'Static';
    const reserved = this.isStatic ? reservedBytes(configuration, { numaNodes, capacityBytes }) : 0;
    const hugeBytes = Object.values(hugePages).reduce((sum, bytes) => sum + bytes, 0);
    this.#pools = [
      { type: MEMORY, total: capacityBytes, reserved, allocatable: Math.max(0, capacityBytes - reserved - hugeBytes) },
      ...Object.entries(hugePages).map(([type, total]) => ({ type, total, reserved: 0, allocatable: total })),
    ];
    const before = load(path);
    if (!this.isStatic) rmSync(path, { force: true });
    else if (before?.policyName === 'Static') this.#entries = before.entries ?? {};
    if (this.isStatic && before?.policyName !== 'Static') this.#save();
  }

  /** What could be given at all. */
  get allocatable(): readonly { readonly type: string; readonly bytes: number; readonly node: number }[] {
    if (!this.isStatic) return [];
    return this.#pools.flatMap(({ type, allocatable: bytes }) => (bytes > 0 ? [{ type, bytes, node: NODE }] : []));
  }
  ofContainer(
    podUid: string,
    container: string,
  ): readonly { readonly type: string; readonly bytes: number; readonly node: number }[] {
    const blocks = this.#entries[podUid]?.[container] ?? [];
    return blocks.map(({ type, size, numaAffinity }) => ({ type, bytes: size, node: numaAffinity[0] ?? NODE }));
  }
  has(podUid: string): boolean {
    return this.#entries[podUid] !== undefined;
  }
  /** A container's limits with the nodes whose memory it may use. */
  limits<L extends object>(
    limits: L,
    { podUid, container }: { readonly podUid: string; readonly container: string },
  ): L & { readonly memoryNodes?: string } {
    return this.#entries[podUid]?.[container] ? { ...limits, memoryNodes: String(NODE) } : limits;
  }

  /** Gives the pod what its containers ask for, or says why it cannot have it; then it gets none. */
  admit(pod: Pod): Refusal | undefined {
    const uid = pod.metadata.uid!;
    if (!this.isStatic || this.has(uid) || qosOf(pod) !== 'Guaranteed' || pod.spec.resources) return undefined;
    const blocks: (Block & { readonly container: string })[] = [];
    for (const type of [MEMORY, ...hugePageNames(pod)]) {
      const mine = sharesOf(pod, type);
      const given = Object.values(mine).reduce((sum, size) => sum + size, 0);
      if (given > this.#freeBytes(type))
        return {
          reason: 'UnexpectedAdmissionError',
          message:
            'Allocate failed due to [memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available, which is unexpected',
        };
      for (const [container, size] of Object.entries(mine))
        blocks.push({ container, numaAffinity: [NODE], type, size });
    }
    if (blocks.length === 0) return undefined;
    const ofPod: Record<string, Block[]> = {};
    for (const { container, ...block } of blocks) (ofPod[container] ??= []).push(block);
    this.#entries = { ...this.#entries, [uid]: ofPod };
    this.#save();
    return undefined;
  }

  retain(isKept: (podUid: string) => boolean): void {
    const left = Object.entries(this.#entries).filter(([uid]) => isKept(uid));
    if (left.length === Object.keys(this.#entries).length) return;
    this.#entries = Object.fromEntries(left);
    this.#save();
  }

  #givenBytes(type: string): number {
    const blocks = Object.values(this.#entries).flatMap(ofPod => Object.values(ofPod).flat());
    return blocks.reduce((sum, block) => (block.type === type ? sum + block.size : sum), 0);
  }
  #freeBytes(type: string): number {
    return (this.#pools.find(pool => pool.type === type)?.allocatable ?? 0) - this.#givenBytes(type);
  }

  #save(): void {
    const memoryMap = this.#pools.map(({ type, total, reserved: systemReserved, allocatable }) => [
      type,
      { total, systemReserved, allocatable, reserved: this.#givenBytes(type), free: this.#freeBytes(type) },
    ]);
    const state = {
      policyName: 'Static',
      machineState: {
        [NODE]: {
          numberOfAssignments: Object.values(this.#entries).flatMap(ofPod => Object.values(ofPod).flat()).length,
          memoryMap: Object.fromEntries(memoryMap),
          cells: [NODE],
        },
      },
      entries: this.#entries,
    };
    writeFileSync(`${this.#path}.new`, JSON.stringify(state), { mode: 0o600 });
    renameSync(`${this.#path}.new`, this.#path);
  }
}

/** What is reserved of the node's memory must be what the reservations of the whole machine say, as upstream asks. */
function reservedBytes(
  { reservedMemory, kubeReserved, systemReserved, evictionHard }: MemoryAssignmentsOptions['configuration'],
  { numaNodes, capacityBytes }: { readonly numaNodes: number; readonly capacityBytes: number },
): number {
  if (numaNodes > 1)
    throw new Error(
      `memoryManagerPolicy: Static is followed on machines with one NUMA node only; this one has ${numaNodes}`,
    );
  const strange = reservedMemory.find(({ numaNode }) => numaNode !== NODE);
  if (strange)
    throw new Error(
      `the reserved memory configuration references a NUMA node ${strange.numaNode} that does not exist on this machine`,
    );
  const named = reservedMemory.reduce((sum, { limits }) => sum + quantityValue(limits[MEMORY] ?? '0'), 0);
  const wanted =
    quantityValue(kubeReserved[MEMORY]) +
    quantityValue(systemReserved[MEMORY]) +
    thresholdOf(evictionHard['memory.available'], capacityBytes);
  if (named !== wanted)
    throw new Error(
      `the total amount "${named}" of type "${MEMORY}" is not equal to the value "${wanted}" determined by Node Allocatable feature`,
    );
  return named;
}

function wishOf({ resources }: Container, type: string): number {
  return quantityValue(resources?.requests?.[type] ?? resources?.limits?.[type] ?? '0');
}

/** By container: what each needs beside what init containers before it have given on. */
function sharesOf(pod: Pod, type: string): Record<string, number> {
  const mine: Record<string, number> = {};
  const initial: string[] = [];
  for (const container of allContainers(pod)) {
    const size = wishOf(container, type);
    if (size === 0) continue;
    // Init containers are over before the next one begins: theirs is given on, and not counted twice.
    let left = size;
    for (const name of initial) {
      const again = Math.min(left, mine[name]!);
      mine[name]! -= again;
      left -= again;
    }
    mine[container.name] = size;
    if (pod.spec.initContainers?.includes(container) && !isSidecar(container)) initial.push(container.name);
  }
  return mine;
}

function load(path: string): { readonly policyName: string; readonly entries?: Entries } | undefined {
  if (!existsSync(path)) return undefined;
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as { policyName: string };
  } catch (error) {
    throw new Error(`could not restore state from checkpoint ${path}: ${(error as Error).message}`);
  }
}
