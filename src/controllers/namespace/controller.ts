/**
 * Empties a namespace that is being deleted and then takes off its finalizer: pods first, everything else when no pod is
 * left, as upstream's ordered deletion. What remains, and why, is in the conditions.
 */

import type { Namespace, NamespaceCondition, Pod } from '../../api/core/v1.gen.ts';
import type { KubeObject } from '../../api/meta.ts';
import type { ResourceInfo } from '../../api/schema.ts';
import { formatTime } from '../../base/clock.ts';
import { isReason, messageOf } from '../../base/errors.ts';
import { CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, PODS } from '../../client/resources.ts';
import type { Target, Transport } from '../../client/transport.ts';
import {
  type Controller,
  type ControllerDefinition,
  type ReconcileContext,
  type Result,
  watch,
} from '../runtime/controller.ts';
import { customResources } from '../runtime/custom-resources.ts';
import { extensionResources, transportOf } from '../runtime/extension-resources.ts';
import { deletableResources, idOf } from '../runtime/resources.ts';

const FINALIZER = 'kubernetes';
// Deletions of pods wake the controller; everything else that lingers waits for somebody's finalizer.
const REMAINING_RETRY_MS = 500;
const SILENT_RETRY_MS = 3_000;

interface Content {
  /** `pods.` or `deployments.apps` → instances left. */
  readonly remaining: Map<string, number>;
  readonly finalizers: Map<string, number>;
  readonly failures: string[];
  /** Group-versions of extension servers that do not answer. */
  readonly silent: readonly string[];
}

const isEmpty = ({ remaining, failures, silent }: Content): boolean =>
  remaining.size === 0 && failures.length === 0 && silent.length === 0;

async function deleteContent(
  { transport, silent = [] }: { transport: Transport; silent?: readonly string[] },
  namespace: string,
  resources: readonly ResourceInfo[],
): Promise<Content> {
  const content: Content = { remaining: new Map(), finalizers: new Map(), failures: [], silent };
  await Promise.all(
    resources.map(async info => {
      const target = { of: idOf(info), namespace };
      try {
        const there = (await transport.list(target, { limit: 1 })).items;
        if (there.length === 0) return;
        await deleteAll(transport, target, info);
        const { items } = await transport.list(target);
        if (items.length > 0) note(content, info, items);
      } catch (error) {
        if (!isReason(error, 'NotFound', 'MethodNotAllowed')) content.failures.push(messageOf(error));
      }
    }),
  );
  return content;
}

/** One by one where the server cannot delete them together. */
async function deleteAll(transport: Transport, target: Target, { verbs }: ResourceInfo): Promise<void> {
  if (verbs.includes('deletecollection'))
    return transport.deleteCollection(target, { propagationPolicy: 'Background' });
  for (const { metadata } of (await transport.list(target)).items)
    await transport.delete({ ...target, name: metadata.name }, { propagationPolicy: 'Background' });
}

function note(content: Content, info: ResourceInfo, items: readonly KubeObject[]): void {
  content.remaining.set(`${info.resource}.${info.group}`, items.length);
  for (const item of items)
    for (const finalizer of item.metadata.finalizers ?? [])
      content.finalizers.set(finalizer, (content.finalizers.get(finalizer) ?? 0) + 1);
}

function conditionsFor(content: Content): Omit<NamespaceCondition, 'lastTransitionTime'>[] {
  const remaining = [...content.remaining]
    .sort()
    .map(([resource, count]) => `${resource} has ${count} resource instances`);
  const finalizers = [...content.finalizers]
    .sort()
    .map(([finalizer, count]) => `${finalizer} in ${count} resource instances`);
  return [
    content.silent.length
      ? {
          type: 'NamespaceDeletionDiscoveryFailure',
          status: 'True',
          reason: 'DiscoveryFailed',
          message: `Discovery failed for some groups, ${content.silent.length} failing: unable to retrieve the complete list of server APIs: ${content.silent.map(one => `${one}: stale GroupVersion discovery: ${one}`).join(', ')}`,
        }
      : {
          type: 'NamespaceDeletionDiscoveryFailure',
          status: 'False',
          reason: 'ResourcesDiscovered',
          message: 'All resources successfully discovered',
        },
    {
      type: 'NamespaceDeletionGroupVersionParsingFailure',
      status: 'False',
      reason: 'ParsedGroupVersions',
      message: 'All legacy kube types successfully parsed',
    },
    content.failures.length
      ? {
          type: 'NamespaceDeletionContentFailure',
          status: 'True',
          reason: 'ContentDeletionFailed',
          message: `Failed to delete all resource types, ${content.failures.length} remaining: ${content.failures.sort().join(', ')}`,
        }
      : {
          type: 'NamespaceDeletionContentFailure',
          status: 'False',
          reason: 'ContentDeleted',
          message: 'All content successfully deleted, may be waiting on finalization',
        },
    remaining.length
      ? {
          type: 'NamespaceContentRemaining',
          status: 'True',
          reason: 'SomeResourcesRemain',
          message: `Some resources are remaining: ${remaining.join(', ')}`,
        }
      : {
          type: 'NamespaceContentRemaining',
          status: 'False',
          reason: 'ContentRemoved',
          message: 'All content successfully removed',
        },
    finalizers.length
      ? {
          type: 'NamespaceFinalizersRemaining',
          status: 'True',
          reason: 'SomeFinalizersRemain',
          message: `Some content in the namespace has finalizers remaining: ${finalizers.join(', ')}`,
        }
      : {
          type: 'NamespaceFinalizersRemaining',
          status: 'False',
          reason: 'ContentHasNoFinalizers',
          message: 'All content-preserving finalizers finished',
        },
  ];
}

async function writeConditions(ctx: ReconcileContext, namespace: Namespace, content: Content): Promise<void> {
  const before = namespace.status?.conditions ?? [];
  const now = formatTime(ctx.clock.now());
  let changed = namespace.status?.phase !== 'Terminating';
  const conditions = conditionsFor(content).map(next => {
    const old = before.find(condition => condition.type === next.type);
    if (old && old.status === next.status && old.reason === next.reason && old.message === next.message) return old;
    changed = true;
    return { ...next, lastTransitionTime: now };
  });
  if (changed)
    await ctx.client
      .of<Namespace>(NAMESPACES)
      .updateStatus({ ...namespace, status: { ...namespace.status, phase: 'Terminating', conditions } });
}

async function finalize(ctx: ReconcileContext, name: string): Promise<void> {
  const fresh = await ctx.client.of<Namespace>(NAMESPACES).get('', name);
  const finalizers = (fresh.spec?.finalizers ?? []).filter(finalizer => finalizer !== FINALIZER);
  await ctx.transport.update({ of: NAMESPACES, name, subresource: 'finalize' }, {
    ...fresh,
    spec: { ...fresh.spec, finalizers },
  } as Namespace);
}

/** What extension servers have; while one of them does not answer, nobody knows that there is nothing. */
function deleteExtensions(ctx: ReconcileContext, name: string): Promise<Content> {
  const { served, silent } = extensionResources(ctx);
  const namespaced = served.filter(info => info.namespaced);
  return deleteContent({ transport: transportOf(ctx, true), silent }, name, namespaced);
}

function create(ctx: ReconcileContext): Controller {
  const namespaces = ctx.informers.get<Namespace>(NAMESPACES);
  const builtin = deletableResources({ events: true, serves: ctx.settings.serves }).filter(info => info.namespaced);
  const namespaced = () => [...builtin, ...customResources(ctx).filter(info => info.namespaced)];
  const pods = builtin.filter(info => info.resource === 'pods' && info.group === '');

  return {
    name: 'namespace',
    watches: [
      watch<Namespace>(NAMESPACES, change =>
        !change.deleted && change.object.metadata.deletionTimestamp ? [change.object.metadata.name] : [],
      ),
      watch<Pod>(PODS, change => {
        const name = change.deleted ? change.old.metadata.namespace! : '';
        return namespaces.get(name)?.metadata.deletionTimestamp ? [name] : [];
      }),
      watch(CUSTOM_RESOURCE_DEFINITIONS, () => []),
    ],
    async reconcile({ name }): Promise<Result | void> {
      const namespace = namespaces.get(name);
      if (!namespace?.metadata.deletionTimestamp || !namespace.spec?.finalizers?.includes(FINALIZER)) return;
      try {
        let content = await deleteContent(ctx, name, pods);
        if (isEmpty(content)) content = await deleteContent(ctx, name, namespaced());
        if (isEmpty(content)) content = await deleteExtensions(ctx, name);
        if (isEmpty(content)) return await finalize(ctx, name);
        await writeConditions(ctx, namespace, content);
        return { requeueAfterMs: content.silent.length > 0 ? SILENT_RETRY_MS : REMAINING_RETRY_MS };
      } catch (error) {
        if (isReason(error, 'NotFound')) return;
        throw error;
      }
    },
  };
}

export const namespace: ControllerDefinition = { folder: 'namespace', component: 'namespace-controller', create };
