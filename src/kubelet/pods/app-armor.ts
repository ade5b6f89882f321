/**
 * AppArmor on this node: whether the kernel has it, and which of its profiles confines a container. `RuntimeDefault`, which containers
 * that name none have too, is a profile of ours that is loaded when first needed; `Localhost` is one that an administrator loaded.
 * Invariant: a profile that was asked for confines the container, or the container does not start.
 */

import { existsSync, readFileSync } from 'node:fs';
import { wantedAppArmor } from '../../api/core/app-armor.ts';
import type { AppArmorProfile, Container, Pod } from '../../api/core/v1.gen.ts';
import { containersOf } from '../../api/machinery/pod.ts';
import { runCommand } from '../../sys/command.ts';
import type { Refusal } from './refusals.ts';

const ENABLED = '/sys/module/apparmor/parameters/enabled';
const LOADED = '/sys/kernel/security/apparmor/profiles';
const PARSER = ['/usr/sbin/apparmor_parser', '/sbin/apparmor_parser'];
const DEFAULT_PROFILE = 'cox-default';

/**
 * What a container has no business with even as root with capabilities: mounts, and what in /proc and /sys belongs to the machine. Who
 * stops and looks at it: whoever is not confined (runc has a profile of its own in Ubuntu, which confines nothing), and its own processes.
 */
const DEFAULT_TEXT = `
profile ${DEFAULT_PROFILE} flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,
  unix,
  dbus,
  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  signal (send, receive) peer=${DEFAULT_PROFILE},
  ptrace (trace, read, tracedby, readby) peer=${DEFAULT_PROFILE},
  ptrace (tracedby, readby) peer=unconfined,
  deny mount,
  deny /proc/* w,
  deny /proc/{acpi,bus,driver,fs,irq,scsi,tty}/** w,
  deny /proc/sys/{abi,debug,dev,fs,net,sunrpc,user,vm,xen}/** w,
  deny /proc/sys/kernel/{[^ms]*,m[^s]*,s[^eh]*}{,/**} w,
  deny /proc/{kcore,kmem,mem,sysrq-trigger} rwklx,
  deny /sys/{block,bus,class,dev,devices,firmware,hypervisor,kernel,module,power}/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/{firmware,kernel/security}/** rwklx,
}
`;

/** Why there is no AppArmor here; undefined where there is. */
export function appArmorMissing(): string | undefined {
  if (!existsSync(ENABLED) || !readFileSync(ENABLED, 'utf8').startsWith('Y'))
    return 'AppArmor is not enabled on the host';
  if (!existsSync(LOADED))
    return 'AppArmor is not enabled on the host: its files are not mounted; mount -t securityfs securityfs /sys/kernel/security';
  if (!PARSER.some(existsSync))
    return 'AppArmor is not enabled on the host: no program loads profiles; apt-get install apparmor';
  return undefined;
}

/** Why a pod cannot be admitted that asks for a profile where there are none, for privileged containers too: as upstream since 1.31. */
export function appArmorRefusal(pod: Pod): Refusal | undefined {
  const asks = (profile: AppArmorProfile | undefined) => profile !== undefined && profile.type !== 'Unconfined';
  const isAsked =
    asks(pod.spec.securityContext?.appArmorProfile) ||
    containersOf(pod.spec).some(({ container }) => asks(wantedAppArmor(pod, container)));
  const missing = isAsked ? appArmorMissing() : undefined;
  return missing === undefined ? undefined : { reason: 'AppArmor', message: `Cannot enforce AppArmor: ${missing}` };
}

/** The profile's name in the kernel; undefined for unconfined. Rejects with what becomes a CreateContainerConfigError. */
export async function appArmorProfile(pod: Pod, container: Container): Promise<string | undefined> {
  const wish = wantedAppArmor(pod, container);
  if (container.securityContext?.privileged || wish?.type === 'Unconfined') return undefined;
  const missing = appArmorMissing();
  if (missing && wish) throw new Error(`Cannot enforce AppArmor: ${missing}`);
  if (missing) return undefined;
  if (wish?.type !== 'Localhost') {
    if (!isLoaded(DEFAULT_PROFILE)) await loadDefault();
    return DEFAULT_PROFILE;
  }
  const name = wish.localhostProfile ?? '';
  if (!isLoaded(name)) throw new Error(`Cannot enforce AppArmor: profile "${name}" is not loaded`);
  return name;
}

/** Lines of `NAME (MODE)`. Asked for each container: an administrator may unload what was there. */
const isLoaded = (name: string): boolean =>
  name !== '' &&
  readFileSync(LOADED, 'utf8')
    .split('\n')
    .some(line => line.replace(/ \([a-z]+\)$/, '') === name);

async function loadDefault(): Promise<void> {
  await runCommand(PARSER.find(existsSync)!, ['--replace', '--skip-cache'], { input: DEFAULT_TEXT }).catch(error => {
    throw new Error(`Cannot enforce AppArmor: ${(error as Error).message}`);
  });
}
