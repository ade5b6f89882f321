/** The `resize` subresource: what it may change, between an old and a new pod. */

import { fieldErrors } from '../../base/errors.ts';
import { forgiveStored } from '../machinery/address-forms.ts';
import { semanticEqual } from '../machinery/equality.ts';
import { isSidecar, podQosClass } from '../machinery/pod.ts';
import { addForbidden, addInvalid, type Errors } from '../machinery/validation.ts';
import { MIRROR_ANNOTATION } from './pod-annotation-validation.ts';
import { validatePod } from './pod-validation.ts';
import type { Container, Pod, PodSpec, ResourceRequirements } from './v1.gen.ts';

const LISTS = ['requests', 'limits'] as const;

/** CPU and memory of the pod and its containers, without a change of the QoS class. */
export function validatePodResize(pod: Pod, old: Pod): Errors {
  if (old.metadata.annotations?.[MIRROR_ANNOTATION] !== undefined)
    return [fieldErrors.forbidden('[]', 'static pods cannot be resized')];
  if (old.spec?.os?.name === 'windows') return [fieldErrors.forbidden('[]', 'windows pods cannot be resized')];
  const errors = [...forgiveStored(validatePod(pod), () => validatePod(old))];
  const spec = pod.spec!;
  const before = old.spec!;
  if ((old.status?.qosClass ?? podQosClass(before)) !== podQosClass(spec))
    addInvalid(errors, 'spec', pod.status?.qosClass ?? '', 'Pod QOS Class may not change as a result of resizing');
  const running = old.status?.containerStatuses?.find(({ state }) => state?.running);
  if (running && !running.resources) addForbidden(errors, 'spec', 'Pod running on node without support for resize');
  checkPodResources(errors, spec, before);
  const orderErrors = containerOrderErrors(spec, before);
  if (orderErrors.length > 0) return [...errors, ...orderErrors];
  for (const field of ['initContainers', 'containers'] as const)
    spec[field]?.forEach((container, index) => {
      const was = before[field]![index]!.resources;
      checkNothingRemoved(errors, `spec.${field}[${index}].resources`, container.resources, was, 'resource');
    });
  spec.containers.forEach((container, index) => {
    if (isMoreThanCompute(container, before.containers[index]!))
      addForbidden(errors, 'spec', 'only cpu and memory resources are mutable');
  });
  spec.initContainers?.forEach((container, index) => {
    const was = before.initContainers![index]!;
    const at = `spec.initContainers[${index}]`;
    if (isMoreThanCompute(container, was))
      addForbidden(errors, at, 'only cpu and memory resources for init or sidecar containers are mutable');
    if (isSidecar(container) || semanticEqual(container, was)) return;
    for (const { restartPolicy } of container.resizePolicy ?? [])
      if (restartPolicy === 'RestartContainer')
        addForbidden(
          errors,
          at,
          'non-sidecar init containers with a resize policy of RestartContainer cannot be resized',
        );
  });
  if (errors.length > 0) return errors;
  const { resources: _now, containers: _containers, initContainers: _init, ...rest } = spec;
  const { resources: _was, containers: _c, initContainers: _i, ...restBefore } = before;
  if (!semanticEqual(rest, restBefore)) addForbidden(errors, 'spec', 'only cpu and memory resources are mutable');
  return errors;
}

function checkPodResources(errors: Errors, { resources: now }: PodSpec, { resources: was }: PodSpec): void {
  const isSet = (resources: ResourceRequirements = {}): boolean =>
    LISTS.some(kind => Object.keys(resources[kind] ?? {}).length > 0);
  if (!isSet(now) && !isSet(was)) {
    if (!semanticEqual(now, was)) addForbidden(errors, 'spec', 'only cpu and memory resources are mutable');
    return;
  }
  if (was && !now) {
    addForbidden(errors, 'spec.resources', 'pod-level resources cannot be removed');
    return;
  }
  checkNothingRemoved(errors, 'spec.resources', now, was, 'pod-level resource');
  if (!semanticEqual(withoutComputeChanges(now, was), was ?? {}))
    addForbidden(errors, 'spec', 'only cpu and memory resources are mutable at pod-level');
}

/** What follows compares containers by their places. */
function containerOrderErrors(spec: PodSpec, before: PodSpec): Errors {
  const errors: Errors = [];
  for (const field of ['containers', 'initContainers'] as const) {
    const now = spec[field] ?? [];
    const was = before[field] ?? [];
    if (now.length !== was.length)
      addForbidden(errors, `spec.${field}`, `${field} may not be added or removed on resize`);
    else
      was.forEach(({ name }, index) => {
        if (now[index]!.name !== name)
          addForbidden(errors, `spec.${field}[${index}].name`, `${field} may not be renamed or reordered on resize`);
      });
  }
  return errors;
}

function isMoreThanCompute(container: Container, was: Container): boolean {
  const masked = { ...container, resources: withoutComputeChanges(container.resources, was.resources) };
  return !semanticEqual(masked, { ...was, resources: was.resources ?? {} });
}

function checkNothingRemoved(
  errors: Errors,
  path: string,
  now: ResourceRequirements = {},
  was: ResourceRequirements = {},
  what: string,
): void {
  for (const kind of LISTS)
    if (Object.keys(was[kind] ?? {}).some(name => now[kind]?.[name] === undefined))
      addForbidden(errors, `${path}.${kind}`, `${what} ${kind} cannot be removed`);
}

function withoutComputeChanges(now: ResourceRequirements = {}, was: ResourceRequirements = {}): ResourceRequirements {
  const result: ResourceRequirements = { ...now };
  for (const kind of LISTS) {
    if (!was[kind] && !now[kind]) continue;
    const { cpu: _cpu, memory: _memory, ...rest } = now[kind] ?? {};
    const list: Record<string, string> = rest;
    for (const name of ['cpu', 'memory']) if (was[kind]?.[name] !== undefined) list[name] = was[kind][name]!;
    if (was[kind] || Object.keys(list).length > 0) result[kind] = list;
    else delete result[kind];
  }
  return result;
}
