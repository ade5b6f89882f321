import assert from 'node:assert/strict';
import { test } from 'node:test';
import { APP_ARMOR_ANNOTATION, keepAppArmorFields, wantedAppArmor } from './app-armor.ts';
import type { Pod } from './v1.gen.ts';

const pod = (annotations: Record<string, string>, spec: object = {}): Pod =>
  ({
    metadata: {
      name: 'p',
      annotations: Object.fromEntries(
        Object.entries(annotations).map(([of, value]) => [APP_ARMOR_ANNOTATION + of, value]),
      ),
    },
    spec: { initContainers: [{ name: 'i' }], containers: [{ name: 'c' }], ...spec },
  }) as unknown as Pod;

test('annotations become fields of containers that have none', () => {
  const all = pod({ c: 'localhost/mine', i: 'unconfined' });
  keepAppArmorFields(all);
  assert.deepEqual(all.spec.containers[0]!.securityContext?.appArmorProfile, {
    type: 'Localhost',
    localhostProfile: 'mine',
  });
  assert.deepEqual(all.spec.initContainers![0]!.securityContext?.appArmorProfile, { type: 'Unconfined' });

  for (const none of [
    pod({ c: 'nonsense' }),
    pod({ c: 'localhost/' }),
    pod({ c: 'runtime/default' }, { securityContext: { appArmorProfile: { type: 'RuntimeDefault' } } }),
    pod({ c: 'unconfined' }, { os: { name: 'windows' } }),
  ]) {
    keepAppArmorFields(none);
    assert.equal(none.spec.containers[0]!.securityContext, undefined);
  }
});

test('a container’s field goes before its annotation, and that before the pod’s field', () => {
  const securityContext = { appArmorProfile: { type: 'RuntimeDefault' } };
  const field = { name: 'c', securityContext: { appArmorProfile: { type: 'Unconfined' } } };
  assert.equal(wantedAppArmor(pod({ c: 'localhost/x' }, { securityContext }), field)?.type, 'Unconfined');
  assert.equal(wantedAppArmor(pod({ c: 'localhost/x' }, { securityContext }), { name: 'c' })?.type, 'Localhost');
  assert.equal(wantedAppArmor(pod({}, { securityContext }), { name: 'c' })?.type, 'RuntimeDefault');
  assert.equal(wantedAppArmor(pod({}), { name: 'c' }), undefined);
});
