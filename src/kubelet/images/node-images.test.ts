import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Pod, Secret } from '../../api/core/v1.gen.ts';
import { VirtualClock } from '../../base/clock.ts';
import { PullError, type PullRequest } from './image-pull.ts';
import { ImageStore } from './image-store.ts';
import { goMilliseconds, ImageUnavailable, NodeImages, type PullPolicy } from './node-images.ts';

const work = mkdtempSync(join(tmpdir(), 'cox-node-images-'));
after(() => rmSync(work, { recursive: true, force: true }));
let folders = 0;

function bed(settings = '') {
  const folder = join(work, String(folders++));
  const store = new ImageStore(folder);
  if (settings) writeFileSync(join(folder, 'images.yaml'), settings);
  const clock = new VirtualClock();
  const asked: PullRequest[] = [];
  const told: string[] = [];
  const state = { fails: undefined as PullError | undefined, running: 0, most: 0 };
  const add = (name: string) =>
    store.add({
      config: Buffer.from(JSON.stringify({ created: name, rootfs: { type: 'layers', diff_ids: [] } })),
      layers: [],
      references: [name],
      manifestDigest: undefined,
    });
  const images = new NodeImages({
    store,
    folder,
    clock,
    puller: {
      async pull(request) {
        asked.push(request);
        state.most = Math.max(state.most, ++state.running);
        await new Promise(setImmediate);
        state.running--;
        if (state.fails) throw state.fails;
        return {
          image: await add(`docker.io/library/${request.reference}`),
          digest: 'd',
          credential: request.credentials.length ? 0 : undefined,
        };
      },
    },
  });
  const bring = (name: string, { policy = 'IfNotPresent' as PullPolicy, secret = '' } = {}) =>
    images.bring({
      pod: {
        metadata: { name: 'p', namespace: 'n', uid: 'u' },
        spec: { containers: [], imagePullSecrets: secret ? [{ name: secret }] : [] },
      } as unknown as Pod,
      name,
      policy,
      readSecret: async of =>
        ({
          metadata: { name: of, uid: of },
          type: 'kubernetes.io/dockerconfigjson',
          data: {
            '.dockerconfigjson': Buffer.from(
              JSON.stringify({ auths: { 'docker.io': { username: of, password: 'x' } } }),
            ).toString('base64'),
          },
        }) as unknown as Secret,
      tell: (_, reason, message) => told.push(`${reason}: ${message}`),
      signal: new AbortController().signal,
    });
  const reason = (name: string, options?: Parameters<typeof bring>[1]) =>
    bring(name, options).then(
      () => 'there',
      error => {
        assert.ok(error instanceof ImageUnavailable, String(error));
        return error.reason;
      },
    );
  return { images, store, clock, asked, told, state, add, bring, reason };
}

test('back-off doubles, is told once, and ends with a success', async () => {
  const { clock, asked, told, state, reason } = bed();
  state.fails = new PullError('no', { isUnreachable: false });
  for (const seconds of [10, 20, 40, 80, 160, 300, 300]) {
    assert.equal(await reason('x:1'), 'ErrImagePull');
    assert.equal(await reason('x:1'), 'ImagePullBackOff');
    await clock.advance(seconds * 1000 - 1);
    assert.equal(await reason('x:1'), 'ImagePullBackOff');
    await clock.advance(1);
  }
  assert.equal(asked.length, 7);
  assert.equal(told.filter(text => text === 'BackOff: Back-off pulling image "x:1"').length, 7);
  state.fails = undefined;
  assert.equal(await reason('x:1'), 'there');
  assert.match(
    told.at(-1)!,
    /^Pulled: Successfully pulled image "x:1" in \S+ \(\S+ including waiting\)\. Image size: 0 bytes\.$/,
  );
});

test('policies, and who may use what a secret opened', async () => {
  const { images, asked, add, reason } = bed();
  assert.equal(await reason('x:1', { policy: 'Never' }), 'ErrImageNeverPull');
  assert.equal(await reason('X'), 'InvalidImageName');
  await add('docker.io/library/loaded:1');
  assert.equal(await reason('loaded:1', { policy: 'Never' }), 'there');
  assert.equal(asked.length, 0);
  assert.equal(await reason('loaded:1', { policy: 'Always' }), 'there');
  assert.equal(asked.length, 1);
  assert.equal(await reason('x:1', { secret: 'mine' }), 'there');
  assert.equal(images.known('x:1', 'IfNotPresent'), undefined);
  assert.equal(await reason('x:1', { secret: 'mine', policy: 'Never' }), 'there');
  assert.equal(await reason('x:1', { secret: 'other', policy: 'Never' }), 'ErrImageNeverPull');
  assert.equal(await reason('x:1', { policy: 'Never' }), 'ErrImageNeverPull');
  assert.equal(asked.length, 2);
  // The registry lets it in without a secret: from now on anybody may.
  assert.equal(await reason('x:1'), 'there');
  assert.equal(asked.length, 3);
  assert.ok(images.known('x:1', 'IfNotPresent'));
  assert.equal(images.known('x:1', 'Always'), undefined);
});

test('one pull at a time, or as many as are allowed', async () => {
  for (const [settings, most] of [
    ['', 1],
    ['maxParallelImagePulls: 3', 3],
    ['serializeImagePulls: false', 8],
  ] as const) {
    const { state, bring } = bed(settings);
    await Promise.all(Array.from({ length: 8 }, (_, i) => bring(`x${i}:1`)));
    assert.equal(state.most, most, settings);
  }
});

test('a duration as Go prints it', () => {
  assert.deepEqual([0, 453, 1200, 60_000, 62_500, 3_600_001].map(goMilliseconds), [
    '0s',
    '453ms',
    '1.2s',
    '1m0s',
    '1m2.5s',
    '1h0m0.001s',
  ]);
});
