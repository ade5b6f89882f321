/** Ingresses and ingress classes. */

import { fieldErrors } from '../../base/errors.ts';
import { loadBalancerAddresses } from '../core/service.ts';
import type { TypedLocalObjectReference } from '../core/v1.gen.ts';
import { defineKind } from '../kind.ts';
import { warnOfAddress } from '../machinery/address-forms.ts';
import { ageColumn, nameColumn, text } from '../machinery/columns.ts';
import { isNewSpec } from '../machinery/equality.ts';
import {
  dnsLabelProblems,
  dnsSubdomainProblems,
  ipFamily,
  ipProblems,
  pathSegmentProblems,
  portNameProblems,
  portNumberProblems,
  wildcardSubdomainProblems,
} from '../machinery/names.ts';
import {
  addForbidden,
  addInvalid,
  addProblems,
  addRequired,
  checkUnchanged,
  type Errors,
  eachAt,
  requireText,
} from '../machinery/validation.ts';
import type {
  HTTPIngressPath,
  Ingress,
  IngressBackend,
  IngressClass,
  IngressClassParametersReference,
  IngressRule,
} from './v1.gen.ts';

const DEFAULT_ANNOTATION = 'ingressclass.kubernetes.io/is-default-class';
const CLASS_ANNOTATION = 'kubernetes.io/ingress.class';
const PATH_TYPES = ['Exact', 'ImplementationSpecific', 'Prefix'];
const CONTROLLER_BYTES_MAX = 250;
const HOSTS_SHOWN_MAX = 3;

export const ingress = defineKind<Ingress>({
  group: 'networking.k8s.io',
  version: 'v1',
  kind: 'Ingress',
  warnings: ({ metadata, spec }, old) =>
    !old && metadata.annotations?.[CLASS_ANNOTATION] !== undefined && spec?.ingressClassName === undefined
      ? [`annotation "${CLASS_ANNOTATION}" is deprecated, please use 'spec.ingressClassName' instead`]
      : [],
  statusWarnings: ({ status }) => {
    const found: string[] = [];
    eachAt(status?.loadBalancer?.ingress, 'status.loadBalancer.ingress', ({ ip }, at) =>
      warnOfAddress(found, `${at}.ip`, ip),
    );
    return found;
  },
  isNewGeneration: isNewSpec,
  defaults: object => {
    (object.status ??= {}).loadBalancer ??= {};
  },
  prepareCreate: object => {
    object.status = { loadBalancer: {} };
  },
  validate: object => {
    const errors: Errors = [];
    const spec = object.spec ?? {};
    const annotation = object.metadata.annotations?.[CLASS_ANNOTATION];
    if (
      !object.metadata.resourceVersion &&
      annotation !== undefined &&
      spec.ingressClassName !== undefined &&
      annotation !== spec.ingressClassName
    )
      addInvalid(
        errors,
        `annotations.${CLASS_ANNOTATION}`,
        annotation,
        'must match `ingressClassName` when both are specified',
      );
    if (!spec.rules?.length && !spec.defaultBackend)
      addInvalid(errors, 'spec', spec.rules ?? null, 'either `defaultBackend` or `rules` must be specified');
    if (spec.defaultBackend) checkBackend(errors, 'spec.defaultBackend', spec.defaultBackend);
    eachAt(spec.rules, 'spec.rules', (rule, at) => checkRule(errors, at, rule));
    eachAt(spec.tls, 'spec.tls', (tls, at) => {
      eachAt(tls.hosts, `${at}.hosts`, (host, hostAt) => checkHost(errors, hostAt, host));
      if (tls.secretName) addProblems(errors, `${at}.secretName`, tls.secretName, dnsSubdomainProblems(tls.secretName));
    });
    if (spec.ingressClassName !== undefined)
      addProblems(errors, 'spec.ingressClassName', spec.ingressClassName, dnsSubdomainProblems(spec.ingressClassName));
    return errors;
  },
  validateStatusUpdate: object => {
    const errors: Errors = [];
    eachAt(object.status?.loadBalancer?.ingress, 'status.loadBalancer.ingress', ({ ip, hostname }, at) => {
      if (ip) addProblems(errors, `${at}.ip`, ip, ipProblems(ip));
      if (!hostname) return;
      addProblems(errors, `${at}.hostname`, hostname, dnsSubdomainProblems(hostname));
      if (ipFamily(hostname)) addInvalid(errors, `${at}.hostname`, hostname, 'must be a DNS name, not an IP address');
    });
    return errors;
  },
  columns: [
    nameColumn,
    text('Class', object => object.spec?.ingressClassName ?? '<none>'),
    text('Hosts', object => formatHosts(object.spec?.rules)),
    text('Address', object => loadBalancerAddresses(object.status?.loadBalancer).join(',')),
    text('Ports', object => (object.spec?.tls?.length ? '80, 443' : '80')),
    ageColumn,
  ],
});

function formatHosts(rules: readonly IngressRule[] | undefined): string {
  const hosts: string[] = [];
  let more = false;
  for (const rule of rules ?? []) {
    if (hosts.length === HOSTS_SHOWN_MAX) more = true;
    else if (rule.host) hosts.push(rule.host);
  }
  if (hosts.length === 0) return '*';
  return more ? `${hosts.join(',')} + ${rules!.length - HOSTS_SHOWN_MAX} more...` : hosts.join(',');
}

function checkHost(errors: Errors, path: string, host: string): void {
  addProblems(errors, path, host, host.includes('*') ? wildcardSubdomainProblems(host) : dnsSubdomainProblems(host));
}

function checkRule(errors: Errors, path: string, rule: IngressRule): void {
  if (rule.host) {
    if (ipFamily(rule.host)) addInvalid(errors, `${path}.host`, rule.host, 'must be a DNS name, not an IP address');
    checkHost(errors, `${path}.host`, rule.host);
  }
  if (!rule.http) return;
  if (!rule.http.paths?.length) addRequired(errors, `${path}.http.paths`);
  eachAt(rule.http.paths, `${path}.http.paths`, (item, at) => checkPath(errors, at, item));
}

function checkPath(errors: Errors, path: string, item: HTTPIngressPath): void {
  const text = item.path ?? '';
  if (item.pathType === undefined) {
    addRequired(errors, `${path}.pathType`, 'pathType must be specified');
    return;
  }
  if (item.pathType === 'ImplementationSpecific') {
    if (text && !text.startsWith('/')) addInvalid(errors, `${path}.path`, text, 'must be an absolute path');
  } else if (item.pathType === 'Exact' || item.pathType === 'Prefix') {
    if (!text.startsWith('/')) addInvalid(errors, `${path}.path`, text, 'must be an absolute path');
    for (const sequence of ['//', '/./', '/../', '%2f', '%2F'])
      if (text.includes(sequence)) addInvalid(errors, `${path}.path`, text, `must not contain '${sequence}'`);
    for (const suffix of ['/..', '/.'])
      if (text.endsWith(suffix)) addInvalid(errors, `${path}.path`, text, `cannot end with '${suffix}'`);
  } else errors.push(fieldErrors.notSupported(`${path}.pathType`, item.pathType, PATH_TYPES));
  checkBackend(errors, `${path}.backend`, item.backend ?? {});
}

function checkBackend(errors: Errors, path: string, backend: IngressBackend): void {
  const { service, resource } = backend;
  if (service && resource) {
    addInvalid(errors, path, '', 'cannot set both resource and service backends');
    return;
  }
  if (resource) {
    checkReference(errors, `${path}.resource`, resource);
    return;
  }
  if (!service) {
    addInvalid(errors, path, '', 'resource or service backend is required');
    return;
  }
  if (requireText(errors, `${path}.service.name`, service.name))
    addProblems(errors, `${path}.service.name`, service.name, dnsLabelProblems(service.name));
  const { name, number } = service.port ?? {};
  if (name && number) addInvalid(errors, path, '', 'cannot set both port name & port number');
  else if (name) addProblems(errors, `${path}.service.port.name`, name, portNameProblems(name));
  else if (number) addProblems(errors, `${path}.service.port.number`, number, portNumberProblems(number));
  else addRequired(errors, path, 'port name or number is required');
}

export const ingressClass = defineKind<IngressClass>({
  group: 'networking.k8s.io',
  version: 'v1',
  kind: 'IngressClass',
  isNewGeneration: isNewSpec,
  defaults: object => {
    if (object.spec?.parameters) object.spec.parameters.scope ??= 'Cluster';
  },
  validate: object => {
    const errors: Errors = [];
    const controller = object.spec?.controller ?? '';
    if (controller.length > CONTROLLER_BYTES_MAX)
      errors.push(fieldErrors.tooLong('spec.controller', CONTROLLER_BYTES_MAX));
    if (!controller) addRequired(errors, 'spec.controller');
    else if (!/^[^/]+\/[^/].*$/.test(controller))
      addInvalid(errors, 'spec.controller', controller, 'must be a domain-prefixed path (such as "acme.io/foo")');
    else
      addProblems(
        errors,
        'spec.controller',
        controller,
        dnsSubdomainProblems(controller.slice(0, controller.indexOf('/'))),
      );
    if (object.spec?.parameters) checkParameters(errors, 'spec.parameters', object.spec.parameters);
    return errors;
  },
  validateUpdate: (object, old) => {
    const errors: Errors = [];
    checkUnchanged(errors, 'spec.controller', object.spec?.controller ?? '', old.spec?.controller ?? '');
    return errors;
  },
  columns: [
    {
      ...nameColumn,
      cell: ({ metadata: { name, annotations } }) =>
        annotations?.[DEFAULT_ANNOTATION] === 'true' ? `${name} (default)` : name,
    },
    text('Controller', object => object.spec?.controller ?? ''),
    text('Parameters', object => {
      const parameters = object.spec?.parameters;
      if (!parameters) return '<none>';
      return `${parameters.kind}${parameters.apiGroup ? `.${parameters.apiGroup}` : ''}/${parameters.name}`;
    }),
    ageColumn,
  ],
});

function checkReference(errors: Errors, path: string, parameters: TypedLocalObjectReference): void {
  if (parameters.apiGroup !== undefined)
    addProblems(errors, `${path}.apiGroup`, parameters.apiGroup, dnsSubdomainProblems(parameters.apiGroup));
  if (requireText(errors, `${path}.kind`, parameters.kind, 'kind is required'))
    addProblems(errors, `${path}.kind`, parameters.kind, pathSegmentProblems(parameters.kind));
  if (requireText(errors, `${path}.name`, parameters.name, 'name is required'))
    addProblems(errors, `${path}.name`, parameters.name, pathSegmentProblems(parameters.name));
}

function checkParameters(errors: Errors, path: string, parameters: IngressClassParametersReference): void {
  checkReference(errors, path, parameters);
  const { scope, namespace } = parameters;
  if (scope === undefined) addRequired(errors, `${path}.scope`);
  else if (scope !== 'Cluster' && scope !== 'Namespace')
    errors.push(fieldErrors.notSupported(`${path}.scope`, scope, ['Cluster', 'Namespace']));
  else if (scope === 'Namespace') {
    if (requireText(errors, `${path}.namespace`, namespace, "`parameters.scope` is set to 'Namespace'"))
      addProblems(errors, `${path}.namespace`, namespace, dnsLabelProblems(namespace));
  } else if (namespace !== undefined)
    addForbidden(errors, `${path}.namespace`, "`parameters.scope` is set to 'Cluster'");
}
