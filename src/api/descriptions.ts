/**
 * Descriptions of types and fields from `descriptions.txt`, for OpenAPI only. The file is read when somebody asks and nothing of it is kept:
 * hardly anybody asks, and what is made of it is kept compressed elsewhere.
 */

import { readFileSync } from 'node:fs';
import { assert } from '../base/assert.ts';

const ANY = '*';

/** By type name, with or without its package: the text of the type under '' and of its fields under their names. */
export type DescriptionTable = ReadonlyMap<string, ReadonlyMap<string, string>>;

/** The file; the bundle has it beside its chunks. */
export function descriptionText(): string {
  return readFileSync(new URL('./descriptions.txt', import.meta.url), 'utf8');
}

export function parseDescriptions(text: string): DescriptionTable {
  const table = new Map<string, Map<string, string>>();
  let current: readonly Map<string, string>[] = [];
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const colon = line.indexOf(':');
    assert(colon > 0, 'a line of descriptions.txt has no colon');
    const names = line.slice(0, colon).trim().split(', ');
    const words = line.slice(colon + 1).trim();
    if (!line.startsWith(' ')) {
      current = names.map(name => {
        let own = table.get(name);
        if (!own) table.set(name, (own = new Map()));
        if (words) own.set('', words);
        return own;
      });
    } else for (const name of names) for (const own of current) own.set(name, words);
  }
  return table;
}

export class Descriptions {
  readonly #table: DescriptionTable;

  constructor(table: DescriptionTable = parseDescriptions(descriptionText())) {
    this.#table = table;
  }

  /** Of a type by its short name, `core.v1.Pod`, or of any definition by its last word. */
  ofType(type: string): string | undefined {
    const local = localName(type);
    const own = this.#table.get(type)?.get('') ?? this.#table.get(local)?.get('');
    if (own !== undefined) return own;
    return local.endsWith('List') && local.length > 4 ? `A list of ${local.slice(0, -4)} objects.` : undefined;
  }
  /** Of a field, by the type that declares it. */
  ofField(type: string, field: string): string | undefined {
    return (
      this.#table.get(type)?.get(field) ??
      this.#table.get(localName(type))?.get(field) ??
      // A kind's own lines may speak of the fields of its spec and status.
      this.#table.get(localName(type).replace(/(Spec|Status)$/, ''))?.get(field) ??
      this.#table.get(ANY)?.get(field)
    );
  }
}

const localName = (type: string): string => type.slice(type.lastIndexOf('.') + 1);
