/** Bootstrap tokens as controllers see them. */

import type { Secret } from '../../api/core/v1.gen.ts';

export const TOKEN_NAMESPACE = 'kube-system';
const TYPE = 'bootstrap.kubernetes.io/token';

export const isBootstrapToken = ({ metadata, type }: Secret): boolean =>
  metadata.namespace === TOKEN_NAMESPACE && type === TYPE;

/** A field of the token as text; '' when it is not there. */
export const tokenField = (secret: Secret, name: string): string =>
  Buffer.from(secret.data?.[name] ?? '', 'base64').toString();
