import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Pod } from '../../api/core/v1.gen.ts';
import type { Runtime } from '../runtime.ts';
import { UserIds, userIdsOf } from './user-ids.ts';

let pods: string;
before(() => {
  pods = join(mkdtempSync(join(tmpdir(), 'cox-user-ids-')), 'pods');
});
after(() => rmSync(dirname(pods), { recursive: true, force: true }));
const open = () => new UserIds({ pods, podsMax: 2, idsPerPod: 65536 });

test('each pod has ids of its own, which an agent that comes back finds again', () => {
  assert.deepEqual(open().claim('a'), { hostId: 65536, length: 65536 });
  assert.deepEqual(open().claim('b'), { hostId: 131072, length: 65536 });
  assert.deepEqual(open().claim('a'), { hostId: 65536, length: 65536 });
  const mapping = { containerId: 0, hostId: 65536, length: 65536 };
  assert.deepEqual(JSON.parse(readFileSync(join(pods, 'a/userns'), 'utf8')), {
    uidMappings: [mapping],
    gidMappings: [mapping],
  });
  assert.throws(() => open().claim('c'), /could not find an empty slot/);
  open().release('a');
  assert.deepEqual(open().claim('c'), { hostId: 65536, length: 65536 });
  rmSync(join(pods, 'c'), { recursive: true });
  assert.deepEqual(open().claim('d'), { hostId: 65536, length: 65536 });
});

test('a file that says nothing sensible stops everybody, for whose ids they are nobody knows', () => {
  mkdirSync(join(pods, 'broken'));
  writeFileSync(join(pods, 'broken/userns'), '{}');
  assert.throws(() => open().claim('e'), /wrong user namespace mappings/);
  rmSync(join(pods, 'broken'), { recursive: true });
});

test('a handler without user namespaces refuses in upstream words', () => {
  const pod = (hostUsers?: boolean) => ({ metadata: { uid: 'a' }, spec: { hostUsers } }) as Pod;
  const runtime = {
    featuresOf: (handler: string) => ({
      recursiveReadOnlyMounts: true,
      userNamespaces: handler === '',
      supplementalGroupsPolicy: true,
    }),
  } as Runtime;
  assert.equal(userIdsOf(pod(), { userIds: open(), runtime }), undefined);
  assert.equal(userIdsOf(pod(true), { userIds: open(), runtime: {} as Runtime }), undefined);
  assert.throws(
    () => userIdsOf(pod(false), { userIds: open(), runtime: {} as Runtime }),
    /^Error: can not set `hostUsers: false`, runtime does not support user namespaces$/,
  );
  assert.throws(
    () => userIdsOf(pod(false), { userIds: open(), runtime, handler: 'x' }),
    /runtime handler "x" does not support/,
  );
});
