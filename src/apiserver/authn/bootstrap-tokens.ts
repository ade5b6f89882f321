/** Bootstrap tokens, `id.secret`: Secrets in kube-system by which machines that join prove themselves (kubeadm's, and ours). */

import { timingSafeEqual } from 'node:crypto';
import type { Clock } from '../../base/clock.ts';
import { SECRETS } from '../../client/resources.ts';
import type { Reader, UserInfo } from '../request.ts';
import type { TokenAuthenticator, Verified } from './token-authenticator.ts';

const TOKEN = /^([a-z0-9]{6})\.([a-z0-9]{16})$/;
const EXTRA_GROUP = /^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$/;

export class BootstrapTokens implements TokenAuthenticator {
  readonly #options: { readonly reader: () => Reader; readonly clock: Clock };
  constructor(options: { readonly reader: () => Reader; readonly clock: Clock }) {
    this.#options = options;
  }

  verify(token: string, audiences: readonly string[]): Verified | undefined {
    const user = this.#userOf(token);
    return user && { user, audiences };
  }

  #userOf(token: string): UserInfo | undefined {
    const match = TOKEN.exec(token);
    if (!match) return undefined;
    const secret = this.#options.reader().get(SECRETS, 'kube-system', `bootstrap-token-${match[1]}`) as
      | { type?: string; data?: Record<string, string>; metadata: { deletionTimestamp?: string } }
      | undefined;
    if (secret?.type !== 'bootstrap.kubernetes.io/token' || secret.metadata.deletionTimestamp) return undefined;
    const field = (name: string) => Buffer.from(secret.data?.[name] ?? '', 'base64').toString();
    const expected = Buffer.from(field('token-secret'));
    if (expected.length !== 16 || !timingSafeEqual(expected, Buffer.from(match[2]!)) || field('token-id') !== match[1])
      return undefined;
    const expiration = field('expiration');
    if (expiration !== '' && !(Date.parse(expiration) > this.#options.clock.now())) return undefined;
    if (field('usage-bootstrap-authentication') !== 'true') return undefined;
    const extra = field('auth-extra-groups')
      .split(',')
      .filter(group => EXTRA_GROUP.test(group));
    return { name: `system:bootstrap:${match[1]}`, groups: ['system:bootstrappers', ...extra] };
  }
}
