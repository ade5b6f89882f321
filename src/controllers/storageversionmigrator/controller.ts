/**
 * StorageVersionMigrations: every object of a resource is written once without a change, so that it is kept in the version and sealed by
 * the key that are current. What vanishes or is changed by somebody else meanwhile has been written anew by that. Works only where the
 * server serves the kind, which it does when it is told to.
 */

import type { Condition, KubeObject } from '../../api/meta.ts';
import { builtinResources } from '../../api/resources.ts';
import type { StorageVersionMigration } from '../../api/storagemigration/v1beta1.gen.ts';
import { formatTime } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import { CUSTOM_RESOURCE_DEFINITIONS, STORAGE_VERSION_MIGRATIONS } from '../../client/resources.ts';
import type { ResourceId } from '../../client/transport.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';
import { customResources } from '../runtime/custom-resources.ts';
import { idOf } from '../runtime/resources.ts';

const PAGE = 500;
const OURS = ['Running', 'Succeeded', 'Failed'];

function create(ctx: ReconcileContext): Controller {
  const migrations = ctx.informers.get<StorageVersionMigration>(STORAGE_VERSION_MIGRATIONS);
  return {
    name: 'storageversionmigrator',
    watches: [
      watch<StorageVersionMigration>(STORAGE_VERSION_MIGRATIONS, change =>
        change.deleted ? [] : [change.object.metadata.name],
      ),
      watch(CUSTOM_RESOURCE_DEFINITIONS, () => []),
    ],
    async reconcile({ name }) {
      const migration = migrations.get(name);
      if (!migration || isOver(migration)) return;
      const of = resourceOf(ctx, migration);
      if (!of) {
        const message = `resource does not exist in GC, failed to migrate: ${migration.spec.resource.resource}`;
        await write(ctx, migration, { type: 'Failed', reason: 'StorageVersionMigrationFailed', message });
        return;
      }
      const running = await write(ctx, migration, {
        type: 'Running',
        reason: 'StorageVersionMigrationInProgress',
        message: '',
      });
      try {
        const resourceVersion = await rewriteAll(ctx, of);
        await write(
          ctx,
          { ...running, status: { ...running.status, resourceVersion } },
          { type: 'Succeeded', reason: 'StorageVersionMigrationSucceeded', message: '' },
        );
      } catch (error) {
        if (ctx.signal.aborted || isReason(error, 'Conflict')) throw error;
        await write(ctx, running, {
          type: 'Failed',
          reason: 'StorageVersionMigrationFailed',
          message: messageOf(error),
        });
      }
    },
  };
}

const isOver = ({ status }: StorageVersionMigration): boolean =>
  status?.conditions?.some(
    ({ type, status: value }) => (type === 'Succeeded' || type === 'Failed') && value === 'True',
  ) === true;

function resourceOf(ctx: ReconcileContext, { spec }: StorageVersionMigration): ResourceId | undefined {
  const { group = '', resource } = spec.resource;
  const info = [...builtinResources, ...customResources(ctx)].find(
    one => one.group === group && one.resource === resource && one.verbs.includes('update'),
  );
  return info && idOf(info);
}

/** Returns the resource version of the list that was gone through. */
async function rewriteAll(ctx: ReconcileContext, of: ResourceId): Promise<string> {
  let from: string | undefined;
  let resourceVersion = '';
  do {
    const page = await ctx.transport.list({ of }, { limit: PAGE, ...(from ? { continue: from } : {}) });
    resourceVersion ||= page.metadata.resourceVersion ?? '';
    for (const item of page.items) await rewrite(ctx, of, item);
    from = page.metadata.continue || undefined;
  } while (from && !ctx.signal.aborted);
  return resourceVersion;
}

async function rewrite({ transport }: ReconcileContext, of: ResourceId, object: KubeObject): Promise<void> {
  const { namespace, name } = object.metadata;
  try {
    await transport.update({ of, ...(namespace ? { namespace } : {}), name }, object);
  } catch (error) {
    if (!isReason(error, 'NotFound', 'Conflict')) throw error;
  }
}

async function write(
  { client, clock }: ReconcileContext,
  migration: StorageVersionMigration,
  { type, reason, message }: { type: string; reason: string; message: string },
): Promise<StorageVersionMigration> {
  const now = formatTime(clock.now());
  const before = migration.status?.conditions ?? [];
  const state = (one: string): Condition => ({
    type: one,
    status: one === type ? 'True' : 'False',
    reason,
    message,
    lastTransitionTime: now,
  });
  // Running ends when the outcome is known.
  const told = OURS.filter(one => one === type || before.some(condition => condition.type === one)).map(state);
  const conditions = [...before.filter(condition => !OURS.includes(condition.type)), ...told];
  const isSame =
    before.length === conditions.length &&
    conditions.every(({ type: one, status }) => before.some(old => old.type === one && old.status === status));
  if (isSame) return migration;
  return client
    .of<StorageVersionMigration>(STORAGE_VERSION_MIGRATIONS)
    .updateStatus({ ...migration, status: { ...migration.status, conditions } });
}

export const storageVersionMigrator: ControllerDefinition = {
  needs: STORAGE_VERSION_MIGRATIONS,
  folder: 'storageversionmigrator',
  component: 'storage-version-migrator-controller',
  create,
};
