import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { resourceByName } from '../../api/resources.ts';
import type { AdmissionRequest } from '../request.ts';
import { GAPS, notYet } from './not-yet.ts';

test('every gap is a resource that exists, and is in the documentation', () => {
  const page = readFileSync(new URL('../../../docs/not-yet.md', import.meta.url), 'utf8');
  for (const { of, says } of GAPS) {
    const [name, subresource] = of.split('/') as [string, string?];
    const [resource, group] = [name.slice(0, name.indexOf('.')), name.slice(name.indexOf('.') + 1)];
    const info = ['v1', 'v2'].map(version => resourceByName(group, version, resource)).find(Boolean);
    assert.ok(info, of);
    if (subresource)
      assert.ok(
        info.subresources.some(known => known.name === subresource),
        of,
      );
    assert.ok(page.includes(says), `docs/not-yet.md does not say: ${says}`);
  }
});

test('a gap warns who creates, and nobody else', () => {
  const warnings: string[] = [];
  const ask = (operation: string, resource: string, group: string) =>
    notYet().validate!({
      operation,
      attributes: { resource, group, name: 'x' },
      warn: (text: string) => warnings.push(text),
    } as unknown as AdmissionRequest);
  for (const { of } of GAPS) {
    const [resource, group] = [of.slice(0, of.indexOf('.')), of.slice(of.indexOf('.') + 1)];
    ask('CREATE', resource, group);
    ask('UPDATE', resource, group);
  }
  ask('CREATE', 'pods', '');
  assert.deepEqual(
    warnings,
    GAPS.map(({ says }) => says),
  );
});
