import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import type { Kind } from './kind.ts';
import { kindFor, kinds } from './kinds.ts';
import { builtinResources, optionalResources } from './resources.ts';

const here = import.meta.dirname;

/** Files below a group's folder that export kinds. */
function kindFiles(): string[] {
  return readdirSync(here, { recursive: true, encoding: 'utf8' })
    .filter(file => /^[a-z]+\/[a-z-]+\.ts$/.test(file))
    .filter(file => readFileSync(join(here, file), 'utf8').includes('= defineKind'));
}

test('every kind of every file is in the registry', async () => {
  for (const file of kindFiles()) {
    const exported = Object.values((await import(join(here, file))) as Record<string, unknown>);
    const defined = exported.filter(
      value => typeof value === 'object' && value !== null && 'kind' in value && 'version' in value,
    ) as Kind[];
    assert.ok(defined.length > 0, `${file} exports no kind`);
    for (const kind of defined) assert.ok(kinds.includes(kind), `${file}: ${kind.kind} is missing from kinds.ts`);
  }
});

test('kinds are served, and each once', () => {
  const names = kinds.map(kind => `${kind.group}/${kind.version}/${kind.kind}`);
  assert.equal(new Set(names).size, names.length);
  const served = new Set(
    [...builtinResources, ...optionalResources].map(info => `${info.group}/${info.version}/${info.kind}`),
  );
  for (const name of names) assert.ok(served.has(name), `${name} is no resource`);
});

test('lookup', () => {
  assert.equal(kindFor('', 'v1', 'Pod')?.kind, 'Pod');
  assert.equal(kindFor('apps', 'v1', 'Deployment')?.group, 'apps');
  assert.equal(kindFor('example.com', 'v1', 'Thing'), undefined);
});

test('defaults, preparation, validation and columns survive an object with nothing but a name', () => {
  for (const kind of kinds) {
    const bare = {
      apiVersion: kind.group ? `${kind.group}/${kind.version}` : kind.version,
      kind: kind.kind,
      metadata: { name: 'x', namespace: 'default' },
    };
    kind.defaults?.(bare);
    const once = structuredClone(bare);
    kind.defaults?.(bare);
    assert.deepEqual(bare, once, `defaults of ${kind.kind} are not idempotent`);
    kind.prepareCreate?.(bare);
    assert.ok(Array.isArray(kind.validate?.(bare) ?? []), kind.kind);
    kind.validateStatusUpdate?.(bare, bare);
    for (const column of kind.columns ?? [])
      assert.notEqual(column.cell(bare, 0), undefined, `${kind.kind} ${column.name}`);
    for (const select of Object.values(kind.selectableFields ?? {})) assert.equal(typeof select(bare), 'string');
  }
});
