import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import * as https from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { KubeObject } from '../../api/meta.ts';
import { ApiError } from '../../base/errors.ts';
import { metrics } from '../../base/metrics.ts';
import { CONFIG_MAPS } from '../../client/resources.ts';
import type { Transport } from '../../client/transport.ts';
import { ensurePki, type Pki } from '../certificates/pki.ts';
import { openSecured } from '../security-bed.ts';
import type { ApiServer } from '../server.ts';

// biome-ignore lint/suspicious/noExplicitAny: tests look into objects freely
type Any = any;
type Answer = (review: Any) => object | number | 'hang';

let directory: string;
let pki: Pki;
let hooks: https.Server;
let port: number;
const answers = new Map<string, Answer>();
const calls: string[] = [];

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cox-webhooks-'));
  pki = await ensurePki(directory, { sans: [] });
  const { key, certificate } = pki.issueServer({ commonName: 'hooks' }, ['127.0.0.1']);
  hooks = https.createServer({ key, cert: certificate }, async (request, reply) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const review = JSON.parse(Buffer.concat(parts).toString()) as Any;
    const name = request.url!.slice(1);
    calls.push(name);
    const answer = answers.get(name)?.(review) ?? { allowed: true };
    if (answer === 'hang') return;
    if (typeof answer === 'number') {
      reply.writeHead(answer, answer === 302 ? { location: `https://127.0.0.1:${port}/other` } : {}).end('no');
      return;
    }
    reply.setHeader('content-type', 'application/json');
    reply.end(
      JSON.stringify({
        kind: 'AdmissionReview',
        apiVersion: 'admission.k8s.io/v1',
        response: { uid: review.request.uid, ...answer },
      }),
    );
  });
  await new Promise<void>(resolve => hooks.listen(0, '127.0.0.1', resolve));
  port = (hooks.address() as AddressInfo).port;
});
after(async () => {
  hooks.closeAllConnections();
  hooks.close();
  await rm(directory, { recursive: true, force: true });
});

/** A metric of admission. */
const told = (name: string, labels: string): string | undefined => {
  const line = `apiserver_admission_${name}{${labels}} `;
  const found = metrics
    .render()
    .split('\n')
    .find(one => one.startsWith(line));
  return found?.slice(line.length);
};

async function open(): Promise<{ server: ApiServer; api: Transport; warnings: string[] }> {
  const { server, root } = await openSecured({ pki });
  calls.length = 0;
  answers.clear();
  return { server, api: root, warnings: [] };
}

const registration = (resource: string) => ({
  of: { group: 'admissionregistration.k8s.io', version: 'v1', resource },
});
const webhook = (name: string, more: object = {}): object => ({
  name: `${name}.example.dev`,
  clientConfig: { url: `https://127.0.0.1:${port}/${name}`, caBundle: Buffer.from(pki.ca).toString('base64') },
  rules: [{ operations: ['*'], apiGroups: [''], apiVersions: ['v1'], resources: ['configmaps'] }],
  sideEffects: 'None',
  admissionReviewVersions: ['v1'],
  ...more,
});
const configure = (api: Transport, kind: 'Validating' | 'Mutating', ...webhooks: object[]) =>
  api.create(registration(`${kind.toLowerCase()}webhookconfigurations`), {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: `${kind}WebhookConfiguration`,
    metadata: { name: 'hooks' },
    webhooks,
  } as unknown as KubeObject);
const map = (name: string, data: Record<string, string> = {}, labels: Record<string, string> = {}): KubeObject =>
  ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, labels }, data }) as unknown as KubeObject;
const make = (api: Transport, object: KubeObject, dryRun = false) =>
  api.create({ of: CONFIG_MAPS, namespace: 'default' }, object, { dryRun }) as Promise<Any>;
const status = (code: number, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof ApiError, String(error));
  assert.match(error.message, message);
  assert.equal(error.code, code, error.message);
  return true;
};
const patch = (...operations: object[]) => ({
  allowed: true,
  patchType: 'JSONPatch',
  patch: Buffer.from(JSON.stringify(operations)).toString('base64'),
});

test('a validating webhook refuses in its own words', async () => {
  const { api, server } = await open();
  await configure(api, 'Validating', webhook('no'));
  answers.set('no', ({ request }) =>
    request.object?.data?.bad
      ? { allowed: false, status: { message: `no ${request.name}`, code: 403 } }
      : { allowed: true },
  );
  await make(api, map('good'));
  await assert.rejects(
    make(api, map('a', { bad: '1' })),
    status(403, /^admission webhook "no.example.dev" denied the request: no a$/),
  );
  await api.delete({ of: CONFIG_MAPS, namespace: 'default', name: 'good' });
  assert.equal(calls.length, 3);
  assert.equal(
    told(
      'webhook_request_total',
      'name="no.example.dev",type="validating",operation="CREATE",code="200",rejected="false"',
    ),
    '1',
  );
  assert.equal(
    told(
      'webhook_request_total',
      'name="no.example.dev",type="validating",operation="CREATE",code="403",rejected="true"',
    ),
    '1',
  );
  assert.equal(
    told(
      'webhook_rejection_count',
      'name="no.example.dev",type="validating",operation="CREATE",error_type="no_error",rejection_code="403"',
    ),
    '1',
  );
  const refused = 'type="validate",operation="CREATE",rejected="true"';
  assert.equal(
    told(
      'webhook_admission_duration_seconds_count',
      `name="no.example.dev",type="validating",operation="CREATE",rejected="true"`,
    ),
    '1',
  );
  assert.equal(
    told('controller_admission_duration_seconds_count', `name="ValidatingAdmissionWebhook",${refused}`),
    '1',
  );
  assert.equal(told('step_admission_duration_seconds_count', refused), '1');
  assert.ok(
    Number(
      told(
        'controller_admission_duration_seconds_count',
        'name="NamespaceLifecycle",type="admit",operation="CREATE",rejected="false"',
      ),
    ) > 0,
  );
  await server.close();
});

test('whoever scales is judged by the Scale, and a webhook may change it', async () => {
  const { api, server } = await open();
  const of = { group: 'apps', version: 'v1', resource: 'deployments' };
  const template = { metadata: { labels: { a: 'b' } }, spec: { containers: [{ name: 'c', image: 'i' }] } };
  await api.create({ of, namespace: 'default' }, {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'web' },
    spec: { replicas: 1, selector: { matchLabels: { a: 'b' } }, template },
  } as unknown as KubeObject);
  const rules = [
    { operations: ['UPDATE'], apiGroups: ['apps'], apiVersions: ['v1'], resources: ['deployments/scale'] },
  ];
  await configure(api, 'Mutating', webhook('half', { rules }), webhook('seen', { rules }));
  const reviews: Any[] = [];
  answers.set('half', ({ request }) =>
    patch({ op: 'replace', path: '/spec/replicas', value: request.object.spec.replicas / 2 }),
  );
  answers.set('seen', ({ request }) => ({ allowed: reviews.push(request) > 0 }));
  const scale = { of, namespace: 'default', name: 'web', subresource: 'scale' };
  const scaled = (await api.patch(scale, { spec: { replicas: 6 } }, 'application/merge-patch+json')) as Any;
  assert.deepEqual([scaled.kind, scaled.spec.replicas], ['Scale', 3]);
  assert.equal(((await api.get({ of, namespace: 'default', name: 'web' })) as Any).spec.replicas, 3);
  const [{ kind, resource, object, oldObject, name }] = reviews;
  assert.deepEqual(kind, { group: 'autoscaling', version: 'v1', kind: 'Scale' });
  assert.deepEqual([resource.resource, name, object.kind, oldObject.kind], ['deployments', 'web', 'Scale', 'Scale']);
  assert.deepEqual([object.spec.replicas, oldObject.spec.replicas], [3, 1]);
  await server.close();
});

test('mutating webhooks come one after another, and again for who asks', async () => {
  const { api, server } = await open();
  await configure(api, 'Mutating', webhook('first', { reinvocationPolicy: 'IfNeeded' }), webhook('second'));
  answers.set('first', ({ request }) =>
    patch({ op: 'add', path: '/data/first', value: String(Object.keys(request.object.data).length) }),
  );
  answers.set('second', () =>
    patch({ op: 'add', path: '/data/second', value: 'yes' }, { op: 'add', path: '/unknown', value: 1 }),
  );
  const made = await make(api, map('a', { x: '1' }));
  assert.deepEqual(made.data, { first: '3', second: 'yes', x: '1' });
  assert.equal(made.unknown, undefined);
  assert.deepEqual(calls, ['first', 'second', 'first']);
  await server.close();
});

test('failure policy, timeouts, redirects, side effects', async () => {
  const { api, server } = await open();
  await configure(
    api,
    'Validating',
    webhook('ignored', { failurePolicy: 'Ignore', timeoutSeconds: 1 }),
    webhook('strict', { objectSelector: { matchLabels: { strict: 'yes' } }, timeoutSeconds: 1, sideEffects: 'None' }),
  );
  answers.set('ignored', () => 500);
  answers.set('strict', () => 302);
  await make(api, map('a'));
  await assert.rejects(
    make(api, map('b', {}, { strict: 'yes' })),
    status(
      500,
      /failed calling webhook "strict.example.dev": failed to call webhook: Post .*redirects are not followed/,
    ),
  );
  assert.ok(!calls.includes('other'));
  assert.equal(told('webhook_fail_open_count', 'name="ignored.example.dev",type="validating"'), '2');
  assert.equal(
    told(
      'webhook_request_total',
      'name="ignored.example.dev",type="validating",operation="CREATE",code="500",rejected="false"',
    ),
    '2',
  );
  assert.equal(
    told(
      'webhook_rejection_count',
      'name="strict.example.dev",type="validating",operation="CREATE",error_type="calling_webhook_error",rejection_code="503"',
    ),
    '1',
  );
  answers.set('strict', () => 'hang');
  await assert.rejects(make(api, map('b', {}, { strict: 'yes' })), status(500, /context deadline exceeded/));
  await server.close();
});

test('a patch that cannot be read is a failure of the webhook, one that does not fit is not', async () => {
  const { api, server } = await open();
  await configure(api, 'Mutating', webhook('lax', { failurePolicy: 'Ignore' }), webhook('strict'));
  const garbage = { allowed: true, patchType: 'JSONPatch', patch: Buffer.from('{"op":1}').toString('base64') };
  answers.set('lax', () => garbage);
  answers.set('strict', () => ({ allowed: true }));
  await make(api, map('a'));
  answers.set('strict', () => garbage);
  await assert.rejects(
    make(api, map('b')),
    status(500, /failed calling webhook "strict.example.dev": received undecodable patch in webhook response/),
  );
  answers.set('strict', () => ({ allowed: true }));
  answers.set('lax', () => patch({ op: 'remove', path: '/data/none' }));
  await assert.rejects(make(api, map('c')), status(500, /lax.example.dev/));
  await server.close();
});

test('match conditions', async () => {
  const { api, server } = await open();
  await configure(
    api,
    'Validating',
    webhook('some', {
      matchConditions: [
        { name: 'not-system', expression: "!('system:nodes' in request.userInfo.groups)" },
        { name: 'flagged', expression: "has(object.data) && 'flag' in object.data" },
        {
          name: 'allowed',
          expression: "authorizer.group('').resource('configmaps').namespace('default').check('get').allowed()",
        },
      ],
    }),
  );
  answers.set('some', () => ({ allowed: false }));
  await make(api, map('a'));
  await assert.rejects(make(api, map('b', { flag: '1' })), status(400, /denied the request without explanation$/));
  await assert.rejects(
    api.create(registration('validatingwebhookconfigurations'), {
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'ValidatingWebhookConfiguration',
      metadata: { name: 'bad' },
      webhooks: [webhook('x', { matchConditions: [{ name: 'x', expression: 'object.' }] })],
    } as unknown as KubeObject),
    status(422, /webhooks\[0\]\.matchConditions\[0\]\.expression: Invalid value: .*compilation failed/),
  );
  await server.close();
});

test('a Service without endpoints, and an unknown authority', async () => {
  const { api, server } = await open();
  await configure(
    api,
    'Validating',
    webhook('x', { clientConfig: { service: { name: 'none', namespace: 'default' } } }),
  );
  await assert.rejects(
    make(api, map('a')),
    status(500, /failed calling webhook "x.example.dev": failed to call webhook: services "none" not found/),
  );
  await api.delete({ ...registration('validatingwebhookconfigurations'), name: 'hooks' });
  await configure(api, 'Validating', webhook('x', { clientConfig: { url: `https://127.0.0.1:${port}/x` } }));
  await assert.rejects(make(api, map('a')), status(500, /tls: failed to verify certificate/));
  await server.close();
});

const policy = (kind: string, name: string, spec: object): KubeObject =>
  ({ apiVersion: 'admissionregistration.k8s.io/v1', kind, metadata: { name }, spec }) as unknown as KubeObject;
const CONSTRAINTS = {
  resourceRules: [
    { operations: ['CREATE', 'UPDATE'], apiGroups: [''], apiVersions: ['v1'], resources: ['configmaps'] },
  ],
};

test('a validating policy with variables and params', async () => {
  const { api, server } = await open();
  await api.create(
    registration('validatingadmissionpolicies'),
    policy('ValidatingAdmissionPolicy', 'limit', {
      paramKind: { apiVersion: 'v1', kind: 'ConfigMap' },
      matchConstraints: CONSTRAINTS,
      matchConditions: [{ name: 'no-params', expression: "object.metadata.name != 'limits'" }],
      variables: [
        { name: 'count', expression: 'has(object.data) ? size(object.data) : 0' },
        { name: 'most', expression: 'int(params.data.most)' },
      ],
      validations: [
        { expression: 'variables.count <= variables.most', messageExpression: "'at most ' + string(variables.most)" },
        { expression: "namespaceObject.metadata.name == 'default'", reason: 'Forbidden' },
      ],
    }),
  );
  await make(api, map('limits', { most: '1' }));
  await api.create(
    registration('validatingadmissionpolicybindings'),
    policy('ValidatingAdmissionPolicyBinding', 'limit', {
      policyName: 'limit',
      paramRef: { name: 'limits', namespace: 'default', parameterNotFoundAction: 'Deny' },
      validationActions: ['Deny'],
    }),
  );
  await make(api, map('one', { a: '1' }));
  await assert.rejects(
    make(api, map('two', { a: '1', b: '2' })),
    status(
      422,
      /^configmaps "two" is forbidden: ValidatingAdmissionPolicy 'limit' with binding 'limit' denied request: at most 1$/,
    ),
  );
  const counted = (name: string) =>
    metrics.counter(`apiserver_validating_admission_policy_${name}`, '').get('limit', 'limit', 'invalid_error', 'deny');
  assert.deepEqual([counted('check_total'), counted('check_duration_seconds')], [1, 1]);
  await assert.rejects(
    api.create({ of: CONFIG_MAPS, namespace: 'kube-system' }, map('x')),
    status(403, /failed expression: namespaceObject.metadata.name == 'default'$/),
  );
  await api.delete({ of: CONFIG_MAPS, namespace: 'default', name: 'limits' });
  await assert.rejects(make(api, map('three')), status(422, /no params found for policy binding with `Deny`/));
  await assert.rejects(
    api.create(
      registration('validatingadmissionpolicies'),
      policy('ValidatingAdmissionPolicy', 'bad', {
        matchConstraints: CONSTRAINTS,
        validations: [{ expression: '1 +' }],
      }),
    ),
    status(422, /spec.validations\[0\].expression: Invalid value: .*compilation failed/),
  );
  await assert.rejects(
    api.create(
      registration('validatingadmissionpolicies'),
      policy('ValidatingAdmissionPolicy', 'bad', {
        matchConstraints: CONSTRAINTS,
        validations: [{ expression: 'objekt.metadata.name == "x"' }],
      }),
    ),
    status(422, /undeclared reference to 'objekt'/),
  );
  await server.close();
});

test('what a validating policy finds is counted for each action, also where a failure is ignored', async () => {
  const { api, server } = await open();
  const bound = async (name: string, spec: object, validationActions: string[]) => {
    await api.create(
      registration('validatingadmissionpolicies'),
      policy('ValidatingAdmissionPolicy', name, { matchConstraints: CONSTRAINTS, ...spec }),
    );
    await api.create(
      registration('validatingadmissionpolicybindings'),
      policy('ValidatingAdmissionPolicyBinding', name, { policyName: name, validationActions }),
    );
  };
  await bound('told', { validations: [{ expression: 'false' }, { expression: 'true' }] }, ['Warn', 'Audit']);
  await bound('lenient', { failurePolicy: 'Ignore', validations: [{ expression: "object.data['x'] == ''" }] }, [
    'Deny',
  ]);
  await bound('strict', { validations: [{ expression: "object.metadata.name != 'no'" }] }, ['Deny']);
  await bound('stricter', { validations: [{ expression: "object.metadata.name != 'no'" }] }, ['Deny']);
  await make(api, map('yes'));
  await assert.rejects(make(api, map('no')), status(422, /ValidatingAdmissionPolicy 'strict' with binding/));
  const counted = (name: string, action: string) =>
    metrics.counter('apiserver_validating_admission_policy_check_total', '').get(name, name, 'invalid_error', action);
  assert.deepEqual(
    [
      counted('told', 'warn'),
      counted('told', 'audit'),
      counted('told', 'deny'),
      counted('lenient', 'allow'),
      counted('strict', 'deny'),
      counted('stricter', 'deny'),
    ],
    [2, 2, 0, 2, 1, 1],
  );
  await server.close();
});

test('mutating policies apply configurations and patches', async () => {
  const { api, server } = await open();
  await api.create(
    registration('mutatingadmissionpolicies'),
    policy('MutatingAdmissionPolicy', 'mark', {
      matchConstraints: CONSTRAINTS,
      reinvocationPolicy: 'Never',
      failurePolicy: 'Fail',
      mutations: [
        {
          patchType: 'ApplyConfiguration',
          applyConfiguration: { expression: "Object{metadata: Object.metadata{labels: {'marked': 'yes'}}}" },
        },
        {
          patchType: 'JSONPatch',
          jsonPatch: {
            expression:
              "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('a.b'), value: string(size(object.metadata.labels))}]",
          },
        },
      ],
    }),
  );
  await api.create(
    registration('mutatingadmissionpolicybindings'),
    policy('MutatingAdmissionPolicyBinding', 'mark', { policyName: 'mark' }),
  );
  const made = await make(api, map('a', { x: '1' }, { own: 'z' }));
  assert.deepEqual(made.metadata.labels, { marked: 'yes', own: 'z' });
  assert.deepEqual(made.data, { 'a.b': '2', x: '1' });
  const [rule] = CONSTRAINTS.resourceRules;
  await assert.rejects(
    api.create(
      registration('mutatingadmissionpolicies'),
      policy('MutatingAdmissionPolicy', 'gone', {
        matchConstraints: { resourceRules: [{ ...rule, operations: ['CONNECT', 'DELETE'] }] },
        mutations: [],
      }),
    ),
    status(422, /resourceRules\[0\]\.operations\[1\]: Unsupported value: "DELETE"/),
  );
  await assert.rejects(
    make(api, { ...map('b'), data: undefined } as Any),
    status(422, /policy 'mark' with binding 'mark' denied request/),
  );
  await server.close();
});
