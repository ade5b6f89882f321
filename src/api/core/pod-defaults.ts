/**
 * Defaults of pods and of pod templates, which differ: service links, host ports and requests from limits are filled in
 * for pods alone. Every function changes what it is given and is idempotent.
 */

import { EXPIRATION_SECONDS_DEFAULT } from '../certificates/certificate-lifetime.ts';
import { canonicalQuantity } from '../machinery/quantity.ts';
import { isHugePages } from './resource-validation.ts';
import type {
  Container,
  HTTPGetAction,
  Pod,
  PodSpec,
  PodTemplateSpec,
  Probe,
  ResourceRequirements,
  Volume,
} from './v1.gen.ts';

const DEFAULT_FILE_MODE = 0o644;

/** `Always` for `latest` (also when implied), otherwise `IfNotPresent`. */
export function pullPolicyOf(image: string): 'Always' | 'IfNotPresent' {
  const digest = image.indexOf('@');
  const reference = digest < 0 ? image : image.slice(0, digest);
  const colon = reference.lastIndexOf(':');
  const tag = colon > reference.lastIndexOf('/') ? reference.slice(colon + 1) : '';
  return tag === 'latest' || (tag === '' && digest < 0) ? 'Always' : 'IfNotPresent';
}

export function podDefaults(pod: Pod): void {
  const spec = (pod.spec ??= { containers: [] });
  podSpecDefaults(spec);
  for (const container of spec.containers ?? []) requestsFromLimits(container.resources);
  for (const container of spec.initContainers ?? []) requestsFromLimits(container.resources);
  if (spec.resources) podLevelRequests(spec);
  spec.enableServiceLinks ??= true;
  if (spec.hostNetwork) {
    for (const container of spec.containers ?? []) hostPorts(container);
    for (const container of spec.initContainers ?? []) hostPorts(container);
  }
}

export function podTemplateDefaults(template: PodTemplateSpec | undefined): void {
  if (!template) return;
  template.metadata ??= {} as PodTemplateSpec['metadata'];
  if (template.spec) podSpecDefaults(template.spec);
}

function requestsFromLimits(resources: ResourceRequirements | undefined): void {
  if (!resources?.limits) return;
  const requests = (resources.requests ??= {});
  for (const name in resources.limits) requests[name] ??= resources.limits[name]!;
}

// Requests of the pod follow its limits only for what no container asks for itself. Of huge pages always: they are never overcommitted.
function podLevelRequests(spec: PodSpec): void {
  const limits = spec.resources?.limits;
  if (!limits) return;
  for (const name in limits) {
    if (spec.resources!.requests?.[name] !== undefined) continue;
    const asked =
      !isHugePages(name) &&
      (spec.containers ?? []).some(container => container.resources?.requests?.[name] !== undefined);
    if (!asked) (spec.resources!.requests ??= {})[name] = limits[name]!;
  }
}

function hostPorts(container: Container): void {
  for (const port of container.ports ?? []) if (!port.hostPort) port.hostPort = port.containerPort;
}

export function podSpecDefaults(spec: PodSpec): void {
  // Of a feature that is off in 1.36 (GenericWorkload): upstream drops it.
  delete spec.schedulingGroup;
  spec.restartPolicy ||= 'Always';
  spec.dnsPolicy ||= 'ClusterFirst';
  spec.terminationGracePeriodSeconds ??= 30;
  spec.schedulerName ||= 'default-scheduler';
  spec.securityContext ??= {};
  // serviceAccount is the old name of the same field; both are always shown.
  const account = spec.serviceAccountName || spec.serviceAccount;
  if (account) spec.serviceAccountName = spec.serviceAccount = account;
  for (const container of spec.initContainers ?? []) containerDefaults(container);
  for (const container of spec.containers ?? []) containerDefaults(container);
  for (const container of spec.ephemeralContainers ?? []) containerDefaults(container as Container);
  for (const volume of spec.volumes ?? []) volumeDefaults(volume);
  if (spec.resources) canonicalResources(spec.resources);
  if (spec.overhead) canonicalList(spec.overhead);
}

function containerDefaults(container: Container): void {
  container.imagePullPolicy ||= pullPolicyOf(container.image ?? '');
  container.terminationMessagePath ||= '/dev/termination-log';
  container.terminationMessagePolicy ||= 'File';
  container.resources ??= {};
  canonicalResources(container.resources);
  for (const port of container.ports ?? []) port.protocol ||= 'TCP';
  for (const variable of container.env ?? []) {
    const source = variable.valueFrom;
    if (source?.fieldRef) source.fieldRef.apiVersion ||= 'v1';
    if (source?.resourceFieldRef) source.resourceFieldRef.divisor ??= '0';
    if (source?.fileKeyRef) source.fileKeyRef.optional ??= false;
  }
  if (container.livenessProbe) probeDefaults(container.livenessProbe);
  if (container.readinessProbe) probeDefaults(container.readinessProbe);
  if (container.startupProbe) probeDefaults(container.startupProbe);
  if (container.lifecycle?.postStart?.httpGet) httpGetDefaults(container.lifecycle.postStart.httpGet);
  if (container.lifecycle?.preStop?.httpGet) httpGetDefaults(container.lifecycle.preStop.httpGet);
}

function probeDefaults(probe: Probe): void {
  probe.timeoutSeconds ||= 1;
  probe.periodSeconds ||= 10;
  probe.successThreshold ||= 1;
  probe.failureThreshold ||= 3;
  if (probe.httpGet) httpGetDefaults(probe.httpGet);
  if (probe.grpc) probe.grpc.service ??= '';
}

function httpGetDefaults(action: HTTPGetAction): void {
  action.path ||= '/';
  action.scheme ||= 'HTTP';
}

export function canonicalResources(resources: ResourceRequirements): void {
  if (resources.requests) canonicalList(resources.requests);
  if (resources.limits) canonicalList(resources.limits);
}

const CANONICAL = /^[1-9]\d{0,2}(m|Ki|Mi|Gi|Ti)?$/;

/** Rewrites each quantity of a resource list to its canonical form. */
export function canonicalList(list: Record<string, string>): void {
  for (const name in list) {
    const value = String(list[name]);
    // Short whole numbers are canonical as they are, which spares the exact arithmetic for nearly every pod.
    list[name] = CANONICAL.test(value) ? value : canonicalQuantity(value);
  }
}

function volumeDefaults(volume: Volume): void {
  if (volume.secret) volume.secret.defaultMode ??= DEFAULT_FILE_MODE;
  else if (volume.configMap) volume.configMap.defaultMode ??= DEFAULT_FILE_MODE;
  else if (volume.projected) {
    volume.projected.defaultMode ??= DEFAULT_FILE_MODE;
    for (const source of volume.projected.sources ?? []) {
      if (source.serviceAccountToken) source.serviceAccountToken.expirationSeconds ??= 3600;
      if (source.podCertificate) source.podCertificate.maxExpirationSeconds ??= EXPIRATION_SECONDS_DEFAULT;
      downwardDefaults(source.downwardAPI?.items);
    }
  } else if (volume.emptyDir) {
    const { sizeLimit } = volume.emptyDir;
    if (sizeLimit !== undefined) volume.emptyDir.sizeLimit = canonicalQuantity(sizeLimit);
  } else if (volume.hostPath) volume.hostPath.type ??= '';
  else if (volume.downwardAPI) {
    volume.downwardAPI.defaultMode ??= DEFAULT_FILE_MODE;
    downwardDefaults(volume.downwardAPI.items);
  } else if (volume.ephemeral) {
    const claim = volume.ephemeral.volumeClaimTemplate?.spec;
    if (claim) {
      claim.volumeMode ??= 'Filesystem';
      if (claim.resources?.requests) canonicalList(claim.resources.requests);
    }
  } else if (volume.image) volume.image.pullPolicy ||= pullPolicyOf(volume.image.reference ?? '');
  else cloudVolumeDefaults(volume);
}

function downwardDefaults(
  items: { fieldRef?: { apiVersion?: string }; resourceFieldRef?: { divisor?: string } }[] | undefined,
): void {
  for (const item of items ?? []) {
    if (item.fieldRef) item.fieldRef.apiVersion ||= 'v1';
    if (item.resourceFieldRef) item.resourceFieldRef.divisor ??= '0';
  }
}

function cloudVolumeDefaults(volume: Volume): void {
  if (volume.iscsi) volume.iscsi.iscsiInterface ||= 'default';
  else if (volume.rbd) {
    volume.rbd.pool ||= 'rbd';
    volume.rbd.user ||= 'admin';
    volume.rbd.keyring ||= '/etc/ceph/keyring';
  } else if (volume.azureDisk) {
    volume.azureDisk.cachingMode ??= 'ReadWrite';
    volume.azureDisk.kind ??= 'Shared';
    volume.azureDisk.fsType ??= 'ext4';
    volume.azureDisk.readOnly ??= false;
  } else if (volume.scaleIO) {
    volume.scaleIO.storageMode ||= 'ThinProvisioned';
    volume.scaleIO.fsType ||= 'xfs';
  } else if (!hasVolumeSource(volume)) volume.emptyDir = {};
}

function hasVolumeSource(volume: Volume): boolean {
  for (const key in volume) if (key !== 'name' && volume[key as keyof Volume] != null) return true;
  return false;
}
