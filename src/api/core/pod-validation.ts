/**
 * Validation of pods and pod templates by themselves; changes to pods are in pod-update-validation.ts. Messages and paths as
 * upstream's `core/validation`. Metadata is validated generically before.
 */

import { fieldErrors } from '../../base/errors.ts';
import { validateLabels } from '../machinery/labels.ts';
import { validateAnnotations } from '../machinery/metadata.ts';
import {
  dnsLabelProblems,
  dnsSubdomainProblems,
  ipProblems,
  rangeProblem,
  regexProblem,
  tooLongProblem,
} from '../machinery/names.ts';
import { podLimits, podRequests, resourceAmount } from '../machinery/pod.ts';
import { compareQuantity, formatNano } from '../machinery/quantity.ts';
import {
  addDuplicate,
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
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
import { checkPodAnnotations, checkProfilesAgree, MIRROR_ANNOTATION } from './pod-annotation-validation.ts';
import { checkOverhead, checkResourceRequirements, isHugePages } from './resource-validation.ts';
import { checkAffinity, checkTolerations, checkTopologySpread } from './scheduling-validation.ts';
import { checkOs, checkPodSecurityContext } from './security-context-validation.ts';
import type { Container, EphemeralContainer, Pod, PodResourceClaim, PodSpec, PodTemplateSpec } from './v1.gen.ts';
import { checkVolumes } from './volume-validation.ts';

const INT32_MAX = 2 ** 31 - 1;
const NAMESERVERS_MAX = 3;
const SEARCH_PATHS_MAX = 32;
const SEARCH_CHARACTERS_MAX = 2048;
const HOSTNAME_BYTES_MAX = 64;

/** A pod as it is created, or as an update would leave it. */
export function validatePod(pod: Pod): Errors {
  const errors: Errors = [];
  const spec = pod.spec ?? ({ containers: [] } as PodSpec);
  checkPodAnnotations(errors, 'metadata.annotations', pod.metadata.annotations, spec);
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
    checkProfilesAgree(errors, 'spec', pod.metadata.annotations, spec);
  }
  return errors;
}

/** `template` of a workload. */
export function checkPodTemplate(errors: Errors, path: string, template: PodTemplateSpec): void {
  if (template.metadata?.labels) errors.push(...validateLabels(template.metadata.labels, `${path}.labels`));
  if (template.metadata?.annotations)
    errors.push(...validateAnnotations(template.metadata.annotations, `${path}.annotations`));
  const spec = template.spec ?? ({ containers: [] } as PodSpec);
  checkPodAnnotations(errors, `${path}.annotations`, template.metadata?.annotations, spec);
  checkPodSpec(errors, `${path}.spec`, spec, undefined);
  checkProfilesAgree(errors, `${path}.spec`, template.metadata?.annotations, spec);
  if (spec.ephemeralContainers?.length)
    addForbidden(errors, `${path}.spec.ephemeralContainers`, 'ephemeral containers not allowed in pod template');
}

/** `meta` is that of a pod; undefined for templates. */
export function checkPodSpec(errors: Errors, path: string, spec: PodSpec, meta: ObjectMeta | undefined): void {
  if (spec.terminationGracePeriodSeconds === undefined) addRequired(errors, `${path}.terminationGracePeriodSeconds`);
  const volumes = checkVolumes(errors, `${path}.volumes`, spec.volumes, meta);
  const claimNames = checkResourceClaims(errors, `${path}.resourceClaims`, spec.resourceClaims, meta);
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
  if (spec.resources && spec.os?.name === 'windows')
    addForbidden(errors, `${path}.resources`, 'may not be set for a windows pod');
  else if (spec.resources) checkPodLevelResources(errors, `${path}.resources`, spec, claimNames);
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
    const refusal = 'when `hostUsers` is false';
    if (spec.hostNetwork) addForbidden(errors, `${path}.hostNetwork`, refusal);
    if (spec.hostPID) addForbidden(errors, `${path}.HostPID`, refusal);
    if (spec.hostIPC) addForbidden(errors, `${path}.HostIPC`, refusal);
    for (const list of ['initContainers', 'containers', 'ephemeralContainers'] as const)
      eachAt<{ volumeDevices?: readonly unknown[] }>(spec[list], `${path}.${list}`, (container, at) => {
        if (container.volumeDevices?.length) addForbidden(errors, `${at}.volumeDevices`, refusal);
      });
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
  if (spec.overhead) checkOverhead(errors, `${path}.overhead`, spec.overhead);
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
  const at = `${path}.hostnameOverride`;
  if (spec.setHostnameAsFQDN) addForbidden(errors, at, 'may not be specified when setHostnameAsFQDN is true');
  if (spec.hostNetwork) addForbidden(errors, at, 'may not be specified when hostNetwork is true');
  if (override.length > HOSTNAME_BYTES_MAX) errors.push(fieldErrors.tooLong(at, HOSTNAME_BYTES_MAX));
  addProblems(errors, at, override, dnsSubdomainProblems(override));
}

function checkResourceClaims(
  errors: Errors,
  path: string,
  claims: readonly PodResourceClaim[] | undefined,
  meta: ObjectMeta | undefined,
): ReadonlySet<string> {
  const names = new Set<string>();
  const isMirror = meta?.annotations?.[MIRROR_ANNOTATION] !== undefined;
  eachAt(claims, path, (claim, at) => {
    if (isMirror) {
      names.add(claim.name);
      addForbidden(errors, '[]', 'static pods do not support resource claims');
      return;
    }
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
  if (resources.claims) addForbidden(errors, `${path}.claims`, 'claims may not be set for Resources at pod-level');
  checkResourceRequirements(errors, path, resources, { level: 'pod', claimNames });
  checkAggregate(errors, path, 'requests', spec);
  checkAggregate(errors, path, 'limits', spec);
  eachAt(spec.containers, `${path}.containers`, (container, at) => {
    for (const name in container.resources?.limits) {
      const own = container.resources.limits[name]!;
      const pod = resources.limits?.[name];
      if (pod !== undefined && compareQuantity(own, pod) > 0)
        addInvalid(errors, `${at}[${name}].limits`, own, `must be less than or equal to pod limits of ${pod}`);
    }
  });
}

/** The pod asks for at least what its containers do together; may limit them to less, but for pages, which are never overcommitted. */
function checkAggregate(errors: Errors, path: string, kind: 'requests' | 'limits', spec: PodSpec): void {
  const list = spec.resources?.[kind] ?? {};
  const ofContainers = (kind === 'requests' ? podRequests : podLimits)({ ...spec, resources: {}, overhead: {} });
  for (const name in list) {
    const sum = ofContainers[name] ?? 0;
    if ((kind === 'limits' && !isHugePages(name)) || sum <= resourceAmount(name, list[name]!)) continue;
    const unit = name === 'cpu' ? 10n ** 6n : 10n ** 9n;
    const text = formatNano(
      BigInt(Math.min(sum, Number.MAX_SAFE_INTEGER)) * unit,
      name === 'cpu' ? 'decimal' : 'binary',
    );
    addInvalid(
      errors,
      `${path}.${kind}[${name}]`,
      list[name]!,
      `must be greater than or equal to aggregate container ${kind} of ${text}`,
    );
  }
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

const SEARCH_LABEL = '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?';
const SEARCH_PATH = `${SEARCH_LABEL}(\\.${SEARCH_LABEL})*`;
const searchPath = new RegExp(`^${SEARCH_PATH}$`);

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
    if (search === '.') return;
    if (name.length > 253) addInvalid(errors, at, name, tooLongProblem(253));
    if (!searchPath.test(name))
      addInvalid(
        errors,
        at,
        name,
        regexProblem(
          "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
          SEARCH_PATH,
          'example.com',
        ),
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

/** A Binding or `pods/binding`: the node to run on. */
export function validateBinding(target: { kind?: string; name?: string } | undefined): Errors {
  const errors: Errors = [];
  if (target?.kind) allowOneOf(errors, 'target.kind', target.kind, ['Node', '<empty>']);
  requireText(errors, 'target.name', target?.name);
  return errors;
}
