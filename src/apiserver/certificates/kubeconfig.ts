/** Kubeconfig text with everything embedded, so that one file is all a client needs. YAML that is also plain to read. */

import type { KeyPair } from './certificate.ts';

export interface KubeconfigOptions {
  /** `https://127.0.0.1:6443` */
  readonly server: string;
  readonly ca: string;
  /** Cluster, user and context name. */
  readonly name: string;
  readonly credentials: KeyPair | { readonly token: string };
  readonly namespace?: string;
}

/** One cluster, one user, one context, which is the current one. */
export function kubeconfig(options: KubeconfigOptions): string {
  const text = (value: string) => JSON.stringify(value);
  const data = (pem: string) => Buffer.from(pem).toString('base64');
  const user =
    'token' in options.credentials
      ? `    token: ${text(options.credentials.token)}\n`
      : `    client-certificate-data: ${data(options.credentials.certificate)}\n    client-key-data: ${data(options.credentials.key)}\n`;
  return `apiVersion: v1
kind: Config
clusters:
- name: ${text(options.name)}
  cluster:
    server: ${text(options.server)}
    certificate-authority-data: ${data(options.ca)}
users:
- name: ${text(options.name)}
  user:
${user}contexts:
- name: ${text(options.name)}
  context:
    cluster: ${text(options.name)}
    user: ${text(options.name)}
${options.namespace ? `    namespace: ${text(options.namespace)}\n` : ''}current-context: ${text(options.name)}
`;
}
