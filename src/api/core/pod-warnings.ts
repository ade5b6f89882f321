/**
 * What upstream warns of in a pod or a template of pods (release 1.35's `pkg/api/pod/warnings.go`, in its order): what is accepted, and
 * does not what it looks like. Pure.
 */

import { warnOfAddress } from '../machinery/address-forms.ts';
import { labelDeprecation, warnOfLabels, warnOfTerm } from '../machinery/deprecated-labels.ts';
import { dnsLabelProblems } from '../machinery/names.ts';
import { containersOf } from '../machinery/pod.ts';
import { parseNano } from '../machinery/quantity.ts';
import { eachAt } from '../machinery/validation.ts';
import type { KubeObject, ObjectMeta } from '../meta.ts';
import { APP_ARMOR_ANNOTATION, appArmorWarnings } from './app-armor.ts';
import { overlapWarnings } from './overlapping-paths.ts';
import type {
  Affinity,
  Container,
  ContainerPort,
  EphemeralContainer,
  PersistentVolumeClaimSpec,
  Pod,
  PodAffinityTerm,
  PodSpec,
  PodTemplateSpec,
  Volume,
} from './v1.gen.ts';

const DEPRECATED_ANNOTATIONS = [
  ['scheduler.alpha.kubernetes.io/critical-pod', 'non-functional in v1.16+; use the "priorityClassName" field instead'],
  ['security.alpha.kubernetes.io/sysctls', 'non-functional in v1.11+; use the "sysctls" field instead'],
  ['security.alpha.kubernetes.io/unsafe-sysctls', 'non-functional in v1.11+; use the "sysctls" field instead'],
] as const;
const SECCOMP_POD_ANNOTATION = 'seccomp.security.alpha.kubernetes.io/pod';
const SECCOMP_ANNOTATION = 'container.seccomp.security.alpha.kubernetes.io/';
const USE_SECCOMP = 'non-functional in v1.27+; use the "seccompProfile" field instead';
const DEPRECATED_VOLUMES = {
  photonPersistentDisk: 'deprecated in v1.11, non-functional in v1.16+',
  gitRepo: 'deprecated in v1.11',
  scaleIO: 'deprecated in v1.16, non-functional in v1.22+',
  flocker: 'deprecated in v1.22, non-functional in v1.25+',
  storageos: 'deprecated in v1.22, non-functional in v1.25+',
  quobyte: 'deprecated in v1.22, non-functional in v1.25+',
  glusterfs: 'deprecated in v1.25, non-functional in v1.26+',
  cephfs: 'deprecated in v1.28, non-functional in v1.31+',
  rbd: 'deprecated in v1.28, non-functional in v1.31+',
} as const;
const NO_SELECTOR = 'a null labelSelector results in matching no pod';
const HOSTNAME = 'which can result in surprising behavior; a DNS label is recommended';
const FRACTIONAL = ['memory', 'ephemeral-storage'] as const;
const NANO = 1_000_000_000n;

type Workload = KubeObject & { readonly spec?: { readonly template?: PodTemplateSpec } };
type DeprecatedVolume = keyof typeof DEPRECATED_VOLUMES;
type AnyContainer = Container | EphemeralContainer;
type Amounts = Readonly<Record<string, string>> | undefined;

/** Of a pod that is made; updates are not warned of. */
export function podWarnings(pod: Pod): string[] {
  return [
    ...appArmorWarnings(pod),
    ...nameWarnings(pod.metadata.name, "this is used in the Pod's hostname"),
    ...warningsAt('', pod.spec, pod.metadata),
  ];
}

/** `path` is that of the template. */
export function templateWarnings(path: string, template: PodTemplateSpec | undefined): string[] {
  return template ? warningsAt(`${path}.`, template.spec, template.metadata) : [];
}

/** Of a workload: of its name when it is made, of its template when it is another. */
export function workloadWarnings(object: Workload, old: Workload | undefined, named?: 'any name'): string[] {
  return [
    ...(old || named ? [] : workloadNameWarnings(object.metadata.name)),
    ...(isSameGeneration(object, old) ? [] : templateWarnings('spec.template', object.spec?.template)),
  ];
}

export function isSameGeneration(object: KubeObject, old: KubeObject | undefined): boolean {
  return object.metadata.generation === old?.metadata.generation && old !== undefined;
}

/** Of the name of something that makes pods named after it. */
export function workloadNameWarnings(name: string): string[] {
  return nameWarnings(name, 'this is used in Pod names and hostnames');
}

function nameWarnings(name: string, use: string): string[] {
  const problems = dnsLabelProblems(name);
  return problems.length ? [`metadata.name: ${use}, ${HOSTNAME}: [${problems.join(' ')}]`] : [];
}

/** Of the claim that a template or a volume makes. */
export function claimSpecWarnings(path: string, spec: PersistentVolumeClaimSpec | undefined): string[] {
  const warnings: string[] = [];
  for (const which of ['requests', 'limits'] as const)
    warnOfFractions(warnings, `${path}.resources.${which}`, spec?.resources?.[which], ['storage']);
  return warnings;
}

function warningsAt(prefix: string, spec: PodSpec | undefined, metadata: Partial<ObjectMeta> | undefined): string[] {
  if (!spec) return [];
  const warnings: string[] = [];
  const path = `${prefix}spec`;
  const annotations = metadata?.annotations ?? {};
  const warnOfAnnotation = (key: string, message: string) => {
    if (annotations[key] !== undefined) warnings.push(`${prefix}metadata.annotations[${key}]: ${message}`);
  };
  warnOfPlacement(warnings, path, spec);
  for (const [key, message] of DEPRECATED_ANNOTATIONS) warnOfAnnotation(key, message);
  eachAt(spec.volumes, `${path}.volumes`, (volume, at) => warnOfVolume(warnings, at, volume));
  warnings.push(...overlapWarnings(spec.volumes));
  warnOfTwins(warnings, `${path}.hostAliases`, spec.hostAliases, 'ip');
  warnOfTwins(warnings, `${path}.imagePullSecrets`, spec.imagePullSecrets, 'name');
  eachAt(spec.imagePullSecrets, `${path}.imagePullSecrets`, ({ name }, at) => {
    if (!name) warnings.push(`${at}.name: invalid empty name ""`);
  });
  warnOfFractions(warnings, `${path}.overhead`, spec.overhead, FRACTIONAL);
  if (!spec.securityContext?.seccompProfile) warnOfAnnotation(SECCOMP_POD_ANNOTATION, USE_SECCOMP);
  const containers = containersAt(path, spec);
  for (const [at, container] of containers) {
    const { name, resources, securityContext } = container;
    if (!securityContext?.seccompProfile) warnOfAnnotation(SECCOMP_ANNOTATION + name, USE_SECCOMP);
    if (prefix && !spec.securityContext?.appArmorProfile && !securityContext?.appArmorProfile)
      warnOfAnnotation(APP_ARMOR_ANNOTATION + name, 'deprecated since v1.30; use the "appArmorProfile" field instead');
    for (const which of ['limits', 'requests'] as const)
      warnOfFractions(warnings, `${at}.resources.${which}`, resources?.[which], FRACTIONAL);
    warnOfHiddenVariables(warnings, at, container);
  }
  warnOfPorts(warnings, containers);
  if ((spec.terminationGracePeriodSeconds ?? 0) < 0)
    warnings.push(
      `${path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1`,
    );
  warnOfPodAffinity(warnings, `${path}.affinity`, spec.affinity);
  eachAt(spec.dnsConfig?.nameservers, `${path}.dnsConfig.nameservers`, (address, at) =>
    warnOfAddress(warnings, at, address),
  );
  eachAt(spec.hostAliases, `${path}.hostAliases`, ({ ip }, at) => warnOfAddress(warnings, `${at}.ip`, ip));
  return warnings;
}

function containersAt(path: string, spec: PodSpec): [string, AnyContainer][] {
  const lists = { init: 'initContainers', container: 'containers', ephemeral: 'ephemeralContainers' } as const;
  const counts = { init: 0, container: 0, ephemeral: 0 };
  return [...containersOf(spec)].map(({ container, role }) => [`${path}.${lists[role]}[${counts[role]++}]`, container]);
}

function warnOfPlacement(warnings: string[], path: string, spec: PodSpec): void {
  warnOfLabels(warnings, spec.nodeSelector, label => `${path}.nodeSelector[${label}]`);
  const { requiredDuringSchedulingIgnoredDuringExecution: required, preferredDuringSchedulingIgnoredDuringExecution } =
    spec.affinity?.nodeAffinity ?? {};
  const at = `${path}.affinity.nodeAffinity`;
  eachAt(
    required?.nodeSelectorTerms,
    `${at}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms`,
    (term, termAt) => warnOfTerm(warnings, termAt, term),
  );
  eachAt(
    preferredDuringSchedulingIgnoredDuringExecution,
    `${at}.preferredDuringSchedulingIgnoredDuringExecution`,
    ({ preference }, termAt) => warnOfTerm(warnings, `${termAt}.preference`, preference, 'values'),
  );
  eachAt(spec.topologySpreadConstraints, `${path}.topologySpreadConstraints`, (constraint, constraintAt) => {
    const message = labelDeprecation(constraint.topologyKey);
    if (message) warnings.push(`${constraintAt}.topologyKey: ${constraint.topologyKey} is ${message}`);
    if (!constraint.labelSelector) warnings.push(`${constraintAt}.labelSelector: ${NO_SELECTOR}`);
  });
}

export function deprecatedVolumeWarning(path: string, source: DeprecatedVolume): string {
  return `${path}.${source === 'storageos' ? 'storageOS' : source}: ${DEPRECATED_VOLUMES[source]}`;
}

function warnOfVolume(warnings: string[], path: string, volume: Volume): void {
  for (const source of Object.keys(DEPRECATED_VOLUMES) as DeprecatedVolume[])
    if (volume[source]) warnings.push(deprecatedVolumeWarning(path, source));
  const claim = volume.ephemeral?.volumeClaimTemplate;
  if (claim) warnings.push(...claimSpecWarnings(`${path}.ephemeral.volumeClaimTemplate.spec`, claim.spec));
}

function warnOfTwins<K extends string>(
  warnings: string[],
  path: string,
  items: readonly { readonly [key in K]?: string }[] | undefined,
  key: K,
): void {
  const seen = new Set<string>();
  eachAt(items, path, (item, at) => {
    const value = item[key] ?? '';
    if (seen.has(value)) warnings.push(`${at}.${key}: duplicate ${key} ${JSON.stringify(value)}`);
    seen.add(value);
  });
}

function warnOfFractions(warnings: string[], path: string, amounts: Amounts, names: readonly string[]): void {
  for (const name of names) {
    const amount = amounts?.[name];
    if (amount !== undefined && (parseNano(amount) ?? 0n) % NANO !== 0n)
      warnings.push(`${path}[${name}]: fractional byte value ${JSON.stringify(amount)} is invalid, must be an integer`);
  }
}

function warnOfHiddenVariables(warnings: string[], path: string, { env }: AnyContainer): void {
  const seen = new Set<string>();
  eachAt(env, `${path}.env`, ({ name, value = '', valueFrom }, at) => {
    const reference = `$(${name})`;
    // A value that refers to the earlier one is meant to follow it.
    if (seen.has(name) && (valueFrom || value === reference || !value.includes(reference)))
      warnings.push(
        `${at}: hides previous definition of ${JSON.stringify(name)}, which may be dropped when using apply`,
      );
    seen.add(name);
  });
}

function warnOfPorts(warnings: string[], containers: readonly (readonly [string, AnyContainer])[]): void {
  const known = new Map<string, [string, ContainerPort][]>();
  const each = (check: (port: ContainerPort, at: string) => void) => {
    for (const [path, { ports }] of containers) eachAt(ports, `${path}.ports`, check);
  };
  each((port, at) => {
    const { name = '', hostPort = 0, containerPort, protocol, hostIP = '' } = port;
    if (hostIP && hostPort === 0)
      warnings.push(
        `${at}: hostIP set without hostPort: {Name:${name} HostPort:0 ContainerPort:${containerPort} Protocol:${protocol} HostIP:${hostIP}}`,
      );
    const key = `${containerPort}/${protocol}`;
    const others = known.get(key) ?? [];
    for (const [otherAt, { hostPort: otherPort = 0, hostIP: otherIp = '' }] of others) {
      const isSamePort = hostPort === otherPort;
      if (isSamePort && hostIP === otherIp) warnings.push(`${at}: duplicate port definition with ${otherAt}`);
      else if (hostPort === 0 || otherPort === 0) warnings.push(`${at}: overlapping port definition with ${otherAt}`);
      else if (isSamePort && (hostIP === '') !== (otherIp === ''))
        warnings.push(`${at}: dangerously ambiguous port definition with ${otherAt}`);
    }
    known.set(key, [...others, [at, port]]);
  });
  const names = new Map<string, string>();
  each(({ name }, at) => {
    if (!name) return;
    const other = names.get(name);
    if (other)
      warnings.push(
        `${at}: duplicate port name ${JSON.stringify(name)} with ${other}, services and probes that select ports by name will use ${other}`,
      );
    else names.set(name, at);
  });
}

function warnOfPodAffinity(warnings: string[], path: string, affinity: Affinity | undefined): void {
  const check = (term: PodAffinityTerm | undefined, at: string) => {
    if (!term?.labelSelector) warnings.push(`${at}.labelSelector: ${NO_SELECTOR}`);
  };
  for (const which of ['podAffinity', 'podAntiAffinity'] as const) {
    const at = `${path}.${which}`;
    eachAt(
      affinity?.[which]?.requiredDuringSchedulingIgnoredDuringExecution,
      `${at}.requiredDuringSchedulingIgnoredDuringExecution`,
      check,
    );
    eachAt(
      affinity?.[which]?.preferredDuringSchedulingIgnoredDuringExecution,
      `${at}.preferredDuringSchedulingIgnoredDuringExecution`,
      ({ podAffinityTerm }, termAt) => check(podAffinityTerm, `${termAt}.podAffinityTerm`),
    );
  }
}
