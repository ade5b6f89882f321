/**
 * Which containers have processors of their own (cpuManagerPolicy: static), and which processors all others share. Invariants: a
 * processor is exclusive to one container at most, save that an init container's are given on to those after it; the reserved
 * ones are nobody's alone; what was given is on disk before the pod is admitted, so a kubelet that comes later knows it. With the
 * policy `none` it gives nothing. Who must be told of a changed share is the caller's business.
 */

import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import type { Container, Pod } from '../../api/core/v1.gen.ts';
import { quantityMilli } from '../../api/machinery/quantity.ts';
import type { KubeletConfiguration } from '../configuration.ts';
import type { Refusal } from '../pods/refusals.ts';
import { allContainers, isSidecar, qosOf } from '../pods/resources.ts';
import { formatCpuSet, parseCpuSet } from './cpu-set.ts';
import { type CpuTopology, takeTogether, threadsPerCore } from './cpu-topology.ts';

/** As upstream writes it, but for its checksum. */
interface State {
  readonly policyName: string;
  readonly defaultCpuSet: string;
  /** By pod uid and container. */
  readonly entries?: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

export interface CpuAssignmentsOptions {
  /** The file that keeps them. */
  readonly path: string;
  readonly topology: CpuTopology;
  readonly configuration: Pick<
    KubeletConfiguration,
    | 'cpuManagerPolicy'
    | 'cpuManagerPolicyOptions'
    | 'topologyManagerPolicy'
    | 'reservedSystemCPUs'
    | 'kubeReserved'
    | 'systemReserved'
  >;
}

const MILLI = 1000;

export class CpuAssignments {
  readonly #path: string;
  readonly #topology: CpuTopology;
  readonly isStatic: boolean;
  readonly #wantsWholeCores: boolean;
  readonly #all: ReadonlySet<number>;
  readonly #reserved: ReadonlySet<number>;
  #entries: Record<string, Record<string, string>> = {};
  /** The policy is none and was another: containers that run are to have all processors again. */
  readonly isLeaving: boolean;

  /** Throws where the machine cannot do what the configuration asks for. */
  constructor({ path, topology, configuration }: CpuAssignmentsOptions) {
    this.#path = path;
    this.#topology = topology;
    this.isStatic = configuration.cpuManagerPolicy === 'static';
    this.#wantsWholeCores = configuration.cpuManagerPolicyOptions['full-pcpus-only'] === 'true';
    this.#all = new Set(topology.cpus.map(({ id }) => id));
    this.#reserved = this.isStatic ? this.#reserve(configuration) : new Set();
    if (configuration.topologyManagerPolicy !== 'none' && topology.numaNodes > 1)
      throw new Error(
        `topologyManagerPolicy: ${configuration.topologyManagerPolicy} is followed on machines with one NUMA node only; this one has ${topology.numaNodes}`,
      );
    const before = load(path);
    this.isLeaving = !this.isStatic && before !== undefined;
    if (!this.isStatic) rmSync(path, { force: true });
    else if (before?.policyName === 'static') this.#entries = structuredClone(before.entries ?? {}) as never;
    // On a full disk a kubelet that comes back has nothing new to say.
    if (this.isStatic && before?.policyName !== 'static') this.#save();
  }

  #reserve({ reservedSystemCPUs, kubeReserved, systemReserved }: CpuAssignmentsOptions['configuration']): Set<number> {
    if (reservedSystemCPUs !== '') {
      const named = parseCpuSet(reservedSystemCPUs);
      for (const cpu of named)
        if (!this.#all.has(cpu)) throw new Error(`reservedSystemCPUs: ${reservedSystemCPUs}: there is no CPU ${cpu}`);
      return named;
    }
    const count = Math.ceil((quantityMilli(kubeReserved['cpu']) + quantityMilli(systemReserved['cpu'])) / MILLI);
    if (count === 0)
      throw new Error(
        'the static policy requires systemReserved.cpu + kubeReserved.cpu (or reservedSystemCPUs) to be greater than zero',
      );
    const taken = takeTogether(this.#topology, { free: this.#all, count });
    if (!taken) throw new Error(`not enough CPUs to reserve ${count}`);
    return taken;
  }

  /** Those of nobody alone. */
  get #sharedSet(): Set<number> {
    const exclusive = new Set(
      Object.values(this.#entries).flatMap(ofPod => Object.values(ofPod).flatMap(text => [...parseCpuSet(text)])),
    );
    return new Set([...this.#all].filter(cpu => !exclusive.has(cpu)));
  }
  /** What containers without processors of their own run on; undefined where nothing is to be said. */
  get shared(): string | undefined {
    return this.isStatic || this.isLeaving ? formatCpuSet(this.#sharedSet) : undefined;
  }
  /** Those that could be given at all. */
  get allocatable(): number[] {
    return [...this.#all].filter(cpu => !this.#reserved.has(cpu));
  }
  exclusive(podUid: string, container: string): number[] {
    const text = this.#entries[podUid]?.[container];
    return text === undefined ? [] : [...parseCpuSet(text)];
  }
  has(podUid: string): boolean {
    return this.#entries[podUid] !== undefined;
  }
  /** What a container's limits are with this: a quota would only slow down who has whole processors. */
  limits<L extends { readonly cpuQuotaMicros?: number; readonly cpuPeriodMicros?: number }>(
    limits: L,
    { podUid, container }: { readonly podUid: string; readonly container: string },
  ): L & { readonly cpus?: string } {
    if (!this.isStatic) return limits;
    const own = this.#entries[podUid]?.[container];
    if (own === undefined) return { ...limits, cpus: this.shared! };
    const { cpuQuotaMicros: _, cpuPeriodMicros: __, ...others } = limits;
    return { ...others, cpus: own } as unknown as L & { readonly cpus: string };
  }

  /** Gives the pod what its containers ask for, or says why it cannot have it; then it gets none. */
  admit(pod: Pod): Refusal | undefined {
    const uid = pod.metadata.uid!;
    if (!this.isStatic || this.has(uid)) return undefined;
    const mine: Record<string, string> = {};
    const shared = this.#sharedSet;
    const free = new Set([...shared].filter(cpu => !this.#reserved.has(cpu)));
    const reusable = new Set<number>();
    for (const container of allContainers(pod)) {
      const count = wishOf(pod, container);
      if (count === 0) continue;
      const threads = threadsPerCore(this.#topology);
      if (this.#wantsWholeCores && count % threads !== 0)
        return refusal(
          'SMTAlignmentError',
          `SMT Alignment Error: requested ${count} cpus not multiple cpus per core = ${threads}`,
        );
      const again = [...reusable].slice(0, count);
      const fresh = takeTogether(this.#topology, { free, count: count - again.length });
      if (!fresh)
        return refusal(
          'UnexpectedAdmissionError',
          `Allocate failed due to not enough cpus available to satisfy request: requested=${count}, available=${free.size}, which is unexpected`,
        );
      for (const cpu of fresh) free.delete(cpu);
      const isInit = pod.spec.initContainers?.includes(container) === true && !isSidecar(container);
      for (const cpu of [...again, ...fresh]) {
        if (isInit) reusable.add(cpu);
        else reusable.delete(cpu);
      }
      mine[container.name] = formatCpuSet([...again, ...fresh]);
    }
    if (Object.keys(mine).length === 0) return undefined;
    this.#entries = { ...this.#entries, [uid]: mine };
    this.#save();
    return undefined;
  }

  /** True when the share of the others has grown. */
  release(podUid: string): boolean {
    return this.retain(uid => uid !== podUid);
  }
  retain(isKept: (podUid: string) => boolean): boolean {
    const left = Object.entries(this.#entries).filter(([uid]) => isKept(uid));
    if (left.length === Object.keys(this.#entries).length) return false;
    this.#entries = Object.fromEntries(left);
    this.#save();
    return true;
  }

  #save(): void {
    const state: State = {
      policyName: 'static',
      defaultCpuSet: formatCpuSet(this.#sharedSet),
      entries: this.#entries,
    };
    writeFileSync(`${this.#path}.new`, JSON.stringify(state), { mode: 0o600 });
    renameSync(`${this.#path}.new`, this.#path);
  }
}

/** Whole processors that a container is to have alone: of a guaranteed pod, and asked for in whole numbers. */
function wishOf(pod: Pod, { resources }: Container): number {
  if (qosOf(pod) !== 'Guaranteed' || pod.spec.resources) return 0;
  const milli = quantityMilli(resources?.requests?.['cpu'] ?? resources?.limits?.['cpu']);
  return milli % MILLI === 0 ? milli / MILLI : 0;
}

const refusal = (reason: string, message: string): Refusal => ({ reason, message });

function load(path: string): State | undefined {
  if (!existsSync(path)) return undefined;
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as State;
  } catch (error) {
    throw new Error(`could not restore state from checkpoint ${path}: ${(error as Error).message}`);
  }
}
