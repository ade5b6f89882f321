import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { controllers } from './registry.ts';

test('every folder is registered once, under its own name', () => {
  const folders = readdirSync(import.meta.dirname, { withFileTypes: true })
    .filter(entry => entry.isDirectory() && entry.name !== 'runtime')
    .map(entry => entry.name);
  assert.deepEqual(controllers.map(definition => definition.folder).sort(), folders.sort());
});
