/**
 * Tokens in Secrets, of before bound tokens: a Secret of type service-account-token that names a ServiceAccount gets a token that does
 * not expire; it goes when its account does. Nothing makes such Secrets by itself any more.
 */

import type { Secret, ServiceAccount } from '../../api/core/v1.gen.ts';
import { isReason } from '../../base/errors.ts';
import { SECRETS, SERVICE_ACCOUNTS } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  watch,
} from '../runtime/controller.ts';

const TYPE = 'kubernetes.io/service-account-token';
const NAME = 'kubernetes.io/service-account.name';
const UID = 'kubernetes.io/service-account.uid';

const BY_ACCOUNT = 'tokenOfServiceAccount';

const encode = (text: string): string => Buffer.from(text).toString('base64');

function create(ctx: ReconcileContext): Controller {
  const secrets = ctx.informers.get<Secret>(SECRETS);
  const accounts = ctx.informers.get<ServiceAccount>(SERVICE_ACCOUNTS);
  secrets.addIndex(BY_ACCOUNT, ({ type, metadata }) =>
    type === TYPE ? [`${metadata.namespace}/${metadata.annotations?.[NAME] ?? ''}`] : [],
  );
  const client = ctx.client.of<Secret>(SECRETS);

  return {
    name: 'serviceaccounttoken',
    watches: [
      watch<Secret>(SECRETS, change =>
        !change.deleted && change.object.type === TYPE
          ? [`${change.object.metadata.namespace}/${change.object.metadata.name}`]
          : [],
      ),
      watch<ServiceAccount>(SERVICE_ACCOUNTS, change => {
        const { namespace, name } = latest(change).metadata;
        return secrets
          .byIndex(BY_ACCOUNT, `${namespace}/${name}`)
          .map(({ metadata }) => `${namespace}/${metadata.name}`);
      }),
    ],
    async reconcile({ namespace, name }) {
      const { authority, caPem } = ctx.settings;
      const secret = secrets.get(`${namespace}/${name}`);
      const accountName = secret?.metadata.annotations?.[NAME];
      if (
        !authority?.legacyToken ||
        !secret ||
        secret.type !== TYPE ||
        !accountName ||
        secret.metadata.deletionTimestamp
      )
        return;
      const account = accounts.get(`${namespace}/${accountName}`);
      const uid = secret.metadata.annotations?.[UID];
      try {
        if (!account || (uid && uid !== account.metadata.uid)) {
          // The informer of accounts may be behind that of Secrets: what the server says counts.
          const current = await ctx.client
            .of<ServiceAccount>(SERVICE_ACCOUNTS)
            .get(namespace, accountName)
            .catch(error => {
              if (isReason(error, 'NotFound')) return undefined;
              throw error;
            });
          if (current && (!uid || uid === current.metadata.uid)) return { requeueAfterMs: 200 };
          await client.delete(namespace, name, { preconditions: { uid: secret.metadata.uid! } });
          return;
        }
        const wanted = { 'ca.crt': encode(caPem), namespace: encode(namespace) };
        const has = secret.data ?? {};
        if (uid && has['token'] && has['ca.crt'] === wanted['ca.crt'] && has['namespace'] === wanted.namespace) return;
        const token =
          has['token'] ??
          encode(
            await authority.legacyToken({
              namespace,
              secret: name,
              serviceAccount: { name: accountName, uid: account.metadata.uid! },
            }),
          );
        await client.update({
          ...secret,
          metadata: {
            ...secret.metadata,
            annotations: { ...secret.metadata.annotations, [UID]: account.metadata.uid! },
          },
          data: { ...has, ...wanted, token },
        });
      } catch (error) {
        if (!isReason(error, 'NotFound')) throw error;
      }
    },
  };
}

export const serviceAccountToken: ControllerDefinition = {
  folder: 'serviceaccounttoken',
  component: 'tokens-controller',
  create,
};
