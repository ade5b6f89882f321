/**
 * Validation of pods and pod templates, and of changes to pods, which are nearly immutable. Messages and paths as
 * upstream's `core/validation`. Metadata is validated generically before.
 */

import { fieldErrors } from '../../base/errors.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { validateLabels } from '../machinery/labels.ts';
import { validateAnnotations } from '../machinery/metadata.ts';
import { dnsLabelProblems, dnsSubdomainProblems, ipProblems, rangeProblem } from '../machinery/names.ts';
import { isSidecar, podQosClass } from '../machinery/pod.ts';
import { compareQuantity } from '../machinery/quantity.ts';
import {
  addDuplicate,
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkUnchanged,
  type Errors,
  eachAt,
  requireOneOf,
  requireText,
} from '../machinery/validation.ts';
import type { ObjectMeta } from '../meta.ts';
import {
  checkContainers,
  checkEphemeralContainers,
  checkImageSpace,
  checkInitContainers,
  checkQualifiedName,
  type PodContext,
} from './container-validation.ts';
import { checkContainerResourceName, checkResourceQuantity, checkResourceRequirements } from './resource-validation.ts';
import { checkAffinity, checkTolerations, checkTopologySpread } from './scheduling-validation.ts';
import { checkOs, checkPodSecurityContext } from './security-context-validation.ts';
import type {
  Container,
  ContainerStatus,
  EphemeralContainer,
  Pod,
  PodResourceClaim,
  PodSpec,
  PodTemplateSpec,
  ResourceRequirements,
  Toleration,
} from './v1.gen.ts';
import { checkVolumes } from './volume-validation.ts';

const MIRROR_ANNOTATION = 'kubernetes.io/config.mirror';
const DELETION_COST_ANNOTATION = 'controller.kubernetes.io/pod-deletion-cost';
const INT32_MAX = 2 ** 31 - 1;
const NAMESERVERS_MAX = 3;
const SEARCH_PATHS_MAX = 32;
const SEARCH_CHARACTERS_MAX = 2048;

/** A pod as it is created, or as an update would leave it. */
export function validatePod(pod: Pod): Errors {
  const errors: Errors = [];
  const spec = pod.spec ?? ({ containers: [] } as PodSpec);
  checkAnnotations(errors, 'metadata.annotations', pod.metadata.annotations, spec);
  checkPodSpec(errors, 'spec', spec, pod.metadata);
  if (!spec.serviceAccountName)
    eachAt(spec.volumes, 'spec.volumes', (volume, at) => {
      eachAt(volume.projected?.sources, `${at}.projected.sources`, (source, sourceAt) => {
        if (source.serviceAccountToken)
          addForbidden(
            errors,
            `${sourceAt}.serviceAccountToken`,
            'must not be specified when serviceAccountName is not set',
          );
      });
    });
  eachAt(spec.containers, 'spec.containers', (container, at) => checkImageSpace(errors, at, container));
  eachAt(spec.initContainers, 'spec.initContainers', (container, at) => checkImageSpace(errors, at, container));
  // Only an object that was stored before has a resourceVersion.
  if (!pod.metadata.resourceVersion) {
    if (spec.ephemeralContainers?.length) addForbidden(errors, 'spec.ephemeralContainers', 'cannot be set on create');
    if (spec.nodeName && spec.schedulingGates?.length)
      addForbidden(errors, 'spec.nodeName', 'cannot be set until all schedulingGates have been cleared');
  }
  return errors;
}

/** `template` of a workload. */
export function checkPodTemplate(errors: Errors, path: string, template: PodTemplateSpec): void {
  if (template.metadata?.labels) errors.push(...validateLabels(template.metadata.labels, `${path}.labels`));
  if (template.metadata?.annotations)
    errors.push(...validateAnnotations(template.metadata.annotations, `${path}.annotations`));
  const spec = template.spec ?? ({ containers: [] } as PodSpec);
  checkAnnotations(errors, `${path}.annotations`, template.metadata?.annotations, spec);
  checkPodSpec(errors, `${path}.spec`, spec, undefined);
  if (spec.ephemeralContainers?.length)
    addForbidden(errors, `${path}.spec.ephemeralContainers`, 'ephemeral containers not allowed in pod template');
}

function checkAnnotations(
  errors: Errors,
  path: string,
  annotations: Readonly<Record<string, string>> | undefined,
  spec: PodSpec,
): void {
  if (!annotations) return;
  const mirror = annotations[MIRROR_ANNOTATION];
  if (mirror !== undefined && !spec.nodeName)
    addInvalid(
      errors,
      `${path}[${MIRROR_ANNOTATION}]`,
      mirror,
      'must set spec.nodeName if mirror pod annotation is set',
    );
  const cost = annotations[DELETION_COST_ANNOTATION];
  if (cost !== undefined && (!/^(0|-?[1-9]\d*)$/.test(cost) || Math.abs(Number(cost)) > INT32_MAX))
    addInvalid(errors, `${path}[${DELETION_COST_ANNOTATION}]`, cost, 'must be a 32bit integer');
}

/** `meta` is that of a pod; undefined for templates. */
export function checkPodSpec(errors: Errors, path: string, spec: PodSpec, meta: ObjectMeta | undefined): void {
  if (spec.terminationGracePeriodSeconds === undefined) addRequired(errors, `${path}.terminationGracePeriodSeconds`);
  const volumes = checkVolumes(errors, `${path}.volumes`, spec.volumes, meta);
  const claimNames = checkResourceClaims(errors, `${path}.resourceClaims`, spec.resourceClaims);
  const context: PodContext = {
    spec,
    volumes,
    claimNames,
    hostUsers: spec.hostUsers !== false,
    isPod: meta !== undefined,
  };
  checkContainers(errors, `${path}.containers`, context);
  if (spec.initContainers?.length) checkInitContainers(errors, `${path}.initContainers`, context);
  checkEphemeralContainers(errors, `${path}.ephemeralContainers`, context);
  if (spec.resources) checkPodLevelResources(errors, `${path}.resources`, spec, claimNames);
  if (spec.hostNetwork) checkHostNetwork(errors, path, spec, context.isPod);
  requireOneOf(errors, `${path}.restartPolicy`, spec.restartPolicy, ['Always', 'OnFailure', 'Never']);
  requireOneOf(errors, `${path}.dnsPolicy`, spec.dnsPolicy, [
    'ClusterFirstWithHostNet',
    'ClusterFirst',
    'Default',
    'None',
  ]);
  if (spec.nodeSelector) errors.push(...validateLabels(spec.nodeSelector, `${path}.nodeSelector`));
  checkPodSecurityContext(errors, `${path}.securityContext`, spec);
  if (spec.affinity) checkAffinity(errors, `${path}.affinity`, spec.affinity);
  checkDns(errors, `${path}.dnsConfig`, spec);
  eachAt(spec.readinessGates, `${path}.readinessGates`, (gate, at) =>
    checkQualifiedName(errors, `${at}.conditionType`, gate.conditionType),
  );
  checkSchedulingGates(errors, `${path}.schedulingGates`, spec);
  checkTopologySpread(errors, `${path}.topologySpreadConstraints`, spec.topologySpreadConstraints);
  checkHostProcess(errors, path, spec);
  if (spec.hostUsers === false) {
    const refusal = 'when `pod.Spec.HostUsers` is false';
    if (spec.hostNetwork) addForbidden(errors, `${path}.hostNetwork`, refusal);
    if (spec.hostPID) addForbidden(errors, `${path}.HostPID`, refusal);
    if (spec.hostIPC) addForbidden(errors, `${path}.HostIPC`, refusal);
  }
  checkReferences(errors, path, spec);
  const deadline = spec.activeDeadlineSeconds;
  if (deadline !== undefined && (deadline < 1 || deadline > INT32_MAX))
    addInvalid(errors, `${path}.activeDeadlineSeconds`, deadline, rangeProblem(1, INT32_MAX));
  checkTolerations(errors, `${path}.tolerations`, spec.tolerations);
  eachAt(spec.hostAliases, `${path}.hostAliases`, (alias, at) => {
    addProblems(errors, `${at}.ip`, alias.ip ?? '', ipProblems(alias.ip ?? ''));
    eachAt(alias.hostnames, `${at}.hostnames`, (hostname, hostnameAt) =>
      addProblems(errors, hostnameAt, hostname, dnsSubdomainProblems(hostname)),
    );
  });
  if (spec.preemptionPolicy !== undefined)
    requireOneOf(errors, `${path}.preemptionPolicy`, spec.preemptionPolicy, ['PreemptLowerPriority', 'Never']);
  for (const name in spec.overhead) {
    checkContainerResourceName(errors, `${path}.overhead.limits[${name}]`, name);
    checkResourceQuantity(errors, `${path}.overhead.limits[${name}]`, name, spec.overhead[name]!);
  }
  if (spec.os) checkOs(errors, path, spec);
}

/** Names that refer to other objects or name the pod itself. */
function checkReferences(errors: Errors, path: string, spec: PodSpec): void {
  for (const field of ['serviceAccountName', 'nodeName', 'priorityClassName', 'runtimeClassName'] as const) {
    const name = spec[field];
    if (name || (field === 'runtimeClassName' && name !== undefined))
      addProblems(errors, `${path}.${field}`, name, dnsSubdomainProblems(name!));
  }
  for (const field of ['hostname', 'subdomain'] as const) {
    const name = spec[field];
    if (name) addProblems(errors, `${path}.${field}`, name, dnsLabelProblems(name));
  }
  const override = spec.hostnameOverride;
  if (override === undefined) return;
  addProblems(errors, `${path}.hostnameOverride`, override, dnsSubdomainProblems(override));
  if (override.length > 64)
    addInvalid(errors, `${path}.hostnameOverride`, override, 'must be no more than 64 characters');
  if (spec.hostNetwork) addForbidden(errors, `${path}.hostnameOverride`, 'may not be set when hostNetwork is true');
  if (spec.setHostnameAsFQDN)
    addForbidden(errors, `${path}.setHostnameAsFQDN`, 'may not be set to true when hostnameOverride is set');
}

function checkResourceClaims(
  errors: Errors,
  path: string,
  claims: readonly PodResourceClaim[] | undefined,
): ReadonlySet<string> {
  const names = new Set<string>();
  eachAt(claims, path, (claim, at) => {
    if (!claim.name) addRequired(errors, `${at}.name`);
    else if (names.has(claim.name)) addDuplicate(errors, `${at}.name`, claim.name);
    else {
      addProblems(errors, `${at}.name`, claim.name, dnsLabelProblems(claim.name));
      names.add(claim.name);
    }
    const { resourceClaimName: name, resourceClaimTemplateName: template } = claim;
    if (name !== undefined && template !== undefined)
      addInvalid(
        errors,
        at,
        claim,
        'at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified',
      );
    if (name === undefined && template === undefined)
      addInvalid(errors, at, claim, 'must specify one of: `resourceClaimName`, `resourceClaimTemplateName`');
    if (name !== undefined) addProblems(errors, `${at}.resourceClaimName`, name, dnsSubdomainProblems(name));
    if (template !== undefined)
      addProblems(errors, `${at}.resourceClaimTemplateName`, template, dnsSubdomainProblems(template));
  });
  return names;
}

function checkPodLevelResources(errors: Errors, path: string, spec: PodSpec, claimNames: ReadonlySet<string>): void {
  const resources = spec.resources!;
  if (resources.claims) addForbidden(errors, `${path}.claims`, 'claims cannot be set for Resources at pod-level');
  checkResourceRequirements(errors, path, resources, { level: 'pod', claimNames });
  eachAt(spec.containers, `${path}.containers`, (container, at) => {
    for (const name in container.resources?.limits) {
      const own = container.resources.limits[name]!;
      const pod = resources.limits?.[name];
      if (pod !== undefined && compareQuantity(own, pod) > 0)
        addInvalid(errors, `${at}[${name}].limits`, own, `must be less than or equal to pod limits of ${pod}`);
    }
  });
}

function checkHostNetwork(errors: Errors, path: string, spec: PodSpec, isPod: boolean): void {
  eachAt(spec.containers, `${path}.containers`, (container, containerAt) => {
    eachAt(container.ports, `${containerAt}.ports`, (port, at) => {
      const host = port.hostPort ?? 0;
      if ((isPod || host !== 0) && host !== port.containerPort)
        addInvalid(errors, `${at}.hostPort`, host, 'must match `containerPort` when `hostNetwork` is true');
    });
  });
}

const searchPath = /^[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?(\.[a-z0-9_]([-_a-z0-9]*[a-z0-9_])?)*$/;

function checkDns(errors: Errors, path: string, spec: PodSpec): void {
  const config = spec.dnsConfig;
  if (spec.dnsPolicy === 'None') {
    if (!config) {
      addRequired(errors, path, 'must provide `dnsConfig` when `dnsPolicy` is None');
      return;
    }
    if (!config.nameservers?.length) {
      addRequired(errors, `${path}.nameservers`, 'must provide at least one DNS nameserver when `dnsPolicy` is None');
      return;
    }
  }
  if (!config) return;
  const { nameservers = [], searches = [], options = [] } = config;
  if (nameservers.length > NAMESERVERS_MAX)
    addInvalid(errors, `${path}.nameservers`, nameservers, `must not have more than ${NAMESERVERS_MAX} nameservers`);
  eachAt(nameservers, `${path}.nameservers`, (address, at) => addProblems(errors, at, address, ipProblems(address)));
  if (searches.length > SEARCH_PATHS_MAX)
    addInvalid(errors, `${path}.searches`, searches, `must not have more than ${SEARCH_PATHS_MAX} search paths`);
  if (searches.join(' ').length > SEARCH_CHARACTERS_MAX)
    addInvalid(
      errors,
      `${path}.searches`,
      searches,
      `must not have more than ${SEARCH_CHARACTERS_MAX} characters (including spaces) in the search list`,
    );
  eachAt(searches, `${path}.searches`, (search, at) => {
    const name = search.endsWith('.') ? search.slice(0, -1) : search;
    if (search !== '.' && (name.length > 253 || !searchPath.test(name)))
      addInvalid(
        errors,
        at,
        name,
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')",
      );
  });
  eachAt(options, `${path}.options`, (option, at) => {
    if (!option.name) addRequired(errors, at, 'must not be empty');
  });
}

function checkSchedulingGates(errors: Errors, path: string, spec: PodSpec): void {
  const seen = new Set<string>();
  eachAt(spec.schedulingGates, path, (gate, at) => {
    checkQualifiedName(errors, at, gate.name);
    if (seen.has(gate.name)) addDuplicate(errors, at, gate.name);
    seen.add(gate.name);
  });
}

/** Windows host-process pods: all containers or none, and on the host's network. */
function checkHostProcess(errors: Errors, path: string, spec: PodSpec): void {
  const podWide = spec.securityContext?.windowsOptions?.hostProcess;
  let all = 0;
  let hostProcess = 0;
  const check = (container: Container | EphemeralContainer, at: string): void => {
    const own = container.securityContext?.windowsOptions?.hostProcess;
    all++;
    if (podWide !== undefined && own !== undefined && podWide !== own)
      addInvalid(
        errors,
        `${at}.securityContext.windowsOptions.hostProcess`,
        own,
        `pod hostProcess value must be identical if both are specified, was ${podWide}`,
      );
    if (own ?? podWide) hostProcess++;
  };
  eachAt(spec.initContainers, `${path}.initContainers`, check);
  eachAt(spec.containers, `${path}.containers`, check);
  eachAt(spec.ephemeralContainers, `${path}.ephemeralContainers`, check);
  if (hostProcess === 0) return;
  if (hostProcess !== all)
    addInvalid(
      errors,
      path,
      '',
      'If pod contains any hostProcess containers then all containers must be HostProcess containers',
    );
  if (!spec.hostNetwork)
    addInvalid(
      errors,
      `${path}.hostNetwork`,
      false,
      'hostNetwork must be true if pod contains any hostProcess containers',
    );
}

const UPDATABLE = [
  '`spec.containers[*].image`',
  '`spec.initContainers[*].image`',
  '`spec.activeDeadlineSeconds`',
  '`spec.tolerations` (only additions to existing tolerations)',
  '`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)',
].join(',');

/** What an update of the pod itself may change: images, deadline, more tolerations, fewer gates. */
export function validatePodUpdate(pod: Pod, old: Pod): Errors {
  const errors: Errors = [];
  checkMirrorAnnotation(errors, pod, old);
  const spec = pod.spec!;
  const before = old.spec!;
  for (const field of ['containers', 'initContainers'] as const) {
    if ((spec[field]?.length ?? 0) !== (before[field]?.length ?? 0)) {
      addForbidden(errors, `spec.${field}`, 'pod updates may not add or remove containers');
      return errors;
    }
  }
  const deadline = spec.activeDeadlineSeconds;
  if (deadline !== undefined) {
    if (before.activeDeadlineSeconds !== undefined && before.activeDeadlineSeconds < deadline) {
      addInvalid(errors, 'spec.activeDeadlineSeconds', deadline, 'must be less than or equal to previous value');
      return errors;
    }
  } else if (before.activeDeadlineSeconds !== undefined)
    addInvalid(errors, 'spec.activeDeadlineSeconds', null, 'must not update from a positive integer to nil value');
  if (!onlyAdds(spec.tolerations, before.tolerations))
    addForbidden(errors, 'spec.tolerations', 'existing toleration can not be modified except its tolerationSeconds');
  spec.schedulingGates?.forEach((gate, index) => {
    if (!before.schedulingGates?.some(other => other.name === gate.name))
      addForbidden(
        errors,
        `spec.schedulingGates[${index}].name`,
        `only deletion is allowed, but found new scheduling gate '${gate.name}'`,
      );
  });
  if (semanticEqual(spec, before)) return errors;

  const masked: PodSpec = {
    ...spec,
    containers: maskImages(spec.containers, before.containers)!,
    initContainers: maskImages(spec.initContainers, before.initContainers),
    activeDeadlineSeconds: before.activeDeadlineSeconds,
    schedulingGates: before.schedulingGates,
    tolerations: before.tolerations,
  } as PodSpec;
  if ((before.terminationGracePeriodSeconds ?? 0) < 0 && masked.terminationGracePeriodSeconds === 1)
    masked.terminationGracePeriodSeconds = before.terminationGracePeriodSeconds;
  if (before.schedulingGates?.length) maskGatedChanges(errors, masked, before);
  if (!semanticEqual(masked, before))
    addForbidden(
      errors,
      'spec',
      `pod updates may not change fields other than ${UPDATABLE}\n${describeDifference(before, masked)}`,
    );
  return errors;
}

function checkMirrorAnnotation(errors: Errors, pod: Pod, old: Pod): void {
  const value = pod.metadata.annotations?.[MIRROR_ANNOTATION];
  const before = old.metadata.annotations?.[MIRROR_ANNOTATION];
  if (value === before) return;
  addForbidden(
    errors,
    `metadata.annotations[${MIRROR_ANNOTATION}]`,
    before === undefined ? 'may not add mirror pod annotation' : 'may not remove or update mirror pod annotation',
  );
}

function onlyAdds(tolerations: readonly Toleration[] = [], before: readonly Toleration[] = []): boolean {
  return before.every(old =>
    tolerations.some(toleration =>
      semanticEqual({ ...toleration, tolerationSeconds: undefined }, { ...old, tolerationSeconds: undefined }),
    ),
  );
}

function maskImages(
  containers: readonly Container[] | undefined,
  before: readonly Container[] | undefined,
): Container[] | undefined {
  return containers?.map((container, index) => {
    const { image: _, ...rest } = container;
    const image = before![index]!.image;
    return image === undefined ? rest : { ...rest, image };
  });
}

// A gated pod may still be steered: selectors and affinity may become narrower.
function maskGatedChanges(errors: Errors, masked: PodSpec, before: PodSpec): void {
  if (!semanticEqual(masked.nodeSelector, before.nodeSelector)) {
    for (const key in before.nodeSelector)
      if (masked.nodeSelector?.[key] !== before.nodeSelector[key]) {
        addInvalid(
          errors,
          'spec.nodeSelector',
          masked.nodeSelector,
          'only additions are allowed (no mutations or deletions)',
        );
        break;
      }
    masked.nodeSelector = before.nodeSelector as Record<string, string>;
  }
  const affinity = masked.affinity?.nodeAffinity;
  const old = before.affinity?.nodeAffinity;
  if (semanticEqual(affinity, old)) return;
  const path = 'spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution';
  const terms = affinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  const oldTerms = old?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  if (oldTerms) {
    if (terms?.length !== oldTerms.length)
      addInvalid(
        errors,
        `${path}.nodeSelectorTerms`,
        terms,
        'no additions/deletions to non-empty NodeSelectorTerms list are allowed',
      );
    else
      terms.forEach((term, index) => {
        const kept = oldTerms[index]!;
        const contains = (now: readonly unknown[] = [], then: readonly unknown[] = []): boolean =>
          then.every((requirement, at) => semanticEqual(requirement, now[at]));
        const wasEmpty = !kept.matchExpressions?.length && !kept.matchFields?.length;
        if (
          (wasEmpty && !semanticEqual(term, kept)) ||
          !contains(term.matchExpressions, kept.matchExpressions) ||
          !contains(term.matchFields, kept.matchFields)
        )
          addInvalid(
            errors,
            `${path}.nodeSelectorTerms[${index}]`,
            term,
            'only additions are allowed (no mutations or deletions)',
          );
      });
  }
  const rest = { ...masked.affinity, nodeAffinity: old };
  masked.affinity = (
    before.affinity === undefined && !rest.podAffinity && !rest.podAntiAffinity ? undefined : rest
  ) as NonNullable<PodSpec['affinity']>;
}

/** Changed fields, old and new, one line each: `- Field: old`, `+ Field: new`. */
export function describeDifference(before: object, after: object): string {
  const lines: string[] = [];
  const old = before as Record<string, unknown>;
  const now = after as Record<string, unknown>;
  for (const key of new Set([...Object.keys(old), ...Object.keys(now)])) {
    if (semanticEqual(old[key], now[key])) continue;
    if (old[key] !== undefined) lines.push(`- \t${key}: ${JSON.stringify(old[key])},`);
    if (now[key] !== undefined) lines.push(`+ \t${key}: ${JSON.stringify(now[key])},`);
  }
  return `  {\n  \t... // identical fields\n${lines.join('\n')}\n  }\n`;
}

/** The `ephemeralcontainers` subresource: existing ones stay as they are. */
export function validateEphemeralContainersUpdate(pod: Pod, old: Pod): Errors {
  if (old.metadata.annotations?.[MIRROR_ANNOTATION] !== undefined)
    return [fieldErrors.forbidden('[]', 'static pods do not support ephemeral containers')];
  const errors = validatePod(pod);
  for (const container of old.spec?.ephemeralContainers ?? []) {
    const now = pod.spec?.ephemeralContainers?.find(other => other.name === container.name);
    if (!now)
      addForbidden(
        errors,
        'spec.ephemeralContainers',
        `existing ephemeral containers ${JSON.stringify(container.name)} may not be removed\n`,
      );
    else if (!semanticEqual(now, container))
      addForbidden(
        errors,
        'spec.ephemeralContainers',
        `existing ephemeral containers ${JSON.stringify(container.name)} may not be changed\n${describeDifference(container, now)}`,
      );
  }
  return errors;
}

/** The `resize` subresource: CPU and memory of containers and sidecars, without a change of the QoS class. */
export function validatePodResize(pod: Pod, old: Pod): Errors {
  if (old.metadata.annotations?.[MIRROR_ANNOTATION] !== undefined)
    return [fieldErrors.forbidden('[]', 'static pods cannot be resized')];
  if (old.spec?.os?.name === 'windows') return [fieldErrors.forbidden('[]', 'windows pods cannot be resized')];
  const errors = validatePod(pod);
  const spec = pod.spec!;
  const before = old.spec!;
  if ((old.status?.qosClass ?? podQosClass(before)) !== podQosClass(spec))
    addInvalid(errors, 'spec', pod.status?.qosClass ?? '', 'Pod QOS Class may not change as a result of resizing');
  const masked = { ...spec };
  for (const field of ['initContainers', 'containers'] as const) {
    masked[field] = (spec[field] ?? []).map((container, index) => {
      const was = before[field]?.[index];
      if (!was || (field === 'initContainers' && !isSidecar(was))) return container;
      for (const kind of ['requests', 'limits'] as const)
        if (Object.keys(was.resources?.[kind] ?? {}).some(name => container.resources?.[kind]?.[name] === undefined))
          addForbidden(errors, `spec.${field}[${index}].resources.${kind}`, `resource ${kind} cannot be removed`);
      return { ...container, resources: withoutComputeChanges(container.resources, was.resources) };
    });
  }
  if (
    !semanticEqual(masked, {
      ...before,
      initContainers: before.initContainers ?? [],
      containers: before.containers ?? [],
    })
  )
    addForbidden(errors, 'spec', 'only cpu and memory resources are mutable');
  return errors;
}

function withoutComputeChanges(now: ResourceRequirements = {}, was: ResourceRequirements = {}): ResourceRequirements {
  const result: ResourceRequirements = { ...now };
  for (const kind of ['requests', 'limits'] as const) {
    if (!was[kind] && !now[kind]) continue;
    const { cpu: _cpu, memory: _memory, ...rest } = now[kind] ?? {};
    const list: Record<string, string> = rest;
    for (const name of ['cpu', 'memory']) if (was[kind]?.[name] !== undefined) list[name] = was[kind][name]!;
    if (was[kind] || Object.keys(list).length > 0) result[kind] = list;
    else delete result[kind];
  }
  return result;
}

/** Changes to `status` that never happen in normal operation. */
export function validatePodStatusUpdate(pod: Pod, old: Pod): Errors {
  const errors: Errors = [];
  const status = pod.status ?? {};
  const before = old.status ?? {};
  eachAt(status.conditions, 'metadata.conditions', (condition, at) =>
    checkQualifiedName(errors, `${at}.Type`, condition.type),
  );
  if ((pod.spec?.nodeName ?? '') !== (old.spec?.nodeName ?? ''))
    addForbidden(errors, 'status.nodeName', 'may not be changed directly');
  if (status.nominatedNodeName && status.nominatedNodeName !== before.nominatedNodeName)
    addProblems(
      errors,
      'status.nominatedNodeName',
      status.nominatedNodeName,
      dnsSubdomainProblems(status.nominatedNodeName),
    );
  checkUnchanged(errors, 'status.qosClass', status.qosClass, before.qosClass);
  const policy = old.spec?.restartPolicy ?? 'Always';
  const sidecars = new Set((old.spec?.initContainers ?? []).filter(isSidecar).map(container => container.name));
  const mayRestart = new Set(
    [...(old.spec?.containers ?? []), ...(old.spec?.initContainers ?? [])]
      .filter(container => container.restartPolicy || container.restartPolicyRules?.length)
      .map(container => container.name),
  );
  const exempt = new Set([...sidecars, ...mayRestart]);
  checkTransitions(
    errors,
    'status.containerStatuses',
    status.containerStatuses,
    before.containerStatuses,
    policy,
    exempt,
  );
  checkTransitions(
    errors,
    'status.initContainerStatuses',
    status.initContainerStatuses,
    before.initContainerStatuses,
    policy,
    exempt,
  );
  checkTransitions(
    errors,
    'status.ephemeralContainerStatuses',
    status.ephemeralContainerStatuses,
    before.ephemeralContainerStatuses,
    'Never',
    exempt,
  );
  eachAt(status.podIPs, 'status.podIPs', ({ ip }, at) => addProblems(errors, at, ip, ipProblems(ip ?? '')));
  checkAddresses(errors, 'status.podIPs', status.podIPs);
  if (status.hostIPs?.length) {
    if ((status.hostIP ?? '') !== status.hostIPs[0]!.ip)
      addInvalid(errors, 'status.hostIPs[0].ip', status.hostIPs[0]!.ip, 'must be equal to `hostIP`');
    eachAt(status.hostIPs, 'status.hostIPs', ({ ip }, at) => addProblems(errors, at, ip, ipProblems(ip ?? '')));
    checkAddresses(errors, 'status.hostIPs', status.hostIPs);
  }
  return errors;
}

function checkAddresses(errors: Errors, path: string, addresses: readonly { ip?: string }[] | undefined): void {
  if (!addresses || addresses.length < 2) return;
  const families = new Set(addresses.map(({ ip }) => ip?.includes(':')));
  if (addresses.length > 2 || families.size < 2)
    addInvalid(errors, path, addresses, 'may specify no more than one IP for each IP family');
  const seen = new Set<string | undefined>();
  eachAt(addresses, path, (address, at) => {
    if (seen.has(address.ip)) addDuplicate(errors, at, address);
    seen.add(address.ip);
  });
}

/** A container that ended for good does not come back. */
function checkTransitions(
  errors: Errors,
  path: string,
  now: readonly ContainerStatus[] | undefined,
  before: readonly ContainerStatus[] | undefined,
  policy: string,
  exempt: ReadonlySet<string>,
): void {
  if (policy === 'Always') return;
  eachAt(before, path, (old, at) => {
    const ended = old.state?.terminated;
    if (!ended || exempt.has(old.name) || (ended.exitCode !== 0 && policy === 'OnFailure')) return;
    const status = now?.find(other => other.name === old.name);
    if (status && !status.state?.terminated)
      addForbidden(errors, `${at}.state`, 'may not be transitioned to non-terminated state');
  });
}

/** A Binding or `pods/binding`: the node to run on. */
export function validateBinding(target: { kind?: string; name?: string } | undefined): Errors {
  const errors: Errors = [];
  if (target?.kind) allowOneOf(errors, 'target.kind', target.kind, ['Node', '<empty>']);
  requireText(errors, 'target.name', target?.name);
  return errors;
}
