/**
 * What a request will cost before it runs, as upstream estimates it: a list the objects that must be looked at, everything
 * else one seat; a large body what it holds in memory. Pure.
 */

import type { RequestAttributes } from '../request.ts';
import type { Work } from './fairness.ts';

const OBJECTS_A_SEAT = 100;
const BODY_BYTES_A_SEAT = 300 * 1024;
const SEATS_MAX = 10;
/** More objects, or bytes, than that are some milliseconds of this process. */
const HEAVY_OBJECTS = 300;
const HEAVY_BODY_BYTES = 128 * 1024;

const LIGHT: Work = { width: 1, heavy: false };

export function estimate(
  request: RequestAttributes,
  options: {
    readonly query: URLSearchParams | undefined;
    readonly bodyBytes: number;
    /** How many objects of the resource are stored. */
    readonly stored: () => number;
  },
): Work {
  if (request.verb === 'list' || request.verb === 'watch' || request.verb === 'deletecollection')
    return ofCollection(request, options);
  const { bodyBytes } = options;
  if (bodyBytes <= HEAVY_BODY_BYTES) return LIGHT;
  return { width: Math.min(SEATS_MAX, 1 + Math.floor(bodyBytes / BODY_BYTES_A_SEAT)), heavy: true };
}

function ofCollection(
  { verb, name, isResource }: RequestAttributes,
  { query, stored }: { query: URLSearchParams | undefined; stored: () => number },
): Work {
  if (!isResource || name !== '') return LIGHT;
  const version = query?.get('resourceVersion') ?? '';
  if (verb === 'watch' && version !== '' && version !== '0') return LIGHT;
  const limit = Number(query?.get('limit') ?? 0);
  const count = stored();
  // Whoever filters looks at more objects than it returns.
  const filtered = query?.has('labelSelector') || query?.has('fieldSelector');
  const objects = limit > 0 && !filtered ? Math.min(limit, count) : count;
  const width = Math.max(1, Math.min(SEATS_MAX, Math.ceil(objects / OBJECTS_A_SEAT)));
  return { width, heavy: objects > HEAVY_OBJECTS };
}
