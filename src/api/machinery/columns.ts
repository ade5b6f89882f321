/** Columns that many kinds share, as upstream's printers show them, and the texts of their cells. */

import type { Container } from '../core/v1.gen.ts';
import type { Column } from '../kind.ts';
import type { KubeObject } from '../meta.ts';
import { ageSince } from './duration.ts';

export const nameColumn: Column<KubeObject> = {
  name: 'Name',
  type: 'string',
  format: 'name',
  cell: object => object.metadata.name,
};

export const ageColumn: Column<KubeObject> = {
  name: 'Age',
  type: 'string',
  cell: (object, nowMs) => ageSince(object.metadata.creationTimestamp, nowMs),
};

type Cell<T> = Column<T>['cell'];

/** A column of text. */
export function text<T>(name: string, cell: Cell<T>): Column<T> {
  return { name, type: 'string', cell };
}

/** A column of text for `-o wide`. */
export function wideText<T>(name: string, cell: Cell<T>): Column<T> {
  return { name, type: 'string', priority: 1, cell };
}

/** A column of whole numbers; absent counts as 0. */
export function integer<T>(name: string, cell: (object: T) => number | undefined): Column<T> {
  return { name, type: 'integer', cell: object => cell(object) ?? 0 };
}

/** CONTAINERS and IMAGES of a pod template, both for `-o wide`. */
export function containerColumns<T>(containers: (object: T) => readonly Container[] | undefined): Column<T>[] {
  return [
    wideText('Containers', object => (containers(object) ?? []).map(container => container.name).join(',')),
    wideText('Images', object => (containers(object) ?? []).map(container => container.image).join(',')),
  ];
}

/** `a=1,b=2` with sorted keys, `<none>` when empty. */
export function formatLabels(labels: Readonly<Record<string, string>> | undefined): string {
  const keys = Object.keys(labels ?? {}).sort();
  return keys.length ? keys.map(key => `${key}=${labels![key]}`).join(',') : '<none>';
}

export function orNone(value: string | undefined): string {
  return value || '<none>';
}
