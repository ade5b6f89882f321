/**
 * Memory of one's own (memoryManagerPolicy: Static): containers of guaranteed pods are held to the memory of a NUMA node, which counts what
 * it has given. On a machine with one node that node is it; with more the kubelet refuses to start. Invariants: what was given is on disk
 * before the pod is admitted; never more than the node has beside what is reserved. With the policy `None` it gives nothing.
 */

import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import type { Container, Pod } from '../../api/core/v1.gen.ts';
import { quantityValue } from '../../api/machinery/quantity.ts';
import type { KubeletConfiguration } from '../configuration.ts';
import { thresholdOf } from '../node/machine.ts';
import type { Refusal } from '../pods/refusals.ts';
import { allContainers, isSidecar, qosOf } from '../pods/resources.ts';

const NODE = 0;
const MEMORY = 'memory';

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
  readonly configuration: Pick<
    KubeletConfiguration,
    'memoryManagerPolicy' | 'reservedMemory' | 'kubeReserved' | 'systemReserved' | 'evictionHard'
  >;
}

export class MemoryAssignments {
  readonly #path: string;
  readonly #isStatic: boolean;
  readonly #capacityBytes: number;
  readonly #reservedBytes: number;
  #entries: Entries = {};

  /** Throws where the machine cannot do what the configuration asks for. */
  constructor({ path, numaNodes, capacityBytes, configuration }: MemoryAssignmentsOptions) {
    this.#path = path;
    this.#isStatic = configuration.memoryManagerPolicy === 'Static';
    this.#capacityBytes = capacityBytes;
    this.#reservedBytes = this.#isStatic ? reservedBytes(configuration, { numaNodes, capacityBytes }) : 0;
    const before = load(path);
    if (!this.#isStatic) rmSync(path, { force: true });
    else if (before?.policyName === 'Static') this.#entries = before.entries ?? {};
    if (this.#isStatic && before?.policyName !== 'Static') this.#save();
  }

  /** What could be given at all. */
  get allocatable(): readonly { readonly type: string; readonly bytes: number; readonly node: number }[] {
    return this.#isStatic ? [{ type: MEMORY, bytes: this.#capacityBytes - this.#reservedBytes, node: NODE }] : [];
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
    if (!this.#isStatic || this.has(uid) || qosOf(pod) !== 'Guaranteed' || pod.spec.resources) return undefined;
    const mine: Record<string, number> = {};
    const initial: string[] = [];
    for (const container of allContainers(pod)) {
      const size = wishOf(container);
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
    const given = Object.values(mine).reduce((sum, size) => sum + size, 0);
    if (Object.keys(mine).length === 0) return undefined;
    if (given > this.#freeBytes)
      return {
        reason: 'UnexpectedAdmissionError',
        message:
          'Pod was rejected: Allocate failed due to [memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available, which is unexpected',
      };
    const blocks = Object.entries(mine).map(([name, size]) => [name, [{ numaAffinity: [NODE], type: MEMORY, size }]]);
    this.#entries = { ...this.#entries, [uid]: Object.fromEntries(blocks) };
    this.#save();
    return undefined;
  }

  retain(isKept: (podUid: string) => boolean): void {
    const left = Object.entries(this.#entries).filter(([uid]) => isKept(uid));
    if (left.length === Object.keys(this.#entries).length) return;
    this.#entries = Object.fromEntries(left);
    this.#save();
  }

  get #givenBytes(): number {
    const blocks = Object.values(this.#entries).flatMap(ofPod => Object.values(ofPod).flat());
    return blocks.reduce((sum, { size }) => sum + size, 0);
  }
  get #freeBytes(): number {
    return this.#capacityBytes - this.#reservedBytes - this.#givenBytes;
  }

  #save(): void {
    const [given, free] = [this.#givenBytes, this.#freeBytes];
    const state = {
      policyName: 'Static',
      machineState: {
        [NODE]: {
          numberOfAssignments: Object.values(this.#entries).flatMap(ofPod => Object.values(ofPod).flat()).length,
          memoryMap: {
            [MEMORY]: {
              total: this.#capacityBytes,
              systemReserved: this.#reservedBytes,
              allocatable: this.#capacityBytes - this.#reservedBytes,
              reserved: given,
              free,
            },
          },
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

function wishOf({ resources }: Container): number {
  return quantityValue(resources?.requests?.[MEMORY] ?? resources?.limits?.[MEMORY] ?? '0');
}

function load(path: string): { readonly policyName: string; readonly entries?: Entries } | undefined {
  if (!existsSync(path)) return undefined;
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as { policyName: string };
  } catch (error) {
    throw new Error(`could not restore state from checkpoint ${path}: ${(error as Error).message}`);
  }
}
