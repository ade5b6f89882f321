/** From a container's spec to what the runtime is asked for: environment, mounts, security, resources. */

import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Container, Pod } from '../../api/core/v1.gen.ts';
import { runCommand } from '../../sys/command.ts';
import type { Image } from '../images/image-store.ts';
import type { ContainerConfig, DeviceConfig, MountConfig } from '../runtime.ts';
import { optionsOf } from '../selinux.ts';
import type { PodVolumes } from '../volumes/pod-volumes.ts';
import { recursionOf } from '../volumes/recursive-read-only.ts';
import { pinSubPath, SubPathMissing } from '../volumes/sub-path.ts';
import { appArmorProfile } from './app-armor.ts';
import type { PodContext } from './context.ts';
import { containerEnvironment, expand } from './environment.ts';
import { hostnameOf, hostsFile, resolverFile } from './files.ts';
import { containerRefusal } from './refusals.ts';
import { containerLimits, hugePageLimits, oomScoreAdj } from './resources.ts';
import { seccompProfile } from './seccomp.ts';

const SERVER_MS_MAX = 5000;
const TERMINATION_PATH_DEFAULT = '/dev/termination-log';

export interface ContainerRequest {
  readonly context: PodContext;
  readonly pod: Pod;
  readonly container: Container;
  readonly image: Image;
  readonly attempt: number;
  readonly podIps: readonly string[];
  readonly volumes: PodVolumes;
  /** A running container whose processes this one is to see. */
  readonly processesOf?: string;
}

/** A spec that was changed in place makes another container of it. */
export function containerHash(container: Container): string {
  return `${container.name}\n${container.image}`;
}

/** Rejects with what becomes the container's CreateContainerConfigError. */
export async function containerConfig(request: ContainerRequest): Promise<ContainerConfig> {
  const { context, pod, container, image, attempt, podIps, processesOf } = request;
  const refusal = containerRefusal(container);
  if (refusal) throw new Error(refusal);
  const user = processUser(pod, container, image);
  const seccomp = seccompProfile(pod, container, {
    folder: context.paths.seccomp,
    isDefault: context.configuration.seccompDefault,
  });
  const appArmor = await appArmorProfile(pod, container);
  const selinux = optionsOf(pod, container);
  const addresses = { podIps, hostIps: context.nodeIps };
  const own = await containerEnvironment(pod, container, {
    references: context.references,
    node: context.node,
    addresses,
    services: context.services,
    volumePath: name => request.volumes.locate(pod, name)?.path,
  });
  const names = hostnameOf(pod, context.clusterDomain);
  const env = new Map<string, string>(
    (image.config.Env ?? []).map(entry => [entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1)]),
  );
  if (!env.has('PATH')) env.set('PATH', '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin');
  env.set('HOSTNAME', names.hostname);
  const devices = await context.devices.edits(
    pod.metadata.uid!,
    container.name,
    context.claims.cdiOf(pod.metadata.uid!, container),
  );
  for (const [name, value] of devices.env) env.set(name, value);
  for (const [name, value] of own) env.set(name, value);
  const lookUp = (name: string) => own.get(name);
  const security = container.securityContext ?? {};
  await checkServers(request);
  const { uid } = pod.metadata;
  const memoryDir = context.paths.memory(uid!);
  const owner = { podUid: uid!, container: container.name };
  return {
    name: container.name,
    attempt,
    imageId: image.id,
    imageRef: container.image!,
    command: (container.command ?? []).map(part => expand(part, lookUp)),
    args: (container.args ?? []).map(part => expand(part, lookUp)),
    ...(container.workingDir ? { workingDir: container.workingDir } : {}),
    env: [...env],
    mounts: [...systemFiles(request, names), ...volumeMounts(request, lookUp), ...devices.mounts],
    ...containerDevices(request, devices.devices),
    ...(devices.hooks?.length ? { hooks: devices.hooks } : {}),
    logPath: join(
      context.paths.logs({ namespace: pod.metadata.namespace!, name: pod.metadata.name, uid: uid! }),
      container.name,
      `${attempt}.log`,
    ),
    ...(processesOf === undefined ? {} : { processesOf }),
    stdin: container.stdin ?? false,
    stdinOnce: container.stdinOnce ?? false,
    tty: container.tty ?? false,
    user: devices.additionalGids?.length
      ? { ...user, additionalGids: [...(user.additionalGids ?? []), ...devices.additionalGids] }
      : user,
    capabilities: { add: security.capabilities?.add ?? [], drop: security.capabilities?.drop ?? [] },
    privileged: security.privileged ?? false,
    readOnlyRootFilesystem: security.readOnlyRootFilesystem ?? false,
    ...(seccomp ? { seccomp } : {}),
    ...(appArmor === undefined ? {} : { appArmor }),
    ...(selinux ? { selinux } : {}),
    noNewPrivileges: security.allowPrivilegeEscalation === false,
    ...(security.procMount === 'Unmasked' ? { unmaskedProc: true } : {}),
    ...(container.lifecycle?.stopSignal ? { stopSignal: container.lifecycle.stopSignal } : {}),
    oomScoreAdj: oomScoreAdj(pod, container, context.node.memoryBytes),
    resources: {
      ...context.memory.limits(context.cpus.limits(containerLimits(container), owner), owner),
      ...hugePageLimits(context.hugePages, { pod, container }),
    },
    labels: {
      hash: containerHash(container),
      'io.kubernetes.container.name': container.name,
      'io.kubernetes.pod.name': pod.metadata.name,
      'io.kubernetes.pod.namespace': pod.metadata.namespace!,
      'io.kubernetes.pod.uid': uid!,
    },
    terminationMessagePath: terminationFile(memoryDir, container, attempt),
  };
}

/** Where a container's termination message is on the node. */
export function terminationPath(memoryDir: string, container: string, attempt: number): string {
  return join(memoryDir, 'containers', container, String(attempt));
}

/** Makes the file that an attempt's message is written to. */
export function terminationFile(
  memoryDir: string,
  container: Container,
  attempt: number,
): { hostPath: string; containerPath: string } {
  const hostPath = terminationPath(memoryDir, container.name, attempt);
  mkdirSync(join(hostPath, '..'), { recursive: true, mode: 0o750 });
  // Of those before only the last can still be asked for.
  rmSync(terminationPath(memoryDir, container.name, attempt - 2), { force: true });
  writeFileSync(hostPath, '');
  // Any user of the container may write it, whatever the umask of this process.
  chmodSync(hostPath, 0o666);
  return { hostPath, containerPath: container.terminationMessagePath || TERMINATION_PATH_DEFAULT };
}

function processUser(pod: Pod, container: Container, image: Image): NonNullable<ContainerConfig['user']> {
  const ofPod = pod.spec.securityContext ?? {};
  const own = container.securityContext ?? {};
  const uid = own.runAsUser ?? ofPod.runAsUser;
  const gid = own.runAsGroup ?? ofPod.runAsGroup;
  if (own.runAsNonRoot ?? ofPod.runAsNonRoot) {
    const where = `(pod: "${pod.metadata.name}_${pod.metadata.namespace}(${pod.metadata.uid})", container: ${container.name})`;
    const imageUser = (image.config.User ?? '').split(':')[0]!;
    if (uid === 0) throw new Error(`container's runAsUser breaks non-root policy ${where}`);
    if (uid === undefined && (imageUser === '' || /^0+$/.test(imageUser)))
      throw new Error(`container has runAsNonRoot and image will run as root ${where}`);
    if (uid === undefined && !/^\d+$/.test(imageUser))
      throw new Error(
        `container has runAsNonRoot and image has non-numeric user (${imageUser}), cannot verify user is non-root ${where}`,
      );
  }
  if (gid !== undefined && uid === undefined && !image.config.User)
    return { uid: 0, gid, additionalGids: groupsOf(pod), strictGroups: ofPod.supplementalGroupsPolicy === 'Strict' };
  return {
    ...(uid !== undefined ? { uid } : {}),
    ...(gid !== undefined ? { gid } : {}),
    additionalGids: groupsOf(pod),
    strictGroups: ofPod.supplementalGroupsPolicy === 'Strict',
  };
}

function groupsOf(pod: Pod): number[] {
  const { supplementalGroups = [], fsGroup } = pod.spec.securityContext ?? {};
  return [...supplementalGroups, ...(fsGroup !== undefined ? [fsGroup] : [])];
}

// Written anew for each container: a pod whose sandbox was made again has another address.
function systemFiles(
  { context, pod, container, podIps }: ContainerRequest,
  names: { hostname: string; domain: string },
): MountConfig[] {
  const memoryDir = context.paths.memory(pod.metadata.uid!);
  const resolver = resolverFile(pod, context);
  for (const { reason, message } of resolver.warnings) context.events.event(pod, 'Warning', reason, message);
  const files = {
    '/etc/hosts': ['etc-hosts', hostsFile(pod, { podIps, ...names })],
    '/etc/resolv.conf': ['resolv.conf', resolver.text],
    '/etc/hostname': ['hostname', `${names.hostname}\n`],
  } as const;
  const mounted = new Set(container.volumeMounts?.map(mount => mount.mountPath));
  return Object.entries(files)
    .filter(([path]) => !mounted.has(path))
    .map(([containerPath, [file, text]]) => {
      const hostPath = join(memoryDir, file);
      writeFileSync(hostPath, text, { mode: 0o644 });
      return {
        hostPath,
        containerPath,
        readOnly: container.securityContext?.readOnlyRootFilesystem === true && containerPath !== '/etc/hosts',
        relabel: true,
        propagation: 'private' as const,
      };
    });
}

const PROPAGATIONS: Readonly<Record<string, MountConfig['propagation']>> = {
  HostToContainer: 'slave',
  Bidirectional: 'shared',
};

/** A subPath is looked up in this process, which a server that does not answer would hold: it is asked by another one before. */
async function checkServers({ pod, container, volumes }: ContainerRequest): Promise<void> {
  for (const { name, subPath, subPathExpr } of container.volumeMounts ?? []) {
    const found = subPath || subPathExpr ? volumes.locate(pod, name) : undefined;
    if (!found?.isRemote) continue;
    await runCommand('stat', ['--file-system', '--terse', found.path], { timeoutMs: SERVER_MS_MAX }).catch(error => {
      throw new Error(`the server of volume ${JSON.stringify(name)} does not answer: ${(error as Error).message}`);
    });
  }
}

function volumeMounts(
  { context, pod, container, volumes }: ContainerRequest,
  lookUp: (name: string) => string | undefined,
): MountConfig[] {
  return (container.volumeMounts ?? []).map((mount, i) => {
    const found = volumes.locate(pod, mount.name);
    if (!found)
      throw new Error(
        `cannot find volume ${JSON.stringify(mount.name)} to mount into container ${JSON.stringify(container.name)}`,
      );
    let hostPath = found.path;
    const subPath = mount.subPathExpr ? expandStrictly(mount.subPathExpr, lookUp) : mount.subPath;
    if (subPath) {
      const pin = join(context.paths.pod(pod.metadata.uid!), 'volume-subpaths', mount.name, container.name, String(i));
      try {
        hostPath = pinSubPath({ volume: found.path, subPath, pin });
      } catch (error) {
        if (error instanceof SubPathMissing) throw error;
        throw new Error(
          `failed to prepare subPath for volumeMount ${JSON.stringify(mount.name)} of container ${JSON.stringify(container.name)}: ${(error as Error).message}`,
        );
      }
    }
    const recursion = recursionOf(mount);
    const containerPath = mount.mountPath.startsWith('/') ? mount.mountPath : `/${mount.mountPath}`;
    return {
      hostPath,
      containerPath,
      readOnly: (mount.readOnly ?? false) || found.isReadOnly,
      ...(recursion ? { recursiveReadOnly: recursion } : {}),
      ...(found.isNoExec ? { noExec: true } : {}),
      ...(found.isMapped ? { isMapped: true } : {}),
      ...(found.isRelabelled ? { relabel: true } : {}),
      propagation: PROPAGATIONS[mount.mountPropagation ?? ''] ?? 'private',
    };
  });
}

/** Claims in block mode, as device nodes of the container, and those that the node gives it. */
function containerDevices(
  { container, volumes }: ContainerRequest,
  given: readonly DeviceConfig[],
): Pick<ContainerConfig, 'devices'> {
  const ofVolumes = (container.volumeDevices ?? []).map(({ name, devicePath }) => {
    const device = volumes.device(name);
    if (!device)
      throw new Error(
        `cannot find volume ${JSON.stringify(name)} to pass into container ${JSON.stringify(container.name)}`,
      );
    return { hostPath: device.path, containerPath: devicePath, isReadOnly: device.isReadOnly };
  });
  const devices = [...ofVolumes, ...given];
  return devices.length ? { devices } : {};
}

function expandStrictly(text: string, lookUp: (name: string) => string | undefined): string {
  return expand(text, name => {
    const value = lookUp(name);
    if (value === undefined) throw new Error(`missing value for ${JSON.stringify(name)}`);
    return value;
  });
}
