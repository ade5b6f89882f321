/**
 * Seccomp profiles in OCI form. `RuntimeDefault` denies what containers have no business with (modules, mounts, clocks,
 * tracing of the kernel, new namespaces) unless a capability that the pod was given is there for just that; all else passes.
 * `Localhost` is a file in OCI form below `<root>/seccomp`. Refuses paths that leave that folder.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Container, Pod } from '../../api/core/v1.gen.ts';

const ALWAYS_DENIED = [
  'add_key',
  'request_key',
  'keyctl',
  'kexec_file_load',
  'kexec_load',
  'nfsservctl',
  'userfaultfd',
  'uselib',
  'ustat',
  'sysfs',
  '_sysctl',
  'create_module',
  'get_kernel_syms',
  'query_module',
  'vm86',
  'vm86old',
  'io_uring_setup',
  'io_uring_enter',
  'io_uring_register',
  'move_pages',
  'lookup_dcookie',
];
/** Denied without the capability. */
const DENIED_WITHOUT: Readonly<Record<string, readonly string[]>> = {
  SYS_ADMIN: [
    'bpf',
    'fanotify_init',
    'fsconfig',
    'fsmount',
    'fsopen',
    'fspick',
    'mount',
    'mount_setattr',
    'move_mount',
    'open_tree',
    'perf_event_open',
    'pivot_root',
    'quotactl',
    'quotactl_fd',
    'setdomainname',
    'sethostname',
    'setns',
    'umount',
    'umount2',
    'unshare',
    'swapon',
    'swapoff',
  ],
  SYS_MODULE: ['delete_module', 'init_module', 'finit_module'],
  SYS_TIME: ['clock_settime', 'clock_settime64', 'clock_adjtime', 'clock_adjtime64', 'settimeofday', 'stime'],
  SYS_BOOT: ['reboot'],
  SYS_RAWIO: ['iopl', 'ioperm'],
  SYS_PACCT: ['acct'],
  SYS_NICE: ['get_mempolicy', 'mbind', 'set_mempolicy', 'set_mempolicy_home_node'],
  SYS_PTRACE: ['kcmp', 'process_madvise', 'pidfd_getfd'],
  DAC_READ_SEARCH: ['open_by_handle_at'],
  SYS_TTY_CONFIG: ['vhangup'],
};
const EPERM = 1;
const ENOSYS = 38;
// NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACE_FLAGS = 0x7e020000;
const ARCHITECTURES: Readonly<Record<string, readonly string[]>> = {
  x64: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
  arm64: ['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'],
};

export function defaultProfile(added: readonly string[]): object {
  const given = new Set(added.map(name => name.toUpperCase().replace(/^CAP_/, '')));
  const has = (name: string) => given.has(name) || given.has('ALL');
  const denied = [
    ...ALWAYS_DENIED,
    ...Object.entries(DENIED_WITHOUT).flatMap(([name, calls]) => (has(name) ? [] : calls)),
  ];
  return {
    defaultAction: 'SCMP_ACT_ALLOW',
    architectures: ARCHITECTURES[process.arch] ?? [],
    syscalls: [
      { names: denied, action: 'SCMP_ACT_ERRNO', errnoRet: EPERM },
      ...(has('SYS_ADMIN')
        ? []
        : [
            // One rule a flag: libseccomp compares a masked argument with one value only.
            ...flagsOf(NAMESPACE_FLAGS).map(flag => ({
              names: ['clone'],
              action: 'SCMP_ACT_ERRNO',
              errnoRet: EPERM,
              args: [{ index: 0, value: flag, valueTwo: flag, op: 'SCMP_CMP_MASKED_EQ' }],
            })),
            // Its flags lie in memory, out of a filter's reach: programs fall back to clone.
            { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS },
          ]),
    ],
  };
}

function flagsOf(mask: number): number[] {
  return Array.from({ length: 31 }, (_, bit) => 2 ** bit).filter(flag => mask & flag);
}

/** Undefined for unconfined. Throws what becomes a CreateContainerConfigError. */
export function seccompProfile(
  pod: Pod,
  container: Container,
  {
    folder,
    isDefault,
  }: { readonly folder: string /** Who names no profile gets the default one. */; readonly isDefault: boolean },
): object | undefined {
  const own = container.securityContext ?? {};
  const wish =
    own.seccompProfile ??
    pod.spec.securityContext?.seccompProfile ??
    (isDefault ? { type: 'RuntimeDefault', localhostProfile: '' } : undefined);
  if (!wish || own.privileged || wish.type === 'Unconfined') return undefined;
  if (wish.type === 'RuntimeDefault') return defaultProfile(own.capabilities?.add ?? []);
  const name = wish.localhostProfile ?? '';
  if (!name || name.startsWith('/') || name.split('/').includes('..'))
    throw new Error(`cannot load seccomp profile ${JSON.stringify(name)}: it must be a relative path below ${folder}`);
  try {
    return JSON.parse(readFileSync(join(folder, name), 'utf8')) as object;
  } catch (error) {
    throw new Error(`cannot load seccomp profile ${JSON.stringify(join(folder, name))}: ${(error as Error).message}`);
  }
}
