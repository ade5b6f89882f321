/** Objects that every Coxswain cluster has beside upstream's own: the DNS Service, its Corefile and the rights of the node network. */

import type { KubeObject } from '../api/meta.ts';
import type { ClusterRole } from '../api/rbac/v1.gen.ts';
import { isReason } from '../base/errors.ts';
import { Client } from '../client/client.ts';
import { CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, CONFIG_MAPS, INGRESS_CLASSES, SERVICES } from '../client/resources.ts';
import type { ResourceId, Transport } from '../client/transport.ts';
import { COREFILE_CONFIG_MAP } from '../dns/cluster-dns.ts';
import { defaultCorefile } from '../dns/configuration.ts';
import { CLASS_NAME, CONTROLLER } from '../ingress/ingress-class.ts';
import { LOCAL_VOLUME_OBJECTS } from './local-volumes.ts';

/** Group of the certificates with which nodes' proxy, DNS and overlay read Services, slices and nodes. */
export const NODE_NETWORK_GROUP = 'system:coxswain:network';
/** Group of the certificates with which nodes' ingress reads Ingresses and the Secrets they mention. */
export const INGRESS_GROUP = 'system:coxswain:ingress';

const RBAC = 'rbac.authorization.k8s.io';

function dnsService(clusterDns: string): KubeObject {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: {
      name: 'kube-dns',
      namespace: 'kube-system',
      annotations: { 'prometheus.io/port': '9153', 'prometheus.io/scrape': 'true' },
      labels: { 'k8s-app': 'kube-dns', 'kubernetes.io/cluster-service': 'true', 'kubernetes.io/name': 'CoreDNS' },
    },
    spec: {
      clusterIP: clusterDns,
      ports: [
        { name: 'dns', port: 53, protocol: 'UDP', targetPort: 53 },
        { name: 'dns-tcp', port: 53, protocol: 'TCP', targetPort: 53 },
        { name: 'metrics', port: 9153, protocol: 'TCP', targetPort: 9153 },
      ],
    },
  } as KubeObject;
}

/** Every node's DNS follows it. */
function corefile(clusterDomain: string): KubeObject {
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { ...COREFILE_CONFIG_MAP },
    data: { Corefile: defaultCorefile(clusterDomain) },
  } as KubeObject;
}

const AUTO_UPDATE = 'rbac.authorization.kubernetes.io/autoupdate';

const NETWORK_ROLE = {
  apiVersion: `${RBAC}/v1`,
  kind: 'ClusterRole',
  metadata: { name: NODE_NETWORK_GROUP },
  rules: [
    {
      apiGroups: [''],
      resources: ['services', 'endpoints', 'pods', 'namespaces', 'nodes', 'configmaps'],
      verbs: ['get', 'list', 'watch'],
    },
    { apiGroups: [''], resources: ['nodes'], verbs: ['patch'] },
    { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['get', 'list', 'watch'] },
    {
      apiGroups: ['loadbalancer.coxswain.dev', 'policy.networking.k8s.io'],
      resources: ['*'],
      verbs: ['get', 'list', 'watch'],
    },
    { apiGroups: ['apiextensions.k8s.io'], resources: ['customresourcedefinitions'], verbs: ['get'] },
    {
      apiGroups: ['networking.k8s.io'],
      resources: ['networkpolicies', 'servicecidrs'],
      verbs: ['get', 'list', 'watch'],
    },
    { apiGroups: ['', 'events.k8s.io'], resources: ['events'], verbs: ['create', 'patch', 'update'] },
  ],
} as KubeObject;

const INGRESS_ROLE = {
  apiVersion: `${RBAC}/v1`,
  kind: 'ClusterRole',
  metadata: { name: INGRESS_GROUP },
  rules: [
    { apiGroups: [''], resources: ['secrets', 'configmaps'], verbs: ['get', 'list', 'watch'] },
    {
      apiGroups: ['networking.k8s.io'],
      resources: ['ingresses', 'ingressclasses'],
      verbs: ['get', 'list', 'watch'],
    },
  ],
} as KubeObject;

/** A role of its own, so that clusters that were made without it get it too. */
const GATEWAY_ROLE = {
  apiVersion: `${RBAC}/v1`,
  kind: 'ClusterRole',
  metadata: { name: 'system:coxswain:gateway' },
  rules: [
    { apiGroups: ['gateway.networking.k8s.io'], resources: ['*'], verbs: ['get', 'list', 'watch'] },
    { apiGroups: [''], resources: ['namespaces'], verbs: ['get', 'list', 'watch'] },
  ],
} as KubeObject;

/** The role of a group's own name, unless another is given. */
function binding(group: string, role = group): KubeObject {
  return {
    apiVersion: `${RBAC}/v1`,
    kind: 'ClusterRoleBinding',
    metadata: { name: role },
    roleRef: { apiGroup: RBAC, kind: 'ClusterRole', name: role },
    subjects: [{ apiGroup: RBAC, kind: 'Group', name: group }],
  } as KubeObject;
}

const INGRESS_CLASS = {
  apiVersion: 'networking.k8s.io/v1',
  kind: 'IngressClass',
  metadata: { name: CLASS_NAME, annotations: { 'ingressclass.kubernetes.io/is-default-class': 'true' } },
  spec: { controller: CONTROLLER },
} as KubeObject;

/**
 * Creates what is missing; what is there stays as the administrator left it, but roles gain the rules that this version needs and
 * an earlier one did not know, as upstream's own do.
 */
export async function ensureAddons(
  transport: Transport,
  options: { clusterDns: string; clusterDomain: string },
): Promise<void> {
  const ensure = async (of: ResourceId, object: KubeObject) => {
    try {
      const created = await new Client(transport).of(of).ensure(object);
      if (!created && of === CLUSTER_ROLES) await addRules(transport, object as ClusterRole);
    } catch (error) {
      if (!(of === SERVICES && isReason(error, 'Invalid'))) throw error;
    }
  };
  await Promise.all([
    ensure(CLUSTER_ROLES, NETWORK_ROLE),
    ensure(CLUSTER_ROLE_BINDINGS, binding(NODE_NETWORK_GROUP)),
    ensure(CLUSTER_ROLES, INGRESS_ROLE),
    ensure(CLUSTER_ROLE_BINDINGS, binding(INGRESS_GROUP)),
    ensure(CLUSTER_ROLES, GATEWAY_ROLE),
    ensure(CLUSTER_ROLE_BINDINGS, binding(INGRESS_GROUP, GATEWAY_ROLE.metadata.name)),
    ensure(INGRESS_CLASSES, INGRESS_CLASS),
    ensure(SERVICES, dnsService(options.clusterDns)),
    ensure(CONFIG_MAPS, corefile(options.clusterDomain)),
    ...LOCAL_VOLUME_OBJECTS.map(([of, object]) => ensure(of, object)),
  ]);
}

async function addRules(transport: Transport, { metadata, rules: needed }: ClusterRole): Promise<void> {
  const target = { of: CLUSTER_ROLES, name: metadata.name };
  const { metadata: found, rules } = (await transport.get(target)) as ClusterRole;
  if (found.annotations?.[AUTO_UPDATE] === 'false') return;
  const present = new Set((rules ?? []).map(rule => JSON.stringify(rule)));
  const missing = (needed ?? []).filter(rule => !present.has(JSON.stringify(rule)));
  if (missing.length === 0) return;
  await transport.patch(
    target,
    { metadata: { resourceVersion: found.resourceVersion }, rules: [...(rules ?? []), ...missing] },
    'application/merge-patch+json',
  );
}
