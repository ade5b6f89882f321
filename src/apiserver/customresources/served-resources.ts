/** What a definition makes the API server serve: one resource a version, all on one key space. */

import { ANYTHING, lazySchema } from '../../api/apiextensions/structural-schema.ts';
import type { CustomResourceDefinition, CustomResourceDefinitionVersion } from '../../api/apiextensions/v1.gen.ts';
import type { ResourceInfo, SubresourceInfo } from '../../api/schema.ts';
import type { Served } from '../resource-table.ts';
import { customKind } from './custom-kind.ts';
import { StructuralShape } from './custom-shape.ts';
import { compareVersions } from './version-order.ts';
import type { WebhookConverter } from './webhook-converter.ts';

const VERBS = ['delete', 'deletecollection', 'get', 'list', 'patch', 'create', 'update', 'watch'];
const READ_WRITE = ['get', 'patch', 'update'];

/** The resources of an established definition, in the order of preference of its versions. */
export function servedResources(
  definition: CustomResourceDefinition,
  { ended, converter }: { ended: AbortSignal; converter?: WebhookConverter | undefined },
): Served[] {
  const { spec } = definition;
  const storage = spec.versions.find(version => version.storage)!;
  const stored = infoOf(definition, storage);
  return [...spec.versions]
    .filter(version => version.served)
    .sort((a, b) => compareVersions(a.name, b.name))
    .map(version => {
      const info = { ...infoOf(definition, version), storageVersion: { group: spec.group, version: storage.name } };
      const schema = lazySchema(version.schema?.openAPIV3Schema ?? ANYTHING.source);
      const custom = new StructuralShape({ info, stored, schema, ended, converter });
      return {
        info,
        stored,
        kind: customKind({ definition, version, schema, show: object => custom.show(object) }),
        prefix: `/registry/${spec.group}/${stored.resource}/`,
        persistent: true,
        custom,
      };
    });
}

function infoOf(definition: CustomResourceDefinition, version: CustomResourceDefinitionVersion): ResourceInfo {
  const { spec } = definition;
  const names = definition.status?.acceptedNames ?? spec.names;
  const subresources: SubresourceInfo[] = [];
  if (version.subresources?.status) subresources.push({ name: 'status', verbs: READ_WRITE });
  if (version.subresources?.scale)
    subresources.push({
      name: 'scale',
      verbs: READ_WRITE,
      kind: { group: 'autoscaling', version: 'v1', kind: 'Scale' },
    });
  return {
    group: spec.group,
    version: version.name,
    resource: names.plural,
    singular: names.singular ?? '',
    kind: names.kind,
    listKind: names.listKind ?? `${names.kind}List`,
    namespaced: spec.scope === 'Namespaced',
    shortNames: names.shortNames ?? [],
    categories: names.categories ?? [],
    verbs: VERBS,
    // No built-in type has a name like it.
    type: `${spec.group}/${version.name}/${names.kind}`,
    subresources,
  };
}
