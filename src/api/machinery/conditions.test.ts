import assert from 'node:assert/strict';
import { test } from 'node:test';
import { validatingAdmissionPolicy } from '../admissionregistration/validating-admission-policy.ts';
import { horizontalPodAutoscaler } from '../autoscaling/horizontal-pod-autoscaler.ts';
import type { HorizontalPodAutoscaler } from '../autoscaling/v2.gen.ts';
import { podCertificateRequest } from '../certificates/pod-certificate-request.ts';
import type { Kind } from '../kind.ts';
import type { Condition, KubeObject } from '../meta.ts';
import { podDisruptionBudget } from '../policy/pod-disruption-budget.ts';
import { storageVersionMigration } from '../storagemigration/storage-version-migration.ts';
import { normalize } from '../structural.ts';
import { checkConditions } from './conditions.ts';
import type { Errors } from './validation.ts';

const good: Condition = {
  type: 'a.b/Ready',
  status: 'True',
  reason: 'AllWell',
  message: '',
  lastTransitionTime: '2026-01-01T00:00:00Z',
};
const told = (errors: Errors) =>
  errors.map(({ field, message }) => `${field}: ${message.split(': ').slice(0, 2).join(': ')}`);

test("conditions: each type once, a known status, a reason of upstream's form, when it changed", () => {
  const check = (...conditions: Partial<Condition>[]) => {
    const errors: Errors = [];
    checkConditions(errors, 'c', conditions as Condition[]);
    return told(errors);
  };
  assert.deepEqual(check(good, { ...good, type: 'Other', status: 'Unknown', reason: 'A_b,c:d' }), []);
  assert.deepEqual(check(good, good), ['c[1].type: Duplicate value: "a.b/Ready"']);
  assert.deepEqual(check({}), [
    'c[0].type: Invalid value: ""',
    'c[0].type: Invalid value: ""',
    'c[0].status: Unsupported value: ""',
    'c[0].lastTransitionTime: Required value: must be set',
    'c[0].reason: Required value: must be set',
  ]);
  assert.deepEqual(check({ ...good, status: 'true', reason: 'two words', observedGeneration: -1 }), [
    'c[0].status: Unsupported value: "true"',
    'c[0].observedGeneration: Invalid value: -1',
    'c[0].reason: Invalid value: "two words"',
  ]);
  assert.deepEqual(check({ ...good, message: 'ü'.repeat(16_385) }), [
    'c[0].message: Too long: may not be more than 32768 bytes',
  ]);
});

test('kinds that have such conditions judge them', () => {
  const status = (conditions: object[]) =>
    ({ metadata: { name: 'x' }, status: { conditions } }) as unknown as KubeObject;
  for (const kind of [
    podDisruptionBudget,
    validatingAdmissionPolicy,
    podCertificateRequest,
    storageVersionMigration,
  ] as Kind[])
    assert.ok(
      told([...kind.validateStatusUpdate!(status([{ ...good, reason: '' }]), status([]))]).includes(
        'status.conditions[0].reason: Required value: must be set',
      ),
      kind.kind,
    );
});

test('a storage version migration ends once, one way', () => {
  const migration = (types: readonly string[], resourceVersion?: string) =>
    ({
      metadata: { name: 'x' },
      status: { conditions: types.map(type => ({ ...good, type })), ...(resourceVersion ? { resourceVersion } : {}) },
    }) as unknown as KubeObject;
  const change = (now: KubeObject, old: KubeObject) =>
    storageVersionMigration.validateStatusUpdate!(now, old).map(({ message }) => message.split(': ').at(-1));
  assert.deepEqual(change(migration(['Succeeded'], '7'), migration(['Running'], '7')), []);
  assert.deepEqual(change(migration(['Running'], '8'), migration([], '7')), ['field is immutable']);
  assert.deepEqual(change(migration(['Succeeded', 'Failed', 'Running']), migration([])), [
    'Both success and failed conditions cannot be true at the same time',
    'Running condition cannot be true when success condition is true',
    'Running condition cannot be true when failed condition is true',
  ]);
  assert.deepEqual(change(migration([]), migration(['Failed'])), [
    'Failed condition cannot be set to false once it is true',
  ]);
});

test('no rules for scaling and an empty list of them are two wishes', () => {
  const scaler = (policies?: []) => {
    const object = normalize('autoscaling.v2.HorizontalPodAutoscaler', {
      metadata: { name: 'x' },
      spec: {
        maxReplicas: 3,
        scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'd' },
        behavior: { scaleUp: { selectPolicy: 'Min', ...(policies ? { policies } : {}) } },
      },
    } as unknown as HorizontalPodAutoscaler);
    horizontalPodAutoscaler.defaults!(object);
    return told([...horizontalPodAutoscaler.validate!(object)]);
  };
  assert.deepEqual(scaler(), []);
  assert.deepEqual(scaler([]), ['spec.behavior.scaleUp.policies: Required value: must specify at least one Policy']);
});
