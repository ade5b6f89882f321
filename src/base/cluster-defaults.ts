/** The numbers a cluster has unless told otherwise; the address ranges are kubeadm's. */

export const SERVICE_CIDR = { IPv4: '10.96.0.0/12', IPv6: 'fd00:10:96::/112' } as const;
export const CLUSTER_CIDR = { IPv4: '10.244.0.0/16', IPv6: 'fd00:10:244::/56' } as const;
/** Prefix length of one node's share of the cluster range. */
export const NODE_CIDR_MASK_SIZE = { IPv4: 24, IPv6: 64 } as const;
export const CLUSTER_DOMAIN = 'cluster.local';
export const NODE_PORT_RANGE = { first: 30000, last: 32767 } as const;
export const KUBELET_PORT = 10250;

/** Dev mode: where nodes reach the API server inside their segment. */
export const SEGMENT_API_PORT = 6443;

export const KUBERNETES_VERSION = { major: '1', minor: '36', git: 'v1.36.0+cox' } as const;

declare const COX_COMMIT: string | undefined;
/** Commit of the sources that were bundled; '' when that is not known. */
export const BUILD_COMMIT: string = typeof COX_COMMIT === 'string' ? COX_COMMIT : '';

/** Of Coxswain itself; package.json says the same. */
export const COXSWAIN_VERSION = '0.1.0';

/** Every node makes it of its own programs: see `src/kubelet/images/node-tools.ts`. */
export const NODE_TOOLS_IMAGE = 'node.coxswain.internal/tools:1';

/** The issuer of service account tokens. */
export const issuerOf = (clusterDomain: string = CLUSTER_DOMAIN): string =>
  `https://kubernetes.default.svc.${clusterDomain}`;
