import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod, ResourceQuota as ResourceQuotaObject } from '../../api/core/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import { resourceByName } from '../../api/resources.ts';
import { systemClock, VirtualClock } from '../../base/clock.ts';
import type { ApiError } from '../../base/errors.ts';
import { silentLogger } from '../../base/log.ts';
import { seededRandom } from '../../base/random.ts';
import {
  CLUSTER_ROLE_BINDINGS,
  CLUSTER_ROLES,
  CSI_DRIVERS,
  DEVICE_CLASSES,
  NAMESPACES,
  NODES,
  PERSISTENT_VOLUME_CLAIMS,
  PERSISTENT_VOLUMES,
  PODS,
  PRIORITY_CLASSES,
  RESOURCE_CLAIMS,
  SERVICE_ACCOUNTS,
} from '../../client/resources.ts';
import { AuthorizerChain } from '../authz/authorizer.ts';
import { makeRequest } from '../certificates/signing-request.ts';
import { FakeReader } from '../fake-reader.ts';
import { type AdmissionPlugin, type AdmissionRequest, LOOPBACK_USER, type UserInfo } from '../request.ts';
import { ensureBootstrapObjects } from './bootstrap-objects.ts';
import { admissionPlugins } from './registry.ts';
import { ResourceQuota } from './resource-quota.ts';

function setup() {
  const reader = new FakeReader();
  const context = {
    reader: () => reader,
    transport: () => reader,
    authorizer: new AuthorizerChain(() => reader),
    clock: systemClock,
    random: seededRandom(3),
    log: silentLogger,
  };
  const plugins = admissionPlugins(context, new ResourceQuota(context));
  for (const name of ['default', 'ns'])
    reader.put(NAMESPACES, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  reader.put(SERVICE_ACCOUNTS, {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name: 'default', namespace: 'ns' },
  });
  const admit = async (parts: {
    group?: string;
    resource: string;
    subresource?: string;
    object?: object;
    old?: object;
    operation?: AdmissionRequest['operation'];
    user?: UserInfo;
    namespace?: string;
    name?: string;
    verb?: string;
  }) => {
    const object = structuredClone(parts.object) as KubeObject | undefined;
    const { group = '', resource, namespace = 'ns' } = parts;
    const info = ['v1', 'v2'].map(version => resourceByName(group, version, resource)).find(Boolean)!;
    const request: AdmissionRequest = {
      operation: parts.operation ?? 'CREATE',
      object,
      oldObject: parts.old as KubeObject | undefined,
      dryRun: false,
      info,
      warn() {},
      attributes: {
        user: parts.user ?? LOOPBACK_USER,
        verb: parts.verb ?? 'create',
        isResource: true,
        group,
        version: info.version,
        resource,
        subresource: parts.subresource ?? '',
        namespace: info.namespaced ? namespace : '',
        name: parts.name ?? '',
        path: '',
      },
    };
    const take = async (plugin: AdmissionPlugin, waiting: void | Promise<void>) => {
      if (waiting) waited.add(plugin.name);
      await waiting;
    };
    for (const plugin of plugins) await take(plugin, plugin.mutate?.(request));
    for (const plugin of plugins) await take(plugin, plugin.validate?.(request));
    return request.object as never;
  };
  /** Names of plugins that did not answer at once. */
  const waited = new Set<string>();
  const pod = (spec: object = {}, name = 'p') => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'ns' },
    spec: { containers: [{ name: 'c', image: 'i' }], ...spec },
  });
  return { reader, admit, pod, waited };
}

const message = (text: string | RegExp) => (typeof text === 'string' ? { message: text } : text);

test('a plain pod gets account, token volume, tolerations and priority', async () => {
  const { admit, pod } = setup();
  const { spec } = (await admit({ resource: 'pods', object: pod() })) as Pod;
  assert.equal(spec!.serviceAccountName, 'default');
  assert.match(spec!.volumes![0]!.name, /^kube-api-access-[a-z0-9]{5}$/);
  assert.equal(spec!.volumes![0]!.projected!.sources![0]!.serviceAccountToken!.expirationSeconds, 3607);
  assert.deepEqual(spec!.containers[0]!.volumeMounts, [
    { name: spec!.volumes![0]!.name, readOnly: true, mountPath: '/var/run/secrets/kubernetes.io/serviceaccount' },
  ]);
  assert.deepEqual(
    spec!.tolerations!.map(toleration => [toleration.key, toleration.effect, toleration.tolerationSeconds]),
    [
      ['node.kubernetes.io/not-ready', 'NoExecute', 300],
      ['node.kubernetes.io/unreachable', 'NoExecute', 300],
    ],
  );
  assert.deepEqual([spec!.priority, spec!.preemptionPolicy], [0, 'PreemptLowerPriority']);
  const bare = (await admit({ resource: 'pods', object: pod({ automountServiceAccountToken: false }) })) as Pod;
  assert.equal(bare.spec!.volumes, undefined);
});

test('what concerns no plugin costs no turn of the event loop', async () => {
  const { admit, waited } = setup();
  const user = { name: 'somebody', groups: [] };
  for (const resource of ['configmaps', 'services', 'secrets'])
    await admit({ resource, user, object: { metadata: { name: 'x', namespace: 'ns' } } });
  assert.deepEqual([...waited], []);
});

test('a missing service account, and a default one that comes a moment later', async () => {
  const { reader, admit, pod } = setup();
  await assert.rejects(
    admit({ resource: 'pods', object: pod({ serviceAccountName: 'gone' }) }),
    message('pods "p" is forbidden: error looking up service account ns/gone: serviceaccount "gone" not found'),
  );
  reader.remove(SERVICE_ACCOUNTS, 'ns', 'default');
  const waiting = admit({ resource: 'pods', object: pod() });
  reader.put(SERVICE_ACCOUNTS, {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name: 'default', namespace: 'ns' },
  });
  assert.equal(((await waiting) as Pod).spec!.serviceAccountName, 'default');
});

test('namespaces: missing, terminating, immortal', async () => {
  const { reader, admit, pod } = setup();
  await assert.rejects(
    admit({ resource: 'pods', namespace: 'gone', object: pod() }),
    message('namespaces "gone" not found'),
  );
  reader.put(NAMESPACES, {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'ns' },
    status: { phase: 'Terminating' },
  } as never);
  await assert.rejects(admit({ resource: 'pods', object: pod() }), (error: ApiError) => {
    assert.equal(
      error.message,
      'pods "p" is forbidden: unable to create new content in namespace ns because it is being terminated',
    );
    assert.deepEqual(error.status.details!.causes, [
      { reason: 'NamespaceTerminating', message: 'namespace ns is being terminated', field: 'metadata.namespace' },
    ]);
    return true;
  });
  await assert.rejects(
    admit({ resource: 'namespaces', operation: 'DELETE', name: 'default' }),
    message('namespaces "default" is forbidden: this namespace may not be deleted'),
  );
});

test('priority classes', async () => {
  const { reader, admit, pod } = setup();
  await ensureBootstrapObjects(reader, reader);
  const critical = (await admit({
    resource: 'pods',
    object: pod({ priorityClassName: 'system-node-critical' }),
  })) as Pod;
  assert.equal(critical.spec!.priority, 2000001000);
  await assert.rejects(
    admit({ resource: 'pods', object: pod({ priorityClassName: 'x' }) }),
    message('pods "p" is forbidden: no PriorityClass with name x was found'),
  );
  await assert.rejects(
    admit({ resource: 'pods', object: pod({ priority: 5 }) }),
    /the integer value of priority \(5\) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name/,
  );
  reader.put(PRIORITY_CLASSES, {
    apiVersion: 'scheduling.k8s.io/v1',
    kind: 'PriorityClass',
    metadata: { name: 'usual' },
    value: 7,
    globalDefault: true,
  } as never);
  assert.deepEqual(((await admit({ resource: 'pods', object: pod() })) as Pod).spec!.priorityClassName, 'usual');
});

test('limit ranges default and refuse', async () => {
  const { reader, admit, pod } = setup();
  const limits = [{ type: 'Container', default: { cpu: '500m' }, defaultRequest: { cpu: '100m' }, max: { cpu: '1' } }];
  reader.put({ group: '', version: 'v1', resource: 'limitranges' }, {
    apiVersion: 'v1',
    kind: 'LimitRange',
    metadata: { name: 'l', namespace: 'ns' },
    spec: { limits },
  } as never);
  const defaulted = (await admit({ resource: 'pods', object: pod() })) as Pod;
  assert.deepEqual(defaulted.spec!.containers[0]!.resources, { requests: { cpu: '100m' }, limits: { cpu: '500m' } });
  assert.equal(
    defaulted.metadata.annotations!['kubernetes.io/limit-ranger'],
    'LimitRanger plugin set: cpu request for container c; cpu limit for container c',
  );
  const big = pod({ containers: [{ name: 'c', resources: { limits: { cpu: '2' } } }] });
  await assert.rejects(
    admit({ resource: 'pods', object: big }),
    message('pods "p" is forbidden: maximum cpu usage per Container is 1, but limit is 2'),
  );
});

test('quotas count what exists and what is under way', async () => {
  const { reader, admit, pod } = setup();
  reader.put({ group: '', version: 'v1', resource: 'resourcequotas' }, {
    apiVersion: 'v1',
    kind: 'ResourceQuota',
    metadata: { name: 'q', namespace: 'ns' },
    spec: { hard: { pods: '2', 'count/deployments.apps': '0' } },
  } as never);
  reader.put(PODS, pod({}, 'one') as never);
  await admit({ resource: 'pods', object: pod({}, 'two') });
  await assert.rejects(
    admit({ resource: 'pods', object: pod({}, 'three') }),
    message('pods "three" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2'),
  );
  await assert.rejects(
    admit({ group: 'apps', resource: 'deployments', object: { metadata: { name: 'd', namespace: 'ns' } } }),
    /deployments\.apps "d" is forbidden: exceeded quota: q, requested: count\/deployments\.apps=1, used: count\/deployments\.apps=0, limited: count\/deployments\.apps=0/,
  );
  reader.put({ group: '', version: 'v1', resource: 'resourcequotas' }, {
    apiVersion: 'v1',
    kind: 'ResourceQuota',
    metadata: { name: 'q', namespace: 'ns' },
    spec: { hard: { 'requests.cpu': '1', memory: '1Gi' } },
  } as never);
  await assert.rejects(
    admit({ resource: 'pods', object: pod({}, 'four') }),
    message('pods "four" is forbidden: failed quota: q: must specify memory for: c; requests.cpu for: c'),
  );
});

test('quotas of devices: by class, and by the extended resources that classes serve, for which pods are not counted twice', async () => {
  const { reader, admit, pod } = setup();
  const quota = (hard: Record<string, string>) =>
    reader.put({ group: '', version: 'v1', resource: 'resourcequotas' }, {
      apiVersion: 'v1',
      kind: 'ResourceQuota',
      metadata: { name: 'q', namespace: 'ns' },
      spec: { hard },
    } as never);
  reader.put(DEVICE_CLASSES, {
    apiVersion: 'resource.k8s.io/v1',
    kind: 'DeviceClass',
    metadata: { name: 'gpu' },
    spec: { extendedResourceName: 'example.com/gpu' },
  } as never);
  const exactly = (count: number) => ({ deviceClassName: 'gpu', allocationMode: 'ExactCount', count });
  const claim = (name: string, request: object, metadata: object = {}) => ({
    apiVersion: 'resource.k8s.io/v1',
    kind: 'ResourceClaim',
    metadata: { name, namespace: 'ns', ...metadata },
    spec: { devices: { requests: [request] } },
  });
  const make = (object: object) => admit({ group: 'resource.k8s.io', resource: 'resourceclaims', object });
  const BY_CLASS = 'gpu.deviceclass.resource.k8s.io/devices';
  const EXPLICIT = 'requests.example.com/gpu';
  const IMPLICIT = 'requests.deviceclass.resource.kubernetes.io/gpu';
  const exceeds = (name: string, requested: number) =>
    new RegExp(`exceeded quota: q, requested: ${name}=${requested}, used: ${name}=0, limited: ${name}=0`);

  const alternatives = [2, 3].map(count => ({ name: `of-${count}`, ...exactly(count) }));
  for (const name of [BY_CLASS, EXPLICIT, IMPLICIT]) {
    quota({ [name]: '0' });
    await assert.rejects(make(claim('two', { name: 'r', exactly: exactly(2) })), exceeds(name, 2));
    await assert.rejects(make(claim('most', { name: 'r', firstAvailable: alternatives })), exceeds(name, 3));
    const all = { deviceClassName: 'gpu', allocationMode: 'All' };
    await assert.rejects(make(claim('all', { name: 'r', exactly: all })), exceeds(name, 32));
  }

  const resources = { requests: { 'example.com/gpu': '2' }, limits: { 'example.com/gpu': '2' } };
  const asking = pod({ containers: [{ name: 'c', image: 'x', resources }] }, 'asking');
  quota({ [EXPLICIT]: '2' });
  reader.put(PODS, { ...asking, metadata: { ...asking.metadata, uid: 'u' } } as never);
  const owned = {
    annotations: { 'resource.kubernetes.io/extended-resource-claim': 'true' },
    ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name: 'asking', uid: 'u', controller: true }],
  };
  const extended = (count: number) =>
    claim('extended', { name: 'container-0-request-0', exactly: exactly(count) }, owned);
  await make(extended(2));
  await assert.rejects(make(extended(3)), /requested: requests.example.com\/gpu=3, used: requests.example.com\/gpu=2/);
  quota({ [IMPLICIT]: '0' });
  await assert.rejects(make(extended(2)), exceeds(IMPLICIT, 2));
});

test('what comes into the scope of a quota by an update counts as a whole there', async () => {
  const { reader, admit, pod } = setup();
  reader.put({ group: '', version: 'v1', resource: 'resourcequotas' }, {
    apiVersion: 'v1',
    kind: 'ResourceQuota',
    metadata: { name: 'q', namespace: 'ns' },
    spec: { hard: { pods: '1' }, scopes: ['Terminating'] },
  } as never);
  const ending = { activeDeadlineSeconds: 9 };
  reader.put(PODS, pod(ending, 'one') as never);
  reader.put(PODS, pod({}, 'two') as never);
  const update = (old: object) =>
    admit({ resource: 'pods', operation: 'UPDATE', object: pod(ending, 'two'), old: pod(old, 'two') });
  await assert.rejects(
    update({}),
    message('pods "two" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1'),
  );
  await update({ activeDeadlineSeconds: 10 });
});

test('huge pages: quotas and limit ranges count what containers or the pod itself ask for', async () => {
  const { reader, admit, pod } = setup();
  reader.put({ group: '', version: 'v1', resource: 'resourcequotas' }, {
    apiVersion: 'v1',
    kind: 'ResourceQuota',
    metadata: { name: 'q', namespace: 'ns' },
    spec: { hard: { 'requests.hugepages-2Mi': '8Mi' } },
  } as never);
  const pages = (amount: string) => {
    const list = { memory: '64Mi', 'hugepages-2Mi': amount };
    return { limits: list, requests: list };
  };
  const huge = (own: string, ofPod?: string) =>
    pod({
      containers: [{ name: 'c', resources: pages(own) }],
      ...(ofPod === undefined ? {} : { resources: pages(ofPod) }),
    });
  await admit({ resource: 'pods', object: huge('8Mi') });
  const exceeded = message(
    'pods "p" is forbidden: exceeded quota: q, requested: requests.hugepages-2Mi=10Mi, used: requests.hugepages-2Mi=8Mi, limited: requests.hugepages-2Mi=8Mi',
  );
  await assert.rejects(admit({ resource: 'pods', object: huge('10Mi') }), exceeded);
  await assert.rejects(admit({ resource: 'pods', object: huge('2Mi', '10Mi') }), exceeded);
  reader.put({ group: '', version: 'v1', resource: 'limitranges' }, {
    apiVersion: 'v1',
    kind: 'LimitRange',
    metadata: { name: 'l', namespace: 'ns' },
    spec: { limits: [{ type: 'Pod', max: { 'hugepages-2Mi': '4Mi' } }] },
  } as never);
  const tooMany = message('pods "p" is forbidden: maximum hugepages-2Mi usage per Pod is 4Mi, but limit is 6Mi');
  await assert.rejects(admit({ resource: 'pods', object: huge('6Mi') }), tooMany);
  await assert.rejects(admit({ resource: 'pods', object: huge('2Mi', '6Mi') }), tooMany);
});

test('a kubelet writes only what is its own', async () => {
  const { reader, admit, pod } = setup();
  const user = { name: 'system:node:n1', groups: ['system:nodes'] };
  const node = (name: string, labels = {}) => ({ apiVersion: 'v1', kind: 'Node', metadata: { name, labels } });
  await assert.rejects(
    admit({ user, resource: 'nodes', object: node('n2') }),
    message('nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"'),
  );
  await assert.rejects(
    admit({ user, resource: 'nodes', object: node('n1', { 'node-role.kubernetes.io/x': '' }) }),
    /node "n1" is not allowed to set the following labels: node-role\.kubernetes\.io\/x/,
  );
  const created = (await admit({
    user,
    resource: 'nodes',
    object: node('n1', { 'kubernetes.io/hostname': 'n1' }),
  })) as { spec: { taints: object[] } };
  assert.deepEqual(created.spec.taints, [{ key: 'node.kubernetes.io/not-ready', effect: 'NoSchedule' }]);
  await assert.rejects(admit({ user, resource: 'pods', object: pod() }), /node "n1" can only create mirror pods/);
  const bound = reader.put(PODS, pod({ nodeName: 'n2' }) as never);
  await assert.rejects(
    admit({ user, resource: 'pods', operation: 'DELETE', name: 'p' }),
    /can only delete pods with spec\.nodeName set to itself/,
  );
  await assert.rejects(
    admit({
      user,
      resource: 'serviceaccounts',
      subresource: 'token',
      object: {
        metadata: { name: 'default' },
        spec: { boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: 'p', uid: bound.metadata.uid } },
      },
    }),
    /node requested token bound to a pod scheduled on a different node/,
  );
});

test('a node asks for certificates of its own only, and tells of claims how large they are', async () => {
  const { admit } = setup();
  const user = { name: 'system:node:n1', groups: ['system:nodes'] };
  const ask = (commonName: string, signer: string, request?: string) =>
    admit({
      user,
      group: 'certificates.k8s.io',
      resource: 'certificatesigningrequests',
      object: {
        metadata: { name: 'r' },
        spec: {
          signerName: signer,
          request: request ?? makeRequest({ commonName, organizations: ['system:nodes'] }).request,
        },
      },
    });
  for (const signer of ['kubernetes.io/kubelet-serving', 'kubernetes.io/kube-apiserver-client-kubelet']) {
    await ask('system:node:n1', signer);
    await assert.rejects(ask('system:node:n2', signer), /can only create a node CSR with CN=system:node:n1$/);
    await assert.rejects(
      ask('', signer, btoa('none')),
      /unable to parse csr: PEM block type must be CERTIFICATE REQUEST$/,
    );
  }
  await ask('somebody', 'example.com/own');

  const claim = (parts: object, metadata: object = {}) => ({
    metadata: { name: 'c', namespace: 'ns', ...metadata },
    spec: { accessModes: ['ReadWriteOnce'] },
    status: { phase: 'Bound', capacity: { storage: '1Gi' }, ...parts },
  });
  const tell = (object: object, subresource = 'status') =>
    admit({
      user,
      resource: 'persistentvolumeclaims',
      subresource,
      operation: 'UPDATE',
      name: 'c',
      object,
      old: claim({}),
    });
  await tell(claim({ capacity: { storage: '2Gi' }, conditions: [{ type: 'Resizing', status: 'True' }] }));
  await assert.rejects(
    tell(claim({ phase: 'Lost' })),
    /node "n1" is not allowed to update fields other than status.quantity and status.conditions: /,
  );
  await assert.rejects(tell(claim({}, { labels: { mine: 'now' } })), /is not allowed to update fields other than/);
  await assert.rejects(tell(claim({}), ''), /may only update PVC status$/);
});

test('a node gets at no resource claim by a mirror pod or by the status of a pod (CVE-2025-4563)', async () => {
  const { admit, pod } = setup();
  const user = { name: 'system:node:n1', groups: ['system:nodes'] };
  const mirror = (spec: object) => ({
    ...pod({ nodeName: 'n1', ...spec }),
    metadata: {
      name: 'p',
      namespace: 'ns',
      annotations: { 'kubernetes.io/config.mirror': 'x' },
      ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: 'n1', uid: 'u', controller: true }],
    },
  });
  await admit({ user, resource: 'pods', object: mirror({}) });
  for (const source of [{ resourceClaimName: 'c' }, { resourceClaimTemplateName: 't' }])
    await assert.rejects(
      admit({ user, resource: 'pods', object: mirror({ resourceClaims: [{ name: 'one', ...source }] }) }),
      /node "n1" can not create pods that reference resourceclaims/,
    );
  const old = pod({ nodeName: 'n1' });
  const update = (status: object, before: object = {}) =>
    admit({
      user,
      resource: 'pods',
      subresource: 'status',
      operation: 'UPDATE',
      name: 'p',
      object: { ...old, status },
      old: { ...old, status: before },
    });
  const claims = { resourceClaimStatuses: [{ name: 'one', resourceClaimName: 'c' }] };
  await update({ ...claims, phase: 'Running' }, claims);
  await assert.rejects(update(claims), /node "n1" cannot update resource claim statuses/);
  await assert.rejects(update({}, claims), /node "n1" cannot update resource claim statuses/);
  await assert.rejects(
    update({ extendedResourceClaimStatus: { resourceClaimName: 'c', requestMappings: [] } }),
    /node "n1" cannot update extended resource claim status/,
  );
});

test('a node asks tokens for audiences that its pods name, and for others with the right to', async () => {
  const { reader, admit, pod } = setup();
  const user = { name: 'system:node:n1', groups: ['system:nodes'] };
  const token = (audience: string) => ({
    serviceAccountToken: { path: audience || 'own', ...(audience ? { audience } : {}) },
  });
  const volumes = [
    { name: 'tokens', projected: { sources: [token(''), token('vault')] } },
    { name: 'inline', csi: { driver: 'inline.example.com' } },
    { name: 'disk', persistentVolumeClaim: { claimName: 'c' } },
    { name: 'own', ephemeral: { volumeClaimTemplate: { spec: {} } } },
    { name: 'cloud', persistentVolumeClaim: { claimName: 'ebs' } },
  ];
  const { uid } = reader.put(PODS, pod({ nodeName: 'n1', volumes }) as never).metadata;
  const driver = (name: string, audience: string) =>
    reader.put(CSI_DRIVERS, { metadata: { name }, spec: { tokenRequests: [{ audience }] } } as never);
  const claim = (name: string, source: object) => {
    reader.put(PERSISTENT_VOLUME_CLAIMS, {
      metadata: { name, namespace: 'ns' },
      spec: { volumeName: `pv-${name}` },
    } as never);
    reader.put(PERSISTENT_VOLUMES, { metadata: { name: `pv-${name}` }, spec: source } as never);
  };
  driver('inline.example.com', 'of-inline');
  driver('disk.example.com', 'of-disk');
  driver('ebs.csi.aws.com', 'of-cloud');
  claim('c', { csi: { driver: 'disk.example.com', volumeHandle: 'x' } });
  claim('p-own', { csi: { driver: 'disk.example.com', volumeHandle: 'y' } });
  claim('ebs', { awsElasticBlockStore: { volumeID: 'vol-1' } });
  const ask = (...audiences: string[]) =>
    admit({
      user,
      resource: 'serviceaccounts',
      subresource: 'token',
      name: 'default',
      object: {
        metadata: { name: 'default' },
        spec: { audiences, boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: 'p', uid } },
      },
    });
  await ask();
  for (const audience of ['vault', 'of-inline', 'of-disk', 'of-cloud']) await ask(audience);
  const refused = message(
    'serviceaccounts "default" is forbidden: audience "registry" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience',
  );
  await assert.rejects(ask('registry'), refused);
  await assert.rejects(ask('vault', 'of-disk'), /node may only request 0 or 1 audiences/);
  const RBAC = 'rbac.authorization.k8s.io';
  reader.put(CLUSTER_ROLES, {
    apiVersion: `${RBAC}/v1`,
    kind: 'ClusterRole',
    metadata: { name: 'registry-tokens' },
    rules: [{ verbs: ['request-serviceaccounts-token-audience'], apiGroups: [''], resources: ['registry'] }],
  } as never);
  reader.put(CLUSTER_ROLE_BINDINGS, {
    apiVersion: `${RBAC}/v1`,
    kind: 'ClusterRoleBinding',
    metadata: { name: 'registry-tokens' },
    subjects: [{ kind: 'Group', name: 'system:nodes' }],
    roleRef: { kind: 'ClusterRole', name: 'registry-tokens' },
  } as never);
  await ask('registry');
  await assert.rejects(ask('other'), /audience "other" not found/);
});

test('nobody grants more than they have', async () => {
  const { reader, admit } = setup();
  const RBAC = 'rbac.authorization.k8s.io';
  const rules = [{ verbs: ['create', 'get'], apiGroups: [RBAC, ''], resources: ['roles', 'rolebindings', 'pods'] }];
  reader.put(CLUSTER_ROLES, { apiVersion: `${RBAC}/v1`, kind: 'ClusterRole', metadata: { name: 'r' }, rules } as never);
  reader.put(CLUSTER_ROLE_BINDINGS, {
    apiVersion: `${RBAC}/v1`,
    kind: 'ClusterRoleBinding',
    metadata: { name: 'b' },
    subjects: [{ kind: 'User', name: 'jane' }],
    roleRef: { kind: 'ClusterRole', name: 'r' },
  } as never);
  const user = { name: 'jane', groups: ['system:authenticated'] };
  const role = (wanted: object) => ({ metadata: { name: 'new', namespace: 'ns' }, rules: [wanted] });
  await admit({
    user,
    group: RBAC,
    resource: 'roles',
    object: role({ verbs: ['get'], apiGroups: [''], resources: ['pods'] }),
  });
  await assert.rejects(
    admit({
      user,
      group: RBAC,
      resource: 'roles',
      object: role({ verbs: ['get'], apiGroups: [''], resources: ['secrets'] }),
    }),
    message(
      'roles.rbac.authorization.k8s.io "new" is forbidden: user "jane" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}',
    ),
  );
  reader.put(CLUSTER_ROLES, {
    apiVersion: `${RBAC}/v1`,
    kind: 'ClusterRole',
    metadata: { name: 'all' },
    rules: [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'] }],
  } as never);
  await assert.rejects(
    admit({
      user,
      group: RBAC,
      resource: 'rolebindings',
      object: { metadata: { name: 'x', namespace: 'ns' }, roleRef: { kind: 'ClusterRole', name: 'all' }, subjects: [] },
    }),
    /attempting to grant RBAC permissions not currently held/,
  );
});

test('a pod is not given resources of its own that its node cannot change', async () => {
  const { reader, admit, pod } = setup();
  const resources = (cpu: string) => ({ nodeName: 'n', resources: { requests: { cpu }, limits: { cpu } } });
  const resize = () =>
    admit({
      resource: 'pods',
      subresource: 'resize',
      operation: 'UPDATE',
      name: 'p',
      object: pod(resources('2')),
      old: pod(resources('1')),
    });
  await assert.rejects(resize(), message('pods "p" is forbidden: node "n" not found'));
  const put = (declaredFeatures: string[], cpu = '4') =>
    reader.put(NODES, {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name: 'n', labels: { 'kubernetes.io/os': 'linux' } },
      status: { declaredFeatures, allocatable: { cpu, memory: '1Gi' } },
    } as never);
  put([]);
  await assert.rejects(
    resize(),
    message(
      'pods "p" is forbidden: pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node "n"',
    ),
  );
  put(['InPlacePodLevelResourcesVerticalScaling']);
  await resize();
  put(['InPlacePodLevelResourcesVerticalScaling'], '1500m');
  await assert.rejects(
    resize(),
    message(
      'pods "p" is forbidden: Node didn\'t have enough allocatable resources: cpu, requested: 2000, allocatable: 1500',
    ),
  );
});

test('parameters of policies are for who may read them', async () => {
  const { reader, admit } = setup();
  const grant = (user: string, rule: object) => {
    const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: user };
    const subjects = [{ kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: user }];
    const metadata = { name: user };
    reader.put(CLUSTER_ROLES, { kind: 'ClusterRole', metadata, rules: [rule] } as never);
    reader.put(CLUSTER_ROLE_BINDINGS, { kind: 'ClusterRoleBinding', metadata, roleRef, subjects } as never);
  };
  grant('all', { apiGroups: [''], resources: ['*'], verbs: ['get'] });
  grant('one', { apiGroups: [''], resources: ['*'], verbs: ['get'], resourceNames: ['limits'] });
  const write = (user: string, resource: string, spec: object, old?: object) =>
    admit({
      group: 'admissionregistration.k8s.io',
      resource,
      namespace: '',
      name: 'p',
      user: { name: user, groups: ['system:authenticated'] },
      object: { kind: 'Policy', metadata: { name: 'p' }, spec },
      ...(old ? { operation: 'UPDATE' as const, old: { kind: 'Policy', metadata: { name: 'p' }, spec: old } } : {}),
    });
  const paramKind = { apiVersion: 'v1', kind: 'Secret' };
  const paramRef = { name: 'limits', namespace: 'ns', parameterNotFoundAction: 'Deny' };
  for (const kind of ['validating', 'mutating']) {
    const policies = `${kind}admissionpolicies`;
    const bindings = `${kind}admissionpolicybindings`;
    await write('all', policies, { paramKind });
    await write('nobody', policies, {});
    await write('nobody', policies, { paramKind }, { paramKind });
    await assert.rejects(
      write('one', policies, { paramKind }),
      /spec\.paramKind: Forbidden: user &\{one {2}\[system:authenticated\] map\[\]\} must have "get" permission on all objects of the referenced paramKind \(kind=Secret, apiVersion=v1\)/,
    );
    reader.put({ group: 'admissionregistration.k8s.io', version: 'v1', resource: policies }, {
      kind: 'Policy',
      metadata: { name: 'p' },
      spec: { paramKind },
    } as never);
    await write('nobody', bindings, { policyName: 'p' });
    await write('one', bindings, { policyName: 'p', paramRef });
    await assert.rejects(write('one', bindings, { policyName: 'p', paramRef: { ...paramRef, name: 'others' } }));
    await assert.rejects(write('all', bindings, { policyName: 'unknown', paramRef }));
    await write('nobody', bindings, { policyName: 'p', paramRef }, { policyName: 'p', paramRef });
    await assert.rejects(
      write('nobody', bindings, { policyName: 'other', paramRef }, { policyName: 'p', paramRef }),
      /spec\.paramRef: Forbidden: user &\{nobody .* does not have "get" permission on the object referenced by paramRef/,
    );
  }
});

test('admin access to devices is for namespaces that are labelled for it', async () => {
  const { reader, admit } = setup();
  const devices = { requests: [{ name: 'r', exactly: { deviceClassName: 'c', adminAccess: true } }] };
  const label = (value: string | undefined) =>
    reader.put(NAMESPACES, {
      kind: 'Namespace',
      metadata: { name: 'ns', labels: value ? { 'resource.kubernetes.io/admin-access': value } : {} },
    } as never);
  const write = (resource: string, kind: string, parts: object, old?: object) => {
    const of = (more: object) => ({ kind, metadata: { name: 'c', namespace: 'ns' }, ...more });
    return admit({
      group: 'resource.k8s.io',
      resource,
      namespace: 'ns',
      name: 'c',
      user: { name: 'admin', groups: ['system:masters'] },
      object: of(parts),
      ...(old ? { operation: 'UPDATE', verb: 'update', subresource: 'status', old: of(old) } : {}),
    } as never);
  };
  const claim = (of: object = devices) => write('resourceclaims', 'ResourceClaim', { spec: { devices: of } });
  const template = () => write('resourceclaimtemplates', 'ResourceClaimTemplate', { spec: { spec: { devices } } });
  const status = { allocation: { devices: { results: [{ request: 'r', adminAccess: true }] } } };
  const allocate = (old: object = {}) => write('resourceclaims', 'ResourceClaim', { status }, { status: old });
  const why =
    'Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace';
  const refusal = (path: string) => (error: Error) => error.message.includes(`${path}.adminAccess: ${why}`);
  for (const value of [undefined, 'false']) {
    label(value);
    await assert.rejects(claim(), refusal('spec.devices.requests[0]'));
    await assert.rejects(template(), refusal('spec.devices.requests[0]'));
    await assert.rejects(allocate(), refusal('status.allocation.devices.results[0]'));
    await claim({ requests: [{ name: 'r', exactly: { deviceClassName: 'c', adminAccess: false } }] });
    await allocate(status);
  }
  label('true');
  await claim();
  await template();
  await allocate();
});

test("a claim's allocation is the scheduler's to write, its devices are their driver's, on its own node", async () => {
  const { reader, admit } = setup();
  const rule = (resources: string[], verbs: string[], resourceNames?: string[]) => ({
    apiGroups: ['resource.k8s.io'],
    resources,
    verbs,
    ...(resourceNames ? { resourceNames } : {}),
  });
  const grant = (name: string, user: string, rules: object[]) => {
    reader.put(CLUSTER_ROLES, { kind: 'ClusterRole', metadata: { name }, rules } as never);
    reader.put(CLUSTER_ROLE_BINDINGS, {
      kind: 'ClusterRoleBinding',
      metadata: { name },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name },
      subjects: [{ kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: user }],
    } as never);
  };
  const driver = 'system:serviceaccount:ns:driver';
  grant('binder', 'binder', [rule(['resourceclaims/binding'], ['update'])]);
  grant('driver', driver, [rule(['resourceclaims/driver'], ['associated-node:update'], ['d.example'])]);
  const nodeSelector = {
    nodeSelectorTerms: [{ matchFields: [{ key: 'metadata.name', operator: 'In', values: ['n'] }] }],
  };
  const allocated = { allocation: { nodeSelector } };
  const device = (name: string) => ({ driver: name, pool: 'p', device: 'x' });
  const write = (user: UserInfo, status: object, before: object = {}) =>
    admit({
      group: 'resource.k8s.io',
      resource: 'resourceclaims',
      subresource: 'status',
      operation: 'UPDATE',
      verb: 'update',
      name: 'c',
      user,
      object: { kind: 'ResourceClaim', metadata: { name: 'c', namespace: 'ns' }, status },
      old: { kind: 'ResourceClaim', metadata: { name: 'c', namespace: 'ns' }, status: before },
    });
  const on = (node: string): UserInfo => ({
    name: driver,
    groups: [],
    extra: { 'authentication.kubernetes.io/node-name': [node] },
  });
  await write({ name: 'binder', groups: [] }, allocated);
  await assert.rejects(
    write(on('n'), allocated),
    /status: Forbidden: changing status.allocation or status.reservedFor requires resource="resourceclaims\/binding", verb="update" permission: User "system:serviceaccount:ns:driver" cannot update resource "resourceclaims\/binding"/,
  );
  await write(on('n'), { ...allocated, devices: [device('d.example')] }, allocated);
  await assert.rejects(
    write(on('n'), { ...allocated, devices: [device('other.example')] }, allocated),
    /status.devices: Forbidden: .*verb="associated-node:update" permission for driver "other.example"/,
  );
  await assert.rejects(
    write(on('m'), allocated, { ...allocated, devices: [device('d.example')] }),
    /verb="arbitrary-node:update" permission for driver "d.example"/,
  );
});

test('the status of a quota of devices follows the extended resource that a class serves', async () => {
  const reader = new FakeReader();
  const clock = new VirtualClock();
  const context = {
    reader: () => reader,
    transport: () => reader,
    authorizer: new AuthorizerChain(() => reader),
    clock,
    random: seededRandom(3),
    log: silentLogger,
  };
  const QUOTAS = { group: '', version: 'v1', resource: 'resourcequotas' };
  const name = 'requests.example.com/gpu';
  const serve = (spec: object) =>
    reader.put(DEVICE_CLASSES, {
      apiVersion: 'resource.k8s.io/v1',
      kind: 'DeviceClass',
      metadata: { name: 'gpu' },
      spec,
    } as never);
  const used = async () => {
    await clock.advance(200);
    return (reader.get(QUOTAS, 'ns', 'q') as ResourceQuotaObject).status?.used;
  };
  reader.put(QUOTAS, {
    apiVersion: 'v1',
    kind: 'ResourceQuota',
    metadata: { name: 'q', namespace: 'ns' },
    spec: { hard: { [name]: '9' } },
  } as never);
  reader.put(RESOURCE_CLAIMS, {
    apiVersion: 'resource.k8s.io/v1',
    kind: 'ResourceClaim',
    metadata: { name: 'c', namespace: 'ns' },
    spec: {
      devices: {
        requests: [{ name: 'r', exactly: { deviceClassName: 'gpu', allocationMode: 'ExactCount', count: 2 } }],
      },
    },
  } as never);
  serve({});
  new ResourceQuota(context).start();
  assert.deepEqual(await used(), { [name]: '0' });
  serve({ extendedResourceName: 'example.com/gpu' });
  assert.deepEqual(await used(), { [name]: '2' });
  reader.remove(DEVICE_CLASSES, '', 'gpu');
  assert.deepEqual(await used(), { [name]: '0' });
});
