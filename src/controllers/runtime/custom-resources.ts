/** The custom resources that are served now, as their definitions say: one version of each, which is enough to delete by. */

import type { CustomResourceDefinition } from '../../api/apiextensions/v1.gen.ts';
import { builtinResources } from '../../api/resources.ts';
import type { ResourceInfo } from '../../api/schema.ts';
import { CUSTOM_RESOURCE_DEFINITIONS } from '../../client/resources.ts';
import type { ReconcileContext } from './controller.ts';

const VERBS = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'];

/** The resource of an established definition; undefined while nothing is served for it. */
export function customResource({ spec, status }: CustomResourceDefinition): ResourceInfo | undefined {
  const isEstablished = status?.conditions?.some(
    ({ type, status: value }) => type === 'Established' && value === 'True',
  );
  const served = spec.versions.filter(version => version.served);
  const version = served.find(version => version.storage) ?? served[0];
  if (!isEstablished || !version) return undefined;
  const names = status?.acceptedNames ?? spec.names;
  return {
    group: spec.group,
    version: version.name,
    resource: names.plural,
    singular: names.singular ?? '',
    kind: names.kind,
    listKind: names.listKind ?? `${names.kind}List`,
    namespaced: spec.scope === 'Namespaced',
    shortNames: [],
    categories: [],
    verbs: VERBS,
    type: '',
    subresources: version.subresources?.scale ? [{ name: 'scale', verbs: ['get', 'patch', 'update'] }] : [],
  };
}

/** All of them; empty until the informer of definitions has synced. */
export function customResources(ctx: ReconcileContext): ResourceInfo[] {
  return [...ctx.informers.get<CustomResourceDefinition>(CUSTOM_RESOURCE_DEFINITIONS).values()].flatMap(
    definition => customResource(definition) ?? [],
  );
}

/** The resource of a kind that another object refers to. */
export function infoOf(
  ctx: ReconcileContext,
  { apiVersion = '', kind }: { readonly apiVersion?: string; readonly kind: string },
): ResourceInfo {
  const group = apiVersion.includes('/') ? apiVersion.slice(0, apiVersion.indexOf('/')) : '';
  const version = apiVersion.slice(apiVersion.indexOf('/') + 1);
  const all = [...builtinResources, ...customResources(ctx)].filter(info => info.kind === kind && info.group === group);
  const info = all.find(one => one.version === version) ?? all[0];
  if (!info) throw new Error(`no matches for kind "${kind}" in group "${group}"`);
  return info;
}

/** Calls back for each that comes and goes; those there now come first. A change of version is a going and a coming. */
export function followCustomResources(
  ctx: ReconcileContext,
  follow: { added(info: ResourceInfo): void; removed(info: ResourceInfo): void },
): void {
  const known = new Map<string, ResourceInfo>();
  ctx.informers.get<CustomResourceDefinition>(CUSTOM_RESOURCE_DEFINITIONS).onChange(change => {
    const { name } = (change.deleted ? change.old : change.object).metadata;
    const before = known.get(name);
    const now = change.deleted ? undefined : customResource(change.object);
    if (before?.version === now?.version && before?.resource === now?.resource) return;
    if (before) {
      known.delete(name);
      follow.removed(before);
    }
    if (now) {
      known.set(name, now);
      follow.added(now);
    }
  });
}
