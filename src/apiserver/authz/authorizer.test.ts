import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLogger } from '../../base/log.ts';
import {
  CLUSTER_ROLE_BINDINGS,
  CLUSTER_ROLES,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  PODS,
  ROLE_BINDINGS,
  ROLES,
  SECRETS,
} from '../../client/resources.ts';
import { FakeReader } from '../fake-reader.ts';
import type { Decision, RequestAttributes } from '../request.ts';
import { AuthorizerChain } from './authorizer.ts';
import { bootstrapPolicy } from './bootstrap-policy.ts';
import { forbiddenRequest } from './denial.ts';
import { PolicyReconciler } from './policy-reconciler.ts';
import { describeRules, missingRules } from './rules.ts';

/** Of a chain without webhooks. */
const atOnce = (authorizer: AuthorizerChain, asked: RequestAttributes): Decision =>
  authorizer.authorize(asked) as Decision;

const API = { apiVersion: 'rbac.authorization.k8s.io/v1' };

function ask(name: string, groups: string[], parts: Partial<RequestAttributes>): RequestAttributes {
  return {
    user: { name, groups },
    verb: 'get',
    isResource: !parts.path,
    group: '',
    version: 'v1',
    resource: '',
    subresource: '',
    namespace: '',
    name: '',
    path: '',
    ...parts,
  };
}

async function cluster(): Promise<{ reader: FakeReader; authorizer: AuthorizerChain }> {
  const reader = new FakeReader();
  await new PolicyReconciler({ reader: () => reader, transport: () => reader, log: silentLogger }).bootstrap();
  return { reader, authorizer: new AuthorizerChain(() => reader) };
}

test('bootstrap writes each object once, a second run nothing, and repairs what lost rules', async () => {
  const { reader } = await cluster();
  const written = reader.writes.length;
  assert.ok(written > 130, String(written));
  const reconciler = new PolicyReconciler({ reader: () => reader, transport: () => reader, log: silentLogger });
  await reconciler.bootstrap();
  assert.equal(reader.writes.length, written);
  const dns = reader.get(CLUSTER_ROLES, '', 'system:kube-dns')!;
  reader.put(CLUSTER_ROLES, { ...dns, rules: [] } as never);
  await reconciler.bootstrap();
  assert.deepEqual(reader.writes.slice(written), ['update clusterroles//system:kube-dns']);
});

test('monitors may read the metrics of kubelets, as since 1.34', () => {
  const role = bootstrapPolicy().clusterRoles.find(({ metadata }) => metadata.name === 'system:monitoring')!;
  assert.deepEqual(
    role.rules!.filter(rule => rule.resources),
    [{ verbs: ['get'], apiGroups: [''], resources: ['nodes/metrics'] }],
  );
});

test('the bootstrap policy already holds what aggregation computes; a new part is aggregated', async () => {
  const { reader } = await cluster();
  const reconciler = new PolicyReconciler({ reader: () => reader, transport: () => reader, log: silentLogger });
  const before = reader.writes.length;
  const end = reconciler.watchAggregation();
  const settle = async () => {
    for (let i = 0; i < 5; i++) await new Promise(resolve => setImmediate(resolve));
  };
  await settle();
  assert.deepEqual(reader.writes.slice(before), []);
  const rules = [{ verbs: ['get'], apiGroups: ['example.com'], resources: ['widgets'] }];
  reader.put(CLUSTER_ROLES, {
    ...API,
    kind: 'ClusterRole',
    metadata: { name: 'widgets', labels: { 'rbac.authorization.k8s.io/aggregate-to-view': 'true' } },
    rules,
  } as never);
  await settle();
  for (const name of ['view', 'edit', 'admin'])
    assert.ok(
      (reader.get(CLUSTER_ROLES, '', name) as unknown as { rules: object[] }).rules.some(
        rule => JSON.stringify(rule) === JSON.stringify(rules[0]),
      ),
      name,
    );
  end();
});

test('masters do everything, others what bindings say, and a change counts at once', async () => {
  const { reader, authorizer } = await cluster();
  assert.ok(atOnce(authorizer, ask('root', ['system:masters'], { path: '/x' })).allowed);
  const list = ask('jane', ['system:authenticated'], { verb: 'list', resource: 'pods', namespace: 'default' });
  assert.equal(atOnce(authorizer, list).allowed, false);
  assert.equal(
    forbiddenRequest(list).message,
    'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default"',
  );
  reader.put(ROLE_BINDINGS, {
    ...API,
    kind: 'RoleBinding',
    metadata: { name: 'b', namespace: 'default' },
    subjects: [{ kind: 'User', name: 'jane' }],
    roleRef: { kind: 'ClusterRole', name: 'view' },
  } as never);
  assert.deepEqual(atOnce(authorizer, list), {
    allowed: true,
    reason: 'RBAC: allowed by RoleBinding "b/default" of ClusterRole "view" to User "jane"',
  });
  assert.equal(atOnce(authorizer, { ...list, namespace: 'other' }).allowed, false);
  assert.equal(atOnce(authorizer, { ...list, resource: 'secrets' }).allowed, false);
  reader.remove(ROLE_BINDINGS, 'default', 'b');
  assert.equal(atOnce(authorizer, list).allowed, false);
});

test('a binding to a missing role says so', async () => {
  const { reader, authorizer } = await cluster();
  reader.put(CLUSTER_ROLE_BINDINGS, {
    ...API,
    kind: 'ClusterRoleBinding',
    metadata: { name: 'b' },
    subjects: [{ kind: 'User', name: 'bob' }],
    roleRef: { kind: 'ClusterRole', name: 'gone' },
  } as never);
  assert.equal(
    atOnce(authorizer, ask('bob', [], { resource: 'pods' })).reason,
    'RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found',
  );
});

test('resource names, subresources, wildcards and paths', async () => {
  const { reader, authorizer } = await cluster();
  const rules = [
    { verbs: ['update'], apiGroups: [''], resources: ['configmaps'], resourceNames: ['one'] },
    { verbs: ['get'], apiGroups: ['*'], resources: ['*/scale'] },
    { verbs: ['get'], apiGroups: [''], resources: ['pods/log'] },
  ];
  reader.put(ROLES, { ...API, kind: 'Role', metadata: { name: 'r', namespace: 'n' }, rules } as never);
  reader.put(ROLE_BINDINGS, {
    ...API,
    kind: 'RoleBinding',
    metadata: { name: 'b', namespace: 'n' },
    subjects: [{ kind: 'ServiceAccount', name: 'sa' }],
    roleRef: { kind: 'Role', name: 'r' },
  } as never);
  const may = (parts: Partial<RequestAttributes>) =>
    atOnce(authorizer, ask('system:serviceaccount:n:sa', [], { namespace: 'n', ...parts })).allowed;
  assert.ok(may({ verb: 'update', resource: 'configmaps', name: 'one' }));
  assert.ok(!may({ verb: 'update', resource: 'configmaps', name: 'two' }));
  assert.ok(may({ group: 'apps', resource: 'deployments', subresource: 'scale' }));
  assert.ok(
    may({ resource: 'pods', subresource: 'log' }) &&
      !may({ resource: 'pods' }) &&
      !may({ resource: 'pods', subresource: 'exec' }),
  );
  const path = (groups: string[], to: string) => atOnce(authorizer, ask('x', groups, { path: to })).allowed;
  assert.ok(path(['system:unauthenticated'], '/healthz') && !path(['system:unauthenticated'], '/apis/apps'));
  assert.ok(path(['system:authenticated'], '/apis/apps/v1') && !path(['system:authenticated'], '/metrics'));
});

test('a kubelet reads only what pods on its node refer to', async () => {
  const { reader, authorizer } = await cluster();
  const kubelet = (parts: Partial<RequestAttributes>) =>
    atOnce(authorizer, ask('system:node:n1', ['system:nodes'], parts)).allowed;
  const secret = { resource: 'secrets', namespace: 'default', name: 's' };
  reader.put(SECRETS, { apiVersion: 'v1', kind: 'Secret', metadata: { name: 's', namespace: 'default' } });
  assert.ok(!kubelet(secret));
  const pod = (nodeName?: string) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'p', namespace: 'default' },
    spec: {
      ...(nodeName ? { nodeName } : {}),
      serviceAccountName: 'sa',
      containers: [{ name: 'c', envFrom: [{ secretRef: { name: 's' } }] }],
    },
  });
  reader.put(PODS, pod() as never);
  assert.ok(!kubelet(secret));
  reader.put(PODS, pod('n1') as never);
  assert.ok(
    kubelet(secret) &&
      kubelet({ ...secret, verb: 'watch' }) &&
      !kubelet({ ...secret, verb: 'update' }) &&
      !kubelet({ ...secret, name: '', verb: 'list' }),
  );
  assert.ok(
    kubelet({ resource: 'serviceaccounts', subresource: 'token', verb: 'create', namespace: 'default', name: 'sa' }),
  );
  assert.ok(
    kubelet({ resource: 'pods', verb: 'list', fieldSelector: 'spec.nodeName=n1' }) &&
      !kubelet({ resource: 'pods', verb: 'list' }),
  );
  assert.ok(kubelet({ resource: 'nodes', name: 'n1' }) && !kubelet({ resource: 'nodes', name: 'n2' }));
  assert.ok(
    kubelet({
      group: 'coordination.k8s.io',
      resource: 'leases',
      verb: 'update',
      namespace: 'kube-node-lease',
      name: 'n1',
    }),
  );
  assert.ok(
    !kubelet({
      group: 'coordination.k8s.io',
      resource: 'leases',
      verb: 'update',
      namespace: 'kube-node-lease',
      name: 'n2',
    }),
  );
  assert.ok(kubelet({ resource: 'services', verb: 'list' }));
  reader.remove(PODS, 'default', 'p');
  assert.ok(!kubelet(secret));
});

test('a kubelet reads the secrets of the volumes that its pods have claimed', async () => {
  const { reader, authorizer } = await cluster();
  const may = (namespace: string) =>
    atOnce(authorizer, ask('system:node:n1', ['system:nodes'], { resource: 'secrets', namespace, name: 's' })).allowed;
  const at = (name: string) => ({ apiVersion: 'v1', metadata: { name, namespace: 'default' } });
  const reference = { name: 's', namespace: 'own' };
  const sources = {
    csi: { driver: 'd', volumeHandle: 'h', nodeStageSecretRef: reference },
    cephfs: { monitors: ['m'], secretRef: reference },
    iscsi: { iqn: 'i', lun: 0, targetPortal: 't', secretRef: reference },
    flexVolume: { driver: 'v/d', secretRef: reference },
    azureFile: { shareName: 'sh', secretName: 's', secretNamespace: 'own' },
  };
  for (const [kind, source] of Object.entries(sources)) {
    const volume = (from: object, claimRef?: object) =>
      reader.put(PERSISTENT_VOLUMES, {
        ...at('v'),
        metadata: { name: 'v' },
        spec: { [kind]: from, ...(claimRef ? { claimRef } : {}) },
      } as never);
    volume(source);
    assert.ok(!may('own'), kind);
    reader.put(PERSISTENT_VOLUME_CLAIMS, { ...at('c'), spec: { volumeName: 'v' } } as never);
    const volumes = [{ name: 'data', persistentVolumeClaim: { claimName: 'c' } }];
    reader.put(PODS, { ...at('p'), spec: { nodeName: 'n1', containers: [{ name: 'c' }], volumes } } as never);
    assert.ok(may('own') && !may('default'), kind);
    if (kind !== 'csi') {
      volume(
        'secretRef' in source ? { ...source, secretRef: { name: 's' } } : { ...source, secretNamespace: undefined },
        { namespace: 'default', name: 'c' },
      );
      assert.ok(may('default') && !may('own'), kind);
    }
    reader.remove(PODS, 'default', 'p');
    reader.remove(PERSISTENT_VOLUME_CLAIMS, 'default', 'c');
  }
});

test("escalation: what is missing, in upstream's words", () => {
  const owned = [{ verbs: ['get'], apiGroups: [''], resources: ['*'] }];
  const wanted = [{ verbs: ['get', 'list'], apiGroups: [''], resources: ['secrets', 'pods/log'] }];
  assert.deepEqual(describeRules(missingRules(owned, wanted)), [
    '{APIGroups:[""], Resources:["pods/log"], Verbs:["list"]}',
    '{APIGroups:[""], Resources:["secrets"], Verbs:["list"]}',
  ]);
  assert.deepEqual(
    missingRules(
      [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'] }],
      bootstrapPolicy().clusterRoles.find(role => role.metadata.name === 'edit')!.rules!,
    ),
    [],
  );
});

test('what a user has been granted is remembered only until roles or bindings change', () => {
  const reader = new FakeReader();
  const authorizer = new AuthorizerChain(() => reader);
  const { user } = ask('jane', [], {});
  const allowed = () => atOnce(authorizer, ask('', [], { user, resource: 'pods', namespace: 'a' })).allowed;
  const rules = [{ verbs: ['get'], apiGroups: [''], resources: ['pods'] }];
  const binding = {
    ...API,
    kind: 'RoleBinding',
    metadata: { name: 'read', namespace: 'a' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'reader' },
    subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'jane' }],
  };
  const role = { ...API, kind: 'Role', metadata: { name: 'reader', namespace: 'a' } };
  assert.equal(allowed(), false);
  reader.put(ROLE_BINDINGS, binding);
  assert.equal(allowed(), false);
  reader.put(ROLES, { ...role, rules } as never);
  assert.equal(allowed(), true);
  reader.put(ROLES, { ...role, rules: [] } as never);
  assert.equal(allowed(), false);
  reader.put(ROLES, { ...role, rules } as never);
  assert.equal(allowed(), true);
  reader.remove(ROLE_BINDINGS, 'a', 'read');
  assert.equal(allowed(), false);
});
