import assert from 'node:assert/strict';
import { createHmac, X509Certificate } from 'node:crypto';
import { after, before, test } from 'node:test';
import type { CertificateSigningRequest } from '../../src/api/certificates/v1.gen.ts';
import type { ConfigMap, Secret } from '../../src/api/core/v1.gen.ts';
import { makeRequest } from '../../src/apiserver/certificates/signing-request.ts';
import { type Bed, eventually, openBed } from '../../src/apiserver/who-bed.ts';
import { formatTime } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import {
  CERTIFICATE_SIGNING_REQUESTS,
  CLUSTER_ROLE_BINDINGS,
  CONFIG_MAPS,
  NAMESPACES,
  SECRETS,
  SERVICE_ACCOUNTS,
} from '../../src/client/resources.ts';
import { expiryMs } from '../../src/controllers/csrcleaner/controller.ts';
import { controllers } from '../../src/controllers/registry.ts';
import { startControllers } from '../../src/controllers/start.ts';

const FOLDERS = ['csrapproving', 'csrsigning', 'csrcleaner', 'tokencleaner', 'bootstrapsigner', 'serviceaccounttoken'];
const CSRS = '/apis/certificates.k8s.io/v1/certificatesigningrequests';
const TOKEN = 'abcdef.0123456789abcdef';

let bed: Bed;
const stop = new AbortController();

before(async () => {
  bed = await openBed(() => []);
  startControllers({
    transport: bed.root,
    log: silentLogger,
    signal: stop.signal,
    caPem: bed.pki.ca,
    authority: { sign: grant => bed.pki.sign(grant), legacyToken: of => bed.tokens.issueLegacy(of) },
    definitions: controllers.filter(({ folder }) => FOLDERS.includes(folder)),
  });
  // As kubeadm sets a cluster up: who has a bootstrap token may ask for a node's first certificate.
  for (const [name, role, group] of [
    ['bootstrap', 'system:node-bootstrapper', 'system:bootstrappers'],
    ['approve', 'system:certificates.k8s.io:certificatesigningrequests:nodeclient', 'system:bootstrappers'],
    ['renew', 'system:certificates.k8s.io:certificatesigningrequests:selfnodeclient', 'system:nodes'],
  ] as const)
    await bed.root.create({ of: CLUSTER_ROLE_BINDINGS }, {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
      subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: group }],
    } as never);
  await makeToken('abcdef', '0123456789abcdef');
});
after(async () => {
  stop.abort();
  await bed?.close();
});

async function makeToken(id: string, secret: string, more: Record<string, string> = {}): Promise<void> {
  await bed.root.create({ of: SECRETS, namespace: 'kube-system' }, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: `bootstrap-token-${id}` },
    type: 'bootstrap.kubernetes.io/token',
    stringData: {
      'token-id': id,
      'token-secret': secret,
      'usage-bootstrap-authentication': 'true',
      'usage-bootstrap-signing': 'true',
      ...more,
    },
  } as never);
}

const csr = (name: string, request: string, spec: object) => ({
  apiVersion: 'certificates.k8s.io/v1',
  kind: 'CertificateSigningRequest',
  metadata: { name },
  spec: { request, usages: ['digital signature', 'client auth'], ...spec },
});
const read = async (name: string) =>
  (await bed.root.get({ of: CERTIFICATE_SIGNING_REQUESTS, name })) as CertificateSigningRequest;
const issued = (name: string): Promise<string> =>
  eventually(async () => {
    const { status } = await read(name);
    assert.ok(status?.certificate, JSON.stringify(status));
    return Buffer.from(status.certificate, 'base64').toString();
  });
const KUBELET = 'kubernetes.io/kube-apiserver-client-kubelet';

test("a machine joins with its token, gets a node's certificate and renews it with that", async () => {
  const subject = { commonName: 'system:node:n1', organizations: ['system:nodes'] };
  const first = makeRequest(subject);
  const made = await bed.ask({
    path: CSRS,
    token: TOKEN,
    body: csr('first', first.request, { signerName: KUBELET, expirationSeconds: 3600 }),
  });
  assert.deepEqual(
    [made.status, made.json.spec?.username],
    [201, 'system:bootstrap:abcdef'],
    JSON.stringify(made.json),
  );
  const certificate = await issued('first');
  const condition = (await read('first')).status!.conditions![0]!;
  assert.deepEqual([condition.type, condition.reason], ['Approved', 'AutoApproved']);
  const x509 = new X509Certificate(certificate);
  assert.equal(x509.subject, 'O=system:nodes\nCN=system:node:n1');
  assert.ok(x509.verify(new X509Certificate(bed.pki.ca).publicKey));
  const lifeMs = Date.parse(x509.validTo) - Date.parse(x509.validFrom);
  assert.equal(lifeMs, 3600_000);
  assert.deepEqual(x509.keyUsage, ['1.3.6.1.5.5.7.3.2']);
  const node = { certificate, key: first.key };
  const who = await bed.ask({
    path: '/apis/authentication.k8s.io/v1/selfsubjectreviews',
    as: node,
    body: { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' },
  });
  assert.equal(who.json.status.userInfo.username, 'system:node:n1');
  const second = await bed.ask({
    path: CSRS,
    as: node,
    body: csr('second', makeRequest(subject).request, { signerName: KUBELET }),
  });
  assert.equal(second.status, 201, JSON.stringify(second.json));
  await issued('second');
  // Another node's certificate is not the node's to ask for.
  const other = makeRequest({ ...subject, commonName: 'system:node:n2' });
  const refused = await bed.ask({ path: CSRS, as: node, body: csr('other', other.request, { signerName: KUBELET }) });
  assert.equal(refused.status, 403);
  assert.match(refused.json.message, /can only create a node CSR with CN=system:node:n1$/);
  await bed.ask({ path: CSRS, as: node, body: csr('third', makeRequest(subject).request, { signerName: KUBELET }) });
  await issued('third');
});

const approve = async (name: string) => {
  const object = await read(name);
  const conditions = [{ type: 'Approved', status: 'True', reason: 'Test', message: 'by hand' }];
  const body = { ...object, status: { conditions } };
  const reply = await bed.ask({ method: 'PUT', path: `${CSRS}/${name}/approval`, as: bed.admin, body });
  assert.equal(reply.status, 200, JSON.stringify(reply.json));
};
const failure = (name: string) =>
  eventually(async () => {
    const failed = (await read(name)).status?.conditions?.find(({ type }) => type === 'Failed');
    assert.ok(failed);
    return failed.message;
  });

test('a person approves; signers keep to what they are for', async () => {
  const jane = makeRequest({ commonName: 'jane', organizations: ['dev'] });
  const API = 'kubernetes.io/kube-apiserver-client';
  await bed.ask({ path: CSRS, as: bed.admin, body: csr('jane', jane.request, { signerName: API }) });
  await approve('jane');
  const x509 = new X509Certificate(await issued('jane'));
  assert.equal(x509.subject, 'O=dev\nCN=jane');
  await bed.ask({
    path: CSRS,
    as: bed.admin,
    body: csr('server', jane.request, { signerName: API, usages: ['server auth'] }),
  });
  await approve('server');
  assert.equal(await failure('server'), 'invalid usage for client certificate: server auth');
  // A kubelet's serving certificate is signed with its names, for the kubelet that asks only.
  const node = { commonName: 'system:node:n1', organizations: ['system:nodes'] };
  const serving = { signerName: 'kubernetes.io/kubelet-serving', usages: ['digital signature', 'server auth'] };
  const names = ['n1', '10.0.0.1', 'fd00::1'];
  const kubelet = bed.pki.issueClient(node);
  for (const [name, as] of [
    ['serving', kubelet],
    ['stolen', bed.admin],
  ] as const) {
    const made = await bed.ask({ path: CSRS, as, body: csr(name, makeRequest(node, names).request, serving) });
    assert.equal(made.status, 201, JSON.stringify(made.json));
    await approve(name);
  }
  assert.equal(
    new X509Certificate(await issued('serving')).subjectAltName,
    'DNS:n1, IP Address:10.0.0.1, IP Address:FD00:0:0:0:0:0:0:1',
  );
  assert.match((await failure('stolen')) ?? '', /is not who asks/);
  assert.equal((await read('stolen')).status?.certificate, undefined);
  const masters = makeRequest({ commonName: 'x', organizations: ['system:masters'] });
  const refused = await bed.ask({ path: CSRS, as: bed.admin, body: csr('m', masters.request, { signerName: API }) });
  assert.match(refused.json.message, /with system:masters group is not allowed/);
  const pem = Buffer.from(jane.request, 'base64').toString();
  const lines = pem.split('\n');
  const broken = Buffer.from(
    pem.replace(
      lines[2]!,
      lines[2]!.replace(/[A-Z]/, found => (found === 'A' ? 'B' : 'A')),
    ),
  ).toString('base64');
  for (const request of ['', Buffer.from('nonsense').toString('base64'), broken]) {
    const bad = await bed.ask({ path: CSRS, as: bed.admin, body: csr('bad', request, { signerName: API }) });
    assert.equal(bad.status, 422);
    assert.match(bad.json.message, /spec\.request: Invalid value/);
  }
});

test('requests go an hour after they were decided, a day after nobody did, and with their certificate', () => {
  const at = Date.UTC(2026, 0, 1);
  const of = (status: object) =>
    expiryMs({ metadata: { name: 'x', creationTimestamp: formatTime(at) }, spec: {}, status } as never) - at;
  const hour = 3_600_000;
  const condition = (type: string) => ({ type, status: 'True', lastUpdateTime: formatTime(at + hour) });
  assert.equal(of({}), 24 * hour);
  assert.equal(of({ conditions: [condition('Denied')] }), 2 * hour);
  assert.equal(of({ conditions: [condition('Approved'), condition('Failed')] }), 2 * hour);
  assert.equal(of({ conditions: [condition('Approved')] }), Number.POSITIVE_INFINITY);
  assert.equal(of({ conditions: [condition('Approved')], certificate: 'eA==' }), 2 * hour);
});

test('bootstrap tokens: cluster-info is signed with each, and those that have expired go', async () => {
  const kubeconfig = 'apiVersion: v1\nkind: Config\n';
  await bed.root.create({ of: CONFIG_MAPS, namespace: 'kube-public' }, {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'cluster-info' },
    data: { kubeconfig, 'jws-kubeconfig-ffffff': 'of a token that is gone' },
  } as never);
  const info = async () =>
    ((await bed.root.get({ of: CONFIG_MAPS, namespace: 'kube-public', name: 'cluster-info' })) as ConfigMap).data!;
  await eventually(async () =>
    assert.deepEqual(Object.keys(await info()).sort(), ['jws-kubeconfig-abcdef', 'kubeconfig']),
  );
  const [head, empty, signature] = (await info())['jws-kubeconfig-abcdef']!.split('.');
  assert.deepEqual(JSON.parse(Buffer.from(head ?? '', 'base64url').toString()), { alg: 'HS256', kid: 'abcdef' });
  assert.equal(empty, '');
  const payload = Buffer.from(kubeconfig).toString('base64url');
  const expected = createHmac('sha256', '0123456789abcdef').update(`${head}.${payload}`).digest('base64url');
  assert.equal(signature, expected);
  await makeToken('aaaaaa', '0123456789abcdef', { expiration: formatTime(Date.now() - 1000) });
  await eventually(async () => {
    const { items } = await bed.root.list({ of: SECRETS, namespace: 'kube-system' });
    assert.deepEqual(
      items.map(({ metadata }) => metadata.name),
      ['bootstrap-token-abcdef'],
    );
  });
});

test('a Secret gets a token of its ServiceAccount, which lives as long as both', async () => {
  await bed.root.create({ of: NAMESPACES }, { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'old' } });
  const account = { of: SERVICE_ACCOUNTS, namespace: 'old' };
  await bed.root.create(account, { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'robot' } });
  await bed.root.create({ of: SECRETS, namespace: 'old' }, {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'robot-token', annotations: { 'kubernetes.io/service-account.name': 'robot' } },
    type: 'kubernetes.io/service-account-token',
  } as never);
  const secret = await eventually(async () => {
    const found = (await bed.root.get({ of: SECRETS, namespace: 'old', name: 'robot-token' })) as Secret;
    assert.ok(found.data?.['token']);
    return found;
  });
  const token = Buffer.from(secret.data!['token']!, 'base64').toString();
  assert.deepEqual(Object.keys(secret.data!).sort(), ['ca.crt', 'namespace', 'token']);
  const ask = () =>
    bed.ask({
      path: '/apis/authentication.k8s.io/v1/selfsubjectreviews',
      token,
      body: { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' },
    });
  const reply = await ask();
  assert.equal(reply.json.status.userInfo.username, 'system:serviceaccount:old:robot');
  const [head, body, signature] = token.split('.') as [string, string, string];
  const forged = Buffer.from(Buffer.from(body, 'base64url').toString().replace('robot"', 'admin"')).toString(
    'base64url',
  );
  assert.equal((await bed.ask({ path: '/version', token: `${head}.${forged}.${signature}` })).status, 401);
  await bed.root.delete({ ...account, name: 'robot' });
  assert.equal((await ask()).status, 401);
  await eventually(() =>
    assert.rejects(bed.root.get({ of: SECRETS, namespace: 'old', name: 'robot-token' }), /not found/),
  );
});
