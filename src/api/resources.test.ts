import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { apiGroupOrder, builtinResources, resourceByKind, resourceByName } from './resources.ts';
import { hasType, isKind, typeOfKind } from './schema-registry.ts';

test('every resource, list and subresource has a schema', () => {
  for (const info of builtinResources) {
    assert.equal(typeOfKind(info.group, info.version, info.kind), info.type);
    assert.ok(isKind(info.type));
    const list = `${info.type.slice(0, -info.kind.length)}${info.listKind}`;
    if (info.verbs.includes('list')) assert.ok(hasType(list), list);
    for (const { name, kind } of info.subresources) {
      if (kind) assert.ok(typeOfKind(kind.group, kind.version, kind.kind), `${info.resource}/${name}`);
    }
  }
});

test('groups and the table agree, and names within a group-version are sorted and unique', () => {
  const groupVersions = apiGroupOrder.flatMap(({ group, versions }) => versions.map(version => `${group}/${version}`));
  const seen = [...new Set(builtinResources.map(info => `${info.group}/${info.version}`))];
  assert.deepEqual(seen, groupVersions);
  for (const groupVersion of groupVersions) {
    const names = builtinResources
      .filter(info => `${info.group}/${info.version}` === groupVersion)
      .map(info => info.resource);
    assert.deepEqual(names, [...new Set(names)].sort());
  }
  for (const { subresources } of builtinResources) {
    const names = subresources.map(({ name }) => name);
    assert.deepEqual(names, [...names].sort());
  }
});

test('short names are unique within a group', () => {
  const seen = new Map<string, string>();
  for (const { group, resource, shortNames } of builtinResources) {
    for (const short of shortNames) {
      const holder = seen.get(`${group}/${short}`);
      assert.ok(holder === undefined || holder === resource, short);
      seen.set(`${group}/${short}`, resource);
    }
  }
});

test('lookups', () => {
  assert.equal(resourceByName('', 'v1', 'pods')?.kind, 'Pod');
  assert.equal(resourceByKind('apps', 'v1', 'Deployment')?.resource, 'deployments');
  assert.equal(resourceByKind('autoscaling', 'v1', 'HorizontalPodAutoscaler')?.storageVersion?.version, 'v2');
  assert.equal(resourceByKind('autoscaling', 'v1', 'Scale'), undefined);
  assert.equal(resourceByName('apps', 'v1', 'pods'), undefined);
});
