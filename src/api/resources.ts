/**
 * Every resource that Kubernetes v1.36 serves by default, as discovery describes it, in the order in which discovery
 * lists it: groups by their priority, resources of a group-version by name. Custom resources are not here.
 */
import type { ResourceInfo, SubresourceInfo } from './schema.ts';

/** A served API group; versions with the preferred one first. */
export interface ApiGroup {
  readonly group: string;
  readonly versions: readonly string[];
}

/** Groups in the order of `/apis`, with the core group first. Groups of custom resources follow them. */
export const apiGroupOrder: readonly ApiGroup[] = [
  { group: '', versions: ['v1'] },
  { group: 'apiregistration.k8s.io', versions: ['v1'] },
  { group: 'apps', versions: ['v1'] },
  { group: 'events.k8s.io', versions: ['v1'] },
  { group: 'authentication.k8s.io', versions: ['v1'] },
  { group: 'authorization.k8s.io', versions: ['v1'] },
  { group: 'autoscaling', versions: ['v2', 'v1'] },
  { group: 'batch', versions: ['v1'] },
  { group: 'certificates.k8s.io', versions: ['v1'] },
  { group: 'networking.k8s.io', versions: ['v1'] },
  { group: 'policy', versions: ['v1'] },
  { group: 'rbac.authorization.k8s.io', versions: ['v1'] },
  { group: 'storage.k8s.io', versions: ['v1'] },
  { group: 'admissionregistration.k8s.io', versions: ['v1'] },
  { group: 'apiextensions.k8s.io', versions: ['v1'] },
  { group: 'scheduling.k8s.io', versions: ['v1'] },
  { group: 'coordination.k8s.io', versions: ['v1'] },
  { group: 'node.k8s.io', versions: ['v1'] },
  { group: 'discovery.k8s.io', versions: ['v1'] },
  { group: 'flowcontrol.apiserver.k8s.io', versions: ['v1'] },
  { group: 'resource.k8s.io', versions: ['v1'] },
];

const allVerbs = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'];
const createOnly = { verbs: ['create'] };
const readWrite = ['get', 'patch', 'update'];
const proxyVerbs = ['create', 'delete', 'get', 'patch', 'update'];
const inAll = ['all'];
const apiExtensions = ['api-extensions'];

const core = (kind: string) => ({ group: '', version: 'v1', kind });
const status: SubresourceInfo = { name: 'status', verbs: readWrite };
const scale: SubresourceInfo = {
  name: 'scale',
  verbs: readWrite,
  kind: { group: 'autoscaling', version: 'v1', kind: 'Scale' },
};
const readWriteOf = (name: string): SubresourceInfo => ({ name, verbs: readWrite });
const connect = (name: string, kind: string): SubresourceInfo => ({ name, verbs: ['create', 'get'], kind: core(kind) });
const proxy = (kind: string): SubresourceInfo => ({ name: 'proxy', verbs: proxyVerbs, kind: core(kind) });

type Facts = Partial<Pick<ResourceInfo, 'shortNames' | 'categories' | 'verbs' | 'subresources' | 'storageVersion'>>;
type Row = Facts & { readonly resource: string; readonly kind: string; readonly namespaced: boolean };

const inNamespace = (resource: string, kind: string, facts: Facts = {}): Row => ({
  resource,
  kind,
  namespaced: true,
  ...facts,
});
const inCluster = (resource: string, kind: string, facts: Facts = {}): Row => ({
  resource,
  kind,
  namespaced: false,
  ...facts,
});

function served(group: string, version: string, rows: readonly Row[]): ResourceInfo[] {
  const home = `${group.split('.')[0] || 'core'}.${version}`;
  return rows.map(row => ({
    group,
    version,
    resource: row.resource,
    singular: row.kind.toLowerCase(),
    kind: row.kind,
    listKind: `${row.kind}List`,
    namespaced: row.namespaced,
    shortNames: row.shortNames ?? [],
    categories: row.categories ?? [],
    verbs: row.verbs ?? allVerbs,
    type: `${home}.${row.kind}`,
    subresources: row.subresources ?? [],
    ...(row.storageVersion ? { storageVersion: row.storageVersion } : {}),
  }));
}

export const builtinResources: readonly ResourceInfo[] = [
  ...served('', 'v1', [
    inNamespace('bindings', 'Binding', createOnly),
    inCluster('componentstatuses', 'ComponentStatus', { shortNames: ['cs'], verbs: ['get', 'list'] }),
    inNamespace('configmaps', 'ConfigMap', { shortNames: ['cm'] }),
    inNamespace('endpoints', 'Endpoints', { shortNames: ['ep'] }),
    inNamespace('events', 'Event', { shortNames: ['ev'] }),
    inNamespace('limitranges', 'LimitRange', { shortNames: ['limits'] }),
    inCluster('namespaces', 'Namespace', {
      shortNames: ['ns'],
      verbs: allVerbs.filter(verb => verb !== 'deletecollection'),
      subresources: [{ name: 'finalize', verbs: ['update'] }, status],
    }),
    inCluster('nodes', 'Node', { shortNames: ['no'], subresources: [proxy('NodeProxyOptions'), status] }),
    inNamespace('persistentvolumeclaims', 'PersistentVolumeClaim', { shortNames: ['pvc'], subresources: [status] }),
    inCluster('persistentvolumes', 'PersistentVolume', { shortNames: ['pv'], subresources: [status] }),
    inNamespace('pods', 'Pod', {
      shortNames: ['po'],
      categories: inAll,
      subresources: [
        connect('attach', 'PodAttachOptions'),
        { name: 'binding', verbs: ['create'], kind: core('Binding') },
        readWriteOf('ephemeralcontainers'),
        { name: 'eviction', verbs: ['create'], kind: { group: 'policy', version: 'v1', kind: 'Eviction' } },
        connect('exec', 'PodExecOptions'),
        { name: 'log', verbs: ['get'] },
        connect('portforward', 'PodPortForwardOptions'),
        proxy('PodProxyOptions'),
        readWriteOf('resize'),
        status,
      ],
    }),
    inNamespace('podtemplates', 'PodTemplate'),
    inNamespace('replicationcontrollers', 'ReplicationController', {
      shortNames: ['rc'],
      categories: inAll,
      subresources: [scale, status],
    }),
    inNamespace('resourcequotas', 'ResourceQuota', { shortNames: ['quota'], subresources: [status] }),
    inNamespace('secrets', 'Secret'),
    inNamespace('serviceaccounts', 'ServiceAccount', {
      shortNames: ['sa'],
      subresources: [
        {
          name: 'token',
          verbs: ['create'],
          kind: { group: 'authentication.k8s.io', version: 'v1', kind: 'TokenRequest' },
        },
      ],
    }),
    inNamespace('services', 'Service', {
      shortNames: ['svc'],
      categories: inAll,
      subresources: [proxy('ServiceProxyOptions'), status],
    }),
  ]),
  ...served('apiregistration.k8s.io', 'v1', [
    inCluster('apiservices', 'APIService', { categories: apiExtensions, subresources: [status] }),
  ]),
  ...served('apps', 'v1', [
    inNamespace('controllerrevisions', 'ControllerRevision'),
    inNamespace('daemonsets', 'DaemonSet', { shortNames: ['ds'], categories: inAll, subresources: [status] }),
    inNamespace('deployments', 'Deployment', {
      shortNames: ['deploy'],
      categories: inAll,
      subresources: [scale, status],
    }),
    inNamespace('replicasets', 'ReplicaSet', { shortNames: ['rs'], categories: inAll, subresources: [scale, status] }),
    inNamespace('statefulsets', 'StatefulSet', {
      shortNames: ['sts'],
      categories: inAll,
      subresources: [scale, status],
    }),
  ]),
  ...served('events.k8s.io', 'v1', [
    inNamespace('events', 'Event', { shortNames: ['ev'], storageVersion: { group: '', version: 'v1' } }),
  ]),
  ...served('authentication.k8s.io', 'v1', [
    inCluster('selfsubjectreviews', 'SelfSubjectReview', createOnly),
    inCluster('tokenreviews', 'TokenReview', createOnly),
  ]),
  ...served('authorization.k8s.io', 'v1', [
    inNamespace('localsubjectaccessreviews', 'LocalSubjectAccessReview', createOnly),
    inCluster('selfsubjectaccessreviews', 'SelfSubjectAccessReview', createOnly),
    inCluster('selfsubjectrulesreviews', 'SelfSubjectRulesReview', createOnly),
    inCluster('subjectaccessreviews', 'SubjectAccessReview', createOnly),
  ]),
  ...served('autoscaling', 'v2', [
    inNamespace('horizontalpodautoscalers', 'HorizontalPodAutoscaler', {
      shortNames: ['hpa'],
      categories: inAll,
      subresources: [status],
    }),
  ]),
  ...served('autoscaling', 'v1', [
    inNamespace('horizontalpodautoscalers', 'HorizontalPodAutoscaler', {
      shortNames: ['hpa'],
      categories: inAll,
      subresources: [status],
      storageVersion: { group: 'autoscaling', version: 'v2' },
    }),
  ]),
  ...served('batch', 'v1', [
    inNamespace('cronjobs', 'CronJob', { shortNames: ['cj'], categories: inAll, subresources: [status] }),
    inNamespace('jobs', 'Job', { categories: inAll, subresources: [status] }),
  ]),
  ...served('certificates.k8s.io', 'v1', [
    inCluster('certificatesigningrequests', 'CertificateSigningRequest', {
      shortNames: ['csr'],
      subresources: [readWriteOf('approval'), status],
    }),
  ]),
  ...served('networking.k8s.io', 'v1', [
    inCluster('ingressclasses', 'IngressClass'),
    inNamespace('ingresses', 'Ingress', { shortNames: ['ing'], subresources: [status] }),
    inCluster('ipaddresses', 'IPAddress', { shortNames: ['ip'] }),
    inNamespace('networkpolicies', 'NetworkPolicy', { shortNames: ['netpol'] }),
    inCluster('servicecidrs', 'ServiceCIDR', { subresources: [status] }),
  ]),
  ...served('policy', 'v1', [
    inNamespace('poddisruptionbudgets', 'PodDisruptionBudget', { shortNames: ['pdb'], subresources: [status] }),
  ]),
  ...served('rbac.authorization.k8s.io', 'v1', [
    inCluster('clusterrolebindings', 'ClusterRoleBinding'),
    inCluster('clusterroles', 'ClusterRole'),
    inNamespace('rolebindings', 'RoleBinding'),
    inNamespace('roles', 'Role'),
  ]),
  ...served('storage.k8s.io', 'v1', [
    inCluster('csidrivers', 'CSIDriver'),
    inCluster('csinodes', 'CSINode'),
    inNamespace('csistoragecapacities', 'CSIStorageCapacity'),
    inCluster('storageclasses', 'StorageClass', { shortNames: ['sc'] }),
    inCluster('volumeattachments', 'VolumeAttachment', { subresources: [status] }),
    inCluster('volumeattributesclasses', 'VolumeAttributesClass', { shortNames: ['vac'] }),
  ]),
  ...served('admissionregistration.k8s.io', 'v1', [
    inCluster('mutatingadmissionpolicies', 'MutatingAdmissionPolicy', { categories: apiExtensions }),
    inCluster('mutatingadmissionpolicybindings', 'MutatingAdmissionPolicyBinding', { categories: apiExtensions }),
    inCluster('mutatingwebhookconfigurations', 'MutatingWebhookConfiguration', { categories: apiExtensions }),
    inCluster('validatingadmissionpolicies', 'ValidatingAdmissionPolicy', {
      categories: apiExtensions,
      subresources: [status],
    }),
    inCluster('validatingadmissionpolicybindings', 'ValidatingAdmissionPolicyBinding', { categories: apiExtensions }),
    inCluster('validatingwebhookconfigurations', 'ValidatingWebhookConfiguration', { categories: apiExtensions }),
  ]),
  ...served('apiextensions.k8s.io', 'v1', [
    inCluster('customresourcedefinitions', 'CustomResourceDefinition', {
      shortNames: ['crd', 'crds'],
      categories: apiExtensions,
      subresources: [status],
    }),
  ]),
  ...served('scheduling.k8s.io', 'v1', [inCluster('priorityclasses', 'PriorityClass', { shortNames: ['pc'] })]),
  ...served('coordination.k8s.io', 'v1', [inNamespace('leases', 'Lease')]),
  ...served('node.k8s.io', 'v1', [inCluster('runtimeclasses', 'RuntimeClass')]),
  ...served('discovery.k8s.io', 'v1', [inNamespace('endpointslices', 'EndpointSlice')]),
  ...served('flowcontrol.apiserver.k8s.io', 'v1', [
    inCluster('flowschemas', 'FlowSchema', { subresources: [status] }),
    inCluster('prioritylevelconfigurations', 'PriorityLevelConfiguration', { subresources: [status] }),
  ]),
  ...served('resource.k8s.io', 'v1', [
    inCluster('deviceclasses', 'DeviceClass'),
    inNamespace('resourceclaims', 'ResourceClaim', { subresources: [status] }),
    inNamespace('resourceclaimtemplates', 'ResourceClaimTemplate'),
    inCluster('resourceslices', 'ResourceSlice'),
  ]),
];

/** Beta resources that a stock server has but serves only when it is told to (`--runtime-config`). */
export const optionalResources: readonly ResourceInfo[] = [
  ...served('certificates.k8s.io', 'v1beta1', [
    inCluster('clustertrustbundles', 'ClusterTrustBundle'),
    inNamespace('podcertificaterequests', 'PodCertificateRequest', { subresources: [status] }),
  ]),
  ...served('storagemigration.k8s.io', 'v1beta1', [
    inCluster('storageversionmigrations', 'StorageVersionMigration', { subresources: [status] }),
  ]),
];

const byResource = new Map(builtinResources.map(info => [`${info.group}/${info.version}/${info.resource}`, info]));
const byKind = new Map(builtinResources.map(info => [`${info.group}/${info.version}/${info.kind}`, info]));

/** The built-in resource by its plural name; undefined when there is none. */
export function resourceByName(group: string, version: string, resource: string): ResourceInfo | undefined {
  return byResource.get(`${group}/${version}/${resource}`);
}

/** The built-in resource whose objects are of a kind; undefined for kinds that are only bodies of subresources. */
export function resourceByKind(group: string, version: string, kind: string): ResourceInfo | undefined {
  return byKind.get(`${group}/${version}/${kind}`);
}
