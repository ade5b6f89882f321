/**
 * The flow schemas and priority levels that a cluster has from the start, with upstream's numbers: the mandatory ones, which
 * nobody may change for long, and the suggested ones, which follow this list while they are annotated to. Pure data.
 */

import {
  everything,
  MANDATORY_LEVELS as LEVEL_SPECS,
  MANDATORY_SCHEMAS as SCHEMA_SPECS,
} from '../../api/flowcontrol/mandatory-objects.ts';
import type {
  FlowSchema,
  FlowSchemaSpec,
  PolicyRulesWithSubjects,
  PriorityLevelConfiguration,
  PriorityLevelConfigurationSpec,
  ResourcePolicyRule,
  Subject,
} from '../../api/flowcontrol/v1.gen.ts';

const API_VERSION = 'flowcontrol.apiserver.k8s.io/v1';

interface Queuing {
  readonly queues: number;
  readonly handSize: number;
}

/** Requests that a queue holds; upstream has the same everywhere. */
const QUEUE_LENGTH_LIMIT = 50;

function limited(
  name: string,
  shares: { readonly nominal: number; readonly lendablePercent: number },
  queuing?: Queuing,
): PriorityLevelConfiguration {
  return level(name, {
    type: 'Limited',
    limited: {
      nominalConcurrencyShares: shares.nominal,
      lendablePercent: shares.lendablePercent,
      limitResponse: queuing
        ? { type: 'Queue', queuing: { ...queuing, queueLengthLimit: QUEUE_LENGTH_LIMIT } }
        : { type: 'Reject' },
    },
  });
}

function level(name: string, spec: PriorityLevelConfigurationSpec): PriorityLevelConfiguration {
  return { apiVersion: API_VERSION, kind: 'PriorityLevelConfiguration', metadata: { name }, spec };
}

export const MANDATORY_LEVELS: readonly PriorityLevelConfiguration[] = Object.entries(LEVEL_SPECS).map(([name, spec]) =>
  level(name, spec),
);

export const SUGGESTED_LEVELS: readonly PriorityLevelConfiguration[] = [
  limited('system', { nominal: 30, lendablePercent: 33 }, { queues: 64, handSize: 6 }),
  limited('node-high', { nominal: 40, lendablePercent: 25 }, { queues: 64, handSize: 6 }),
  limited('leader-election', { nominal: 10, lendablePercent: 0 }, { queues: 16, handSize: 4 }),
  limited('workload-high', { nominal: 40, lendablePercent: 50 }, { queues: 128, handSize: 6 }),
  limited('workload-low', { nominal: 100, lendablePercent: 90 }, { queues: 128, handSize: 6 }),
  limited('global-default', { nominal: 20, lendablePercent: 50 }, { queues: 128, handSize: 6 }),
];

const users = (...names: string[]): Subject[] => names.map(name => ({ kind: 'User', user: { name } }));
const groups = (...names: string[]): Subject[] => names.map(name => ({ kind: 'Group', group: { name } }));
const systemAccounts = (...names: string[]): Subject[] =>
  names.map(name => ({ kind: 'ServiceAccount', serviceAccount: { namespace: 'kube-system', name } }));

const EVERYBODY = groups('system:unauthenticated', 'system:authenticated');
const SCHEDULER = 'system:kube-scheduler';
const CONTROLLER_MANAGER = 'system:kube-controller-manager';

const resources = (
  apiGroup: string,
  names: string[],
  { verbs = ['get', 'create', 'update'], clusterScope }: { verbs?: string[]; clusterScope?: true } = {},
): ResourcePolicyRule => ({
  verbs,
  apiGroups: [apiGroup],
  resources: names,
  ...(clusterScope ? { clusterScope } : {}),
  namespaces: ['*'],
});

function schema(
  name: string,
  to: { readonly level: string; readonly precedence: number; readonly by?: 'ByUser' | 'ByNamespace' },
  rule: PolicyRulesWithSubjects,
): FlowSchema {
  return flowSchema(name, {
    priorityLevelConfiguration: { name: to.level },
    matchingPrecedence: to.precedence,
    ...(to.by ? { distinguisherMethod: { type: to.by } } : {}),
    rules: [rule],
  });
}

function flowSchema(name: string, spec: FlowSchemaSpec): FlowSchema {
  return { apiVersion: API_VERSION, kind: 'FlowSchema', metadata: { name }, spec };
}

export const MANDATORY_SCHEMAS: readonly FlowSchema[] = Object.entries(SCHEMA_SPECS).map(([name, spec]) =>
  flowSchema(name, spec),
);

export const SUGGESTED_SCHEMAS: readonly FlowSchema[] = [
  schema(
    'probes',
    { level: 'exempt', precedence: 2 },
    {
      subjects: EVERYBODY,
      nonResourceRules: [{ verbs: ['get'], nonResourceURLs: ['/healthz', '/readyz', '/livez'] }],
    },
  ),
  schema(
    'system-leader-election',
    { level: 'leader-election', precedence: 100, by: 'ByUser' },
    {
      subjects: [...users(CONTROLLER_MANAGER, SCHEDULER), ...systemAccounts('*')],
      resourceRules: [resources('coordination.k8s.io', ['leases'])],
    },
  ),
  schema(
    'system-node-high',
    { level: 'node-high', precedence: 400, by: 'ByUser' },
    {
      subjects: groups('system:nodes'),
      resourceRules: [
        resources('', ['nodes', 'nodes/status'], { verbs: ['*'], clusterScope: true }),
        resources('coordination.k8s.io', ['leases'], { verbs: ['*'] }),
      ],
    },
  ),
  schema('system-nodes', { level: 'system', precedence: 500, by: 'ByUser' }, everything(groups('system:nodes'))),
  schema(
    'kube-controller-manager',
    { level: 'workload-high', precedence: 800, by: 'ByNamespace' },
    everything(users(CONTROLLER_MANAGER)),
  ),
  schema(
    'kube-scheduler',
    { level: 'workload-high', precedence: 800, by: 'ByNamespace' },
    everything(users(SCHEDULER)),
  ),
  schema(
    'kube-system-service-accounts',
    { level: 'workload-high', precedence: 900, by: 'ByNamespace' },
    everything(systemAccounts('*')),
  ),
  schema(
    'service-accounts',
    { level: 'workload-low', precedence: 9000, by: 'ByUser' },
    everything(groups('system:serviceaccounts')),
  ),
  schema('global-default', { level: 'global-default', precedence: 9900, by: 'ByUser' }, everything(EVERYBODY)),
];
