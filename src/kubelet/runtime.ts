/**
 * What the kubelet needs from whatever runs containers; CRI-shaped. `snapshot()` is the truth, `events()` only a hint to
 * look again. Every method is idempotent and may be repeated after a crash of the agent.
 */

import type { Duplex, Readable, Writable } from 'node:stream';
import type { SELinuxOptions } from '../api/core/v1.gen.ts';

export interface SandboxConfig {
  readonly podUid: string;
  readonly namespace: string;
  readonly name: string;
  /** Counts sandboxes of the pod: 0, 1 … */
  readonly attempt: number;
  readonly hostname: string;
  readonly hostNetwork: boolean;
  readonly hostPid: boolean;
  readonly hostIpc: boolean;
  /** All containers of the pod see one process namespace, which an init of the runtime's own holds. */
  readonly shareProcesses?: boolean;
  /** The pod has a user namespace of its own (`hostUsers: false`), whose ids 0 … are these of the machine. */
  readonly userIds?: { readonly hostId: number; readonly length: number };
  /** One of its containers is privileged, which a runtime may have to know before. */
  readonly isPrivileged?: boolean;
  readonly sysctls?: Readonly<Record<string, string>>;
  /** Means nothing where the kernel has no SELinux; what is absent the runtime chooses, the level for all the pod's containers alike. */
  readonly selinux?: SELinuxOptions;
  readonly cgroupParent: string;
  /** Size of the /dev/shm that the pod's containers share; default 64 MiB. */
  readonly shmBytes?: number;
  readonly labels: Readonly<Record<string, string>>;
  /** Of the node, for a runtime whose own network the pod is on; others have them by `PodNetwork.publish`. */
  readonly ports?: readonly Omit<HostPort, 'podIp'>[];
  /** Which of the runtime's handlers runs the pod; absent, its default one. */
  readonly handler?: string;
}

export interface SandboxState {
  readonly id: string;
  readonly podUid: string;
  readonly namespace: string;
  readonly name: string;
  readonly attempt: number;
  readonly ready: boolean;
  readonly createdMs: number;
  readonly ips: readonly string[];
  readonly netnsPath: string | undefined;
}

export interface MountConfig {
  readonly hostPath: string;
  readonly containerPath: string;
  readonly readOnly: boolean;
  /** What is mounted below it is to be read-only too, where the runtime can do that or at all costs. */
  readonly recursiveReadOnly?: 'IfPossible' | 'Enabled';
  /** No program may be run from it. */
  readonly noExec?: boolean;
  /** Its files belong to the pod's own users already. */
  readonly isMapped?: boolean;
  /** What is there gets the container's SELinux label first. */
  readonly relabel?: boolean;
  readonly propagation: 'private' | 'slave' | 'shared';
}

/** A device node of the container, for one of the machine's. */
export interface DeviceConfig {
  readonly hostPath: string;
  readonly containerPath: string;
  readonly isReadOnly: boolean;
  /** Of a device that a description names: what that says of its node. */
  readonly node?: DeviceNode;
}
/** What is absent is as the machine's node is, or as the runtime makes nodes. */
export interface DeviceNode {
  readonly type?: 'b' | 'c' | 'u' | 'p';
  readonly major?: number;
  readonly minor?: number;
  readonly fileMode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Of `r`, `w` and `m`; default what `isReadOnly` says. */
  readonly access?: string;
}

/** When a program of the machine runs, by the OCI runtime specification. */
export const HOOK_MOMENTS = [
  'prestart',
  'createRuntime',
  'createContainer',
  'startContainer',
  'poststart',
  'poststop',
] as const;
export interface HookConfig {
  readonly moment: (typeof HOOK_MOMENTS)[number];
  readonly path: string;
  /** The program's name first. */
  readonly args?: readonly string[];
  readonly env?: readonly string[];
  readonly timeoutSeconds?: number;
}

export interface ContainerConfig {
  readonly name: string;
  readonly attempt: number;
  readonly imageId: string;
  readonly imageRef: string;
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly workingDir?: string;
  /** Final environment, image's own included, in order. */
  readonly env: readonly (readonly [name: string, value: string])[];
  readonly mounts: readonly MountConfig[];
  readonly devices?: readonly DeviceConfig[];
  readonly hooks?: readonly HookConfig[];
  readonly logPath: string;
  /** A running container of the sandbox whose processes this one sees; its own only when absent. */
  readonly processesOf?: string;
  readonly stdin: boolean;
  readonly stdinOnce: boolean;
  readonly tty: boolean;
  /** What is absent comes from the image: its user (`name`, `uid`, `uid:gid`), and that user's groups in /etc/passwd and /etc/group. */
  readonly user?: {
    readonly uid?: number;
    readonly gid?: number;
    readonly additionalGids?: readonly number[] /** Leave out groups that the image gives the user. */;
    readonly strictGroups?: boolean;
  };
  readonly capabilities: { readonly add: readonly string[]; readonly drop: readonly string[] };
  readonly privileged: boolean;
  readonly readOnlyRootFilesystem: boolean;
  readonly noNewPrivileges: boolean;
  /** As the sandbox's, whose level it has if it names none. */
  readonly selinux?: SELinuxOptions;
  /** An OCI seccomp profile, absent for unconfined. */
  readonly seccomp?: object;
  /** Name of a profile that the kernel has, absent for unconfined. */
  readonly appArmor?: string;
  /** No masked or read-only paths in /proc (procMount: Unmasked). */
  readonly unmaskedProc?: boolean;
  /** Overrides the image's stop signal. */
  readonly stopSignal?: string;
  readonly oomScoreAdj: number;
  readonly resources: {
    readonly cpuShares: number;
    readonly cpuQuotaMicros?: number;
    readonly cpuPeriodMicros?: number;
    readonly memoryBytesMax?: number;
    readonly pidsMax?: number;
    /** Processors it may use, as `0-1,4`; all when absent. */
    readonly cpus?: string;
    /** NUMA nodes whose memory it may use; all when absent. */
    readonly memoryNodes?: string;
    readonly hugePageBytesMax?: Readonly<Record<string, number>>;
  };
  readonly labels: Readonly<Record<string, string>>;
  readonly terminationMessagePath?: { readonly hostPath: string; readonly containerPath: string };
}

export interface ContainerState {
  readonly id: string;
  /** Name of the runtime that has it; absent: ours. */
  readonly runtime?: string;
  readonly sandboxId: string;
  readonly podUid: string;
  readonly name: string;
  readonly attempt: number;
  readonly imageRef: string;
  readonly imageId: string;
  readonly state: 'created' | 'running' | 'exited';
  readonly createdMs: number;
  readonly startedMs: number | undefined;
  readonly finishedMs: number | undefined;
  readonly exitCode: number | undefined;
  /** Signal number, when the process died of one. */
  readonly signal: number | undefined;
  readonly oomKilled: boolean;
  readonly pid: number | undefined;
  readonly logPath: string;
  /** Folder of what the container wrote into its own file system. */
  readonly layerPath?: string;
  /** `StartError` when it never ran, with `message` saying why. */
  readonly reason?: string;
  readonly message?: string;
  readonly user?: { readonly uid: number; readonly gid: number; readonly additionalGids: readonly number[] };
  readonly labels: Readonly<Record<string, string>>;
}

export interface RuntimeState {
  readonly sandboxes: readonly SandboxState[];
  readonly containers: readonly ContainerState[];
}

export interface ExecOptions {
  readonly command: readonly string[];
  readonly tty: boolean;
  readonly stdin?: Readable;
  readonly stdout?: Writable;
  readonly stderr?: Writable;
  /** Ends the session when it aborts; the process is killed, for certain only when it is brief. */
  readonly signal?: AbortSignal;
  /** Takes no input, has no terminal, and nobody waits for its output before its end. */
  readonly isBrief?: true;
  readonly resize?: AsyncIterable<{ readonly width: number; readonly height: number }>;
}

export interface ExecResult {
  readonly exitCode: number;
  /** There was nothing to run, and the output is the runtime's, as far as it tells that from a program that failed. */
  readonly isUnstarted?: true;
}

export interface RuntimeEvent {
  readonly podUid: string;
  readonly containerId?: string;
  /** Nothing but the start that the caller asked for. */
  readonly started?: true;
}

/** As Node status tells them. */
export interface HandlerFeatures {
  readonly recursiveReadOnlyMounts: boolean;
  readonly userNamespaces: boolean;
  /** `supplementalGroupsPolicy: Strict`; the node tells it of its default handler. */
  readonly supplementalGroupsPolicy: boolean;
}

export interface Runtime {
  readonly name: string;
  readonly version: string;
  /** What `SandboxConfig.handler` may be; absent: the runtime itself refuses what it does not have. */
  readonly handlers?: readonly string[];
  /** What pods of a handler can have; absent: nothing that depends on it. */
  featuresOf?(handler: string): HandlerFeatures | undefined;
  /** What a container mounts must be there when it is created, not only when it starts. */
  readonly needsMounts?: boolean;
  /** Rejects for a handler that there is not. */
  runSandbox(config: SandboxConfig): Promise<SandboxState>;
  /** With `keepsAddress` the pod's next sandbox has the address of this one. */
  stopSandbox(id: string, options?: { readonly keepsAddress?: boolean }): Promise<void>;
  removeSandbox(id: string): Promise<void>;
  createContainer(sandboxId: string, config: ContainerConfig): Promise<string>;
  start(id: string): Promise<void>;
  /** SIGTERM (or the image's stop signal), then SIGKILL after the grace; resolves when it has exited. */
  stop(id: string, graceSeconds: number): Promise<void>;
  remove(id: string): Promise<void>;
  /** Gives a running container other limits, at once; what is absent stays unlimited. */
  update(id: string, resources: ContainerConfig['resources']): Promise<void>;
  exec(id: string, options: ExecOptions): Promise<ExecResult>;
  attach(
    id: string,
    options: Omit<ExecOptions, 'command' | 'signal'> & { readonly signal: AbortSignal },
  ): Promise<void>;
  /** A byte stream to a TCP port inside the sandbox's network namespace, on its localhost. */
  portForward(sandboxId: string, port: number): Promise<Duplex>;
  /** Everything, or what belongs to one pod. */
  snapshot(podUid?: string): Promise<RuntimeState>;
  /** Closes and opens the container's log file again, after it was moved away. */
  reopenLog(id: string): Promise<void>;
  events(signal: AbortSignal): AsyncIterable<RuntimeEvent>;
}

/** A port of the node that leads to a pod. */
export interface HostPort {
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly hostPort: number;
  /** One address of the node; all of them when absent. */
  readonly hostIp?: string;
  readonly podIp: string;
  readonly port: number;
}

/** Satisfied by `src/network`; wired by `src/app`. */
export interface PodNetwork {
  /** Connects the namespace at `netnsPath` (exists, only `lo`) to the pod network. Idempotent by pod uid. */
  attach(pod: {
    readonly uid: string;
    readonly namespace: string;
    readonly name: string;
    readonly netnsPath: string;
  }): Promise<{ readonly ips: readonly string[] }>;
  /** Frees address and interface; works without the namespace. Idempotent. */
  detach(podUid: string): Promise<void>;
  /** Frees everything of pods not in the set; run at agent start. */
  retain(podUids: ReadonlySet<string>): Promise<void>;
  /** All host ports of the node's pods; those not given any more are closed. */
  publish(ports: readonly HostPort[]): Promise<void>;
  /** Undefined when ready, else why not (the node's Ready condition says it). */
  notReadyReason(): string | undefined;
  /** Whether network policies judge by addresses: other nodes are to know a pod's before it first speaks. */
  hasPolicies?(): boolean;
}
