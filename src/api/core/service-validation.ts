/** Rules of Services, with upstream's words. Pure; what the allocators refuse is theirs. */

import { fieldErrors } from '../../base/errors.ts';
import { qualifiedNameProblems, validateLabels } from '../machinery/labels.ts';
import {
  cidrProblems,
  dnsLabelProblems,
  dnsSubdomainProblems,
  ipFamily,
  ipProblems,
  portNumberProblems,
} from '../machinery/names.ts';
import {
  addDuplicate,
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  allowOneOf,
  checkPort,
  type Errors,
  eachAt,
  requireOneOf,
} from '../machinery/validation.ts';
import { checkNonSpecialAddress } from './address-validation.ts';
import { PROTOCOLS } from './container-validation.ts';
import type { LoadBalancerStatus, Service, ServicePort, ServiceSpec } from './v1.gen.ts';

const AFFINITY_SECONDS_MAX = 86_400;
const SOURCE_RANGES_ANNOTATION = 'service.beta.kubernetes.io/load-balancer-source-ranges';
export const TOPOLOGY_HINTS_ANNOTATION = 'service.kubernetes.io/topology-aware-hints';
export const TOPOLOGY_MODE_ANNOTATION = 'service.kubernetes.io/topology-mode';

export function isHeadless(spec: ServiceSpec): boolean {
  return spec.clusterIPs?.length === 1 && spec.clusterIPs[0] === 'None';
}

/** Reached from outside the cluster: by node port, load balancer or external address. */
export function isExternallyAccessible(spec: ServiceSpec): boolean {
  return (
    spec.type === 'LoadBalancer' ||
    spec.type === 'NodePort' ||
    (spec.type === 'ClusterIP' && (spec.externalIPs?.length ?? 0) > 0)
  );
}

function needsHealthCheck(spec: ServiceSpec): boolean {
  return spec.type === 'LoadBalancer' && spec.externalTrafficPolicy === 'Local';
}

export function validateService(object: Service): Errors {
  const errors: Errors = [];
  const spec = object.spec ?? {};
  const headless = isHeadless(spec);
  const ports = spec.ports ?? [];
  const { [TOPOLOGY_HINTS_ANNOTATION]: hints, [TOPOLOGY_MODE_ANNOTATION]: mode } = object.metadata.annotations ?? {};
  if (hints !== undefined && mode !== undefined && hints !== mode)
    addInvalid(
      errors,
      `metadata.annotations[${TOPOLOGY_MODE_ANNOTATION}]`,
      mode,
      `must match annotations[${TOPOLOGY_HINTS_ANNOTATION}] when both are specified`,
    );
  if (ports.length === 0 && !headless && spec.type !== 'ExternalName') addRequired(errors, 'spec.ports');
  if (headless && (spec.type === 'LoadBalancer' || spec.type === 'NodePort'))
    addInvalid(errors, 'spec.clusterIPs[0]', 'None', `may not be set to 'None' for ${spec.type} services`);
  if (spec.type === 'ExternalName') checkExternalName(errors, spec);
  const names = new Set<string>();
  eachAt(ports, 'spec.ports', (port, at) =>
    checkServicePort(errors, at, port, { nameRequired: ports.length > 1, names }),
  );
  if (spec.selector) errors.push(...validateLabels(spec.selector, 'spec.selector'));
  checkAffinity(errors, spec);
  errors.push(...clusterAddressErrors(spec));
  eachAt(spec.externalIPs, 'spec.externalIPs', (address, at) => {
    const problems = ipProblems(address);
    if (problems.length) addProblems(errors, at, address, problems);
    else checkNonSpecialAddress(errors, at, address);
  });
  requireOneOf(errors, 'spec.type', spec.type, ['ClusterIP', 'ExternalName', 'LoadBalancer', 'NodePort']);
  checkPortNumbers(errors, spec);
  checkLoadBalancerFields(errors, object, spec);
  checkTrafficPolicies(errors, spec);
  return errors;
}

function checkExternalName(errors: Errors, spec: ServiceSpec): void {
  const refusal = 'may not be set for ExternalName services';
  if (spec.clusterIPs?.length) addForbidden(errors, 'spec.clusterIPs', refusal);
  if (spec.ipFamilies?.length) addForbidden(errors, 'spec.ipFamilies', refusal);
  if (spec.ipFamilyPolicy !== undefined) addForbidden(errors, 'spec.ipFamilyPolicy', refusal);
  const name = (spec.externalName ?? '').replace(/\.$/, '');
  if (name) addProblems(errors, 'spec.externalName', name, dnsSubdomainProblems(name));
  else addRequired(errors, 'spec.externalName');
}

function checkServicePort(
  errors: Errors,
  path: string,
  port: ServicePort,
  among: { nameRequired: boolean; names: Set<string> },
): void {
  if (port.name) {
    addProblems(errors, `${path}.name`, port.name, dnsLabelProblems(port.name));
    if (among.names.has(port.name)) addDuplicate(errors, `${path}.name`, port.name);
    among.names.add(port.name);
  } else if (among.nameRequired) addRequired(errors, `${path}.name`);
  addProblems(errors, `${path}.port`, port.port ?? 0, portNumberProblems(port.port ?? 0));
  requireOneOf(errors, `${path}.protocol`, port.protocol, PROTOCOLS);
  checkPort(errors, `${path}.targetPort`, port.targetPort);
  if (port.appProtocol !== undefined)
    addProblems(errors, `${path}.appProtocol`, port.appProtocol, qualifiedNameProblems(port.appProtocol));
}

function checkAffinity(errors: Errors, spec: ServiceSpec): void {
  requireOneOf(errors, 'spec.sessionAffinity', spec.sessionAffinity, ['ClientIP', 'None']);
  const path = 'spec.sessionAffinityConfig';
  const config = spec.sessionAffinityConfig;
  if (spec.sessionAffinity === 'None' && config)
    addForbidden(errors, path, 'must not be set when session affinity is None');
  if (spec.sessionAffinity !== 'ClientIP') return;
  const reason = 'when session affinity type is ClientIP';
  const seconds = config?.clientIP?.timeoutSeconds;
  if (!config) addRequired(errors, path, reason);
  else if (!config.clientIP) addRequired(errors, `${path}.clientIP`, reason);
  else if (seconds === undefined) addRequired(errors, `${path}.clientIP.timeoutSeconds`, reason);
  else if (seconds <= 0 || seconds > AFFINITY_SECONDS_MAX)
    addInvalid(
      errors,
      `${path}.clientIP.timeoutSeconds`,
      seconds,
      `must be greater than 0 and less than ${AFFINITY_SECONDS_MAX}`,
    );
}

/** What is wrong with clusterIP(s), ipFamilies and ipFamilyPolicy together; asked before addresses are claimed, too. */
export function clusterAddressErrors(spec: ServiceSpec): Errors {
  const errors: Errors = [];
  if (spec.type === 'ExternalName') return errors;
  const path = 'spec.clusterIPs';
  const addresses = spec.clusterIPs ?? [];
  const families = spec.ipFamilies ?? [];
  if (spec.clusterIP) {
    if (addresses.length === 0) addRequired(errors, path);
    else if (addresses[0] !== spec.clusterIP) addInvalid(errors, path, addresses, 'first value must match `clusterIP`');
  } else if (addresses.length > 0)
    addInvalid(errors, path, addresses, 'must be empty when `clusterIP` is not specified');
  const seen = new Set<string>();
  eachAt(families, 'spec.ipFamilies', (family, at) => {
    if (family !== 'IPv4' && family !== 'IPv6') errors.push(fieldErrors.notSupported(at, family, ['IPv4', 'IPv6']));
    if (seen.has(family)) addDuplicate(errors, at, family);
    seen.add(family);
  });
  allowOneOf(errors, 'spec.ipFamilyPolicy', spec.ipFamilyPolicy, [
    'PreferDualStack',
    'RequireDualStack',
    'SingleStack',
  ]);
  let malformed = false;
  eachAt(addresses, path, (address, at, index) => {
    if (index === 0 && address === 'None') {
      if (addresses.length > 1) {
        malformed = true;
        addInvalid(errors, path, addresses, "'None' must be the first and only value");
      }
      return;
    }
    const problems = ipProblems(address);
    if (problems.length) malformed = true;
    addProblems(errors, at, address, problems);
  });
  if (addresses.length > 2) addInvalid(errors, path, addresses, 'may only hold up to 2 values');
  if (malformed) return errors;
  if (addresses.length > 1 && new Set(addresses.map(ipFamily)).size < 2)
    addInvalid(errors, path, addresses, 'may specify no more than one IP for each IP family');
  if (isHeadless(spec)) return errors;
  addresses.forEach((address, index) => {
    const family = families[index];
    if (family !== undefined && `IPv${ipFamily(address)}` !== family)
      addInvalid(
        errors,
        `${path}[${index}]`,
        address,
        `expected an ${family} value as indicated by \`ipFamilies[${index}]\``,
      );
  });
  return errors;
}

function checkPortNumbers(errors: Errors, spec: ServiceSpec): void {
  const nodePorts = new Set<string>();
  const ports = new Set<string>();
  eachAt(spec.ports, 'spec.ports', (port, at) => {
    if (!port.nodePort) return;
    if (spec.type === 'ClusterIP') addForbidden(errors, `${at}.nodePort`, "may not be used when `type` is 'ClusterIP'");
    const key = `${port.protocol}/${port.nodePort}`;
    if (nodePorts.has(key)) addDuplicate(errors, `${at}.nodePort`, port.nodePort);
    nodePorts.add(key);
  });
  eachAt(spec.ports, 'spec.ports', (port, at) => {
    const key = `${port.protocol}/${port.port}`;
    if (ports.has(key)) addDuplicate(errors, at, { protocol: port.protocol, port: port.port, targetPort: 0 });
    ports.add(key);
  });
}

function checkLoadBalancerFields(errors: Errors, object: Service, spec: ServiceSpec): void {
  const refusal = "may only be used when `type` is 'LoadBalancer'";
  const balanced = spec.type === 'LoadBalancer';
  const annotation = object.metadata.annotations?.[SOURCE_RANGES_ANNOTATION];
  if (spec.loadBalancerSourceRanges?.length) {
    const path = 'spec.LoadBalancerSourceRanges';
    if (!balanced) addForbidden(errors, path, refusal);
    eachAt(spec.loadBalancerSourceRanges, path, (range, at) =>
      addProblems(errors, at, range.trim(), cidrProblems(range.trim())),
    );
  } else if (annotation !== undefined) {
    const path = `metadata.annotations[${SOURCE_RANGES_ANNOTATION}]`;
    if (!balanced) addForbidden(errors, path, refusal);
    if (annotation.trim())
      for (const range of annotation.split(',')) addProblems(errors, path, range.trim(), cidrProblems(range.trim()));
  }
  if (spec.allocateLoadBalancerNodePorts !== undefined && !balanced)
    addForbidden(errors, 'spec.allocateLoadBalancerNodePorts', refusal);
  if (spec.allocateLoadBalancerNodePorts === undefined && balanced)
    addRequired(errors, 'allocateLoadBalancerNodePorts');
  if (spec.loadBalancerClass === undefined) return;
  if (balanced)
    addProblems(
      errors,
      'spec.loadBalancerClass',
      spec.loadBalancerClass,
      qualifiedNameProblems(spec.loadBalancerClass),
    );
  else addForbidden(errors, 'spec.loadBalancerClass', refusal);
}

function checkTrafficPolicies(errors: Errors, spec: ServiceSpec): void {
  const policies = ['Cluster', 'Local'];
  if (isExternallyAccessible(spec))
    requireOneOf(errors, 'spec.externalTrafficPolicy', spec.externalTrafficPolicy, policies);
  else if (spec.externalTrafficPolicy)
    addInvalid(
      errors,
      'spec.externalTrafficPolicy',
      spec.externalTrafficPolicy,
      'may only be set for externally-accessible services',
    );
  const health = spec.healthCheckNodePort ?? 0;
  if (needsHealthCheck(spec)) {
    if (health === 0) addRequired(errors, 'spec.healthCheckNodePort');
    else addProblems(errors, 'spec.healthCheckNodePort', health, portNumberProblems(health));
  } else if (health !== 0)
    addInvalid(
      errors,
      'spec.healthCheckNodePort',
      health,
      "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
    );
  if (spec.internalTrafficPolicy === undefined) {
    if (spec.type === 'ClusterIP' || spec.type === 'NodePort' || spec.type === 'LoadBalancer')
      addRequired(errors, 'spec.internalTrafficPolicy');
  } else allowOneOf(errors, 'spec.internalTrafficPolicy', spec.internalTrafficPolicy, policies);
  allowOneOf(errors, 'spec.trafficDistribution', spec.trafficDistribution, [
    'PreferClose',
    'PreferSameZone',
    'PreferSameNode',
  ]);
}

export function validateServiceStatus(object: Service): Errors {
  const errors: Errors = [];
  checkLoadBalancer(errors, object.status?.loadBalancer, object.spec ?? {});
  return errors;
}

function checkLoadBalancer(errors: Errors, status: LoadBalancerStatus | undefined, spec: ServiceSpec): void {
  const path = 'status.loadBalancer.ingress';
  if (spec.type !== 'LoadBalancer' && status?.ingress?.length) {
    addForbidden(errors, path, "may only be used when `spec.type` is 'LoadBalancer'");
    return;
  }
  eachAt(status?.ingress, path, (ingress, at) => {
    if (ingress.ip) addProblems(errors, `${at}.ip`, ingress.ip, ipProblems(ingress.ip));
    if (ingress.ipMode === undefined) {
      if (ingress.ip) addRequired(errors, `${at}.ipMode`, 'must be specified when `ip` is set');
    } else if (!ingress.ip) addForbidden(errors, `${at}.ipMode`, 'may not be specified when `ip` is not set');
    else allowOneOf(errors, `${at}.ipMode`, ingress.ipMode, ['Proxy', 'VIP']);
    if (!ingress.hostname) return;
    addProblems(errors, `${at}.hostname`, ingress.hostname, dnsSubdomainProblems(ingress.hostname));
    if (ipFamily(ingress.hostname))
      addInvalid(errors, `${at}.hostname`, ingress.hostname, 'must be a DNS name, not an IP address');
  });
}

export function validateServiceUpdate(object: Service, old: Service): Errors {
  const errors: Errors = [];
  const spec = object.spec ?? {};
  const before = old.spec ?? {};
  if (spec.type !== 'ExternalName' && before.type !== 'ExternalName') {
    checkAddressChange(errors, spec, before);
    checkFamilyChange(errors, spec, before);
  }
  if (
    spec.type === 'LoadBalancer' &&
    before.type === 'LoadBalancer' &&
    spec.loadBalancerClass !== before.loadBalancerClass
  )
    addInvalid(errors, 'spec.loadBalancerClass', spec.loadBalancerClass, 'may not change once set');
  if (needsHealthCheck(spec) && needsHealthCheck(before) && spec.healthCheckNodePort !== before.healthCheckNodePort)
    addForbidden(errors, 'spec.healthCheckNodePort', 'field is immutable');
  return errors;
}

function checkAddressChange(errors: Errors, spec: ServiceSpec, before: ServiceSpec): void {
  if (isHeadless(spec) && isHeadless(before)) return;
  const now = spec.clusterIPs ?? [];
  const then = before.clusterIPs ?? [];
  if (then.length === now.length) {
    then.forEach((address, index) => {
      if (address !== now[index]) addInvalid(errors, `spec.clusterIPs[${index}]`, now, 'may not change once set');
    });
    return;
  }
  if (then.length > now.length && now.length === 0)
    addInvalid(errors, 'spec.clusterIPs[0]', now, 'primary clusterIP can not be unset');
  else if (then.length > 0 && now[0] !== then[0])
    addInvalid(errors, 'spec.clusterIPs[0]', now, 'may not change once set');
  if (then.length > now.length && now.length === 1 && spec.ipFamilyPolicy !== 'SingleStack')
    addInvalid(
      errors,
      'spec.ipFamilyPolicy',
      spec.ipFamilyPolicy,
      "must be set to 'SingleStack' when releasing the secondary clusterIP",
    );
}

function checkFamilyChange(errors: Errors, spec: ServiceSpec, before: ServiceSpec): void {
  if (isHeadless(spec) || isHeadless(before)) return;
  const now = spec.ipFamilies ?? [];
  const then = before.ipFamilies ?? [];
  if (then.length === now.length) {
    then.forEach((family, index) => {
      if (family !== now[index]) addInvalid(errors, 'spec.ipFamilies[0]', now, 'may not change once set');
    });
    return;
  }
  if (then.length > 0 && now.length > 0 && now[0] !== then[0])
    addInvalid(errors, 'spec.ipFamilies[0]', spec.clusterIPs, 'may not change once set');
  if (then.length > now.length && now.length === 1 && spec.ipFamilyPolicy !== 'SingleStack')
    addInvalid(
      errors,
      'spec.ipFamilyPolicy',
      spec.ipFamilyPolicy,
      "must be set to 'SingleStack' when releasing the secondary ipFamily",
    );
}
