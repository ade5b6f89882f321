/**
 * What the kernel is to know, as named maps from text to numbers, and what has changed since it was last told. Pure; what the
 * maps mean to a packet is in `rules.ts`, their bytes in `elements.ts`.
 */

import type { PortSet } from './port-set.ts';

/**
 * peers: address → class. Of a pod's address, for each direction: `class`: `address class` → port list; `block`:
 * `address first last` → port list; `default`: address → port list; `node`: the same two for what it sends to its own node. ports: `list from-to from-to` (protocol numbers, ports) →
 * 1. selves: address of a pod of this node → 1.
 */
export const MAPS = [
  'peers',
  'ingress-class',
  'ingress-block',
  'ingress-default',
  'egress-class',
  'egress-block',
  'egress-default',
  'node-block',
  'node-default',
  'ports',
  'selves',
] as const;
export type MapName = (typeof MAPS)[number];

export interface Change {
  readonly map: MapName;
  readonly key: string;
  readonly before: number | undefined;
  readonly after: number | undefined;
}

export class PolicyTable {
  readonly #maps = new Map<MapName, Map<string, number>>(MAPS.map(map => [map, new Map()]));
  /** Keys touched, with their values when last taken. */
  readonly #touched = new Map<MapName, Map<string, number | undefined>>(MAPS.map(map => [map, new Map()]));

  get(map: MapName, key: string): number | undefined {
    return this.#maps.get(map)!.get(key);
  }
  entries(map: MapName): ReadonlyMap<string, number> {
    return this.#maps.get(map)!;
  }
  set(map: MapName, key: string, value: number | undefined): void {
    const [entries, touched] = [this.#maps.get(map)!, this.#touched.get(map)!];
    const before = entries.get(key);
    if (before === value) return;
    if (!touched.has(key)) touched.set(key, before);
    if (value === undefined) entries.delete(key);
    else entries.set(key, value);
  }
  /** Differences since the last call. */
  takeChanges(): Change[] {
    const out: Change[] = [];
    for (const [map, touched] of this.#touched) {
      for (const [key, before] of touched) {
        const after = this.get(map, key);
        if (before !== after) out.push({ map, key, before, after });
      }
      touched.clear();
    }
    return out;
  }
}

/** Numbers of port lists begin here; those of classes stay below, so that one can be told from the other. */
export const LISTS_FROM = 0x8000_0000;

/** Port lists by number. A list exists in the table as long as an entry names it. */
export class PortLists {
  readonly #table: PolicyTable;
  readonly #render: (list: number, set: PortSet) => readonly string[];
  readonly #byKey = new Map<string, { readonly id: number; readonly set: PortSet; uses: number }>();
  readonly #byId = new Map<number, string>();
  #last = LISTS_FROM;

  constructor(table: PolicyTable, render: (list: number, set: PortSet) => readonly string[]) {
    this.#table = table;
    this.#render = render;
  }
  retain(set: PortSet): number {
    const key = keyOf(set);
    let list = this.#byKey.get(key);
    if (!list) {
      list = { id: ++this.#last, set, uses: 0 };
      this.#byKey.set(key, list);
      this.#byId.set(list.id, key);
      for (const rectangle of this.#render(list.id, set)) this.#table.set('ports', rectangle, 1);
    }
    list.uses++;
    return list.id;
  }
  release(id: number): void {
    const key = this.#byId.get(id)!;
    const list = this.#byKey.get(key)!;
    if (--list.uses > 0) return;
    this.#byKey.delete(key);
    this.#byId.delete(id);
    for (const rectangle of this.#render(id, list.set)) this.#table.set('ports', rectangle, undefined);
  }
}

const keys = new WeakMap<PortSet, string>();

export function keyOf(set: PortSet): string {
  let key = keys.get(set);
  if (key === undefined) keys.set(set, (key = set.join()));
  return key;
}
