import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fieldErrors } from '../../base/errors.ts';
import { kinds } from '../kinds.ts';
import { forgiveStored } from './address-forms.ts';

test('findings that the stored object has too are forgiven, wherever they stand in a list', () => {
  const old = [fieldErrors.forbidden('spec.list[0].a', 'no'), fieldErrors.required('spec.b')];
  const now = [fieldErrors.forbidden('spec.list[1].a', 'no'), fieldErrors.forbidden('spec.list[1].a', 'nor')];
  assert.deepEqual(
    forgiveStored(now, () => old),
    [now[1]],
  );
  assert.deepEqual(
    forgiveStored([], () => assert.fail('nothing to forgive')),
    [],
  );
});

test('whatever holds a pod or a template of one is forgiven what was let in before a rule was there', () => {
  assert.deepEqual(
    kinds
      .filter(kind => kind.forgivesStored)
      .map(({ kind }) => kind)
      .sort(),
    [
      'CronJob',
      'DaemonSet',
      'Deployment',
      'Job',
      'Pod',
      'PodTemplate',
      'ReplicaSet',
      'ReplicationController',
      'StatefulSet',
    ],
  );
});
