/**
 * The pod security standards as checks of a pod's metadata and spec, in upstream's words. Pure. A check of the restricted
 * level that says more takes the place of one of the baseline level.
 */

import { APP_ARMOR_ANNOTATION } from '../../api/core/app-armor.ts';
import type { Container, PodSpec, PodTemplateSpec, SecurityContext } from '../../api/core/v1.gen.ts';

export interface Subject {
  readonly annotations: Readonly<Record<string, string>>;
  readonly spec: PodSpec;
}

interface Forbidden {
  readonly reason: string;
  readonly detail?: string;
}

interface Check {
  readonly id: string;
  readonly level: 'baseline' | 'restricted';
  /** Minor version since when it is part of its level. */
  readonly since?: number;
  readonly overrides?: string;
  readonly run: (subject: Subject, minor: number) => Forbidden | undefined;
}

/** Of all containers, the ephemeral ones too. */
function containersOf({ spec }: Subject): readonly Container[] {
  return [
    ...(spec.initContainers ?? []),
    ...(spec.containers ?? []),
    ...((spec.ephemeralContainers ?? []) as readonly unknown[] as readonly Container[]),
  ];
}

const quoted = (values: Iterable<string>): string => [...values].map(value => JSON.stringify(value)).join(', ');
const plural = (one: string, many: string, count: number): string => (count === 1 ? one : many);
const sorted = (values: Iterable<string>): string[] => [...new Set(values)].sort();
const named = (names: readonly string[]): string =>
  `${plural('container', 'containers', names.length)} ${quoted(names)}`;
const isWindows = ({ spec }: Subject): boolean => spec.os?.name === 'windows';

/** Names of the containers for which the test holds. */
function failing(
  subject: Subject,
  test: (context: SecurityContext | undefined, container: Container) => boolean,
): string[] {
  return containersOf(subject)
    .filter(container => test(container.securityContext, container))
    .map(container => container.name);
}

/** `pod and containers "a", "b"` */
function setters(pod: boolean, names: readonly string[]): string {
  return [...(pod ? ['pod'] : []), ...(names.length > 0 ? [named(names)] : [])].join(' and ');
}

const BASELINE_CAPABILITIES = new Set(
  'AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT'.split(
    ' ',
  ),
);
const SYSCTLS: readonly (readonly [name: string, since: number])[] = [
  ['kernel.shm_rmid_forced', 0],
  ['net.ipv4.ip_local_port_range', 0],
  ['net.ipv4.tcp_syncookies', 0],
  ['net.ipv4.ping_group_range', 0],
  ['net.ipv4.ip_unprivileged_port_start', 0],
  ['net.ipv4.ip_local_reserved_ports', 27],
  ['net.ipv4.tcp_keepalive_time', 29],
  ['net.ipv4.tcp_fin_timeout', 29],
  ['net.ipv4.tcp_keepalive_intvl', 29],
  ['net.ipv4.tcp_keepalive_probes', 29],
  ['net.ipv4.tcp_rmem', 32],
  ['net.ipv4.tcp_wmem', 32],
];
const SELINUX_TYPES = ['', 'container_t', 'container_init_t', 'container_kvm_t'];
const RESTRICTED_VOLUMES = new Set([
  'configMap',
  'csi',
  'downwardAPI',
  'emptyDir',
  'ephemeral',
  'image',
  'persistentVolumeClaim',
  'projected',
  'secret',
]);

const capabilities = (context: SecurityContext | undefined): readonly string[] => context?.capabilities?.add ?? [];

const CHECKS: readonly Check[] = [
  {
    id: 'allowPrivilegeEscalation',
    level: 'restricted',
    since: 8,
    run(subject, minor) {
      if (minor >= 25 && isWindows(subject)) return undefined;
      const names = failing(subject, context => context?.allowPrivilegeEscalation !== false);
      if (names.length === 0) return undefined;
      const detail = `${named(names)} must set securityContext.allowPrivilegeEscalation=false`;
      return { reason: 'allowPrivilegeEscalation != false', detail };
    },
  },
  {
    id: 'appArmorProfile',
    level: 'baseline',
    run(subject) {
      const bad: string[] = [];
      const pod = subject.spec.securityContext?.appArmorProfile?.type === 'Unconfined';
      const names = failing(subject, context => context?.appArmorProfile?.type === 'Unconfined');
      if (pod || names.length > 0)
        bad.push(`${setters(pod, names)} must not set AppArmor profile type to "Unconfined"`);
      const annotations = Object.entries(subject.annotations)
        .filter(
          ([key, value]) =>
            key.startsWith(APP_ARMOR_ANNOTATION) &&
            value !== '' &&
            value !== 'runtime/default' &&
            !value.startsWith('localhost/'),
        )
        .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
        .sort();
      if (annotations.length > 0)
        bad.push(`${plural('annotation', 'annotations', annotations.length)} ${annotations.join(', ')}`);
      if (bad.length === 0) return undefined;
      const count = annotations.length + names.length + (pod ? 1 : 0);
      return {
        reason: plural('forbidden AppArmor profile', 'forbidden AppArmor profiles', count),
        detail: bad.join(', '),
      };
    },
  },
  {
    id: 'capabilities_baseline',
    level: 'baseline',
    run(subject) {
      const isBad = (name: string) => !BASELINE_CAPABILITIES.has(name);
      const names = failing(subject, context => capabilities(context).some(isBad));
      if (names.length === 0) return undefined;
      const bad = sorted(
        containersOf(subject).flatMap(({ securityContext }) => capabilities(securityContext).filter(isBad)),
      );
      return {
        reason: 'non-default capabilities',
        detail: `${named(names)} must not include ${quoted(bad)} in securityContext.capabilities.add`,
      };
    },
  },
  {
    id: 'capabilities_restricted',
    level: 'restricted',
    since: 22,
    overrides: 'capabilities_baseline',
    run(subject, minor) {
      if (minor >= 25 && isWindows(subject)) return undefined;
      const keeping = failing(subject, context => !context?.capabilities?.drop?.includes('ALL'));
      const isBad = (name: string) => name !== 'NET_BIND_SERVICE';
      const adding = failing(subject, context => capabilities(context).some(isBad));
      const details: string[] = [];
      if (keeping.length > 0) details.push(`${named(keeping)} must set securityContext.capabilities.drop=["ALL"]`);
      if (adding.length > 0) {
        const bad = sorted(
          containersOf(subject).flatMap(({ securityContext }) => capabilities(securityContext).filter(isBad)),
        );
        details.push(`${named(adding)} must not include ${quoted(bad)} in securityContext.capabilities.add`);
      }
      return details.length > 0 ? { reason: 'unrestricted capabilities', detail: details.join('; ') } : undefined;
    },
  },
  {
    id: 'hostNamespaces',
    level: 'baseline',
    run({ spec }) {
      const bad = (['hostNetwork', 'hostPID', 'hostIPC'] as const)
        .filter(name => spec[name])
        .map(name => `${name}=true`);
      return bad.length > 0 ? { reason: 'host namespaces', detail: bad.join(', ') } : undefined;
    },
  },
  {
    id: 'hostPathVolumes',
    level: 'baseline',
    run({ spec }) {
      const names = (spec.volumes ?? []).filter(volume => volume.hostPath).map(volume => volume.name);
      if (names.length === 0) return undefined;
      return { reason: 'hostPath volumes', detail: `${plural('volume', 'volumes', names.length)} ${quoted(names)}` };
    },
  },
  {
    id: 'hostPorts',
    level: 'baseline',
    run(subject) {
      const portsOf = ({ ports = [] }: Container) =>
        ports.flatMap(port => (port.hostPort ? [String(port.hostPort)] : []));
      const names = failing(subject, (_, container) => portsOf(container).length > 0);
      if (names.length === 0) return undefined;
      const ports = sorted(containersOf(subject).flatMap(portsOf));
      const detail = `${named(names)} ${plural('uses', 'use', names.length)} ${plural('hostPort', 'hostPorts', ports.length)} ${ports.join(', ')}`;
      return { reason: 'hostPort', detail };
    },
  },
  {
    id: 'hostProbesAndHostLifecycle',
    level: 'baseline',
    since: 34,
    run(subject) {
      const hostsOf = ({ livenessProbe, readinessProbe, startupProbe, lifecycle }: Container) =>
        [livenessProbe, readinessProbe, startupProbe, lifecycle?.postStart, lifecycle?.preStop].flatMap(handler =>
          [handler?.httpGet?.host, handler?.tcpSocket?.host].filter(host => host !== undefined && host !== ''),
        ) as string[];
      const names = failing(subject, (_, container) => hostsOf(container).length > 0);
      if (names.length === 0) return undefined;
      const hosts = sorted(containersOf(subject).flatMap(hostsOf));
      return {
        reason: 'probe or lifecycle host',
        detail: `${named(names)} ${plural('uses', 'use', names.length)} probe or lifecycle ${plural('host', 'hosts', hosts.length)} ${quoted(hosts)}`,
      };
    },
  },
  {
    id: 'privileged',
    level: 'baseline',
    run(subject) {
      const names = failing(subject, context => context?.privileged === true);
      if (names.length === 0) return undefined;
      return { reason: 'privileged', detail: `${named(names)} must not set securityContext.privileged=true` };
    },
  },
  {
    id: 'procMount',
    level: 'baseline',
    run(subject, minor) {
      if (minor >= 35 && subject.spec.hostUsers === false) return undefined;
      const isBad = (context: SecurityContext | undefined) =>
        context?.procMount !== undefined && context.procMount !== 'Default';
      const names = failing(subject, isBad);
      if (names.length === 0) return undefined;
      const bad = sorted(
        containersOf(subject).flatMap(({ securityContext }) =>
          isBad(securityContext) ? [securityContext!.procMount!] : [],
        ),
      );
      return {
        reason: 'procMount',
        detail: `${named(names)} must not set securityContext.procMount to ${quoted(bad)}`,
      };
    },
  },
  {
    id: 'restrictedVolumes',
    level: 'restricted',
    overrides: 'hostPathVolumes',
    run({ spec }) {
      const typesOf = (volume: object) =>
        Object.entries(volume)
          .filter(([name, value]) => name !== 'name' && value !== undefined && !RESTRICTED_VOLUMES.has(name))
          .map(([name]) => name);
      const bad = (spec.volumes ?? []).filter(volume => typesOf(volume).length > 0);
      if (bad.length === 0) return undefined;
      const types = sorted(bad.flatMap(typesOf));
      const names = bad.map(volume => volume.name);
      return {
        reason: 'restricted volume types',
        detail: `${plural('volume', 'volumes', names.length)} ${quoted(names)} ${plural('uses', 'use', names.length)} restricted volume ${plural('type', 'types', types.length)} ${quoted(types)}`,
      };
    },
  },
  {
    id: 'runAsNonRoot',
    level: 'restricted',
    run(subject, minor) {
      if (minor >= 35 && subject.spec.hostUsers === false) return undefined;
      const pod = subject.spec.securityContext?.runAsNonRoot;
      const explicit = failing(subject, context => context?.runAsNonRoot === false);
      if (explicit.length > 0 || pod === false)
        return {
          reason: 'runAsNonRoot != true',
          detail: `${setters(pod === false, explicit)} must not set securityContext.runAsNonRoot=false`,
        };
      const implicit = failing(subject, context => context?.runAsNonRoot === undefined);
      if (pod || implicit.length === 0) return undefined;
      return {
        reason: 'runAsNonRoot != true',
        detail: `pod or ${named(implicit)} must set securityContext.runAsNonRoot=true`,
      };
    },
  },
  {
    id: 'runAsUser',
    level: 'restricted',
    since: 23,
    run(subject, minor) {
      if (minor >= 35 && subject.spec.hostUsers === false) return undefined;
      const pod = subject.spec.securityContext?.runAsUser === 0;
      const names = failing(subject, context => context?.runAsUser === 0);
      if (!pod && names.length === 0) return undefined;
      return { reason: 'runAsUser=0', detail: `${setters(pod, names)} must not set runAsUser=0` };
    },
  },
  {
    id: 'seLinuxOptions',
    level: 'baseline',
    run(subject, minor) {
      const allowed = minor >= 31 ? [...SELINUX_TYPES, 'container_engine_t'] : SELINUX_TYPES;
      const problems = (options: { type?: string; user?: string; role?: string } | undefined) => ({
        type: options?.type !== undefined && !allowed.includes(options.type) ? options.type : undefined,
        user: Boolean(options?.user),
        role: Boolean(options?.role),
      });
      const isBad = (found: ReturnType<typeof problems>) => found.type !== undefined || found.user || found.role;
      const pod = problems(subject.spec.securityContext?.seLinuxOptions);
      const names = failing(subject, context => isBad(problems(context?.seLinuxOptions)));
      if (!isBad(pod) && names.length === 0) return undefined;
      const all = [
        pod,
        ...containersOf(subject).map(({ securityContext }) => problems(securityContext?.seLinuxOptions)),
      ];
      const types = sorted(all.flatMap(({ type }) => (type === undefined ? [] : [type])));
      const data = [
        ...(types.length > 0 ? [`${plural('type', 'types', types.length)} ${quoted(types)}`] : []),
        ...(all.some(({ user }) => user) ? ['user may not be set'] : []),
        ...(all.some(({ role }) => role) ? ['role may not be set'] : []),
      ];
      return {
        reason: 'seLinuxOptions',
        detail: `${setters(isBad(pod), names)} set forbidden securityContext.seLinuxOptions: ${data.join('; ')}`,
      };
    },
  },
  {
    id: 'seccompProfile_baseline',
    level: 'baseline',
    since: 19,
    run: subject => seccompSet(subject, type => type === 'Unconfined'),
  },
  {
    id: 'seccompProfile_restricted',
    level: 'restricted',
    since: 19,
    overrides: 'seccompProfile_baseline',
    run(subject, minor) {
      if (minor >= 25 && isWindows(subject)) return undefined;
      const explicit = seccompSet(subject, type => type !== 'RuntimeDefault' && type !== 'Localhost');
      if (explicit) return explicit;
      if (subject.spec.securityContext?.seccompProfile?.type) return undefined;
      const names = failing(subject, context => !context?.seccompProfile?.type);
      if (names.length === 0) return undefined;
      return {
        reason: 'seccompProfile',
        detail: `pod or ${named(names)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"`,
      };
    },
  },
  {
    id: 'sysctls',
    level: 'baseline',
    run({ spec }, minor) {
      const bad = (spec.securityContext?.sysctls ?? [])
        .map(({ name }) => name)
        .filter(name => !SYSCTLS.some(([allowed, since]) => allowed === name && since <= minor));
      return bad.length > 0 ? { reason: 'forbidden sysctls', detail: bad.join(', ') } : undefined;
    },
  },
  {
    id: 'windowsHostProcess',
    level: 'baseline',
    run(subject) {
      const pod = subject.spec.securityContext?.windowsOptions?.hostProcess === true;
      const names = failing(subject, context => context?.windowsOptions?.hostProcess === true);
      if (!pod && names.length === 0) return undefined;
      return {
        reason: 'hostProcess',
        detail: `${setters(pod, names)} must not set securityContext.windowsOptions.hostProcess=true`,
      };
    },
  },
];

function seccompSet(subject: Subject, isBad: (type: string) => boolean): Forbidden | undefined {
  const own = subject.spec.securityContext?.seccompProfile?.type;
  const pod = own !== undefined && own !== '' && isBad(own);
  const typeOf = (context: SecurityContext | undefined) => context?.seccompProfile?.type;
  const names = failing(subject, context => Boolean(typeOf(context)) && isBad(typeOf(context)!));
  if (!pod && names.length === 0) return undefined;
  const bad = sorted([
    ...(pod ? [own] : []),
    ...containersOf(subject).flatMap(({ securityContext }) => {
      const type = typeOf(securityContext);
      return type && isBad(type) ? [type] : [];
    }),
  ]);
  return {
    reason: 'seccompProfile',
    detail: `${setters(pod, names)} must not set securityContext.seccompProfile.type to ${quoted(bad)}`,
  };
}

export type Level = 'privileged' | 'baseline' | 'restricted';

/** What keeps the pod out of the level, as one text; undefined when nothing does. */
export function violations(subject: Subject, level: Level, minor: number): string | undefined {
  if (level === 'privileged') return undefined;
  const active = CHECKS.filter(
    check => (check.since ?? 0) <= minor && (check.level === 'baseline' || level === 'restricted'),
  );
  const overridden = new Set(active.map(check => check.overrides));
  const found = active.flatMap(check => (overridden.has(check.id) ? [] : (check.run(subject, minor) ?? [])));
  if (found.length === 0) return undefined;
  return found.map(({ reason, detail }) => (detail ? `${reason} (${detail})` : reason)).join(', ');
}

export function subjectOf({ metadata, spec }: PodTemplateSpec): Subject {
  return { annotations: metadata?.annotations ?? {}, spec: spec ?? ({} as PodSpec) };
}
