/**
 * What the machine must have before a cluster starts: root, kernel features, Debian packages. Missing packages are
 * installed with apt after saying which and why; anything else is one clear message with the command that mends it.
 */

import { execFile, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { failure } from '../base/errors.ts';
import type { RuntimeName } from './cluster-record.ts';

interface Prerequisite {
  readonly package: string;
  /** Any of these files shows that it is there. */
  readonly files: readonly string[];
  readonly why: string;
}

const PACKAGES: readonly Prerequisite[] = [
  {
    package: 'conmon',
    files: ['/usr/bin/conmon', '/usr/libexec/podman/conmon'],
    why: 'keeps each container and its log while the agent restarts',
  },
  {
    package: 'libnftables1',
    files: [
      '/usr/lib/x86_64-linux-gnu/libnftables.so.1',
      '/usr/lib/aarch64-linux-gnu/libnftables.so.1',
      '/usr/lib64/libnftables.so.1',
    ],
    why: 'programs Services in the kernel',
  },
  { package: 'util-linux', files: ['/usr/bin/nsenter'], why: 'enters namespaces' },
  { package: 'mount', files: ['/usr/sbin/losetup', '/sbin/losetup'], why: 'files as disks, for local volumes' },
  { package: 'e2fsprogs', files: ['/usr/sbin/mkfs.ext4', '/sbin/mkfs.ext4'], why: 'file systems of local volumes' },
];

const CRUN: Prerequisite = { package: 'crun', files: ['/usr/bin/crun'], why: 'starts containers' };
/** In the machine's own mount namespace: crun would give its /dev/null away, and may refuse its control groups. */
const RUNC: Prerequisite = { package: 'runc', files: ['/usr/sbin/runc', '/usr/bin/runc'], why: 'starts containers' };

/** Only where it was asked for. */
const CONTAINERD: Prerequisite = {
  package: 'containerd',
  files: ['/usr/bin/containerd'],
  why: 'runs containers (--runtime containerd)',
};

/** Only where the kernel has it: containers are confined there. */
const APP_ARMOR: Prerequisite = {
  package: 'apparmor',
  files: ['/usr/sbin/apparmor_parser', '/sbin/apparmor_parser'],
  why: "loads containers' AppArmor profiles",
};
const hasAppArmor = (): boolean => existsSync('/sys/kernel/security/apparmor/profiles');

const FILE_SYSTEMS: readonly { name: string; why: string; module: string }[] = [
  { name: 'overlay', why: "containers' root file systems", module: 'overlay' },
  { name: 'tmpfs', why: 'secrets and memory-backed volumes', module: 'tmpfs' },
];

/** Installing must not start Debian's own services on the machine. */
const WITHOUT_SERVICES = `
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\\nexit 101\\n' >$policy && chmod 755 $policy
  trap 'rm -f $policy' EXIT
fi
`;

function stop(message: string): never {
  throw failure(500, 'InternalError', message);
}

const quoted = (word: string): string => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

export function requireRoot(command: string): void {
  if (process.getuid?.() !== 0)
    stop(
      `${command} needs root, because it makes network namespaces, mounts and containers; run it with: sudo cox ${process.argv.slice(2).map(quoted).join(' ')}`,
    );
}

function requireKernel(): void {
  const known = readFileSync('/proc/filesystems', 'utf8');
  for (const { name, why, module } of FILE_SYSTEMS)
    if (!new RegExp(`\\b${name}$`, 'm').test(known))
      stop(`the kernel has no ${name} file system (${why}); load it with: modprobe ${module}`);
  for (const namespace of ['net', 'mnt', 'pid', 'uts', 'ipc'])
    if (!existsSync(`/proc/self/ns/${namespace}`))
      stop(
        `the kernel has no ${namespace} namespaces; use a kernel with CONFIG_NAMESPACES and CONFIG_${namespace.toUpperCase()}_NS`,
      );
  if (!existsSync('/sys/fs/cgroup/cgroup.controllers') && !existsSync('/sys/fs/cgroup/memory'))
    stop('no cgroup hierarchy is mounted at /sys/fs/cgroup; mount one with: mount -t cgroup2 none /sys/fs/cgroup');
}

/**
 * Throws with the next step. `say` gets a line when packages are installed. `ownMounts` says that nodes have a mount namespace of their
 * own, in which control groups can be arranged.
 */
export function ensurePrerequisites(
  say: (line: string) => void,
  { runtime, ownMounts }: { readonly runtime?: RuntimeName | undefined; readonly ownMounts: boolean },
): void {
  requireKernel();
  const missing = [
    ownMounts ? CRUN : RUNC,
    ...PACKAGES,
    ...(runtime === 'containerd' ? [CONTAINERD] : []),
    ...(hasAppArmor() ? [APP_ARMOR] : []),
  ].filter(({ files }) => !files.some(existsSync));
  if (missing.length === 0) return;
  const names = missing.map(item => item.package);
  const command = `apt-get install -y --no-install-recommends ${names.join(' ')}`;
  if (!existsSync('/usr/bin/apt-get'))
    stop(
      `missing: ${missing.map(item => `${item.package} (${item.why})`).join(', ')}; install them with this system's package manager`,
    );
  for (const { package: name, why } of missing) say(`installing Debian package ${name}: ${why}`);
  const environment = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const install = () =>
    spawnSync('/bin/sh', ['-c', `${WITHOUT_SERVICES}${command}`], { env: environment, encoding: 'utf8' });
  let result = install();
  if (result.status !== 0) {
    spawnSync('apt-get', ['update'], { env: environment });
    result = install();
  }
  if (result.status !== 0)
    stop(
      `could not install ${names.join(', ')}: ${(result.stderr || result.stdout).trim().split('\n').slice(-3).join(' ')}; run: apt-get update && ${command}`,
    );
}

const HAPROXY_PACKAGE = { package: 'haproxy', file: '/usr/sbin/haproxy' };
const INSTALL_HAPROXY = `${WITHOUT_SERVICES}
apt-get install -y --no-install-recommends ${HAPROXY_PACKAGE.package} || { apt-get update && apt-get install -y --no-install-recommends ${HAPROXY_PACKAGE.package}; }
`;
const INSTALL_MS_MAX = 300_000;

/**
 * What a node's ingress data plane needs, installed when the first Ingress comes. Called inside the segment; the package comes through the
 * machine's network.
 */
export function ensureIngressPrerequisites({ machineNetnsFd }: { readonly machineNetnsFd: number }): Promise<void> {
  if (existsSync(HAPROXY_PACKAGE.file)) return Promise.resolve();
  const advice =
    'Ingress needs HAProxy; install it with: apt-get update && apt-get install --no-install-recommends haproxy';
  if (!existsSync('/usr/bin/apt-get')) return Promise.reject(failure(500, 'InternalError', advice));
  return new Promise((resolve, reject) => {
    execFile(
      '/usr/bin/nsenter',
      [`--net=/proc/${process.pid}/fd/${machineNetnsFd}`, '/bin/sh', '-c', INSTALL_HAPROXY],
      { env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }, timeout: INSTALL_MS_MAX },
      (error, _out, messages) =>
        error
          ? reject(failure(500, 'InternalError', `${advice} (${messages.trim().split('\n').at(-1) ?? ''})`))
          : resolve(),
    );
  });
}
