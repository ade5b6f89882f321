import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { elementType, fieldOf, hasType, isKind, typeNames, typeOfKind, typeSchema } from './schema-registry.ts';

const scalars = new Set(
  'string bool int32 int64 double bytes time microtime duration quantity intOrString raw json fieldsV1'.split(' '),
);

test('every type decodes and refers to known types only', () => {
  for (const name of typeNames()) {
    const numbers = new Set<number>();
    for (const field of typeSchema(name).fields) {
      const element = elementType(field.type);
      assert.ok(scalars.has(element) || hasType(element), `${name}.${field.name}: ${field.type}`);
      if (field.number > 0) assert.ok(!numbers.has(field.number), `${name}: number ${field.number} twice`);
      numbers.add(field.number);
    }
  }
});

test('facts of a field are decoded', () => {
  const ports = fieldOf('core.v1.ServiceSpec', 'ports');
  assert.deepEqual(ports, {
    name: 'ports',
    type: '[]core.v1.ServicePort',
    number: 1,
    omitEmpty: true,
    listType: 'map',
    listMapKeys: ['port', 'protocol'],
    patchStrategy: ['merge'],
    patchMergeKey: 'port',
  });
  const protocol = fieldOf('core.v1.ServicePort', 'protocol');
  assert.deepEqual(protocol?.enum, ['SCTP', 'TCP', 'UDP']);
  assert.equal(protocol?.default, 'TCP');
  assert.equal(fieldOf('core.v1.Container', 'name')?.required, true);
  assert.deepEqual(fieldOf('core.v1.PodSpec', 'volumes')?.patchStrategy, ['merge', 'retainKeys']);
  assert.equal(typeSchema('core.v1.ObjectReference').structType, 'atomic');
  assert.deepEqual(typeSchema('core.v1.SeccompProfile').union, [
    { discriminator: 'type', fields: ['localhostProfile'] },
  ]);
});

test('inlined fields belong to the outer object', () => {
  assert.equal(fieldOf('core.v1.Probe', 'httpGet')?.type, 'core.v1.HTTPGetAction');
  assert.equal(fieldOf('core.v1.Volume', 'hostPath')?.type, 'core.v1.HostPathVolumeSource');
  assert.equal(fieldOf('core.v1.Volume', 'hostPaths'), undefined);
});

test('kinds are found by group and version', () => {
  assert.equal(typeOfKind('', 'v1', 'Pod'), 'core.v1.Pod');
  assert.equal(typeOfKind('rbac.authorization.k8s.io', 'v1', 'ClusterRole'), 'rbac.v1.ClusterRole');
  assert.equal(typeOfKind('apps', 'v1', 'DeleteOptions'), 'meta.v1.DeleteOptions');
  assert.equal(typeOfKind('', 'v1', 'Status'), 'meta.v1.Status');
  assert.equal(typeOfKind('', 'v1', 'PodSpec'), undefined);
  assert.equal(typeOfKind('rbac.example.com', 'v1', 'ClusterRole'), undefined);
  assert.equal(isKind('core.v1.PodSpec'), false);
  assert.equal(typeSchema('apps.v1.Deployment').openapiName, 'io.k8s.api.apps.v1.Deployment');
});
