import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { Pod, Service } from '../api/core/v1.gen.ts';
import type { KubeObject } from '../api/meta.ts';
import {
  ENDPOINT_SLICES,
  IP_ADDRESSES,
  NAMESPACES,
  NODES,
  POD_DISRUPTION_BUDGETS,
  PODS,
  SERVICE_ACCOUNTS,
  SERVICES,
} from '../client/resources.ts';
import { ensurePki, type Pki } from './certificates/pki.ts';
import { LOOPBACK_USER } from './request.ts';
import { openSecured } from './security-bed.ts';

let directory: string;
let pki: Pki;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cox-security-'));
  pki = await ensurePki(directory, { sans: [] });
});
after(() => rm(directory, { recursive: true, force: true }));

async function cluster() {
  const { server, security, root } = await openSecured({ pki });
  await root.create(
    { of: SERVICE_ACCOUNTS, namespace: 'default' },
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default' } },
  );
  const pod = (name: string): KubeObject =>
    ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, labels: { app: 'web' } },
      spec: { containers: [{ name: 'c', image: 'i' }] },
    }) as KubeObject;
  const makePod = (name: string) => root.create({ of: PODS, namespace: 'default' }, pod(name)) as Promise<Pod>;
  const bind = (name: string, node: string) =>
    root.create({ of: PODS, namespace: 'default', name, subresource: 'binding' }, {
      apiVersion: 'v1',
      kind: 'Binding',
      metadata: { name },
      target: { kind: 'Node', name: node },
    } as KubeObject);
  return { server, security, root, makePod, bind };
}

/** Until it does not reject any more; what is written behind a reply comes when it comes. */
async function eventually(check: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await check();
      return;
    } catch (error) {
      if (attempt === 500) throw error;
      await new Promise(resolve => setTimeout(resolve, 10));
    }
  }
}

test('bootstrap: system namespaces, the kubernetes Service at the first address, and nothing written the second time', async () => {
  const { server, security, root } = await cluster();
  assert.deepEqual(
    (await root.list({ of: NAMESPACES })).items.map(item => item.metadata.name),
    ['default', 'kube-node-lease', 'kube-public', 'kube-system'],
  );
  const service = (await root.get({ of: SERVICES, namespace: 'default', name: 'kubernetes' })) as Service;
  assert.deepEqual([service.spec!.clusterIP, service.spec!.ports![0]!.targetPort], ['10.96.0.1', 6443]);
  assert.ok(await root.get({ of: ENDPOINT_SLICES, namespace: 'default', name: 'kubernetes' }));
  const settled = async () => {
    let revision: number;
    do {
      revision = server.caches.revision;
      await new Promise(resolve => setTimeout(resolve, 20));
    } while (revision !== server.caches.revision);
    return revision;
  };
  // What the first one began may go on behind it for a while; one that writes each time never gets through.
  await eventually(async () => {
    const before = await settled();
    await security.bootstrap();
    assert.equal(await settled(), before);
  });
  await server.close();
});

test('a Service gets its address and record, and loses both', async () => {
  const { server, root } = await cluster();
  const service = (await root.create({ of: SERVICES, namespace: 'default' }, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web' },
    spec: { type: 'NodePort', ports: [{ port: 80 }] },
  } as KubeObject)) as Service;
  const ip = service.spec!.clusterIP!;
  assert.ok(ip && service.spec!.ports![0]!.nodePort);
  await eventually(() => root.get({ of: IP_ADDRESSES, name: ip }));
  await assert.rejects(
    root.create({ of: SERVICES, namespace: 'default' }, {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'two' },
      spec: { clusterIP: ip, ports: [{ port: 80 }] },
    } as KubeObject),
    /provided IP is already allocated/,
  );
  const updated = (await root.update({ of: SERVICES, namespace: 'default', name: 'web' }, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web' },
    spec: { ports: [{ port: 81 }] },
  } as KubeObject)) as Service;
  assert.deepEqual(
    [updated.spec!.clusterIP, updated.spec!.type, updated.spec!.ports![0]!.nodePort],
    [ip, 'ClusterIP', undefined],
  );
  await root.delete({ of: SERVICES, namespace: 'default', name: 'web' });
  await eventually(() => assert.rejects(root.get({ of: IP_ADDRESSES, name: ip }), /not found/));
  await server.close();
});

test('binding: once, not while deleted, and with a condition', async () => {
  const { server, root, makePod, bind } = await cluster();
  await makePod('p');
  await bind('p', 'n1');
  const bound = (await root.get({ of: PODS, namespace: 'default', name: 'p' })) as Pod;
  assert.equal(bound.spec!.nodeName, 'n1');
  assert.equal(bound.status!.conditions!.find(condition => condition.type === 'PodScheduled')!.status, 'True');
  await assert.rejects(bind('p', 'n2'), {
    message: 'Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n1"',
  });
  await assert.rejects(bind('gone', 'n2'), /pods "gone" not found/);
  await server.close();
});

test('a pod that is bound is nominated for no node any more', async () => {
  const { server, root, makePod, bind } = await cluster();
  const pod = await makePod('p');
  const at = { of: PODS, namespace: 'default', name: 'p' };
  const status = { ...pod.status, nominatedNodeName: 'n1' };
  const nominated = await root.update({ ...at, subresource: 'status' }, { ...pod, status } as KubeObject);
  assert.equal((nominated as Pod).status?.nominatedNodeName, 'n1');
  await bind('p', 'n1');
  assert.equal(((await root.get(at)) as Pod).status?.nominatedNodeName, undefined);
  await server.close();
});

test('tokens bound to a pod end with it; reviews answer', async () => {
  const { server, security, root, makePod, bind } = await cluster();
  const pod = await makePod('p');
  await root.create({ of: NODES }, { apiVersion: 'v1', kind: 'Node', metadata: { name: 'n1' } });
  await bind('p', 'n1');
  const ask = (user = LOOPBACK_USER, uid = pod.metadata.uid, metadata = {}) =>
    server
      .transport(user)
      .create({ of: SERVICE_ACCOUNTS, namespace: 'default', name: 'default', subresource: 'token' }, {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenRequest',
        metadata,
        spec: { expirationSeconds: 3607, boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: 'p', uid } },
      } as never);
  const { status } = (await ask({
    name: 'system:node:n1',
    groups: ['system:nodes', 'system:authenticated'],
  })) as unknown as { status: { token: string; expirationTimestamp: string } };
  assert.ok(Date.parse(status.expirationTimestamp) - Date.now() < 3_700_000);
  await assert.rejects(
    ask({ name: 'system:node:n2', groups: ['system:nodes', 'system:authenticated'] }),
    /no relationship found between node 'n2' and this object/,
  );
  await assert.rejects(
    ask(LOOPBACK_USER, 'other'),
    /the UID in the bound object reference \(other\) does not match the UID in record/,
  );
  await assert.rejects(
    ask(LOOPBACK_USER, undefined, { uid: 'other' }),
    /the UID in the token request \(other\) does not match the UID of the service account/,
  );

  const review = async () =>
    (
      (await root.create({ of: { group: 'authentication.k8s.io', version: 'v1', resource: 'tokenreviews' } }, {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenReview',
        metadata: {},
        spec: { token: status.token },
      } as never)) as unknown as { status: { authenticated?: boolean; user: { username?: string; extra?: object } } }
    ).status;
  const seen = await review();
  assert.deepEqual([seen.authenticated, seen.user.username], [true, 'system:serviceaccount:default:default']);
  assert.deepEqual((seen.user.extra as Record<string, string[]>)['authentication.kubernetes.io/node-name'], ['n1']);
  const user = await security.authenticators[0]!.authenticate({ headers: { authorization: `Bearer ${status.token}` } });
  const access = (await server
    .transport(user!)
    .create({ of: { group: 'authorization.k8s.io', version: 'v1', resource: 'selfsubjectaccessreviews' } }, {
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SelfSubjectAccessReview',
      metadata: {},
      spec: { resourceAttributes: { verb: 'list', resource: 'pods', namespace: 'default' } },
    } as never)) as unknown as { status: object };
  assert.deepEqual(access.status, { allowed: false });
  await root.delete({ of: PODS, namespace: 'default', name: 'p' }, { gracePeriodSeconds: 0 });
  assert.equal((await review()).authenticated, undefined);
  await server.close();
});

test('an eviction respects its budget', async () => {
  const { server, root, makePod, bind } = await cluster();
  await makePod('p');
  await bind('p', 'n1');
  const running = (await root.get({ of: PODS, namespace: 'default', name: 'p' })) as Pod;
  await root.update({ of: PODS, namespace: 'default', name: 'p', subresource: 'status' }, {
    ...running,
    status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] },
  } as never);
  const budget = await root.create({ of: POD_DISRUPTION_BUDGETS, namespace: 'default' }, {
    apiVersion: 'policy/v1',
    kind: 'PodDisruptionBudget',
    metadata: { name: 'b' },
    spec: { minAvailable: 1, selector: { matchLabels: { app: 'web' } } },
  } as never);
  const evict = () =>
    root.create(
      { of: PODS, namespace: 'default', name: 'p', subresource: 'eviction' },
      { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name: 'p' } },
    );
  const refused = (message: string) =>
    assert.rejects(
      evict(),
      (error: { code: number; status: { details: { causes: { message: string }[] } } }) =>
        error.code === 429 && error.status.details.causes[0]!.message === message,
    );
  const tell = async (status: object) =>
    root.update({ of: POD_DISRUPTION_BUDGETS, namespace: 'default', name: 'b', subresource: 'status' }, {
      ...budget,
      metadata: { ...budget.metadata, resourceVersion: undefined },
      status: { observedGeneration: 1, currentHealthy: 2, desiredHealthy: 1, expectedPods: 2, ...status },
    } as never);
  await refused('The disruption budget b is still being processed by the server.');
  await tell({ disruptionsAllowed: 0, currentHealthy: 1 });
  await refused('The disruption budget b needs 1 healthy pods and has 1 currently');
  await tell({ disruptionsAllowed: 0 });
  await refused('The disruption budget b does not allow evicting pods currently');
  const lastTransitionTime = '2020-01-01T00:00:00Z';
  const denied = { type: 'DisruptionAllowed', status: 'False', message: 'no idea', lastTransitionTime };
  await tell({ disruptionsAllowed: 0, conditions: [{ ...denied, reason: 'SyncFailed' }] });
  await refused('The disruption budget b does not allow evicting pods currently because it failed sync: no idea');
  await tell({ disruptionsAllowed: 1 });
  await evict();
  const left = (await root.get({ of: POD_DISRUPTION_BUDGETS, namespace: 'default', name: 'b' })) as unknown as {
    status: { disruptionsAllowed?: number; disruptedPods: object };
  };
  assert.deepEqual([left.status.disruptionsAllowed ?? 0, Object.keys(left.status.disruptedPods)], [0, ['p']]);
  await server.close();
});

test('a binding counts as long as it is there', async () => {
  const { server, root } = await cluster();
  const list = () => server.transport({ name: 'jane', groups: [] }).list({ of: PODS, namespace: 'default' });
  const of = { group: 'rbac.authorization.k8s.io', version: 'v1', resource: 'rolebindings' };
  const roleRef = { apiGroup: of.group, kind: 'ClusterRole', name: 'view' };
  await assert.rejects(list(), /User "jane" cannot list resource "pods"/);
  const binding = { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'RoleBinding', metadata: { name: 'b' }, roleRef };
  const subjects = [{ kind: 'User', apiGroup: of.group, name: 'jane' }];
  await root.create({ of, namespace: 'default' }, { ...binding, subjects } as never);
  await list();
  await root.update({ of, namespace: 'default', name: 'b' }, {
    ...binding,
    subjects: [{ ...subjects[0], name: 'bob' }],
  } as never);
  await assert.rejects(list(), /cannot list/);
  await root.update({ of, namespace: 'default', name: 'b' }, { ...binding, subjects } as never);
  await list();
  await root.delete({ of, namespace: 'default', name: 'b' });
  await assert.rejects(list(), /cannot list/);
  await server.close();
});
