/**
 * Tokens in Secrets that nobody has used for a year are marked as invalid, and deleted another year later (KEP-2799). Only those that
 * a ServiceAccount lists, as old clusters made them by themselves, and that no pod mounts. Nothing is known of the time before
 * `since` in the ConfigMap that this controller writes: a year must have passed since then, too.
 */

import type { ConfigMap, Pod, Secret, ServiceAccount } from '../../api/core/v1.gen.ts';
import { isReason } from '../../base/errors.ts';
import { CONFIG_MAPS, PODS, SECRETS, SERVICE_ACCOUNTS } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';

const NAMESPACE = 'kube-system';
const TRACKING = 'kube-apiserver-legacy-service-account-token-tracking';
const TRACKING_KEY = `${NAMESPACE}/${TRACKING}`;
const LAST_USED = 'kubernetes.io/legacy-token-last-used';
const INVALID_SINCE = 'kubernetes.io/legacy-token-invalid-since';
const TOKEN_TYPE = 'kubernetes.io/service-account-token';
const DAY_MS = 24 * 3600 * 1000;
/** Upstream's --legacy-service-account-token-clean-up-period. */
const UNUSED_MS = 365 * DAY_MS;

const dateOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10);

function create(ctx: ReconcileContext): Controller {
  const secrets = ctx.informers.get<Secret>(SECRETS);
  const maps = ctx.informers.get<ConfigMap>(CONFIG_MAPS);
  const accounts = ctx.informers.get<ServiceAccount>(SERVICE_ACCOUNTS);
  const pods = ctx.informers.get<Pod>(PODS);

  const isListed = ({ metadata }: Secret): boolean => {
    const account = accounts.get(
      `${metadata.namespace}/${metadata.annotations?.['kubernetes.io/service-account.name'] ?? ''}`,
    );
    return account?.secrets?.some(({ name }) => name === metadata.name) === true;
  };
  const isMounted = ({ metadata }: Secret): boolean =>
    [...pods.values()].some(
      pod =>
        pod.metadata.namespace === metadata.namespace &&
        pod.spec.volumes?.some(volume => volume.secret?.secretName === metadata.name),
    );

  return {
    name: 'legacytokencleaner',
    watches: [
      watch<Secret>(SECRETS, change =>
        !change.deleted && change.object.type === TOKEN_TYPE
          ? [`${change.object.metadata.namespace}/${change.object.metadata.name}`]
          : [],
      ),
      watch<ConfigMap>(CONFIG_MAPS, change =>
        (change.deleted ? change.old : change.object).metadata.name === TRACKING ? [TRACKING_KEY] : [],
      ),
      watch(SERVICE_ACCOUNTS, () => []),
      watch(PODS, () => []),
    ],
    started: () => ctx.enqueue(TRACKING_KEY),
    async reconcile({ namespace, name }): Promise<Result | void> {
      if (`${namespace}/${name}` === TRACKING_KEY) return track(ctx, maps.get(TRACKING_KEY));
      const secret = secrets.get(`${namespace}/${name}`);
      if (secret?.type !== TOKEN_TYPE) return;
      const nowMs = ctx.clock.now();
      const again = { requeueAfterMs: DAY_MS };
      const knownMs = Date.parse(maps.get(TRACKING_KEY)?.data?.['since'] ?? '');
      const isOld = (date: string | undefined) => nowMs - Date.parse(date ?? '') > UNUSED_MS;
      if (!(nowMs - knownMs > UNUSED_MS)) return again;
      const { labels = {}, creationTimestamp } = secret.metadata;
      if (!isOld(labels[LAST_USED] ?? creationTimestamp) || !isListed(secret) || isMounted(secret)) return again;
      const client = ctx.client.of<Secret>(SECRETS);
      const { uid, resourceVersion } = secret.metadata;
      try {
        if (!labels[INVALID_SINCE])
          await client.patch(namespace, name, {
            metadata: { uid, resourceVersion, labels: { [INVALID_SINCE]: dateOf(nowMs) } },
          });
        else if (isOld(labels[INVALID_SINCE]))
          await client.delete(namespace, name, { preconditions: { uid: uid!, resourceVersion: resourceVersion! } });
      } catch (error) {
        if (!isReason(error, 'NotFound', 'Conflict')) throw error;
      }
      return again;
    },
  };
}

/** The day since when the use of tokens is written down; a clock that was wrong does not make it later than today. */
async function track(ctx: ReconcileContext, found: ConfigMap | undefined): Promise<void> {
  const nowMs = ctx.clock.now();
  const since = Date.parse(found?.data?.['since'] ?? '');
  if (since <= nowMs) return;
  const client = ctx.client.of<ConfigMap>(CONFIG_MAPS);
  const data = { since: dateOf(nowMs) };
  try {
    if (found) await client.patch(NAMESPACE, TRACKING, { data });
    else
      await client.create({
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name: TRACKING, namespace: NAMESPACE },
        data,
      });
  } catch (error) {
    if (!isReason(error, 'AlreadyExists', 'NotFound')) throw error;
  }
}

export const legacyTokenCleaner: ControllerDefinition = {
  folder: 'legacytokencleaner',
  component: 'legacy-service-account-token-cleaner',
  create,
};
