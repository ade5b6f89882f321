/**
 * What a request will cost before it runs, as upstream estimates it: a list by the bytes that are in memory for it at once
 * (SizeBasedListCostEstimate), everything else one seat; a large body what it holds in memory. Pure.
 */

import type { RequestAttributes } from '../request.ts';
import { onlyName } from '../request-path.ts';
import type { Work } from './fairness.ts';

const LIST_BYTES_A_SEAT = 100_000;
const BODY_BYTES_A_SEAT = 300 * 1024;
const SEATS_MAX = 10;
/** More objects, or bytes, than that are some milliseconds of this process. */
const HEAVY_OBJECTS = 300;
const HEAVY_BODY_BYTES = 128 * 1024;

const LIGHT: Work = { width: 1, heavy: false };

/** What there is of a resource. */
export interface Stored {
  readonly count: number;
  readonly bytes: number;
}

export function estimate(
  request: RequestAttributes,
  options: {
    readonly query: URLSearchParams | undefined;
    readonly bodyBytes: number;
    readonly stored: () => Stored;
  },
): Work {
  if (request.verb === 'list' || request.verb === 'watch' || request.verb === 'deletecollection')
    return ofCollection(request, options);
  const { bodyBytes } = options;
  if (bodyBytes <= HEAVY_BODY_BYTES) return LIGHT;
  return { width: Math.min(SEATS_MAX, 1 + Math.floor(bodyBytes / BODY_BYTES_A_SEAT)), heavy: true };
}

function ofCollection(
  request: RequestAttributes,
  { query, stored }: { query: URLSearchParams | undefined; stored: () => Stored },
): Work {
  const { verb, name, isResource } = request;
  if (!isResource || name !== '') return LIGHT;
  if (verb === 'watch' && !sendsObjects(query)) return LIGHT;
  const limit = Number(query?.get('limit') ?? 0);
  const { count, bytes } = stored();
  if (count === 0) return LIGHT;
  const returned = onlyName(request) ? 1 : limit > 0 ? Math.min(limit, count) : count;
  const width = Math.max(1, Math.min(SEATS_MAX, Math.ceil((returned * bytes) / count / LIST_BYTES_A_SEAT)));
  // Whoever filters looks at more objects than it returns: time of this process, though not memory.
  const filtered = query?.has('labelSelector') || query?.has('fieldSelector');
  return { width, heavy: (filtered ? count : returned) > HEAVY_OBJECTS };
}

/** A watch costs as a list does when it begins with the objects that there are. */
function sendsObjects(query: URLSearchParams | undefined): boolean {
  const version = query?.get('resourceVersion') ?? '';
  return version === '' || version === '0' || query?.get('sendInitialEvents') === 'true';
}
