/** Rules of kinds that few write by hand: one change at a time to a valid object, and the causes that upstream gives for it. */

import assert from 'node:assert/strict';
import test from 'node:test';
import {
  mutatingAdmissionPolicy,
  mutatingAdmissionPolicyBinding,
} from './admissionregistration/mutating-admission-policy.ts';
import {
  validatingAdmissionPolicy,
  validatingAdmissionPolicyBinding,
} from './admissionregistration/validating-admission-policy.ts';
import { mutatingWebhookConfiguration } from './admissionregistration/webhook-configuration.ts';
import { horizontalPodAutoscaler } from './autoscaling/horizontal-pod-autoscaler.ts';
import { cronJob } from './batch/cron-job.ts';
import { event } from './core/event.ts';
import { flowSchema } from './flowcontrol/flow-schema.ts';
import { MANDATORY_LEVELS, MANDATORY_SCHEMAS } from './flowcontrol/mandatory-objects.ts';
import { priorityLevelConfiguration } from './flowcontrol/priority-level-configuration.ts';
import type { Kind } from './kind.ts';
import type { KubeObject } from './meta.ts';
import { priorityClass } from './scheduling/priority-class.ts';
import { csiDriver, csiNode } from './storage/csi.ts';
import { storageClass } from './storage/storage-class.ts';

type Fields = Record<string, unknown>;

const made = (kind: Kind, fields: object): KubeObject => {
  const object = structuredClone({ metadata: { name: 'x' }, ...fields }) as unknown as KubeObject;
  kind.defaults?.(object);
  return object;
};
const shown = (errors: readonly { readonly field: string; readonly message: string }[]): string[] =>
  errors.map(({ field, message }) => `${field}: ${message}`);

/** A copy in which what lies at `path` (dots between the parts) is `value`; undefined takes it away. */
function changed(fields: object, path: string, value: unknown): Fields {
  const copy = structuredClone(fields) as Fields;
  const parts = path.split('.');
  let at = copy;
  for (const part of parts.slice(0, -1)) at = (at[part] ??= {}) as Fields;
  if (value === undefined) delete at[parts.at(-1)!];
  else at[parts.at(-1)!] = value;
  return copy;
}

/** Each case: path, value, and how the errors begin. */
function refuses(kind: Kind, valid: object, cases: readonly (readonly [string, unknown, ...string[]])[]): void {
  test(`${kind.kind}: what is refused`, () => {
    assert.deepEqual(shown(kind.validate!(made(kind, valid))), []);
    for (const [path, value, ...expected] of cases) {
      const found = shown(kind.validate!(made(kind, changed(valid, path, value))));
      const begins = found.map((error, index) => error.slice(0, expected[index]?.length));
      assert.deepEqual(begins, expected, `${path} ${JSON.stringify(value)}: ${found.join('; ')}`);
    }
  });
}

/** As `refuses`, for an update; no error expected means that it is let through. */
function keeps(kind: Kind, valid: object, cases: readonly (readonly [string, unknown, ...string[]])[]): void {
  test(`${kind.kind}: what an update may not change`, () => {
    const old = made(kind, valid);
    for (const [path, value, ...expected] of cases) {
      const found = shown(kind.validateUpdate!(made(kind, changed(valid, path, value)), old));
      assert.deepEqual(found, expected, `${path} ${JSON.stringify(value)}`);
    }
  });
}

const rule = { operations: ['CREATE'], apiGroups: [''], apiVersions: ['v1'], resources: ['pods'] };

refuses(
  mutatingWebhookConfiguration as Kind,
  {
    webhooks: [
      {
        name: 'a.b.c',
        sideEffects: 'None',
        admissionReviewVersions: ['v1'],
        clientConfig: { service: { namespace: 'n', name: 's' } },
        rules: [rule],
      },
    ],
  },
  [
    ['webhooks.0.name', 'Bad!', 'webhooks[0].name: Invalid value: "Bad!": a lowercase RFC 1123 subdomain'],
    ['webhooks.0.name', 'a.b', 'webhooks[0].name: Invalid value: "a.b": should be a domain with at least three'],
    ['webhooks.0.sideEffects', undefined, 'webhooks[0].sideEffects: Required value: must specify one of None, None'],
    ['webhooks.0.sideEffects', '', 'webhooks[0].sideEffects: Unsupported value: "": supported values: "None", "None'],
    ['webhooks.0.reinvocationPolicy', 'x', 'webhooks[0].reinvocationPolicy: Unsupported value: "x"'],
    [
      'webhooks.0.admissionReviewVersions',
      ['v1', 'v1'],
      'webhooks[0].admissionReviewVersions[1]: Invalid value: "v1": duplicate version',
    ],
    [
      'webhooks.0.admissionReviewVersions',
      ['v2'],
      'webhooks[0].admissionReviewVersions: Invalid value: ["v2"]: must include at least one of v1, v1beta1',
    ],
    [
      'webhooks.0.clientConfig.service',
      { port: 0, path: 'ab//B' },
      'webhooks[0].clientConfig.service.name: Required value: service name is required',
      'webhooks[0].clientConfig.service.namespace: Required value: service namespace is required',
      'webhooks[0].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535',
      'webhooks[0].clientConfig.service.path: Invalid value: "ab//B": must start with a \'/\'',
      'webhooks[0].clientConfig.service.path: Invalid value: "ab//B": segment[1] may not be empty',
      'webhooks[0].clientConfig.service.path: Invalid value: "ab//B": segment[2]: a lowercase RFC 1123',
    ],
    [
      'webhooks.0.clientConfig',
      { url: 'http://u:p@/a?b#c' },
      'webhooks[0].clientConfig.url: Invalid value: "http": \'https\' is the only allowed URL scheme; desired format',
      'webhooks[0].clientConfig.url: Invalid value: "": host must be provided; desired format: https://host[/path]',
      'webhooks[0].clientConfig.url: Invalid value: "u:p": user information is not permitted in the URL',
      'webhooks[0].clientConfig.url: Invalid value: "c": fragments are not permitted in the URL',
      'webhooks[0].clientConfig.url: Invalid value: "b": query parameters are not permitted in the URL',
    ],
    ['webhooks.0.rules.0.apiVersions', [''], 'webhooks[0].rules[0].apiVersions[0]: Required value'],
    [
      'webhooks.0.rules.0.operations',
      ['*', 'CREATE'],
      'webhooks[0].rules[0].operations: Invalid value: ["*","CREATE"]: if \'*\' is present, must not specify other op',
    ],
    [
      'webhooks.0.rules.0.resources',
      ['pods/*', 'pods/log', '*/scale', 'a/scale', '*', 'b', '*/*'],
      'webhooks[0].rules[0].resources[1]: Invalid value: "pods/log": if \'pods/*\' is present, must not specify pods/log',
      'webhooks[0].rules[0].resources[3]: Invalid value: "a/scale": if \'*/scale\' is present, must not specify a/scale',
      'webhooks[0].rules[0].resources: Invalid value: ["pods/*","pods/log","*/scale","a/scale","*","b","*/*"]: if \'*/*\'',
      'webhooks[0].rules[0].resources: Invalid value: ["pods/*","pods/log","*/scale","a/scale","*","b","*/*"]: if \'*\'',
    ],
    [
      'webhooks.0.matchConditions',
      [{ name: 'a', expression: 'true' }, { name: 'a', expression: ' ' }, { expression: 'true' }],
      'webhooks[0].matchConditions[1].expression: Required value',
      'webhooks[0].matchConditions[1].name: Duplicate value: "a"',
      'webhooks[0].matchConditions[2].name: Required value',
    ],
  ],
);

const policy = {
  spec: { matchConstraints: { resourceRules: [rule] }, validations: [{ expression: 'true' }] },
};
refuses(validatingAdmissionPolicy as Kind, policy, [
  [
    'spec.validations.0.message',
    'a\nb',
    'spec.validations[0].message: Invalid value: "a\\nb": message must not contain',
  ],
  ['spec.validations.0.reason', 'Other', 'spec.validations[0].reason: Unsupported value: "Other"'],
  [
    'spec.variables',
    [{ name: 'a-b', expression: '' }],
    'spec.variables[0].name: Invalid value: "a-b": name is not a valid CEL',
    'spec.variables[0].expression: Required value: expression is not specified',
  ],
  ['spec.paramKind', { apiVersion: 'v1' }, 'spec.paramKind.kind: Required value'],
  [
    'spec.matchConstraints.resourceRules.0.resourceNames',
    ['a', 'a'],
    'spec.matchConstraints.resourceRules[0].resourceNames[1]: Duplicate value: "a"',
  ],
  [
    'spec.auditAnnotations',
    [
      { key: 'a', valueExpression: '1' },
      { key: 'a', valueExpression: '' },
    ],
    'spec.auditAnnotations[1].valueExpression: Required value',
    'spec.auditAnnotations[1].key: Duplicate value: "a"',
  ],
]);
refuses(validatingAdmissionPolicyBinding as Kind, { spec: { policyName: 'p', validationActions: ['Deny'] } }, [
  ['spec.policyName', 'P!', 'spec.policyName: Invalid value: "P!"'],
  ['spec.validationActions', [], 'spec.validationActions: Required value: at least one validation action is required'],
  [
    'spec.validationActions',
    ['Deny', 'Warn'],
    'spec.validationActions: Invalid value: ["Deny","Warn"]: must not contain both',
  ],
  ['spec.validationActions', ['Warn', 'Warn'], 'spec.validationActions: Duplicate value: "Warn"'],
  [
    'spec.paramRef',
    {},
    'spec.paramRef: Required value: one of name or selector',
    'spec.paramRef.parameterNotFoundAction: Required value',
  ],
  [
    'spec.paramRef',
    { name: 'n', selector: {}, parameterNotFoundAction: 'Allow' },
    'spec.paramRef.name: Forbidden: name and selector are mutually',
    'spec.paramRef.selector: Forbidden: name and selector are mutually',
  ],
]);
refuses(
  mutatingAdmissionPolicy as Kind,
  {
    spec: {
      matchConstraints: { resourceRules: [rule] },
      reinvocationPolicy: 'Never',
      mutations: [{ patchType: 'JSONPatch', jsonPatch: { expression: '[]' } }],
    },
  },
  [
    ['spec.mutations.0.patchType', 'Other', 'spec.mutations[0].patchType: Unsupported value: "Other"'],
    ['spec.mutations.0.jsonPatch', undefined, 'spec.mutations[0].jsonPatch: Required value'],
    ['spec.mutations.0.applyConfiguration', { expression: 'x' }, 'spec.mutations[0].applyConfiguration: Forbidden'],
    ['spec.reinvocationPolicy', undefined, 'spec.reinvocationPolicy: Required value'],
    [
      'spec.matchConstraints.resourceRules.0.operations',
      ['DELETE'],
      'spec.matchConstraints.resourceRules[0].operations[0]: Unsupported',
    ],
  ],
);
refuses(mutatingAdmissionPolicyBinding as Kind, { spec: { policyName: 'p' } }, [
  ['spec.policyName', undefined, 'spec.policyName: Required value'],
]);

refuses(
  flowSchema as Kind,
  { spec: { matchingPrecedence: 9, priorityLevelConfiguration: { name: 'global-default' } } },
  [
    [
      'spec.matchingPrecedence',
      1,
      "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have",
    ],
    ['spec.priorityLevelConfiguration.name', 'A!', 'spec.priorityLevelConfiguration.name: Invalid value: "A!"'],
    ['spec.distinguisherMethod', { type: 'x' }, 'spec.distinguisherMethod.type: Unsupported value: {"type":"x"}'],
    [
      'spec.rules',
      [{}],
      'spec.rules[0].subjects: Required value: subjects must contain at least one value',
      'spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty',
    ],
    [
      'spec.rules',
      [
        {
          subjects: [
            { kind: 'User', group: { name: 'g' } },
            { kind: 'ServiceAccount', serviceAccount: { name: '*' } },
            {},
          ],
          resourceRules: [{ verbs: ['fly'], apiGroups: [], resources: ['*', 'a'] }],
          nonResourceRules: [{ verbs: ['*', 'get'], nonResourceURLs: ['x', '/a//b', '/*a', '/ok/*', '/'] }],
        },
      ],
      "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
      "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
      'spec.rules[0].subjects[1].serviceAccount.namespace: Required value: must specify namespace for service account',
      'spec.rules[0].subjects[2].kind: Unsupported value: ""',
      'spec.rules[0].resourceRules[0].verbs: Unsupported value: ["fly"]',
      'spec.rules[0].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group',
      'spec.rules[0].resourceRules[0].resources: Invalid value: ["*","a"]: if \'*\' is present, must not specify other res',
      'spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply',
      'spec.rules[0].nonResourceRules[0].verbs: Invalid value: ["*","get"]: if \'*\' is present, must not specify other v',
      'spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "x": must start with slash',
      'spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: "/a//b": must not contain double slash',
      'spec.rules[0].nonResourceRules[0].nonResourceURLs[2]: Invalid value: "/*a": wildcard can only do suffix matching',
    ],
  ],
);
refuses(
  priorityLevelConfiguration as Kind,
  { spec: { type: 'Limited', limited: { limitResponse: { type: 'Queue', queuing: {} } } } },
  [
    ['spec.limited', undefined, 'spec.limited: Required value: must not be empty when type is Limited'],
    ['spec.limited.limitResponse.type', undefined, 'spec.limited.limitResponse.type: Unsupported value: ""'],
    ['spec.limited.limitResponse.type', 'Reject', 'spec.limited.limitResponse.queuing: Forbidden: must be nil if'],
    [
      'spec.limited.limitResponse.queuing.handSize',
      65,
      'spec.limited.limitResponse.queuing.handSize: Invalid value: 65: should not be greater than queues (64)',
    ],
    [
      'spec.limited.limitResponse.queuing.handSize',
      11,
      'spec.limited.limitResponse.queuing.handSize: Invalid value: 11: required entropy bits of deckSize 64 and handSize 11 should not be greater than 60',
    ],
    [
      'spec.limited.lendablePercent',
      101,
      'spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100',
    ],
    [
      'spec.type',
      'Exempt',
      'spec.type: Invalid value: "Exempt": type must be \'Exempt\' if and only if name',
      'spec.limited: Forbidden: must be nil',
    ],
  ],
);
test('mandatory flow control objects may not be written otherwise', () => {
  for (const name of ['exempt', 'catch-all'] as const) {
    const level = { metadata: { name }, spec: MANDATORY_LEVELS[name] };
    const schema = { metadata: { name }, spec: MANDATORY_SCHEMAS[name] };
    assert.deepEqual(
      shown(priorityLevelConfiguration.validate!(made(priorityLevelConfiguration as Kind, level) as never)),
      [],
    );
    assert.deepEqual(shown(flowSchema.validate!(made(flowSchema as Kind, schema) as never)), []);
    const other = made(flowSchema as Kind, changed(schema, 'spec.rules', []));
    assert.match(
      shown(flowSchema.validate!(other as never))[0]!,
      new RegExp(`spec of '${name}' must equal the fixed value`),
    );
  }
  const shares = { metadata: { name: 'exempt' }, spec: { type: 'Exempt', exempt: { nominalConcurrencyShares: 5 } } };
  assert.deepEqual(
    shown(priorityLevelConfiguration.validate!(made(priorityLevelConfiguration as Kind, shares) as never)),
    [],
  );
});

const driver = { name: 'd.example.com', nodeID: 'n', topologyKeys: ['zone'] };
refuses(csiNode as Kind, { spec: { drivers: [driver] } }, [
  ['spec.drivers.0.topologyKeys', ['zone', 'zone'], 'spec.drivers[0]: Duplicate value: "zone"'],
  ['spec.drivers.0.topologyKeys', ['b!'], 'spec.drivers[0]: Invalid value: ["b!"]: name part must consist of'],
  [
    'spec.drivers.0.allocatable',
    { count: -1 },
    'spec.drivers[0].allocatable.count: Invalid value: -1: must be greater',
  ],
  [
    'spec.drivers.0.name',
    '',
    'spec.drivers[0].name: Required value',
    'spec.drivers[0].name: Invalid value: "": a lower',
  ],
]);
keeps(csiNode as Kind, { spec: { drivers: [driver] } }, [
  ['spec.drivers.0.allocatable', { count: 3 }],
  ['spec.drivers', []],
  [
    'spec.drivers.0.nodeID',
    'm',
    'spec.drivers: Invalid value: {"name":"d.example.com","nodeID":"m","topologyKeys":["zone"]}: field is immutable',
  ],
]);
refuses(csiDriver as Kind, {}, [
  [
    'spec.tokenRequests',
    [{ audience: '' }, { audience: '', expirationSeconds: 5 }],
    'spec.tokenRequests[1].audience: Duplicate value: ""',
  ],
  [
    'spec.tokenRequests',
    [{ audience: 'a', expirationSeconds: 5 }],
    'spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes',
  ],
]);
keeps(csiDriver as Kind, {}, [
  ['spec.podInfoOnMount', true],
  ['spec.attachRequired', false, 'spec.attachedRequired: Invalid value: false: field is immutable'],
  [
    'spec.volumeLifecycleModes',
    ['Ephemeral'],
    'spec.volumeLifecycleModes: Invalid value: ["Ephemeral"]: field is immutable',
  ],
]);
refuses(storageClass as Kind, { provisioner: 'p.example.com/x' }, [
  ['volumeBindingMode', '', 'volumeBindingMode: Unsupported value: ""'],
  ['allowedTopologies', [{}], 'allowedTopologies[0].matchLabelExpressions: Duplicate value: ""'],
]);
keeps(priorityClass as Kind, { value: 5 }, [
  ['value', 2_000_000_000, 'value: Forbidden: may not be changed in an update.'],
  ['description', 'other'],
]);

const external = { type: 'External', external: { metric: { name: 'q' }, target: { type: 'Value', value: '1' } } };
const scaled = (metrics: object[], fields: object = {}) => ({
  spec: {
    scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'd' },
    maxReplicas: 2,
    metrics,
    ...fields,
  },
});
refuses(
  horizontalPodAutoscaler as Kind,
  scaled([{ type: 'Resource', resource: { name: 'cpu', target: { type: 'Utilization', averageUtilization: 5 } } }]),
  [
    [
      'spec.metrics.0.type',
      undefined,
      'spec.metrics[0].type: Required value: must specify a metric source type',
      'spec.metrics[0].type: Unsupported value: ""',
    ],
    [
      'spec.metrics.0.resource.target.type',
      undefined,
      'spec.metrics[0].resource.target.type: Required value: must specify',
      'spec.metrics[0].resource.target.type: Invalid value: "": must be either Utilization, Value, or AverageValue',
    ],
    [
      'spec.metrics',
      [{ type: 'Pods', pods: {} }],
      'spec.metrics[0].pods.metric.name: Required value: must specify a metric name',
      'spec.metrics[0].pods.target.type: Required',
      'spec.metrics[0].pods.target.type: Invalid',
      'spec.metrics[0].pods.target. utilization, value and averageValue: Invalid value: "": at least one not nil',
      'spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue',
    ],
    [
      'spec.metrics',
      [
        {
          type: 'External',
          external: { metric: { name: 'q' }, target: { type: 'Value', value: '1', averageValue: '1' } },
        },
      ],
      'spec.metrics[0].external.target.value: Forbidden: may not set both',
    ],
    [
      'spec.minReplicas',
      0,
      'spec.minReplicas: Invalid value: 0',
      'spec.metrics: Forbidden: must specify at least one Object or External metric',
    ],
    [
      'spec.scaleTargetRef.apiVersion',
      'v1',
      'spec.scaleTargetRef.apiVersion: Invalid value: "v1": apiVersion must specify',
    ],
    ['spec.scaleTargetRef', { apiVersion: 'v1', kind: 'ReplicationController', name: 'd' }],
    [
      'spec.scaleTargetRef.apiVersion',
      'a/b/c',
      'spec.scaleTargetRef.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c',
    ],
    [
      'spec.behavior',
      {
        scaleUp: { stabilizationWindowSeconds: -1, selectPolicy: '', policies: [], tolerance: '-1' },
        scaleDown: { policies: [{ value: 1, periodSeconds: 1 }] },
      },
      'spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero',
      'spec.behavior.scaleUp.selectPolicy: Unsupported value: ""',
      'spec.behavior.scaleUp.policies: Required value: must specify at least one Policy',
      'spec.behavior.scaleUp.tolerance: Invalid value: "-1": must be greater than or equal to 0',
      'spec.behavior.scaleDown.policies[0].type: Unsupported value: ""',
    ],
    [
      'spec.metrics',
      [
        {
          type: 'ContainerResource',
          containerResource: { name: 'cpu', container: 'A_', target: { type: 'Utilization', averageUtilization: 5 } },
        },
      ],
      'spec.metrics[0].containerResource.container: Invalid value: "A_": a lowercase RFC 1123 label',
    ],
  ],
);
keeps(
  horizontalPodAutoscaler as Kind,
  { spec: { scaleTargetRef: { kind: 'Deployment', name: 'd' }, minReplicas: 0, maxReplicas: 2, metrics: [external] } },
  [
    ['spec.maxReplicas', 3],
    [
      'spec.scaleTargetRef.kind',
      'ReplicaSet',
      'spec.scaleTargetRef.apiVersion: Invalid value: "": apiVersion must specify API group',
    ],
  ],
);
refuses(
  cronJob as Kind,
  {
    spec: {
      schedule: '* * * * *',
      jobTemplate: {
        spec: { template: { spec: { restartPolicy: 'Never', containers: [{ name: 'c', image: 'i' }] } } },
      },
    },
  },
  [
    [
      'spec.jobTemplate.spec.selector',
      {},
      'spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated',
    ],
    ['spec.timeZone', '+02:00', 'spec.timeZone: Invalid value: "+02:00": unknown time zone +02:00'],
    ['spec.timeZone', 'America/Argentina/Buenos_Aires'],
    [
      'spec.schedule',
      'TZ=UTC * * * * *',
      'spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in',
    ],
  ],
);
keeps(
  cronJob as Kind,
  {
    metadata: { name: 'x'.repeat(60) },
    spec: {
      schedule: 'TZ=UTC * * * * *',
      jobTemplate: {
        spec: { template: { spec: { restartPolicy: 'Never', containers: [{ name: 'c', image: 'i' }] } } },
      },
    },
  },
  [
    ['spec.suspend', true],
    [
      'spec.timeZone',
      'Etc/UTC',
      'spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use both timeZone field and TZ or CRON_TZ in schedule',
    ],
  ],
);

test('Event: more is asked of what comes by events.k8s.io', () => {
  const given = made(event as Kind, {
    metadata: { name: 'x', namespace: 'default' },
    involvedObject: { namespace: 'default' },
    count: 1,
    type: 'Other',
  }) as never;
  assert.deepEqual(shown(event.validate!(given, '')), []);
  assert.deepEqual(shown(event.validate!(given, 'events.k8s.io')), [
    'eventTime: Required value',
    'type: Invalid value: "": has invalid value: Other',
    'count: Invalid value: "": needs to be unset',
  ]);
});
