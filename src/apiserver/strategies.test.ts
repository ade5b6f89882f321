/**
 * What upstream's strategies have in common, for every resource that discovery lists: the status is not written through the main
 * resource and nothing else through `/status`, and metadata.generation rises exactly when something else is asked for. A resource
 * without a case here fails the test.
 */

import { strict as assert } from 'node:assert';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import type { KubeObject } from '../api/meta.ts';
import { builtinResources, optionalResources } from '../api/resources.ts';
import type { ResourceInfo } from '../api/schema.ts';
import { systemClock, VirtualClock } from '../base/clock.ts';
import { isReason } from '../base/errors.ts';
import { seededRandom } from '../base/random.ts';
import { DAEMON_SETS, PODS } from '../client/resources.ts';
import type { Target, Transport } from '../client/transport.ts';
import { openMemoryStore } from '../store/memory.ts';
import { issueCertificate, newKey } from './certificates/certificate.ts';
import { makeRequest } from './certificates/signing-request.ts';
import { type AdmissionPlugin, LOOPBACK_USER } from './request.ts';
import { ApiServer } from './server.ts';

// biome-ignore lint/suspicious/noExplicitAny: objects of all kinds
type Any = any;
type Fields = Readonly<Record<string, unknown>>;

interface Case {
  readonly name?: string;
  readonly body?: Fields;
  /** Fields that ask for something else, in the place of those of the body. */
  readonly change?: Fields;
  /** As it is created, and after the change; absent for kinds that count no generations. */
  readonly generations?: readonly [number | undefined, number];
  /** A status that is valid after the change. */
  readonly status?: Fields;
  /** Who makes the object tells its status with it. */
  readonly comesWithStatus?: true;
}

const labels = { a: 'b' };
const podSpec = { containers: [{ name: 'c', image: 'i' }] };
const template = (image = 'i') => ({ metadata: { labels }, spec: { containers: [{ name: 'c', image }] } });
const selector = { matchLabels: labels };
const condition = {
  type: 'Told',
  status: 'True',
  reason: 'Test',
  message: 'm',
  lastTransitionTime: '2026-01-01T00:00:00Z',
};
const conditions = { conditions: [condition] };
const counted = [1, 2] as const;
const once = [1, 1] as const;
const policy = (failurePolicy: string) => ({
  failurePolicy,
  matchConstraints: {
    resourceRules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
  },
});
const webhooks = (timeoutSeconds: number) => [
  {
    name: 'a.b.c',
    clientConfig: { url: 'https://a.example' },
    sideEffects: 'None',
    admissionReviewVersions: ['v1'],
    timeoutSeconds,
  },
];
const definition = (shortNames: string[]) => ({
  group: 'x.example',
  scope: 'Namespaced',
  names: { plural: 'things', kind: 'Thing', shortNames },
  versions: [{ name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: { type: 'object' } } }],
});
const slice = (count: number) => ({
  driver: 'd.example',
  nodeName: 'n',
  pool: { name: 'p', generation: count, resourceSliceCount: 1 },
});
const key = newKey();
const { request } = makeRequest({ commonName: 'x' }, [], key);
const authority = issueCertificate(
  {
    subject: { commonName: 'ca' },
    usages: ['authority'],
    notBeforeMs: systemClock.now(),
    notAfterMs: systemClock.now() + 3_600_000,
  },
  key.publicKey,
  { selfKey: key.privateKey },
);
const scaled = { replicas: 0, ...conditions };
const flowRules = [
  {
    subjects: [{ kind: 'Group', group: { name: 'g' } }],
    nonResourceRules: [{ verbs: ['get'], nonResourceURLs: ['/x'] }],
  },
];

const CASES: Readonly<Record<string, Case>> = {
  '/ConfigMap': { change: { data: { a: 'b' } } },
  '/Endpoints': { change: { subsets: [{ addresses: [{ ip: '10.0.0.1' }], ports: [{ port: 1 }] }] } },
  '/Event': { body: { involvedObject: { namespace: 'default', kind: 'Pod', name: 'p' } }, change: { reason: 'r' } },
  '/LimitRange': { body: { spec: { limits: [] } }, change: { spec: { limits: [{ type: 'Pod', max: { cpu: '1' } }] } } },
  '/Namespace': { status: { phase: 'Active', ...conditions } },
  '/Node': { change: { spec: { unschedulable: true } }, status: conditions, comesWithStatus: true },
  '/PersistentVolumeClaim': {
    body: { spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } } },
    status: { phase: 'Pending', ...conditions },
  },
  '/PersistentVolume': {
    body: { spec: { accessModes: ['ReadWriteOnce'], capacity: { storage: '1Gi' }, hostPath: { path: '/x' } } },
    change: {
      spec: { accessModes: ['ReadWriteMany'], capacity: { storage: '1Gi' }, hostPath: { path: '/x' } },
    },
    status: { phase: 'Available', reason: 'Told' },
  },
  '/Pod': {
    body: { spec: podSpec },
    change: { spec: { containers: [{ name: 'c', image: 'j' }] } },
    generations: counted,
    status: { phase: 'Running', ...conditions },
  },
  '/PodTemplate': { body: { template: template() }, change: { template: template('j') }, generations: counted },
  '/ReplicationController': {
    body: { spec: { selector: labels, template: template() } },
    change: { spec: { replicas: 2, selector: labels, template: template() } },
    generations: counted,
    status: scaled,
  },
  '/ResourceQuota': { body: { spec: {} }, change: { spec: { hard: { pods: '1' } } }, status: { used: { pods: '7' } } },
  '/Secret': { change: { data: { a: 'Yg==' } } },
  '/ServiceAccount': { change: { automountServiceAccountToken: false } },
  '/Service': {
    body: { spec: { clusterIP: 'None', clusterIPs: ['None'] } },
    change: { spec: { clusterIP: 'None', clusterIPs: ['None'], selector: labels } },
    status: conditions,
  },
  'apiregistration.k8s.io/APIService': {
    name: 'v1.x.example',
    body: { spec: { group: 'x.example', version: 'v1', groupPriorityMinimum: 10, versionPriority: 10 } },
    change: { spec: { group: 'x.example', version: 'v1', groupPriorityMinimum: 20, versionPriority: 10 } },
    status: conditions,
  },
  'apps/ControllerRevision': { body: { data: {}, revision: 1 }, change: { revision: 2 } },
  'apps/DaemonSet': {
    body: { spec: { selector, template: template() } },
    change: { spec: { selector, template: template('j') } },
    generations: counted,
    status: { numberReady: 7, ...conditions },
  },
  'apps/Deployment': {
    body: { spec: { selector, template: template() } },
    change: { spec: { selector, template: template('j') } },
    generations: counted,
    status: conditions,
  },
  'apps/ReplicaSet': {
    body: { spec: { selector, template: template() } },
    change: { spec: { replicas: 2, selector, template: template() } },
    generations: counted,
    status: scaled,
  },
  'apps/StatefulSet': {
    body: { spec: { selector, template: template(), serviceName: 's' } },
    change: { spec: { selector, template: template('j'), serviceName: 's' } },
    generations: counted,
    status: scaled,
  },
  'autoscaling/HorizontalPodAutoscaler': {
    body: { spec: { maxReplicas: 2, scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'd' } } },
    change: { spec: { maxReplicas: 3, scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'd' } } },
    status: { currentReplicas: 7, desiredReplicas: 7 },
  },
  'batch/CronJob': {
    body: {
      spec: {
        schedule: '* * * * *',
        jobTemplate: { spec: { template: { spec: { ...podSpec, restartPolicy: 'Never' } } } },
      },
    },
    change: {
      spec: {
        schedule: '1 * * * *',
        jobTemplate: { spec: { template: { spec: { ...podSpec, restartPolicy: 'Never' } } } },
      },
    },
    generations: counted,
    status: { lastScheduleTime: '2026-01-01T00:00:00Z' },
  },
  'batch/Job': {
    body: { spec: { template: { spec: { ...podSpec, restartPolicy: 'Never' } } } },
    generations: counted,
    status: { active: 0, failed: 0, ...conditions },
  },
  'certificates.k8s.io/CertificateSigningRequest': {
    body: { spec: { request, signerName: 'x.example/y', usages: ['client auth'] } },
    status: { conditions: [{ ...condition, type: 'Failed' }] },
  },
  'certificates.k8s.io/ClusterTrustBundle': { body: { spec: { trustBundle: authority } } },
  'certificates.k8s.io/PodCertificateRequest': {
    body: {
      spec: {
        signerName: 'x.example/y',
        podName: 'p',
        podUID: 'u',
        serviceAccountName: 's',
        serviceAccountUID: 'u',
        nodeName: 'n',
        nodeUID: 'u',
        stubPKCS10Request: Buffer.from(request, 'base64')
          .toString()
          .replace(/-----[^-]*-----|\s/g, ''),
      },
    },
    status: { conditions: [{ ...condition, type: 'Denied' }] },
  },
  'networking.k8s.io/IngressClass': {
    body: { spec: { controller: 'a.b/c' } },
    change: { spec: { controller: 'a.b/c', parameters: { kind: 'K', name: 'n', scope: 'Cluster' } } },
    generations: counted,
  },
  'networking.k8s.io/Ingress': {
    body: { spec: { defaultBackend: { service: { name: 's', port: { number: 1 } } } } },
    change: { spec: { defaultBackend: { service: { name: 's', port: { number: 2 } } } } },
    generations: counted,
    status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } },
  },
  'networking.k8s.io/IPAddress': {
    name: '10.0.0.1',
    body: { spec: { parentRef: { resource: 'services', namespace: 'default', name: 's' } } },
  },
  'networking.k8s.io/NetworkPolicy': {
    body: { spec: { podSelector: {} } },
    change: { spec: { podSelector: selector } },
    generations: counted,
  },
  'networking.k8s.io/ServiceCIDR': { body: { spec: { cidrs: ['10.9.0.0/24'] } }, status: conditions },
  'policy/PodDisruptionBudget': {
    body: { spec: { minAvailable: 1 } },
    change: { spec: { minAvailable: 2 } },
    generations: counted,
    status: { expectedPods: 7, ...conditions },
  },
  'rbac.authorization.k8s.io/ClusterRoleBinding': {
    body: { roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'r' } },
    change: { subjects: [{ kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: 'u' }] },
  },
  'rbac.authorization.k8s.io/ClusterRole': {
    change: { rules: [{ verbs: ['get'], apiGroups: [''], resources: ['pods'] }] },
  },
  'rbac.authorization.k8s.io/RoleBinding': {
    body: { roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'r' } },
    change: { subjects: [{ kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: 'u' }] },
  },
  'rbac.authorization.k8s.io/Role': { change: { rules: [{ verbs: ['get'], apiGroups: [''], resources: ['pods'] }] } },
  'storage.k8s.io/CSIDriver': {
    body: { spec: { attachRequired: true } },
    change: { spec: { attachRequired: true, requiresRepublish: true } },
    generations: [undefined, 1],
  },
  'storage.k8s.io/CSINode': {
    body: { spec: { drivers: [] } },
    change: { spec: { drivers: [{ name: 'd.example', nodeID: 'n', topologyKeys: [] }] } },
  },
  'storage.k8s.io/CSIStorageCapacity': { body: { storageClassName: 's' }, change: { capacity: '1Gi' } },
  'storage.k8s.io/StorageClass': { body: { provisioner: 'p' }, change: { allowVolumeExpansion: true } },
  'storage.k8s.io/VolumeAttachment': {
    body: { spec: { attacher: 'd.example', nodeName: 'n', source: { persistentVolumeName: 'p' } } },
    status: { attached: true },
  },
  'storage.k8s.io/VolumeAttributesClass': { body: { driverName: 'd.example', parameters: { a: 'b' } } },
  'admissionregistration.k8s.io/MutatingAdmissionPolicy': {
    body: {
      spec: {
        ...policy('Fail'),
        reinvocationPolicy: 'Never',
        mutations: [{ patchType: 'ApplyConfiguration', applyConfiguration: { expression: 'Object{}' } }],
      },
    },
    change: {
      spec: {
        ...policy('Ignore'),
        reinvocationPolicy: 'Never',
        mutations: [{ patchType: 'ApplyConfiguration', applyConfiguration: { expression: 'Object{}' } }],
      },
    },
    generations: counted,
  },
  'admissionregistration.k8s.io/MutatingAdmissionPolicyBinding': {
    body: { spec: { policyName: 'p' } },
    change: { spec: { policyName: 'q' } },
    generations: counted,
  },
  'admissionregistration.k8s.io/MutatingWebhookConfiguration': {
    body: { webhooks: webhooks(1) },
    change: { webhooks: webhooks(2) },
    generations: counted,
  },
  'admissionregistration.k8s.io/ValidatingAdmissionPolicy': {
    body: { spec: { ...policy('Fail'), validations: [{ expression: 'true' }] } },
    change: { spec: { ...policy('Ignore'), validations: [{ expression: 'true' }] } },
    generations: counted,
    status: conditions,
  },
  'admissionregistration.k8s.io/ValidatingAdmissionPolicyBinding': {
    body: { spec: { policyName: 'p', validationActions: ['Deny'] } },
    change: { spec: { policyName: 'p', validationActions: ['Audit'] } },
    generations: counted,
  },
  'admissionregistration.k8s.io/ValidatingWebhookConfiguration': {
    body: { webhooks: webhooks(1) },
    change: { webhooks: webhooks(2) },
    generations: counted,
  },
  'apiextensions.k8s.io/CustomResourceDefinition': {
    name: 'things.x.example',
    body: { spec: definition([]) },
    change: { spec: definition(['th']) },
    generations: counted,
    status: { ...conditions, acceptedNames: { plural: 'things', kind: 'Thing' }, storedVersions: ['v1'] },
  },
  'scheduling.k8s.io/PriorityClass': { body: { value: 1 }, change: { description: 'd', value: 1 }, generations: once },
  'coordination.k8s.io/Lease': { body: { spec: {} }, change: { spec: { holderIdentity: 'h' } } },
  'node.k8s.io/RuntimeClass': {
    body: { handler: 'h' },
    change: { handler: 'h', scheduling: { nodeSelector: labels } },
  },
  'discovery.k8s.io/EndpointSlice': {
    body: { addressType: 'IPv4', endpoints: [] },
    change: { addressType: 'IPv4', endpoints: [{ addresses: ['10.0.0.1'] }] },
    generations: counted,
  },
  'flowcontrol.apiserver.k8s.io/FlowSchema': {
    body: { spec: { priorityLevelConfiguration: { name: 'l' }, matchingPrecedence: 5 } },
    change: { spec: { priorityLevelConfiguration: { name: 'l' }, matchingPrecedence: 5, rules: flowRules } },
    generations: counted,
    status: conditions,
  },
  'flowcontrol.apiserver.k8s.io/PriorityLevelConfiguration': {
    body: { spec: { type: 'Limited', limited: { nominalConcurrencyShares: 1, limitResponse: { type: 'Reject' } } } },
    change: { spec: { type: 'Limited', limited: { nominalConcurrencyShares: 2, limitResponse: { type: 'Reject' } } } },
    generations: counted,
    status: conditions,
  },
  'resource.k8s.io/DeviceClass': {
    body: { spec: {} },
    change: { spec: { selectors: [{ cel: { expression: 'true' } }] } },
    generations: counted,
  },
  'resource.k8s.io/ResourceClaim': {
    body: { spec: { devices: { requests: [{ name: 'r', exactly: { deviceClassName: 'c' } }] } } },
    status: {
      allocation: { devices: { results: [{ request: 'r', driver: 'd.example', pool: 'p', device: 'd' }] } },
    },
  },
  'resource.k8s.io/ResourceClaimTemplate': {
    body: { spec: { spec: { devices: { requests: [{ name: 'r', exactly: { deviceClassName: 'c' } }] } } } },
  },
  'resource.k8s.io/ResourceSlice': { body: { spec: slice(1) }, change: { spec: slice(2) }, generations: counted },
  'storagemigration.k8s.io/StorageVersionMigration': {
    body: { spec: { resource: { resource: 'pods' } } },
    status: conditions,
  },
};

const resources = [...builtinResources, ...optionalResources].filter(
  info => info.verbs.includes('update') && !info.storageVersion,
);
const idOf = ({ group, kind }: ResourceInfo) => `${group}/${kind}`;

test('every resource that can be updated has its case', () => {
  assert.deepEqual(
    resources.map(idOf).filter(id => !CASES[id]),
    [],
  );
  const known = new Set(resources.map(idOf));
  assert.deepEqual(
    Object.keys(CASES).filter(id => !known.has(id)),
    [],
  );
});

const edited = (object: KubeObject, fields: object): KubeObject =>
  ({ ...structuredClone(object), ...fields }) as KubeObject;
const withMetadata = (object: KubeObject, metadata: object): KubeObject =>
  edited(object, { metadata: { ...object.metadata, ...metadata } });

test('status and spec are written apart, and generations are counted', async t => {
  const server = await ApiServer.open({
    store: openMemoryStore(),
    clock: new VirtualClock(),
    random: seededRandom(1),
    optional: optionalResources,
  });
  const api = server.transport(LOOPBACK_USER);
  for (const info of resources) await t.test(idOf(info), () => check(api, info));
  await server.close();
});

/** Again where the server itself wrote in between: definitions get their status by the way. */
async function rewrite(api: Transport, target: Target, change: (current: KubeObject) => KubeObject): Promise<Any> {
  const { subresource: _, ...of } = target;
  for (;;) {
    try {
      return await api.update(target, change(await api.get(of)));
    } catch (error) {
      if (!isReason(error, 'Conflict')) throw error;
    }
  }
}

async function check(api: Transport, info: ResourceInfo): Promise<void> {
  const { name = 'x', body = {}, change = {}, generations, status, comesWithStatus } = CASES[idOf(info)]!;
  const hasStatus = info.subresources.some(subresource => subresource.name === 'status');
  assert.equal(hasStatus, status !== undefined, 'the case has a status');
  const of: Target = { of: info, ...(info.namespaced ? { namespace: 'default' } : {}), name };
  const ofStatus: Target = { ...of, subresource: 'status' };
  const head = { apiVersion: info.group ? `${info.group}/${info.version}` : info.version, kind: info.kind };
  const metadata = { name, generation: 7, finalizers: ['test.example/keep'] };
  const withStatus = hasStatus ? { status } : {};
  const isTold = (object: Any) => isDeepStrictEqual({ ...object.status, ...nonZero(status!) }, object.status);

  const made: Any = await api.create(of, { ...head, metadata, ...body, ...withStatus } as unknown as KubeObject);
  assert.equal(made.metadata.generation, generations?.[0], 'created');
  if (hasStatus) assert.equal(isTold(made), comesWithStatus ?? false, 'created with a status');

  const finalizers = [...metadata.finalizers, 'test.example/more'];
  const same = await rewrite(api, of, object => withMetadata(object, { finalizers, generation: 9 }));
  assert.equal(same.metadata.generation, generations?.[0], 'nothing else asked for');

  const otherwise = comesWithStatus ? { status: {} } : withStatus;
  const next = await rewrite(api, of, object => edited(object, { ...change, ...otherwise }));
  const asksMore = Object.keys(change).length > 0;
  assert.equal(next.metadata.generation, asksMore ? generations?.[1] : generations?.[0], 'changed');
  if (hasStatus) {
    const ways: Any[] = [
      next,
      await api.patch(of, otherwise, 'application/merge-patch+json'),
      await api.patch(of, { ...head, metadata: { name }, ...otherwise }, 'application/apply-patch+yaml', {
        fieldManager: 'test',
        force: true,
      }),
    ];
    for (const object of ways)
      assert.equal(isTold(object), comesWithStatus ?? false, 'a status through the main resource');

    const told = await rewrite(api, ofStatus, object =>
      edited(withMetadata(object, { generation: 9 }), { ...body, status }),
    );
    assert.ok(isTold(told), 'a status is written');
    const spec = (body as Any).spec ?? { x: 1 };
    const patched: Any = await api.patch(ofStatus, { spec }, 'application/merge-patch+json');
    for (const object of [told, patched]) {
      assert.deepEqual(object.spec, next.spec, 'a spec through /status');
      assert.equal(object.metadata.generation, next.metadata.generation, 'a generation by /status');
    }
  }
  const ending: Any = await api.delete(of);
  const before = next.metadata.generation;
  assert.equal(ending.metadata?.generation, before && before + 1, 'deleted');
}

/** Without what is not written because it is zero. */
function nonZero(status: Fields): Fields {
  return Object.fromEntries(Object.entries(status).filter(([, value]) => value !== 0));
}

test('what admission makes of an update is held to the same, and counts', async () => {
  const meddler: AdmissionPlugin = {
    name: 'meddler',
    mutate({ operation, object, replace }) {
      if (operation !== 'UPDATE') return;
      const copy: Any = structuredClone(object);
      copy.spec.activeDeadlineSeconds = 60;
      copy.status = { phase: 'Failed' };
      copy.metadata.generation = 12;
      replace!(copy);
    },
  };
  const store = openMemoryStore();
  const server = await ApiServer.open({ store, random: seededRandom(1), admission: [meddler] });
  const api = server.transport(LOOPBACK_USER);
  const of: Target = { of: PODS, namespace: 'default', name: 'p' };
  const made = await api.create(of, { metadata: { name: 'p' }, spec: podSpec } as unknown as KubeObject);
  const next: Any = await api.update(of, withMetadata(made, { labels }));
  assert.deepEqual([next.spec.activeDeadlineSeconds, next.status.phase, next.metadata.generation], [60, 'Pending', 2]);
  const ofStatus: Target = { ...of, subresource: 'status' };
  const told: Any = await api.update(ofStatus, edited(next, { status: { phase: 'Running' } }));
  assert.deepEqual([told.status.phase, told.metadata.generation], ['Failed', 2]);
  await server.close();
});

test('containers added for debugging and other resources are a new generation of a pod; a label is none', async () => {
  const server = await ApiServer.open({ store: openMemoryStore(), random: seededRandom(1) });
  const api = server.transport(LOOPBACK_USER);
  const of: Target = { of: PODS, namespace: 'default', name: 'p' };
  const resources = (cpu: string) => ({
    spec: { containers: [{ name: 'c', image: 'i', resources: { requests: { cpu } } }] },
  });
  await api.create(of, { metadata: { name: 'p' }, ...resources('1') } as unknown as KubeObject);
  const patch = async (subresource: string, body: object) =>
    (
      await api.patch(
        { ...of, ...(subresource ? { subresource } : {}) },
        body,
        'application/strategic-merge-patch+json',
      )
    ).metadata.generation;
  const debug = { name: 'd', image: 'i', terminationMessagePolicy: 'File', imagePullPolicy: 'Always' };
  assert.deepEqual(
    [
      await patch('', { metadata: { labels } }),
      await patch('resize', resources('2')),
      await patch('ephemeralcontainers', { spec: { ephemeralContainers: [debug] } }),
      await patch('status', { status: { phase: 'Running' } }),
    ],
    [1, 2, 3, 3],
  );
  await server.close();
});

test('a daemon set counts its templates, for its pods; nobody else does', async () => {
  const server = await ApiServer.open({ store: openMemoryStore(), random: seededRandom(1) });
  const api = server.transport(LOOPBACK_USER);
  const of: Target = { of: DAEMON_SETS, namespace: 'default', name: 'd' };
  const count = (object: KubeObject) => object.metadata.annotations?.['deprecated.daemonset.template.generation'];
  const spec = { selector, template: template() };
  const made = await api.create(of, { metadata: { name: 'd' }, spec } as unknown as KubeObject);
  const bare = withMetadata(made, { annotations: {}, resourceVersion: '' });
  const next = await api.update(of, edited(bare, { spec: { selector, template: template('j') } }));
  const told = await api.update({ ...of, subresource: 'status' }, edited(bare, { status: { numberReady: 1 } }));
  const forged = await api.patch(
    of,
    { metadata: { annotations: { 'deprecated.daemonset.template.generation': '9' } } },
    'application/merge-patch+json',
  );
  assert.deepEqual([made, next, told, forged].map(count), ['1', '2', '2', '2']);
  await server.close();
});
