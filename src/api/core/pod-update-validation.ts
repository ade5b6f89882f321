/**
 * Rules between an old and a new pod: what an update, a resize, new ephemeral containers and a status update may change. The rules
 * of a pod by itself are in pod-validation.ts.
 */

import { fieldErrors } from '../../base/errors.ts';
import { forgiveStored } from '../machinery/address-forms.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { dnsSubdomainProblems, ipProblems, rangeProblem } from '../machinery/names.ts';
import { isSidecar, podQosClass } from '../machinery/pod.ts';
import {
  addDuplicate,
  addForbidden,
  addInvalid,
  addProblems,
  checkUnchanged,
  type Errors,
  eachAt,
} from '../machinery/validation.ts';
import { checkQualifiedName } from './container-validation.ts';
import { checkAnnotationChange, MIRROR_ANNOTATION } from './pod-annotation-validation.ts';
import { validatePod } from './pod-validation.ts';
import type { Container, ContainerStatus, Pod, PodSpec, ResourceRequirements, Toleration } from './v1.gen.ts';

const INT32_MAX = 2 ** 31 - 1;
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
  checkAnnotationChange(errors, pod.metadata.annotations, old.metadata.annotations);
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
    if (deadline < 0 || deadline > INT32_MAX) {
      addInvalid(errors, 'spec.activeDeadlineSeconds', deadline, rangeProblem(0, INT32_MAX));
      return errors;
    }
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
  const errors = [...forgiveStored(validatePod(pod), () => validatePod(old))];
  checkAnnotationChange(errors, pod.metadata.annotations, old.metadata.annotations);
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

/** The `resize` subresource: CPU and memory of the pod, its containers and sidecars, without a change of the QoS class. */
export function validatePodResize(pod: Pod, old: Pod): Errors {
  if (old.metadata.annotations?.[MIRROR_ANNOTATION] !== undefined)
    return [fieldErrors.forbidden('[]', 'static pods cannot be resized')];
  if (old.spec?.os?.name === 'windows') return [fieldErrors.forbidden('[]', 'windows pods cannot be resized')];
  const errors = [...forgiveStored(validatePod(pod), () => validatePod(old))];
  const spec = pod.spec!;
  const before = old.spec!;
  if ((old.status?.qosClass ?? podQosClass(before)) !== podQosClass(spec))
    addInvalid(errors, 'spec', pod.status?.qosClass ?? '', 'Pod QOS Class may not change as a result of resizing');
  const masked = { ...spec };
  if (before.resources && spec.resources) {
    checkNothingRemoved(errors, 'spec.resources', spec.resources, before.resources);
    masked.resources = withoutComputeChanges(spec.resources, before.resources);
  }
  for (const field of ['initContainers', 'containers'] as const) {
    masked[field] = (spec[field] ?? []).map((container, index) => {
      const was = before[field]?.[index];
      if (!was || (field === 'initContainers' && !isSidecar(was))) return container;
      checkNothingRemoved(errors, `spec.${field}[${index}].resources`, container.resources, was.resources);
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

function checkNothingRemoved(
  errors: Errors,
  path: string,
  now: ResourceRequirements = {},
  was: ResourceRequirements = {},
): void {
  for (const kind of ['requests', 'limits'] as const)
    if (Object.keys(was[kind] ?? {}).some(name => now[kind]?.[name] === undefined))
      addForbidden(errors, `${path}.${kind}`, `resource ${kind} cannot be removed`);
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
  checkAnnotationChange(errors, pod.metadata.annotations, old.metadata.annotations);
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
  const restartsAll = [...(old.spec?.containers ?? []), ...(old.spec?.initContainers ?? [])].some(container =>
    container.restartPolicyRules?.some(({ action }) => action === 'RestartAllContainers'),
  );
  const policy = restartsAll ? 'Always' : (old.spec?.restartPolicy ?? 'Always');
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
