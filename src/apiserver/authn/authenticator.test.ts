import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import type { KubeObject } from '../../api/meta.ts';
import { VirtualClock } from '../../base/clock.ts';
import { ApiError } from '../../base/errors.ts';
import { seededRandom } from '../../base/random.ts';
import { PODS, SECRETS, SERVICE_ACCOUNTS } from '../../client/resources.ts';
import { defaultServiceAccounts } from '../configuration/service-account-settings.ts';
import { FakeReader } from '../fake-reader.ts';
import { forApiServer, RequestAuthenticator } from './authenticator.ts';
import { BootstrapTokens } from './bootstrap-tokens.ts';
import { ServiceAccountTokens } from './service-account-tokens.ts';
import { TokenUnion } from './token-authenticator.ts';
import { LocalKeys } from './token-keys.ts';

const ISSUER = 'https://kubernetes.default.svc.cluster.local';

function setup() {
  const reader = new FakeReader();
  const clock = new VirtualClock();
  const tokens = new ServiceAccountTokens({
    keys: new LocalKeys(generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey),
    settings: defaultServiceAccounts(ISSUER),
    reader: () => reader,
    clock,
    random: seededRandom(1),
  });
  const bootstrap = forApiServer(new BootstrapTokens({ reader: () => reader, clock }), [ISSUER]);
  const authenticator = new RequestAuthenticator({
    tokens: new TokenUnion([tokens, bootstrap]),
    audiences: [ISSUER],
  });
  const account = reader.put(SERVICE_ACCOUNTS, {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name: 'sa', namespace: 'ns' },
  });
  const bearer = (token: string, more = {}) => ({ headers: { authorization: `Bearer ${token}`, ...more } });
  return { reader, clock, tokens, authenticator, account, bearer };
}

const unauthorized = (error: unknown) => error instanceof ApiError && error.code === 401;

test('certificates, anonymous, and garbage', async () => {
  const { authenticator, bearer } = setup();
  const certificate = { commonName: 'jane', organizations: ['dev'], serial: '1' };
  const user = await authenticator.authenticate({ headers: {}, certificate });
  assert.deepEqual(user, { name: 'jane', groups: ['dev', 'system:authenticated'] });
  assert.equal(await authenticator.authenticate({ headers: {}, certificate }), user);
  const withUid = await authenticator.authenticate({ headers: {}, certificate: { ...certificate, uids: ['7'] } });
  assert.equal(withUid.uid, '7');
  assert.throws(
    () => authenticator.authenticate({ headers: {}, certificate: { ...certificate, uids: ['7', '8'] } }),
    unauthorized,
  );
  assert.deepEqual(await authenticator.authenticate({ headers: {} }), {
    name: 'system:anonymous',
    groups: ['system:unauthenticated'],
  });
  for (const token of ['x', 'a.b.c', 'abcdef.0123456789abcdef'])
    assert.throws(() => authenticator.authenticate(bearer(token)), unauthorized);
});

test('a service account token lives as long as its account, its pod and its time', async () => {
  const { reader, clock, tokens, authenticator, account, bearer } = setup();
  const pod = reader.put(PODS, { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p', namespace: 'ns' } });
  const subject = {
    namespace: 'ns',
    serviceAccount: { name: 'sa', uid: account.metadata.uid! },
    audiences: [ISSUER],
    lifetimeSeconds: 3600,
    bound: { pod: { name: 'p', uid: pod.metadata.uid! } },
  };
  const token = await tokens.issue(subject);
  const user = await authenticator.authenticate(bearer(token));
  assert.equal(user.name, 'system:serviceaccount:ns:sa');
  assert.deepEqual(user.groups, ['system:serviceaccounts', 'system:serviceaccounts:ns', 'system:authenticated']);
  assert.deepEqual(user.extra!['authentication.kubernetes.io/pod-name'], ['p']);
  const tampered = token.split('.');
  tampered[1] = Buffer.from(
    JSON.stringify({ ...JSON.parse(Buffer.from(tampered[1]!, 'base64url').toString()), sub: 'x' }),
  ).toString('base64url');
  assert.throws(() => authenticator.authenticate(bearer(tampered.join('.'))), unauthorized);
  const elsewhere = await tokens.issue({ ...subject, audiences: ['other'] });
  assert.throws(() => authenticator.authenticate(bearer(elsewhere)), unauthorized);
  reader.remove(PODS, 'ns', 'p');
  assert.throws(() => authenticator.authenticate(bearer(token)), unauthorized);
  reader.put(PODS, { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'p', namespace: 'ns', uid: 'another' } });
  assert.throws(() => authenticator.authenticate(bearer(token)), unauthorized);
  const free = await tokens.issue({ ...subject, bound: {} });
  await authenticator.authenticate(bearer(free));
  await clock.advance(3601_000);
  assert.throws(() => authenticator.authenticate(bearer(free)), unauthorized);
});

test('a bootstrap token', async () => {
  const { reader, authenticator, bearer } = setup();
  const data = Object.fromEntries(
    Object.entries({
      'token-id': 'abcdef',
      'token-secret': '0123456789abcdef',
      'usage-bootstrap-authentication': 'true',
      'auth-extra-groups': 'system:bootstrappers:cox',
    }).map(([k, v]) => [k, Buffer.from(v).toString('base64')]),
  );
  reader.put(SECRETS, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'bootstrap-token-abcdef', namespace: 'kube-system' },
    type: 'bootstrap.kubernetes.io/token',
    data,
  } as never);
  assert.deepEqual(await authenticator.authenticate(bearer('abcdef.0123456789abcdef')), {
    name: 'system:bootstrap:abcdef',
    groups: ['system:bootstrappers', 'system:bootstrappers:cox', 'system:authenticated'],
  });
  assert.throws(() => authenticator.authenticate(bearer('abcdef.0123456789abcdee')), unauthorized);
});

test('the audit log hears of tokens that are older than they should be, and of those of Secrets', async () => {
  const { reader, clock, tokens, authenticator, account, bearer } = setup();
  const serviceAccount = { name: 'sa', uid: account.metadata.uid! };
  let warnings: string[] = [];
  const notesOf = async (token: string) => {
    const notes: (readonly [string, string])[] = [];
    warnings = [];
    const warn = (message: string) => void warnings.push(message);
    await authenticator.authenticate({ ...bearer(token), note: note => void notes.push(note), warn });
    return notes;
  };
  const subject = { namespace: 'ns', serviceAccount, audiences: [ISSUER], lifetimeSeconds: 7200 };
  const stale = await tokens.issue({ ...subject, warnAfterSeconds: 3600 });
  assert.deepEqual(await notesOf(stale), []);
  await clock.advance(3_700_000);
  const note = 'subject: system:serviceaccount:ns:sa, seconds after warning threshold: 100';
  assert.deepEqual(await notesOf(stale), [['authentication.k8s.io/stale-token', note]]);

  const legacy = await tokens.issueLegacy({ namespace: 'ns', secret: 'sa-token', serviceAccount });
  const metadata = { name: 'sa-token', namespace: 'ns' };
  reader.put(SECRETS, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata,
    data: { token: Buffer.from(legacy).toString('base64') },
  } as KubeObject);
  assert.deepEqual(await notesOf(legacy), [['authentication.k8s.io/legacy-token-manual-secret', 'sa-token']]);
  assert.deepEqual(warnings, []);
  reader.put(SERVICE_ACCOUNTS, { ...account, secrets: [{ name: 'sa-token' }] } as KubeObject);
  assert.deepEqual(await notesOf(legacy), [['authentication.k8s.io/legacy-token-autogenerated-secret', 'sa-token']]);
  assert.deepEqual(warnings, [
    'Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.',
  ]);
});
