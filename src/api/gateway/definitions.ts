/**
 * The CustomResourceDefinitions of the Gateway API (`v1.ts`), with upstream's versions, columns, limits and rules. Every cluster has
 * them; definitions that an administrator puts in their place stay (`src/client/definitions.ts`).
 */

import type { CustomResourceDefinition } from '../apiextensions/v1.gen.ts';
import { grpcRouteSpec, httpRouteSpec, streamRouteSpec, tlsRouteSpec } from './route-schemas.ts';
import {
  atomic,
  condition,
  conditions,
  controllerName,
  defaulted,
  group,
  hostname,
  hostnameRule,
  keyed,
  kind,
  localReference,
  mapBy,
  namespace,
  object,
  objectName,
  objectReference,
  oneOf,
  options,
  parentReference,
  policyTargets,
  port,
  preciseHostname,
  routeGroupKind,
  routeStatus,
  rule,
  type Schema,
  secretReference,
  sectionName,
  selector,
  text,
  validated,
  waiting,
} from './schemas.ts';
import { BUNDLE_VERSION, GROUP } from './v1.ts';

type Column = readonly [name: string, jsonPath: string, type?: 'string' | 'date', priority?: number];

const gatewayClassSpec = object(
  {
    controllerName: validated(controllerName, rule('Value is immutable', 'self == oldSelf')),
    parametersRef: object({ group, kind, name: objectName, namespace }, ['group', 'kind', 'name']),
    description: text(undefined, 64),
  },
  ['controllerName'],
);
const gatewayClassStatus = object({
  conditions: defaulted(conditions, waiting('Accepted')),
  supportedFeatures: mapBy('name', object({ name: text() }, ['name']), 64),
});

const listener = object(
  {
    name: sectionName,
    hostname,
    port,
    protocol: text(
      1,
      255,
      '^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\\/[A-Za-z0-9]+$',
    ),
    tls: validated(
      object({
        mode: defaulted(oneOf('Terminate', 'Passthrough'), 'Terminate'),
        certificateRefs: atomic(secretReference, 64),
        options,
      }),
      rule(
        'certificateRefs or options must be specified when mode is Terminate',
        "self.mode == 'Terminate' ? size(self.certificateRefs) > 0 || size(self.options) > 0 : true",
      ),
    ),
    allowedRoutes: defaulted(
      object({
        namespaces: defaulted(object({ from: defaulted(oneOf('All', 'Selector', 'Same'), 'Same'), selector }), {
          from: 'Same',
        }),
        kinds: atomic(routeGroupKind, 8),
      }),
      { namespaces: { from: 'Same' } },
    ),
  },
  ['name', 'port', 'protocol'],
);
const listeners = validated(
  mapBy('name', listener, 64, 1),
  rule(
    "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']",
    "self.all(l, l.protocol.matches('(?i)^(HTTP|TCP|UDP)$') ? !has(l.tls) : true)",
  ),
  rule(
    'tls mode must be Terminate for protocol HTTPS',
    "self.all(l, (l.protocol.matches('(?i)^HTTPS$') && has(l.tls)) ? (l.tls.mode == '' || l.tls.mode == 'Terminate') : true)",
  ),
  rule(
    'tls mode must be set for protocol TLS',
    "self.all(l, (l.protocol.matches('(?i)^TLS$') ? has(l.tls) && has(l.tls.mode) && l.tls.mode != '' : true))",
  ),
  rule(
    "hostname must not be specified for protocols ['TCP', 'UDP']",
    "self.all(l, l.protocol.matches('(?i)^(TCP|UDP)$')  ? (!has(l.hostname) || l.hostname == '') : true)",
  ),
  rule('Listener name must be unique within the Gateway', 'self.all(l1, self.exists_one(l2, l1.name == l2.name))'),
  rule(
    'Combination of port, protocol and hostname must be unique for each listener',
    'self.all(l1, self.exists_one(l2, l1.port == l2.port && l1.protocol == l2.protocol && (has(l1.hostname) && has(l2.hostname) ? l1.hostname == l2.hostname : !has(l1.hostname) && !has(l2.hostname))))',
  ),
);
const ADDRESS_TYPE = text(
  1,
  253,
  "^Hostname|IPAddress|NamedAddress|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\\/[A-Za-z0-9\\/\\-._~%!$&'()*+,;=:]+$",
);
const uniqueAddresses = (type: string) =>
  rule(
    `${type} values must be unique`,
    `self.all(a1, a1.type == '${type}' && has(a1.value) ? self.exists_one(a2, a2.type == a1.type && has(a2.value) && a2.value == a1.value) : true )`,
  );
const IP_ADDRESS = { enum: ['IPAddress'] };
const address = (value: Schema, mayBeEmpty: boolean): Schema => ({
  ...validated(
    object({ type: defaulted(ADDRESS_TYPE, 'IPAddress'), value }, mayBeEmpty ? [] : ['value']),
    hostnameRule('self', mayBeEmpty),
  ),
  oneOf: [
    { properties: { type: IP_ADDRESS, value: { anyOf: [{ format: 'ipv4' }, { format: 'ipv6' }] } } },
    { properties: { type: { not: IP_ADDRESS } } },
  ],
});
const clientsTls = object({
  validation: object(
    {
      caCertificateRefs: atomic(objectReference, 8, 1),
      mode: defaulted(oneOf('AllowValidOnly', 'AllowInsecureFallback'), 'AllowValidOnly'),
    },
    ['caCertificateRefs'],
  ),
});
const gatewayTls = object({
  backend: object({ clientCertificateRef: secretReference }),
  frontend: object(
    {
      default: clientsTls,
      perPort: validated(
        mapBy('port', object({ port, tls: clientsTls }, ['port', 'tls']), 64),
        rule(
          'Port for TLS configuration must be unique within the Gateway',
          'self.all(t1, self.exists_one(t2, t1.port == t2.port))',
        ),
      ),
    },
    ['default'],
  ),
});
const gatewaySpec = object(
  {
    gatewayClassName: objectName,
    listeners,
    addresses: validated(
      atomic(address(text(undefined, 253), true), 16),
      uniqueAddresses('IPAddress'),
      uniqueAddresses('Hostname'),
    ),
    allowedListeners: object({
      namespaces: defaulted(object({ from: defaulted(oneOf('All', 'Selector', 'Same', 'None'), 'None'), selector }), {
        from: 'None',
      }),
    }),
    tls: gatewayTls,
    infrastructure: object({
      labels: keyed('Label', 8),
      annotations: keyed('Annotation', 16),
      parametersRef: localReference,
    }),
  },
  ['gatewayClassName', 'listeners'],
);
const WAITING = waiting('Accepted', 'Programmed');
const listenersStatus = mapBy(
  'name',
  object(
    {
      name: sectionName,
      supportedKinds: atomic(routeGroupKind, 8),
      attachedRoutes: { type: 'integer', format: 'int32' },
      conditions,
    },
    ['name', 'attachedRoutes', 'conditions'],
  ),
  64,
);
const gatewayStatus = object({
  addresses: atomic(address(text(1, 253), false), 16),
  conditions: defaulted(conditions, WAITING),
  listeners: listenersStatus,
  attachedListenerSets: { type: 'integer', format: 'int32' },
});
const listenerSetSpec = object(
  {
    parentRef: object(
      { group: defaulted(group, GROUP), kind: defaulted(kind, 'Gateway'), name: objectName, namespace },
      ['name'],
    ),
    listeners,
  },
  ['parentRef', 'listeners'],
);
const listenerSetStatus = object({ conditions: defaulted(conditions, WAITING), listeners: listenersStatus });

const grantSpec = object(
  {
    from: atomic(object({ group, kind, namespace }, ['group', 'kind', 'namespace']), 16, 1),
    to: atomic(object({ group, kind, name: objectName }, ['group', 'kind']), 16, 1),
  },
  ['from', 'to'],
);

const subjectAltName = validated(
  object(
    {
      type: oneOf('Hostname', 'URI'),
      hostname,
      uri: text(1, 253, '^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\\?([^#]*))?(#(.*))?'),
    },
    ['type'],
  ),
  ...(
    [
      ['Hostname', 'hostname'],
      ['URI', 'uri'],
    ] as const
  ).flatMap(([type, field]) => [
    rule(
      `SubjectAltName element must contain ${type}, if Type is set to ${type}`,
      `!(self.type == "${type}" && (!has(self.${field}) || self.${field} == ""))`,
    ),
    rule(
      `SubjectAltName element must not contain ${type}, if Type is not set to ${type}`,
      `!(self.type != "${type}" && has(self.${field}) && self.${field} != "")`,
    ),
  ]),
);
const WELL_KNOWN =
  '^(System|([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]))$';
const HAS_REFS = 'has(self.caCertificateRefs) && size(self.caCertificateRefs) > 0';
const HAS_KNOWN = 'has(self.wellKnownCACertificates) && self.wellKnownCACertificates != ""';
const policySpec = object(
  {
    targetRefs: policyTargets,
    validation: validated(
      object(
        {
          caCertificateRefs: atomic(localReference, 8),
          wellKnownCACertificates: text(1, 253, WELL_KNOWN),
          hostname: preciseHostname,
          subjectAltNames: atomic(subjectAltName, 5),
        },
        ['hostname'],
      ),
      rule('must not contain both CACertificateRefs and WellKnownCACertificates', `!(${HAS_REFS} && ${HAS_KNOWN})`),
      rule('must specify either CACertificateRefs or WellKnownCACertificates', `(${HAS_REFS} || ${HAS_KNOWN})`),
    ),
    options,
  },
  ['targetRefs', 'validation'],
);
const policyStatus = object(
  {
    ancestors: atomic(
      object(
        {
          ancestorRef: parentReference,
          controllerName,
          conditions: mapBy('type', condition, 8, 1),
        },
        ['ancestorRef', 'controllerName', 'conditions'],
      ),
      16,
    ),
  },
  ['ancestors'],
);

interface Definition {
  readonly kind: string;
  readonly plural: string;
  readonly scope?: 'Cluster';
  readonly shortNames?: readonly string[];
  readonly versions: readonly string[];
  /** The first unless said. */
  readonly storedVersion?: string;
  readonly isExperimental?: boolean;
  readonly spec: Schema;
  readonly status?: Schema;
  readonly columns?: readonly Column[];
  readonly labels?: Readonly<Record<string, string>>;
}

const HOSTNAMES: readonly Column[] = [['Hostnames', '.spec.hostnames']];
const DEFINITIONS: readonly Definition[] = [
  {
    kind: 'GatewayClass',
    plural: 'gatewayclasses',
    scope: 'Cluster',
    shortNames: ['gc'],
    versions: ['v1', 'v1beta1'],
    spec: gatewayClassSpec,
    status: defaulted(gatewayClassStatus, { conditions: waiting('Accepted') }),
    columns: [
      ['Controller', '.spec.controllerName'],
      ['Accepted', '.status.conditions[?(@.type=="Accepted")].status'],
      ['Age', '.metadata.creationTimestamp', 'date'],
      ['Description', '.spec.description', 'string', 1],
    ],
  },
  {
    kind: 'Gateway',
    plural: 'gateways',
    shortNames: ['gtw'],
    versions: ['v1', 'v1beta1'],
    spec: gatewaySpec,
    status: defaulted(gatewayStatus, { conditions: WAITING }),
    columns: [
      ['Class', '.spec.gatewayClassName'],
      ['Address', '.status.addresses[*].value'],
      ['Programmed', '.status.conditions[?(@.type=="Programmed")].status'],
    ],
  },
  {
    kind: 'ListenerSet',
    plural: 'listenersets',
    shortNames: ['lset'],
    versions: ['v1'],
    spec: listenerSetSpec,
    status: defaulted(listenerSetStatus, { conditions: WAITING }),
    columns: [
      ['Accepted', '.status.conditions[?(@.type=="Accepted")].status'],
      ['Programmed', '.status.conditions[?(@.type=="Programmed")].status'],
    ],
  },
  {
    kind: 'HTTPRoute',
    plural: 'httproutes',
    versions: ['v1', 'v1beta1'],
    spec: httpRouteSpec,
    status: routeStatus,
    columns: HOSTNAMES,
  },
  {
    kind: 'GRPCRoute',
    plural: 'grpcroutes',
    versions: ['v1'],
    spec: grpcRouteSpec,
    status: routeStatus,
    columns: HOSTNAMES,
  },
  {
    kind: 'TLSRoute',
    plural: 'tlsroutes',
    versions: ['v1', 'v1alpha3', 'v1alpha2'],
    spec: tlsRouteSpec,
    status: routeStatus,
  },
  {
    kind: 'ReferenceGrant',
    plural: 'referencegrants',
    shortNames: ['refgrant'],
    versions: ['v1', 'v1beta1'],
    storedVersion: 'v1beta1',
    spec: grantSpec,
  },
  {
    kind: 'BackendTLSPolicy',
    plural: 'backendtlspolicies',
    shortNames: ['btlspolicy'],
    versions: ['v1'],
    spec: policySpec,
    status: policyStatus,
    labels: { 'gateway.networking.k8s.io/policy': 'Direct' },
  },
  {
    kind: 'TCPRoute',
    plural: 'tcproutes',
    // The first one is upstream's since v1.6; what is stored stays as bundles before that read it.
    versions: ['v1', 'v1alpha2'],
    storedVersion: 'v1alpha2',
    isExperimental: true,
    spec: streamRouteSpec,
    status: routeStatus,
  },
  {
    kind: 'UDPRoute',
    plural: 'udproutes',
    // The first one is upstream's since v1.6; what is stored stays as bundles before that read it.
    versions: ['v1', 'v1alpha2'],
    storedVersion: 'v1alpha2',
    isExperimental: true,
    spec: streamRouteSpec,
    status: routeStatus,
  },
];

const AGE: Column = ['Age', '.metadata.creationTimestamp', 'date'];

function definitionOf(of: Definition): CustomResourceDefinition {
  const {
    kind,
    plural,
    scope = 'Namespaced',
    shortNames,
    versions,
    storedVersion = versions[0],
    isExperimental,
    spec,
    status,
    labels,
  } = of;
  const columns = of.columns?.some(([name]) => name === 'Age') ? of.columns : [...(of.columns ?? []), AGE];
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: {
      name: `${plural}.${GROUP}`,
      ...(labels ? { labels } : {}),
      annotations: {
        'api-approved.kubernetes.io': 'https://github.com/kubernetes-sigs/gateway-api/pull/3328',
        'gateway.networking.k8s.io/bundle-version': BUNDLE_VERSION,
        'gateway.networking.k8s.io/channel': isExperimental ? 'experimental' : 'standard',
      },
    },
    spec: {
      group: GROUP,
      scope,
      names: {
        kind,
        listKind: `${kind}List`,
        plural,
        singular: kind.toLowerCase(),
        categories: ['gateway-api'],
        ...(shortNames ? { shortNames } : {}),
      },
      versions: versions.map(name => ({
        name,
        served: true,
        storage: name === storedVersion,
        ...(status ? { subresources: { status: {} } } : {}),
        additionalPrinterColumns: columns.map(([column, jsonPath, type = 'string', priority]) => ({
          name: column,
          jsonPath,
          type,
          ...(priority ? { priority } : {}),
        })),
        schema: {
          openAPIV3Schema: object(
            {
              apiVersion: text(),
              kind: text(),
              metadata: { type: 'object' },
              spec,
              ...(status ? { status } : {}),
            },
            ['spec'],
          ),
        },
      })),
    },
  } as unknown as CustomResourceDefinition;
}

export const GATEWAY_DEFINITIONS: readonly CustomResourceDefinition[] = DEFINITIONS.map(definitionOf);
