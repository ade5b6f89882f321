import assert from 'node:assert/strict';
import test from 'node:test';
import { Descriptions, descriptionText, parseDescriptions } from './descriptions.ts';
import { builtinResources, optionalResources } from './resources.ts';
import { fieldsOf, hasType, typeNames } from './schema-registry.ts';

const table = parseDescriptions(descriptionText());
const descriptions = new Descriptions(table);
const OPAQUE = [
  'Time',
  'MicroTime',
  'Duration',
  'Quantity',
  'IntOrString',
  'RawExtension',
  'FieldsV1',
  'Patch',
  'JSON',
];

test('every kind is described', () => {
  for (const { type } of [...builtinResources, ...optionalResources])
    assert.ok(descriptions.ofType(type), `${type} has no line in descriptions.txt`);
});

test('every field of the most used types is described', () => {
  const used =
    'core.v1: Pod PodSpec PodStatus Container ContainerPort EnvVar EnvVarSource Probe Lifecycle ResourceRequirements SecurityContext PodSecurityContext Volume VolumeMount PersistentVolumeClaimSpec ServiceSpec ServicePort ConfigMap Secret NodeSpec Toleration|apps.v1: DeploymentSpec StatefulSetSpec DaemonSetSpec|batch.v1: JobSpec CronJobSpec|networking.v1: IngressSpec HTTPIngressPath NetworkPolicySpec NetworkPolicyPeer NetworkPolicyPort|autoscaling.v2: HorizontalPodAutoscalerSpec MetricSpec HPAScalingRules|rbac.v1: PolicyRule RoleRef Subject RoleBinding|meta.v1: ObjectMeta OwnerReference';
  for (const [home, names] of used.split('|').map(part => part.split(': ') as [string, string])) {
    for (const name of names.split(' ')) {
      const missing = [...fieldsOf(`${home}.${name}`)]
        .map(([field]) => field)
        .filter(field => !describedField(`${home}.${name}`, field));
      const alpha = [
        'extendedResourceClaimStatus',
        'nodeAllocatableResourceClaimStatuses',
        'configSource',
        'externalID',
      ];
      assert.deepEqual(
        missing.filter(field => !alpha.includes(field)),
        [],
        `${home}.${name}`,
      );
    }
  }
});

/** A field of an inlined type is described there. */
function describedField(type: string, field: string): boolean {
  if (descriptions.ofField(type, field)) return true;
  const inlined = { 'core.v1.Volume': 'core.v1.VolumeSource', 'core.v1.Probe': 'core.v1.ProbeHandler' }[type];
  return inlined !== undefined && descriptions.ofField(inlined, field) !== undefined;
}

test('nothing is described that there is not', () => {
  const all = typeNames();
  for (const [name, fields] of table) {
    if (name === '*' || OPAQUE.includes(name)) continue;
    const types = hasType(name) ? [name] : all.filter(type => type.endsWith(`.${name}`));
    assert.ok(types.length > 0, `${name} is no type`);
    // Types that share a text need not have all fields of it.
    const sharing = [...table].filter(([, other]) => other.get('') === fields.get('')).map(([other]) => other);
    const known = new Set(
      all
        .filter(type => sharing.some(other => type === other || type.endsWith(`.${other}`)))
        .flatMap(type => [
          ...fieldsOf(type).keys(),
          ...['Spec', 'Status'].flatMap(part => (hasType(type + part) ? [...fieldsOf(type + part).keys()] : [])),
        ]),
    );
    for (const field of fields.keys()) assert.ok(field === '' || known.has(field), `${name} has no field ${field}`);
  }
});

test('one text may stand for several names, and a package comes before none', () => {
  const own = new Descriptions(parseDescriptions('A, B: Both.\n  x, y: A field.\na.v1.B: Other.\n*:\n  z: Any.\n'));
  assert.equal(own.ofType('c.v1.B'), 'Both.');
  assert.equal(own.ofType('a.v1.B'), 'Other.');
  assert.equal(own.ofField('a.v1.B', 'y'), 'A field.');
  assert.equal(own.ofField('c.v1.Q', 'z'), 'Any.');
  assert.equal(own.ofType('c.v1.ThingList'), 'A list of Thing objects.');
  assert.equal(own.ofType('c.v1.Thing'), undefined);
});
