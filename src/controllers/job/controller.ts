/** Jobs: pods that run to completion, so many times, so many at once. See `pass.ts`. */

import type { Job } from '../../api/batch/v1.gen.ts';
import type { Pod } from '../../api/core/v1.gen.ts';
import { labelSelectorMatch } from '../../api/machinery/labels.ts';
import { isPodTerminal } from '../../api/machinery/pod.ts';
import { controllerOf, keyOf } from '../../api/meta.ts';
import { JOBS, PODS } from '../../client/resources.ts';
import {
  type Controller,
  type ControllerDefinition,
  latest,
  type ReconcileContext,
  watch,
} from '../runtime/controller.ts';
import { Expectations } from '../runtime/expectations.ts';
import { claim, concerned, dependents, indexByController, orphans } from '../runtime/ownership.ts';
import { countTracked } from './metrics.ts';
import { JobPass, TRACKING_FINALIZER } from './pass.ts';

const MANAGER = 'kubernetes.io/job-controller';

const isTrackedTerminal = (pod: Pod | undefined): boolean =>
  pod?.metadata.finalizers?.includes(TRACKING_FINALIZER) === true && isPodTerminal(pod);

function create(ctx: ReconcileContext): Controller {
  const jobs = ctx.informers.get<Job>(JOBS);
  const pods = ctx.informers.get<Pod>(PODS);
  indexByController(pods as never);
  const expectations = new Expectations(ctx.clock);
  const released = new Set<string>();

  /** The Job is gone: nobody counts any more. */
  async function releaseOrphan(pod: Pod): Promise<void> {
    const finalizers = (pod.metadata.finalizers ?? []).filter(finalizer => finalizer !== TRACKING_FINALIZER);
    await ctx.client
      .of(PODS)
      .patch(pod.metadata.namespace!, pod.metadata.name, { metadata: { uid: pod.metadata.uid, finalizers } })
      .catch(error => ctx.log.debug('finalizer not removed', { error }));
  }

  return {
    name: 'job',
    watches: [
      watch<Job>(JOBS, change => {
        if (change.deleted) {
          expectations.forget(keyOf(change.old));
          for (const pod of dependents(pods, change.old))
            if (pod.metadata.finalizers?.includes(TRACKING_FINALIZER)) void releaseOrphan(pod);
        }
        return [keyOf(latest(change))];
      }),
      watch<Pod>(PODS, change => {
        const pod = latest(change);
        const uid = pod.metadata.uid!;
        countTracked(isTrackedTerminal(change.old), { after: !change.deleted && isTrackedTerminal(pod) });
        if (change.deleted || !pod.metadata.finalizers?.includes(TRACKING_FINALIZER)) released.delete(uid);
        const owner = controllerOf(pod);
        if (owner?.kind === 'Job') {
          const key = `${pod.metadata.namespace}/${owner.name}`;
          if (!change.old) expectations.created(key);
          if (change.deleted || pod.metadata.deletionTimestamp) expectations.deleted(key, uid);
        }
        return concerned(change, { kind: 'Job', owners: jobs, selector: ({ spec }) => spec?.selector });
      }),
    ],
    async reconcile({ namespace, name }) {
      const job = jobs.get(`${namespace}/${name}`);
      if (!job || (job.spec?.managedBy && job.spec.managedBy !== MANAGER)) return;
      const claimed = await claim(ctx, {
        owner: job,
        ownerResource: JOBS,
        of: PODS,
        selector: labelSelectorMatch(job.spec?.selector),
        finalizer: TRACKING_FINALIZER,
        objects: [...dependents(pods, job), ...orphans(pods, namespace)],
      });
      return new JobPass(ctx, { job, pods: claimed, expectations, released }).run();
    },
  };
}

export const job: ControllerDefinition = { folder: 'job', component: 'job-controller', create };
