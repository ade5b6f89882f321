/**
 * What the kubelet asks for, in the words of the Container Runtime Interface. Pure but for a look at described devices. What the runtime does not keep for us goes along as
 * an annotation, and comes back in its lists. It refuses, by an error that names the field, what the interface has no word for:
 * nothing is dropped in silence.
 */

import { join } from 'node:path';
import type { Request } from '../../../csi/calls.ts';
import type { ContainerConfig, DeviceConfig, SandboxConfig } from '../../runtime.ts';
import { differences } from '../device-nodes.ts';
import { MASKED_PATHS, READ_ONLY_PATHS } from '../spec.ts';
import { type CRI_CALLS, NAMESPACE_MODE, PROFILE, PROPAGATION, PROTOCOL } from './messages.ts';

type Calls = typeof CRI_CALLS;
export type SandboxMessage = NonNullable<Request<Calls['runPodSandbox']>['config']>;
type ContainerMessage = NonNullable<Request<Calls['createContainer']>['config']>;
type ResourcesMessage = NonNullable<Request<Calls['updateContainerResources']>['linux']>;

const ANNOTATION = 'coxswain.dev/kept';
export const UID_LABEL = 'io.kubernetes.pod.uid';
/** containerd's own; it cannot make another. */
const SHM_BYTES = 64 * 1024 * 1024;
const CPU_PERIOD_MICROS = 100_000;

/** What of a container the runtime does not keep. */
export interface KeptContainer {
  readonly podUid: string;
  readonly imageId: string;
  readonly imageRef: string;
  readonly logPath: string;
  readonly labels: Readonly<Record<string, string>>;
}

export const keptSandbox = (annotations: Readonly<Record<string, string>> | undefined): SandboxConfig | undefined =>
  parsed(annotations);
export const keptContainer = (annotations: Readonly<Record<string, string>> | undefined): KeptContainer | undefined =>
  parsed(annotations);

function parsed<T>(annotations: Readonly<Record<string, string>> | undefined): T | undefined {
  const text = annotations?.[ANNOTATION];
  return text === undefined ? undefined : (JSON.parse(text) as T);
}

export function sandboxMessage(config: SandboxConfig): SandboxMessage {
  const { podUid: uid, name, namespace, attempt, hostname, hostNetwork, cgroupParent, labels } = config;
  if (config.shmBytes !== undefined && config.shmBytes !== SHM_BYTES)
    throw new Error(`the container runtime's /dev/shm holds ${SHM_BYTES} bytes, not ${config.shmBytes}`);
  return {
    metadata: { name, uid, namespace, attempt },
    // On the node's network its name is the node's.
    hostname: hostNetwork ? '' : hostname,
    logDirectory: '/',
    portMappings: (config.ports ?? []).map(({ protocol, port, hostPort, hostIp }) => ({
      protocol: PROTOCOL[protocol],
      containerPort: port,
      hostPort,
      hostIp: hostIp ?? '',
    })),
    labels: { ...labels, ...podLabels(config) },
    annotations: { [ANNOTATION]: JSON.stringify(config) },
    linux: {
      cgroupParent,
      sysctls: config.sysctls ?? {},
      securityContext: {
        namespaceOptions: namespacesOf(config),
        ...(config.selinux ? { selinuxOptions: config.selinux } : {}),
        privileged: config.isPrivileged ?? false,
        seccomp: { profileType: PROFILE.RUNTIME_DEFAULT },
      },
    },
  };
}

function podLabels({ podUid, namespace, name }: SandboxConfig): Record<string, string> {
  return { [UID_LABEL]: podUid, 'io.kubernetes.pod.namespace': namespace, 'io.kubernetes.pod.name': name };
}

function namespacesOf({ hostNetwork, hostPid, hostIpc, shareProcesses }: SandboxConfig, processesOf?: string) {
  const { POD, CONTAINER, NODE, TARGET } = NAMESPACE_MODE;
  const pid = hostPid ? NODE : shareProcesses ? POD : processesOf ? TARGET : CONTAINER;
  return {
    network: hostNetwork ? NODE : POD,
    ipc: hostIpc ? NODE : POD,
    pid,
    ...(pid === TARGET ? { targetId: processesOf! } : {}),
  };
}

export interface ContainerRequest {
  readonly config: ContainerConfig;
  readonly sandbox: SandboxConfig;
  /** The runtime's own id of the image. */
  readonly image: string;
  /** File that holds `config.seccomp`. */
  readonly seccompFile: string | undefined;
}

export function containerMessage({ config, sandbox, image, seccompFile }: ContainerRequest): ContainerMessage {
  const { name, attempt, imageId, imageRef, logPath, labels, privileged, terminationMessagePath: message } = config;
  if (config.user?.strictGroups)
    throw new Error('supplementalGroupsPolicy: Strict is not supported by the container runtime of this node');
  const recursive = config.mounts.find(({ recursiveReadOnly }) => recursiveReadOnly === 'Enabled');
  if (recursive)
    throw new Error(
      `recursiveReadOnly: Enabled (${recursive.containerPath}) is not supported by the container runtime of this node: IfPossible goes without`,
    );
  const isUnmasked = privileged || config.unmaskedProc;
  if (config.hooks) throw new Error('hooks in descriptions of CDI devices cannot be handed to a runtime by CRI');
  const kept: KeptContainer = { podUid: sandbox.podUid, imageId, imageRef, logPath, labels };
  return {
    metadata: { name, attempt },
    image: { image },
    command: config.command,
    args: config.args,
    workingDir: config.workingDir ?? '',
    envs: config.env.map(([key, value]) => ({ key, value })),
    mounts: [
      ...config.mounts.map(({ hostPath, containerPath, readOnly, noExec, relabel, propagation }) => ({
        hostPath,
        containerPath,
        // The interface has no word for noexec. Where the source has it a bind keeps it, unless it is mounted anew to be read-only; such
        // a source (the layers of an image) cannot be written anyway.
        readonly: readOnly && !noExec,
        selinuxRelabel: relabel ?? false,
        propagation: PROPAGATION[propagation],
      })),
      ...(message ? [{ ...message, selinuxRelabel: true, propagation: PROPAGATION.private }] : []),
    ],
    devices: (config.devices ?? []).map(deviceMessage),
    labels: podLabels(sandbox),
    annotations: { [ANNOTATION]: JSON.stringify(kept) },
    // Relative to the sandbox's folder of logs, which is the root.
    logPath: logPath.slice(1),
    stdin: config.stdin,
    stdinOnce: config.stdinOnce,
    tty: config.tty,
    linux: {
      resources: { ...resourcesMessage(config.resources), oomScoreAdj: config.oomScoreAdj },
      securityContext: {
        capabilities: config.capabilities,
        privileged,
        namespaceOptions: namespacesOf(sandbox, config.processesOf),
        ...(config.selinux ? { selinuxOptions: config.selinux } : {}),
        ...(config.user?.uid !== undefined ? { runAsUser: { value: config.user.uid } } : {}),
        ...(config.user?.gid !== undefined ? { runAsGroup: { value: config.user.gid } } : {}),
        supplementalGroups: config.user?.additionalGids ?? [],
        readonlyRootfs: config.readOnlyRootFilesystem,
        noNewPrivs: config.noNewPrivileges,
        maskedPaths: isUnmasked ? [] : MASKED_PATHS,
        readonlyPaths: isUnmasked ? [] : READ_ONLY_PATHS,
        seccomp: seccompFile
          ? { profileType: PROFILE.LOCALHOST, localhostRef: seccompFile }
          : { profileType: PROFILE.UNCONFINED },
        apparmor: config.appArmor
          ? { profileType: PROFILE.LOCALHOST, localhostRef: config.appArmor }
          : { profileType: PROFILE.UNCONFINED },
      },
    },
  };
}

function deviceMessage(device: DeviceConfig): NonNullable<ContainerMessage['devices']>[number] {
  const { hostPath, containerPath, isReadOnly, node } = device;
  const others = differences(device);
  if (others.length > 0)
    throw new Error(
      `the description of CDI device ${containerPath} says ${others.join(', ')} otherwise than ${hostPath} of this machine has, which cannot be handed to a runtime by CRI`,
    );
  return { hostPath, containerPath, permissions: node?.access ?? (isReadOnly ? 'rm' : 'rwm') };
}

/** What is absent is unlimited, which has to be said to a container that had a limit. */
export function resourcesMessage(resources: ContainerConfig['resources']): ResourcesMessage {
  const { cpuShares, cpuQuotaMicros, cpuPeriodMicros, memoryBytesMax, pidsMax, cpus, memoryNodes, hugePageBytesMax } =
    resources;
  if (pidsMax !== undefined)
    throw new Error('a limit of processes for one container is not supported by the container runtime');
  return {
    cpuShares,
    cpuPeriod: cpuPeriodMicros ?? CPU_PERIOD_MICROS,
    cpuQuota: cpuQuotaMicros ?? -1,
    memoryLimitInBytes: memoryBytesMax ?? -1,
    ...(cpus === undefined ? {} : { cpusetCpus: cpus }),
    ...(memoryNodes === undefined ? {} : { cpusetMems: memoryNodes }),
    ...(hugePageBytesMax
      ? { hugepageLimits: Object.entries(hugePageBytesMax).map(([pageSize, limit]) => ({ pageSize, limit })) }
      : {}),
    memorySwapLimitInBytes: memoryBytesMax ?? -1,
  };
}

/** Where the runtime writes what a container says; the folder must be there before. */
export const logFolder = (config: ContainerConfig): string => join(config.logPath, '..');
