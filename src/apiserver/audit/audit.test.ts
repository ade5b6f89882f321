import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { VirtualClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import { CONFIG_MAPS, NAMESPACES, PODS } from '../../client/resources.ts';
import type { RequestAttributes } from '../request.ts';
import { type Bed, eventually, kubeconfigOf, openBed, openWebhook, testFolder } from '../who-bed.ts';
import { LogSink } from './log-sink.ts';
import { PolicyEvaluator, parseAuditPolicy } from './policy.ts';
import type { AuditEvent } from './trail.ts';

// biome-ignore lint/suspicious/noExplicitAny: events of every shape
type Any = any;

const POLICY = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: [nobody-cares]
- level: Metadata
  resources:
  - group: ""
    resources: [secrets, serviceaccounts/token]
- level: RequestResponse
  namespaces: [audited]
  verbs: [create, patch, get, delete]
- level: Metadata
  nonResourceURLs: ["/version", "/openapi*"]
- level: Metadata
  verbs: [watch, list]
  users: [admin]
`;

test('the first rule that fits decides', async () => {
  const policy = new PolicyEvaluator(await parseAuditPolicy(POLICY));
  const base: RequestAttributes = {
    user: { name: 'jane', groups: ['dev'] },
    verb: 'get',
    isResource: true,
    group: '',
    version: 'v1',
    resource: 'pods',
    subresource: '',
    namespace: 'audited',
    name: 'x',
    path: '',
  };
  const level = (more: Partial<RequestAttributes>) => policy.recording({ ...base, ...more })?.level;
  assert.equal(level({}), 'RequestResponse');
  assert.equal(level({ user: { name: 'nobody-cares', groups: [] } }), undefined);
  assert.equal(level({ resource: 'secrets' }), 'Metadata');
  assert.equal(level({ resource: 'serviceaccounts' }), 'RequestResponse');
  assert.equal(level({ resource: 'serviceaccounts', subresource: 'token', verb: 'create' }), 'Metadata');
  assert.equal(level({ group: 'x', resource: 'secrets', namespace: 'y' }), undefined);
  assert.equal(level({ isResource: false, path: '/openapi/v3', resource: '' }), 'Metadata');
  assert.equal(level({ isResource: false, path: '/healthz', resource: '' }), undefined);
  const anyGroup = new PolicyEvaluator(
    await parseAuditPolicy(
      '{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata, resources: [{group: "*", resources: [things]}]}]}',
    ),
  );
  assert.equal(anyGroup.recording({ ...base, group: 'acme.io', resource: 'things' })?.level, 'Metadata');
  assert.equal(anyGroup.recording({ ...base, group: 'acme.io' }), undefined);
  await assert.rejects(parseAuditPolicy('{apiVersion: audit.k8s.io/v1, kind: Policy, rules: []}'), /at least one rule/);
  await assert.rejects(
    parseAuditPolicy('{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Loud, verb: [get]}]}'),
    /rules\[0\]\.verb: unknown field; known here: level, users/,
  );
  await assert.rejects(
    parseAuditPolicy('{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Loud}]}'),
    /rules\[0\]\.level: Unsupported value: "Loud"/,
  );
});

test('the log is turned over by size, and old files go', async () => {
  const folder = testFolder();
  const clock = new VirtualClock();
  const sink = new LogSink({
    path: `${folder.path}/audit.log`,
    format: 'json',
    bytesMax: 1000,
    backupsMax: 2,
    ageDaysMax: 0,
    clock,
    log: silentLogger,
  });
  const event = (at: number) => ({ auditID: String(at), stage: 'ResponseComplete', x: 'x'.repeat(200) }) as AuditEvent;
  for (let at = 0; at < 40; at++) {
    await clock.advance(10);
    sink.record(event(at));
  }
  await sink.close();
  const files = readdirSync(folder.path).sort();
  assert.equal(files.length, 3);
  assert.equal(files[2], 'audit.log');
  const lines = files.flatMap(name => {
    const text = readFileSync(`${folder.path}/${name}`, 'utf8');
    assert.ok(text.length <= 1000 && text.endsWith('\n'));
    return text.trim().split('\n');
  });
  const ids = lines.map(line => Number(JSON.parse(line).auditID));
  assert.deepEqual(
    ids,
    Array.from({ length: ids.length }, (_, at) => 40 - ids.length + at),
  );
  folder.remove();
});

let bed: Bed;
let hook: Awaited<ReturnType<typeof openWebhook>>;
before(async () => {
  bed = await openBed(async ({ file, pki }) => {
    hook = await openWebhook(pki, () => ({}));
    return [
      `audit-policy-file=${file('policy.yaml', POLICY)}`,
      `audit-log-path=${file('audit.log', '')}`,
      `audit-webhook-config-file=${file('hook', kubeconfigOf(pki, hook.url))}`,
      'audit-webhook-batch-max-wait=50ms',
    ];
  });
  await bed.root.create({ of: NAMESPACES }, {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'audited', labels: { 'pod-security.kubernetes.io/audit': 'baseline' } },
  } as never);
});
after(async () => {
  await bed?.close();
  await hook?.close();
});

const logged = (): Any[] =>
  readFileSync(`${bed.folder}/audit.log`, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map(line => JSON.parse(line));
/** The one event of the reply. */
const eventOf = (reply: { headers: Readonly<Record<string, unknown>> }): Promise<Any> =>
  eventually(() => {
    const found = logged().filter(event => event.auditID === reply.headers['audit-id']);
    assert.equal(found.length, 1);
    return found[0];
  });

const CONFIG_MAPS_PATH = '/api/v1/namespaces/audited/configmaps';

test('who did what with which outcome', async () => {
  const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a' }, data: { k: 'v' } };
  const event = await eventOf(
    await bed.ask({
      path: `${CONFIG_MAPS_PATH}?fieldManager=me`,
      as: bed.admin,
      body: object,
      headers: { 'user-agent': 'test/1' },
    }),
  );
  assert.deepEqual(
    [event.kind, event.apiVersion, event.level, event.stage, event.verb, event.requestURI, event.userAgent],
    [
      'Event',
      'audit.k8s.io/v1',
      'RequestResponse',
      'ResponseComplete',
      'create',
      `${CONFIG_MAPS_PATH}?fieldManager=me`,
      'test/1',
    ],
  );
  assert.equal(event.user.username, 'admin');
  assert.deepEqual(event.sourceIPs, ['127.0.0.1']);
  assert.deepEqual(event.objectRef, { resource: 'configmaps', namespace: 'audited', name: 'a', apiVersion: 'v1' });
  assert.deepEqual(event.responseStatus, { metadata: {}, code: 201 });
  assert.deepEqual(event.requestObject.data, { k: 'v' });
  assert.deepEqual(event.responseObject.data, { k: 'v' });
  assert.equal(event.responseObject.metadata.managedFields, undefined);
  assert.equal(event.annotations['authorization.k8s.io/decision'], 'allow');
  assert.match(event.requestReceivedTimestamp, /^\d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}Z$/);
});

test('refusals, impersonation, and what a policy leaves out', async () => {
  const refused = await eventOf(
    await bed.ask({ path: `${CONFIG_MAPS_PATH}/a`, as: bed.admin, headers: { 'impersonate-user': 'bob' } }),
  );
  assert.equal(refused.user.username, 'admin');
  assert.deepEqual(refused.impersonatedUser, { username: 'bob', groups: ['system:authenticated'] });
  assert.equal(refused.annotations['authorization.k8s.io/decision'], 'forbid');
  assert.deepEqual([refused.responseStatus.code, refused.responseStatus.reason], [403, 'Forbidden']);
  const unknown = await eventOf(await bed.ask({ path: `${CONFIG_MAPS_PATH}/a`, token: 'nobody' }));
  assert.deepEqual([unknown.responseStatus.code, unknown.user], [401, {}]);
  const secret = await eventOf(
    await bed.ask({
      path: '/api/v1/namespaces/audited/secrets',
      as: bed.admin,
      body: { apiVersion: 'v1', kind: 'Secret', metadata: { name: 's' }, stringData: { p: 'hunter2' } },
    }),
  );
  assert.equal(secret.level, 'Metadata');
  assert.ok(!JSON.stringify(secret).includes('hunter2') && secret.requestObject === undefined);
  const unrecorded = (await bed.ask({ path: '/healthz' })).headers['audit-id'];
  assert.match(String(unrecorded), /^[0-9a-f-]{36}$/);
  assert.ok(!logged().some(event => event.auditID === unrecorded));
  const old = await eventOf(await bed.ask({ path: '/api/v1/namespaces/audited/endpoints/none', as: bed.admin }));
  assert.equal(old.annotations['k8s.io/deprecated'], 'true');
  const account = '/api/v1/namespaces/audited/serviceaccounts';
  const named = (kind: string, name: string) => ({ apiVersion: 'v1', kind, metadata: { name } });
  await bed.ask({ path: account, as: bed.admin, body: named('ServiceAccount', 'robot') });
  const { json } = await bed.ask({
    path: `${account}/robot/token`,
    as: bed.admin,
    body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: {} },
  });
  const robot = await eventOf(await bed.ask({ path: '/version', token: json.status.token }));
  assert.equal(robot.user.username, 'system:serviceaccount:audited:robot');
  const given = await bed.ask({ path: '/version', headers: { 'audit-id': 'a'.repeat(70) } });
  assert.equal(given.headers['audit-id'], 'a'.repeat(70));
  assert.equal((await eventOf(await bed.ask({ path: '/version' }))).user.username, 'system:anonymous');
});

test('admission annotates: PodSecurity, and the Audit action and audit annotations of policies', async () => {
  const group = { group: 'admissionregistration.k8s.io', version: 'v1' };
  const apiVersion = 'admissionregistration.k8s.io/v1';
  await bed.root.create({ of: { ...group, resource: 'validatingadmissionpolicies' } }, {
    apiVersion,
    kind: 'ValidatingAdmissionPolicy',
    metadata: { name: 'labelled' },
    spec: {
      matchConstraints: {
        resourceRules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
      },
      validations: [{ expression: 'true' }, { expression: 'has(object.metadata.labels)', message: 'no labels' }],
      auditAnnotations: [{ key: 'name', valueExpression: "'pod ' + object.metadata.name" }],
    },
  } as never);
  await bed.root.create({ of: { ...group, resource: 'validatingadmissionpolicybindings' } }, {
    apiVersion,
    kind: 'ValidatingAdmissionPolicyBinding',
    metadata: { name: 'everywhere' },
    spec: { policyName: 'labelled', validationActions: ['Audit'] },
  } as never);
  await bed.root.create({ of: { group: '', version: 'v1', resource: 'serviceaccounts' }, namespace: 'audited' }, {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name: 'default' },
  } as never);
  const made = await eventOf(
    await bed.ask({
      path: '/api/v1/namespaces/audited/pods',
      as: bed.admin,
      body: {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'p' },
        spec: { hostNetwork: true, containers: [{ name: 'c', image: 'i' }] },
      },
    }),
  );
  assert.equal(made.responseStatus.code, 201);
  assert.equal(made.annotations['pod-security.kubernetes.io/enforce-policy'], 'privileged:latest');
  assert.match(
    made.annotations['pod-security.kubernetes.io/audit-violations'],
    /^would violate PodSecurity "baseline:latest": host namespaces \(hostNetwork=true\)/,
  );
  assert.equal(made.annotations['labelled/name'], 'pod p');
  assert.deepEqual(JSON.parse(made.annotations['validation.policy.admission.k8s.io/validation_failure']), [
    {
      message: 'no labels',
      policy: 'labelled',
      binding: 'everywhere',
      expressionIndex: 1,
      validationActions: ['Audit'],
    },
  ]);
});

test('what webhooks changed is noted, the patch only where bodies are, and which ones failed', async t => {
  const patch = [{ op: 'add', path: '/metadata/labels', value: { by: 'hook' } }];
  const changing = await openWebhook(bed.pki, (path, { request }) => {
    if (path.startsWith('/gone')) return undefined;
    const change = { patchType: 'JSONPatch', patch: Buffer.from(JSON.stringify(patch)).toString('base64') };
    const response = { uid: request.uid, allowed: true, ...(path.startsWith('/change') ? change : {}) };
    return { kind: 'AdmissionReview', apiVersion: 'admission.k8s.io/v1', response };
  });
  t.after(() => changing.close());
  const of = { group: 'admissionregistration.k8s.io', version: 'v1', resource: 'mutatingwebhookconfigurations' };
  const webhook = (name: string) => ({
    name: `${name}.example.dev`,
    clientConfig: { url: `${changing.url}/${name}`, caBundle: Buffer.from(bed.pki.ca).toString('base64') },
    rules: [{ operations: ['CREATE'], apiGroups: [''], apiVersions: ['v1'], resources: ['configmaps', 'secrets'] }],
    namespaceSelector: { matchLabels: { 'pod-security.kubernetes.io/audit': 'baseline' } },
    failurePolicy: 'Ignore',
    sideEffects: 'None',
    admissionReviewVersions: ['v1'],
  });
  await bed.root.create({ of }, {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'MutatingWebhookConfiguration',
    metadata: { name: 'hooks' },
    webhooks: ['gone', 'nothing', 'change'].map(webhook),
  } as never);
  const made = async (kind: string, path: string) =>
    (
      await eventOf(
        await bed.ask({ path, as: bed.admin, body: { apiVersion: 'v1', kind, metadata: { name: 'hooked' } } }),
      )
    ).annotations;
  const noted = await made('ConfigMap', CONFIG_MAPS_PATH);
  const about = (webhook: string) => ({ configuration: 'hooks', webhook: `${webhook}.example.dev` });
  const at = (index: number) => `webhook.admission.k8s.io/round_0_index_${index}`;
  assert.equal(noted[`failed-open.mutating.${at(0)}`], 'gone.example.dev');
  assert.deepEqual(JSON.parse(noted[`mutation.${at(1)}`]), { ...about('nothing'), mutated: false });
  assert.deepEqual(JSON.parse(noted[`mutation.${at(2)}`]), { ...about('change'), mutated: true });
  assert.deepEqual(JSON.parse(noted[`patch.${at(2)}`]), { ...about('change'), patch, patchType: 'JSONPatch' });
  const secret = await made('Secret', '/api/v1/namespaces/audited/secrets');
  assert.ok(secret[`mutation.${at(2)}`]);
  assert.equal(secret[`patch.${at(2)}`], undefined);
  await bed.root.delete({ of, name: 'hooks' });
});

test('a watch begins and ends; controllers are recorded too; the webhook gets the same events', async () => {
  const watched = await bed.ask({ path: '/api/v1/configmaps?watch=true&timeoutSeconds=1', as: bed.admin });
  const stages = await eventually(() => {
    const found = logged().filter(event => event.auditID === watched.headers['audit-id']);
    assert.equal(found.length, 2);
    return found.map(event => event.stage);
  });
  assert.deepEqual(stages, ['ResponseStarted', 'ResponseComplete']);
  const controller = bed.server.transport({ name: 'some-controller', groups: [] }, 'kcm');
  await assert.rejects(controller.get({ of: CONFIG_MAPS, namespace: 'audited', name: 'a' }), /forbidden/);
  await bed.root.delete({ of: PODS, namespace: 'audited', name: 'p' }, { gracePeriodSeconds: 0 });
  await eventually(() => {
    const own = logged().filter(({ userAgent }) => userAgent === 'kcm');
    assert.deepEqual([own.length, own[0]?.responseStatus.code], [1, 403]);
    assert.ok(logged().some(({ verb, user }) => verb === 'delete' && user.username === 'system:apiserver'));
  });
  await eventually(() => {
    const sent = hook.seen.flatMap(({ body }) => {
      assert.deepEqual([body.kind, body.apiVersion], ['EventList', 'audit.k8s.io/v1']);
      return body.items as Any[];
    });
    assert.deepEqual(
      sent.map(({ auditID, stage }) => `${auditID} ${stage}`),
      logged().map(({ auditID, stage }) => `${auditID} ${stage}`),
    );
  });
});

test('of slow requests it is told where the time went', async t => {
  const slow = await openWebhook(bed.pki, async (_, { request }) => {
    await new Promise(resolve => setTimeout(resolve, 600));
    const response = { uid: request.uid, allowed: true };
    return { kind: 'AdmissionReview', apiVersion: 'admission.k8s.io/v1', response };
  });
  t.after(() => slow.close());
  const of = { group: 'admissionregistration.k8s.io', version: 'v1', resource: 'validatingwebhookconfigurations' };
  await bed.root.create({ of }, {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'ValidatingWebhookConfiguration',
    metadata: { name: 'slow' },
    webhooks: ['a', 'b'].map(name => ({
      name: `${name}.example.dev`,
      clientConfig: { url: `${slow.url}/${name}`, caBundle: Buffer.from(bed.pki.ca).toString('base64') },
      rules: [{ operations: ['CREATE'], apiGroups: [''], apiVersions: ['v1'], resources: ['configmaps'] }],
      objectSelector: { matchLabels: { slow: 'yes' } },
      sideEffects: 'None',
      admissionReviewVersions: ['v1'],
    })),
  } as never);
  const told = async (name: string, labels: object) => {
    const reply = await bed.ask({ path: CONFIG_MAPS_PATH, as: bed.admin, body: { metadata: { name, labels } } });
    const { annotations } = await eventOf(reply);
    return Object.entries(annotations as Record<string, string>).filter(([key]) =>
      key.startsWith('apiserver.latency.k8s.io/'),
    );
  };
  assert.deepEqual(await told('quick', {}), []);
  const found = Object.fromEntries(await told('slow', { slow: 'yes' }));
  for (const layer of ['authentication', 'authorization', 'etcd', 'response-write', 'total', 'validating-webhook'])
    assert.match(found[`apiserver.latency.k8s.io/${layer}`] ?? '', /^[\d.]+(s|ms|µs)$/, layer);
  // Both are asked at once.
  assert.match(found['apiserver.latency.k8s.io/validating-webhook']!, /^[6-9]\d\d(\.\d+)?ms$/);
  await bed.root.delete({ of, name: 'slow' });
});
