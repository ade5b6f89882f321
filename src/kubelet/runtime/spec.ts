/**
 * The OCI runtime configuration of a container and of a process that joins it: from what the kubelet asked for and where the
 * runtime put things. Invariant: it reads the machine's device nodes and nothing else, and changes nothing.
 */

import { existsSync, lstatSync, readdirSync } from 'node:fs';
import type { Image } from '../images/image-store.ts';
import { type ContainerConfig, HOOK_MOMENTS, type HookConfig, type SandboxConfig } from '../runtime.ts';
import type { Labels } from '../selinux.ts';
import { capabilitiesOf } from './capabilities.ts';
import { hostDevices, ociDevice } from './device-nodes.ts';
import type { ProcessUser } from './users.ts';

/** Where processors tell how hot they were, and so what others compute; not all have it. */
export function heatPaths(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter(name => /^cpu\d+$/.test(name))
    .map(name => `${folder}/${name}/thermal_throttle`)
    .filter(path => existsSync(path));
}

export const MASKED_PATHS = [
  '/proc/asound',
  '/proc/acpi',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
  ...heatPaths('/sys/devices/system/cpu'),
];
export const READ_ONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

export interface SpecInput {
  readonly config: ContainerConfig;
  readonly sandbox: SandboxConfig;
  readonly image: Image;
  readonly user: ProcessUser;
  readonly rootfs: string;
  readonly cgroupsPath: string;
  readonly unified: boolean;
  /** Capabilities this machine's agent has itself; no more can be given. */
  readonly available: ReadonlySet<string>;
  readonly oomScoreAdj: number;
  readonly namespaces: { readonly net?: string; readonly ipc?: string; readonly uts?: string; readonly pid?: string };
  readonly shmPath: string;
  /** The pod's own, absent for the machine's. */
  readonly userNamespace?: UserNamespace;
  readonly selinux?: Labels;
}

export interface UserNamespace {
  readonly path: string;
  readonly ids: { readonly hostId: number; readonly length: number };
}

/** What a configuration says beside the namespace's path. */
export function idMappings(user: UserNamespace | undefined): object {
  if (!user) return {};
  const { hostId: hostID, length: size } = user.ids;
  const mappings = [{ containerID: 0, hostID, size }];
  return { uidMappings: mappings, gidMappings: mappings };
}

function hooksOf(hooks: readonly HookConfig[]): object {
  const moments = HOOK_MOMENTS.map(moment => [
    moment,
    hooks
      .filter(hook => hook.moment === moment)
      .map(({ path, args, env, timeoutSeconds: timeout }) => ({ path, args, env, timeout })),
  ]);
  return Object.fromEntries(moments.filter(([, of]) => of!.length > 0));
}

/** Command line by CRI's rules: a pod's command replaces the image's entrypoint and with it the image's arguments. */
export function commandLine(config: Pick<ContainerConfig, 'command' | 'args'>, image: Pick<Image, 'config'>): string[] {
  if (config.command.length > 0) return [...config.command, ...config.args];
  const entrypoint = image.config.Entrypoint ?? [];
  return [...entrypoint, ...(config.args.length > 0 ? config.args : (image.config.Cmd ?? []))];
}

/** A privileged container has none: it runs as the runtime does. */
export function processLabel(labels: Labels | undefined): { readonly selinuxLabel?: string } {
  return labels?.process === undefined ? {} : { selinuxLabel: labels.process };
}

export function containerSpec(input: SpecInput): object {
  const { config, sandbox, image, user, rootfs, cgroupsPath, namespaces } = input;
  const args = commandLine(config, image);
  const capabilities = capabilitiesOf(config, input.available);
  const { privileged, resources } = config;
  const isUnmasked = privileged || config.unmaskedProc;
  const devices = (config.devices ?? []).map(device => ociDevice(device, user));
  const propagation = config.mounts.some(mount => mount.propagation === 'shared')
    ? 'rshared'
    : config.mounts.some(mount => mount.propagation === 'slave')
      ? 'rslave'
      : undefined;
  return {
    ociVersion: '1.0.2',
    process: {
      terminal: config.tty,
      user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids },
      args,
      env: config.env
        .map(([name, value]) => `${name}=${value}`)
        .concat(config.tty && !config.env.some(([name]) => name === 'TERM') ? ['TERM=xterm'] : []),
      cwd: config.workingDir || image.config.WorkingDir || '/',
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      oomScoreAdj: input.oomScoreAdj,
      noNewPrivileges: config.noNewPrivileges,
      ...(config.appArmor === undefined ? {} : { apparmorProfile: config.appArmor }),
      ...processLabel(input.selinux),
    },
    root: { path: rootfs, readonly: config.readOnlyRootFilesystem },
    mounts: mountsOf(input),
    ...(config.hooks ? { hooks: hooksOf(config.hooks) } : {}),
    linux: {
      cgroupsPath,
      ...(propagation ? { rootfsPropagation: propagation } : {}),
      namespaces: [
        { type: 'mount' },
        ...(sandbox.hostPid ? [] : [{ type: 'pid', ...(namespaces.pid ? { path: namespaces.pid } : {}) }]),
        ...(namespaces.net ? [{ type: 'network', path: namespaces.net }] : []),
        ...(namespaces.ipc ? [{ type: 'ipc', path: namespaces.ipc }] : []),
        ...(namespaces.uts ? [{ type: 'uts', path: namespaces.uts }] : []),
        ...(input.unified && !privileged ? [{ type: 'cgroup' }] : []),
        ...(input.userNamespace ? [{ type: 'user', path: input.userNamespace.path }] : []),
      ],
      ...idMappings(input.userNamespace),
      ...(input.selinux ? { mountLabel: input.selinux.file } : {}),
      resources: {
        devices: [{ allow: privileged, access: 'rwm' }, ...devices.flatMap(({ rule }) => rule ?? [])],
        cpu: {
          shares: resources.cpuShares,
          ...(resources.cpuQuotaMicros !== undefined
            ? { quota: resources.cpuQuotaMicros, period: resources.cpuPeriodMicros ?? 100_000 }
            : {}),
          ...(resources.cpus === undefined ? {} : { cpus: resources.cpus }),
          ...(resources.memoryNodes === undefined ? {} : { mems: resources.memoryNodes }),
        },
        ...(resources.memoryBytesMax !== undefined
          ? { memory: { limit: resources.memoryBytesMax, swap: resources.memoryBytesMax } }
          : {}),
        ...(resources.hugePageBytesMax
          ? {
              hugepageLimits: Object.entries(resources.hugePageBytesMax).map(([pageSize, limit]) => ({
                pageSize,
                limit,
              })),
            }
          : {}),
        ...(resources.pidsMax !== undefined ? { pids: { limit: resources.pidsMax } } : {}),
      },
      ...(privileged || devices.length
        ? { devices: [...(privileged ? hostDevices() : []), ...devices.map(({ node }) => node)] }
        : {}),
      ...(config.seccomp && !privileged ? { seccomp: config.seccomp } : {}),
      maskedPaths: isUnmasked ? [] : MASKED_PATHS,
      readonlyPaths: isUnmasked ? [] : READ_ONLY_PATHS,
    },
  };
}

export interface JoiningProcess {
  readonly config: ContainerConfig;
  readonly image: Image | undefined;
  readonly user: ProcessUser | undefined;
  readonly available: ReadonlySet<string>;
  readonly oomScoreAdj: number;
  readonly selinux?: Labels | undefined;
  readonly command: readonly string[];
  readonly tty: boolean;
}

/** The OCI `process` of a command that runs in a container beside its own. */
export function joiningProcess(input: JoiningProcess): object {
  const { config, image, user, available, oomScoreAdj, command, tty } = input;
  const capabilities = capabilitiesOf(config, available);
  return {
    terminal: tty,
    user: { uid: user?.uid ?? 0, gid: user?.gid ?? 0, additionalGids: user?.additionalGids ?? [] },
    args: command,
    env: config.env.map(([name, value]) => `${name}=${value}`).concat(tty ? ['TERM=xterm'] : []),
    cwd: config.workingDir || image?.config.WorkingDir || '/',
    capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
    noNewPrivileges: config.noNewPrivileges,
    ...(config.appArmor === undefined ? {} : { apparmorProfile: config.appArmor }),
    oomScoreAdj,
    ...processLabel(input.selinux),
  };
}

function mountsOf({ config, sandbox, shmPath }: SpecInput): object[] {
  const writable = config.privileged ? 'rw' : 'ro';
  const system = [
    { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
    },
    ...(sandbox.hostIpc
      ? [
          {
            destination: '/dev/mqueue',
            type: 'bind',
            source: '/dev/mqueue',
            options: ['rbind', 'nosuid', 'noexec', 'nodev'],
          },
        ].filter(() => exists('/dev/mqueue'))
      : [{ destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] }]),
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', writable] },
    {
      destination: '/sys/fs/cgroup',
      type: 'cgroup',
      source: 'cgroup',
      options: ['nosuid', 'noexec', 'nodev', 'relatime', writable],
    },
    { destination: '/dev/shm', type: 'bind', source: shmPath, options: ['rbind', 'nosuid', 'nodev', 'noexec', 'rw'] },
  ];
  const asked = config.mounts.map(mount => ({
    destination: mount.containerPath,
    type: 'bind',
    source: mount.hostPath,
    options: [
      'rbind',
      mount.propagation === 'private' ? 'rprivate' : mount.propagation === 'slave' ? 'rslave' : 'rshared',
      mount.recursiveReadOnly ? 'rro' : mount.readOnly ? 'ro' : 'rw',
      ...(mount.noExec ? ['noexec'] : []),
    ],
  }));
  if (config.terminationMessagePath) {
    asked.push({
      destination: config.terminationMessagePath.containerPath,
      type: 'bind',
      source: config.terminationMessagePath.hostPath,
      options: ['rbind', 'rprivate', 'rw'],
    });
  }
  // A pod's own mount replaces a system one; parents come before what is mounted inside them.
  const taken = new Set(asked.map(mount => mount.destination));
  const depth = (path: string) => path.split('/').filter(Boolean).length;
  return [
    ...system.filter(mount => !taken.has(mount.destination)),
    ...asked.sort((a, b) => depth(a.destination) - depth(b.destination)),
  ];
}

function exists(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}
