/** Well-known resources by name, so that no group, version or plural is ever spelled twice. */

import type { ResourceId } from './transport.ts';

const define = (group: string, version: string, resource: string): ResourceId => ({ group, version, resource });

export const PODS = define('', 'v1', 'pods');
export const SERVICES = define('', 'v1', 'services');
export const ENDPOINTS = define('', 'v1', 'endpoints');
export const CERTIFICATE_SIGNING_REQUESTS = define('certificates.k8s.io', 'v1', 'certificatesigningrequests');
export const CLUSTER_TRUST_BUNDLES = define('certificates.k8s.io', 'v1beta1', 'clustertrustbundles');
export const POD_CERTIFICATE_REQUESTS = define('certificates.k8s.io', 'v1beta1', 'podcertificaterequests');
export const STORAGE_VERSION_MIGRATIONS = define('storagemigration.k8s.io', 'v1beta1', 'storageversionmigrations');
export const NODES = define('', 'v1', 'nodes');
export const NAMESPACES = define('', 'v1', 'namespaces');
export const CONFIG_MAPS = define('', 'v1', 'configmaps');
export const SECRETS = define('', 'v1', 'secrets');
export const SERVICE_ACCOUNTS = define('', 'v1', 'serviceaccounts');
export const TOKEN_REVIEWS = define('authentication.k8s.io', 'v1', 'tokenreviews');
export const SUBJECT_ACCESS_REVIEWS = define('authorization.k8s.io', 'v1', 'subjectaccessreviews');
export const EVENTS = define('', 'v1', 'events');
export const REPLICATION_CONTROLLERS = define('', 'v1', 'replicationcontrollers');
export const PERSISTENT_VOLUMES = define('', 'v1', 'persistentvolumes');
export const PERSISTENT_VOLUME_CLAIMS = define('', 'v1', 'persistentvolumeclaims');
export const REPLICA_SETS = define('apps', 'v1', 'replicasets');
export const DEPLOYMENTS = define('apps', 'v1', 'deployments');
export const DAEMON_SETS = define('apps', 'v1', 'daemonsets');
export const STATEFUL_SETS = define('apps', 'v1', 'statefulsets');
export const CONTROLLER_REVISIONS = define('apps', 'v1', 'controllerrevisions');
export const JOBS = define('batch', 'v1', 'jobs');
export const CRON_JOBS = define('batch', 'v1', 'cronjobs');
export const ENDPOINT_SLICES = define('discovery.k8s.io', 'v1', 'endpointslices');
export const LEASES = define('coordination.k8s.io', 'v1', 'leases');
export const IP_ADDRESSES = define('networking.k8s.io', 'v1', 'ipaddresses');
export const SERVICE_CIDRS = define('networking.k8s.io', 'v1', 'servicecidrs');
export const INGRESSES = define('networking.k8s.io', 'v1', 'ingresses');
export const INGRESS_CLASSES = define('networking.k8s.io', 'v1', 'ingressclasses');
export const NETWORK_POLICIES = define('networking.k8s.io', 'v1', 'networkpolicies');
export const CLUSTER_NETWORK_POLICIES = define('policy.networking.k8s.io', 'v1alpha2', 'clusternetworkpolicies');
export const ADMIN_NETWORK_POLICIES = define('policy.networking.k8s.io', 'v1alpha1', 'adminnetworkpolicies');
export const BASELINE_ADMIN_NETWORK_POLICIES = define(
  'policy.networking.k8s.io',
  'v1alpha1',
  'baselineadminnetworkpolicies',
);
export const VALIDATING_ADMISSION_POLICIES = define(
  'admissionregistration.k8s.io',
  'v1',
  'validatingadmissionpolicies',
);
export const FLOW_SCHEMAS = define('flowcontrol.apiserver.k8s.io', 'v1', 'flowschemas');
export const PRIORITY_LEVEL_CONFIGURATIONS = define(
  'flowcontrol.apiserver.k8s.io',
  'v1',
  'prioritylevelconfigurations',
);
export const HORIZONTAL_POD_AUTOSCALERS = define('autoscaling', 'v2', 'horizontalpodautoscalers');
export const PRIORITY_CLASSES = define('scheduling.k8s.io', 'v1', 'priorityclasses');
export const RUNTIME_CLASSES = define('node.k8s.io', 'v1', 'runtimeclasses');
export const STORAGE_CLASSES = define('storage.k8s.io', 'v1', 'storageclasses');
export const CLUSTER_ROLES = define('rbac.authorization.k8s.io', 'v1', 'clusterroles');
export const CLUSTER_ROLE_BINDINGS = define('rbac.authorization.k8s.io', 'v1', 'clusterrolebindings');
export const ROLES = define('rbac.authorization.k8s.io', 'v1', 'roles');
export const ROLE_BINDINGS = define('rbac.authorization.k8s.io', 'v1', 'rolebindings');
export const POD_DISRUPTION_BUDGETS = define('policy', 'v1', 'poddisruptionbudgets');
export const IP_ADDRESS_POOLS = define('loadbalancer.coxswain.dev', 'v1beta1', 'ipaddresspools');
export const L2_ADVERTISEMENTS = define('loadbalancer.coxswain.dev', 'v1beta1', 'l2advertisements');
export const BGP_ADVERTISEMENTS = define('loadbalancer.coxswain.dev', 'v1beta1', 'bgpadvertisements');
export const BGP_PEERS = define('loadbalancer.coxswain.dev', 'v1beta1', 'bgppeers');
export const BFD_PROFILES = define('loadbalancer.coxswain.dev', 'v1beta1', 'bfdprofiles');
export const LOAD_BALANCER_PROVIDERS = define('loadbalancer.coxswain.dev', 'v1beta1', 'loadbalancerproviders');
export const BGP_COMMUNITIES = define('loadbalancer.coxswain.dev', 'v1beta1', 'communities');
export const CUSTOM_RESOURCE_DEFINITIONS = define('apiextensions.k8s.io', 'v1', 'customresourcedefinitions');
export const CSI_DRIVERS = define('storage.k8s.io', 'v1', 'csidrivers');
export const CSI_NODES = define('storage.k8s.io', 'v1', 'csinodes');
export const CSI_STORAGE_CAPACITIES = define('storage.k8s.io', 'v1', 'csistoragecapacities');
export const VOLUME_ATTACHMENTS = define('storage.k8s.io', 'v1', 'volumeattachments');
export const VOLUME_ATTRIBUTES_CLASSES = define('storage.k8s.io', 'v1', 'volumeattributesclasses');
export const DEVICE_CLASSES = define('resource.k8s.io', 'v1', 'deviceclasses');
export const RESOURCE_CLAIMS = define('resource.k8s.io', 'v1', 'resourceclaims');
export const RESOURCE_CLAIM_TEMPLATES = define('resource.k8s.io', 'v1', 'resourceclaimtemplates');
export const RESOURCE_SLICES = define('resource.k8s.io', 'v1', 'resourceslices');
export const GATEWAY_CLASSES = define('gateway.networking.k8s.io', 'v1', 'gatewayclasses');
export const GATEWAYS = define('gateway.networking.k8s.io', 'v1', 'gateways');
export const HTTP_ROUTES = define('gateway.networking.k8s.io', 'v1', 'httproutes');
export const GRPC_ROUTES = define('gateway.networking.k8s.io', 'v1', 'grpcroutes');
export const TLS_ROUTES = define('gateway.networking.k8s.io', 'v1', 'tlsroutes');
export const TCP_ROUTES = define('gateway.networking.k8s.io', 'v1alpha2', 'tcproutes');
export const UDP_ROUTES = define('gateway.networking.k8s.io', 'v1alpha2', 'udproutes');
export const LISTENER_SETS = define('gateway.networking.k8s.io', 'v1', 'listenersets');
export const REFERENCE_GRANTS = define('gateway.networking.k8s.io', 'v1', 'referencegrants');
export const BACKEND_TLS_POLICIES = define('gateway.networking.k8s.io', 'v1', 'backendtlspolicies');
