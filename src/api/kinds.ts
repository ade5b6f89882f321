/**
 * The ordered registry of the built-in kinds that are more than their schema. To add one: write its file under
 * `src/api/<group>/`, import it here and add it to the array (a test fails when a file is missing from it).
 * The order is that of the lookup table only; no kind may depend on it.
 */

import type { Kind } from './kind.ts';

export const kinds: readonly Kind[] = [];

let index: Map<string, Kind> | undefined;

/** The kind's behaviour, or undefined: the kind is served by its schema alone. */
export function kindFor(group: string, version: string, kind: string): Kind | undefined {
  index ??= new Map(kinds.map(entry => [`${entry.group}/${entry.version}/${entry.kind}`, entry]));
  return index.get(`${group}/${version}/${kind}`);
}
