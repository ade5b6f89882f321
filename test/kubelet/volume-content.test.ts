/** What containers find in their volumes: what is optional, immutable, too large, or at a path made of the pod's own names. */

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeObject } from '../../src/api/meta.ts';
import { CONFIG_MAPS, PODS, SECRETS } from '../../src/client/resources.ts';
import { isReady, TestNode } from './node.ts';
import { sh } from './pods.ts';

let node: TestNode;
before(async () => {
  node = new TestNode({ isolated: true });
  await node.start();
});
after(() => node.close());

const until = async (what: string, check: () => unknown): Promise<void> => {
  const end = Date.now() + 90_000;
  while (!(await check())) {
    assert.ok(Date.now() < end, `not in time: ${what}`);
    await sleep(20);
  }
};
const remove = async (...names: string[]) => {
  for (const name of names) await node.api.delete({ of: PODS, namespace: 'default', name }, { gracePeriodSeconds: 0 });
  for (const name of names) await node.untilGone(name);
  // The kubelet still takes away what such a pod had.
  await until('their files are gone', () => readdirSync(join(node.root, 'run/p')).length === 0);
};
const text = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8') : undefined);
const waiting = (wanted: RegExp) => (pod: { status?: { containerStatuses?: readonly unknown[] } }) =>
  wanted.test(JSON.stringify(pod.status?.containerStatuses?.[0] ?? {}));

test('subPathExpr: a folder by the pod’s own name; a name that leads out or is unknown is refused', async () => {
  const folder = join(node.root, 'logs');
  mkdirSync(folder);
  const user = (name: string, subPathExpr: string, env: readonly object[] = []) =>
    node.create(name, {
      volumes: [{ name: 'v', hostPath: { path: folder, type: 'Directory' } }],
      containers: [
        sh('hostname > /v/me; sleep 1000', {
          env: [{ name: 'POD', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } }, ...env],
          volumeMounts: [{ name: 'v', mountPath: '/v', subPathExpr }],
        }),
      ],
    });
  await user('one', 'of/$(POD)');
  await user('two', 'of/$(POD)');
  await user('out', '$(WHERE)', [{ name: 'WHERE', value: '../../etc' }]);
  await user('away', '$(WHERE)', [{ name: 'WHERE', value: '/etc' }]);
  await user('unknown', 'of/$(NOBODY)');
  for (const name of ['one', 'two']) await node.until(name, isReady);
  await until('each its own', () => ['one', 'two'].every(name => text(join(folder, 'of', name, 'me')) === `${name}\n`));
  await node.until('out', waiting(/CreateContainerConfigError.*must not contain '\.\.'|CreateContainer.*subPath/));
  await node.until('away', waiting(/CreateContainer.*(subPath|relative)/));
  await node.until('unknown', waiting(/CreateContainer.*missing value for .?"?\$?\(?NOBODY/));
  assert.ok(!existsSync(join(node.root, 'etc')));
  await remove('one', 'two', 'out', 'away', 'unknown');
});

test('a link inside a hostPath volume is no way out of it', async () => {
  const allowed = join(node.root, 'allowed');
  const secret = join(node.root, 'not-allowed');
  for (const folder of [allowed, secret]) mkdirSync(folder);
  writeFileSync(join(secret, 'key'), 'secret');
  symlinkSync(secret, join(allowed, 'link'));
  await assert.rejects(
    node.create('dots', { volumes: [{ name: 'v', hostPath: { path: `${allowed}/../x` } }], containers: [sh('true')] }),
    /hostPath\.path: Invalid value: .*must not contain '\.\.'/,
  );
  await node.create('by-link', {
    volumes: [{ name: 'v', hostPath: { path: allowed } }],
    containers: [sh('cat /v/key; sleep 1000', { volumeMounts: [{ name: 'v', mountPath: '/v', subPath: 'link' }] })],
  });
  await node.until('by-link', waiting(/CreateContainer.*failed to prepare subPath for volumeMount \\"v\\"/));
  // In the container the link leads to the container's own files.
  await node.create('inside', {
    volumes: [{ name: 'v', hostPath: { path: allowed } }],
    containers: [
      sh('cat /v/link/key || echo nothing > /v/seen; sleep 1000', { volumeMounts: [{ name: 'v', mountPath: '/v' }] }),
    ],
  });
  await until('it looked', () => text(join(allowed, 'seen')) === 'nothing\n');
  await remove('by-link', 'inside');
});

test('what is optional may be missing, and comes when it is made', async () => {
  const pod = await node.create('optional', {
    containers: [sh('sleep 1000', { volumeMounts: [{ name: 'v', mountPath: '/v' }] })],
    volumes: [
      {
        name: 'v',
        projected: {
          sources: [
            {
              configMap: {
                name: 'later',
                optional: true,
                items: [
                  { key: 'a', path: 'deep/a' },
                  { key: 'b', path: 'b' },
                ],
              },
            },
            { secret: { name: 'later', optional: true } },
          ],
        },
      },
    ],
  });
  await node.until('optional', isReady);
  const file = (name: string) =>
    text(join(node.root, 'run/p', pod.metadata.uid!, 'volumes/kubernetes.io~projected/v', name));
  assert.equal(file('deep/a'), undefined);
  await node.configMap('later', { a: 'here', c: 'not asked for' });
  await node.put(SECRETS, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'later', namespace: 'default' },
    data: { word: Buffer.from('sesame').toString('base64') },
  });
  await until('both are there', () => file('deep/a') === 'here' && file('word') === 'sesame');
  assert.equal(file('b'), undefined);
  assert.equal(file('c'), undefined);
  await node.api.delete({ of: SECRETS, namespace: 'default', name: 'later' });
  await until('one is gone', () => file('word') === undefined);
  assert.equal(file('deep/a'), 'here');
  await remove('optional');
});

test('what is immutable stays for the pods that have it, even when its name means something else', async () => {
  const map = (name: string, value: string, immutable: boolean) =>
    node.put(CONFIG_MAPS, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name, namespace: 'default' },
      immutable,
      data: { key: value },
    });
  const user = async (name: string) => {
    const { metadata } = await node.create(name, {
      containers: [sh('sleep 1000')],
      volumes: [
        { name: 'fixed', configMap: { name: 'fixed' } },
        { name: 'changing', configMap: { name: 'changing' } },
      ],
    });
    await node.until(name, isReady);
    return (volume: string) =>
      text(join(node.root, 'run/p', metadata.uid!, 'volumes/kubernetes.io~configmap', volume, 'key'));
  };
  await map('fixed', 'first', true);
  await map('changing', 'first', false);
  const one = await user('holds');
  await assert.rejects(
    node.api.patch(
      { of: CONFIG_MAPS, namespace: 'default', name: 'fixed' },
      { data: { key: 'second' } } as unknown as KubeObject,
      'application/merge-patch+json',
    ),
    /field is immutable when `immutable` is set/,
  );
  await node.api.delete({ of: CONFIG_MAPS, namespace: 'default', name: 'fixed' });
  await map('fixed', 'second', true);
  await node.api.patch(
    { of: CONFIG_MAPS, namespace: 'default', name: 'changing' },
    { data: { key: 'second' } } as unknown as KubeObject,
    'application/merge-patch+json',
  );
  // Both are written anew together.
  await until('the other changed', () => one('changing') === 'second');
  assert.equal(one('fixed'), 'first');
  await remove('holds');
  const two = await user('comes-after');
  assert.equal(two('fixed'), 'second');
  await remove('comes-after');
});

test('sizeLimit: the pod that exceeds it is evicted, in memory it finds no room', async () => {
  await node.create('memory', {
    containers: [
      sh('dd if=/dev/zero of=/v/big bs=64k count=64 2>/v/../said; tail -n1 /said; sleep 1000', {
        volumeMounts: [{ name: 'v', mountPath: '/v' }],
      }),
    ],
    volumes: [{ name: 'v', emptyDir: { medium: 'Memory', sizeLimit: '1Mi' } }],
  });
  await node.create('disk', {
    restartPolicy: 'Always',
    containers: [
      sh('dd if=/dev/zero of=/v/big bs=64k count=64; sync; sleep 1000', {
        volumeMounts: [{ name: 'v', mountPath: '/v' }],
      }),
    ],
    volumes: [{ name: 'v', emptyDir: { sizeLimit: '1Mi' } }],
  });
  const { status } = await node.until('disk', pod => pod.status?.phase === 'Failed', 60_000);
  assert.deepEqual(
    [status?.reason, status?.message],
    ['Evicted', 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '],
  );
  const pod = await node.until('memory', isReady);
  const file = join(node.root, 'lib/pods', pod.metadata.uid!, 'volumes/kubernetes.io~empty-dir/v/big');
  await until('it is full', () => existsSync(file) && readFileSync(file).length === 1 << 20);
  assert.equal((await node.pod('memory'))?.status?.phase, 'Running');
  await remove('memory', 'disk');
});
