/** What upstream's tables say of their columns, by kind and name where they mean something of their own. */

const NAME =
  'Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names';
const CREATED =
  'CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata';

const OF_ALL: Readonly<Record<string, string>> = {
  Name: NAME,
  Age: CREATED,
  'Created At': CREATED,
};
const TEMPLATE = {
  Containers: 'Names of each container in the template.',
  Images: 'Images referenced by each container in the template.',
};
const WEBHOOKS = { Webhooks: 'Webhooks indicates the number of webhooks registered in this configuration' };
const POLICY = { ParamKind: 'ParamKind specifies the kind of resources used to parameterize this policy' };
const POLICY_BINDING = {
  PolicyName: 'PolicyName indicates the policy definition which the policy binding binded to',
  ParamRef: 'ParamRef indicates the param resource which sets the configration param',
};
const subjects = (of: string) => ({
  Users: `Users in the ${of}`,
  Groups: `Groups in the ${of}`,
  ServiceAccounts: `ServiceAccounts in the ${of}`,
});
const READY = 'Number of the pod with ready state';

const OF_KIND: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  ClusterRoleBinding: subjects('clusterRoleBinding'),
  ComponentStatus: {
    Status: 'Status of the component conditions',
    Message: 'Message of the component conditions',
    Error: 'Error of the component conditions',
  },
  ControllerRevision: { Controller: 'Controller of the object' },
  CronJob: TEMPLATE,
  CSINode: { Drivers: 'Drivers indicates the number of CSI drivers registered on the node' },
  DaemonSet: TEMPLATE,
  Deployment: { ...TEMPLATE, Ready: READY },
  FlowSchema: { MissingPL: 'references a broken or non-existent PriorityLevelConfiguration' },
  Ingress: {
    Class: 'The name of the IngressClass resource that should be used for additional configuration',
    Hosts: 'Hosts that incoming requests are matched against before the ingress rule',
    Address: 'Address is a list containing ingress points for the load-balancer',
    Ports: 'Ports of TLS configurations that open',
  },
  IngressClass: {
    Controller: 'Controller that is responsible for handling this class',
    Parameters: 'A reference to a resource with additional parameters',
  },
  Job: { ...TEMPLATE, Status: 'Status of the job.', Duration: 'Time required to complete the job.' },
  MutatingAdmissionPolicy: {
    ...POLICY,
    Mutations: 'Mutation indicates the number of mutations rules defined in this configuration',
  },
  MutatingAdmissionPolicyBinding: POLICY_BINDING,
  MutatingWebhookConfiguration: WEBHOOKS,
  Namespace: { Status: 'The status of the namespace' },
  Node: { Status: 'The status of the node', Roles: 'The roles of the node' },
  PersistentVolume: {
    StorageClass: 'StorageClass of the pv',
    VolumeAttributesClass: 'VolumeAttributesClass of the pv',
  },
  PersistentVolumeClaim: {
    StorageClass: 'StorageClass of the pvc',
    VolumeAttributesClass: 'VolumeAttributesClass of the pvc',
  },
  Pod: {
    Ready: 'The aggregate readiness state of this pod for accepting traffic.',
    Status: 'The aggregate status of the containers in this pod.',
    Restarts:
      'The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.',
  },
  PodDisruptionBudget: {
    'Min Available': 'The minimum number of pods that must be available.',
    'Max Unavailable': 'The maximum number of pods that may be unavailable.',
    'Allowed Disruptions': 'Calculated number of pods that may be disrupted at this time.',
  },
  PodTemplate: { ...TEMPLATE, 'Pod Labels': 'The labels for the pod template.' },
  ReplicaSet: TEMPLATE,
  ReplicationController: TEMPLATE,
  ResourceClaim: { State: 'A summary of the current state (allocated, pending, reserved, etc.).' },
  ResourceQuota: {
    Request: 'Request represents a minimum amount of cpu/memory that a container may consume.',
    Limit:
      'Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.',
  },
  RoleBinding: subjects('roleBinding'),
  StorageVersionMigration: { Resource: 'Fully qualified resource to migrate' },
  StatefulSet: { ...TEMPLATE, Ready: READY },
  ValidatingAdmissionPolicy: {
    ...POLICY,
    Validations: 'Validations indicates the number of validation rules defined in this configuration',
  },
  ValidatingAdmissionPolicyBinding: POLICY_BINDING,
  ValidatingWebhookConfiguration: WEBHOOKS,
};

export function describeColumn(kind: string, column: string): string {
  return OF_KIND[kind]?.[column] ?? OF_ALL[column] ?? '';
}
