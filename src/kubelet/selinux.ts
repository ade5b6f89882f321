/**
 * SELinux labels of pods: from `seLinuxOptions` and the machine's own defaults to the label of a process and that of its files, as the libraries
 * of other container runtimes do. Pure but for reading the defaults. It labels nothing.
 */

import { readFileSync } from 'node:fs';
import type { Container, Pod, SELinuxOptions } from '../api/core/v1.gen.ts';
import type { Random } from '../base/random.ts';
import { everyContainer } from './pods/resources.ts';

export interface Labels {
  /** Absent: as the runtime's own. */
  readonly process?: string;
  readonly file: string;
}

/** Of containers without options, and of the files that images bring. */
export interface DefaultLabels extends Required<Labels> {
  readonly layer: string;
}

const CATEGORIES = 1024;
const CONFIGURATION = '/etc/selinux/config';
const POLICY_DEFAULT = 'targeted';
/** The first that is there, as for Podman and containerd. */
const contextFiles = (policy: string) => [
  '/usr/share/containers/selinux/contexts',
  `/etc/selinux/${policy}/contexts/lxc_contexts`,
];
const FALLBACK: DefaultLabels = {
  process: 'system_u:system_r:container_t:s0',
  file: 'system_u:object_r:container_file_t:s0',
  layer: 'system_u:object_r:container_ro_file_t:s0',
};

/** What containers have without options: from the files that other container tools read. */
export function defaultLabels(read: (path: string) => string | undefined = textOf): DefaultLabels {
  const policy = /^\s*SELINUXTYPE\s*=\s*(\S+)/m.exec(read(CONFIGURATION) ?? '')?.[1] ?? POLICY_DEFAULT;
  const text = contextFiles(policy)
    .map(read)
    .find(found => found !== undefined);
  const value = (key: string) => new RegExp(`^\\s*${key}\\s*=\\s*"?([^"\\s]+)"?\\s*$`, 'm').exec(text ?? '')?.[1];
  const file = value('file');
  return {
    process: value('process') ?? FALLBACK.process,
    file: file ?? FALLBACK.file,
    layer: value('ro_file') ?? file ?? FALLBACK.layer,
  };
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** Files have the user and the level of the process, and keep a role and a type of their own. */
export function labelsFor(
  options: SELinuxOptions | undefined,
  level: string,
  defaults: DefaultLabels,
): Required<Labels> {
  const { user, role, type } = options ?? {};
  const shared = { user, level: options?.level || level };
  return {
    process: changed(defaults.process, { ...shared, role, type }),
    file: changed(defaults.file, shared),
  };
}

type Parts = Readonly<Partial<Record<'user' | 'role' | 'type' | 'level', string | undefined>>>;

// A policy without levels has labels of three parts.
function changed(label: string, parts: Parts): string {
  const [user, role, type, ...level] = label.split(':');
  return [
    parts.user || user,
    parts.role || role,
    parts.type || type,
    ...(level.length ? [parts.level || level.join(':')] : []),
  ].join(':');
}

/** Two categories that no other pod of the node has together. */
export function freeLevel(taken: ReadonlySet<string | undefined>, random: Random): string {
  const category = () => Math.floor(random.next() * CATEGORIES);
  for (;;) {
    const [a, b] = [category(), category()];
    const level = `s0:c${Math.min(a, b)},c${Math.max(a, b)}`;
    if (a !== b && !taken.has(level)) return level;
  }
}

/** A container's own options take the place of the pod's, all of them. */
export function optionsOf(pod: Pod, container?: Container): SELinuxOptions | undefined {
  const options = container?.securityContext?.seLinuxOptions ?? pod.spec.securityContext?.seLinuxOptions;
  return options && Object.values(options).some(Boolean) ? options : undefined;
}

/**
 * The one label with which all containers of the pod use the volume, `''` where its level is left to the runtime. Throws where they differ:
 * what is mounted with a label can have only one.
 */
export function labelOfVolume(pod: Pod, volume: string, defaults: DefaultLabels): string {
  const labels = everyContainer(pod)
    .filter(({ volumeMounts }) => volumeMounts?.some(({ name }) => name === volume))
    .map(container => {
      const options = container.securityContext?.privileged ? undefined : optionsOf(pod, container);
      return options?.level ? labelsFor(options, options.level, defaults).file : '';
    });
  const different = [...new Set(labels)];
  if (different.length > 1)
    throw new Error(`multiple SELinux labels found: ${different.map(label => label || '""').join(',')}`);
  return different[0] ?? '';
}
