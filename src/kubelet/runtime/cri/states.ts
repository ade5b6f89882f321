/**
 * What a container runtime says of its sandboxes and containers, as the kubelet reads it. The lists are asked each time; what they leave
 * out is asked once for each state that a sandbox or container enters, for within a state it does not change. Invariant: only what
 * this kubelet made is seen, known by its annotation.
 */

import { readFileSync } from 'node:fs';
import { GRPC, type GrpcClient, GrpcError } from '../../../csi/grpc.ts';
import type { ContainerState, RuntimeState, SandboxConfig, SandboxState } from '../../runtime.ts';
import { CONTAINER_STATES, type CRI_CALLS, SANDBOX_READY } from './messages.ts';
import { keptContainer, keptSandbox, UID_LABEL } from './translation.ts';

type Client = GrpcClient<typeof CRI_CALLS>;

/** Reasons that say no more than the exit code does. */
const PLAIN_REASONS = new Set(['', 'Completed', 'Error', 'OOMKilled']);
const EXIT_CODE_UNKNOWN = 137;

interface Known<T> {
  readonly state: number;
  readonly value: T;
}

/** Of the runtime's own words about a container, in JSON (containerd and CRI-O alike). */
interface ContainerInfo {
  readonly pid?: number;
  readonly runtimeSpec?: {
    readonly process?: { readonly user?: { uid?: number; gid?: number; additionalGids?: readonly number[] } };
    readonly linux?: { readonly namespaces?: readonly { readonly type: string; readonly path?: string }[] };
  };
}

export class CriStates {
  readonly #client: Client;
  readonly #name: string;
  readonly #sandboxes = new Map<string, Known<SandboxState>>();
  readonly #containers = new Map<string, Known<ContainerState>>();

  constructor(client: Client, name: string) {
    this.#client = client;
    this.#name = name;
  }

  async snapshot(podUid?: string): Promise<RuntimeState> {
    const filter = podUid === undefined ? {} : { filter: { labelSelector: { [UID_LABEL]: podUid } } };
    const [{ items }, { containers }] = await Promise.all([
      this.#client.call('listPodSandbox', filter),
      this.#client.call('listContainers', filter),
    ]);
    if (podUid === undefined) {
      forgetOthers(this.#sandboxes, items);
      forgetOthers(this.#containers, containers);
    }
    const states = await Promise.all([
      Promise.all(items.filter(one => keptSandbox(one.annotations)).map(one => this.#sandbox(one as Listed))),
      Promise.all(containers.filter(one => keptContainer(one.annotations)).map(one => this.#container(one as Listed))),
    ]);
    return { sandboxes: states[0].filter(isThere), containers: states[1].filter(isThere) };
  }

  async container(id: string): Promise<ContainerState | undefined> {
    const { containers } = await this.#client.call('listContainers', { filter: { id } });
    const [listed] = containers.filter(one => keptContainer(one.annotations));
    return listed && this.#container(listed as Listed);
  }
  async sandboxConfig(id: string): Promise<SandboxConfig | undefined> {
    const { items } = await this.#client.call('listPodSandbox', { filter: { id } });
    return keptSandbox(items[0]?.annotations);
  }

  async #sandbox({ id, state, createdMs, annotations }: Listed): Promise<SandboxState | undefined> {
    const known = this.#sandboxes.get(id);
    if (known?.state === state) return known.value;
    const config = keptSandbox(annotations)!;
    const reply = await gone(this.#client.call('podSandboxStatus', { podSandboxId: id, verbose: true }));
    if (!reply) return undefined;
    const { network } = reply.status ?? {};
    const info = infoOf(reply.info);
    const value: SandboxState = {
      id,
      podUid: config.podUid,
      namespace: config.namespace,
      name: config.name,
      attempt: config.attempt,
      ready: state === SANDBOX_READY,
      createdMs,
      ips: config.hostNetwork
        ? []
        : [network?.ip, ...(network?.additionalIps ?? []).map(({ ip }) => ip)]
            .filter(ip => ip !== undefined && ip !== '')
            .map(String),
      netnsPath: config.hostNetwork
        ? undefined
        : info.runtimeSpec?.linux?.namespaces?.find(({ type }) => type === 'network')?.path,
    };
    this.#sandboxes.set(id, { state, value });
    return value;
  }

  async #container(listed: Listed): Promise<ContainerState | undefined> {
    const known = this.#containers.get(listed.id);
    if (known?.state === listed.state) return known.value;
    return this.#ask(listed);
  }

  async #ask({ id, podSandboxId }: Listed): Promise<ContainerState | undefined> {
    const reply = await gone(this.#client.call('containerStatus', { containerId: id, verbose: true }));
    const status = reply?.status;
    const kept = keptContainer(status?.annotations);
    if (!reply || !status || !kept) return undefined;
    const info = infoOf(reply.info);
    const name = CONTAINER_STATES[status.state ?? 0] ?? 'unknown';
    const isLost = name === 'unknown';
    const state = isLost ? 'exited' : name;
    const user = info.runtimeSpec?.process?.user;
    const before = this.#containers.get(id)?.value;
    const layerPath = (state === 'running' && info.pid ? upperOf(info.pid) : undefined) ?? before?.layerPath;
    const { reason = '', message = '' } = status;
    const value: ContainerState = {
      id,
      runtime: this.#name,
      sandboxId: podSandboxId ?? '',
      podUid: kept.podUid,
      name: status.metadata?.name ?? '',
      attempt: status.metadata?.attempt ?? 0,
      imageRef: kept.imageRef,
      imageId: kept.imageId,
      state,
      createdMs: status.createdMs ?? 0,
      startedMs: status.startedMs || undefined,
      finishedMs: state === 'exited' ? status.finishedMs || status.createdMs : undefined,
      exitCode: state === 'exited' ? (isLost ? EXIT_CODE_UNKNOWN : (status.exitCode ?? 0)) : undefined,
      signal: undefined,
      oomKilled: reason === 'OOMKilled',
      pid: state === 'running' ? info.pid : undefined,
      logPath: kept.logPath,
      ...(layerPath ? { layerPath } : {}),
      ...(isLost ? { reason: 'ContainerStatusUnknown' } : PLAIN_REASONS.has(reason) ? {} : { reason }),
      ...(message ? { message } : {}),
      ...(user ? { user: { uid: user.uid ?? 0, gid: user.gid ?? 0, additionalGids: user.additionalGids ?? [] } } : {}),
      labels: kept.labels,
    };
    this.#containers.set(id, { state: status.state ?? 0, value });
    return value;
  }
}

interface Listed {
  readonly id: string;
  readonly podSandboxId?: string;
  readonly state: number;
  readonly createdMs: number;
  readonly annotations: Readonly<Record<string, string>>;
}

function forgetOthers(known: Map<string, unknown>, listed: readonly { readonly id?: string }[]): void {
  const ids = new Set(listed.map(({ id }) => id));
  for (const id of known.keys()) if (!ids.has(id)) known.delete(id);
}

const isThere = <T>(value: T | undefined): value is T => value !== undefined;

function infoOf(info: Readonly<Record<string, string>>): ContainerInfo {
  try {
    return JSON.parse(info['info'] ?? '{}') as ContainerInfo;
  } catch {
    return {};
  }
}

/** Folder of what a process's root file system has above its image, by the kernel's own word. */
function upperOf(pid: number): string | undefined {
  try {
    const root = readFileSync(`/proc/${pid}/mountinfo`, 'utf8')
      .split('\n')
      .find(line => line.split(' ')[4] === '/');
    return /[ ,]upperdir=([^, ]+)/.exec(root ?? '')?.[1];
  } catch {
    return undefined;
  }
}

/** Undefined when there is no such thing any more. */
export async function gone<T>(reply: Promise<T>): Promise<T | undefined> {
  try {
    return await reply;
  } catch (error) {
    if (error instanceof GrpcError && error.code === GRPC.NOT_FOUND) return undefined;
    throw error;
  }
}
