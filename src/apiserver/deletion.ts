/**
 * Deletion of objects: preconditions, grace, finalizers and propagation, as upstream's generic registry and
 * `rest.BeforeDelete`. An object leaves the store only when its grace period is zero and no finalizer is left.
 */

import type { KubeObject } from '../api/meta.ts';
import { formatTime } from '../base/clock.ts';
import { conflict, notFound, type Status } from '../base/errors.ts';
import type { DeleteOptions } from '../client/transport.ts';
import { ConflictError } from '../store/store.ts';
import { workingForm } from './conversion.ts';
import { canonical, type Entry, encode, thaw } from './entry.ts';
import { isFinished, type Operation, type Outcome, type Registry } from './registry.ts';
import type { Served } from './resource-table.ts';

const DELETE_ATTEMPTS = 10;
const ORPHAN = 'orphan';
const FOREGROUND = 'foregroundDeletion';

/** Resources whose deletion answers with the last state instead of a Status, as upstream's ReturnDeletedObject. */
const RETURNED = new Set([
  '/pods',
  '/services',
  '/serviceaccounts',
  '/persistentvolumes',
  '/persistentvolumeclaims',
  '/podtemplates',
  '/resourcequotas',
  'storage.k8s.io/storageclasses',
  'storage.k8s.io/volumeattachments',
  'storage.k8s.io/csidrivers',
  'storage.k8s.io/csinodes',
  'resource.k8s.io/deviceclasses',
  'resource.k8s.io/resourceclaims',
  'resource.k8s.io/resourceclaimtemplates',
  'resource.k8s.io/resourceslices',
]);

/** Whose dependents are orphaned unless the caller asks otherwise: kinds older than the garbage collector. */
const ORPHANED_BY_DEFAULT = new Set(['/replicationcontrollers', 'batch/jobs']);

export interface Deletion extends DeleteOptions {
  /** Older form of propagationPolicy. */
  readonly orphanDependents?: boolean;
}

const resourceName = ({ stored }: Served) => `${stored.group}/${stored.resource}`;

/** Deletes one object, or begins to: then the outcome is the terminating object. */
export async function deleteObject(
  registry: Registry,
  operation: Operation,
  options: Deletion,
): Promise<Outcome | Status> {
  const { served, attributes } = operation;
  const cache = registry.cacheOf(served);
  const key = registry.keyOf(operation);
  let admitted = false;
  for (let attempt = 1; ; attempt++) {
    const current = registry.get(operation);
    checkPreconditions(served, current, options);
    const preparing = served.custom?.prepare?.([current.object]);
    if (preparing) await preparing;
    if (!admitted) await registry.admit(operation, 'DELETE', { old: workingForm(served, current.object) });
    admitted = true;
    const step = planDeletion(served, current.object, options, registry.clock.now());
    if (step.next === 'nothing') return current;
    if (operation.dryRun) return step.next === 'remove' ? reply(served, current) : step.object;
    try {
      if (step.next === 'remove') {
        const revision = await registry.caches.delete(cache, key, current.revision);
        registry.released(served, current.object);
        return reply(served, current.at(revision));
      }
      const object = canonical(step.object);
      return await registry.caches.put(cache, key, { value: encode(object), object, expect: current.revision });
    } catch (error) {
      if (!(error instanceof ConflictError)) throw error;
      if (!error.current) throw notFound(served.info, attributes.name);
      if (attempt >= DELETE_ATTEMPTS)
        throw conflict(
          served.info,
          attributes.name,
          'the object has been modified; please apply your changes to the latest version and try again',
        );
    }
  }
}

function reply(served: Served, entry: Entry): Outcome | Status {
  if (RETURNED.has(resourceName(served))) return entry;
  const { metadata } = entry.object;
  const { group, resource } = served.info;
  return {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Success',
    details: {
      name: metadata.name,
      ...(group ? { group } : {}),
      kind: resource,
      ...(metadata.uid ? { uid: metadata.uid } : {}),
    },
    code: 200,
  };
}

function checkPreconditions(served: Served, current: Entry, { preconditions }: Deletion): void {
  if (!preconditions) return;
  const { name, uid } = current.object.metadata;
  // Upstream names the kind here, not the resource.
  const of = { group: served.info.group, resource: served.info.kind };
  if (preconditions.uid && preconditions.uid !== uid)
    throw conflict(
      of,
      name,
      `the UID in the precondition (${preconditions.uid}) does not match the UID in record (${uid}). The object might have been deleted and then recreated`,
    );
  if (preconditions.resourceVersion && preconditions.resourceVersion !== String(current.revision))
    throw conflict(
      of,
      name,
      `the ResourceVersion in the precondition (${preconditions.resourceVersion}) does not match the ResourceVersion in record (${current.revision}). The object might have been modified`,
    );
}

type Step =
  | { readonly next: 'remove' }
  | { readonly next: 'nothing' }
  | { readonly next: 'store'; readonly object: KubeObject };

function planDeletion(served: Served, current: KubeObject, options: Deletion, nowMs: number): Step {
  const object = thaw(current);
  const { metadata } = object;
  const finalizersChanged = setPropagation(served, object, options);
  const terminating = metadata.deletionTimestamp !== undefined;
  const graceNow = metadata.deletionGracePeriodSeconds ?? 0;
  if (terminating && graceNow > 0) {
    const asked = options.gracePeriodSeconds;
    if (asked === undefined || asked >= graceNow)
      return finalizersChanged ? { next: 'store', object } : { next: 'nothing' };
    const requestedMs = Date.parse(metadata.deletionTimestamp!) - graceNow * 1000;
    metadata.deletionTimestamp = formatTime(Math.max(nowMs, requestedMs + asked * 1000));
    metadata.deletionGracePeriodSeconds = asked;
    if (isFinished(served, object)) return { next: 'remove' };
    return { next: 'store', object };
  }
  if (!terminating) {
    const seconds = Math.max(0, served.kind?.deletionGraceSeconds?.(object, options.gracePeriodSeconds) ?? 0);
    metadata.deletionTimestamp = formatTime(nowMs + seconds * 1000);
    metadata.deletionGracePeriodSeconds = seconds;
    if (metadata.generation) metadata.generation += 1;
    if (resourceName(served) === '/namespaces') setTerminating(object);
    served.kind?.prepareDelete?.(object, nowMs);
  }
  if (isFinished(served, object)) return { next: 'remove' };
  return terminating && !finalizersChanged ? { next: 'nothing' } : { next: 'store', object };
}

function setTerminating(object: KubeObject & { status?: { phase?: string } }): void {
  object.status = { ...object.status, phase: 'Terminating' };
}

// Finalizers that tell the garbage collector what to do with dependents.
function setPropagation(served: Served, { metadata }: KubeObject, options: Deletion): boolean {
  const before = metadata.finalizers ?? [];
  const policy = policyOf(served, before, options);
  const next = before.filter(finalizer => finalizer !== ORPHAN && finalizer !== FOREGROUND);
  if (policy === 'Orphan') next.push(ORPHAN);
  if (policy === 'Foreground') next.push(FOREGROUND);
  const same = next.length === before.length && next.every(finalizer => before.includes(finalizer));
  if (same) return false;
  metadata.finalizers = next;
  return true;
}

function policyOf(served: Served, finalizers: readonly string[], options: Deletion): string {
  // The garbage collector ignores events.
  if (served.stored.resource === 'events') return 'Background';
  if (options.orphanDependents !== undefined) return options.orphanDependents ? 'Orphan' : 'Background';
  if (options.propagationPolicy !== undefined) return options.propagationPolicy;
  if (finalizers.includes(ORPHAN)) return 'Orphan';
  if (finalizers.includes(FOREGROUND)) return 'Foreground';
  return ORPHANED_BY_DEFAULT.has(resourceName(served)) ? 'Orphan' : 'Background';
}
