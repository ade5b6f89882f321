import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { metrics } from '../../base/metrics.ts';
import { ensurePki } from '../certificates/pki.ts';
import { hashOf } from '../metrics/configuration-metrics.ts';
import { type Bed, eventually, kubeconfigOf, openBed, openProvider, openWebhook, type Reply } from '../who-bed.ts';

const WHO = { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' };
const REVIEW = '/apis/authentication.k8s.io/v1/selfsubjectreviews';

let bed: Bed;
let provider: Awaited<ReturnType<typeof openProvider>>;
let hook: Awaited<ReturnType<typeof openWebhook>>;
let configuration: (prefix: string) => object;

before(async () => {
  bed = await openBed(async ({ file, pki }) => {
    provider = await openProvider(pki);
    hook = await openWebhook(pki, (path, { spec }) => {
      if (path === '/token') {
        if (spec.token !== 'from-elsewhere') return { status: { authenticated: false, error: 'never heard of it' } };
        return { status: { authenticated: true, user: { username: 'wanda', groups: ['hooked'] } } };
      }
      const { user, resourceAttributes } = spec;
      if (resourceAttributes.name === 'breaks') return undefined;
      return { status: { allowed: user === 'wanda', denied: user === 'oidc:mallory', reason: 'says the webhook' } };
    });
    configuration = prefix => ({
      apiVersion: 'apiserver.config.k8s.io/v1',
      kind: 'AuthenticationConfiguration',
      anonymous: { enabled: true, conditions: [{ path: '/livez' }, { path: '/readyz' }] },
      jwt: [
        {
          issuer: {
            url: provider.url,
            certificateAuthority: pki.ca,
            audiences: ['cluster', 'other'],
            audienceMatchPolicy: 'MatchAny',
          },
          claimValidationRules: [
            { claim: 'tenant', requiredValue: 'acme' },
            { expression: 'claims.exp - claims.iat <= 7200', message: 'lives too long' },
          ],
          claimMappings: {
            username: { claim: 'sub', prefix },
            groups: { expression: 'claims.roles.map(r, "role:" + r)' },
            uid: { claim: 'oid' },
            extra: [{ key: 'acme.io/team', valueExpression: 'claims.?team.orValue("")' }],
          },
          userValidationRules: [{ expression: "!user.username.startsWith('system:')", message: 'reserved name' }],
        },
      ],
    });
    const authorization = {
      apiVersion: 'apiserver.config.k8s.io/v1',
      kind: 'AuthorizationConfiguration',
      authorizers: [
        {
          type: 'Webhook',
          name: 'hook',
          webhook: {
            timeout: '30s',
            subjectAccessReviewVersion: 'v1',
            matchConditionSubjectAccessReviewVersion: 'v1',
            failurePolicy: 'Deny',
            connectionInfo: {
              type: 'KubeConfigFile',
              kubeConfigFile: file('authz', kubeconfigOf(pki, `${hook.url}/authz`)),
            },
            matchConditions: [
              { expression: 'has(request.resourceAttributes)' },
              { expression: "request.resourceAttributes.resource == 'configmaps'" },
            ],
          },
        },
        { type: 'Node', name: 'node' },
        { type: 'RBAC', name: 'rbac' },
      ],
    };
    return [
      `authentication-config=${file('authentication.yaml', configuration('oidc:'))}`,
      `authorization-config=${file('authorization.yaml', authorization)}`,
      `authentication-token-webhook-config-file=${file('token', kubeconfigOf(pki, `${hook.url}/token`))}`,
      'authentication-token-webhook-version=v1',
      `token-auth-file=${file('tokens.csv', 'static-token,steve,7,"ops,dev"\n')}`,
    ];
  });
});
after(async () => {
  await bed?.close();
  await provider?.close();
  await hook?.close();
});

const CLAIMS = { sub: 'jane', tenant: 'acme', roles: ['dev'], oid: '42', team: 'blue' };
const who = (asked: { token?: string; headers?: Record<string, string> }): Promise<Reply> =>
  bed.ask({ path: REVIEW, body: WHO, ...asked });
const userOf = async (token: string) => {
  const { status, json } = await who({ token });
  assert.equal(status, 201, JSON.stringify(json));
  return json.status.userInfo;
};

test("a provider's token is a user by claim mappings", async () => {
  assert.deepEqual(await userOf(provider.token(CLAIMS)), {
    username: 'oidc:jane',
    uid: '42',
    groups: ['role:dev', 'system:authenticated'],
    extra: { 'acme.io/team': ['blue'] },
  });
  const { team: _, ...teamless } = CLAIMS;
  assert.equal((await userOf(provider.token(teamless))).extra, undefined);
  const { extra } = await userOf(provider.token({ ...teamless, jti: 'one' }));
  assert.deepEqual(extra, { 'authentication.kubernetes.io/credential-id': ['JTI=one'] });
});

test('tokens that do not hold are refused, and a TokenReview says why', async () => {
  const nowS = Math.floor(Date.now() / 1000);
  const [head, body] = provider.token(CLAIMS).split('.');
  const bad: [string, RegExp][] = [
    [provider.token({ ...CLAIMS, aud: 'someone' }), /expected audience/],
    [provider.token({ ...CLAIMS, exp: nowS - 1 }), /expired/],
    [provider.token({ ...CLAIMS, nbf: nowS + 3600 }), /not before/],
    [provider.token({ ...CLAIMS, tenant: 'evil' }), /required claim tenant set to wrong value/],
    [provider.token({ ...CLAIMS, exp: nowS + 100_000 }), /lives too long/],
    [provider.token({ ...CLAIMS, sub: '' }), /username claims/],
    [`${head}.${body}.${provider.token({ sub: 'x' }).split('.')[2]}`, /signature/],
    [`${Buffer.from('{"alg":"none"}').toString('base64url')}.${body}.`, /not supported/],
    [`${Buffer.from('{"alg":"HS256","kid":"one"}').toString('base64url')}.${body}.AAAA`, /not supported/],
  ];
  for (const [token, why] of bad) {
    assert.equal((await who({ token })).status, 401, String(why));
    const { json } = await bed.ask({
      path: '/apis/authentication.k8s.io/v1/tokenreviews',
      as: bed.admin,
      body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token } },
    });
    assert.ok(!json.status.authenticated);
    assert.match(json.status.error, why);
  }
});

test("the issuer's keys are told by the hash of their set", async () => {
  await userOf(provider.token(CLAIMS));
  const page = metrics.render();
  const issuer = `jwt_issuer_hash="${hashOf(provider.url)}"`;
  const name = 'apiserver_authentication_jwt_authenticator_jwks_fetch';
  assert.match(
    page,
    new RegExp(`^${name}_last_key_set_info\\{${issuer},apiserver_id_hash="[^"]+",hash="sha256:[0-9a-f]{64}"} 1$`, 'm'),
  );
  assert.match(
    page,
    new RegExp(`^${name}_last_timestamp_seconds\\{result="success",${issuer},apiserver_id_hash="[^"]+"} 1\\d{9}`, 'm'),
  );
  for (const kind of ['authentication', 'authorization'])
    assert.match(page, new RegExp(`^apiserver_${kind}_config_controller_last_config_info\\{.*} 1$`, 'm'));
});

test('a key that the issuer began to use is found', async () => {
  provider.addKey('two', 'ES256');
  // Keys are fetched at most once a second.
  await eventually(async () => assert.equal((await userOf(provider.token(CLAIMS, 'two'))).username, 'oidc:jane'));
});

test('anonymous users are let in where the conditions say', async () => {
  assert.equal((await bed.ask({ path: '/livez?verbose' })).status, 200);
  assert.equal((await bed.ask({ path: '/version' })).status, 401);
});

test('static tokens, and tokens that a webhook knows', async () => {
  assert.deepEqual(await userOf('static-token'), {
    username: 'steve',
    uid: '7',
    groups: ['ops', 'dev', 'system:authenticated'],
  });
  assert.deepEqual(await userOf('from-elsewhere'), { username: 'wanda', groups: ['hooked', 'system:authenticated'] });
  const asked = hook.seen.filter(({ path }) => path === '/token').length;
  assert.equal((await userOf('from-elsewhere')).username, 'wanda');
  assert.equal(hook.seen.filter(({ path }) => path === '/token').length, asked, 'the answer was not remembered');
  assert.equal((await who({ token: 'unheard-of' })).status, 401);
  const review = hook.seen.find(({ path }) => path === '/token')!.body;
  assert.equal(review.apiVersion, 'authentication.k8s.io/v1');
  assert.ok(review.spec.audiences.length > 0);
});

test('a webhook allows, denies or has no opinion; its conditions keep other requests from it', async () => {
  const configMaps = '/api/v1/namespaces/default/configmaps';
  assert.equal((await bed.ask({ path: configMaps, token: 'from-elsewhere' })).status, 200);
  const denied = await bed.ask({ path: configMaps, token: provider.token({ ...CLAIMS, sub: 'mallory' }) });
  assert.deepEqual(
    [denied.status, denied.json.message],
    [
      403,
      'configmaps is forbidden: User "oidc:mallory" cannot list resource "configmaps" in API group "" in the namespace "default": says the webhook',
    ],
  );
  const token = provider.token(CLAIMS);
  assert.equal((await bed.ask({ path: configMaps, token })).status, 403);
  assert.equal((await bed.ask({ path: '/api/v1/namespaces/default/pods', token: 'from-elsewhere' })).status, 403);
  assert.ok(
    hook.seen.every(({ path, body }) => path !== '/authz' || body.spec.resourceAttributes.resource === 'configmaps'),
  );
  // Failure policy Deny: what the webhook cannot judge is refused, although RBAC has not been asked.
  await bed.root.create(
    { of: { group: 'rbac.authorization.k8s.io', version: 'v1', resource: 'clusterrolebindings' } },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: 'jane' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'oidc:jane' }],
    } as never,
  );
  assert.equal((await bed.ask({ path: configMaps, token })).status, 200);
  assert.equal((await bed.ask({ path: `${configMaps}/breaks`, token })).status, 403);
});

test('a front proxy speaks for its users; nobody else does, and it is no user itself', async () => {
  const headers = { 'x-remote-user': 'paula', 'x-remote-group': 'a', 'x-remote-extra-acme.io%2fteam': 'red' };
  const { client } = await bed.pki.ensureFrontProxy();
  const proxied = await bed.ask({ path: REVIEW, body: WHO, as: client, headers });
  assert.deepEqual(proxied.json.status.userInfo, {
    username: 'paula',
    groups: ['a', 'system:authenticated'],
    extra: { 'acme.io/team': ['red'] },
  });
  assert.equal((await bed.ask({ path: REVIEW, body: WHO, as: client })).status, 401);
  const jane = bed.pki.issueClient({ commonName: 'front-proxy-client' });
  const own = await bed.ask({ path: REVIEW, body: WHO, as: jane, headers });
  assert.equal(own.json.status.userInfo.username, 'front-proxy-client');
  assert.match(
    own.json.status.userInfo.extra['authentication.kubernetes.io/credential-id'][0],
    /^X509SHA256=[0-9a-f]{64}$/,
  );
  assert.equal((await who({ headers })).status, 401);
  const strangers = await ensurePki(`${bed.folder}/strangers`, { sans: [] });
  const stranger = strangers.issueClient({ commonName: 'x', organizations: ['system:masters'] });
  assert.equal((await bed.ask({ path: '/api/v1/namespaces', as: stranger })).status, 401);
});

test('a changed file is used once it is valid', async () => {
  bed.file('authentication.yaml', 'kind: nonsense');
  bed.file('authentication.yaml', configuration('sso:'));
  const token = provider.token({ ...CLAIMS, sub: 'later' });
  await eventually(async () => assert.equal((await userOf(token)).username, 'sso:later'));
});

test('expressions of policies hear what a webhook authorizer says', async t => {
  const kinds = ['MutatingAdmissionPolicy', 'ValidatingAdmissionPolicy'] as const;
  const of = (kind: string) => ({
    group: 'admissionregistration.k8s.io',
    version: 'v1',
    resource: kind.toLowerCase().replace(/y$/, 'ies').replace(/g$/, 'gs'),
  });
  const make = (kind: string, spec: object) =>
    bed.root.create({ of: of(kind) }, {
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind,
      metadata: { name: 'asks' },
      spec,
    } as never);
  t.after(async () => {
    for (const kind of kinds.flatMap(one => [`${one}Binding`, one]))
      await bed.root.delete({ of: of(kind), name: 'asks' });
  });
  const may = (verb: string) =>
    `authorizer.group('').resource('configmaps').namespace('default').name(object.metadata.name).check('${verb}')`;
  const matchConstraints = {
    resourceRules: [{ operations: ['CREATE'], apiGroups: [''], apiVersions: ['v1'], resources: ['configmaps'] }],
  };
  await make('MutatingAdmissionPolicy', {
    matchConstraints,
    reinvocationPolicy: 'Never',
    mutations: [
      {
        patchType: 'JSONPatch',
        jsonPatch: { expression: `[JSONPatch{op: 'add', path: '/data', value: {'why': ${may('get')}.reason()}}]` },
      },
    ],
  });
  await make('ValidatingAdmissionPolicy', {
    matchConstraints,
    matchConditions: [{ name: 'asked', expression: `${may('get')}.allowed() || object.metadata.name == 'breaks'` }],
    validations: [{ expression: `${may('delete')}.allowed()`, message: 'you could not delete it' }],
  });
  for (const kind of kinds)
    await make(`${kind}Binding`, {
      policyName: 'asks',
      ...(kind === 'ValidatingAdmissionPolicy' ? { validationActions: ['Deny'] } : {}),
    });
  const create = (name: string) =>
    bed.ask({
      path: '/api/v1/namespaces/default/configmaps?dryRun=All',
      token: 'from-elsewhere',
      body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name } },
    });
  const fine = await create('fine');
  assert.equal(fine.status, 201, JSON.stringify(fine.json));
  assert.equal(fine.json.data.why, 'says the webhook');
  const refused = await create('breaks');
  assert.equal(refused.status, 422);
  assert.match(refused.json.message, /you could not delete it$/);
});
