import assert from 'node:assert/strict';
import test from 'node:test';
import { kindFor } from './kinds.ts';
import type { KubeObject } from './meta.ts';

const NOW = Date.parse('2026-01-01T00:02:00Z');
const CREATED = '2026-01-01T00:00:00Z';

/** Group, version and kind; the object's fields; cells shown without and, behind `|`, only with `-o wide`. */
const GOLDEN: readonly [id: string, fields: object, expected: string][] = [
  ['/v1/Namespace', { status: { phase: 'Active' } }, 'x Active 2m'],
  ['/v1/ConfigMap', { data: { a: '1' }, binaryData: { b: 'AA==' } }, 'x 2 2m'],
  ['/v1/Secret', { type: 'Opaque', data: { a: '' } }, 'x Opaque 1 2m'],
  ['/v1/ServiceAccount', {}, 'x 0 2m'],
  [
    '/v1/Node',
    {
      metadata: {
        name: 'x',
        creationTimestamp: CREATED,
        labels: { 'node-role.kubernetes.io/worker': '', 'node-role.kubernetes.io/control-plane': '' },
      },
      spec: { unschedulable: true },
      status: {
        conditions: [{ type: 'Ready', status: 'True' }],
        addresses: [{ type: 'InternalIP', address: '10.0.0.1' }],
        nodeInfo: {
          kubeletVersion: 'v1.36.0',
          osImage: 'Debian 12',
          kernelVersion: '6.1',
          architecture: 'arm64',
          containerRuntimeVersion: 'cox://1',
        },
      },
    },
    'x Ready,SchedulingDisabled control-plane,worker 2m v1.36.0 | 10.0.0.1 <none> Debian 12 6.1 (arm64) cox://1',
  ],
  [
    '/v1/Endpoints',
    { subsets: [{ addresses: [1, 2, 3, 4].map(n => ({ ip: `10.0.0.${n}` })), ports: [{ port: 80 }] }] },
    'x 10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more... 2m',
  ],
  ['/v1/Endpoints', {}, 'x <none> 2m'],
  [
    'discovery.k8s.io/v1/EndpointSlice',
    { addressType: 'IPv4', ports: [{ port: 80 }], endpoints: [{ addresses: ['10.0.0.1'] }] },
    'x IPv4 80 10.0.0.1 2m',
  ],
  ['discovery.k8s.io/v1/EndpointSlice', { addressType: 'IPv4' }, 'x IPv4 <unset> <unset> 2m'],
  [
    '/v1/Event',
    {
      involvedObject: { kind: 'Pod', name: 'p', fieldPath: 'spec.containers{c}' },
      type: 'Normal',
      reason: 'Started',
      message: 'Started container c\n',
      source: { component: 'kubelet', host: 'node-1' },
      count: 3,
      firstTimestamp: CREATED,
      lastTimestamp: '2026-01-01T00:01:30Z',
    },
    '30s Normal Started pod/p Started container c | spec.containers{c} kubelet, node-1 2m 3 x',
  ],
  [
    '/v1/PersistentVolumeClaim',
    {
      spec: { volumeName: 'pv', storageClassName: 'fast', volumeMode: 'Filesystem' },
      status: { phase: 'Bound', capacity: { storage: '1Gi' }, accessModes: ['ReadWriteOnce'] },
    },
    'x Bound pv 1Gi RWO fast <unset> 2m | Filesystem',
  ],
  [
    '/v1/PersistentVolume',
    {
      spec: {
        capacity: { storage: '1Gi' },
        accessModes: ['ReadWriteMany'],
        persistentVolumeReclaimPolicy: 'Retain',
        claimRef: { namespace: 'a', name: 'b' },
      },
      status: { phase: 'Bound' },
    },
    'x 1Gi RWX Retain Bound a/b  <unset>  2m | <unset>',
  ],
  [
    '/v1/ResourceQuota',
    { status: { hard: { pods: '10', 'limits.cpu': '4' }, used: { pods: '3' } } },
    'x pods: 3/10 limits.cpu: 0/4 2m',
  ],
  [
    '/v1/ResourceQuota',
    { status: { hard: { 'limitsx.io/a': '1', 'limits.memory': '1Gi' } } },
    'x limitsx.io/a: 0/1 limits.memory: 0/1Gi 2m',
  ],
  ['/v1/Node', {}, 'x Unknown <none> 2m  | <none> <none> <unknown> <unknown> <unknown>'],
  ['/v1/LimitRange', {}, `x ${CREATED}`],
  [
    'batch/v1/CronJob',
    { spec: { schedule: '* * * * *', suspend: false }, status: { lastScheduleTime: '2026-01-01T00:01:00Z' } },
    'x * * * * * <none> False 0 60s 2m |   <none>',
  ],
  [
    'networking.k8s.io/v1/Ingress',
    {
      spec: { ingressClassName: 'nginx', tls: [{}], rules: ['a', 'b', 'c', 'd'].map(host => ({ host })) },
      status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } },
    },
    'x nginx a,b,c + 1 more... 192.0.2.1 80, 443 2m',
  ],
  [
    'networking.k8s.io/v1/IngressClass',
    {
      metadata: {
        name: 'x',
        creationTimestamp: CREATED,
        annotations: { 'ingressclass.kubernetes.io/is-default-class': 'true' },
      },
      spec: { controller: 'a.io/b', parameters: { apiGroup: 'g', kind: 'K', name: 'n' } },
    },
    'x (default) a.io/b K.g/n 2m',
  ],
  [
    'networking.k8s.io/v1/Ingress',
    { metadata: { name: 'x', creationTimestamp: CREATED, annotations: { 'kubernetes.io/ingress.class': 'old' } } },
    'x <none> *  80 2m',
  ],
  ['networking.k8s.io/v1/NetworkPolicy', { spec: { podSelector: {} } }, 'x <none> 2m'],
  [
    'policy/v1/PodDisruptionBudget',
    { spec: { minAvailable: '50%' }, status: { disruptionsAllowed: 1 } },
    'x 50% N/A 1 2m',
  ],
  ['scheduling.k8s.io/v1/PriorityClass', { value: 5, preemptionPolicy: 'Never' }, 'x 5 false 2m Never'],
  [
    'rbac.authorization.k8s.io/v1/RoleBinding',
    {
      roleRef: { kind: 'Role', name: 'r' },
      subjects: [
        { kind: 'User', name: 'u' },
        { kind: 'ServiceAccount', namespace: 'n', name: 's' },
      ],
    },
    'x Role/r 2m | u  n/s',
  ],
  ['rbac.authorization.k8s.io/v1/ClusterRole', {}, `x ${CREATED}`],
  [
    'storage.k8s.io/v1/StorageClass',
    {
      metadata: {
        name: 'x',
        creationTimestamp: CREATED,
        annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' },
      },
      provisioner: 'p',
      reclaimPolicy: 'Delete',
      volumeBindingMode: 'Immediate',
    },
    'x (default) p Delete Immediate false 2m',
  ],
  [
    'autoscaling/v2/HorizontalPodAutoscaler',
    {
      spec: {
        scaleTargetRef: { kind: 'Deployment', name: 'web' },
        minReplicas: 1,
        maxReplicas: 5,
        metrics: [
          { type: 'Resource', resource: { name: 'cpu', target: { type: 'Utilization', averageUtilization: 80 } } },
        ],
      },
      status: {
        currentReplicas: 2,
        currentMetrics: [{ type: 'Resource', resource: { name: 'cpu', current: { averageUtilization: 30 } } }],
      },
    },
    'x Deployment/web cpu: 30%/80% 1 5 2 2m',
  ],
  ['storage.k8s.io/v1/CSIStorageCapacity', { storageClassName: 'fast' }, 'x fast <unset>'],
  [
    'storage.k8s.io/v1/CSIDriver',
    { spec: { tokenRequests: [{ audience: '' }, { audience: 'a' }] } },
    'x true false false ,a false <none> 2m',
  ],
  ['storage.k8s.io/v1/CSIDriver', { spec: {} }, 'x true false false <unset> false <none> 2m'],
  ['scheduling.k8s.io/v1/PriorityClass', { value: 5 }, 'x 5 false 2m '],
  [
    'flowcontrol.apiserver.k8s.io/v1/PriorityLevelConfiguration',
    { spec: { type: 'Exempt', exempt: { nominalConcurrencyShares: 5 } } },
    'x Exempt <none> <none> <none> <none> 2m',
  ],
  ['resource.k8s.io/v1/ResourceSlice', { spec: { allNodes: true, driver: 'd', pool: { name: 'p' } } }, 'x  d p 2m'],
  [
    'admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding',
    { spec: { policyName: 'p', paramRef: { name: 'n' } } },
    'x p */n 2m',
  ],
  [
    'admissionregistration.k8s.io/v1/MutatingAdmissionPolicyBinding',
    {
      spec: {
        policyName: 'p',
        paramRef: {
          selector: {
            matchLabels: { b: '2', a: '1' },
            matchExpressions: [{ key: 'k', operator: 'In', values: ['x', 'y'] }],
          },
        },
      },
    },
    'x p &LabelSelector{MatchLabels:map[string]string{a: 1,b: 2,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},} 2m',
  ],
  ['certificates.k8s.io/v1beta1/ClusterTrustBundle', { spec: { signerName: 'a.io/b', trustBundle: '' } }, 'x a.io/b'],
  [
    'storagemigration.k8s.io/v1beta1/StorageVersionMigration',
    { spec: { resource: { group: 'apps', resource: 'deployments' } } },
    'x deployments.apps',
  ],
  ['coordination.k8s.io/v1/Lease', { spec: { holderIdentity: 'me' } }, 'x me 2m'],
  [
    'certificates.k8s.io/v1/CertificateSigningRequest',
    {
      spec: { signerName: 's', username: 'u', expirationSeconds: 3600 },
      status: { conditions: [{ type: 'Approved' }], certificate: 'AA==' },
    },
    'x 2m s u 60m Approved,Issued',
  ],
  [
    'apiregistration.k8s.io/v1/APIService',
    { status: { conditions: [{ type: 'Available', status: 'True' }] } },
    'x Local True 2m',
  ],
];

test('cells are those of upstream’s printers', () => {
  for (const [id, fields, expected] of GOLDEN) {
    const [group = '', version = '', name = ''] = id.split('/');
    const kind = kindFor(group, version, name)!;
    const object = { metadata: { name: 'x', creationTimestamp: CREATED }, ...fields } as unknown as KubeObject;
    const cells = (wide: boolean): string =>
      kind
        .columns!.filter(column => Boolean(column.priority) === wide)
        .map(column => column.cell(object, NOW))
        .join(' ');
    const wide = cells(true);
    assert.equal(cells(false) + (kind.columns!.some(column => column.priority) ? ` | ${wide}` : ''), expected, id);
  }
});
