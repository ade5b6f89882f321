/**
 * What an update of a subresource may change: everything else is carried over from the stored object. `scale` is another
 * kind on the wire; here it is turned into the object it scales and back.
 */

import type { Kind } from '../api/kind.ts';
import type { KubeObject, ObjectMeta } from '../api/meta.ts';
import { badRequest, notFound } from '../base/errors.ts';
import { thaw } from './entry.ts';
import type { Served } from './resource-table.ts';

type Shaped = KubeObject & { spec?: Record<string, unknown>; status?: Record<string, unknown> };

/** The object to store when `object` was sent to the subresource. `old` is frozen and stays as it is. */
export function mergeSubresource(
  served: Served,
  subresource: string,
  update: { object: KubeObject; old: KubeObject; nowMs: number },
): KubeObject {
  const object = update.object as Shaped;
  const old = update.old as Shaped;
  switch (subresource) {
    case 'status':
      return mergeStatus(served, object, old, update.nowMs);
    case 'finalize': {
      const finalizers = object.spec?.['finalizers'] as string[] | undefined;
      const { finalizers: _, ...spec } = old.spec ?? {};
      return { ...thaw(old), spec: { ...spec, ...(finalizers?.length ? { finalizers } : {}) } } as KubeObject;
    }
    case 'approval':
      return {
        ...thaw(old),
        metadata: withOwnMetadata(object, old),
        status: { ...thaw(old.status ?? {}), conditions: object.status?.['conditions'] ?? [] },
      } as KubeObject;
    case 'ephemeralcontainers': {
      const next = thaw(old);
      next.spec = { ...next.spec, ephemeralContainers: object.spec?.['ephemeralContainers'] ?? [] };
      return next;
    }
    case 'resize':
      return mergeResize(object, old);
    default:
      throw badRequest(`the subresource ${subresource} cannot be updated`);
  }
}

function mergeStatus(served: Served, object: Shaped, old: Shaped, nowMs: number): KubeObject {
  const merged = mergedStatus(served, object, old);
  served.kind?.settleStatus?.(merged, old, nowMs);
  return merged;
}
function mergedStatus(served: Served, object: Shaped, old: Shaped): KubeObject {
  if (served.kind?.prepareStatusUpdate) {
    served.kind.prepareStatusUpdate(object, old);
    return object;
  }
  const { status: _, ...rest } = old;
  return {
    ...thaw(rest),
    metadata: statusHasMetadata(served) ? withOwnMetadata(object, old) : { ...thaw(old.metadata) },
    ...(object.status === undefined ? {} : { status: object.status }),
  } as KubeObject;
}

/** Whether an update of the status may change labels, annotations, owners and finalizers too, as upstream's older kinds let it. */
export function statusHasMetadata({ kind, custom, info }: Served): boolean {
  return kind?.prepareStatusUpdate !== undefined || !(custom || KEEPS_METADATA.has(info.group));
}
const KEEPS_METADATA = new Set([
  'admissionregistration.k8s.io',
  'apiextensions.k8s.io',
  'apiregistration.k8s.io',
  'resource.k8s.io',
  'storage.k8s.io',
]);

function withOwnMetadata(object: KubeObject, old: KubeObject): ObjectMeta {
  const { labels: _l, annotations: _a, ownerReferences: _o, finalizers: _f, ...kept } = thaw(old.metadata);
  const { labels, annotations, ownerReferences, finalizers } = object.metadata;
  return {
    ...kept,
    ...(labels ? { labels } : {}),
    ...(annotations ? { annotations } : {}),
    ...(ownerReferences ? { ownerReferences } : {}),
    ...(finalizers ? { finalizers } : {}),
  } as ObjectMeta;
}

interface ContainerLike {
  readonly name: string;
  resources?: unknown;
  resizePolicy?: unknown;
}

/** Containers that come, go or change their names or places are kept as they were sent: validation tells what is wrong with that. */
function mergeResize(object: Shaped, old: Shaped): KubeObject {
  const containersOf = (pod: Shaped, list: string) => (pod.spec?.[list] ?? []) as ContainerLike[];
  if (LISTS.some(list => containersOf(object, list).length !== containersOf(old, list).length)) return object;
  const next: Shaped = thaw(old);
  const spec = (next.spec ??= {});
  setOrDelete(spec, 'resources', object.spec?.['resources']);
  for (const list of LISTS) {
    const asked = containersOf(object, list);
    const known = containersOf(next, list);
    if (asked.some(({ name }, index) => name !== known[index]!.name)) spec[list] = asked;
    else
      asked.forEach(({ resources, resizePolicy }, index) => {
        setOrDelete(known[index]!, 'resources', resources);
        setOrDelete(known[index]!, 'resizePolicy', resizePolicy);
      });
  }
  return next;
}
const LISTS = ['containers', 'initContainers'] as const;

function setOrDelete<K extends string>(target: { [P in K]?: unknown }, field: K, value: unknown): void {
  if (value === undefined) delete target[field];
  else target[field] = value;
}

/** The `Scale` of an object. Throws NotFound when its kind has none. */
export function scaleOf(served: Served, object: KubeObject): KubeObject {
  const scale = scaleRules(served, object.metadata.name);
  const { name, namespace, uid, resourceVersion, creationTimestamp } = object.metadata;
  const selector = scale.selector(object);
  return {
    kind: 'Scale',
    apiVersion: 'autoscaling/v1',
    metadata: { name, namespace, uid, resourceVersion, creationTimestamp } as ObjectMeta,
    spec: { replicas: scale.replicas(object) },
    status: { replicas: scale.statusReplicas(object), ...(selector ? { selector } : {}) },
  } as KubeObject;
}

/** A copy of the object scaled as the `Scale` says; its resourceVersion and uid stay preconditions. */
export function applyScale(served: Served, object: KubeObject, scaled: KubeObject): KubeObject {
  const rules = scaleRules(served, object.metadata.name);
  const replicas = (scaled as Shaped).spec?.['replicas'] ?? 0;
  if (typeof replicas !== 'number')
    throw badRequest('Scale in version "v1" cannot be handled as a Scale: spec.replicas is not a number');
  const next = thaw(object);
  rules.setReplicas(next, replicas);
  const { resourceVersion, uid } = scaled.metadata ?? {};
  if (resourceVersion) next.metadata.resourceVersion = resourceVersion;
  else delete next.metadata.resourceVersion;
  if (uid) next.metadata.uid = uid;
  return next;
}

function scaleRules(served: Served, name: string): NonNullable<Kind['scale']> {
  const rules = served.kind?.scale;
  if (!rules) throw notFound(served.info, name);
  return rules;
}
