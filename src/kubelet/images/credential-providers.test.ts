import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Pod } from '../../api/core/v1.gen.ts';
import { VirtualClock } from '../../base/clock.ts';
import { createLogger } from '../../base/log.ts';
import { metrics } from '../../base/metrics.ts';
import { durationMs, readCredentialProviders } from './credential-provider-config.ts';
import { CredentialProviders } from './credential-providers.ts';
import { matchesLocation } from './credentials.ts';

const work = mkdtempSync(join(tmpdir(), 'cox-providers-'));
after(() => rmSync(work, { recursive: true, force: true }));

const PROVIDER = {
  name: 'p',
  matchImages: ['*.example'],
  defaultCacheDuration: '10m',
  apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
};
let beds = 0;
async function bed(response: string, extra: object = {}) {
  const folder = join(work, String(beds++));
  mkdirSync(folder);
  writeFileSync(join(folder, 'p'), `#!/bin/sh\ncat >> ${folder}/asked\n${response}\n`, { mode: 0o755 });
  const config = { apiVersion: 'kubelet.config.k8s.io/v1', kind: 'CredentialProviderConfig' };
  const write = (provider: object, file = 'config.json') =>
    writeFileSync(join(folder, file), JSON.stringify({ ...config, providers: [provider] }));
  write({ ...PROVIDER, ...extra });
  const clock = new VirtualClock();
  const state = { token: 'one' };
  const providers = new CredentialProviders({
    providers: await readCredentialProviders({ config: join(folder, 'config.json'), binDir: folder }),
    binDir: folder,
    accounts: {
      account: async (namespace, name) =>
        ({ metadata: { namespace, name, uid: `u-${name}`, annotations: { a: '1' } } }) as never,
      token: async () => state.token,
    },
    clock,
    log: createLogger('test', { level: 'error' }),
  });
  const ask = (repository: string, serviceAccountName?: string) =>
    providers.credentials(
      { metadata: { name: 'p', namespace: 'n' }, spec: { containers: [], serviceAccountName } } as unknown as Pod,
      repository,
    );
  const asked = () => {
    try {
      return readFileSync(join(folder, 'asked'), 'utf8').trim().split('\n').length;
    } catch {
      return 0;
    }
  };
  return { folder, write, clock, state, ask, asked };
}
const answer = (fields: object) =>
  `echo '${JSON.stringify({
    kind: 'CredentialProviderResponse',
    apiVersion: PROVIDER.apiVersion,
    auth: { '*.example': { username: 'u', password: 'p' } },
    ...fields,
  })}'`;

test('what a plug-in says is kept for the image, its registry or all, as long as it says', async () => {
  for (const [cacheKeyType, afterOther, afterForeign] of [
    ['Image', 2, 3],
    ['Registry', 1, 2],
    ['Global', 1, 1],
  ] as const) {
    const { ask, asked, clock } = await bed(answer({ cacheKeyType }));
    assert.deepEqual(await ask('r.example/a'), [{ username: 'u', password: 'p' }]);
    await ask('r.example/a');
    assert.equal(asked(), 1, cacheKeyType);
    await ask('r.example/b');
    assert.equal(asked(), afterOther, cacheKeyType);
    await ask('s.example/b');
    assert.equal(asked(), afterForeign, cacheKeyType);
    await clock.advance(600_001);
    await ask('r.example/a');
    assert.equal(asked(), afterForeign + 1, cacheKeyType);
    assert.deepEqual(await ask('r.other/a'), []);
    assert.equal(asked(), afterForeign + 1, 'an image that no pattern names');
  }
  const never = await bed(answer({ cacheKeyType: 'Global', cacheDuration: '0s' }));
  await never.ask('r.example/a');
  await never.ask('r.example/a');
  assert.equal(never.asked(), 2);
  // At once: one program.
  const together = await bed(answer({ cacheKeyType: 'Image' }));
  await Promise.all([together.ask('r.example/a'), together.ask('r.example/a')]);
  assert.equal(together.asked(), 1);
});

test('accounts share nothing, and tokens only where the cache is of the account', async () => {
  const token = { serviceAccountTokenAudience: 'x', requireServiceAccount: true };
  for (const [cacheType, afterToken] of [
    ['ServiceAccount', 1],
    ['Token', 2],
  ] as const) {
    const { ask, asked, state } = await bed(answer({ cacheKeyType: 'Global' }), {
      tokenAttributes: { ...token, cacheType },
    });
    assert.deepEqual(await ask('r.example/a'), [], 'a pod without an account');
    const [credential] = await ask('r.example/a', 'one');
    assert.deepEqual(credential!.serviceAccount, { uid: 'u-one', namespace: 'n', name: 'one' });
    state.token = 'two';
    await ask('r.example/a', 'one');
    assert.equal(asked(), afterToken, cacheType);
    await ask('r.example/a', 'two');
    assert.equal(asked(), afterToken + 1, cacheType);
  }
  const optional = await bed(answer({ cacheKeyType: 'Global' }), {
    tokenAttributes: { ...token, requireServiceAccount: false, cacheType: 'Token' },
  });
  assert.equal((await optional.ask('r.example/a')).length, 1);
  const annotated = await bed(answer({ cacheKeyType: 'Global' }), {
    tokenAttributes: { ...token, cacheType: 'Token', requiredServiceAccountAnnotationKeys: ['b'] },
  });
  assert.deepEqual(await annotated.ask('r.example/a', 'one'), []);
  assert.equal(annotated.asked(), 0);
});

test('a plug-in that fails or answers wrongly brings nothing', async () => {
  for (const response of [
    'exit 1',
    'echo nonsense',
    answer({ cacheKeyType: 'Sometimes' }),
    answer({ cacheKeyType: 'Image', apiVersion: 'credentialprovider.kubelet.k8s.io/v1beta1' }),
    answer({ cacheKeyType: 'Image', kind: 'Other' }),
    answer({ cacheKeyType: 'Image', auth: { 'elsewhere.example': { username: 'u', password: 'p' } } }),
  ]) {
    const { ask, asked } = await bed(response);
    assert.deepEqual(await ask('r.example/a'), [], response);
    assert.equal(asked(), 1);
  }
});

test('the configuration is told by the hash of its files, each with its length before it', async () => {
  const { folder } = await bed('');
  const text = readFileSync(join(folder, 'config.json'));
  const length = Buffer.from([0, 0, 0, 0, 0, 0, text.length >> 8, text.length & 255]);
  const hash = createHash('sha256').update(length).update(text).digest('hex');
  const told = metrics.render().match(/^kubelet_credential_provider_config_info.*/gm);
  assert.deepEqual(told, [`kubelet_credential_provider_config_info{hash="sha256:${hash}"} 1`]);
});

test('mistakes of a configuration are refused with their place', async () => {
  const { folder, write } = await bed('');
  const read = () => readCredentialProviders({ config: join(folder, 'config.json'), binDir: folder });
  const token = { serviceAccountTokenAudience: 'x', requireServiceAccount: true, cacheType: 'Token' };
  for (const [extra, why] of [
    [{ name: 'a/b' }, /providers\[0\]\.name: Invalid value/],
    [{ name: 'absent' }, /absent cannot be run/],
    [{ matchImages: [] }, /matchImages: Required value/],
    [{ matchImages: ['https://x'] }, /matchImages: Invalid value/],
    [{ defaultCacheDuration: undefined }, /defaultCacheDuration: Required value/],
    [{ defaultCacheDuration: '-1s' }, /defaultCacheDuration: Invalid value/],
    [{ apiVersion: 'v1' }, /apiVersion: Unsupported value/],
    [{ shell: true }, /shell: unknown field/],
    [{ tokenAttributes: { ...token, cacheType: 'Pod' } }, /tokenAttributes\.cacheType: Unsupported value/],
    [{ tokenAttributes: { ...token, serviceAccountTokenAudience: '' } }, /serviceAccountTokenAudience: Required value/],
    [
      {
        tokenAttributes: {
          ...token,
          requiredServiceAccountAnnotationKeys: ['a'],
          optionalServiceAccountAnnotationKeys: ['a'],
        },
      },
      /cannot be both required and optional/,
    ],
    [
      { tokenAttributes: { ...token, requireServiceAccount: false, requiredServiceAccountAnnotationKeys: ['a'] } },
      /requiredServiceAccountAnnotationKeys: Forbidden/,
    ],
  ] as const) {
    write({ ...PROVIDER, ...extra });
    await assert.rejects(read(), why);
  }
  // A folder: all of its files, each name once.
  write(PROVIDER);
  write(PROVIDER, 'second.yaml');
  await assert.rejects(readCredentialProviders({ config: folder, binDir: folder }), /duplicate provider name "p"/);
});

test('patterns of images, and durations', () => {
  for (const [pattern, repository, is] of [
    ['*.example', 'r.example/a', true],
    ['*.example', 'a.r.example/a', false],
    ['r*.example:5000/team', 'r1.example:5000/team/a', true],
    ['r.example', 'r.example:5000/team/a', false],
    ['r.example/team', 'r.example/other', false],
    ['docker.io', 'docker.io/library/nginx', true],
  ] as const)
    assert.equal(matchesLocation(pattern, repository), is, `${pattern} ${repository}`);
  assert.deepEqual(['0', '0s', '1h30m', '1.5s', 'x', '-1s'].map(durationMs), [
    0,
    0,
    5_400_000,
    1500,
    undefined,
    undefined,
  ]);
});
