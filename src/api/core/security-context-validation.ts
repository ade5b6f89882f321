/** Validation of the security contexts of pods and containers: users, sysctls, seccomp, AppArmor, Windows options. */

import { fieldErrors } from '../../base/errors.ts';
import { dnsSubdomainProblems, rangeProblem } from '../machinery/names.ts';
import {
  addDuplicate,
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  type Errors,
  eachAt,
  requireText,
} from '../machinery/validation.ts';
import type {
  AppArmorProfile,
  PodSpec,
  SeccompProfile,
  SecurityContext,
  WindowsSecurityContextOptions,
} from './v1.gen.ts';
import { checkRelativePath } from './volume-validation.ts';

const ID_MAX = 2 ** 31 - 1;
const SYSCTL_BYTES_MAX = 253;
const SYSCTL_PATTERN = '([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?';
const sysctlName = /^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$/;
const PROFILE_TYPES = ['Localhost', 'RuntimeDefault', 'Unconfined'];
const PATH_BYTES_MAX = 4095;
const GMSA_KIBIBYTES_MAX = 64;

function checkId(errors: Errors, path: string, id: number | undefined): void {
  if (id !== undefined && (id < 0 || id > ID_MAX)) addInvalid(errors, path, id, rangeProblem(0, ID_MAX));
}

export function checkPodSecurityContext(errors: Errors, path: string, spec: PodSpec): void {
  const context = spec.securityContext;
  if (!context) return;
  checkId(errors, `${path}.fsGroup`, context.fsGroup);
  checkId(errors, `${path}.runAsUser`, context.runAsUser);
  checkId(errors, `${path}.runAsGroup`, context.runAsGroup);
  eachAt(context.supplementalGroups, `${path}.supplementalGroups`, (group, at) => {
    checkId(errors, at, group);
  });
  if (spec.shareProcessNamespace && spec.hostPID)
    addInvalid(
      errors,
      `${path}.shareProcessNamespace`,
      true,
      'ShareProcessNamespace and HostPID cannot both be enabled',
    );
  if (context.sysctls?.length) checkSysctls(errors, `${path}.sysctls`, spec);
  allowOneOf(errors, `${path}.fsGroupChangePolicy`, context.fsGroupChangePolicy, ['Always', 'OnRootMismatch']);
  if (context.seccompProfile) checkSeccomp(errors, `${path}.seccompProfile`, context.seccompProfile);
  if (context.windowsOptions) checkWindowsOptions(errors, `${path}.windowsOptions`, context.windowsOptions);
  if (context.appArmorProfile) checkAppArmor(errors, `${path}.appArmorProfile`, context.appArmorProfile);
  allowOneOf(errors, `${path}.supplementalGroupsPolicy`, context.supplementalGroupsPolicy, ['Merge', 'Strict']);
  allowOneOf(errors, `${path}.seLinuxChangePolicy`, context.seLinuxChangePolicy, ['Recursive']);
}

function checkSysctls(errors: Errors, path: string, spec: PodSpec): void {
  const names = new Set<string>();
  eachAt(spec.securityContext?.sysctls, path, (sysctl, at) => {
    if (requireText(errors, `${at}.name`, sysctl.name)) {
      if (sysctl.name.length > SYSCTL_BYTES_MAX || !sysctlName.test(sysctl.name))
        addInvalid(
          errors,
          `${at}.name`,
          sysctl.name,
          `must have at most ${SYSCTL_BYTES_MAX} characters and match regex ^${SYSCTL_PATTERN}$`,
        );
      else if (names.has(sysctl.name)) addDuplicate(errors, `${at}.name`, sysctl.name);
    }
    const name = (sysctl.name ?? '').replaceAll('/', '.');
    if (spec.hostNetwork && name.startsWith('net.'))
      addInvalid(errors, `${at}.name`, sysctl.name, "may not be specified when 'hostNetwork' is true");
    const interprocess = /^(kernel\.(shm|msg)|fs\.mqueue\.|kernel\.sem)/.test(name);
    if (spec.hostIPC && interprocess)
      addInvalid(errors, `${at}.name`, sysctl.name, "may not be specified when 'hostIPC' is true");
    names.add(sysctl.name);
  });
}

function checkSeccomp(errors: Errors, path: string, profile: SeccompProfile): void {
  if (!profile.type) addRequired(errors, `${path}.type`, 'type is required when seccompProfile is set');
  else allowOneOf(errors, `${path}.type`, profile.type, PROFILE_TYPES);
  if (profile.type === 'Localhost') {
    if (profile.localhostProfile === undefined)
      addRequired(errors, `${path}.localhostProfile`, 'must be set when seccomp type is Localhost');
    else checkRelativePath(errors, `${path}.localhostProfile`, profile.localhostProfile);
  } else if (profile.localhostProfile !== undefined)
    addInvalid(errors, `${path}.localhostProfile`, profile, 'can only be set when seccomp type is Localhost');
}

function checkAppArmor(errors: Errors, path: string, profile: AppArmorProfile): void {
  const local = profile.localhostProfile;
  if (profile.type === 'Localhost') {
    const at = `${path}.localhostProfile`;
    if (local === undefined || local === '') addRequired(errors, at, 'must be set when AppArmor type is Localhost');
    else if (local.trim() !== local) addInvalid(errors, at, local, 'must not be padded with whitespace');
    if (local !== undefined && local.length > PATH_BYTES_MAX) errors.push(fieldErrors.tooLong(at, PATH_BYTES_MAX));
  } else if (!profile.type) addRequired(errors, `${path}.type`, 'type is required when appArmorProfile is set');
  else if (!PROFILE_TYPES.includes(profile.type))
    errors.push(fieldErrors.notSupported(`${path}.type`, profile.type, PROFILE_TYPES));
  else if (local !== undefined)
    addInvalid(errors, `${path}.localhostProfile`, local, 'can only be set when AppArmor type is Localhost');
}

export function checkSecurityContext(errors: Errors, path: string, context: SecurityContext, hostUsers: boolean): void {
  checkId(errors, `${path}.runAsUser`, context.runAsUser);
  checkId(errors, `${path}.runAsGroup`, context.runAsGroup);
  if (context.procMount !== undefined) {
    allowOneOf(errors, `${path}.procMount`, context.procMount, ['Default', 'Unmasked']);
    if (hostUsers && context.procMount === 'Unmasked')
      addInvalid(errors, `${path}.procMount`, context.procMount, '`hostUsers` must be false to use `Unmasked`');
  }
  if (context.seccompProfile) checkSeccomp(errors, `${path}.seccompProfile`, context.seccompProfile);
  if (context.allowPrivilegeEscalation === false) {
    if (context.privileged)
      addInvalid(errors, path, context, 'cannot set `allowPrivilegeEscalation` to false and `privileged` to true');
    if (context.capabilities?.add?.includes('CAP_SYS_ADMIN'))
      addInvalid(
        errors,
        path,
        context,
        'cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN',
      );
  }
  if (context.windowsOptions) checkWindowsOptions(errors, `${path}.windowsOptions`, context.windowsOptions);
  if (context.appArmorProfile) checkAppArmor(errors, `${path}.appArmorProfile`, context.appArmorProfile);
}

function checkWindowsOptions(errors: Errors, path: string, options: WindowsSecurityContextOptions): void {
  const { gmsaCredentialSpecName: name, gmsaCredentialSpec: credential, runAsUserName: user } = options;
  if (name !== undefined) addProblems(errors, `${path}.gmsaCredentialSpecName`, name, dnsSubdomainProblems(name));
  if (credential === '')
    addInvalid(errors, `${path}.gmsaCredentialSpec`, credential, 'gmsaCredentialSpec cannot be an empty string');
  else if (credential !== undefined && credential.length > GMSA_KIBIBYTES_MAX * 1024)
    addInvalid(
      errors,
      `${path}.gmsaCredentialSpec`,
      credential,
      `gmsaCredentialSpec size must be under ${GMSA_KIBIBYTES_MAX} KiB`,
    );
  if (user !== undefined)
    for (const problem of windowsUserProblems(user)) addInvalid(errors, `${path}.runAsUserName`, user, problem);
}

const netBiosDomain = /^[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}$/;
const dnsDomain = /^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$/;

/** `DOMAIN\USER`, the domain optional. */
function windowsUserProblems(name: string): string[] {
  if (name === '') return ['runAsUserName cannot be an empty string'];
  if (/[\x00-\x1f\x7f]/.test(name)) return ['runAsUserName cannot contain control characters'];
  const parts = name.split('\\');
  if (parts.length > 2) return ['runAsUserName cannot contain more than one backslash'];
  const user = parts.at(-1)!;
  const domain = parts.length === 2 ? parts[0]! : undefined;
  const problems: string[] = [];
  if (domain !== undefined && domain.length >= 256)
    problems.push("runAsUserName's Domain length must be under 256 characters");
  if (domain !== undefined && !netBiosDomain.test(domain) && !dnsDomain.test(domain))
    problems.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
  if (user === '') problems.push("runAsUserName's User cannot be empty");
  else if (user.length > 104) problems.push("runAsUserName's User length must not be longer than 104 characters");
  if (/^[. ]+$/.test(user)) problems.push("runAsUserName's User cannot contain only periods or spaces");
  if (/["/\\:;|=,+*?<>@[\]]/.test(user))
    problems.push('runAsUserName\'s User cannot contain the following characters: "/\\:;|=,+*?<>@[]');
  return problems;
}

const WINDOWS_REFUSAL = 'cannot be set for a windows pod';

/** What `spec.os` rules out: Windows options on Linux, Linux options on Windows. */
export function checkOs(errors: Errors, path: string, spec: PodSpec): void {
  const name = spec.os?.name;
  if (!name) {
    addRequired(errors, `${path}.os.name`);
    return;
  }
  if (name !== 'linux' && name !== 'windows') {
    errors.push(fieldErrors.notSupported(`${path}.os`, name, ['linux', 'windows']));
    return;
  }
  const containers = [
    ...(spec.initContainers ?? []).map((container, index) => ({
      context: container.securityContext,
      at: `${path}.initContainers[${index}].securityContext`,
    })),
    ...(spec.containers ?? []).map((container, index) => ({
      context: container.securityContext,
      at: `${path}.containers[${index}].securityContext`,
    })),
    ...(spec.ephemeralContainers ?? []).map((container, index) => ({
      context: container.securityContext,
      at: `${path}.ephemeralContainers[${index}].securityContext`,
    })),
  ];
  if (name === 'linux') {
    const refusal = 'windows options cannot be set for a linux pod';
    if (spec.securityContext?.windowsOptions) addForbidden(errors, `${path}.securityContext.windowsOptions`, refusal);
    for (const { context, at } of containers)
      if (context?.windowsOptions) addForbidden(errors, `${at}.windowsOptions`, refusal);
    return;
  }
  for (const field of [
    'appArmorProfile',
    'seLinuxOptions',
    'seccompProfile',
    'fsGroup',
    'fsGroupChangePolicy',
    'runAsUser',
    'runAsGroup',
    'supplementalGroups',
    'supplementalGroupsPolicy',
    'seLinuxChangePolicy',
  ] as const)
    if (spec.securityContext?.[field] !== undefined)
      addForbidden(errors, `${path}.securityContext.${field}`, WINDOWS_REFUSAL);
  if (spec.securityContext?.sysctls?.length) addForbidden(errors, `${path}.securityContext.sysctls`, WINDOWS_REFUSAL);
  for (const field of ['hostUsers', 'shareProcessNamespace'] as const)
    if (spec[field] !== undefined) addForbidden(errors, `${path}.${field}`, WINDOWS_REFUSAL);
  for (const field of ['hostPID', 'hostIPC'] as const)
    if (spec[field]) addForbidden(errors, `${path}.${field}`, WINDOWS_REFUSAL);
  for (const { context, at } of containers)
    for (const field of [
      'appArmorProfile',
      'seLinuxOptions',
      'seccompProfile',
      'capabilities',
      'readOnlyRootFilesystem',
      'privileged',
      'allowPrivilegeEscalation',
      'procMount',
      'runAsUser',
      'runAsGroup',
    ] as const)
      if (context?.[field] !== undefined) addForbidden(errors, `${at}.${field}`, WINDOWS_REFUSAL);
}
