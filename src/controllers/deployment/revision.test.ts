import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Deployment, ReplicaSet } from '../../api/apps/v1.gen.ts';
import { byRevision, maxRevision, newSetAnnotations, REVISION, REVISION_HISTORY, revisionOf } from './revision.ts';

const set = (revision?: string): ReplicaSet =>
  ({ metadata: { name: 'set', annotations: revision === undefined ? {} : { [REVISION]: revision } } }) as ReplicaSet;
const deployment = { metadata: { name: 'web', annotations: {} }, spec: { replicas: 1 } } as unknown as Deployment;

test('revisions count exactly in all their 64 bits', () => {
  const sets = [set('3546343826724305832'), set('9'), set(), set('none'), set('9223372036854775808')];
  assert.equal(maxRevision(sets), 3546343826724305832n);
  assert.deepEqual(sets.sort(byRevision).map(revisionOf).slice(-2), [9n, 3546343826724305832n]);
  const made = newSetAnnotations(deployment, {}, { revision: maxRevision(sets) + 1n, exists: false });
  assert.equal(made[REVISION], '3546343826724305833');
});

test('a set that is used again remembers its former revision; one with a strange revision keeps it', () => {
  const again = newSetAnnotations(deployment, { [REVISION]: '1' }, { revision: 3n, exists: true });
  assert.deepEqual([again[REVISION], again[REVISION_HISTORY]], ['3', '1']);
  const strange = newSetAnnotations(deployment, { [REVISION]: 'x' }, { revision: 3n, exists: true });
  assert.equal(strange[REVISION], 'x');
});
