/**
 * Validation of the three lists of containers of a pod: regular, init (with sidecars) and ephemeral. Messages and paths
 * as upstream's `core/validation`.
 */

import { fieldErrors } from '../../base/errors.ts';
import { qualifiedNameProblems } from '../machinery/labels.ts';
import {
  configKeyProblems,
  dnsLabelProblems,
  environmentNameProblems,
  headerNameProblems,
  portNameProblems,
  portNumberProblems,
  subdomainName,
} from '../machinery/names.ts';
import { isSidecar } from '../machinery/pod.ts';
import {
  addDuplicate,
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkNotNegative,
  checkPort,
  type Errors,
  eachAt,
  requireOneOf,
  requireText,
} from '../machinery/validation.ts';
import { checkResourceRequirements } from './resource-validation.ts';
import { checkSecurityContext } from './security-context-validation.ts';
import type {
  Container,
  ContainerPort,
  EnvFromSource,
  EnvVar,
  EphemeralContainer,
  HTTPGetAction,
  Lifecycle,
  LifecycleHandler,
  PodSpec,
  Probe,
  Volume,
  VolumeDevice,
  VolumeMount,
} from './v1.gen.ts';
import {
  checkFieldRef,
  checkNoBackstep,
  checkRelativePath,
  checkResourceFieldRef,
  hasBackstep,
} from './volume-validation.ts';

export const PROTOCOLS = ['SCTP', 'TCP', 'UDP'];
const PULL_POLICIES = ['Always', 'IfNotPresent', 'Never'];
const MOUNT_PROPAGATIONS = ['Bidirectional', 'HostToContainer', 'None'];
const RESIZE_POLICIES = ['NotRequired', 'RestartContainer'];
const CONTAINER_RESTART_POLICIES = ['Always', 'Never', 'OnFailure'];
const RESTART_RULES_MAX = 20;
const EXIT_CODES_MAX = 255;
const WINDOWS_STOP_SIGNALS = ['SIGKILL', 'SIGTERM'];
const LINUX_STOP_SIGNALS = [
  ...'ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP'.split(
    ' ',
  ),
  ...'TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX'.split(' '),
  ...Array.from({ length: 15 }, (_, index) => `RTMIN+${index + 1}`),
  ...Array.from({ length: 14 }, (_, index) => `RTMAX-${index + 1}`),
]
  .map(name => `SIG${name}`)
  .sort();

/** What the containers of one pod share. */
export interface PodContext {
  readonly spec: PodSpec;
  readonly volumes: ReadonlyMap<string, Volume>;
  readonly claimNames: ReadonlySet<string>;
  readonly hostUsers: boolean;
  /** A pod itself rather than a template of one. */
  readonly isPod: boolean;
}

export function checkContainers(errors: Errors, path: string, context: PodContext): void {
  const containers = context.spec.containers ?? [];
  if (containers.length === 0) {
    addRequired(errors, path);
    return;
  }
  const names = new Set<string>();
  eachAt(containers, path, (container, at) => {
    checkCommon(errors, at, container, context);
    if (names.has(container.name)) addDuplicate(errors, `${at}.name`, container.name);
    names.add(container.name);
    checkHooksAndProbes(errors, at, container, context);
    checkRestartPolicy(errors, at, container);
  });
  checkHostPortConflicts(errors, path, containers);
}

export function checkInitContainers(errors: Errors, path: string, context: PodContext): void {
  const names = new Set((context.spec.containers ?? []).map(container => container.name));
  eachAt(context.spec.initContainers, path, (container, at) => {
    checkCommon(errors, at, container, context);
    checkRestartPolicy(errors, at, container);
    if (names.has(container.name)) addDuplicate(errors, `${at}.name`, container.name);
    else if (container.name) names.add(container.name);
    checkHostPortConflicts(errors, path, [container]);
    if (isSidecar(container)) checkHooksAndProbes(errors, at, container, context);
    else
      for (const field of ['lifecycle', 'livenessProbe', 'readinessProbe', 'startupProbe'] as const)
        if (container[field])
          addForbidden(errors, `${at}.${field}`, 'may not be set for init containers without restartPolicy=Always');
    if (!isSidecar(container))
      eachAt(container.resizePolicy, `${at}.resizePolicy`, (policy, policyAt) => {
        if (policy.restartPolicy === 'RestartContainer')
          addInvalid(
            errors,
            `${policyAt}.restartPolicy`,
            policy.restartPolicy,
            "must not be set to 'RestartContainer' for non-sidecar initContainers",
          );
      });
  });
}

const NOT_FOR_EPHEMERAL: readonly (keyof Container)[] = [
  'ports',
  'livenessProbe',
  'readinessProbe',
  'startupProbe',
  'lifecycle',
  'resizePolicy',
  'restartPolicy',
  'restartPolicyRules',
];

export function checkEphemeralContainers(errors: Errors, path: string, context: PodContext): void {
  const { spec } = context;
  if (!spec.ephemeralContainers?.length) return;
  const others = new Set([...(spec.containers ?? []), ...(spec.initContainers ?? [])].map(container => container.name));
  const names = new Set(others);
  const refusal = 'cannot be set for an Ephemeral Container';
  eachAt(spec.ephemeralContainers, path, (ephemeral: EphemeralContainer, at) => {
    const container = ephemeral as Container;
    checkCommon(errors, at, container, context);
    checkImageSpace(errors, at, container);
    if (names.has(ephemeral.name)) addDuplicate(errors, `${at}.name`, ephemeral.name);
    names.add(ephemeral.name);
    const target = ephemeral.targetContainerName;
    if (target && !others.has(target)) errors.push(fieldErrors.notFound(`${at}.targetContainerName`, target));
    for (const field of NOT_FOR_EPHEMERAL) {
      const value = container[field];
      if (value !== undefined && !(Array.isArray(value) && value.length === 0))
        addForbidden(errors, `${at}.${field}`, refusal);
    }
    if (container.resources && Object.keys(container.resources).length > 0)
      addForbidden(errors, `${at}.resources`, refusal);
    eachAt(ephemeral.volumeMounts, `${at}.volumeMounts`, (mount, mountAt) => {
      if (mount.subPath) addForbidden(errors, `${mountAt}.subPath`, refusal);
      if (mount.subPathExpr) addForbidden(errors, `${mountAt}.subPathExpr`, refusal);
    });
  });
}

/** Only pods, not templates, refuse blanks around the image. */
export function checkImageSpace(errors: Errors, path: string, container: Container): void {
  const image = container.image ?? '';
  if (image.length !== image.trim().length)
    addInvalid(errors, `${path}.image`, image, 'must not have leading or trailing whitespace');
}

function checkCommon(errors: Errors, path: string, container: Container, context: PodContext): void {
  if (requireText(errors, `${path}.name`, container.name))
    addProblems(errors, `${path}.name`, container.name, dnsLabelProblems(container.name));
  requireText(errors, `${path}.image`, container.image);
  requireOneOf(errors, `${path}.terminationMessagePolicy`, container.terminationMessagePolicy, [
    'File',
    'FallbackToLogsOnError',
  ]);
  if (container.ports?.length) checkContainerPorts(errors, `${path}.ports`, container.ports);
  if (container.env?.length) checkEnvironment(errors, `${path}.env`, container.env, context);
  if (container.envFrom?.length) checkEnvironmentFrom(errors, `${path}.envFrom`, container.envFrom);
  if (container.volumeMounts?.length) checkMounts(errors, `${path}.volumeMounts`, container, context);
  if (container.volumeDevices?.length) checkDevices(errors, `${path}.volumeDevices`, container, context);
  requireOneOf(errors, `${path}.imagePullPolicy`, container.imagePullPolicy, PULL_POLICIES);
  checkResourceRequirements(errors, `${path}.resources`, container.resources, {
    level: 'container',
    claimNames: context.claimNames,
  });
  if (container.resizePolicy?.length) checkResizePolicy(errors, `${path}.resizePolicy`, container, context);
  if (container.securityContext)
    checkSecurityContext(errors, `${path}.securityContext`, container.securityContext, context.hostUsers);
}

function checkRestartPolicy(errors: Errors, path: string, container: Container): void {
  const { restartPolicy, restartPolicyRules: rules } = container;
  if (restartPolicy !== undefined)
    allowOneOf(errors, `${path}.restartPolicy`, restartPolicy, CONTAINER_RESTART_POLICIES);
  if (!rules?.length) return;
  const at = `${path}.restartPolicyRules`;
  if (!restartPolicy)
    addRequired(errors, `${path}.restartPolicy`, 'must specify restartPolicy when restart rules are used');
  if (rules.length > RESTART_RULES_MAX) errors.push(fieldErrors.tooMany(at, rules.length, RESTART_RULES_MAX));
  eachAt(rules, at, (rule, ruleAt) => {
    allowOneOf(errors, `${ruleAt}.action`, rule.action ?? '', ['Restart', 'RestartAllContainers']);
    if (!rule.exitCodes) {
      addRequired(errors, `${ruleAt}.exitCodes`, 'must be specified');
      return;
    }
    allowOneOf(errors, `${ruleAt}.exitCodes.operator`, rule.exitCodes.operator ?? '', ['In', 'NotIn']);
    const values = rule.exitCodes.values ?? [];
    if (values.length > EXIT_CODES_MAX)
      errors.push(fieldErrors.tooMany(`${ruleAt}.exitCodes.values`, values.length, EXIT_CODES_MAX));
  });
}

export function checkContainerPorts(errors: Errors, path: string, ports: readonly ContainerPort[]): void {
  const names = new Set<string>();
  eachAt(ports, path, (port, at) => {
    if (port.name) {
      const problems = portNameProblems(port.name);
      if (problems.length) addProblems(errors, `${at}.name`, port.name, problems);
      else if (names.has(port.name)) addDuplicate(errors, `${at}.name`, port.name);
      else names.add(port.name);
    }
    if (!port.containerPort) addRequired(errors, `${at}.containerPort`);
    else addProblems(errors, `${at}.containerPort`, port.containerPort, portNumberProblems(port.containerPort));
    if (port.hostPort) addProblems(errors, `${at}.hostPort`, port.hostPort, portNumberProblems(port.hostPort));
    requireOneOf(errors, `${at}.protocol`, port.protocol, PROTOCOLS);
  });
}

function checkHostPortConflicts(errors: Errors, path: string, containers: readonly Container[]): void {
  let taken: Set<string> | undefined;
  eachAt(containers, path, (container, containerAt) => {
    eachAt(container.ports, `${containerAt}.ports`, (port, at) => {
      if (!port.hostPort) return;
      const key = `${port.protocol}/${port.hostIP ?? ''}/${port.hostPort}`;
      taken ??= new Set();
      if (taken.has(key)) addDuplicate(errors, `${at}.hostPort`, key);
      taken.add(key);
    });
  });
}

function checkEnvironment(errors: Errors, path: string, variables: readonly EnvVar[], context: PodContext): void {
  eachAt(variables, path, (variable, at) => {
    if (requireText(errors, `${at}.name`, variable.name))
      addProblems(errors, `${at}.name`, variable.name, environmentNameProblems(variable.name));
    const source = variable.valueFrom;
    if (!source) return;
    const from = `${at}.valueFrom`;
    let sources = 0;
    if (source.fieldRef) {
      sources++;
      checkFieldRef(errors, `${from}.fieldRef`, source.fieldRef, 'environment');
    }
    if (source.resourceFieldRef) {
      sources++;
      checkResourceFieldRef(errors, `${from}.resourceFieldRef`, source.resourceFieldRef, false);
    }
    for (const kind of ['configMapKeyRef', 'secretKeyRef'] as const) {
      const reference = source[kind];
      if (!reference) continue;
      sources++;
      addProblems(errors, `${from}.${kind}.name`, reference.name ?? '', subdomainName(reference.name ?? '', false));
      if (requireText(errors, `${from}.${kind}.key`, reference.key))
        addProblems(errors, `${from}.${kind}.key`, reference.key, configKeyProblems(reference.key));
    }
    if (source.fileKeyRef) {
      sources++;
      const reference = source.fileKeyRef;
      const at = `${from}.fileKeyRef`;
      if (requireText(errors, `${at}.key`, reference.key))
        addProblems(errors, `${at}.key`, reference.key, environmentNameProblems(reference.key));
      if (requireText(errors, `${at}.volumeName`, reference.volumeName))
        addProblems(errors, `${at}.volumeName`, reference.volumeName, dnsLabelProblems(reference.volumeName));
      const volume = context.spec.volumes?.find(({ name }) => name === reference.volumeName);
      if (!volume) errors.push(fieldErrors.notFound(`${at}.volumeName`, reference.volumeName ?? ''));
      else if (!volume.emptyDir)
        addInvalid(errors, `${at}.volumeName`, reference.volumeName, 'referenced volume must be of type emptyDir');
      if (requireText(errors, `${at}.path`, reference.path)) checkNoBackstep(errors, `${at}.path`, reference.path);
    }
    if (sources === 0)
      addInvalid(
        errors,
        from,
        '',
        'must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`',
      );
    else if (variable.value) addInvalid(errors, from, '', 'may not be specified when `value` is not empty');
    else if (sources > 1) addInvalid(errors, from, '', 'may not have more than one field specified at a time');
  });
}

function checkEnvironmentFrom(errors: Errors, path: string, sources: readonly EnvFromSource[]): void {
  eachAt(sources, path, (source, at) => {
    if (source.prefix) addProblems(errors, `${at}.prefix`, source.prefix, environmentNameProblems(source.prefix));
    let count = 0;
    for (const kind of ['configMapRef', 'secretRef'] as const) {
      const reference = source[kind];
      if (!reference) continue;
      count++;
      if (requireText(errors, `${at}.${kind}.name`, reference.name))
        addProblems(errors, `${at}.${kind}.name`, reference.name, subdomainName(reference.name, true));
    }
    if (count === 0) addInvalid(errors, path, '', 'must specify one of: `configMapRef` or `secretRef`');
    else if (count > 1) addInvalid(errors, path, '', 'may not have more than one field specified at a time');
  });
}

function checkMounts(errors: Errors, path: string, container: Container, context: PodContext): void {
  const points = new Set<string>();
  const devices = container.volumeDevices ?? [];
  eachAt(container.volumeMounts, path, (mount: VolumeMount, at) => {
    requireText(errors, `${at}.name`, mount.name);
    if (!context.volumes.has(mount.name)) errors.push(fieldErrors.notFound(`${at}.name`, mount.name));
    requireText(errors, `${at}.mountPath`, mount.mountPath);
    if (points.has(mount.mountPath)) addInvalid(errors, `${at}.mountPath`, mount.mountPath, 'must be unique');
    points.add(mount.mountPath);
    if (devices.some(device => device.name === mount.name))
      addInvalid(errors, `${at}.name`, mount.name, 'must not already exist in volumeDevices');
    if (devices.some(device => device.devicePath === mount.mountPath))
      addInvalid(errors, `${at}.mountPath`, mount.mountPath, 'must not already exist as a path in volumeDevices');
    // Upstream leaves the index out of these paths.
    if (mount.subPath) checkRelativePath(errors, `${path}.subPath`, mount.subPath);
    if (mount.subPathExpr) {
      if (mount.subPath)
        addInvalid(errors, `${at}.subPathExpr`, mount.subPathExpr, 'subPathExpr and subPath are mutually exclusive');
      checkRelativePath(errors, `${path}.subPathExpr`, mount.subPathExpr);
    }
    if (mount.mountPropagation !== undefined) {
      allowOneOf(errors, `${path}.mountPropagation`, mount.mountPropagation, MOUNT_PROPAGATIONS);
      if (mount.mountPropagation === 'Bidirectional' && !container.securityContext?.privileged)
        addForbidden(
          errors,
          `${path}.mountPropagation`,
          'Bidirectional mount propagation is available only to privileged containers',
        );
    }
    const recursive = mount.recursiveReadOnly;
    if (recursive === undefined || recursive === 'Disabled') return;
    if (recursive !== 'Enabled' && recursive !== 'IfPossible') {
      errors.push(
        fieldErrors.notSupported(`${path}.recursiveReadOnly`, recursive, ['Disabled', 'Enabled', 'IfPossible']),
      );
      return;
    }
    if (!mount.readOnly)
      addForbidden(errors, `${path}.recursiveReadOnly`, 'may only be specified when readOnly is true');
    if (mount.mountPropagation !== undefined && mount.mountPropagation !== 'None')
      addForbidden(
        errors,
        `${path}.recursiveReadOnly`,
        'may only be specified when mountPropagation is None or not specified',
      );
  });
}

function checkDevices(errors: Errors, path: string, container: Container, context: PodContext): void {
  const paths = new Set<string>();
  const names = new Set<string>();
  const mounts = container.volumeMounts ?? [];
  eachAt(container.volumeDevices, path, (device: VolumeDevice, at) => {
    const volume = context.volumes.get(device.name);
    requireText(errors, `${at}.name`, device.name);
    if (names.has(device.name)) addInvalid(errors, `${at}.name`, device.name, 'must be unique');
    if (!volume) errors.push(fieldErrors.notFound(`${at}.name`, device.name));
    else if (!volume.persistentVolumeClaim && !volume.ephemeral)
      addInvalid(
        errors,
        `${at}.name`,
        device.name,
        'can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode',
      );
    requireText(errors, `${at}.devicePath`, device.devicePath);
    if (paths.has(device.devicePath)) addInvalid(errors, `${at}.devicePath`, device.devicePath, 'must be unique');
    if (device.devicePath && hasBackstep(device.devicePath))
      addInvalid(errors, `${at}.devicePath`, device.devicePath, "can not contain backsteps ('..')");
    else paths.add(device.devicePath);
    if (mounts.some(mount => mount.name === device.name))
      addInvalid(errors, `${at}.name`, device.name, 'must not already exist in volumeMounts');
    if (mounts.some(mount => mount.mountPath === device.devicePath))
      addInvalid(errors, `${at}.devicePath`, device.devicePath, 'must not already exist as a path in volumeMounts');
    if (device.name) names.add(device.name);
  });
}

function checkResizePolicy(errors: Errors, path: string, container: Container, context: PodContext): void {
  const seen = new Set<string>();
  eachAt(container.resizePolicy, path, (policy, at) => {
    if (seen.has(policy.resourceName)) addDuplicate(errors, at, policy.resourceName);
    seen.add(policy.resourceName);
    requireOneOf(errors, path, policy.resourceName, ['cpu', 'memory']);
    requireOneOf(errors, path, policy.restartPolicy, RESIZE_POLICIES);
    if (context.spec.restartPolicy === 'Never' && policy.restartPolicy !== 'NotRequired')
      addInvalid(errors, path, policy.restartPolicy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
  });
}

function checkHooksAndProbes(errors: Errors, path: string, container: Container, context: PodContext): void {
  const grace = context.spec.terminationGracePeriodSeconds;
  if (container.lifecycle) checkLifecycle(errors, `${path}.lifecycle`, container.lifecycle, grace, context);
  for (const kind of ['livenessProbe', 'readinessProbe', 'startupProbe'] as const) {
    const probe = container[kind];
    if (!probe) continue;
    checkProbe(errors, `${path}.${kind}`, probe);
    if (kind === 'readinessProbe') {
      if (probe.terminationGracePeriodSeconds !== undefined)
        addInvalid(
          errors,
          `${path}.${kind}.terminationGracePeriodSeconds`,
          probe.terminationGracePeriodSeconds,
          'must not be set for readinessProbes',
        );
    } else if (probe.successThreshold !== 1)
      addInvalid(errors, `${path}.${kind}.successThreshold`, probe.successThreshold ?? 0, 'must be 1');
  }
}

function checkProbe(errors: Errors, path: string, probe: Probe): void {
  checkHandler(errors, path, probe, undefined);
  for (const field of [
    'initialDelaySeconds',
    'timeoutSeconds',
    'periodSeconds',
    'successThreshold',
    'failureThreshold',
  ] as const)
    checkNotNegative(errors, `${path}.${field}`, probe[field]);
  const grace = probe.terminationGracePeriodSeconds;
  if (grace !== undefined && grace <= 0)
    addInvalid(errors, `${path}.terminationGracePeriodSeconds`, grace, 'must be greater than 0');
}

function checkLifecycle(
  errors: Errors,
  path: string,
  lifecycle: Lifecycle,
  grace: number | undefined,
  context: PodContext,
): void {
  if (lifecycle.postStart) checkHandler(errors, `${path}.postStart`, lifecycle.postStart, grace);
  if (lifecycle.preStop) checkHandler(errors, `${path}.preStop`, lifecycle.preStop, grace);
  const signal = lifecycle.stopSignal;
  if (signal === undefined) return;
  if (!context.spec.os?.name)
    addForbidden(errors, `${path}.stopSignal`, 'may not be set for containers with empty `spec.os.name`');
  else
    allowOneOf(
      errors,
      `${path}.stopSignal`,
      signal,
      context.spec.os.name === 'windows' ? WINDOWS_STOP_SIGNALS : LINUX_STOP_SIGNALS,
    );
}

function checkHandler(
  errors: Errors,
  path: string,
  handler: Probe & LifecycleHandler,
  grace: number | undefined,
): void {
  let count = 0;
  const isFirst = (field: string): boolean => {
    if (count++ === 0) return true;
    addForbidden(errors, `${path}.${field}`, 'may not specify more than 1 handler type');
    return false;
  };
  if (handler.exec && isFirst('exec') && !handler.exec.command?.length) addRequired(errors, `${path}.exec.command`);
  if (handler.httpGet && isFirst('httpGet')) checkHttpGet(errors, `${path}.httpGet`, handler.httpGet);
  if (handler.tcpSocket && isFirst('tcpSocket')) checkPort(errors, `${path}.tcpSocket.port`, handler.tcpSocket.port);
  if (handler.grpc && isFirst('grpc')) checkPort(errors, `${path}.grpc.port`, handler.grpc.port);
  if (handler.sleep && isFirst('sleep')) {
    const { seconds } = handler.sleep;
    if (grace !== undefined && (seconds < 0 || seconds > grace))
      addInvalid(
        errors,
        `${path}.sleep`,
        seconds,
        `must be non-negative and less than terminationGracePeriodSeconds (${grace})`,
      );
  }
  if (count === 0) addRequired(errors, path, 'must specify a handler type');
}

function checkHttpGet(errors: Errors, path: string, action: HTTPGetAction): void {
  requireText(errors, `${path}.path`, action.path);
  checkPort(errors, `${path}.port`, action.port);
  if (action.scheme !== 'HTTP' && action.scheme !== 'HTTPS')
    errors.push(fieldErrors.notSupported(`${path}.scheme`, action.scheme ?? '', ['HTTP', 'HTTPS']));
  for (const header of action.httpHeaders ?? [])
    addProblems(errors, `${path}.httpHeaders`, header.name, headerNameProblems(header.name));
}

/** A qualified name such as the type of a readiness gate. */
export function checkQualifiedName(errors: Errors, path: string, name: string | undefined): void {
  addProblems(errors, path, name ?? '', qualifiedNameProblems(name ?? ''));
}
