/**
 * The roles and bindings that every cluster starts with: upstream v1.36's, as data. A rule is one line,
 * `verbs groups resources [@names]`, each a comma list, or `verbs /path,/path`. R, W and RW stand for the usual verbs,
 * `core` for the group '', `EVENTS` for the rule that lets a component write events. Nothing here is computed at import.
 */

import type { ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject } from '../../api/rbac/v1.gen.ts';

const RBAC = 'rbac.authorization.k8s.io';
const READ = ['get', 'list', 'watch'];
const WRITE = ['create', 'delete', 'deletecollection', 'patch', 'update'];
const VERBS: Readonly<Record<string, readonly string[]>> = { R: READ, W: WRITE, RW: [...READ, ...WRITE] };
const EVENTS = 'create,patch,update core,events.k8s.io events';
const REVIEWS = ['create authentication.k8s.io tokenreviews', 'create authorization.k8s.io subjectaccessreviews'];
const PROBES = '/healthz,/livez,/readyz,/version,/version/';

/** Names of the roles that others are aggregated into. */
const AGGREGATED = ['admin', 'edit', 'view'] as const;
/** Role → the aggregates it is part of. */
const AGGREGATES: Readonly<Record<string, string>> = {
  'system:aggregate-to-admin': 'admin',
  'system:aggregate-to-edit': 'edit',
  'system:aggregate-to-view': 'view',
  'system:aggregated-metrics-reader': 'view',
  edit: 'admin',
  view: 'edit',
};

const NODE = [
  'create authentication.k8s.io tokenreviews',
  'create authorization.k8s.io localsubjectaccessreviews,subjectaccessreviews',
  'R core services',
  'create,get,list,watch core nodes',
  'patch,update core nodes/status',
  'patch,update core nodes',
  'create,patch,update core events',
  'R core pods',
  'create,delete core pods',
  'patch,update core pods/status',
  'create core pods/eviction',
  'R core configmaps,secrets',
  'get core persistentvolumeclaims,persistentvolumes',
  'get core endpoints',
  'create,get,list,watch certificates.k8s.io certificatesigningrequests',
  'create,delete,get,patch,update coordination.k8s.io leases',
  'get storage.k8s.io volumeattachments',
  'create core serviceaccounts/token',
  'get,patch,update core persistentvolumeclaims/status',
  'R storage.k8s.io csidrivers',
  'create,delete,get,patch,update storage.k8s.io csinodes',
  'R node.k8s.io runtimeclasses',
  'get resource.k8s.io resourceclaims',
  'deletecollection resource.k8s.io resourceslices',
  'get core serviceaccounts',
];

const CLUSTER_ROLES: Readonly<Record<string, readonly string[]>> = {
  'cluster-admin': ['* * *', '* *'],
  'system:discovery': [`get /api,/api/*,/apis,/apis/*,/healthz,/livez,/openapi,/openapi/*,/readyz,/version,/version/`],
  'system:monitoring': [
    'get /healthz,/healthz/*,/livez,/livez/*,/metrics,/metrics/slis,/readyz,/readyz/*',
    'get /flagz',
    'get /statusz',
    'get core nodes/metrics',
  ],
  'system:basic-user': [
    'create authorization.k8s.io selfsubjectaccessreviews,selfsubjectrulesreviews',
    'create authentication.k8s.io selfsubjectreviews',
  ],
  'system:public-info-viewer': [`get ${PROBES}`],
  'system:aggregate-to-admin': [
    'create authorization.k8s.io localsubjectaccessreviews',
    `RW ${RBAC} rolebindings,roles`,
  ],
  'system:aggregate-to-edit': [
    'R core pods/attach,pods/exec,pods/portforward,pods/proxy,secrets,services/proxy',
    'impersonate core serviceaccounts',
    'W core pods,pods/attach,pods/exec,pods/portforward,pods/proxy',
    'create core pods/eviction',
    'W core configmaps,events,persistentvolumeclaims,replicationcontrollers,replicationcontrollers/scale,secrets,serviceaccounts,services,services/proxy',
    'create core serviceaccounts/token',
    'W apps daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,statefulsets,statefulsets/scale',
    'W autoscaling horizontalpodautoscalers',
    'W batch cronjobs,jobs',
    'W extensions daemonsets,deployments,deployments/rollback,deployments/scale,ingresses,networkpolicies,replicasets,replicasets/scale,replicationcontrollers/scale',
    'W policy poddisruptionbudgets',
    'W networking.k8s.io ingresses,networkpolicies',
    'RW coordination.k8s.io leases',
    'W resource.k8s.io resourceclaims,resourceclaimtemplates',
  ],
  'system:aggregate-to-view': [
    'R core configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status',
    'R core bindings,events,limitranges,namespaces/status,pods/log,pods/status,replicationcontrollers/status,resourcequotas,resourcequotas/status',
    'R core namespaces',
    'R discovery.k8s.io endpointslices',
    'R apps controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,statefulsets/status',
    'R autoscaling horizontalpodautoscalers,horizontalpodautoscalers/status',
    'R batch cronjobs,cronjobs/status,jobs,jobs/status',
    'R extensions daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,networkpolicies,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale',
    'R policy poddisruptionbudgets,poddisruptionbudgets/status',
    'R networking.k8s.io ingresses,ingresses/status,networkpolicies',
    'R resource.k8s.io resourceclaims,resourceclaims/status,resourceclaimtemplates',
  ],
  // As the metrics server brings it.
  'system:aggregated-metrics-reader': ['R metrics.k8s.io nodes,pods'],
  'system:heapster': ['R core events,namespaces,nodes,pods', 'R extensions deployments'],
  'system:node': NODE,
  'system:node-problem-detector': ['get core nodes', 'patch core nodes/status', EVENTS],
  'system:kubelet-api-admin': [
    'R core nodes',
    'proxy core nodes',
    '* core nodes/log,nodes/metrics,nodes/proxy,nodes/stats',
    '* core nodes/configz,nodes/healthz,nodes/pods',
  ],
  'system:node-bootstrapper': ['create,get,list,watch certificates.k8s.io certificatesigningrequests'],
  'system:auth-delegator': REVIEWS,
  'system:kube-aggregator': ['R core endpoints,services'],
  'system:kube-controller-manager': [
    EVENTS,
    'create coordination.k8s.io leases',
    'get,update coordination.k8s.io leases @kube-controller-manager',
    'create core secrets,serviceaccounts',
    'delete core secrets',
    'get core configmaps,namespaces,secrets,serviceaccounts',
    'update core secrets,serviceaccounts',
    ...REVIEWS,
    'list,watch * *',
    'create core serviceaccounts/token',
  ],
  'system:kube-dns': ['list,watch core endpoints,services'],
  'system:persistent-volume-provisioner': [
    'create,delete,get,list,watch core persistentvolumes',
    'get,list,update,watch core persistentvolumeclaims',
    'R storage.k8s.io storageclasses',
    'watch core events',
    EVENTS,
  ],
  'system:certificates.k8s.io:certificatesigningrequests:nodeclient': [
    'create certificates.k8s.io certificatesigningrequests/nodeclient',
  ],
  'system:certificates.k8s.io:certificatesigningrequests:selfnodeclient': [
    'create certificates.k8s.io certificatesigningrequests/selfnodeclient',
  ],
  'system:certificates.k8s.io:legacy-unknown-approver': [
    'approve certificates.k8s.io signers @kubernetes.io/legacy-unknown',
  ],
  'system:certificates.k8s.io:kube-apiserver-client-approver': [
    'approve certificates.k8s.io signers @kubernetes.io/kube-apiserver-client',
  ],
  'system:certificates.k8s.io:kube-apiserver-client-kubelet-approver': [
    'approve certificates.k8s.io signers @kubernetes.io/kube-apiserver-client-kubelet',
  ],
  'system:certificates.k8s.io:kubelet-serving-approver': [
    'approve certificates.k8s.io signers @kubernetes.io/kubelet-serving',
  ],
  'system:service-account-issuer-discovery': [
    'get /.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,/openid/v1/jwks/',
  ],
  'system:volume-scheduler': [
    'get,list,patch,update,watch core persistentvolumes',
    'R storage.k8s.io storageclasses',
    'get,list,patch,update,watch core persistentvolumeclaims',
  ],
  'system:node-proxier': [
    'list,watch core endpoints,services',
    'R core nodes',
    EVENTS,
    'list,watch networking.k8s.io servicecidrs',
    'list,watch discovery.k8s.io endpointslices',
  ],
  'system:kube-scheduler': [
    EVENTS,
    'create coordination.k8s.io leases',
    'get,list,update,watch coordination.k8s.io leases @kube-scheduler',
    'RW coordination.k8s.io leasecandidates',
    'R core nodes',
    'delete,get,list,watch core pods',
    'create core bindings,pods/binding',
    'patch,update core pods/status',
    'R core replicationcontrollers,services',
    'R apps,extensions replicasets',
    'R apps statefulsets',
    'R policy poddisruptionbudgets',
    'R core persistentvolumeclaims,persistentvolumes',
    ...REVIEWS,
    'R storage.k8s.io csinodes',
    'R storage.k8s.io volumeattachments',
    'R core namespaces',
    'R storage.k8s.io csidrivers',
    'R storage.k8s.io csistoragecapacities',
    'R resource.k8s.io deviceclasses',
    'create,delete,get,list,patch,update,watch resource.k8s.io resourceclaims',
    'get,list,patch,update,watch resource.k8s.io resourceclaims/status',
    'patch,update resource.k8s.io resourceclaims/binding',
    'get,list,patch,update,watch core pods/finalizers',
    'R resource.k8s.io resourceslices',
  ],
};

/** Controllers' roles, `system:controller:NAME`, each bound to the service account kube-system/NAME. */
const CONTROLLERS: Readonly<Record<string, readonly string[]>> = {
  'attachdetach-controller': [
    'list,watch core persistentvolumeclaims,persistentvolumes',
    'R core nodes',
    'patch,update core nodes/status',
    'list,watch core pods',
    EVENTS,
    'create,delete,get,list,watch storage.k8s.io volumeattachments',
    'R storage.k8s.io csidrivers',
    'R storage.k8s.io csinodes',
  ],
  'clusterrole-aggregation-controller': [`escalate,get,list,patch,update,watch ${RBAC} clusterroles`],
  'cronjob-controller': [
    'get,list,update,watch batch cronjobs',
    'create,delete,get,list,patch,update,watch batch jobs',
    'update batch cronjobs/status',
    'update batch cronjobs/finalizers',
    'delete,list,watch core pods',
    EVENTS,
  ],
  'daemon-set-controller': [
    'R apps,extensions daemonsets',
    'update apps,extensions daemonsets/status',
    'update apps,extensions daemonsets/finalizers',
    'list,watch core nodes',
    'create,delete,list,patch,watch core pods',
    'create core pods/binding',
    'create,delete,get,list,patch,update,watch apps controllerrevisions',
    EVENTS,
  ],
  'deployment-controller': [
    'get,list,update,watch apps,extensions deployments',
    'update apps,extensions deployments/status',
    'update apps,extensions deployments/finalizers',
    'create,delete,get,list,patch,update,watch apps,extensions replicasets',
    'get,list,update,watch core pods',
    EVENTS,
  ],
  'disruption-controller': [
    'R apps,extensions deployments',
    'R apps,extensions replicasets',
    'R core replicationcontrollers',
    'R policy poddisruptionbudgets',
    'R apps statefulsets',
    'update policy poddisruptionbudgets/status',
    'patch,update core pods/status',
    'get * */scale',
    EVENTS,
  ],
  'endpoint-controller': [
    'R core pods,services',
    'create,delete,get,list,update,watch core endpoints',
    'create core endpoints/restricted',
    EVENTS,
  ],
  'endpointslice-controller': [
    'R core nodes,pods,services',
    'update core services/finalizers',
    'create,delete,get,list,update,watch discovery.k8s.io endpointslices',
    EVENTS,
  ],
  'endpointslicemirroring-controller': [
    'R core endpoints,services',
    'update core services/finalizers',
    'update core endpoints/finalizers',
    'create,delete,get,list,update,watch discovery.k8s.io endpointslices',
    EVENTS,
  ],
  'expand-controller': [
    'get,list,patch,update,watch core persistentvolumes',
    'patch,update core persistentvolumeclaims/status',
    'R core persistentvolumeclaims',
    EVENTS,
    'get core services',
  ],
  'ephemeral-volume-controller': [
    'R core pods',
    'update core pods/finalizers',
    'create,get,list,watch core persistentvolumeclaims',
    EVENTS,
  ],
  'resource-claim-controller': [
    'R core pods',
    'update core pods/finalizers',
    'create,delete,get,list,watch resource.k8s.io resourceclaims',
    'patch,update resource.k8s.io resourceclaims,resourceclaims/status',
    'patch,update resource.k8s.io resourceclaims/binding',
    'patch,update core pods/status',
    EVENTS,
  ],
  'device-taint-eviction-controller': [
    'delete,get,list,watch core pods',
    'patch,update core pods/status',
    'R resource.k8s.io resourceclaims',
    'R resource.k8s.io resourceslices',
    'R resource.k8s.io deviceclasses',
    'R resource.k8s.io devicetaintrules',
    EVENTS,
  ],
  'generic-garbage-collector': ['delete,get,list,patch,update,watch * *', EVENTS],
  'horizontal-pod-autoscaler': [
    'R autoscaling horizontalpodautoscalers',
    'update autoscaling horizontalpodautoscalers/status',
    'get,update * */scale',
    'list,watch core pods',
    'list,watch metrics.k8s.io pods',
    'R custom.metrics.k8s.io *',
    'R external.metrics.k8s.io *',
    EVENTS,
  ],
  'job-controller': [
    'get,list,patch,update,watch batch jobs',
    'update batch jobs/status',
    'update batch jobs/finalizers',
    'create,delete,list,patch,watch core pods',
    EVENTS,
  ],
  'namespace-controller': [
    'delete,get,list,watch core namespaces',
    'update core namespaces/finalize,namespaces/status',
    'delete,deletecollection,get,list,watch * *',
  ],
  'node-controller': [
    'delete,get,list,patch,update,watch core nodes',
    'patch,update core nodes/status',
    'patch,update core pods/status',
    'delete,get,list,watch core pods',
    EVENTS,
  ],
  'persistent-volume-binder': [
    'create,delete,get,list,update,watch core persistentvolumes',
    'update core persistentvolumes/status',
    'get,list,update,watch core persistentvolumeclaims',
    'update core persistentvolumeclaims/status',
    'create,delete,get,list,watch core pods',
    'R storage.k8s.io storageclasses',
    'list,watch core nodes',
    EVENTS,
    'watch core events',
    'get core services',
  ],
  'pod-garbage-collector': ['delete,list,watch core pods', 'R core nodes', 'patch core pods/status'],
  'replicaset-controller': [
    'get,list,update,watch apps,extensions replicasets',
    'update apps,extensions replicasets/status',
    'update apps,extensions replicasets/finalizers',
    'create,delete,list,patch,watch core pods',
    EVENTS,
  ],
  'replication-controller': [
    'get,list,update,watch core replicationcontrollers',
    'update core replicationcontrollers/status',
    'update core replicationcontrollers/finalizers',
    'create,delete,list,patch,watch core pods',
    EVENTS,
  ],
  'resourcequota-controller': ['list,watch * *', 'update core resourcequotas/status', EVENTS],
  'route-controller': ['list,watch core nodes', 'patch core nodes/status', EVENTS],
  'service-account-controller': ['create core serviceaccounts', EVENTS],
  'service-controller': ['R core services', 'patch,update core services/status', 'list,watch core nodes', EVENTS],
  'service-cidrs-controller': [
    'get,list,patch,update,watch networking.k8s.io servicecidrs',
    'patch,update networking.k8s.io servicecidrs/finalizers',
    'patch,update networking.k8s.io servicecidrs/status',
    'R networking.k8s.io ipaddresses',
    EVENTS,
  ],
  'statefulset-controller': [
    'list,watch core pods',
    'R apps statefulsets',
    'update apps statefulsets/status',
    'update apps statefulsets/finalizers',
    'create,delete,get,patch,update core pods',
    'create,delete,get,list,patch,update,watch apps controllerrevisions',
    'create,get,list,watch core persistentvolumeclaims',
    'delete,update core persistentvolumeclaims',
    'update core pods/finalizers',
    EVENTS,
  ],
  'ttl-controller': ['list,patch,update,watch core nodes', EVENTS],
  'certificate-controller': [
    'delete,get,list,watch certificates.k8s.io certificatesigningrequests',
    'update certificates.k8s.io certificatesigningrequests/approval,certificatesigningrequests/status',
    'approve certificates.k8s.io signers @kubernetes.io/kube-apiserver-client-kubelet',
    'sign certificates.k8s.io signers @kubernetes.io/kube-apiserver-client,kubernetes.io/kube-apiserver-client-kubelet,kubernetes.io/kubelet-serving,kubernetes.io/legacy-unknown',
    'create authorization.k8s.io subjectaccessreviews',
    EVENTS,
  ],
  'pvc-protection-controller': ['get,list,update,watch core persistentvolumeclaims', 'R core pods', EVENTS],
  'pv-protection-controller': ['get,list,update,watch core persistentvolumes', EVENTS],
  'volumeattributesclass-protection-controller': [
    'R core persistentvolumeclaims',
    'R core persistentvolumes',
    'get,list,update,watch storage.k8s.io volumeattributesclasses',
    EVENTS,
  ],
  'ttl-after-finished-controller': ['delete,get,list,watch batch jobs', EVENTS],
  'root-ca-cert-publisher': ['create,update core configmaps', EVENTS],
  'validatingadmissionpolicy-status-controller': [
    'R admissionregistration.k8s.io validatingadmissionpolicies',
    'get,patch,update admissionregistration.k8s.io validatingadmissionpolicies/status',
    EVENTS,
  ],
  'legacy-service-account-token-cleaner': [
    'get core configmaps @kube-apiserver-legacy-service-account-token-tracking',
    'delete,patch core secrets',
  ],
  'selinux-warning-controller': [
    EVENTS,
    'R core persistentvolumes',
    'R core persistentvolumeclaims',
    'R core pods',
    'R storage.k8s.io csidrivers',
  ],
  'storage-version-migrator-controller': [
    'create,list,patch,watch * *',
    'update storagemigration.k8s.io storageversionmigrations/status',
  ],
};

/** Role → its subjects: `group:NAME`, `user:NAME` or `account:NAMESPACE/NAME`. */
const CLUSTER_BINDINGS: Readonly<Record<string, readonly string[]>> = {
  'cluster-admin': ['group:system:masters'],
  'system:monitoring': ['group:system:monitoring'],
  'system:discovery': ['group:system:authenticated'],
  'system:basic-user': ['group:system:authenticated'],
  'system:public-info-viewer': ['group:system:authenticated', 'group:system:unauthenticated'],
  'system:node-proxier': ['user:system:kube-proxy'],
  'system:kube-controller-manager': ['user:system:kube-controller-manager'],
  'system:kube-dns': ['account:kube-system/kube-dns'],
  'system:kube-scheduler': ['user:system:kube-scheduler'],
  'system:volume-scheduler': ['user:system:kube-scheduler'],
  'system:node': [],
  'system:service-account-issuer-discovery': ['group:system:serviceaccounts'],
};

/** There where ClusterTrustBundles are served: pods may read them. */
const TRUST_BUNDLE_READER = 'system:cluster-trust-bundle-discovery';

const lock = (name: string) => [
  'watch core configmaps',
  `get,update core configmaps @${name}`,
  'create,get,list,update,watch coordination.k8s.io leases',
  'create,get,list,update,watch coordination.k8s.io leasecandidates',
];
/** `namespace/name` → rules and subjects of the binding. */
const NAMESPACED_ROLES = (): Readonly<
  Record<string, { readonly rules: readonly string[]; readonly subjects: readonly string[]; readonly binding?: string }>
> => ({
  'kube-public/system:controller:bootstrap-signer': {
    rules: ['R core configmaps', 'update core configmaps @cluster-info', EVENTS],
    subjects: ['account:kube-system/bootstrap-signer'],
  },
  'kube-system/extension-apiserver-authentication-reader': {
    rules: ['R core configmaps @extension-apiserver-authentication'],
    subjects: ['user:system:kube-controller-manager', 'user:system:kube-scheduler'],
    binding: 'system::extension-apiserver-authentication-reader',
  },
  'kube-system/system::leader-locking-kube-controller-manager': {
    rules: lock('kube-controller-manager'),
    subjects: ['user:system:kube-controller-manager', 'account:kube-system/kube-controller-manager'],
  },
  'kube-system/system::leader-locking-kube-scheduler': {
    rules: lock('kube-scheduler'),
    subjects: ['user:system:kube-scheduler', 'account:kube-system/kube-scheduler'],
  },
  'kube-system/system:controller:bootstrap-signer': {
    rules: ['R core secrets'],
    subjects: ['account:kube-system/bootstrap-signer'],
  },
  'kube-system/system:controller:cloud-provider': {
    rules: ['create,get,list,watch core configmaps'],
    subjects: ['account:kube-system/cloud-provider'],
  },
  'kube-system/system:controller:token-cleaner': {
    rules: ['delete,get,list,watch core secrets', EVENTS],
    subjects: ['account:kube-system/token-cleaner'],
  },
});

let cachedNodeRules: readonly PolicyRule[] | undefined;

/** Rules of the role `system:node`, which the Node authorizer grants to kubelets. */
export function nodeRules(): readonly PolicyRule[] {
  return (cachedNodeRules ??= NODE.map(parseRule));
}

export interface BootstrapPolicy {
  readonly clusterRoles: readonly ClusterRole[];
  readonly clusterRoleBindings: readonly ClusterRoleBinding[];
  readonly roles: readonly Role[];
  readonly roleBindings: readonly RoleBinding[];
}

/** All objects of the policy, built anew. Aggregated roles already hold the rules that aggregation would give them. */
export function bootstrapPolicy({ trustBundles = false } = {}): BootstrapPolicy {
  const clusterRoles: ClusterRole[] = Object.entries(CLUSTER_ROLES).map(([name, rules]) =>
    clusterRole(name, rules.map(parseRule)),
  );
  if (trustBundles)
    clusterRoles.push(clusterRole(TRUST_BUNDLE_READER, [parseRule('R certificates.k8s.io clustertrustbundles')]));
  // From the innermost aggregate outwards: edit contains view, admin contains edit.
  for (const name of [...AGGREGATED].reverse()) {
    const parts = clusterRoles
      .filter(role => AGGREGATES[role.metadata.name] === name)
      .sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
    const role = clusterRole(name, mergeRules(parts));
    clusterRoles.push({
      ...role,
      aggregationRule: { clusterRoleSelectors: [{ matchLabels: { [`${RBAC}/aggregate-to-${name}`]: 'true' } }] },
    });
  }
  const clusterRoleBindings = Object.entries(CLUSTER_BINDINGS).map(([name, subjects]) =>
    clusterRoleBinding(name, subjects),
  );
  if (trustBundles) clusterRoleBindings.push(clusterRoleBinding(TRUST_BUNDLE_READER, ['group:system:serviceaccounts']));
  for (const [name, rules] of Object.entries(CONTROLLERS)) {
    clusterRoles.push(clusterRole(`system:controller:${name}`, rules.map(parseRule)));
    clusterRoleBindings.push(clusterRoleBinding(`system:controller:${name}`, [`account:kube-system/${name}`]));
  }
  const roles: Role[] = [];
  const roleBindings: RoleBinding[] = [];
  for (const [key, { rules, subjects, binding }] of Object.entries(NAMESPACED_ROLES())) {
    const [namespace, name] = key.split('/') as [string, string];
    const type = { apiVersion: `${RBAC}/v1` };
    roles.push({ ...type, kind: 'Role', metadata: { ...metadata(name), namespace }, rules: rules.map(parseRule) });
    roleBindings.push({
      ...type,
      kind: 'RoleBinding',
      metadata: { ...metadata(binding ?? name), namespace },
      roleRef: { apiGroup: RBAC, kind: 'Role', name },
      subjects: subjects.map(parseSubject),
    });
  }
  return { clusterRoles, clusterRoleBindings, roles, roleBindings };
}

/** Rules of several roles in order, without repetitions: what the aggregation controller writes. */
export function mergeRules(roles: readonly ClusterRole[]): PolicyRule[] {
  const merged = new Map<string, PolicyRule>();
  for (const role of roles)
    for (const rule of role.rules ?? [])
      merged.set(
        JSON.stringify([rule.verbs, rule.apiGroups, rule.resources, rule.resourceNames, rule.nonResourceURLs]),
        rule,
      );
  return [...merged.values()];
}

function metadata(
  name: string,
  labels: Record<string, string> = {},
): { name: string; annotations: Record<string, string>; labels: Record<string, string> } {
  return {
    name,
    annotations: { 'rbac.authorization.kubernetes.io/autoupdate': 'true' },
    labels: { 'kubernetes.io/bootstrapping': 'rbac-defaults', ...labels },
  };
}

function clusterRole(name: string, rules: PolicyRule[]): ClusterRole {
  const into = AGGREGATES[name];
  return {
    apiVersion: `${RBAC}/v1`,
    kind: 'ClusterRole',
    metadata: metadata(name, into ? { [`${RBAC}/aggregate-to-${into}`]: 'true' } : {}),
    rules,
  };
}

function clusterRoleBinding(name: string, subjects: readonly string[]): ClusterRoleBinding {
  return {
    apiVersion: `${RBAC}/v1`,
    kind: 'ClusterRoleBinding',
    metadata: metadata(name),
    roleRef: { apiGroup: RBAC, kind: 'ClusterRole', name },
    ...(subjects.length ? { subjects: subjects.map(parseSubject) } : {}),
  };
}

function parseSubject(text: string): Subject {
  const kind = text.slice(0, text.indexOf(':'));
  const name = text.slice(kind.length + 1);
  if (kind !== 'account') return { kind: kind === 'group' ? 'Group' : 'User', apiGroup: RBAC, name };
  const [namespace, account] = name.split('/') as [string, string];
  return { kind: 'ServiceAccount', name: account, namespace };
}

function parseRule(line: string): PolicyRule {
  const [verbs, second, resources, names] = line.split(' ') as [string, string, string | undefined, string | undefined];
  const list = (text: string) => text.split(',').sort();
  const rule = { verbs: [...(VERBS[verbs] ?? list(verbs))].sort() };
  if (resources === undefined) return { ...rule, nonResourceURLs: list(second) };
  return {
    ...rule,
    apiGroups: second
      .split(',')
      .map(group => (group === 'core' ? '' : group))
      .sort(),
    resources: list(resources),
    ...(names ? { resourceNames: list(names.slice(1)) } : {}),
  };
}
