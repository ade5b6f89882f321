/** Which resources the namespace controller empties and the garbage collector follows. */

import { builtinResources, optionalResources } from '../../api/resources.ts';
import type { ResourceInfo } from '../../api/schema.ts';
import type { ResourceId } from '../../client/transport.ts';

export const idOf = ({ group, version, resource }: ResourceInfo): ResourceId => ({ group, version, resource });

/**
 * Stored, deletable resources, each once although it may be served in several versions. Events are left out where they
 * never own nor are owned.
 */
export function deletableResources(options: {
  readonly events: boolean;
  readonly serves: ((of: ResourceId) => boolean) | undefined;
}): ResourceInfo[] {
  const seen = new Set<string>();
  const optional = optionalResources.filter(info => options.serves?.(idOf(info)));
  return [...builtinResources, ...optional].filter(info => {
    if (!['delete', 'list', 'watch'].every(verb => info.verbs.includes(verb))) return false;
    if (info.resource === 'events' && (!options.events || info.group !== '')) return false;
    const id = `${info.group}/${info.resource}`;
    return !seen.has(id) && seen.add(id);
  });
}
