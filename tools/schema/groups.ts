/**
 * Which API packages the schema is generated from, in order of the emitted tables: the group-versions of Kubernetes
 * v1.36's OpenAPI, and the few that only clients of the API meet (admission reviews, aggregated discovery).
 */

export interface ApiPackage {
  /** Short name that prefixes type names and names the output file, `rbac.v1`. */
  readonly short: string;
  /** API group, `rbac.authorization.k8s.io`; '' for core. */
  readonly group: string;
  /** Go import path; its types are in {@link extraTypes} when Debian has no such package. */
  readonly path: string;
  /** Kinds to take, with the types they refer to; absent: all. For versions whose other kinds are no longer served. */
  readonly kinds?: readonly string[];
}

const api = (group: string, ...versions: string[]): ApiPackage[] => apiIn(group, folderOf(group), ...versions);
const folderOf = (group: string) => group.split('.')[0] || 'core';

function apiIn(group: string, folder: string, ...versions: string[]): ApiPackage[] {
  return versions.map(version => ({
    short: `${folderOf(group)}.${version}`,
    group,
    path: `k8s.io/api/${folder}/${version}`,
  }));
}

const only = (group: string, version: string, ...kinds: string[]): ApiPackage => ({
  ...api(group, version)[0]!,
  kinds,
});

export const apiPackages: readonly ApiPackage[] = [
  { short: 'meta.v1', group: 'meta.k8s.io', path: 'k8s.io/apimachinery/pkg/apis/meta/v1' },
  { short: 'version', group: '', path: 'k8s.io/apimachinery/pkg/version' },
  ...api('', 'v1'),
  ...api('admission.k8s.io', 'v1'),
  ...api('admissionregistration.k8s.io', 'v1'),
  only('admissionregistration.k8s.io', 'v1beta1', 'MutatingAdmissionPolicy', 'MutatingAdmissionPolicyBinding'),
  only('admissionregistration.k8s.io', 'v1alpha1', 'MutatingAdmissionPolicy', 'MutatingAdmissionPolicyBinding'),
  {
    short: 'apiextensions.v1',
    group: 'apiextensions.k8s.io',
    path: 'k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1',
  },
  {
    short: 'apiregistration.v1',
    group: 'apiregistration.k8s.io',
    path: 'k8s.io/kube-aggregator/pkg/apis/apiregistration/v1',
  },
  ...api('apidiscovery.k8s.io', 'v2'),
  ...api('apps', 'v1'),
  ...api('authentication.k8s.io', 'v1'),
  ...api('authorization.k8s.io', 'v1'),
  ...api('autoscaling', 'v1', 'v2'),
  ...api('batch', 'v1'),
  ...api('certificates.k8s.io', 'v1'),
  only('certificates.k8s.io', 'v1beta1', 'ClusterTrustBundle', 'PodCertificateRequest'),
  only('certificates.k8s.io', 'v1alpha1', 'ClusterTrustBundle'),
  ...api('coordination.k8s.io', 'v1'),
  only('coordination.k8s.io', 'v1beta1', 'LeaseCandidate'),
  only('coordination.k8s.io', 'v1alpha2', 'LeaseCandidate'),
  ...api('discovery.k8s.io', 'v1'),
  ...api('events.k8s.io', 'v1'),
  ...api('flowcontrol.apiserver.k8s.io', 'v1'),
  ...apiIn('internal.apiserver.k8s.io', 'apiserverinternal', 'v1alpha1'),
  ...api('networking.k8s.io', 'v1'),
  only('networking.k8s.io', 'v1beta1', 'IPAddress', 'ServiceCIDR'),
  ...api('node.k8s.io', 'v1'),
  ...api('policy', 'v1'),
  ...api('rbac.authorization.k8s.io', 'v1'),
  ...api('resource.k8s.io', 'v1', 'v1beta2', 'v1beta1'),
  only('resource.k8s.io', 'v1alpha3', 'DeviceTaintRule', 'ResourcePoolStatusRequest'),
  ...api('scheduling.k8s.io', 'v1', 'v1alpha2'),
  ...api('storage.k8s.io', 'v1'),
  only('storage.k8s.io', 'v1beta1', 'VolumeAttributesClass'),
  ...api('storagemigration.k8s.io', 'v1beta1'),
];
