/** Which certificates a dev cluster has: the administrator's, and each node's kubelet, serving and networking ones. */

import { join } from 'node:path';
import type { KeyPair } from '../apiserver/certificates/certificate.ts';
import { defaultServerNames, ensurePki, type Pki } from '../apiserver/certificates/pki.ts';
import { INGRESS_GROUP, NODE_NETWORK_GROUP } from './addons.ts';
import { type ClusterRanges, kubernetesAddress } from './cluster-ranges.ts';
import { NODE_STORAGE_GROUP } from './local-volumes.ts';

export interface AgentCredentials {
  readonly ca: string;
  /** system:node:NAME, what the kubelet acts as. */
  readonly kubelet: KeyPair;
  /** What the kubelet's own HTTPS port shows. */
  readonly serving: KeyPair;
  /** Proxy, DNS and overlay. */
  readonly network: KeyPair;
  /** The sidecars of cox-local. */
  readonly storage: KeyPair;
  /** Reads Ingresses and the Secrets they mention. */
  readonly ingress: KeyPair;
  /** Shown to clients that ask for a host without a certificate. */
  readonly ingressServing: KeyPair;
}

export const pkiDir = (stateDir: string): string => join(stateDir, 'pki');

/** `addresses` are where the API server listens beside localhost. */
export function openPki(
  stateDir: string,
  { addresses, ranges }: { readonly addresses: readonly string[]; readonly ranges: ClusterRanges },
): Promise<Pki> {
  return ensurePki(pkiDir(stateDir), { sans: [...defaultServerNames(), ...addresses, kubernetesAddress(ranges)] });
}

export function adminCredentials(pki: Pki): Promise<KeyPair> {
  return pki.ensureClient('admin', { commonName: 'kubernetes-admin', organizations: ['system:masters'] });
}

export async function agentCredentials(
  pki: Pki,
  node: { readonly name: string; readonly addresses: readonly string[] },
): Promise<AgentCredentials> {
  const subject = { commonName: `system:node:${node.name}`, organizations: ['system:nodes'] };
  const [kubelet, serving, network, storage, ingress, ingressServing] = await Promise.all([
    pki.ensureClient(`${node.name}-kubelet`, subject),
    pki.ensureServer(`${node.name}-serving`, subject, [node.name, ...node.addresses]),
    pki.ensureClient(`${node.name}-network`, {
      commonName: `system:coxswain:network:${node.name}`,
      organizations: [NODE_NETWORK_GROUP],
    }),
    pki.ensureClient(`${node.name}-storage`, {
      commonName: `system:coxswain:storage:${node.name}`,
      organizations: [NODE_STORAGE_GROUP],
    }),
    pki.ensureClient(`${node.name}-ingress`, {
      commonName: `system:coxswain:ingress:${node.name}`,
      organizations: [INGRESS_GROUP],
    }),
    pki.ensureServer(
      `${node.name}-ingress-serving`,
      { commonName: 'Coxswain ingress default certificate', organizations: [] },
      ['ingress.local'],
    ),
  ]);
  return { ca: pki.ca, kubelet, serving, network, storage, ingress, ingressServing };
}
