/**
 * The CustomResourceDefinitions of cluster-scoped network policies, with the fields of the network-policy-api's experimental channel. Every cluster has them from its start; the project's own, applied over them, are read alike.
 */

import type { CustomResourceDefinition } from '../apiextensions/v1.gen.ts';
import {
  about,
  array,
  CONDITIONS,
  type CustomKind,
  definitionOf,
  integer,
  object,
  oneOf,
  type Schema,
  SELECTOR,
  string,
} from '../custom-kind.ts';
import { GROUP } from './kinds.ts';

const PORT = integer(1, 65_535);
const PRIORITY = integer(0, 1000);
const BOUNDS = { start: PORT, end: PORT };
const inOrder = { rule: 'self.start < self.end', message: 'Start port must be less than End port' };
const PROTOCOL = { ...string, enum: ['TCP', 'UDP', 'SCTP'], default: 'TCP' } as const;
const PODS = object({ namespaceSelector: SELECTOR, podSelector: SELECTOR }, { required: ['podSelector'] });
const WHOM = { namespaces: SELECTOR, pods: PODS };
const NETWORKS = about(
  'CIDR blocks; pods whose addresses lie in them are meant too.',
  array(
    {
      ...string,
      maxLength: 43,
      'x-kubernetes-validations': [{ rule: 'isCIDR(self)', message: 'Invalid CIDR format provided' }],
    },
    { minItems: 1, maxItems: 25, 'x-kubernetes-list-type': 'set' },
  ),
);
const DOMAIN_NAMES = about(
  'Names that DNS answers; "*." in front stands for any labels. In accepting rules only.',
  array(
    {
      ...string,
      maxLength: 253,
      pattern: '^(\\*\\.)?([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\\.)+[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\\.?$',
    },
    { minItems: 1, maxItems: 25, 'x-kubernetes-list-type': 'set' },
  ),
);
const FAR = { ...WHOM, nodes: about('Nodes, by their labels: their addresses.', SELECTOR), networks: NETWORKS };

const PORT_OF_PROTOCOL = object(
  {
    destinationPort: oneOf({
      number: PORT,
      range: object(BOUNDS, { required: ['start', 'end'], 'x-kubernetes-validations': [inOrder] }),
    }),
  },
  { minProperties: 1 },
);
const PROTOCOLS = oneOf({
  tcp: PORT_OF_PROTOCOL,
  udp: PORT_OF_PROTOCOL,
  sctp: PORT_OF_PROTOCOL,
  destinationNamedPort: string,
});
const PORTS = oneOf({
  portNumber: object({ protocol: PROTOCOL, port: PORT }, { required: ['port', 'protocol'] }),
  portRange: object(
    { protocol: PROTOCOL, ...BOUNDS },
    { required: ['start', 'end'], 'x-kubernetes-validations': [inOrder] },
  ),
  namedPort: string,
});

interface Shape {
  readonly actions: readonly string[];
  readonly portsField: 'protocols' | 'ports';
  readonly ports: Schema;
  readonly rulesMax: number;
  /** Whether rules may name names. */
  readonly hasNames: boolean;
}

function rules(direction: 'from' | 'to', { actions, portsField, ports, rulesMax, hasNames }: Shape): Schema {
  const name = portsField === 'protocols' ? 'destinationNamedPort' : 'namedPort';
  const far = hasNames ? { ...FAR, domainNames: DOMAIN_NAMES } : FAR;
  const kinds = hasNames ? 'networks/nodes/domainNames' : 'networks/nodes';
  const names = hasNames ? ' || has(peer.domainNames)' : '';
  const onlyAccepted = {
    rule: `self.action == '${actions[0]}' || !self.to.exists(peer, has(peer.domainNames))`,
    message: `domainNames peer can be set in ${actions[0]} rules only`,
  };
  const noNames = {
    rule: `!(self.to.exists(peer, has(peer.networks) || has(peer.nodes)${names}) && has(self.${portsField}) && self.${portsField}.exists(one, has(one.${name})))`,
    message: `${kinds} peer cannot be set with namedPorts since there are no namedPorts for ${kinds}`,
  };
  return array(
    object(
      {
        name: about('Told where the rule decides.', { ...string, maxLength: 100 }),
        action: { ...string, enum: actions },
        [direction]: array(oneOf(direction === 'to' ? far : WHOM), { minItems: 1, maxItems: rulesMax }),
        [portsField]: array(ports, { minItems: 1, maxItems: rulesMax }),
      },
      {
        required: ['action', direction],
        ...(direction === 'to' ? { 'x-kubernetes-validations': hasNames ? [noNames, onlyAccepted] : [noNames] } : {}),
      },
    ),
    { maxItems: rulesMax },
  );
}

const spec = (shape: Shape, fields: Readonly<Record<string, Schema>> = {}): Schema =>
  object(
    {
      ...fields,
      subject: about('The pods that the policy is for.', oneOf(WHOM)),
      ingress: rules('from', shape),
      egress: rules('to', shape),
    },
    { required: [...Object.keys(fields), 'subject'] },
  );

const OLD = { portsField: 'ports', ports: PORTS, rulesMax: 100, hasNames: false } as const;
// A group of the Kubernetes project: definitions of it name where they were approved.
const COMMON = {
  group: GROUP,
  isSpecRequired: true,
  status: object({ conditions: CONDITIONS }),
  annotations: { 'api-approved.kubernetes.io': 'https://github.com/kubernetes-sigs/network-policy-api/pull/300' },
} as const;

const KINDS: readonly CustomKind[] = [
  {
    ...COMMON,
    version: 'v1alpha2',
    kind: 'ClusterNetworkPolicy',
    plural: 'clusternetworkpolicies',
    shortNames: ['cnp'],
    spec: spec(
      { actions: ['Accept', 'Deny', 'Pass'], portsField: 'protocols', ports: PROTOCOLS, rulesMax: 25, hasNames: true },
      { tier: { ...string, enum: ['Admin', 'Baseline'] }, priority: PRIORITY },
    ),
    columns: [
      ['Tier', '.spec.tier'],
      ['Priority', '.spec.priority'],
    ],
  },
  {
    ...COMMON,
    version: 'v1alpha1',
    kind: 'AdminNetworkPolicy',
    plural: 'adminnetworkpolicies',
    shortNames: ['anp'],
    spec: spec({ ...OLD, hasNames: true, actions: ['Allow', 'Deny', 'Pass'] }, { priority: PRIORITY }),
    columns: [['Priority', '.spec.priority']],
  },
  {
    ...COMMON,
    version: 'v1alpha1',
    kind: 'BaselineAdminNetworkPolicy',
    plural: 'baselineadminnetworkpolicies',
    shortNames: ['banp'],
    spec: spec({ ...OLD, actions: ['Allow', 'Deny'] }),
    rules: [
      {
        rule: "self.metadata.name == 'default'",
        message: 'Only one baseline admin network policy with metadata.name="default" can be created in the cluster',
      },
    ],
    columns: [],
  },
];

export const CLUSTER_POLICY_DEFINITIONS: readonly CustomResourceDefinition[] = KINDS.map(definitionOf);
