import assert from 'node:assert/strict';
import test from 'node:test';
import type { Scale } from '../../api/autoscaling/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { conflict } from '../../base/errors.ts';
import { DEPLOYMENTS } from '../../client/resources.ts';
import { setReplicas } from './rescaling.ts';

test('a conflict is no failure: the scale is read again, some times', async () => {
  const target = { of: DEPLOYMENTS, namespace: 'default', name: 'web', subresource: 'scale' };
  const scale = (version: number): Scale => ({
    apiVersion: 'autoscaling/v1',
    kind: 'Scale',
    metadata: { name: 'web', resourceVersion: String(version) },
    spec: {},
  });
  let current = 1;
  let writes = 0;
  const transport = {
    get: async () => scale(current) as KubeObject,
    update: async (_: unknown, object: KubeObject) => {
      writes++;
      if (object.metadata.resourceVersion !== String(current)) throw conflict(DEPLOYMENTS, 'web', 'modified');
      return object;
    },
  };
  current = 2;
  await setReplicas(transport, target, { scale: scale(1), desired: 3 });
  assert.equal(writes, 2);
  transport.get = async () => scale(1) as KubeObject;
  await assert.rejects(setReplicas(transport, target, { scale: scale(1), desired: 3 }), /modified/);
  assert.equal(writes, 7);
});
