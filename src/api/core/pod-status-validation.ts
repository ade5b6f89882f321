/** Changes to the status of a pod that never happen in normal operation. */

import { fieldErrors } from '../../base/errors.ts';
import { byteLength, dnsLabelProblems, dnsSubdomainProblems, ipProblems, rangeProblem } from '../machinery/names.ts';
import { ruledAction } from '../machinery/pod.ts';
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
} from '../machinery/validation.ts';
import { checkQualifiedName } from './container-validation.ts';
import { checkAnnotationChange } from './pod-annotation-validation.ts';
import type {
  Container,
  ContainerStatus,
  Pod,
  PodCondition,
  PodExtendedResourceClaimStatus,
  PodSpec,
  ResourceStatus,
} from './v1.gen.ts';

const INT32_MAX = 2 ** 31 - 1;
const HEALTH_MESSAGE_MAX = 1024;
const GENERATION_PROBLEM = 'must be a non-negative integer';
const SYSTEM_CONDITIONS = new Set(['PodScheduled', 'Ready', 'Initialized']);

export function validatePodStatusUpdate(pod: Pod, old: Pod): Errors {
  const errors: Errors = [];
  checkAnnotationChange(errors, pod.metadata.annotations, old.metadata.annotations);
  const spec = pod.spec!;
  const status = pod.status ?? {};
  const before = old.status ?? {};
  eachAt(status.conditions, 'status.conditions', (condition, at) => checkCondition(errors, at, condition));
  if ((spec.nodeName ?? '') !== (old.spec?.nodeName ?? ''))
    addForbidden(errors, 'status.nodeName', 'may not be changed directly');
  const nominated = status.nominatedNodeName;
  if (nominated && nominated !== before.nominatedNodeName) {
    addProblems(errors, 'status.nominatedNodeName', nominated, dnsSubdomainProblems(nominated));
    if (old.spec?.nodeName)
      addForbidden(errors, 'status.nominatedNodeName', 'may not be set on pods that are already bound to a node');
  }
  if ((status.observedGeneration ?? 0) < 0)
    addInvalid(errors, 'status.observedGeneration', status.observedGeneration, GENERATION_PROBLEM);
  checkUnchanged(errors, 'status.qosClass', status.qosClass, before.qosClass);
  for (const [field, containers] of [
    ['containerStatuses', old.spec?.containers],
    ['initContainerStatuses', old.spec?.initContainers],
    ['ephemeralContainerStatuses', undefined],
  ] as const)
    checkTransitions(errors, `status.${field}`, status[field], before[field], old.spec!, containers);
  checkClaimStatuses(errors, pod);
  if (status.extendedResourceClaimStatus)
    checkExtendedResourceClaim(errors, 'status.extendedResourceClaimStatus', status.extendedResourceClaimStatus, spec);
  eachAt(status.podIPs, 'status.podIPs', ({ ip }, at) => addProblems(errors, at, ip, ipProblems(ip ?? '')));
  checkAddresses(errors, 'status.podIPs', status.podIPs);
  if (status.hostIPs?.length) {
    if ((status.hostIP ?? '') !== status.hostIPs[0]!.ip)
      addInvalid(errors, 'status.hostIPs[0].ip', status.hostIPs[0]!.ip, 'must be equal to `hostIP`');
    eachAt(status.hostIPs, 'status.hostIPs', ({ ip }, at) => addProblems(errors, at, ip, ipProblems(ip ?? '')));
    checkAddresses(errors, 'status.hostIPs', status.hostIPs);
  }
  checkUsers(errors, pod);
  for (const [field, containers] of [
    ['containerStatuses', spec.containers],
    ['initContainerStatuses', spec.initContainers],
  ] as const)
    eachAt(status[field], `status.${field}`, (one, at) =>
      eachAt(one.allocatedResourcesStatus, `${at}.allocatedResourcesStatus`, (resource, resourceAt) =>
        checkAllocated(
          errors,
          resourceAt,
          resource,
          containers?.find(({ name }) => name === one.name),
        ),
      ),
    );
  eachAt(status.ephemeralContainerStatuses, 'status.ephemeralContainerStatuses', (one, at) => {
    if (one.allocatedResourcesStatus?.length)
      addForbidden(errors, `${at}.allocatedResourcesStatus`, 'must not be specified in container status');
  });
  return errors;
}

function checkCondition(errors: Errors, at: string, { type, observedGeneration = 0 }: PodCondition): void {
  if (observedGeneration < 0) addInvalid(errors, `${at}.observedGeneration`, observedGeneration, GENERATION_PROBLEM);
  if (!SYSTEM_CONDITIONS.has(type)) checkQualifiedName(errors, `${at}.Type`, type);
}

/** A container that ended for good does not come back. */
function checkTransitions(
  errors: Errors,
  path: string,
  now: readonly ContainerStatus[] | undefined,
  before: readonly ContainerStatus[] | undefined,
  spec: PodSpec,
  containers: readonly Container[] | undefined,
): void {
  const restartsAll = [...(spec.initContainers ?? []), ...spec.containers].some(container =>
    container.restartPolicyRules?.some(({ action }) => action === 'RestartAllContainers'),
  );
  const isEphemeral = path === 'status.ephemeralContainerStatuses';
  if (restartsAll && !isEphemeral) return;
  eachAt(before, path, (old, at) => {
    const ended = old.state?.terminated;
    if (!ended) return;
    const status = now?.find(other => other.name === old.name);
    if (!status || status.state?.terminated) return;
    const container = containers?.find(({ name }) => name === old.name);
    if (!container || !mayRestart(container, spec, ended.exitCode))
      addForbidden(errors, `${at}.state`, 'may not be transitioned to non-terminated state');
  });
}

function mayRestart(container: Container, spec: PodSpec, exitCode: number): boolean {
  if (container.restartPolicy && ruledAction(container, exitCode)) return true;
  const policy = container.restartPolicy ?? spec.restartPolicy ?? 'Always';
  return policy === 'Always' || (policy === 'OnFailure' && exitCode !== 0);
}

function checkClaimStatuses(errors: Errors, { spec, status }: Pod): void {
  const seen = new Set<string>();
  eachAt(status?.resourceClaimStatuses, 'status.resourceClaimStatuses', ({ name, resourceClaimName }, at) => {
    if (!spec!.resourceClaims?.some(claim => claim.name === name))
      addInvalid(errors, `${at}.name`, name, 'must match the name of an entry in `spec.resourceClaims`');
    if (seen.has(name)) addDuplicate(errors, `${at}.name`, name);
    seen.add(name);
    if (resourceClaimName !== undefined)
      addProblems(errors, `${at}.resourceClaimName`, resourceClaimName, dnsSubdomainProblems(resourceClaimName));
  });
}

const WHOSE = ['spec.initContainers', 'spec.containers'];

function checkExtendedResourceClaim(
  errors: Errors,
  path: string,
  { requestMappings, resourceClaimName }: PodExtendedResourceClaimStatus,
  spec: PodSpec,
): void {
  if (!requestMappings?.length)
    addRequired(errors, `${path}.requestMappings`, 'at least one request mapping is required');
  const seen = new Set<string>();
  eachAt(requestMappings, `${path}.requestMappings`, (mapping, at) => {
    const { containerName, resourceName, requestName } = mapping;
    const container = [...spec.containers, ...(spec.initContainers ?? [])].find(({ name }) => name === containerName);
    if (!container)
      addInvalid(
        errors,
        `${at}.containerName`,
        containerName,
        `must match the name of an entry in ${WHOSE.map(list => `${list}.name`).join(' or ')}`,
      );
    else if (container.resources?.requests?.[resourceName] === undefined)
      addInvalid(
        errors,
        `${at}.resourceName`,
        resourceName,
        `must match the extended resource name of an entry in ${WHOSE.map(list => `${list}.resources.requests`).join(' or ')}`,
      );
    // Upstream names this path without the index.
    addProblems(errors, `${path}.requestName`, requestName, dnsLabelProblems(requestName ?? ''));
    const key = JSON.stringify([containerName, resourceName, requestName]);
    if (seen.has(key))
      for (const field of ['containerName', 'resourceName', 'requestName'] as const)
        addDuplicate(errors, `${at}.${field}`, mapping[field]);
    seen.add(key);
  });
  if (!resourceClaimName) addRequired(errors, `${path}.resourceClaimName`);
  else addProblems(errors, `${path}.resourceClaimName`, resourceClaimName, dnsSubdomainProblems(resourceClaimName));
}

function checkAddresses(errors: Errors, path: string, addresses: readonly { ip?: string }[] | undefined): void {
  if (!addresses || addresses.length < 2) return;
  const families = new Set(addresses.map(({ ip }) => ip?.includes(':')));
  if (addresses.length > 2 || families.size < 2)
    addInvalid(errors, path, addresses, 'may specify no more than one IP for each IP family');
}

function checkUsers(errors: Errors, { spec, status }: Pod): void {
  for (const field of ['containerStatuses', 'initContainerStatuses', 'ephemeralContainerStatuses'] as const)
    eachAt(status?.[field], `status.${field}`, ({ user }, at) => {
      const path = `${at}.user.linux`;
      if (!user?.linux) return;
      if (spec?.os?.name === 'windows') {
        addForbidden(errors, path, 'cannot be set for a windows pod');
        return;
      }
      const { uid, gid, supplementalGroups } = user.linux;
      const check = (id: number, idAt: string): void => {
        if (id < 0 || id > INT32_MAX) addInvalid(errors, idAt, id, rangeProblem(0, INT32_MAX));
      };
      check(uid ?? 0, `${path}.uid`);
      check(gid ?? 0, `${path}.gid`);
      eachAt(supplementalGroups, `${path}.supplementalGroups`, check);
    });
}

/** Statuses of containers that the pod has not are let through. */
function checkAllocated(errors: Errors, path: string, status: ResourceStatus, container: Container | undefined): void {
  const { name } = status;
  if (container && name.startsWith('claim:')) {
    const isClaimed = container.resources?.claims?.some(
      claim => name === `claim:${claim.name}${claim.request ? `/${claim.request}` : ''}`,
    );
    if (!isClaimed)
      addInvalid(
        errors,
        `${path}.name`,
        name,
        "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty",
      );
  } else if (container && container.resources?.requests?.[name] === undefined)
    addInvalid(errors, `${path}.name`, name, "must match one of the container's resource requests");
  const seen = new Set<string>();
  eachAt(status.resources, `${path}.resources`, ({ resourceID, health, message }, at) => {
    if (seen.has(resourceID)) addDuplicate(errors, `${at}.resourceID`, resourceID);
    seen.add(resourceID);
    allowOneOf(errors, `${at}.health`, health ?? '', ['Healthy', 'Unhealthy', 'Unknown']);
    if (message === '') addRequired(errors, `${at}.message`, 'must be non-empty if specified');
    else if (message !== undefined && byteLength(message) > HEALTH_MESSAGE_MAX)
      errors.push(fieldErrors.tooLong(`${at}.message`, HEALTH_MESSAGE_MAX));
  });
}
