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

export const apiPackages: readonly ApiPackage[] = [
  { short: 'meta.v1', group: 'meta.k8s.io', path: 'k8s.io/apimachinery/pkg/apis/meta/v1' },
  { short: 'version', group: '', path: 'k8s.io/apimachinery/pkg/version' },
  ...api('', 'v1'),
  ...api('admission.k8s.io', 'v1'),
  ...api('admissionregistration.k8s.io', 'v1', 'v1beta1', 'v1alpha1'),
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
  ...api('certificates.k8s.io', 'v1', 'v1beta1', 'v1alpha1'),
  ...api('coordination.k8s.io', 'v1', 'v1beta1', 'v1alpha2'),
  ...api('discovery.k8s.io', 'v1'),
  ...api('events.k8s.io', 'v1'),
  ...api('flowcontrol.apiserver.k8s.io', 'v1'),
  ...apiIn('internal.apiserver.k8s.io', 'apiserverinternal', 'v1alpha1'),
  ...api('networking.k8s.io', 'v1', 'v1beta1'),
  ...api('node.k8s.io', 'v1'),
  ...api('policy', 'v1'),
  ...api('rbac.authorization.k8s.io', 'v1'),
  ...api('resource.k8s.io', 'v1', 'v1beta2', 'v1beta1', 'v1alpha3'),
  ...api('scheduling.k8s.io', 'v1', 'v1alpha2'),
  ...api('storage.k8s.io', 'v1', 'v1beta1'),
  ...api('storagemigration.k8s.io', 'v1beta1'),
];

/** `io.k8s.api.core.v1`, as OpenAPI definitions and protobuf packages are named. */
export function openapiPackage(path: string): string {
  return path.replace(/^k8s\.io\//, 'io.k8s.').replaceAll('/', '.');
}
