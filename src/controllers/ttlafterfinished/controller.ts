/** Deletes finished Jobs after their `ttlSecondsAfterFinished`. */

import type { Job } from '../../api/batch/v1.gen.ts';
import { keyOf } from '../../api/meta.ts';
import { isReason } from '../../base/errors.ts';
import { JOBS } from '../../client/resources.ts';
import { type Controller, type ControllerDefinition, type ReconcileContext, watch } from '../runtime/controller.ts';

/** When the Job may go; undefined while it runs or when it is to stay. */
export function expiryMs(job: Job): number | undefined {
  const seconds = job.spec?.ttlSecondsAfterFinished;
  const finished = job.status?.conditions?.find(
    ({ type, status }) => status === 'True' && (type === 'Complete' || type === 'Failed'),
  );
  if (seconds === undefined || !finished) return undefined;
  return Date.parse(finished.lastTransitionTime ?? '') + seconds * 1000;
}

function create(ctx: ReconcileContext): Controller {
  const jobs = ctx.informers.get<Job>(JOBS);
  return {
    name: 'ttlafterfinished',
    watches: [
      watch<Job>(JOBS, change =>
        !change.deleted && expiryMs(change.object) !== undefined ? [keyOf(change.object)] : [],
      ),
    ],
    async reconcile({ namespace, name }) {
      const job = jobs.get(`${namespace}/${name}`);
      const atMs = job && !job.metadata.deletionTimestamp ? expiryMs(job) : undefined;
      if (atMs === undefined) return;
      const waitMs = atMs - ctx.clock.now();
      if (waitMs > 0) return { requeueAfterMs: waitMs };
      try {
        await ctx.client
          .of<Job>(JOBS)
          .delete(namespace, name, { propagationPolicy: 'Foreground', preconditions: { uid: job!.metadata.uid! } });
      } catch (error) {
        if (!isReason(error, 'NotFound')) throw error;
      }
    },
  };
}

export const ttlAfterFinished: ControllerDefinition = {
  folder: 'ttlafterfinished',
  component: 'ttl-after-finished-controller',
  create,
};
