import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { planClone } from './git-repo.ts';

const refused = (source: Parameters<typeof planClone>[0], why: RegExp) => assert.rejects(planClone(source), why);

test('repositories come over the network from somebody else, by http, https and git', async () => {
  for (const repository of [
    '/srv/repository',
    '../repository',
    'file:///srv/repository',
    'ext::sh -c touch% /tmp/x',
    'ssh://git@192.0.2.1/x',
    'git@192.0.2.1:x.git',
    '--upload-pack=touch /tmp/x',
    'http://user:password@192.0.2.1/x',
    'http://192.0.2.1/a%0ab',
    'git://192.0.2.1/a b',
  ])
    await refused({ repository }, /gitRepo\.repository: Invalid value/);
  for (const host of [
    '127.0.0.1',
    '127.8.9.1',
    'localhost',
    '[::1]',
    '169.254.169.254',
    '0.0.0.0',
    '[::ffff:127.0.0.1]',
  ])
    await refused({ repository: `http://${host}/x.git` }, /is an address of the node itself|must be a URL/);
  const { url, directory } = await planClone({ repository: 'git://192.0.2.1/team/site.git' });
  assert.deepEqual([url, directory], ['git://192.0.2.1:9418/team/site.git', 'site']);
});

test('the folder is inside the volume and never Git’s own', async () => {
  const at = (directory: string) => planClone({ repository: 'https://192.0.2.1/site.git', directory });
  for (const directory of ['..', 'a/../../b', '/etc', '.git', 'a/.git/hooks', '.GIT', 'git~1', 'a b', 'a\nb', '-\0'])
    await assert.rejects(at(directory), /gitRepo\.directory: Invalid value/);
  for (const [directory, is] of [
    ['.', '.'],
    ['./', '.'],
    ['a/b', 'a/b'],
    ['.config', '.config'],
  ] as const)
    assert.equal((await at(directory)).directory, is);
});

test('whatever is said, the plan is refused or harmless', async () => {
  await fc.assert(
    fc.asyncProperty(fc.string(), fc.string({ unit: 'binary' }), async (path, directory) => {
      const plan = await planClone({ repository: `https://192.0.2.1/${path}`, directory }).catch(() => undefined);
      if (!plan) return;
      assert.ok(plan.url.startsWith('https://192.0.2.1/'));
      assert.match(plan.directory, /^(\.|[\w.+@-]+(\/[\w.+@-]+)*)$/);
      assert.ok(!plan.directory.split('/').some(part => part === '..' || /^\.git$/i.test(part)));
    }),
    { numRuns: 20 },
  );
});
