/** What a driver is told of the pod when its CSIDriver object asks for it: names, and tokens of the service account. */

import type { CSIDriver } from '../../../api/storage/v1.gen.ts';
import type { VolumeContext } from '../volume.ts';

const SECONDS_DEFAULT = 3600;
const PREFIX = 'csi.storage.k8s.io/';
const TOKENS = `${PREFIX}serviceAccount.tokens`;

export async function podFacts(
  object: CSIDriver | undefined,
  { context, isEphemeral }: { readonly context: VolumeContext; readonly isEphemeral: boolean },
): Promise<{ readonly volumeContext: Record<string, string>; readonly secrets: Record<string, string> }> {
  const { pod } = context;
  const volumeContext: Record<string, string> = {};
  if (object?.spec.podInfoOnMount) {
    volumeContext[`${PREFIX}pod.name`] = pod.metadata.name;
    volumeContext[`${PREFIX}pod.namespace`] = pod.metadata.namespace!;
    volumeContext[`${PREFIX}pod.uid`] = pod.metadata.uid!;
    volumeContext[`${PREFIX}serviceAccount.name`] = pod.spec.serviceAccountName ?? 'default';
    volumeContext[`${PREFIX}ephemeral`] = String(isEphemeral);
  } else if (isEphemeral) volumeContext[`${PREFIX}ephemeral`] = 'true';
  const requests = object?.spec.tokenRequests ?? [];
  if (requests.length === 0) return { volumeContext, secrets: {} };
  const tokens: Record<string, { token: string; expirationTimestamp: string }> = {};
  for (const { audience, expirationSeconds = SECONDS_DEFAULT } of requests) {
    const token = await context.token({ audience: audience || undefined, expirationSeconds });
    tokens[audience] = { token, expirationTimestamp: expiryOf(token) };
  }
  const text = JSON.stringify(tokens);
  return object?.spec.serviceAccountTokenInSecrets
    ? { volumeContext, secrets: { [TOKENS]: text } }
    : { volumeContext: { ...volumeContext, [TOKENS]: text }, secrets: {} };
}

/** As the token itself says. */
function expiryOf(token: string): string {
  const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8')) as { exp?: number };
  return `${new Date((claims.exp ?? 0) * 1000).toISOString().slice(0, 19)}Z`;
}
