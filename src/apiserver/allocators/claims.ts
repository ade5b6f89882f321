/**
 * Who owns which number of a row: the heart of both allocators. Invariant: a number has at most one owner. A free one is
 * found from a random start, first in the dynamic band, then in the static one, so that nothing is searched while the row
 * is sparse.
 */

import type { Random } from '../../base/random.ts';

/** `namespace/name` of a Service. */
export type Owner = string;

export const ownerOf = ({ metadata }: { metadata: { namespace?: string; name: string } }): Owner =>
  `${metadata.namespace}/${metadata.name}`;

export interface Band {
  readonly first: number;
  readonly last: number;
  /** Numbers from here on are given out first. */
  readonly dynamicFirst: number;
}

/** A free number of the band, or undefined when it is full. `isFree` must be cheap. */
export function findFree(band: Band, isFree: (candidate: number) => boolean, random: Random): number | undefined {
  return (
    scan(band.dynamicFirst, band.last, isFree, random) ??
    scan(band.first, Math.min(band.dynamicFirst - 1, band.last), isFree, random)
  );
}

function scan(first: number, last: number, isFree: (candidate: number) => boolean, random: Random): number | undefined {
  const count = last - first + 1;
  if (count <= 0) return undefined;
  const start = Math.floor(random.next() * count);
  for (let step = 0; step < count; step++) {
    const candidate = first + ((start + step) % count);
    if (isFree(candidate)) return candidate;
  }
  return undefined;
}
