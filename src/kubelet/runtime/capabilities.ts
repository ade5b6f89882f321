/**
 * Linux capabilities by name: all there are, those a container has unless its pod says otherwise, and those a container gets.
 * Invariant: `ALL_CAPABILITIES` stands in the kernel's numbering, and nobody gets what the agent does not have itself. It
 * gives and drops nothing: that does the OCI runtime, by what the spec says.
 */

import { readFileSync } from 'node:fs';
import type { ContainerConfig } from '../runtime.ts';

/** What a container may do unless the pod says otherwise; the set that Docker and containerd give. */
export const DEFAULT_CAPABILITIES = [
  'CHOWN',
  'DAC_OVERRIDE',
  'FSETID',
  'FOWNER',
  'MKNOD',
  'NET_RAW',
  'SETGID',
  'SETUID',
  'SETFCAP',
  'SETPCAP',
  'NET_BIND_SERVICE',
  'SYS_CHROOT',
  'KILL',
  'AUDIT_WRITE',
];

/** In the order of the kernel's numbers, from 0. */
export const ALL_CAPABILITIES = [
  'CHOWN',
  'DAC_OVERRIDE',
  'DAC_READ_SEARCH',
  'FOWNER',
  'FSETID',
  'KILL',
  'SETGID',
  'SETUID',
  'SETPCAP',
  'LINUX_IMMUTABLE',
  'NET_BIND_SERVICE',
  'NET_BROADCAST',
  'NET_ADMIN',
  'NET_RAW',
  'IPC_LOCK',
  'IPC_OWNER',
  'SYS_MODULE',
  'SYS_RAWIO',
  'SYS_CHROOT',
  'SYS_PTRACE',
  'SYS_PACCT',
  'SYS_ADMIN',
  'SYS_BOOT',
  'SYS_NICE',
  'SYS_RESOURCE',
  'SYS_TIME',
  'SYS_TTY_CONFIG',
  'MKNOD',
  'LEASE',
  'AUDIT_WRITE',
  'AUDIT_CONTROL',
  'SETFCAP',
  'MAC_OVERRIDE',
  'MAC_ADMIN',
  'SYSLOG',
  'WAKE_ALARM',
  'BLOCK_SUSPEND',
  'AUDIT_READ',
  'PERFMON',
  'BPF',
  'CHECKPOINT_RESTORE',
];

/** What this process may give: its bounding set. */
export function ownCapabilities(): ReadonlySet<string> {
  const bounding = BigInt(`0x${/^CapBnd:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'}`);
  return new Set(ALL_CAPABILITIES.filter((_, number) => (bounding >> BigInt(number)) & 1n));
}

export function capabilitiesOf(
  config: Pick<ContainerConfig, 'capabilities' | 'privileged'>,
  available: ReadonlySet<string>,
): string[] {
  if (config.privileged) return ALL_CAPABILITIES.filter(name => available.has(name)).map(name => `CAP_${name}`);
  const plain = (name: string) => name.toUpperCase().replace(/^CAP_/, '');
  const add = config.capabilities.add.map(plain);
  const drop = config.capabilities.drop.map(plain);
  let names = add.includes('ALL') ? [...ALL_CAPABILITIES] : [...DEFAULT_CAPABILITIES];
  if (drop.includes('ALL')) names = [];
  for (const name of add) if (name !== 'ALL' && !names.includes(name)) names.push(name);
  return names
    .filter(name => available.has(name) && !(drop.includes(name) && !add.includes(name)))
    .map(name => `CAP_${name}`);
}
