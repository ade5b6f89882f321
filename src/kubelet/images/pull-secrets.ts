/** The credentials that a pod brings along: its imagePullSecrets (those of its service account are among them already). */

import type { Pod, Secret } from '../../api/core/v1.gen.ts';
import { messageOf } from '../../base/errors.ts';
import { type Credential, Keyring } from './credentials.ts';

const FORMS = {
  'kubernetes.io/dockerconfigjson': ['.dockerconfigjson', 'dockerconfigjson'],
  'kubernetes.io/dockercfg': ['.dockercfg', 'dockercfg'],
} as const;

export interface PodCredentials {
  readonly credentials: readonly Credential[];
  /** Secrets that are not there or cannot be read as credentials, for the pod's events. */
  readonly problems: readonly { readonly secret: string; readonly why?: string }[];
}

export async function podCredentials(
  pod: Pod,
  repository: string,
  read: (name: string) => Promise<Secret | undefined>,
): Promise<PodCredentials> {
  const keyring = new Keyring();
  const problems: { secret: string; why?: string }[] = [];
  for (const { name = '' } of pod.spec.imagePullSecrets ?? []) {
    if (name === '') continue;
    const secret = await read(name);
    if (!secret) {
      problems.push({ secret: name });
      continue;
    }
    // As upstream: a secret of another type brings nothing.
    const form = FORMS[secret.type as keyof typeof FORMS];
    const data = form && secret.data?.[form[0]];
    if (!form || !data) continue;
    try {
      keyring.add(Buffer.from(data, 'base64').toString('utf8'), {
        form: form[1],
        secret: { uid: secret.metadata.uid ?? '', namespace: pod.metadata.namespace!, name },
      });
    } catch (error) {
      problems.push({ secret: name, why: messageOf(error) });
    }
  }
  return { credentials: keyring.lookup(repository), problems };
}
