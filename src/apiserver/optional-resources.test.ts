import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { KubeObject } from '../api/meta.ts';
import { systemClock } from '../base/clock.ts';
import { issuerOf } from '../base/cluster-defaults.ts';
import { CLUSTER_ROLES, CLUSTER_TRUST_BUNDLES } from '../client/resources.ts';
import { issueCertificate, newKey } from './certificates/certificate.ts';
import { ensurePki, type Pki } from './certificates/pki.ts';
import { loadServerSettings } from './configuration/server-settings.ts';
import { LOOPBACK_USER } from './request.ts';
import { openSecured } from './security-bed.ts';
import type { ApiServer } from './server.ts';

let directory: string;
let pki: Pki;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cox-optional-'));
  pki = await ensurePki(directory, { sans: [] });
});
after(() => rm(directory, { recursive: true, force: true }));

async function open(...args: string[]): Promise<ApiServer> {
  const settings = await loadServerSettings(args, issuerOf('cluster.local'));
  return (await openSecured({ pki, settings })).server;
}

function root(name: string, isAuthority = true): string {
  const { privateKey, publicKey } = newKey();
  const notBeforeMs = systemClock.now();
  const times = { notBeforeMs, notAfterMs: notBeforeMs + 3_600_000 };
  const usages = [isAuthority ? ('authority' as const) : ('client' as const)];
  return issueCertificate({ subject: { commonName: name }, usages, ...times }, publicKey, { selfKey: privateKey });
}

const bundle = (name: string, trustBundle: string, signerName?: string): KubeObject =>
  ({
    apiVersion: 'certificates.k8s.io/v1beta1',
    kind: 'ClusterTrustBundle',
    metadata: { name },
    spec: { trustBundle, ...(signerName ? { signerName } : {}) },
  }) as KubeObject;

test('beta resources are served when they are asked for, and only then', async () => {
  const plain = await open();
  assert.equal(plain.table.of(CLUSTER_TRUST_BUNDLES), undefined);
  assert.equal(plain.reader.get(CLUSTER_ROLES, '', 'system:cluster-trust-bundle-discovery'), undefined);
  await plain.close();
  for (const args of ['api/beta=true', 'certificates.k8s.io/v1beta1', 'api/all=true']) {
    const server = await open(`runtime-config=${args}`);
    assert.ok(server.table.of(CLUSTER_TRUST_BUNDLES), args);
    assert.ok(server.reader.get(CLUSTER_ROLES, '', 'system:cluster-trust-bundle-discovery'));
    await server.close();
  }
  await assert.rejects(open('runtime-config=apps/v1=false'), /"apps\/v1" cannot be switched; known: certificates/);
});

test('a trust bundle holds certificates of authorities, and is named after its signer', async () => {
  const server = await open('runtime-config=api/beta=true');
  const create = (object: KubeObject) => server.transport(LOOPBACK_USER).create({ of: CLUSTER_TRUST_BUNDLES }, object);
  const one = root('one');
  await create(bundle('mine', one));
  await create(bundle('example.com:roots:v1', one + root('two'), 'example.com/roots'));
  const refused = (object: KubeObject, message: RegExp) => assert.rejects(create(object), { message });
  await refused(bundle('a:b', one), /ClusterTrustBundle without signer name must not have ":" in its name/);
  await refused(bundle('b', one, 'example.com/roots'), /must be named with prefix example\.com:roots:/);
  await refused(bundle('c', 'nothing'), /at least one trust anchor must be provided/);
  await refused(bundle('d', one + one), /duplicate trust anchor \(indices \[0 1\]\)/);
  await refused(bundle('e', root('leaf', false)), /entry 0 does not have the CA bit set/);
  await refused(bundle('f', one.replaceAll('CERTIFICATE', 'PRIVATE KEY')), /entry 0 has bad block type: PRIVATE KEY/);
  await refused(bundle('g', one, 'roots'), /must be a fully qualified domain and path/);
  const fieldSelector = 'spec.signerName=example.com/roots';
  const { items } = await server.transport(LOOPBACK_USER).list({ of: CLUSTER_TRUST_BUNDLES }, { fieldSelector });
  assert.deepEqual(
    items.map(({ metadata }) => metadata.name),
    ['example.com:roots:v1'],
  );
  await server.close();
});

test('a bundle of a signer needs the right to attest for it', async () => {
  const server = await open('runtime-config=api/beta=true');
  const admin = server.transport(LOOPBACK_USER);
  const jane = server.transport({ name: 'jane', uid: '', groups: ['system:authenticated'], extra: {} });
  const grant = (verbs: string[], resources: string[], resourceNames?: string[]) => ({
    apiGroups: ['certificates.k8s.io'],
    resources,
    verbs,
    ...(resourceNames ? { resourceNames } : {}),
  });
  const type = { apiVersion: 'rbac.authorization.k8s.io/v1' };
  const rules = [
    grant(['create', 'update'], ['clustertrustbundles']),
    grant(['attest'], ['signers'], ['example.com/*']),
  ];
  await admin.create({ of: CLUSTER_ROLES }, {
    ...type,
    kind: 'ClusterRole',
    metadata: { name: 'attester' },
    rules,
  } as KubeObject);
  await admin.create({ of: { ...CLUSTER_ROLES, resource: 'clusterrolebindings' } }, {
    ...type,
    kind: 'ClusterRoleBinding',
    metadata: { name: 'attester' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'attester' },
    subjects: [{ kind: 'User', name: 'jane', apiGroup: 'rbac.authorization.k8s.io' }],
  } as KubeObject);
  const create = (object: KubeObject) => jane.create({ of: CLUSTER_TRUST_BUNDLES }, object);
  await create(bundle('example.com:roots:v1', root('one'), 'example.com/roots'));
  await create(bundle('mine', root('one')));
  await assert.rejects(create(bundle('other.org:roots:v1', root('one'), 'other.org/roots')), {
    code: 403,
    message: /user not permitted to attest for signerName "other.org\/roots"/,
  });
  await server.close();
});
