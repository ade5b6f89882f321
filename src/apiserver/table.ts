/**
 * `meta.k8s.io/v1` Tables and PartialObjectMetadata, which clients ask for in the Accept header. Columns are the kind's;
 * kinds without any show Name and Age. Rows carry metadata, the whole object or nothing, as `includeObject` says.
 */

import type { Scale } from '../api/autoscaling/v1.gen.ts';
import type { Column, RowCondition } from '../api/kind.ts';
import { ageColumn, integer, nameColumn } from '../api/machinery/columns.ts';
import type { KubeObject, ListMeta } from '../api/meta.ts';
import { fieldOf } from '../api/schema-registry.ts';
import { describeColumn } from './column-descriptions.ts';
import type { Served } from './resource-table.ts';

export type IncludeObject = 'None' | 'Metadata' | 'Object';

interface TableRow {
  readonly cells: readonly (string | number | boolean | null)[];
  readonly conditions?: readonly RowCondition[];
  readonly object?: unknown;
}

export interface Table {
  readonly kind: 'Table';
  readonly apiVersion: string;
  readonly metadata: ListMeta;
  readonly columnDefinitions: readonly unknown[] | null;
  readonly rows: readonly TableRow[];
}

export function columnsOf(served: Served): readonly Column<KubeObject>[] {
  const columns = served.kind?.columns;
  return columns?.length ? columns : defaultColumns(served);
}

/** Of scales, whatever they are of. */
export const SCALE_COLUMNS = [
  { ...nameColumn, format: '' },
  {
    ...integer<Scale>('Desired', ({ spec }) => spec?.replicas),
    description: 'replicas is the desired number of instances for the scaled object.',
  },
  {
    ...integer<Scale>('Available', ({ status }) => status?.replicas),
    description: 'replicas is the actual number of observed instances of the scaled object.',
  },
  ageColumn,
] as readonly Column<KubeObject>[];

function defaultColumns({ stored }: Served): readonly Column<KubeObject>[] {
  // Without a creation time in its schema (componentstatuses have one too) a kind still shows its age.
  return fieldOf(stored.type, 'metadata') ? [nameColumn, ageColumn] : [nameColumn];
}

function definitionOf(column: Column<KubeObject>, kind: string): unknown {
  return {
    name: column.name,
    type: column.type,
    format: column.format ?? (column.name === 'Name' ? 'name' : ''),
    description: column.description ?? describeColumn(kind, column.name),
    priority: column.priority ?? 0,
  };
}

export function tableOf(
  served: Served,
  objects: readonly KubeObject[],
  options: {
    includeObject: IncludeObject;
    metadata: ListMeta;
    /** Objects as shown: the same, but in the version of the request. */
    shown: (object: KubeObject) => KubeObject;
    nowMs: number;
    /** meta.k8s.io version asked for. */
    version: string;
    /** False after the first event of a watch: clients keep the first definitions. */
    withColumns?: boolean;
    /** Other columns than the resource's. */
    columns?: readonly Column<KubeObject>[];
  },
): Table {
  const columns = options.columns ?? columnsOf(served);
  const { includeObject, shown, nowMs } = options;
  const { rowConditions: conditionsOf, rowOrder: byRank } = served.kind ?? {};
  return {
    kind: 'Table',
    apiVersion: `meta.k8s.io/${options.version}`,
    metadata: options.metadata,
    columnDefinitions:
      options.withColumns === false ? null : columns.map(column => definitionOf(column, served.info.kind)),
    rows: (byRank ? objects.toSorted((a, b) => byRank(a, b)) : objects).map(object => ({
      cells: columns.map(column => column.cell(object, nowMs)),
      ...(conditionsOf?.(object)?.length ? { conditions: conditionsOf(object) } : {}),
      object:
        includeObject === 'None'
          ? null
          : includeObject === 'Object'
            ? shown(object)
            : partialOf(object, options.version),
    })),
  };
}

export function partialOf(object: KubeObject, version: string): KubeObject {
  return { kind: 'PartialObjectMetadata', apiVersion: `meta.k8s.io/${version}`, metadata: object.metadata };
}
