/** Deletes bootstrap tokens (Secrets in kube-system) that have expired. */

import type { Secret } from '../../api/core/v1.gen.ts';
import { isReason } from '../../base/errors.ts';
import { SECRETS } from '../../client/resources.ts';
import { isBootstrapToken, TOKEN_NAMESPACE, tokenField } from '../runtime/bootstrap-tokens.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';

function create(ctx: ReconcileContext): Controller {
  const secrets = ctx.informers.get<Secret>(SECRETS);
  return {
    name: 'tokencleaner',
    watches: [
      watch<Secret>(SECRETS, change =>
        !change.deleted && isBootstrapToken(change.object) ? [`${TOKEN_NAMESPACE}/${change.object.metadata.name}`] : [],
      ),
    ],
    async reconcile({ namespace, name }) {
      const secret = secrets.get(`${namespace}/${name}`);
      const expiration = secret && tokenField(secret, 'expiration');
      if (!expiration) return;
      const atMs = Date.parse(expiration);
      // A time that nobody can read has passed, as for who checks the token.
      const waitMs = Number.isNaN(atMs) ? 0 : atMs - ctx.clock.now();
      if (waitMs > 0) return { requeueAfterMs: waitMs };
      try {
        await ctx.client.of<Secret>(SECRETS).delete(namespace, name, { preconditions: { uid: secret.metadata.uid! } });
      } catch (error) {
        if (!isReason(error, 'NotFound', 'Conflict')) throw error;
      }
    },
  };
}

export const tokenCleaner: ControllerDefinition = { folder: 'tokencleaner', component: 'token-cleaner', create };
