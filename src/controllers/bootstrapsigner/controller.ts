/**
 * Signs the ConfigMap `cluster-info` of kube-public with each bootstrap token that is for signing, so that a machine that joins knows by
 * its token that the kubeconfig in it is the cluster's. Signatures of tokens that are gone go too.
 */

import { createHmac } from 'node:crypto';
import type { ConfigMap, Secret } from '../../api/core/v1.gen.ts';
import { isReason } from '../../base/errors.ts';
import { CONFIG_MAPS, SECRETS } from '../../client/resources.ts';
import { isBootstrapToken, tokenField } from '../runtime/bootstrap-tokens.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  watch,
} from '../runtime/controller.ts';

const NAMESPACE = 'kube-public';
const NAME = 'cluster-info';
const KEY = `${NAMESPACE}/${NAME}`;
const PREFIX = 'jws-kubeconfig-';

/** A JWS (RFC 7515) whose payload is left out, as it stands beside it. */
export function detachedSignature(content: string, token: { readonly id: string; readonly secret: string }): string {
  const encode = (text: string) => Buffer.from(text).toString('base64url');
  const head = encode(JSON.stringify({ alg: 'HS256', kid: token.id }));
  const signature = createHmac('sha256', token.secret)
    .update(`${head}.${encode(content)}`)
    .digest('base64url');
  return `${head}..${signature}`;
}

function create(ctx: ReconcileContext): Controller {
  const maps = ctx.informers.get<ConfigMap>(CONFIG_MAPS);
  const secrets = ctx.informers.get<Secret>(SECRETS);

  function signatures(content: string): Record<string, string> {
    const found: Record<string, string> = {};
    for (const secret of secrets.values()) {
      if (!isBootstrapToken(secret) || tokenField(secret, 'usage-bootstrap-signing') !== 'true') continue;
      const [id, key] = [tokenField(secret, 'token-id'), tokenField(secret, 'token-secret')];
      const expiration = tokenField(secret, 'expiration');
      const hasExpired = expiration !== '' && !(Date.parse(expiration) > ctx.clock.now());
      if (!id || !key || hasExpired || secret.metadata.name !== `bootstrap-token-${id}`) continue;
      found[`${PREFIX}${id}`] = detachedSignature(content, { id, secret: key });
    }
    return found;
  }

  return {
    name: 'bootstrapsigner',
    workers: 1,
    watches: [
      watch<ConfigMap>(CONFIG_MAPS, change => {
        const { namespace, name } = latest(change).metadata;
        return !change.deleted && namespace === NAMESPACE && name === NAME ? [KEY] : [];
      }),
      watch<Secret>(SECRETS, change => (isBootstrapToken(latest(change)) ? [KEY] : [])),
    ],
    async reconcile() {
      const map = maps.get(KEY);
      const content = map?.data?.['kubeconfig'];
      if (!map || content === undefined) return;
      const others = Object.entries(map.data ?? {}).filter(([key]) => !key.startsWith(PREFIX));
      const data = { ...Object.fromEntries(others), ...signatures(content) };
      const sorted = (of: object) => JSON.stringify(Object.entries(of).sort());
      if (sorted(data) === sorted(map.data ?? {})) return;
      try {
        await ctx.client.of<ConfigMap>(CONFIG_MAPS).update({ ...map, data });
      } catch (error) {
        if (!isReason(error, 'NotFound')) throw error;
      }
    },
  };
}

export const bootstrapSigner: ControllerDefinition = {
  folder: 'bootstrapsigner',
  component: 'bootstrap-signer',
  create,
};
